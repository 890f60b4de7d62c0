//! Finding out how a transaction ended whose COMMIT was not answered.
//!
//! PostgreSQL knows the status of a transaction by its id, on the WAL timeline on which it ran and until it crashes: after a
//! crash it may give an id that never reached the log to another transaction. What claims, ends of work and transactions with a name
//! leave behind tells everywhere, once nobody can be at it any more.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::config::Config;
use crate::dialect::{Dialect, ROLLBACK};
use crate::drive::Drive;
use crate::error::{Backend, Error, Result, Trace, TransactionId};
use crate::pool::{Conn, Pool, STEP_LIMIT};
use crate::queries;
use crate::sqlstate;
use crate::transaction::uuid;
use crate::value::Param;

/// Begins what is asked in one transaction.
const LOOK: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// A lease as it is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The machine leased.
    pub machine: Uuid,
    /// The process it is leased for.
    pub process: String,
    /// The session that holds it.
    pub session: Uuid,
    /// The fencing token.
    pub token: i64,
    /// What its client called it before it was claimed.
    pub lease: Uuid,
}

/// A name for up to 65,535 leases that are claimed together; they count on from it. It begins with the time, so that names given one
/// after the other lie side by side in an index.
#[must_use]
pub fn name_leases() -> Uuid {
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    // 58 random bits between the time and the 16 that count.
    let bits = (millis << 80) | (Uuid::new_v4().as_u128() & (u128::MAX >> 48));
    uuid::Builder::from_u128(bits & !u128::from(u16::MAX))
        .with_version(uuid::Version::SortRand)
        .into_uuid()
}

/// The first name of those.
#[must_use]
pub fn name_lease() -> Uuid {
    Uuid::from_u128(name_leases().as_u128() + 1)
}

impl Claimed {
    /// What the lease's event leaves behind.
    #[must_use]
    pub fn trace(&self, event: &'static str) -> Trace {
        Trace::Leases {
            session: self.session,
            first: self.lease,
            last: self.lease,
            event,
        }
    }
}

/// What a claim of leases that count on from `name` leaves behind.
#[must_use]
pub fn claim_trace(session: Uuid, name: Uuid) -> Trace {
    Trace::Leases {
        session,
        first: name,
        last: Uuid::from_u128(name.as_u128() | u128::from(u16::MAX)),
        event: "Started",
    }
}

