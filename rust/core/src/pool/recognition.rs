//! Telling a transaction pooler that nobody has spoken of.

use std::time::Duration;

use super::conn::Conn;
use crate::config::Config;
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::pooler::UNSPOKEN;
use crate::queries;

/// A pooler in session mode lends a second backend only if it has one: it is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Each round is two questions. Where one idle backend serves everybody the first tells.
const ROUNDS: u32 = 4;

/// Fails when transactions of one connection are not served by a backend of its own.
///
/// The server's promise at log-in was kept: nobody stands in between, and nothing more is asked. Otherwise a second connection
/// is made: where both are served by one backend, or one by two, they do not own it.
pub(super) async fn refuse_transaction_pooler(
    conn: &mut Conn,
    config: &Config,
    drive: &Drive,
) -> Result<()> {
    if !conn.behind || conn.pooled.is_some() {
        return Ok(());
    }
    let first = conn.server().pid;
    let limited = config.clone().with_connect_timeout(PATIENCE);
    let Ok(mut other) = Conn::open(&limited, drive, Some(PATIENCE)).await else {
        return Ok(());
    };
    let mut theirs = other.server().pid;
    for _ in 0..ROUNDS {
        let mine = which(conn).await?;
        if theirs == first || mine != first {
            return Err(Error::Config(UNSPOKEN.to_owned()));
        }
        theirs = which(&mut other).await?;
    }
    other.close().await;
    Ok(())
}

async fn which(conn: &mut Conn) -> Result<Option<i32>> {
    let row = conn.ask(queries::DOCTOR_BACKEND.sql).await?;
    Ok(row
        .and_then(|row| row.get("pid").map(str::to_owned))
        .and_then(|text| text.parse().ok()))
}
