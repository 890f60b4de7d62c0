//! What people browse: machines by what is known of them, and what a machine's tags say. Pure.
//!
//! These statements cannot stand in files, as only the catalogue knows the tags' tables. Their names come from it alone:
//! what somebody typed is compared with them, and otherwise only ever a parameter.

use std::fmt::Write;

use crate::error::{Error, Result};
use crate::tag::{Tag, find, quoted};

/// How much of a value is read, in characters.
const MOST_TEXT: u32 = 20_000;
/// How many bytes of one.
const MOST_BYTES: u32 = 4_096;

/// Which machines to show, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Tags that they have, by name.
    pub having: Vec<String>,
    /// Tags that they have not.
    pub lacking: Vec<String>,
    /// leased, backoff, held, quarantined, idle; or "any" of these but idle.
    pub state: Option<String>,
    /// The statement that counts the machines that the process could lease now, if only these are wanted.
    pub backlog: Option<String>,
    /// Whether the state is one of a single process.
    pub process: bool,
    /// Whether ids are bounded, from `low` to `high`.
    pub bounded: bool,
    /// Whether the provider's id begins with something.
    pub provider: bool,
    /// By when they were made rather than by id.
    pub created: bool,
    /// Whether the last comes first.
    pub descending: bool,
    /// Whether it goes on after a machine: `after`, and with `created` when that was `made`.
    pub continued: bool,
}

/// A statement and the names of its parameters, `$1` first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Browsed {
    /// The text.
    pub sql: String,
    /// Which values it wants.
    pub params: Vec<&'static str>,
}

impl Browsed {
    /// The number of a parameter, which is added if it is new.
    fn param(&mut self, name: &'static str, kind: &str) -> String {
        let position = match self.params.iter().position(|known| *known == name) {
            Some(position) => position,
            None => {
                self.params.push(name);
                self.params.len() - 1
            }
        };
        format!("${}::{kind}", position + 1)
    }
}

/// The statement for one page of machines: at most `limit` of them with `machine_id` and `machine_created_at`.
///
/// Fails for a tag or a state that there is not.
pub fn machines(filter: &Filter, tags: &[Tag]) -> Result<Browsed> {
    let mut made = Browsed {
        sql: String::new(),
        params: Vec::new(),
    };
    let mut conditions = Vec::new();
    if let Some(backlog) = &filter.backlog {
        // It calls the process $1.
        made.param("process", "text");
        conditions.push(format!("m.machine_id IN (\n{}\n)", counted(backlog)));
    }
    for (names, not) in [(&filter.having, ""), (&filter.lacking, "NOT ")] {
        for name in names {
            let table = quoted(&find(tags, name)?.table);
            conditions.push(format!(
                "{not}EXISTS (SELECT 1 FROM {table} AS t WHERE t.machine_id = m.machine_id)"
            ));
        }
    }
    if filter.bounded {
        let (low, high) = (made.param("low", "uuid"), made.param("high", "uuid"));
        conditions.push(format!("m.machine_id BETWEEN {low} AND {high}"));
    }
    if filter.provider {
        let id = made.param("provider_id", "text");
        conditions.push(format!(
            "EXISTS (SELECT 1 FROM machine_provided AS p WHERE p.machine_id = m.machine_id \
             AND left(p.provider_id, length({id})) = {id})"
        ));
    }
    if let Some(state) = &filter.state {
        conditions.push(state_condition(state, filter.process, &mut made)?);
    }
    let (after, order) = (
        if filter.descending { "<" } else { ">" },
        if filter.descending { " DESC" } else { "" },
    );
    if filter.continued {
        let id = made.param("after", "uuid");
        conditions.push(if filter.created {
            let made_at = made.param("made", "timestamptz");
            format!("(m.machine_created_at, m.machine_id) {after} ({made_at}, {id})")
        } else {
            format!("m.machine_id {after} {id}")
        });
    }
    let mut sql = "SELECT m.machine_id, m.machine_created_at\nFROM machines AS m\n".to_owned();
    for (position, condition) in conditions.iter().enumerate() {
        let word = if position == 0 { "WHERE" } else { "    AND" };
        let _ = writeln!(sql, "{word} {condition}");
    }
    let limit = made.param("limit", "bigint");
    let created = if filter.created {
        format!("m.machine_created_at{order}, ")
    } else {
        String::new()
    };
    let _ = write!(sql, "ORDER BY {created}m.machine_id{order}\nLIMIT {limit}");
    made.sql = sql;
    Ok(made)
}

/// What `explain/backlog.sql` says of the machines that it finds.
const COUNT: &str = "SELECT count(*) AS machines";

/// The machines that a backlog counts: out of the very statement, so that there is no second version of it.
fn counted(backlog: &str) -> String {
    backlog.replacen(COUNT, "SELECT leasable.machine_id", 1)
}