/// Asks until there is an answer, for `limit` at most: committed, aborted, or `None` when nobody can tell.
pub async fn outcome(
    pool: &Arc<Pool>,
    id: &TransactionId,
    limit: Duration,
) -> Result<Option<bool>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(5);
    loop {
        match ask(pool, id).await {
            Ok(Answer::Known(committed)) => return Ok(Some(committed)),
            Ok(Answer::Never) => return Ok(None),
            Ok(Answer::NotYet | Answer::Forgotten) => {}
            Err(error @ (Error::Interrupted | Error::Config(_))) => return Err(error),
            // The server may be restarting.
            Err(_) => pause = pause.max(Duration::from_millis(100)),
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        pool.drive().sleep(pause.min(left)).await?;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

enum Answer {
    Known(bool),
    NotYet,
    /// It is over, and so long ago that the server does not know how.
    Forgotten,
    Never,
}

async fn ask(pool: &Arc<Pool>, id: &TransactionId) -> Result<Answer> {
    let mut checkout = pool.checkout().await?;
    let conn = checkout.conn();
    if pool.config().pooler.is_none() {
        return ask_on(conn, id).await;
    }
    // One transaction is all asked of one server, and says which.
    conn.begin_with(LOOK, None, STEP_LIMIT).await?;
    let answer = ask_on(conn, id).await;
    if !conn.broken {
        conn.batch(ROLLBACK, Some(STEP_LIMIT)).await?;
        conn.in_transaction = false;
    }
    answer
}

async fn ask_on(conn: &mut Conn, id: &TransactionId) -> Result<Answer> {
    let server = conn.server();
    // A standby knows what it has been sent so far, and may learn more. What it is was asked when the connection was opened:
    // promoted meanwhile, it is known by a new one.
    if server.dialect == Dialect::PostgreSql && server.timeline.is_none() && id.timeline.is_some() {
        conn.broken = true;
        return Ok(Answer::NotYet);
    }
    let same_log = id.xid.is_some() && id.timeline.is_some() && id.timeline == server.timeline;
    // Or an operator has reset the statistics that tell a crash: so what follows must hold without one too.
    let crashed = id.incarnation != server.incarnation;
    // Nobody is at it any more: not on a log that goes on from that of the transaction, which holds all of it or nothing; and
    // CockroachDB lets a locking read wait for whoever is.
    let over = (server.dialect == Dialect::CockroachDb && !id.pipelined)
        || (id.timeline.is_some() && id.timeline < server.timeline);
    let status = match same_log {
        // After a crash the id may be that of somebody's transaction, who has not given it up.
        true if crashed => status(conn, id.xid.unwrap_or_default()).await,
        true => unhindered_status(conn, id.xid.unwrap_or_default()).await,
        false if over => Ok(Answer::Forgotten),
        false if !id.unanswered.is_empty() => retired(conn, &id.unanswered).await,
        false => Ok(Answer::Never),
    };
    match (status, &id.trace) {
        // The id may be another transaction's by now; what this one leaves behind is nobody else's.
        (Ok(Answer::Known(true)), Some(trace)) if crashed => {
            Ok(Answer::Known(left(conn, trace).await?))
        }
        (Ok(Answer::Known(true)), None) if crashed => Ok(Answer::Never),
        // The id lies in the future, so the server has forgotten that it gave it.
        (Err(error), _) if error.sqlstate() == Some(sqlstate::INVALID_PARAMETER_VALUE) => {
            Ok(Answer::Known(false))
        }
        (Ok(Answer::Forgotten), Some(trace)) => Ok(Answer::Known(left(conn, trace).await?)),
        (Ok(Answer::Forgotten), None) => Ok(Answer::Never),
        (Ok(Answer::Never), Some(trace)) if left(conn, trace).await? => Ok(Answer::Known(true)),
        (known, _) => known,
    }
}

/// Whether this is there; first it waits for whoever is at it, where a locking read can.
async fn left(conn: &mut Conn, trace: &Trace) -> Result<bool> {
    // A default that is stricter would look at what was there before the wait.
    if !conn.in_transaction {
        conn.plain().await?;
    }
    match trace {
        Trace::Leases {
            session,
            first,
            last,
            event,
        } => {
            let which = [uuid(*session), uuid(*first), uuid(*last)];
            conn.query(queries::WORK_SETTLED.sql, &which).await?;
            recorded(conn, *first, *last, event).await
        }
        Trace::Key { key, call } => {
            let key = [Param::Text(key.clone())];
            let rows = conn.query(queries::TRANSACTION_MARKED.sql, &key).await?;
            Ok(rows
                .first()
                .is_some_and(|row| row.get::<_, Uuid>(0) == *call))
        }
    }
}

async fn recorded(conn: &mut Conn, first: Uuid, last: Uuid, event: &str) -> Result<bool> {
    let params = [uuid(first), uuid(last), Param::Text(event.to_owned())];
    let rows = conn.query(queries::WORK_RECORDED.sql, &params).await?;
    Ok(!rows.is_empty())
}

/// Whether all of these are gone; those that are not are ended.
async fn retired(conn: &mut Conn, backends: &[Backend]) -> Result<Answer> {
    for backend in backends {
        let params = [
            Param::Int(i64::from(backend.pid)),
            Param::Text(backend.started.clone()),
        ];
        if !conn
            .query(queries::SERVER_RETIRE.sql, &params)
            .await?
            .is_empty()
        {
            return Ok(Answer::NotYet);
        }
    }
    Ok(Answer::Forgotten)
}

/// The status; a transaction whose COMMIT was lost on the way to the server is ended, so that the next look finds it
/// aborted.
async fn unhindered_status(conn: &mut Conn, xid: u64) -> Result<Answer> {
    let answer = status(conn, xid).await?;
    if matches!(answer, Answer::NotYet) {
        let params = [Param::Text(xid.to_string())];
        // Where this role may not end it, it ends by itself in the end.
        drop(
            conn.query(queries::SERVER_END_UNFINISHED.sql, &params)
                .await,
        );
    }
    Ok(answer)
}

async fn status(conn: &mut Conn, xid: u64) -> Result<Answer> {
    let rows = conn
        .query(
            queries::SERVER_TRANSACTION_STATUS.sql,
            &[Param::Text(xid.to_string())],
        )
        .await?;
    let status: Option<String> = rows.first().and_then(|row| row.get(0));
    Ok(match status.as_deref() {
        Some("committed") => Answer::Known(true),
        Some("aborted") => Answer::Known(false),
        Some(_) => Answer::NotYet,
        None => Answer::Forgotten,
    })
}

/// One quick look on a connection of its own; `None` when it brings nothing.
pub async fn quick_outcome(
    config: &Config,
    drive: &Drive,
    id: &TransactionId,
    limit: Duration,
) -> Option<bool> {
    let xid = id.xid?;
    let started = Instant::now();
    let (mut conn, drive) = quick_conn(config, drive, limit).await?;
    if config.pooler.is_some() {
        conn.begin_with(LOOK, None, limit).await.ok()?;
    }
    while started.elapsed() < limit {
        if conn.server().timeline != id.timeline || conn.server().incarnation != id.incarnation {
            return None;
        }
        match status(&mut conn, xid).await {
            Ok(Answer::Known(committed)) => return Some(committed),
            Ok(Answer::NotYet) => drive.sleep(Duration::from_millis(5)).await.ok()?,
            _ => return None,
        }
    }
    None
}

/// The same for an end that was sent without a transaction of its own: true when history has it. What it does not have may be
/// on its way still.
pub async fn quick_recorded(
    config: &Config,
    drive: &Drive,
    lease: &Claimed,
    event: &str,
    limit: Duration,
) -> Option<bool> {
    let (mut conn, _) = quick_conn(config, drive, limit).await?;
    let found = recorded(&mut conn, lease.lease, lease.lease, event)
        .await
        .ok()?;
    found.then_some(true)
}

async fn quick_conn(config: &Config, drive: &Drive, limit: Duration) -> Option<(Conn, Drive)> {
    let drive = match drive {
        // Deaf to interrupts: one has just come.
        Drive::Caller(_) => Drive::Caller(Arc::new(Deaf)),
        Drive::Runtime => Drive::Runtime,
    };
    let config = config.clone().with_connect_timeout(limit);
    // Boxed like all that is rare and large, so that no other future grows by it.
    let opening = Box::pin(Conn::open(&config, &drive, Some(limit)));
    let conn = opening.await.ok()?;
    Some((conn, drive))
}

struct Deaf;

impl crate::drive::Interrupt for Deaf {
    fn tick(&self) -> Option<Duration> {
        None
    }
    fn interrupted(&self) -> bool {
        false
    }
}
