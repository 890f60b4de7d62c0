//! What people ask about an eligibility: which machines need the process, how many of them could be leased now, and what of it one
//! machine does not meet. Pure.

use super::{Eligibility, code};
use crate::error::Result;
use crate::queries;
use crate::tag::{Tag, find, quoted};

impl Eligibility {
    /// The same with the parameters written into the texts, as these SQL literals, so that it says all by itself. Numbers in
    /// strings and comments are left alone.
    #[must_use]
    pub fn written(&self, literals: &[String]) -> Eligibility {
        let write_in = |text: &Option<String>| {
            text.as_ref().map(|text| {
                let mut written = String::with_capacity(text.len());
                let mut rest = text.as_str();
                for part in code(text) {
                    // What lies between two parts of code is a string, a quoted name or a comment.
                    let at = part.as_ptr() as usize - text.as_ptr() as usize;
                    let before = at - (text.len() - rest.len());
                    written.push_str(&rest[..before]);
                    written.push_str(&with_literals(part, literals));
                    rest = &rest[before + part.len()..];
                }
                written.push_str(rest);
                written
            })
        };
        Eligibility {
            having: self.having.clone(),
            lacking: self.lacking.clone(),
            condition: write_in(&self.condition),
            params: Vec::new(),
            order: write_in(&self.order),
            sql: write_in(&self.sql),
        }
    }

    /// The query for all machines that need it, whatever keeps workers from them; with the order, if there is one.
    pub fn statement(&self, tags: &[Tag]) -> Result<String> {
        if let Some(sql) = &self.sql {
            return Ok(format!(
                "SELECT machines.machine_id FROM (\n{sql}\n) AS machines"
            ));
        }
        let anchor = quoted(&self.anchor(tags)?);
        let order = self
            .order
            .as_ref()
            .map_or(String::new(), |order| format!("\nORDER BY {order}"));
        Ok(format!(
            "SELECT {anchor}.machine_id\nFROM {}\nWHERE {}{order}",
            self.source(tags, false, false)?,
            self.conditions(tags, false)?
        ))
    }

    /// A query about machine `$1`: which of the tags it has, in the order of `having` and `lacking`, whether the condition (or the
    /// query) holds of it, and whether it is eligible after all. Tags that are not there are left out: NULL.
    pub fn examined(&self, tags: &[Tag]) -> Result<String> {
        const MACHINE: &str = "$1::uuid";
        let has = |name: &String| match find(tags, name) {
            Ok(tag) => format!(
                "EXISTS (SELECT 1 FROM {} AS t WHERE t.machine_id = {MACHINE})",
                quoted(&tag.table)
            ),
            Err(_) => "NULL::boolean".to_owned(),
        };
        let array = |names: &[String]| {
            let asked: Vec<String> = names.iter().map(has).collect();
            format!("ARRAY[{}]::boolean[]", asked.join(", "))
        };
        let known = self
            .having
            .iter()
            .chain(&self.lacking)
            .all(|name| find(tags, name).is_ok());
        let (holds, eligible) = if let Some(sql) = &self.sql {
            let among = format!("{MACHINE} IN (SELECT machine_id FROM (\n{sql}\n) AS machines)");
            (among.clone(), among)
        } else if known {
            let source = self.one_machine(tags, MACHINE)?;
            let holds = self
                .condition
                .as_ref()
                .map_or("true".to_owned(), |condition| {
                    format!("EXISTS (SELECT 1 FROM {source} WHERE (\n{condition}\n))")
                });
            let conditions = self.conditions(tags, true)?;
            (
                holds,
                format!("EXISTS (SELECT 1 FROM {source} WHERE {conditions})"),
            )
        } else {
            ("NULL::boolean".to_owned(), "false".to_owned())
        };
        Ok(format!(
            "SELECT {} AS having, {} AS lacking, {holds} AS holds, {eligible} AS eligible WHERE {MACHINE} IS NOT NULL",
            array(&self.having),
            array(&self.lacking)
        ))
    }

