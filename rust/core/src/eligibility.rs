//! Which machines need a process, as a declaration that is compiled into the claim. Pure.
//!
//! The claim adds what every claim has to see to: not leased by this process or one that excludes it, not in backoff, not
//! held by an operator, not in quarantine. Every look at another table is a subquery behind `OFFSET 0`, which the planner
//! does not turn into a join: each machine costs a handful of look-ups in indexes, whatever the statistics say.

pub mod questions;

use std::fmt::Write;

use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::queries;
use crate::tag::{Tag, find, quoted};
use crate::value::Param;

/// What a process asks of a machine.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Eligibility {
    /// Tags that it must have, by name.
    pub having: Vec<String>,
    /// Tags that it must not have, by name.
    pub lacking: Vec<String>,
    /// A condition over `machines` and the tables of the tags that it must have; parameters from `$1` on.
    pub condition: Option<String>,
    /// What the condition, the order and the statement refer to.
    pub params: Vec<Param>,
    /// An order over the same tables; without it the order is that of ids, from a random one on.
    pub order: Option<String>,
    /// A query for the machines in place of all that.
    pub sql: Option<String>,
}

/// The statements that claim by an eligibility. Their own parameters come after those of the eligibility.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Claims from a window of ids; from all machines where `windowed` is false.
    pub claim: String,
    /// Claims from what the attention table names.
    pub attend: String,
    /// Drops what is not eligible any more, and tells what stays.
    pub verify: String,
    /// The last id of a window.
    pub window_end: String,
    /// Whether ids are gone through window by window.
    pub windowed: bool,
    /// How many parameters the eligibility has itself.
    pub params: usize,
    /// Whether a text of the user's is part of them.
    pub users: bool,
}

impl Eligibility {
    /// What can be said without a database: contradictions.
    pub fn check(&self) -> Result<()> {
        let declared = !self.having.is_empty()
            || !self.lacking.is_empty()
            || self.condition.is_some()
            || self.order.is_some();
        if self.sql.is_some() && declared {
            return Err(invalid(
                "sql stands alone: leave out having, lacking, where and order_by, and say in the statement what they say",
            ));
        }
        if self.sql.is_none() && !declared {
            return Err(invalid(
                "an eligibility that asks for nothing makes every machine eligible for ever: give lacking=, where= or sql=",
            ));
        }
        for (position, name) in self.having.iter().enumerate() {
            if self.lacking.contains(name) {
                return Err(invalid(&format!(
                    "tag {name:?} is both in having and in lacking"
                )));
            }
            if self.having[..position].contains(name) {
                return Err(invalid(&format!("tag {name:?} is twice in having")));
            }
        }
        for (what, text) in [
            ("where", &self.condition),
            ("order_by", &self.order),
            ("sql", &self.sql),
        ] {
            if let Some(text) = text {
                check_text(what, text)?;
            }
        }
        self.check_params()
    }

    /// A text must not reach the parameters that the claim adds, and the server wants each of its own to be used.
    fn check_params(&self) -> Result<()> {
        let mut used = vec![false; self.params.len()];
        for text in [&self.condition, &self.order, &self.sql]
            .into_iter()
            .flatten()
        {
            for number in code(text).into_iter().flat_map(parameters) {
                match number.checked_sub(1).and_then(|at| used.get_mut(at)) {
                    Some(used) => *used = true,
                    None => {
                        return Err(invalid(&format!(
                            "the text refers to ${number}, and params has {} values",
                            self.params.len()
                        )));
                    }
                }
            }
        }
        match used.iter().position(|used| !used) {
            Some(at) => Err(invalid(&format!("no text refers to ${} of params", at + 1))),
            None => Ok(()),
        }
    }

