use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;

/// What CockroachDB has not, does not do, or does without effect.
const LACKING: &[&str] = &[
    "pg_advisory",
    "pg_try_advisory",
    "pg_notify",
    "listen ",
    "hashtext",
    "uuid_hash",
    "xid8",
    "xmin",
    "ctid",
    "tableoid",
    "pg_current_xact_id",
    "pg_xact_status",
    "pg_stat_",
    "pg_locks",
    "pg_terminate_backend",
    "pg_blocking_pids",
    "pg_control_system",
    "pg_is_in_recovery",
    "make_interval",
    "starts_with",
    "collate",
    "-infinity",
    "for key share",
    "for no key update",
    "for share",
    "plpgsql",
    "do $",
    "partition",
    "brin",
    "fillfactor",
    "autovacuum",
    " using brin",
    "delete from work as w using",
    "work_again(",
];

fn code(sql: &str) -> String {
    let lines = sql
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    lines.collect::<Vec<_>>().join("\n").to_lowercase()
}

fn sent() -> Vec<(&'static str, &'static str)> {
    ALL.iter()
        .filter_map(|query| text(query).ok().map(|sql| (query.name, sql)))
        .collect()
}

fn parameters(sql: &str) -> BTreeSet<u32> {
    let numbers = sql.split('$').skip(1);
    numbers
        .filter_map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect()
}

/// The tables that a statement changes, in order.
fn changed(sql: &str) -> Vec<String> {
    let words: Vec<&str> = sql
        .split(|c: char| c.is_whitespace() || c == '(' || c == ')')
        .filter(|word| !word.is_empty())
        .collect();
    let mut tables = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let table = match *word {
            "insert" | "delete" => words.get(at + 2),
            // Neither FOR UPDATE nor DO UPDATE.
            "update" if at == 0 || !matches!(words[at - 1], "for" | "do") => words.get(at + 1),
            _ => None,
        };
        if let Some(table) = table {
            tables.push(
                table
                    .trim_matches(|c: char| !c.is_alphanumeric() && c != '_')
                    .to_owned(),
            );
        }
    }
    tables
}

#[test]
fn every_variant_that_is_there_is_used_and_is_of_a_statement() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
    let mut files = BTreeSet::new();
    for folder in fs::read_dir(root).unwrap().map(std::result::Result::unwrap) {
        for file in fs::read_dir(folder.path())
            .unwrap()
            .map(std::result::Result::unwrap)
        {
            let name = file.file_name().to_str().unwrap().to_owned();
            if let Some(stem) = name.strip_suffix(".cockroachdb.sql") {
                files.insert(format!("{}_{stem}", folder.file_name().to_str().unwrap()));
            }
        }
    }
    let own = VARIANTS
        .iter()
        .filter(|(_, variant)| matches!(variant, Variant::Own(_)));
    let used: BTreeSet<String> = own.map(|(query, _)| query.name.to_owned()).collect();
    assert_eq!(used, files);
    assert_eq!(
        BY_TEXT.len(),
        VARIANTS.len(),
        "two statements have one text"
    );
}

#[test]
fn nothing_is_sent_that_cockroachdb_lacks() {
    for (name, sql) in sent() {
        let code = code(sql);
        for lacking in LACKING {
            assert!(!code.contains(lacking), "{name} has {lacking:?}");
        }
    }
}

#[test]
fn no_statement_changes_a_table_twice() {
    for (name, sql) in sent() {
        let tables = changed(&code(sql));
        let distinct: BTreeSet<&String> = tables.iter().collect();
        assert_eq!(tables.len(), distinct.len(), "{name} changes {tables:?}");
    }
    assert_eq!(
        changed(
            "with a as (delete from x returning 1) insert into x select 1 on conflict do update set a = 1"
        ),
        ["x", "x"]
    );
}

#[test]
fn what_is_changed_within_with_is_returned() {
    for (name, sql) in sent() {
        let code = code(sql);
        let within = code.matches("as (\n    insert").count()
            + code.matches("as (\n    delete").count()
            + code.matches("as (\n    update").count()
            + code.matches("as (\n    -- ").count();
        let returned = code.matches("returning").count();
        assert!(
            returned >= within,
            "{name}: {within} changes, {returned} RETURNING"
        );
    }
}

#[test]
fn a_variant_takes_the_same_parameters_and_has_the_same_marks() {
    for (query, variant) in VARIANTS {
        let Variant::Own(own) = variant else { continue };
        let mut wanted = parameters(query.sql);
        if [&SESSION_FENCE, &SESSION_FENCE_KEYED].contains(query) {
            // And the connection's number.
            wanted.insert(wanted.len() as u32 + 1);
        }
        assert_eq!(parameters(own), wanted, "{}", query.name);
        for mark in [
            "/*types*/",
            "/*names*/",
            "/*columns*/",
            "/*changes*/",
            "/*eligible*/ true",
            "/*judged*/ true",
            "/*source*/ machines",
            "/*order*/",
        ] {
            assert_eq!(
                own.contains(mark),
                query.sql.contains(mark),
                "{}: {mark}",
                query.name
            );
        }
    }
}

#[test]
fn what_cannot_be_had_is_refused_in_words() {
    assert!(spoken("SELECT 1").is_ok_and(|sql| sql == "SELECT 1"));
    assert!(spoken(WORK_CLAIM.sql).is_ok_and(|sql| sql.contains("LIMIT 1")));
    let refused = spoken(WORK_NOTIFY.sql).unwrap_err().to_string();
    assert!(
        refused.contains("CockroachDB") && refused.contains("hints"),
        "{refused}"
    );
}
