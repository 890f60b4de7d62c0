//! Tags as the catalogue tells of them, and what work may change of them when it ends. Pure.

use std::fmt::Write;

use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::queries::cockroachdb::spoken;
use crate::value::Param;

/// A tag: a table `machine_<name>` whose primary key is `machine_id`, referencing `machines`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The table's name without `machine_`.
    pub name: String,
    /// The table.
    pub table: String,
    /// Its columns besides `machine_id`, with their types, in the table's order.
    pub fields: Vec<(String, String)>,
    /// Those of its columns that have no value by themselves and must have one.
    pub required: Vec<String>,
}

/// An identifier as SQL text.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The tag of this name, or an error that names those that there are.
pub fn find<'a>(tags: &'a [Tag], name: &str) -> Result<&'a Tag> {
    tags.iter().find(|tag| tag.name == name).ok_or_else(|| {
        let known: Vec<&str> = tags.iter().map(|tag| tag.name.as_str()).collect();
        invalid(format!(
            "there is no tag {name:?}: {}",
            if known.is_empty() {
                "the database has none".to_owned()
            } else {
                format!("the database has {}", known.join(", "))
            }
        ))
    })
}

fn invalid(message: String) -> Error {
    Error::Value {
        message,
        out_of_range: true,
    }
}

/// What the end of work changes of a tag.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The tag is there afterwards, with these values; columns that are not named keep theirs.
    Set {
        /// The tag's name.
        tag: String,
        /// Columns and values, each column once.
        values: Vec<(String, Param)>,
    },
    /// The tag is not there afterwards.
    Clear {
        /// The tag's name.
        tag: String,
    },
}

impl Change {
    /// The tag that it changes.
    #[must_use]
    pub fn tag(&self) -> &str {
        match self {
            Change::Set { tag, .. } | Change::Clear { tag } => tag,
        }
    }
}

/// The machines that are to be ended, as the list that they come in: narrows a table down by its key before anything is joined.
const THESE: &str = "ANY ($1::uuid[])";

/// The statement that ends work and makes changes of one shape: for all ends that differ in their values only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The text.
    pub sql: String,
    /// Whether it ends one lease at a time, since a column's type has no arrays to pass many values in.
    pub single: bool,
    /// How many parameters each end adds to those of the plain statement.
    pub columns: usize,
}

/// What tells shapes apart: `template` and the changes without their values.
#[must_use]
pub fn shape_key(template: &str, changes: &[Change]) -> String {
    let mut key = template.to_owned();
    for change in changes {
        match change {
            Change::Set { tag, values } => {
                let _ = write!(key, "\0+{tag}");
                for (column, _) in values {
                    let _ = write!(key, "\0{column}");
                }
            }
            Change::Clear { tag } => {
                let _ = write!(key, "\0-{tag}");
            }
        }
    }
    key
}

