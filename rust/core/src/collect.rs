//! Collection: what expired sessions held becomes free again, with a `Lost` event in history for each lease, its
//! process's crash backoff, and after too many losses in a row a quarantine.
//!
//! Any live process collects. Nothing here waits for a lock: what is locked is left for the next pass.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::backoff::Previous;
use crate::dialect::{Dialect, Isolation};
use crate::error::{Error, Result};
use crate::events::{Events, Level};
use crate::metrics::Metrics;
use crate::migrate::explain_missing_schema;
use crate::pool::Pool;
use crate::process::stored_backoff;
use crate::queries;
use crate::retry::Limits;
use crate::transaction::{Conclusion, Opening, Plan, Transaction, uuid};
use crate::value::Param;

/// Sessions taken in one transaction.
const BATCH: i64 = 100;

/// Rows of attention that nobody looked at, removed in one transaction.
const FORGOTTEN: i64 = 5000;

/// How often so many names of transactions are forgotten in one go.
const MOST_FORGETS: u32 = 20;

/// How long one of our own statements may take: they touch few rows, and nobody could interrupt a hung one.
const OWN_LIMIT: Duration = Duration::from_secs(5);

/// How often to look whether history has partitions for the months to come.
const AHEAD: Duration = Duration::from_secs(3600);

/// How long a backend may sit in a fenced transaction after its session's deadline before it is ended.
const STALLED_GRACE: Duration = Duration::from_millis(250);

/// What a collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Expired sessions.
    pub sessions: u64,
    /// Their leases.
    pub leases: u64,
    /// Machines that went into quarantine for a process.
    pub quarantined: u64,
    /// Backends that sit in a dead session's transaction and that this role may not end.
    pub beyond_reach: u64,
}

impl Collected {
    /// Tells what was removed, if anything was: a loop without work looks again on hearing it.
    pub(crate) fn tell(self, events: &Events) {
        if self.sessions > 0 {
            let message = format!(
                "collected {} sessions and {} leases",
                self.sessions, self.leases
            );
            events.tell(Level::Info, "collect", message);
        }
        if self.quarantined > 0 {
            let message = format!(
                "{} leases were lost once too often, so their machines are in quarantine until released: see q.quarantines()",
                self.quarantined
            );
            events.tell(Level::Warning, "collect", message);
        }
    }
}

/// A plan for statements of our own: READ COMMITTED, no session, and an end to every wait.
#[must_use]
pub fn own_plan() -> Plan {
    Plan {
        isolation: Isolation::ReadCommitted,
        limits: Limits {
            max_retries: 5,
            max_elapsed: Some(Duration::from_secs(8)),
            ..Limits::default()
        },
        statement_limit: Some(OWN_LIMIT),
        session: None,
        opening: Opening::Nothing,
        settles: false,
        gate: None,
    }
}

/// Collects until nothing is left that can be collected without waiting.
pub async fn collect(pool: &Arc<Pool>, metrics: &Metrics) -> Result<Collected> {
    let mut total = Collected::default();
    loop {
        let (found, batch) = collect_batch(pool).await.map_err(explain_missing_schema)?;
        total.sessions += batch.sessions;
        total.leases += batch.leases;
        total.quarantined += batch.quarantined;
        total.beyond_reach = batch.beyond_reach;
        if found < BATCH || batch.sessions == 0 {
            break;
        }
    }
    metrics.on_collected(total.sessions, total.leases);
    if pool.is_due(AHEAD) {
        if pool.dialect() == Dialect::PostgreSql {
            keep_ahead(pool).await?;
        }
        forget_keys(pool).await?;
    }
    Ok(total)
}

