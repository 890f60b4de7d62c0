//! The roles of a fleet: who owns the tables, who works, who intervenes, who looks. What each may do is in
//! `migrations/roles.sql`.

use std::sync::Arc;
use std::time::Duration;

use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::migrate;
use crate::pool::Pool;
use crate::queries;

const TEXT: &str = include_str!("../migrations/roles.sql");

/// What the prefix of the roles' names is unless told otherwise.
pub const PREFIX: &str = "bmdb";

const SUFFIXES: [&str; 4] = ["owner", "worker", "operator", "viewer"];

/// Names are cut at 63 bytes, and the longest of these is `_operator`.
const LONGEST_PREFIX: usize = 54;

/// The tables of the schema, which are the owner's. A tag that somebody else made stays theirs.
const TABLES: [&str; 21] = [
    "bmdb_schema",
    "machine_agent_heartbeat",
    "machine_agent_started",
    "machine_hardware_report",
    "machine_os_installation_report",
    "machine_os_installation_request",
    "machine_provided",
    "machines",
    "process_eligibility",
    "process_exclusion",
    "process_watch",
    "processes",
    "sessions",
    "transaction_key",
    "work",
    "work_attention",
    "work_backoff",
    "work_history",
    "work_hold",
    "work_loss",
    "work_token",
];

const FUNCTIONS: [&str; 7] = [
    "work_again",
    "work_attend",
    "work_exclude",
    "work_history_ahead",
    "work_history_partitions",
    "work_history_prune",
    "work_watch",
];

/// Waiting for the tables included.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the roles as far as they are missing, gives the tables to the owner, and grants the others what they need and no
/// more. Returns their names: owner, worker, operator, viewer. Safe to call again, and beside running workers.
///
/// # Errors
/// [`Error::Migration`] for a prefix that makes no plain name, a schema that is not the newest, a server without such
/// roles, or a role that may not do this.
pub async fn create(pool: &Arc<Pool>, prefix: &str) -> Result<Vec<String>> {
    let text = statement(prefix)?;
    let version = migrate::version(pool).await?;
    migrate::check_not_too_old(version)?;
    let mut checkout = pool.checkout().await?;
    let conn = checkout.conn();
    if conn.server().dialect != Dialect::PostgreSql {
        return Err(Error::Migration(
            "roles are made on PostgreSQL only: on this server GRANT by hand what SECURITY.md lists"
                .to_owned(),
        ));
    }
    conn.in_transaction = true;
    conn.batch("BEGIN", Some(LIMIT)).await?;
    let mut outcome = conn
        .batch(queries::SCHEMA_LOCK.sql, Some(LIMIT))
        .await
        .map(drop);
    if outcome.is_ok() {
        outcome = conn.batch(&text, Some(LIMIT)).await.map(drop);
    }
    let end = if outcome.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    let ended = conn.batch(end, Some(LIMIT)).await;
    outcome.map_err(|error| {
        Error::Migration(format!(
            "the roles could not be made, and nothing was changed ({error}): do it as a superuser, or as a role with \
             CREATEROLE that owns bmdb's tables"
        ))
    })?;
    ended?;
    conn.in_transaction = false;
    Ok(names(prefix))
}

fn names(prefix: &str) -> Vec<String> {
    SUFFIXES.map(|suffix| format!("{prefix}_{suffix}")).to_vec()
}

/// The text with the names in it. The prefix may hold nothing that means anything in SQL.
fn statement(prefix: &str) -> Result<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let named = prefix.bytes().next().is_some_and(plain)
        && prefix
            .bytes()
            .all(|byte| plain(byte) || byte.is_ascii_digit());
    if !named || prefix.starts_with("pg_") || prefix.len() > LONGEST_PREFIX {
        return Err(Error::Migration(format!(
            "the prefix of roles must be 1 to {LONGEST_PREFIX} of a-z, 0-9 and _, begin with no digit, and not with pg_"
        )));
    }
    Ok(TEXT
        .replace("{prefix}", prefix)
        .replace("{tables}", &format!("{{{}}}", TABLES.join(",")))
        .replace("{functions}", &format!("{{{}}}", FUNCTIONS.join(","))))
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_PREFIX, names, statement};

    #[test]
    fn the_text_has_no_gaps_left() {
        let text = statement("fleet").expect("plain");
        assert!(text.contains("'fleet_owner'") && !text.contains("{prefix}"));
        assert!(!text.contains("{tables}") && !text.contains("{functions}"));
    }

    #[test]
    fn a_prefix_is_a_plain_name() {
        for prefix in ["", "1st", "pg_x", "a b", "a'b", "a\"b", "Fleet", "é", "a-b"] {
            assert!(statement(prefix).is_err(), "{prefix:?}");
        }
        assert!(statement(&"a".repeat(LONGEST_PREFIX + 1)).is_err());
        let longest = "a".repeat(LONGEST_PREFIX);
        assert!(statement(&longest).is_ok());
        assert!(names(&longest).iter().all(|name| name.len() <= 63));
    }
}