    /// Writes the statements. Fails for a tag that the database does not have.
    pub fn compile(&self, dialect: Dialect, tags: &[Tag]) -> Result<Compiled> {
        self.check()?;
        let given = self.params.len();
        let windowed = self.sql.is_none() && self.order.is_none();
        let (source, eligible) = match &self.sql {
            Some(sql) => {
                let source = format!("(\n{sql}\n) AS machines");
                (source, "true".to_owned())
            }
            None => (
                self.source(tags, windowed, true)?,
                self.conditions(tags, true)?,
            ),
        };
        let order = self
            .order
            .as_ref()
            .map_or(String::new(), |order| format!("ORDER BY {order}\n"));
        let anchor = self.anchor(tags)?;
        let judged = |id: &str| match &self.sql {
            Some(sql) => Ok(format!(
                "{id} IN (SELECT machine_id FROM (\n{sql}\n) AS machines)"
            )),
            // With the order, since a parameter that only it refers to would have no type.
            None => self.one_machine(tags, id).map(|source| {
                format!("EXISTS (SELECT 1 FROM {source} WHERE {eligible} {order}OFFSET 0)")
            }),
        };
        let (attended, judged) = (judged("noticed.machine_id")?, judged("leased.machine_id")?);
        let fill = |template: &str| {
            renumbered(template, given)
                .replace("/*order*/", &order)
                .replace("/*anchor*/ machines", &quoted(&anchor))
                .replace("/*source*/ machines", &source)
                .replace(
                    "/*key*/ machines",
                    &if self.sql.is_some() {
                        "machines".to_owned()
                    } else {
                        quoted(&anchor)
                    },
                )
                .replace("/*eligible*/ true", &eligible)
                .replace("/*judged*/ true", &judged)
                .replace("/*attended*/ true", &attended)
        };
        Ok(Compiled {
            claim: fill(queries::CLAIM_SCAN.text(dialect)?),
            attend: fill(queries::CLAIM_ATTEND.sql),
            verify: fill(queries::CLAIM_VERIFY.text(dialect)?),
            window_end: queries::CLAIM_WINDOW_END
                .sql
                .replace("/*anchor*/ machines", &quoted(&anchor)),
            windowed,
            params: given,
            users: self.condition.is_some() || self.order.is_some() || self.sql.is_some(),
        })
    }

    /// The table whose ids are gone through: the first tag that a machine must have, as it has the fewest rows.
    fn anchor(&self, tags: &[Tag]) -> Result<String> {
        match self.having.first() {
            Some(name) => Ok(find(tags, name)?.table.clone()),
            None => Ok("machines".to_owned()),
        }
    }

    /// The rows to judge: the anchor's, and beside each the machine's other rows; `each` as for the conditions.
    fn source(&self, tags: &[Tag], windowed: bool, each: bool) -> Result<String> {
        let anchor = quoted(&self.anchor(tags)?);
        let rows = if windowed {
            format!("(SELECT * FROM {anchor} WHERE machine_id > /*after*/ ORDER BY machine_id LIMIT /*window*/) AS {anchor}")
                .replace("/*after*/", &format!("${}", self.params.len() + 4))
                .replace("/*window*/", &format!("${}", self.params.len() + 5))
        } else {
            anchor.clone()
        };
        self.beside(tags, rows, &format!("{anchor}.machine_id"), each)
    }

    /// The same for one machine.
    fn one_machine(&self, tags: &[Tag], id: &str) -> Result<String> {
        let anchor = quoted(&self.anchor(tags)?);
        let rows = format!("(SELECT * FROM {anchor} WHERE machine_id = {id} OFFSET 0) AS {anchor}");
        self.beside(tags, rows, id, true)
    }

    fn beside(&self, tags: &[Tag], mut source: String, id: &str, each: bool) -> Result<String> {
        let fence = if each { " OFFSET 0" } else { "" };
        let mut others: Vec<&str> = Vec::new();
        for name in self.having.iter().skip(1) {
            others.push(&find(tags, name)?.table);
        }
        let speaks_of_machines = |text: &Option<String>| {
            text.as_ref()
                .map(|text| text.to_ascii_lowercase())
                .is_some_and(|text| {
                    ["machine_created_at", "machines.", "\"machines\""]
                        .iter()
                        .any(|name| text.contains(name))
                })
        };
        if !self.having.is_empty()
            && (speaks_of_machines(&self.condition) || speaks_of_machines(&self.order))
        {
            others.push("machines");
        }
        for table in others {
            let table = quoted(table);
            let _ = write!(
                source,
                "\n        CROSS JOIN LATERAL (SELECT * FROM {table} WHERE {table}.machine_id = {id}{fence}) AS {table}"
            );
        }
        Ok(source)
    }