/// Writes changes into the text of an end, which has marks for the parameters' `types`, their `names`, what `ended` hands on
/// (`columns`) and the parts that make the `changes`; `given` is the number of parameters that it has already.
pub fn shape(
    dialect: Dialect,
    template: &str,
    given: usize,
    tags: &[Tag],
    changes: &[Change],
) -> Result<Shape> {
    let template = match dialect {
        Dialect::PostgreSql => template,
        Dialect::CockroachDb => spoken(template)?,
    };
    let [mut types, mut names, mut columns, mut parts]: [String; 4] = Default::default();
    let (mut count, mut single) = (0, false);
    // In one order, so that ends that touch the same tags do not deadlock.
    let mut ordered: Vec<&Change> = changes.iter().collect();
    ordered.sort_by_key(|change| change.tag());
    if let Some(twice) = ordered.windows(2).find(|two| two[0].tag() == two[1].tag()) {
        let tag = twice[0].tag();
        return Err(invalid(format!("tag {tag:?} is changed twice")));
    }
    // Parameters are numbered in the order given, so that the caller can pass them as they come.
    let mut positions = std::collections::HashMap::new();
    for change in changes {
        let tag = find(tags, change.tag())?;
        let Change::Set { values, .. } = change else {
            continue;
        };
        for (column, _) in values {
            let Some((_, kind)) = tag.fields.iter().find(|(name, _)| name == column) else {
                let known: Vec<&str> = tag.fields.iter().map(|(name, _)| name.as_str()).collect();
                return Err(invalid(format!(
                    "tag {:?} has no column {column:?}: it has {}",
                    tag.name,
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                )));
            };
            if positions
                .insert((tag.table.as_str(), column.as_str()), count)
                .is_some()
            {
                return Err(invalid(format!(
                    "column {column:?} of tag {:?} is set twice",
                    tag.name
                )));
            }
            count += 1;
            single |= kind.ends_with(']');
            let _ = write!(types, ", ${}::{}[]", given + count, unlimited(kind));
            let _ = write!(names, ", v{count}");
            let _ = write!(columns, ", wanted.v{count}");
        }
    }
    for (number, change) in ordered.into_iter().enumerate() {
        let tag = find(tags, change.tag())?;
        let table = quoted(&tag.table);
        match change {
            Change::Clear { .. } => {
                let _ = write!(
                    parts,
                    ", cleared_{number} AS (DELETE FROM {table} AS t WHERE t.machine_id = {THESE} \
                     AND EXISTS (SELECT 1 FROM ended WHERE ended.machine_id = t.machine_id OFFSET 0) RETURNING 1)"
                );
            }
            Change::Set { values, .. } => {
                let [mut into, mut from, mut update, mut change]: [String; 4] = Default::default();
                for (column, _) in values {
                    let position = positions[&(tag.table.as_str(), column.as_str())] + 1;
                    let column = quoted(column);
                    let _ = write!(into, ", {column}");
                    let _ = write!(from, ", ended.v{position}");
                    let comma = if update.is_empty() { "" } else { ", " };
                    let _ = write!(update, "{comma}{column} = excluded.{column}");
                    let _ = write!(change, "{comma}{column} = ended.v{position}");
                }
                let action = if update.is_empty() {
                    "NOTHING".to_owned()
                } else {
                    format!("UPDATE SET {update}")
                };
                // An insert wants a value for each column that must have one, even if it ends as an update: so where not
                // all of them are named, a tag that is there is updated, and only one that is not is inserted.
                let named = |required| values.iter().any(|(column, _)| column == required);
                let partial = !tag.required.iter().all(named) && !change.is_empty();
                let absent = if partial && dialect == Dialect::CockroachDb {
                    // There no statement changes a table twice: what is not named is taken from the row that is there. Nobody can
                    // delete it meanwhile without a conflict.
                    for required in tag.required.iter().filter(|required| !named(required)) {
                        let column = quoted(required);
                        let _ = write!(into, ", {column}");
                        let _ = write!(from, ", kept.{column}");
                    }
                    format!("LEFT JOIN {table} AS kept ON kept.machine_id = ended.machine_id ")
                } else if partial {
                    let _ = write!(
                        parts,
                        ", changed_{number} AS (UPDATE {table} AS t SET {change} FROM ended \
                         WHERE t.machine_id = {THESE} AND t.machine_id IS NOT DISTINCT FROM ended.machine_id \
                         RETURNING t.machine_id)"
                    );
                    format!(
                        "WHERE NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t.machine_id = ended.machine_id OFFSET 0) "
                    )
                } else {
                    String::new()
                };
                let _ = write!(
                    parts,
                    ", set_{number} AS (INSERT INTO {table} (machine_id{into}) \
                     SELECT ended.machine_id{from} FROM ended {absent}ORDER BY ended.machine_id \
                     ON CONFLICT (machine_id) DO {action} RETURNING machine_id)"
                );
                if partial && dialect == Dialect::PostgreSql {
                    // A tag that was there for the snapshot, and whose deletion was committed while the update waited for it, is
                    // neither updated nor inserted: all of it has to be done again.
                    let _ = write!(
                        parts,
                        ", missed_{number} AS (DELETE FROM {table} AS t WHERE t.machine_id = ANY (ARRAY(\
                         SELECT work_again() FROM ended \
                         WHERE ended.machine_id NOT IN (SELECT machine_id FROM changed_{number}) \
                         AND ended.machine_id NOT IN (SELECT machine_id FROM set_{number}))))"
                    );
                }
            }
        }
    }
    let mut sql = template
        .replace("/*types*/", &types)
        .replace("/*names*/", &names)
        .replace("/*columns*/", &columns)
        .replace("/*changes*/", &parts);
    if single {
        sql = alone(&sql, given);
    }
    Ok(Shape {
        sql,
        single,
        columns: count,
    })
}

/// A type's name without its length or precision: a cast to `varchar(8)` would cut a text silently, while storing it does not.
/// `character` and `bit` by themselves are of length 1, so their names without a length are others.
fn unlimited(kind: &str) -> String {
    let (base, array) = match kind.strip_suffix("[]") {
        Some(base) => (base, "[]"),
        None => (kind, ""),
    };
    let name = match (base.find('('), base.find(')')) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &base[..from], &base[to + 1..]),
        _ => base.to_owned(),
    };
    let name = match name.as_str() {
        "character" => "bpchar",
        "bit" => "bit varying",
        other => other,
    };
    format!("{name}{array}")
}

