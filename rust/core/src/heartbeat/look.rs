//! The looks for others' expired sessions, on the beats' connection but never in a beat's way, and what follows from them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Beater, shortest_trust};
use crate::collect;
use crate::events::Level;
use crate::lease::{beat_period, retry_pause};
use crate::lookout::Outlook;
use crate::queries;
use crate::session::SessionState;
use crate::transaction::uuid;
use crate::value::Param;

impl Beater {
    /// When the next look is due, if there is a connection for it. Before the first beat there is none.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.conn.as_ref().and_then(|_| self.lookout.due())
    }

    /// How long a look may take that is due at `now`.
    pub(super) fn look_now(
        &self,
        sessions: &[Arc<SessionState>],
        now: Instant,
    ) -> Option<Duration> {
        let due = self.next_look()?;
        let interval = sessions.iter().map(|session| session.interval()).min()?;
        (due <= now).then(|| retry_pause(interval).min(shortest_trust(sessions)))
    }

    /// Asks whether anybody has expired and who will next, and collects beside the beats if so.
    pub(super) async fn look_for_expired(
        &mut self,
        sessions: &[Arc<SessionState>],
        limit: Duration,
    ) {
        let Some(conn) = self.conn.as_mut() else {
            return;
        };
        let own = Param::Array(sessions.iter().map(|session| uuid(session.id())).collect());
        let asked = conn.query(queries::COLLECT_OUTLOOK.sql, std::slice::from_ref(&own));
        let seen = match tokio::time::timeout(limit, asked).await {
            Ok(Ok(rows)) => Some(rows.first().map(outlook).unwrap_or_default()),
            _ => {
                // A beat finds out at once whether the server is still there.
                self.conn = None;
                self.next_beat = Some(Instant::now());
                None
            }
        };
        let period = sessions
            .iter()
            .map(|session| beat_period(session.interval()))
            .min()
            .unwrap_or(limit);
        self.lookout
            .looked(Instant::now(), seen, period, fastrand::f64());
        if seen.is_some_and(|seen| seen.expired) {
            self.collect_beside();
        }
    }

    /// Starts a collection on a connection of its own, unless one is going on.
    fn collect_beside(&self) {
        if self.collecting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (pool, metrics, events) = (
            self.collector.clone(),
            self.metrics.clone(),
            self.events.clone(),
        );
        let collecting = self.collecting.clone();
        tokio::spawn(async move {
            match collect::collect(&pool, &metrics).await {
                Ok(collected) if collected.beyond_reach > 0 && collected.sessions == 0 => events
                    .tell(
                        Level::Warning,
                        "collect",
                        "a backend sits in the transaction of an expired session, and this role may not end it: let \
                         all workers use one role, or grant pg_signal_backend",
                    ),
                Ok(collected) => collected.tell(&events),
                Err(error) => events.tell(
                    Level::Warning,
                    "collect",
                    format!("collection failed: {error}"),
                ),
            }
            pool.close_idle().await;
            collecting.store(false, Ordering::Release);
        });
    }
}

fn outlook(row: &tokio_postgres::Row) -> Outlook {
    let ahead = |column: &str| {
        let seconds: Option<f64> = row.get(column);
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    };
    Outlook {
        expired: row.get::<_, i64>("expired") > 0,
        next: ahead("next"),
        doomed: ahead("doomed"),
    }
}