    /// What must hold of the rows besides what every claim sees to. `each`: looked up for one row after the other, rather than for all
    /// at once.
    fn conditions(&self, tags: &[Tag], each: bool) -> Result<String> {
        let id = format!("{}.machine_id", quoted(&self.anchor(tags)?));
        let fence = if each { " OFFSET 0" } else { "" };
        let mut conditions = Vec::new();
        for name in &self.lacking {
            let table = quoted(&find(tags, name)?.table);
            conditions.push(format!(
                "NOT EXISTS (SELECT 1 FROM {table} AS lacking WHERE lacking.machine_id = {id}{fence})"
            ));
        }
        if let Some(condition) = &self.condition {
            conditions.push(format!("(\n{condition}\n)"));
        }
        if conditions.is_empty() {
            conditions.push("true".to_owned());
        }
        Ok(conditions.join("\n        AND "))
    }
}

fn invalid(message: &str) -> Error {
    Error::Value {
        message: message.to_owned(),
        out_of_range: true,
    }
}

/// Refuses a text that would break out of its place: an empty one, one with NUL, or with parentheses that do not match.
fn check_text(what: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(invalid(&format!("{what} is empty: leave it out")));
    }
    if text.contains('\0') {
        return Err(invalid(&format!("{what} contains a NUL character")));
    }
    let mut depth = 0_i64;
    for part in code(text) {
        for character in part.chars() {
            match character {
                '(' => depth += 1,
                ')' => depth -= 1,
                ';' => {
                    return Err(invalid(&format!(
                        "{what} contains a semicolon: it is one expression or statement, without an end"
                    )));
                }
                _ => {}
            }
            if depth < 0 {
                break;
            }
        }
    }
    if depth != 0 {
        return Err(invalid(&format!(
            "{what} has parentheses that do not match"
        )));
    }
    if let Some(table) = leases_looked_at(text) {
        return Err(invalid(&format!(
            "{what} looks at {table}, where the lease itself stands by the time that it is judged again, so nothing would \
             ever be leased: leave that out, every claim sees to leases, backoffs, losses and holds itself"
        )));
    }
    Ok(())
}

/// A table of leases that the text selects from.
fn leases_looked_at(text: &str) -> Option<&'static str> {
    let code = code(text).join(" ").to_ascii_lowercase();
    let words: Vec<&str> = code
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
        .filter(|word| !word.is_empty())
        .collect();
    words.windows(2).find_map(|two| {
        let table = two[1].rsplit('.').next().unwrap_or(two[1]);
        let from = matches!(two[0], "from" | "join");
        ["work", "work_token"]
            .into_iter()
            .find(|leases| from && *leases == table)
    })
}

/// The parts of an SQL text outside strings, quoted names and comments.
fn code(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut parts, mut begun, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        match end_of_quoted(bytes, at) {
            Some(end) => {
                parts.push(&text[begun..at]);
                (begun, at) = (end, end);
            }
            None => at += 1,
        }
    }
    parts.push(&text[begun..]);
    parts
}

/// Where the string, quoted name or comment ends that begins here; at the text's end if it does not end.
fn end_of_quoted(text: &[u8], at: usize) -> Option<usize> {
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
    let follows_name = |at: usize| at > 0 && named(&text[at - 1]);
    let find = |mark: &[u8], from: usize| {
        let found = text[from..]
            .windows(mark.len())
            .position(|part| part == mark);
        found.map_or(text.len(), |to| from + to + mark.len())
    };
    match text[at..] {
        [b'\'', ..] => {
            let escapes =
                at > 0 && text[at - 1].eq_ignore_ascii_case(&b'e') && !follows_name(at - 1);
            Some(end_of_string(text, at + 1, escapes))
        }
        [b'"', ..] => Some(find(b"\"", at + 1)),
        [b'-', b'-', ..] => Some(find(b"\n", at + 2)),
        [b'/', b'*', ..] => Some(end_of_comment(text, at + 2)),
        [b'$', ..] if !follows_name(at) => {
            let tag = text[at + 1..].iter().take_while(|byte| named(byte)).count();
            let mark = text.get(at..at + tag + 2)?;
            let is_tag = mark.ends_with(b"$") && !mark[1].is_ascii_digit();
            is_tag.then(|| find(mark, at + mark.len()))
        }
        _ => None,
    }
}