/// The same text for one lease, with plain values in place of arrays for the columns, which come after the first `given`
/// parameters: an array of arrays would be taken apart wholly.
fn alone(sql: &str, given: usize) -> String {
    let Some((head, rest)) = sql.split_once("unnest(") else {
        return sql.to_owned();
    };
    let Some((arguments, rest)) = rest.split_once(") WITH ORDINALITY") else {
        return sql.to_owned();
    };
    let value = |argument: &str| {
        let number = argument.trim_start_matches('$').split("::").next();
        match number.and_then(|number| number.parse::<usize>().ok()) {
            Some(number) if number > given => {
                argument.strip_suffix("[]").unwrap_or(argument).to_owned()
            }
            _ => format!("({argument})[1]"),
        }
    };
    let values: Vec<String> = arguments.split(", ").map(value).collect();
    format!("{head}(VALUES ({}, 1::bigint)){rest}", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "WITH wanted AS MATERIALIZED (\n    SELECT * FROM unnest($1::uuid[]/*types*/) WITH ORDINALITY AS u (machine_id/*names*/, position)\n), ended AS (DELETE FROM work RETURNING machine_id/*columns*/)/*changes*/ SELECT 1";

    fn tags() -> Vec<Tag> {
        let field = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        vec![
            Tag {
                name: "odd\"one".to_owned(),
                table: "machine_odd\"one".to_owned(),
                fields: vec![field("a", "integer"), field("list", "text[]")],
                required: vec!["list".to_owned()],
            },
            Tag {
                name: "bare".to_owned(),
                table: "machine_bare".to_owned(),
                fields: vec![],
                required: vec![],
            },
        ]
    }

    fn set(tag: &str, columns: &[&str]) -> Change {
        Change::Set {
            tag: tag.to_owned(),
            values: columns
                .iter()
                .map(|name| ((*name).to_owned(), Param::Null))
                .collect(),
        }
    }

    #[test]
    fn changes_are_written_with_quoted_names_and_numbered_parameters() {
        let clear = Change::Clear {
            tag: "bare".to_owned(),
        };
        let shape = shape(
            Dialect::PostgreSql,
            TEMPLATE,
            1,
            &tags(),
            &[set("odd\"one", &["a"]), clear],
        )
        .unwrap();
        assert!(
            shape.sql.contains("unnest($1::uuid[], $2::integer[])"),
            "{}",
            shape.sql
        );
        assert!(
            shape
                .sql
                .contains("INSERT INTO \"machine_odd\"\"one\" (machine_id, \"a\")")
        );
        assert!(shape.sql.contains("DELETE FROM \"machine_bare\""));
        assert_eq!((shape.columns, shape.single), (1, false));
    }

    #[test]
    fn a_column_of_arrays_goes_alone() {
        let shape = shape(
            Dialect::PostgreSql,
            TEMPLATE,
            1,
            &tags(),
            &[set("odd\"one", &["list", "a"])],
        )
        .unwrap();
        assert!(shape.single);
        assert!(
            shape.sql.contains("(VALUES (($1::uuid[])[1], $2::text[], $3::integer, 1::bigint)) AS u (machine_id, v1, v2, position)"),
            "{}",
            shape.sql
        );
    }

    #[test]
    fn a_tag_that_is_there_needs_no_values_for_columns_that_are_not_named() {
        let some = shape(
            Dialect::PostgreSql,
            TEMPLATE,
            1,
            &tags(),
            &[set("odd\"one", &["a"])],
        )
        .unwrap();
        assert!(
            some.sql
                .contains("UPDATE \"machine_odd\"\"one\" AS t SET \"a\" = ended.v1")
        );
        let all = shape(
            Dialect::PostgreSql,
            TEMPLATE,
            1,
            &tags(),
            &[set("odd\"one", &["a", "list"])],
        )
        .unwrap();
        assert!(!all.sql.contains("AS t SET"), "{}", all.sql);
    }

    #[test]
    fn a_tag_without_columns_is_only_there() {
        let shape = shape(
            Dialect::PostgreSql,
            TEMPLATE,
            1,
            &tags(),
            &[set("bare", &[])],
        )
        .unwrap();
        assert!(shape.sql.contains("ON CONFLICT (machine_id) DO NOTHING"));
    }

    #[test]
    fn what_is_not_there_is_refused_by_the_names_that_are() {
        let refused = |changes: &[Change]| {
            shape(Dialect::PostgreSql, TEMPLATE, 1, &tags(), changes)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&[set("none", &[])]).contains("odd\"one, bare"));
        assert!(refused(&[set("odd\"one", &["b"])]).contains("it has a, list"));
        assert!(refused(&[set("bare", &[]), set("bare", &[])]).contains("twice"));
        assert!(refused(&[set("odd\"one", &["a", "a"])]).contains("twice"));
    }

    #[test]
    fn a_types_length_is_left_to_the_column() {
        assert_eq!(unlimited("character varying(128)"), "character varying");
        assert_eq!(
            unlimited("timestamp(3) with time zone"),
            "timestamp with time zone"
        );
        assert_eq!(unlimited("numeric(10,2)"), "numeric");
        assert_eq!(unlimited("text"), "text");
        assert_eq!(unlimited("character(3)"), "bpchar");
        assert_eq!(unlimited("character(3)[]"), "bpchar[]");
        assert_eq!(unlimited("bit(3)"), "bit varying");
    }

    #[test]
    fn shapes_differ_by_all_but_the_values() {
        let keys = [
            shape_key("x", &[set("a", &["b"])]),
            shape_key("x", &[set("a", &["c"])]),
            shape_key("x", &[set("ab", &[])]),
            shape_key(
                "x",
                &[Change::Clear {
                    tag: "a".to_owned(),
                }],
            ),
            shape_key("y", &[set("a", &["b"])]),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
