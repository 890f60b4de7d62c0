//! What differs between the servers, asked of the server itself.

use crate::error::{Error, Result};
use crate::retry::Protocol;

/// How strictly concurrent transactions are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// As if transactions ran one after the other.
    #[default]
    Serializable,
    /// One snapshot for the whole transaction.
    RepeatableRead,
    /// A snapshot for each statement.
    ReadCommitted,
    /// One snapshot, in which nothing can be written. For looks of our own.
    ReadOnly,
}

impl Isolation {
    /// Reads "serializable", "repeatable read" or "read committed" (case and underscores do not matter).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().replace(['_', '-'], " ").as_str() {
            "serializable" => Some(Isolation::Serializable),
            "repeatable read" => Some(Isolation::RepeatableRead),
            "read committed" => Some(Isolation::ReadCommitted),
            _ => None,
        }
    }

    /// The name in SQL's own words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Isolation::Serializable => "serializable",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::ReadCommitted => "read committed",
            Isolation::ReadOnly => "repeatable read, read only",
        }
    }

    /// A claim by callback judges its machines on one snapshot, whatever the connection's default.
    #[must_use]
    pub fn at_least_one_snapshot(self) -> Self {
        match self {
            Isolation::ReadCommitted => Isolation::RepeatableRead,
            other => other,
        }
    }
}

/// What the transactions of a pool may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Read and write.
    #[default]
    ReadWrite,
    /// Look, without being in anybody's way: the server refuses whatever writes, and ends what takes too long.
    ReadOnly {
        /// Where there are replicas, the nearest one's state of some seconds ago will do.
        weak: bool,
    },
}

impl Access {
    /// What a new connection is set to, for statements outside transactions too.
    #[must_use]
    pub fn settings(self) -> Option<&'static str> {
        match self {
            Access::ReadWrite => None,
            Access::ReadOnly { .. } => Some(
                "SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = on; \
                 SET statement_timeout = '1s'",
            ),
        }
    }
}

/// The kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// PostgreSQL and what behaves like it.
    #[default]
    PostgreSql,
    /// CockroachDB, which retries through a savepoint and has no transaction ids to ask about.
    CockroachDb,
}

impl Dialect {
    /// Reads the server's own version banner.
    #[must_use]
    pub fn from_version(version: &str) -> Self {
        if version.starts_with("CockroachDB") {
            Dialect::CockroachDb
        } else {
            Dialect::PostgreSql
        }
    }

    /// How a transaction is run again.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Dialect::PostgreSql => Protocol::Rollback,
            Dialect::CockroachDb => Protocol::Savepoint,
        }
    }

    /// Opens a transaction. Where nothing may be written it is READ COMMITTED, or one snapshot, whatever else is asked: it then
    /// conflicts with nobody.
    #[must_use]
    pub fn begin(self, isolation: Isolation, access: Access) -> &'static str {
        match (self, access, isolation) {
            (Dialect::PostgreSql, _, Isolation::ReadOnly) => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
            }
            (Dialect::PostgreSql, Access::ReadOnly { .. }, _) => {
                "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
            }
            (Dialect::PostgreSql, Access::ReadWrite, Isolation::Serializable) => {
                "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE"
            }
            (Dialect::PostgreSql, Access::ReadWrite, Isolation::RepeatableRead) => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE"
            }
            (Dialect::PostgreSql, Access::ReadWrite, Isolation::ReadCommitted) => {
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
            }
            (Dialect::CockroachDb, Access::ReadOnly { weak: true }, _) => {
                "BEGIN AS OF SYSTEM TIME follower_read_timestamp(); SAVEPOINT cockroach_restart"
            }
            (Dialect::CockroachDb, Access::ReadOnly { weak: false }, _)
            | (Dialect::CockroachDb, _, Isolation::ReadOnly) => {
                "BEGIN READ ONLY; SAVEPOINT cockroach_restart"
            }
            (Dialect::CockroachDb, Access::ReadWrite, _) => "BEGIN; SAVEPOINT cockroach_restart",
        }
    }

    /// Commits. On PostgreSQL the `SELECT` in front surfaces an aborted transaction as 25P02, where a bare COMMIT
    /// would roll back and report success. On CockroachDB the release is the commit.
    #[must_use]
    pub fn commit(self) -> &'static str {
        match self {
            Dialect::PostgreSql => "SELECT 1; COMMIT",
            Dialect::CockroachDb => "RELEASE SAVEPOINT cockroach_restart",
        }
    }

    /// What follows a successful commit, if anything; its failure changes nothing.
    #[must_use]
    pub fn after_commit(self) -> Option<&'static str> {
        match self {
            Dialect::PostgreSql => None,
            Dialect::CockroachDb => Some("COMMIT"),
        }
    }
}

/// The SQL that makes the restart savepoint.
pub const SAVEPOINT: &str = "SAVEPOINT cockroach_restart";

/// The SQL that restores the restart savepoint.
pub const RESTART: &str = "ROLLBACK TO SAVEPOINT cockroach_restart";

/// The SQL that gives a transaction up.
pub const ROLLBACK: &str = "ROLLBACK";