fn end_of_string(text: &[u8], mut at: usize, escapes: bool) -> usize {
    while at < text.len() {
        match text[at..] {
            [b'\\', _, ..] if escapes => at += 2,
            [b'\'', b'\'', ..] => at += 2,
            [b'\'', ..] => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Comments of this kind may stand inside one another.
fn end_of_comment(text: &[u8], mut at: usize) -> usize {
    let mut depth = 1;
    while at < text.len() {
        match text[at..] {
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The numbers of the parameters that a part of a text refers to.
fn parameters(part: &str) -> Vec<usize> {
    let numbered = |after: &str| {
        let digits = after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
        // One that is too large refers to nothing, as does one past the end.
        (digits > 0).then(|| after[..digits].parse().unwrap_or(usize::MAX))
    };
    part.split('$').skip(1).filter_map(numbered).collect()
}

/// A statement of ours with its parameters numbered after `given` others.
fn renumbered(sql: &str, given: usize) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        if let Ok(number) = rest[..digits].parse::<usize>() {
            let _ = write!(text, "{}", number + given);
            rest = &rest[digits..];
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> Vec<Tag> {
        ["provided", "agent_started"]
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
            lacking: vec!["agent_started".to_owned()],
            condition: Some("machine_provided.provider = $1 -- mind the (comment".to_owned()),
            params: vec![Param::Text("Equinix".to_owned())],
            ..Eligibility::default()
        }
    }

    #[test]
    fn our_parameters_come_after_the_users() {
        assert_eq!(renumbered("a = $1 AND b = $12", 2), "a = $3 AND b = $14");
        let compiled = eligibility().compile(Dialect::PostgreSql, &tags()).unwrap();
        assert!(compiled.claim.contains("machine_provided.provider = $1 --"));
        assert!(
            compiled.claim.contains("machine_id > $5"),
            "{}",
            compiled.claim
        );
        assert!(!compiled.claim.contains("/*"), "{}", compiled.claim);
        assert!(!compiled.verify.contains("/*"), "{}", compiled.verify);
        assert!(!compiled.attend.contains("/*"), "{}", compiled.attend);
    }

    #[test]
    fn an_unknown_tag_is_told_with_those_that_are_known() {
        let mut wanted = eligibility();
        wanted.lacking.push("agent_stared".to_owned());
        let told = wanted
            .compile(Dialect::PostgreSql, &tags())
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("agent_stared") && told.contains("provided, agent_started"),
            "{told}"
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |change: &dyn Fn(&mut Eligibility)| {
            let mut wanted = eligibility();
            change(&mut wanted);
            wanted.check().unwrap_err().to_string()
        };
        assert!(refused(&|e| e.lacking.push("provided".to_owned())).contains("both"));
        assert!(refused(&|e| e.having.push("provided".to_owned())).contains("twice"));
        assert!(refused(&|e| e.sql = Some("SELECT 1".to_owned())).contains("alone"));
        assert!(
            refused(&|e| e.condition = Some("true) OR (true".to_owned())).contains("parentheses")
        );
        assert!(
            refused(&|e| e.condition = Some("true; DROP TABLE work".to_owned()))
                .contains("semicolon")
        );
        assert!(refused(&|e| e.condition = Some(" ".to_owned())).contains("empty"));
        assert!(Eligibility::default().check().is_err());
    }

    #[test]
    fn a_look_at_the_leases_themselves_is_refused() {
        let refused = |sql: &str| {
            check_text("sql", sql).is_err_and(|error| error.to_string().contains("looks at work"))
        };
        assert!(refused(
            "SELECT machine_id FROM machines WHERE NOT EXISTS (SELECT 1 FROM work w)"
        ));
        assert!(refused(
            "SELECT m.machine_id FROM machines m LEFT JOIN public.work USING (machine_id)"
        ));
        assert!(!refused(
            "SELECT machine_id FROM work_orders WHERE work > 1 AND note <> 'from work'"
        ));
    }

    #[test]
    fn strings_and_comments_are_not_code() {
        assert!(check_text("where", "a = ')' AND \"b)\" = $$)$$ /* ) */ -- )").is_ok());
        assert!(check_text("where", "(a").is_err());
    }
}
