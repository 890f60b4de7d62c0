//! Making sure that a statement whose answer was lost is over, so that what it did can be looked up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Backend, Error, Result, Trace, TransactionId};
use crate::pool::{Conn, Pool, Server};
use crate::queries;
use crate::value::Param;

/// Waits until the backend is gone that served a connection which was given up, and ends it if it can; false when it is still
/// there after `limit`, or when that cannot be told.
pub(super) async fn retired(pool: &Arc<Pool>, server: &Server, limit: Duration) -> Result<bool> {
    let (Some(pid), Some(started)) = (server.pid, &server.started) else {
        return Ok(false);
    };
    let params = [Param::Int(i64::from(pid)), Param::Text(started.clone())];
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    loop {
        let looked = async {
            let mut checkout = pool.checkout().await?;
            checkout
                .conn()
                .query(queries::SERVER_RETIRE.sql, &params)
                .await
        };
        match looked.await {
            Ok(rows) if rows.is_empty() => return Ok(true),
            Ok(_) => {}
            Err(error @ (Error::Interrupted | Error::Config(_))) => return Err(error),
            // The server may be restarting.
            Err(_) => pause = pause.max(Duration::from_millis(100)),
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        pool.drive().sleep(pause.min(left)).await?;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// Fails when the server has hung up before anything was sent: then there is nothing to find out about.
pub(super) async fn still_open(conn: &mut Conn) -> Result<()> {
    if conn.still_open().await? {
        Ok(())
    } else {
        Err(Error::ConnectionFailed(
            "the server closed the connection before anything was sent".to_owned(),
        ))
    }
}

/// The error for what a primary of the past has answered.
pub(super) fn passed() -> Error {
    Error::ConnectionFailed("another primary has taken over from the one that answered".to_owned())
}

/// The error for what was sent without a transaction whose id could be asked about.
pub(super) fn unknown<'a>(
    cause: &Error,
    trace: Trace,
    unanswered: impl Iterator<Item = &'a Server>,
) -> Error {
    let backend = |server: &Server| {
        Some(Backend {
            pid: server.pid?,
            started: server.started.clone()?,
        })
    };
    let mut servers = unanswered.peekable();
    let first = servers.peek().copied();
    Error::AmbiguousCommit {
        message: format!(
            "it was sent, and what came of it could not be found out ({cause}): resolve() tells once the server can be \
             reached"
        ),
        transaction: Box::new(TransactionId {
            xid: None,
            timeline: first.and_then(|server| server.timeline),
            incarnation: first.and_then(|server| server.incarnation),
            trace: Some(trace),
            pipelined: true,
            // One that cannot be told from others is never seen to be gone.
            unanswered: servers
                .map(backend)
                .collect::<Option<_>>()
                .unwrap_or_default(),
        }),
    }
}