/// The condition for machines in a state, for one process or for any.
fn state_condition(state: &str, one: bool, made: &mut Browsed) -> Result<String> {
    let kinds: &[(&str, &str, &str)] = &[
        ("leased", "work", ""),
        (
            "backoff",
            "work_backoff",
            " AND s.until > statement_timestamp() AND NOT EXISTS (SELECT 1 FROM work_loss AS l \
             WHERE l.machine_id = s.machine_id AND l.process = s.process AND l.quarantined_at IS NOT NULL)",
        ),
        (
            "held",
            "work_hold",
            " AND (s.until IS NULL OR s.until > statement_timestamp())",
        ),
        (
            "quarantined",
            "work_loss",
            " AND s.quarantined_at IS NOT NULL",
        ),
    ];
    let mut of = |(name, table, more): &(&str, &str, &str)| {
        let process = match (one, *name) {
            (false, _) => String::new(),
            (true, "held") => format!(" AND s.process IN ('', {})", made.param("process", "text")),
            (true, _) => format!(" AND s.process = {}", made.param("process", "text")),
        };
        format!(
            "EXISTS (SELECT 1 FROM {table} AS s WHERE s.machine_id = m.machine_id{process}{more})"
        )
    };
    match state {
        "any" => Ok(format!(
            "({})",
            kinds.iter().map(of).collect::<Vec<_>>().join(" OR ")
        )),
        "idle" => Ok(kinds
            .iter()
            .map(|kind| format!("NOT {}", of(kind)))
            .collect::<Vec<_>>()
            .join("\n    AND ")),
        state => kinds
            .iter()
            .find(|(name, ..)| *name == state)
            .map(of)
            .ok_or_else(|| Error::Value {
                message: format!(
                    "there is no state {state:?}: leased, backoff, held, quarantined, idle, or any"
                ),
                out_of_range: true,
            }),
    }
}

/// Asks these tags for the machines of its one parameter, an array of ids: `machine_id` and `tag`, by position.
#[must_use]
pub fn holders(tags: &[Tag]) -> String {
    let parts: Vec<String> = tags
        .iter()
        .enumerate()
        .map(|(position, tag)| {
            let table = quoted(&tag.table);
            format!(
                "SELECT machine_id, {position} AS tag FROM {table} WHERE machine_id = ANY($1::uuid[])"
            )
        })
        .collect();
    format!("{} ORDER BY tag, machine_id", parts.join(" UNION ALL "))
}

/// How many machines have each of these tags: `tag`, by position, and `count`.
#[must_use]
pub fn counts(tags: &[Tag]) -> String {
    let parts: Vec<String> = tags
        .iter()
        .enumerate()
        .map(|(position, tag)| {
            let table = quoted(&tag.table);
            format!("SELECT {position} AS tag, count(*) AS count FROM {table}")
        })
        .collect();
    format!("{} ORDER BY tag", parts.join(" UNION ALL "))
}

/// What these tags say of machine `$1`, a row for each field: `tag` and `field` by position (-1: the tag has none), its `text` as far as
/// somebody will read it (bytes as hex), its whole `size` in characters or bytes, and `epoch`, the seconds of a moment or a duration.
#[must_use]
pub fn values(tags: &[Tag]) -> String {
    let parts: Vec<String> = tags
        .iter()
        .enumerate()
        .map(|(position, tag)| {
            let table = quoted(&tag.table);
            let mut rows: Vec<String> = tag
                .fields
                .iter()
                .enumerate()
                .map(|(field, (name, kind))| format!("({field}, {})", value(&quoted(name), kind)))
                .collect();
            if rows.is_empty() {
                rows.push("(-1, NULL::text, NULL::bigint, NULL::float8)".to_owned());
            }
            format!(
                "SELECT {position} AS tag, v.field, v.text, v.size, v.epoch FROM {table} AS t CROSS JOIN LATERAL (VALUES {}) \
                 AS v (field, text, size, epoch) WHERE t.machine_id = $1::uuid",
                rows.join(", ")
            )
        })
        .collect();
    format!("{} ORDER BY tag, field", parts.join("\nUNION ALL "))
}