/// Refuses a statement of the user's that cannot be sent, or would end the transaction under us.
pub fn check_statement(sql: &str) -> Result<()> {
    if sql.contains('\0') {
        return Err(Error::Value {
            message: "the statement contains a NUL character".to_owned(),
            out_of_range: true,
        });
    }
    if controls_transaction(sql) {
        return Err(Error::WorkState(
            "the transaction is begun and ended for you: return from the callback to commit, raise to roll back"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Tells whether a statement would end or replace the transaction it is run in, which is the executor's to do.
#[must_use]
pub fn controls_transaction(sql: &str) -> bool {
    let mut words = Words { rest: sql };
    let Some(first) = words.next_word() else {
        return false;
    };
    let is = |word: &str, other: &str| word.eq_ignore_ascii_case(other);
    match () {
        () if ["begin", "commit", "end", "abort"]
            .iter()
            .any(|w| is(first, w)) =>
        {
            true
        }
        () if is(first, "start") || is(first, "prepare") => words
            .next_word()
            .is_some_and(|second| is(second, "transaction")),
        () if is(first, "rollback") => !words.any(|word| is(word, "to")),
        () => false,
    }
}

/// Tells whether a statement may leave something behind in the session that runs it (a setting, a temporary table), so
/// that the connection must not serve another transaction.
#[must_use]
pub fn changes_session(sql: &str) -> bool {
    let mut words = Words { rest: sql };
    let Some(first) = words.next_word() else {
        return false;
    };
    let one_of = |word: Option<&str>, others: &[&str]| {
        word.is_some_and(|word| others.iter().any(|other| word.eq_ignore_ascii_case(other)))
    };
    if one_of(Some(first), &["set"]) {
        return !one_of(words.next_word(), &["local", "transaction", "constraints"]);
    }
    if one_of(Some(first), &["create"]) {
        return one_of(words.next_word(), &["temp", "temporary"]);
    }
    one_of(
        Some(first),
        &["reset", "listen", "prepare", "discard", "load"],
    )
}

/// Words of a statement, comments passed over.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn next_word(&mut self) -> Option<&'a str> {
        loop {
            self.rest = self
                .rest
                .trim_start_matches(|c: char| c.is_whitespace() || c == ';');
            if let Some(comment) = self.rest.strip_prefix("--") {
                self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = after_block_comment(comment);
            } else {
                break;
            }
        }
        let end = self
            .rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        self.next_word()
    }
}

/// Block comments nest in PostgreSQL.
fn after_block_comment(mut text: &str) -> &str {
    let mut depth = 1;
    while depth > 0 {
        let open = text.find("/*");
        let Some(close) = text.find("*/") else {
            return "";
        };
        match open {
            Some(open) if open < close => {
                depth += 1;
                text = &text[open + 2..];
            }
            _ => {
                depth -= 1;
                text = &text[close + 2..];
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_would_end_the_transaction_are_recognised() {
        for sql in [
            "COMMIT",
            "  commit ;",
            "-- note\nROLLBACK",
            "/* a /* nested */ b */ END",
            "start transaction",
            "PREPARE TRANSACTION 'x'",
            "Rollback Work",
            "abort",
        ] {
            assert!(controls_transaction(sql), "{sql}");
        }
    }

    #[test]
    fn other_statements_are_left_alone() {
        for sql in [
            "SELECT 'COMMIT'",
            "ROLLBACK TO SAVEPOINT a",
            "rollback transaction to a",
            "SAVEPOINT commit",
            "prepare x AS SELECT 1",
            "",
            "-- COMMIT",
            "/* COMMIT",
            "endless()",
        ] {
            assert!(!controls_transaction(sql), "{sql}");
        }
    }

    #[test]
    fn statements_that_outlive_their_transaction_are_recognised() {
        for sql in [
            "SET search_path = x",
            "set session timezone = 'UTC'",
            "CREATE TEMP TABLE t ()",
            "listen a",
            "/* x */ RESET ALL",
        ] {
            assert!(changes_session(sql), "{sql}");
        }
        for sql in [
            "SET LOCAL search_path = x",
            "SET TRANSACTION READ ONLY",
            "CREATE TABLE temp ()",
            "SELECT set_config('a', 'b', true)",
            "UPDATE t SET a = 1",
        ] {
            assert!(!changes_session(sql), "{sql}");
        }
    }

    #[test]
    fn a_look_is_read_only_and_weak_where_that_is_asked() {
        let begin = |dialect: Dialect, access| dialect.begin(Isolation::Serializable, access);
        let (weak, strict) = (
            Access::ReadOnly { weak: true },
            Access::ReadOnly { weak: false },
        );
        for access in [weak, strict] {
            assert_eq!(
                begin(Dialect::PostgreSql, access),
                "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
            );
        }
        assert_eq!(
            begin(Dialect::CockroachDb, weak),
            "BEGIN AS OF SYSTEM TIME follower_read_timestamp(); SAVEPOINT cockroach_restart"
        );
        assert_eq!(
            begin(Dialect::CockroachDb, strict),
            "BEGIN READ ONLY; SAVEPOINT cockroach_restart"
        );
        assert_eq!(
            begin(Dialect::CockroachDb, Access::ReadWrite),
            "BEGIN; SAVEPOINT cockroach_restart"
        );
    }

    #[test]
    fn isolation_is_read_as_people_write_it() {
        assert_eq!(
            Isolation::parse("Read_Committed"),
            Some(Isolation::ReadCommitted)
        );
        assert_eq!(Isolation::parse("chaos"), None);
    }
}
