//! What differs between the servers, asked of the server itself.

use std::borrow::Cow;

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

    /// Refuses a server that lacks what every claim needs: CockroachDB has SKIP LOCKED from 22.2 on.
    pub fn check_version(self, banner: &str) -> Result<()> {
        if self == Dialect::PostgreSql {
            return Ok(());
        }
        let version = banner
            .split_whitespace()
            .find_map(|word| word.strip_prefix('v')?.split_once('.'));
        let number = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit());
            text[..end.unwrap_or(text.len())].parse::<u32>().ok()
        };
        match version.map(|(year, rest)| (number(year), number(rest))) {
            Some((Some(year), release)) if (year, release.unwrap_or(0)) < OLDEST_COCKROACHDB => {
                Err(Error::Config(format!(
                    "CockroachDB {}.{} or a later one is needed, for its SKIP LOCKED; this is {banner}",
                    OLDEST_COCKROACHDB.0, OLDEST_COCKROACHDB.1
                )))
            }
            _ => Ok(()),
        }
    }

    /// Settings of a connection as this server is to have them: CockroachDB is always SERIALIZABLE here, although newer ones have
    /// READ COMMITTED too, because leases rest on it where PostgreSQL has its locks. What steers PostgreSQL's planner it does not know.
    #[must_use]
    pub fn settings(self, settings: &str) -> Cow<'_, str> {
        match self {
            Dialect::PostgreSql => Cow::Borrowed(settings),
            Dialect::CockroachDb => {
                let known = |setting: &&str| {
                    let name = setting.trim().strip_prefix("SET ").unwrap_or_default();
                    KNOWN_SETTINGS.iter().any(|known| name.starts_with(known))
                };
                let kept: Vec<&str> = settings.split(';').filter(known).collect();
                Cow::Owned(kept.join(";").replace("'read committed'", "'serializable'"))
            }
        }
    }

    /// Opens a transaction that is sent whole, in one trip.
    #[must_use]
    pub fn begin_whole(self) -> &'static str {
        match self {
            Dialect::PostgreSql => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
            Dialect::CockroachDb => "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE",
        }
    }

    /// Opens a transaction of our own that goes before everybody else's where it can: on CockroachDB "a transaction with a higher
    /// priority" ends one that is in its way. On PostgreSQL nothing is in collection's way, as it passes over what is locked.
    #[must_use]
    pub fn begin_urgent(self, isolation: Isolation, access: Access) -> &'static str {
        match self {
            Dialect::PostgreSql => self.begin(isolation, access),
            Dialect::CockroachDb => {
                "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE PRIORITY HIGH; SAVEPOINT cockroach_restart"
            }
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
                "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SAVEPOINT cockroach_restart"
            }
            (Dialect::CockroachDb, Access::ReadWrite, _) => {
                "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; SAVEPOINT cockroach_restart"
            }
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

/// The settings of ours that CockroachDB has too.
const KNOWN_SETTINGS: &[&str] = &[
    "default_transaction_isolation",
    "default_transaction_read_only",
    "lock_timeout",
    "statement_timeout",
];

/// The oldest CockroachDB that will do: year and release.
const OLDEST_COCKROACHDB: (u32, u32) = (22, 2);

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
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SAVEPOINT cockroach_restart"
        );
        assert_eq!(
            begin(Dialect::CockroachDb, Access::ReadWrite),
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; SAVEPOINT cockroach_restart"
        );
    }

    #[test]
    fn a_server_without_skip_locked_is_refused() {
        let refused = |banner: &str| Dialect::from_version(banner).check_version(banner).is_err();
        for old in [
            "CockroachDB CCL v22.1.9 (x86_64-pc-linux-gnu, built 2022/10/06)",
            "CockroachDB CCL v21.2.17",
        ] {
            assert!(refused(old), "{old}");
        }
        for good in [
            "CockroachDB CCL v22.2.0 (x86_64-pc-linux-gnu, built 2022/12/05)",
            "CockroachDB CCL v25.4.0-beta.1",
            "CockroachDB OSS unknown",
            "PostgreSQL 15.18",
        ] {
            assert!(!refused(good), "{good}");
        }
    }

    #[test]
    fn settings_are_never_weaker_than_serializable_on_cockroachdb() {
        let weak = "SET default_transaction_isolation = 'read committed'; SET jit = off; SET lock_timeout = '1s'";
        assert_eq!(Dialect::PostgreSql.settings(weak), weak);
        assert_eq!(
            Dialect::CockroachDb.settings(weak),
            "SET default_transaction_isolation = 'serializable'; SET lock_timeout = '1s'"
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