    /// The machines that workers of process `$1` could lease now. What a claim asks is cut out of its statement, so that there is
    /// no second version of it; it is asked of all machines at once, so the planner may join. `ordered`: by id where the
    /// eligibility has no order of its own.
    fn leasable(&self, tags: &[Tag], ordered: bool) -> Result<String> {
        let asked = cut(
            queries::CLAIM_SCAN.sql,
            "SELECT /*key*/",
            "OFFSET 0\n    ) AS eligible",
        )
        .replace(LIVE, "")
        .replace(" OFFSET 0\n", "\n")
        // A clock that stands still while the statement runs leaves the planner its joins.
        .replace("clock_timestamp()", "statement_timestamp()")
        .replace("$2::text", "$1::text");
        let key = match &self.sql {
            Some(_) => "machines".to_owned(),
            None => quoted(&self.anchor(tags)?),
        };
        let (source, eligible) = match &self.sql {
            Some(sql) => (format!("(\n{sql}\n) AS machines"), "true".to_owned()),
            None => (
                self.source(tags, false, false)?,
                self.conditions(tags, false)?,
            ),
        };
        let order = match &self.order {
            Some(order) => format!("ORDER BY {order}"),
            None if ordered && self.sql.is_none() => format!("ORDER BY {key}.machine_id"),
            None => String::new(),
        };
        Ok(asked
            .replace("/*key*/ machines", &key)
            .replace("/*order*/", &order)
            .replace("/*source*/ machines", &source)
            .replace("/*eligible*/ true", &eligible))
    }

    /// How many machines workers of process `$1` could lease now, and which place machine `$2` has among them.
    pub fn place(&self, tags: &[Tag]) -> Result<String> {
        let leasable = self.leasable(tags, true)?;
        Ok(filled(queries::EXPLAIN_PLACE.sql, &leasable))
    }
}

/// A claim's own condition.
const LIVE: &str = "            AND EXISTS (SELECT 1 FROM live)\n";

/// How many machines workers of process `$1` could lease now, by one of these eligibilities without parameters.
pub fn backlog(eligibilities: &[Eligibility], tags: &[Tag]) -> Result<String> {
    let each = eligibilities.iter().map(|wanted| {
        let leasable = wanted.leasable(tags, false)?;
        Ok(format!(
            "SELECT DISTINCT machine_id FROM (\n{leasable}\n) AS one"
        ))
    });
    let any = each.collect::<Result<Vec<String>>>()?.join("\nUNION\n");
    Ok(filled(queries::EXPLAIN_BACKLOG.sql, &any))
}

fn filled(template: &str, leasable: &str) -> String {
    let rival = cut(
        queries::CLAIM_SCAN.sql,
        "rival AS MATERIALIZED",
        ", candidate AS",
    )
    .replace("$2::text", "$1::text");
    template
        .replace(
            "/*rival*/ rival AS MATERIALIZED (SELECT ARRAY[$1::text] AS names)",
            &rival,
        )
        .replace("/*leasable*/ SELECT machine_id FROM machines", leasable)
}

/// The part of a statement of ours from `start` to before `end`.
fn cut<'a>(sql: &'a str, start: &str, end: &str) -> &'a str {
    let from = sql.find(start).expect("a statement of ours has this part");
    let length = sql[from..]
        .find(end)
        .expect("a statement of ours ends this part so");
    &sql[from..from + length]
}