/// Text, size and seconds of one field.
fn value(field: &str, kind: &str) -> String {
    let field = format!("t.{field}");
    if kind == "bytea" {
        return format!(
            "encode(substring({field} from 1 for {MOST_BYTES}), 'hex'), octet_length({field})::bigint, NULL::float8"
        );
    }
    let moment = kind.starts_with("timestamp") && kind.ends_with("with time zone");
    let seconds = if moment || kind.starts_with("interval") {
        format!("extract(epoch from {field})::float8")
    } else {
        "NULL::float8".to_owned()
    };
    let text = if moment {
        format!("({field} AT TIME ZONE 'UTC')::text")
    } else if kind == "jsonb" {
        format!("jsonb_pretty({field})")
    } else {
        format!("{field}::text")
    };
    format!("left({text}, {MOST_TEXT}), char_length({text})::bigint, {seconds}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str, fields: &[(&str, &str)]) -> Tag {
        Tag {
            name: name.to_owned(),
            table: format!("machine_{name}"),
            fields: fields
                .iter()
                .map(|(field, kind)| ((*field).to_owned(), (*kind).to_owned()))
                .collect(),
            required: Vec::new(),
        }
    }

    #[test]
    fn all_machines_are_read_along_the_key() {
        let all = machines(&Filter::default(), &[]).unwrap();
        assert_eq!(
            all.sql,
            "SELECT m.machine_id, m.machine_created_at\nFROM machines AS m\nORDER BY m.machine_id\nLIMIT $1::bigint"
        );
        assert_eq!(all.params, ["limit"]);
    }

    #[test]
    fn a_filter_names_its_parameters_once_each() {
        let filter = Filter {
            having: vec!["odd\"; DROP".to_owned()],
            lacking: vec!["b".to_owned()],
            state: Some("any".to_owned()),
            backlog: None,
            process: true,
            bounded: true,
            created: true,
            descending: true,
            continued: true,
            provider: true,
        };
        let made = machines(&filter, &[tag("odd\"; DROP", &[]), tag("b", &[])]).unwrap();
        assert!(
            made.sql
                .contains("EXISTS (SELECT 1 FROM \"machine_odd\"\"; DROP\" AS t")
        );
        assert!(
            made.sql
                .contains("NOT EXISTS (SELECT 1 FROM \"machine_b\" AS t")
        );
        assert_eq!(
            made.params,
            [
                "low",
                "high",
                "provider_id",
                "process",
                "after",
                "made",
                "limit"
            ]
        );
        assert!(made.sql.ends_with(
            "AND (m.machine_created_at, m.machine_id) < ($6::timestamptz, $5::uuid)\n\
             ORDER BY m.machine_created_at DESC, m.machine_id DESC\nLIMIT $7::bigint"
        ));
    }

    #[test]
    fn a_backlog_is_told_machine_by_machine() {
        let backlog = crate::queries::EXPLAIN_BACKLOG.sql;
        assert_eq!(backlog.matches(COUNT).count(), 1);
        let filter = Filter {
            backlog: Some(backlog.to_owned()),
            bounded: true,
            ..Filter::default()
        };
        let made = machines(&filter, &[]).unwrap();
        assert!(made.sql.contains("SELECT leasable.machine_id\nFROM ("));
        assert!(!made.sql.contains("count(*)"));
        assert_eq!(made.params[0], "process");
    }

    #[test]
    fn what_is_not_known_is_no_part_of_a_statement() {
        let asked = |having: &str, state: Option<&str>| Filter {
            having: vec![having.to_owned()],
            state: state.map(str::to_owned),
            ..Filter::default()
        };
        let tags = [tag("a", &[])];
        assert!(machines(&asked("a", Some("idle")), &tags).is_ok());
        assert!(machines(&asked("a; DROP TABLE work", None), &tags).is_err());
        assert!(machines(&asked("a", Some("idle OR true")), &tags).is_err());
    }

    #[test]
    fn values_are_read_by_their_types() {
        let fields = [
            ("raw", "bytea"),
            ("at", "timestamp(3) with time zone"),
            ("took", "interval"),
            ("na\"me", "text"),
            ("facts", "jsonb"),
        ];
        let sql = values(&[tag("a", &fields), tag("none", &[])]);
        assert!(sql.contains("(0, encode(substring(t.\"raw\" from 1 for 4096), 'hex'), octet_length(t.\"raw\")::bigint, NULL::float8)"));
        assert!(sql.contains("extract(epoch from t.\"at\")::float8"));
        assert!(sql.contains("extract(epoch from t.\"took\")::float8"));
        assert!(sql.contains("left(jsonb_pretty(t.\"facts\"), 20000)"));
        assert!(sql.contains("left(t.\"na\"\"me\"::text, 20000)"));
        assert!(sql.contains("(-1, NULL::text, NULL::bigint, NULL::float8)"));
    }

    #[test]
    fn a_tables_name_is_quoted() {
        let tags = [tag("a", &[]), tag("\"; DROP", &[])];
        assert_eq!(
            holders(&tags),
            "SELECT machine_id, 0 AS tag FROM \"machine_a\" WHERE machine_id = ANY($1::uuid[]) UNION ALL \
             SELECT machine_id, 1 AS tag FROM \"machine_\"\"; DROP\" WHERE machine_id = ANY($1::uuid[]) \
             ORDER BY tag, machine_id"
        );
        assert!(counts(&tags).contains("FROM \"machine_\"\"; DROP\""));
    }
}
