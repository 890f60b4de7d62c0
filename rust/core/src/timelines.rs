//! Which primaries a `Connection` has met, and what of its sessions came along when another one took over.
//!
//! A standby that becomes the primary starts a new WAL timeline with a higher number. So a connection to a lower timeline than
//! one that was seen leads to a primary of the past, and is refused. The first connection to a higher one judges all
//! sessions before anybody uses it: a log is kept up to one point and lost from there on, so a session goes on if the last
//! renewal that it was told of is there, and every claim and end that it was told of since that renewal was sent.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use uuid::Uuid;

use crate::error::Result;
use crate::pool::{Conn, STEP_LIMIT, Server};
use crate::queries;
use crate::value::Param;

/// An event in history that its lease's holder was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The machine leased.
    pub machine: Uuid,
    /// The process it is leased for.
    pub process: String,
    /// The fencing token.
    pub token: i64,
    /// What became of the lease.
    pub event: &'static str,
}

/// What a session was told since the renewal that is known to be in the log was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The deadline that the last renewal answered; `None` before the first.
    pub deadline: Option<SystemTime>,
    /// Claims and ends.
    pub told: Vec<Told>,
    /// A commit that left nothing behind by which it could be found again, or more events than are kept.
    pub traceless: bool,
}

/// A session, as far as a failover concerns it.
pub trait Holder: Send + Sync {
    /// Its id.
    fn id(&self) -> Uuid;
    /// Whether it is lost already.
    fn is_lost(&self) -> bool;
    /// What it was told.
    fn account(&self) -> Account;
    /// Something that it was told may not be there any more.
    fn fail_over(&self, from: u32, to: u32, missing: &'static str);
    /// All that it was told is there.
    fn survive(&self, from: u32, to: u32);
}

/// What the connections of one `Connection` have learnt.
#[derive(Default)]
pub struct Timelines {
    highest: AtomicU32,
    /// One more than the number of the host that was used last; zero: none.
    last_host: AtomicUsize,
    holders: Mutex<Vec<Weak<dyn Holder>>>,
    judging: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Timelines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timelines")
            .field("highest", &self.highest())
            .finish_non_exhaustive()
    }
}

impl Timelines {
    /// The highest seen; zero before the first, and where there are none.
    #[must_use]
    pub fn highest(&self) -> u32 {
        self.highest.load(Ordering::Acquire)
    }

    /// Whether another primary has taken over from the one on this timeline.
    #[must_use]
    pub fn is_past(&self, timeline: Option<u32>) -> bool {
        timeline.is_some_and(|timeline| timeline < self.highest())
    }

    /// Which of the hosts of the settings was used last.
    #[must_use]
    pub fn last_host(&self) -> Option<usize> {
        self.last_host.load(Ordering::Acquire).checked_sub(1)
    }

    /// This one has been used.
    pub fn used(&self, host: usize) {
        self.last_host.store(host + 1, Ordering::Release);
    }

    /// From now on this session is judged at a failover. It must have been written on the highest timeline.
    pub fn watch(&self, holder: Weak<dyn Holder>) {
        let mut holders = self.holders();
        holders.retain(|holder| holder.upgrade().is_some_and(|holder| !holder.is_lost()));
        holders.push(holder);
    }

    /// Why a server is not to be used, if it is not; `chosen`: others could be tried, or a primary has been seen.
    #[must_use]
    pub fn refusal(&self, server: &Server, primary_wanted: bool, others: bool) -> Option<String> {
        let highest = self.highest();
        if self.is_past(server.timeline) {
            return Some(format!(
                "this server is a primary of the past: it is on timeline {}, and another server has taken over on \
                 timeline {highest}; stop it, or have it follow the new primary",
                server.timeline.unwrap_or_default()
            ));
        }
        (server.standby && primary_wanted && (others || highest > 0)).then(|| {
            "this server is a standby, and leases need the primary: name it too, or wait until it is promoted"
                .to_owned()
        })
    }

