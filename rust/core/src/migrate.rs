//! The schema's migrations: numbered, forward when asked, back only on a throw-away database.

use std::sync::Arc;
use std::time::Duration;

use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::pool::{Conn, Pool};
use crate::queries;
use crate::retry::Failure;
use crate::sqlstate;
use crate::value::Param;

struct Migration {
    version: i64,
    name: &'static str,
    up: &'static str,
    down: &'static str,
    /// The way up on CockroachDB: statements that can each be done again.
    cockroachdb: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../migrations/", $name, ".up.sql")),
            down: include_str!(concat!("../migrations/", $name, ".down.sql")),
            cockroachdb: include_str!(concat!("../migrations/cockroachdb/", $name, ".up.sql")),
        }
    };
}

const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_leases"),
    migration!(2, "0002_tags"),
    migration!(3, "0003_processes"),
    migration!(4, "0004_batches"),
    migration!(5, "0005_operators"),
    migration!(6, "0006_names"),
];

/// The version that this library was written for.
#[must_use]
pub fn latest() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// One migration may take its time.
const LIMIT: Duration = Duration::from_secs(600);

/// The schema's version; 0 when there is none.
pub async fn version(pool: &Arc<Pool>) -> Result<i64> {
    let mut checkout = pool.checkout().await?;
    version_on(checkout.conn()).await
}

async fn version_on(conn: &mut Conn) -> Result<i64> {
    if conn
        .query(queries::SCHEMA_PRESENT.sql, &[])
        .await?
        .is_empty()
    {
        return Ok(0);
    }
    let rows = conn.query(queries::SCHEMA_VERSION.sql, &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0)))
}

/// Refuses a schema that this library cannot work with. Each migration lets the version before it go on beside it, so
/// one version ahead is fine: a rolling upgrade is under way.
pub fn check_not_too_new(version: i64) -> Result<()> {
    if version > latest() + 1 {
        return Err(Error::Migration(format!(
            "the database's schema is version {version}, and this library knows {}: upgrade pybmdb",
            latest()
        )));
    }
    Ok(())
}

/// Refuses a schema older than this library, whose statements would fail on it one by one.
pub fn check_not_too_old(version: i64) -> Result<()> {
    if version >= latest() {
        return Ok(());
    }
    Err(Error::Migration(format!(
        "this database has no bmdb schema, or an older one (version {version}, and this library needs {}): call \
         migrate() once, or connect(migrate=True)",
        latest()
    )))
}

/// Brings the schema to version `to`, the latest by default, and returns the version reached. Safe to call from many
/// processes at once and again. Going down drops data, and is refused unless `throwaway`.
pub async fn migrate(pool: &Arc<Pool>, to: Option<i64>, throwaway: bool) -> Result<i64> {
    let to = to.unwrap_or_else(latest);
    if !(0..=latest()).contains(&to) {
        return Err(Error::Migration(format!(
            "there is no schema version {to}: choose 0 to {}",
            latest()
        )));
    }
    let now = version(pool).await?;
    check_not_too_new(now)?;
    // Nothing to do: so a role that may not create tables can ask for it too.
    if now == to || (now > to && to == latest()) {
        return Ok(now);
    }
    if pool.dialect() == Dialect::CockroachDb {
        return cockroachdb(pool, to).await;
    }
    loop {
        let mut checkout = pool.checkout().await?;
        let conn = checkout.conn();
        conn.in_transaction = true;
        let outcome = step(conn, to, throwaway).await;
        let commit = if outcome.is_ok() {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        let ended = conn.batch(commit, Some(LIMIT)).await;
        let reached = outcome?;
        ended?;
        conn.in_transaction = false;
        if reached == to || (reached > to && to == latest()) {
            return Ok(reached);
        }
    }
}

/// CockroachDB changes schemas statement by statement, each as a job of its own, and "does not support schema changes within explicit
/// transactions with full atomicity guarantees". So each statement is sent alone, and none minds being sent again: a migration that
/// was interrupted, or that two do at once, is gone on with.
async fn cockroachdb(pool: &Arc<Pool>, to: i64) -> Result<i64> {
    let mut checkout = pool.checkout().await?;
    let conn = checkout.conn();
    conn.batch(queries::SCHEMA_CREATE.sql, Some(LIMIT))
        .await
        .map_err(cannot_create)?;
    let now = version_on(conn).await?;
    if now > to {
        return Err(Error::Migration(format!(
            "going down from version {now} to {to} would drop data, and is not done on CockroachDB"
        )));
    }
    for next in MIGRATIONS
        .iter()
        .filter(|next| (now + 1..=to).contains(&next.version))
    {
        for statement in statements(next.cockroachdb) {
            alone(conn, statement).await.map_err(|error| {
                Error::Migration(format!(
                    "migration {} stopped ({error}): what it has done so far stays, and doing it again goes on from there",
                    next.name
                ))
            })?;
        }
        let params = [Param::Int(next.version), Param::Text(next.name.to_owned())];
        conn.query(queries::SCHEMA_NOTE.sql, &params).await?;
    }
    Ok(now.max(to))
}

/// One statement, again after a conflict with somebody who migrates too.
async fn alone(conn: &mut Conn, statement: &str) -> Result<()> {
    let mut left = 10;
    loop {
        match conn.batch(statement, Some(LIMIT)).await {
            Err(error) if error.failure() == Failure::Retryable && left > 0 => left -= 1,
            done => return done,
        }
    }
}

/// The statements of a text, in which a semicolon ends a line or is in a comment.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    let has_code = |part: &&str| {
        part.lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
    };
    text.split(";\n").map(str::trim).filter(has_code)
}