/// Sees to it that history has partitions for the months to come. Housekeeping: what the database refuses is left to others.
async fn keep_ahead(pool: &Arc<Pool>) -> Result<()> {
    let mut checkout = pool.checkout().await?;
    match checkout
        .conn()
        .query(queries::WORK_HISTORY_AHEAD.sql, &[])
        .await
    {
        Ok(_) | Err(Error::Database(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Forgets names of transactions that nobody will come back for.
async fn forget_keys(pool: &Arc<Pool>) -> Result<()> {
    for _ in 0..MOST_FORGETS {
        let mut checkout = pool.checkout().await?;
        let conn = checkout.conn();
        conn.plain().await?;
        let never = std::future::pending();
        let forgotten = conn
            .execute_unless(
                queries::TRANSACTION_FORGET.sql,
                &[Param::Int(FORGOTTEN)],
                never,
                Some(OWN_LIMIT),
            )
            .await;
        match forgotten {
            Ok(count) if i64::try_from(count).unwrap_or(0) < FORGOTTEN => return Ok(()),
            Ok(_) => {}
            // Housekeeping: what the database refuses is left to others.
            Err(Error::Database(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn collect_batch(pool: &Arc<Pool>) -> Result<(i64, Collected)> {
    let mut tx = Transaction::new(pool.clone(), own_plan()).urgent();
    loop {
        tx.begin().await?;
        let outcome = collect_within(&mut tx, pool.dialect()).await;
        let raised = outcome.as_ref().err().map(|error| Some(error.failure()));
        match (tx.conclude(raised).await?, outcome) {
            (Conclusion::Again, _) => {}
            (_, outcome) => return outcome,
        }
    }
}

async fn collect_within(tx: &mut Transaction, dialect: Dialect) -> Result<(i64, Collected)> {
    let mut collected = Collected::default();
    if dialect == Dialect::PostgreSql {
        let grace = i64::try_from(STALLED_GRACE.as_millis()).unwrap_or(i64::MAX);
        let rows = tx
            .query(queries::COLLECT_END_STALLED.sql, &[Param::Int(grace)])
            .await?;
        let beyond = rows
            .first()
            .map_or(0, |row| row.get::<_, i64>("beyond_reach"));
        collected.beyond_reach = u64::try_from(beyond).unwrap_or(0);
        tx.query(
            queries::COLLECT_FORGET_ATTENTION.sql,
            &[Param::Int(FORGOTTEN)],
        )
        .await?;
    }
    let ids = |rows: Vec<Row>| rows.iter().map(|row| row.get(0)).collect::<Vec<Uuid>>();
    let expired = ids(tx
        .query(queries::COLLECT_LOCK_EXPIRED.sql, &[Param::Int(BATCH)])
        .await?);
    let found = i64::try_from(expired.len()).unwrap_or(BATCH);
    if expired.is_empty() {
        return Ok((0, collected));
    }
    let array = |ids: &[Uuid]| Param::Array(ids.iter().copied().map(uuid).collect());
    let busy: HashSet<Uuid> = match dialect {
        Dialect::PostgreSql => ids(tx
            .query(queries::COLLECT_BUSY.sql, &[array(&expired)])
            .await?)
        .into_iter()
        .collect(),
        // There it has priority over whoever ends a lease of such a session.
        Dialect::CockroachDb => HashSet::new(),
    };
    let free: Vec<Uuid> = expired
        .into_iter()
        .filter(|id| !busy.contains(id))
        .collect();
    if free.is_empty() {
        return Ok((found, collected));
    }
    let rows = tx.query(queries::COLLECT_LOSE.sql, &[array(&free)]).await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::ConnectionFailed("collection returned no row".to_owned()))?;
    if dialect == Dialect::CockroachDb {
        tx.query(queries::SESSION_DELETE.sql, &[array(&free)])
            .await?;
    }
    collected.quarantined = follow_up(tx, &rows).await?;
    let count = |column: &str| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    collected.sessions = count("sessions");
    collected.leases = count("leases");
    Ok((found, collected))
}

/// What follows for the machines whose holders were lost, by the definitions of their processes. Returns how many went
/// into quarantine.
async fn follow_up(tx: &mut Transaction, lost: &[Row]) -> Result<u64> {
    let mut backoffs: [Vec<Param>; 5] = Default::default();
    let mut quarantines: [Vec<Param>; 6] = Default::default();
    for row in lost {
        // The one row of a collection in which there is nothing to follow up.
        let Some(machine) = row.get::<_, Option<Uuid>>("machine_id") else {
            continue;
        };
        let process = Param::Text(row.get("process"));
        let session: Uuid = row.get("session_id");
        let component: String = row.get("component");
        if let Some(backoff) = stored_backoff(row) {
            let previous: Option<i64> = row.get("last_interval_seconds");
            let period = backoff.next(previous.map(Previous::from_whole_seconds));
            let wait = backoff.jittered(period, fastrand::f64());
            let cause = format!("the holder was lost: session {session} of {component}");
            append(
                &mut backoffs,
                [
                    uuid(machine),
                    process.clone(),
                    Param::Int(wait),
                    Param::Int(period),
                    Param::Text(cause),
                ],
            );
        }
        let losses: i32 = row.get("losses");
        let enough: Option<i32> = row.get("quarantine_after");
        if enough.is_some_and(|enough| losses >= enough) {
            let cause = format!(
                "quarantined after {losses} lost holders in a row, the last one session {session} of {component}"
            );
            append(
                &mut quarantines,
                [
                    uuid(machine),
                    process,
                    uuid(session),
                    Param::Text(component),
                    Param::Int(row.get("token")),
                    Param::Text(cause),
                ],
            );
        }
    }
    if !backoffs[0].is_empty() {
        let params = backoffs.map(Param::Array);
        tx.query(queries::COLLECT_BACK_OFF.sql, &params).await?;
    }
    if !quarantines[0].is_empty() {
        let params = quarantines.map(Param::Array);
        return tx.execute(queries::COLLECT_QUARANTINE.sql, &params).await;
    }
    Ok(0)
}

/// One more row, in columns.
fn append<const N: usize>(columns: &mut [Vec<Param>; N], row: [Param; N]) {
    for (column, value) in columns.iter_mut().zip(row) {
        column.push(value);
    }
}