/// A part of a text outside strings and comments, its parameters replaced.
fn with_literals(part: &str, literals: &[String]) -> String {
    let mut pieces = part.split('$');
    let mut written = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(piece.len());
        let literal = piece[..digits]
            .parse::<usize>()
            .ok()
            .and_then(|number| literals.get(number.checked_sub(1)?));
        match literal {
            Some(literal) => {
                written.push_str(literal);
                written.push_str(&piece[digits..]);
            }
            None => {
                written.push('$');
                written.push_str(piece);
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Param;

    fn tags() -> Vec<Tag> {
        ["provided", "started", "held"]
            .map(|name| Tag {
                name: name.to_owned(),
                table: format!("machine_{name}"),
                fields: vec![],
                required: vec![],
            })
            .to_vec()
    }

    fn eligibility() -> Eligibility {
        Eligibility {
            having: vec!["provided".to_owned()],
            condition: Some("provider = $1".to_owned()),
            params: vec![Param::Text("x".to_owned())],
            ..Eligibility::default()
        }
    }

    #[test]
    fn parameters_are_written_into_code_alone() {
        let wanted = Eligibility {
            condition: Some("a = $1 AND b = '$1' -- $2\nAND c = $2::int AND d = $1".to_owned()),
            params: vec![Param::Text("x".to_owned()), Param::Int(5)],
            ..eligibility()
        };
        let written = wanted.written(&["'it''s'".to_owned(), "5".to_owned()]);
        assert_eq!(
            written.condition.as_deref(),
            Some("a = 'it''s' AND b = '$1' -- $2\nAND c = 5::int AND d = 'it''s'")
        );
        assert!(written.params.is_empty());
        assert!(written.check().is_ok());
    }

    #[test]
    fn strings_of_all_kinds_are_no_code() {
        let left_alone = [
            r"E'a\'\\b$1'",
            "'it''s $1'",
            "$$ $1 $$",
            "$tag$ ' $1 $$ $tag$",
            "\"a $1\"",
            "/* $1 /* $1 */ $1 */",
            "-- $1\n",
        ];
        for text in left_alone {
            let condition = format!("a = $1 AND b = {text} AND c = $1");
            let wanted = Eligibility {
                condition: Some(condition),
                params: vec![Param::Int(5)],
                ..eligibility()
            };
            wanted.check().unwrap();
            assert_eq!(
                wanted.written(&["5".to_owned()]).condition,
                Some(format!("a = 5 AND b = {text} AND c = 5"))
            );
        }
        // No string with escapes, since this E belongs to a name; no quote, since this dollar does.
        for (text, written) in [
            (r"name'\' || $1", r"name'\' || 5"),
            ("a$b$ + $1", "a$b$ + 5"),
        ] {
            let wanted = Eligibility {
                condition: Some(text.to_owned()),
                ..eligibility()
            };
            assert_eq!(
                wanted.written(&["5".to_owned()]).condition.as_deref(),
                Some(written)
            );
        }
    }

    #[test]
    fn what_a_claim_asks_is_asked_of_all_machines() {
        let mut written = eligibility().written(&["'x'".to_owned()]);
        written.having.push("started".to_owned());
        written.lacking = vec!["held".to_owned()];
        let asked = backlog(std::slice::from_ref(&written), &tags()).unwrap();
        for table in [
            "work AS w",
            "work_backoff",
            "work_loss",
            "work_hold",
            "process_exclusion",
        ] {
            assert!(asked.contains(table), "{asked}");
        }
        for left in ["/*", "$2", "OFFSET", "live", "clock_timestamp"] {
            assert!(!asked.contains(left), "{left} in {asked}");
        }
        assert!(
            written
                .place(&tags())
                .unwrap()
                .contains("ORDER BY \"machine_provided\".machine_id")
        );
    }

    #[test]
    fn a_tag_that_is_not_there_is_an_error_for_all_machines_and_an_answer_for_one() {
        let wanted = Eligibility {
            lacking: vec!["nothing".to_owned()],
            ..Eligibility::default()
        };
        assert!(backlog(std::slice::from_ref(&wanted), &tags()).is_err());
        let examined = wanted.examined(&tags()).unwrap();
        assert!(examined.contains("ARRAY[NULL::boolean]"), "{examined}");
    }
}