fn cannot_create(error: Error) -> Error {
    Error::Migration(format!(
        "cannot create tables here ({error}): migrate once as a role that may, in a schema that exists"
    ))
}

/// One migration towards `to`, within a transaction that the caller ends.
async fn step(conn: &mut Conn, to: i64, throwaway: bool) -> Result<i64> {
    conn.batch("BEGIN", Some(LIMIT)).await?;
    // One migrator at a time; CREATE TABLE IF NOT EXISTS alone races.
    conn.batch(queries::SCHEMA_LOCK.sql, Some(LIMIT)).await?;
    let encoding = conn.query(queries::SERVER_ENCODING.sql, &[]).await?;
    if let Some(row) = encoding.first() {
        let encoding: String = row.get(0);
        if !["UTF8", "SQL_ASCII"].contains(&encoding.as_str()) {
            return Err(Error::Migration(format!(
                "this database's encoding is {encoding}, which cannot hold every cause and name: create one with \
                 ENCODING 'UTF8' TEMPLATE template0"
            )));
        }
    }
    conn.batch(queries::SCHEMA_CREATE.sql, Some(LIMIT))
        .await
        .map_err(cannot_create)?;
    let now = version_on(conn).await?;
    check_not_too_new(now)?;
    if now < to {
        let next = MIGRATIONS
            .iter()
            .find(|migration| migration.version == now + 1);
        let next = next
            .ok_or_else(|| Error::Migration(format!("no migration leads on from version {now}")))?;
        conn.batch(next.up, Some(LIMIT))
            .await
            .map_err(|error| failed(next, "up", &error))?;
        let params = [Param::Int(next.version), Param::Text(next.name.to_owned())];
        conn.query(queries::SCHEMA_NOTE.sql, &params).await?;
        return Ok(next.version);
    }
    if now > to && now <= latest() {
        if !throwaway {
            return Err(Error::Migration(format!(
                "going down from version {now} to {to} would drop data, and is done only on a throw-away database \
                 (conninfo \"embedded:\")"
            )));
        }
        let last = MIGRATIONS.iter().find(|migration| migration.version == now);
        let last = last.ok_or_else(|| Error::Migration(format!("there is no migration {now}")))?;
        conn.batch(last.down, Some(LIMIT))
            .await
            .map_err(|error| failed(last, "down", &error))?;
        conn.query(queries::SCHEMA_FORGET.sql, &[Param::Int(last.version)])
            .await?;
        return Ok(now - 1);
    }
    Ok(now)
}

fn failed(migration: &Migration, direction: &str, error: &Error) -> Error {
    Error::Migration(format!(
        "migration {} {direction} failed, and nothing was changed: {error}",
        migration.name
    ))
}

/// Tells somebody whose statement found no table that the database was never migrated.
#[must_use]
pub fn explain_missing_schema(error: Error) -> Error {
    match error.sqlstate() {
        Some(sqlstate::UNDEFINED_TABLE) => Error::Migration(missing_schema(&error.to_string())),
        _ => error,
    }
}

/// What to say when a statement of our own met `cause`, a table that is not there.
#[must_use]
pub fn missing_schema(cause: &str) -> String {
    format!(
        "this database has no bmdb schema, or an older one ({cause}): call migrate() once, or connect(migrate=True)"
    )
}