    /// To be asked with each new connection before it is used: judges the sessions if it leads to a new primary. False when
    /// another one has taken over meanwhile.
    pub async fn admit(&self, conn: &mut Conn) -> Result<bool> {
        let Some(timeline) = conn.server().timeline else {
            return Ok(true);
        };
        if self.highest() == timeline {
            return Ok(true);
        }
        let drive = conn.drive().clone();
        let what = "waiting for sessions to be found on a new primary";
        let _judging = drive.wait(STEP_LIMIT, what, self.judging.lock()).await?;
        let seen = self.highest();
        if seen != 0 && timeline > seen {
            self.judge(conn, seen, timeline).await?;
        }
        Ok(self.highest.fetch_max(timeline, Ordering::AcqRel) <= timeline)
    }

    async fn judge(&self, conn: &mut Conn, from: u32, to: u32) -> Result<()> {
        let holders: Vec<Arc<dyn Holder>> = {
            let holders = self.holders();
            holders.iter().filter_map(Weak::upgrade).collect()
        };
        for holder in holders.iter().filter(|holder| !holder.is_lost()) {
            let account = holder.account();
            match missing(conn, holder.id(), &account).await? {
                Some(missing) => holder.fail_over(from, to, missing),
                None => holder.survive(from, to),
            }
        }
        Ok(())
    }

    fn holders(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Holder>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is not there of what the session was told, if anything may not be.
async fn missing(
    conn: &mut Conn,
    session: Uuid,
    account: &Account,
) -> Result<Option<&'static str>> {
    let id = Param::Uuid(session.into_bytes());
    let rows = conn
        .query(queries::SESSION_DEADLINE.sql, std::slice::from_ref(&id))
        .await?;
    let Some(row) = rows.first() else {
        return Ok(Some("its row is not there"));
    };
    let deadline: SystemTime = row.get("session_deadline");
    if account.deadline.is_some_and(|told| deadline < told) {
        return Ok(Some("its last heartbeat is not there"));
    }
    if account.traceless {
        return Ok(Some(
            "a transaction was committed after the last heartbeat that is known to be there, and nobody can tell \
             whether it is",
        ));
    }
    if account.told.is_empty() {
        return Ok(None);
    }
    let list = |item: fn(&Told) -> Param| Param::Array(account.told.iter().map(item).collect());
    let params = [
        id,
        list(|told| Param::Uuid(told.machine.into_bytes())),
        list(|told| Param::Text(told.process.clone())),
        list(|told| Param::Int(told.token)),
        list(|told| Param::Text(told.event.to_owned())),
    ];
    let rows = conn.query(queries::SESSION_FORGOTTEN.sql, &params).await?;
    let forgotten: i64 = rows.first().map_or(1, |row| row.get("forgotten"));
    Ok((forgotten > 0).then_some("a claim or an end of work is not there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(timeline: Option<u32>, standby: bool) -> Server {
        Server {
            timeline,
            standby,
            ..Server::default()
        }
    }

    #[test]
    fn a_lower_timeline_than_seen_is_refused_and_no_other() {
        let timelines = Timelines::default();
        assert_eq!(timelines.refusal(&server(Some(1), false), true, true), None);
        timelines.highest.store(2, Ordering::Release);
        let refusal = timelines.refusal(&server(Some(1), false), true, false);
        assert!(refusal.is_some_and(|text| text.contains("timeline 1")));
        assert_eq!(
            timelines.refusal(&server(Some(2), false), true, false),
            None
        );
        assert_eq!(
            timelines.refusal(&server(Some(3), false), true, false),
            None
        );
        assert_eq!(timelines.refusal(&server(None, false), true, false), None);
    }

    #[test]
    fn a_standby_will_do_for_looks_and_where_there_has_never_been_another() {
        let timelines = Timelines::default();
        let standby = server(None, true);
        assert_eq!(timelines.refusal(&standby, true, false), None);
        assert!(timelines.refusal(&standby, true, true).is_some());
        timelines.highest.store(1, Ordering::Release);
        assert!(timelines.refusal(&standby, true, false).is_some());
        assert_eq!(timelines.refusal(&standby, false, true), None);
    }
}
