//! The heartbeat: one thread, one small runtime, one connection of its own.
//!
//! It never needs Python: no GIL, no pool, no logging, only the event queue. One statement renews all sessions of a
//! `Connection`. Beats go out every half of the shortest interval, a little earlier by chance so that processes started
//! together drift apart. A beat that fails is tried again on a new connection until trust ends.

mod look;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::Config;
use crate::connect::Canceller;
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::events::{Event, Events, Level};
use crate::lease::{Loss, beat_period, retry_pause};
use crate::lookout::Lookout;
use crate::metrics::Metrics;
use crate::overdue::{self, Holds};
use crate::panics::fail_point;
use crate::pool::{Conn, PLAIN_SETTINGS, Pool};
use crate::queries;
use crate::session::SessionState;
use crate::transaction::uuid;
use crate::value::Param;
use crate::work::WorkLease;

struct Shared {
    sessions: Mutex<HashMap<Uuid, Arc<SessionState>>>,
    holds: Arc<Holds>,
    changed: Notify,
    stop: AtomicBool,
}

impl Shared {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Arc<SessionState>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stopped(&self) {
        loop {
            let changed = self.changed.notified();
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }
}

/// The heartbeat of one `Connection`.
pub struct Heartbeat {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    owner: u32,
}

impl Heartbeat {
    /// Starts the thread.
    pub fn start(
        config: Config,
        clock: Arc<Clock>,
        events: Arc<Events>,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            sessions: Mutex::new(HashMap::new()),
            holds: Arc::new(Holds::default()),
            changed: Notify::new(),
            stop: AtomicBool::new(false),
        });
        let mut beater = Beater {
            shared: shared.clone(),
            collector: Pool::new(config.clone(), Drive::Runtime, 1),
            config,
            clock,
            events,
            metrics,
            conn: None,
            next_beat: None,
            failing_since: None,
            wary: false,
            stuck: None,
            lookout: Lookout::default(),
            collecting: Arc::new(AtomicBool::new(false)),
        };
        let thread = std::thread::Builder::new()
            .name("bmdb-heartbeat".to_owned())
            .spawn(move || {
                let shared = beater.shared.clone();
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build();
                    match runtime {
                        Ok(runtime) => {
                            runtime.block_on(beater.run());
                            None
                        }
                        Err(error) => Some(format!("no event loop: {error}")),
                    }
                }));
                let cause = outcome.unwrap_or_else(|_| Some("its thread panicked".to_owned()));
                if let Some(cause) = cause {
                    for session in shared.sessions().values() {
                        session.lose(Loss::HeartbeatFailed(cause.clone()));
                    }
                }
            })
            .map_err(|error| {
                Error::Config(format!("cannot start the heartbeat's thread: {error}"))
            })?;
        Ok(Heartbeat {
            shared,
            thread: Some(thread),
            owner: std::process::id(),
        })
    }

    /// False once its thread has ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Renews this session from now on, until it is lost.
    pub fn watch(&self, session: Arc<SessionState>) {
        self.shared.sessions().insert(session.id(), session);
        self.shared.changed.notify_one();
    }

    /// No longer renews this session.
    pub fn forget(&self, id: Uuid) {
        self.shared.sessions().remove(&id);
        self.shared.changed.notify_one();
    }

    /// Takes this lease from its holder when it is overdue, and fails it.
    pub fn hold(&self, lease: Arc<WorkLease>) {
        self.shared.holds.add(lease);
    }

    /// The sessions being renewed.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<SessionState>> {
        self.shared.sessions().values().cloned().collect()
    }

    /// Ends the thread and waits for it.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        if std::process::id() != self.owner {
            // The thread stayed in the parent.
            std::mem::forget(thread);
            return;
        }
        self.shared.stop.store(true, Ordering::Release);
        self.shared.changed.notify_one();
        drop(thread.join());
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Beater {
    shared: Arc<Shared>,
    config: Config,
    clock: Arc<Clock>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    conn: Option<Conn>,
    collector: Arc<Pool>,
    next_beat: Option<Instant>,
    failing_since: Option<Instant>,
    /// A beat has timed out: pass over rows that somebody holds.
    wary: bool,
    /// What the last failed beat left behind.
    stuck: Option<Stuck>,
    /// When to look for expired sessions, on the beats' connection.
    lookout: Lookout,
    collecting: Arc<AtomicBool>,
}

impl Beater {
    async fn run(&mut self) {
        let shared = self.shared.clone();
        tokio::spawn(overdue::watch(shared.holds.clone(), self.config.clone()));
        while !shared.stop.load(Ordering::Acquire) {
            let sessions = self.living();
            let now = Instant::now();
            if sessions.is_empty() {
                self.next_beat = None;
                self.lookout = Lookout::default();
                if let Some(conn) = self.conn.take() {
                    conn.close().await;
                }
                shared.changed.notified().await;
                continue;
            }
            fail_point("beat");
            let period = sessions
                .iter()
                .map(|session| beat_period(session.interval()))
                .min()
                .unwrap_or(Duration::MAX);
            // Opened ahead, so that a beat is one round trip and not the eight of a new connection.
            if self.conn.is_none() && self.failing_since.is_none() && self.next_beat.is_none() {
                // One that leads nowhere must not use up the trust that another try needs.
                let limit = (period * 4 / 5).min(shortest_trust(&sessions));
                let opened = tokio::select! {
                    opened = tokio::time::timeout(limit, self.connect(limit)) => opened,
                    () = shared.stopped() => return,
                };
                let failure = match opened {
                    Ok(opened) => opened.err(),
                    Err(_) => Some(Error::TimedOut("no connection in time".to_owned())),
                };
                if let Some(error) = failure {
                    self.on_failure(&sessions, &error);
                }
                self.next_beat = Some(now + jittered(period, 0.5));
                continue;
            }
            let soonest = now + period;
            let mut planned = self.next_beat.map_or_else(
                || now + jittered(period, 0.5),
                |planned| planned.min(soonest),
            );
            if let Some(limit) = self.look_now(&sessions, now) {
                if planned > now + limit {
                    tokio::select! {
                        () = self.look_for_expired(&sessions, limit) => {}
                        () = shared.stopped() => return,
                    }
                    continue;
                }
                // It might keep the beat waiting: the beat goes first, a little early.
                planned = now;
            }
            self.next_beat = Some(planned);
            if planned > now {
                let trusted = now + shortest_trust(&sessions);
                let look = self.next_look().unwrap_or(planned);
                let wake = planned.min(trusted).min(look);
                tokio::select! {
                    () = shared.changed.notified() => {}
                    () = tokio::time::sleep_until(wake.into()) => {}
                }
                continue;
            }
            self.metrics.heartbeat_lateness.observe(now - planned);
            let pause = tokio::select! {
                pause = self.beat_once(&sessions, period) => pause,
                () = shared.stopped() => return,
            };
            self.next_beat = Some(now + pause);
        }
    }

    /// The sessions that are not lost; the lost are told of and forgotten here.
    fn living(&self) -> Vec<Arc<SessionState>> {
        let mut sessions = self.shared.sessions();
        sessions.retain(|_, session| session.loss().is_none());
        sessions.values().cloned().collect()
    }

    /// One beat; returns the pause from its start to the next.
    async fn beat_once(&mut self, sessions: &[Arc<SessionState>], period: Duration) -> Duration {
        let interval = sessions
            .iter()
            .map(|session| session.interval())
            .min()
            .unwrap_or(period * 2);
        // Connecting takes some round trips more.
        let attempt = match self.conn {
            Some(_) => retry_pause(interval),
            None => retry_pause(interval) * 2,
        };
        let limit = attempt.min(shortest_trust(sessions));
        let outcome = match tokio::time::timeout(limit, self.beat(sessions, limit)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.wary = true;
                Err(Error::TimedOut(format!(
                    "no answer within {:.1} s",
                    limit.as_secs_f64()
                )))
            }
        };
        self.metrics.on_heartbeat(outcome.is_ok());
        match outcome {
            Ok(()) => {
                if let Some(since) = self.failing_since.take() {
                    let message = format!(
                        "heartbeat is back after {:.1} s",
                        since.elapsed().as_secs_f64()
                    );
                    self.events.tell(Level::Info, "heartbeat", message);
                }
                if self.lookout.is_due(Instant::now()) {
                    self.look_for_expired(sessions, limit).await;
                    if self.conn.is_none() {
                        // The look failed: a beat finds out at once whether the server is still there.
                        return Duration::ZERO;
                    }
                }
                jittered(period, 0.1)
            }
            Err(error) => {
                self.stuck = self.conn.take().map(|conn| Stuck {
                    pid: conn.server().pid,
                    canceller: conn.canceller(),
                });
                let first = self.on_failure(sessions, &error);
                // The first failure is most often a connection that went stale: a new one may work at once. Later ones
                // leave room for another before trust ends.
                if first {
                    Duration::from_millis(20)
                } else {
                    let room = shortest_trust(sessions) / 2;
                    retry_pause(interval).min(room.max(Duration::from_millis(20)))
                }
            }
        }
    }

    /// Notes a failure and tells of the first in a row; true for that one.
    fn on_failure(&mut self, sessions: &[Arc<SessionState>], error: &Error) -> bool {
        let first = self.failing_since.is_none();
        self.failing_since.get_or_insert_with(Instant::now);
        let trusted = shortest_trust(sessions);
        // A session that was closed or lost meanwhile is told of elsewhere.
        if !trusted.is_zero() {
            self.events.tell(
                if first { Level::Warning } else { Level::Debug },
                "heartbeat",
                format!(
                    "heartbeat failed, trying again on a new connection ({error}); trusted for {:.1} s more",
                    trusted.as_secs_f64()
                ),
            );
        }
        first
    }

    async fn connect(&mut self, limit: Duration) -> Result<()> {
        // Boxed, since it is rare and large.
        let opening = Box::pin(Conn::open(
            &self.config,
            &Drive::Runtime,
            Some(limit * 9 / 10),
        ));
        let mut conn = opening.await?;
        // Whatever the role's defaults: a SERIALIZABLE beat would abort its own users' transactions.
        conn.set_up(PLAIN_SETTINGS, queries::SESSION_RENEW.sql)
            .await?;
        self.conn = Some(conn);
        Ok(())
    }

    async fn beat(&mut self, sessions: &[Arc<SessionState>], limit: Duration) -> Result<()> {
        // A primary of the past may still answer, for some time.
        if self.conn.as_ref().is_some_and(Conn::is_past) {
            self.conn = None;
        }
        if self.conn.is_none() {
            self.connect(limit).await?;
        }
        let conn = self.conn.as_mut().expect("just opened");
        conn.look_again().await?;
        let ids = |sessions: &[Arc<SessionState>]| {
            Param::Array(sessions.iter().map(|s| uuid(s.id())).collect())
        };
        let query = if self.wary {
            &queries::SESSION_RENEW_UNLOCKED
        } else {
            &queries::SESSION_RENEW
        };
        let sent = self.clock.now();
        let rows = conn.query(query.sql, &[ids(sessions)]).await?;
        if conn.is_past() {
            return Err(Error::ConnectionFailed(
                "another primary has taken over from the one that answered".to_owned(),
            ));
        }
        let renewed: HashMap<Uuid, Option<SystemTime>> = rows
            .iter()
            .map(|row| (row.get(0), row.try_get("session_deadline").ok()))
            .collect();
        let (kept, missing): (Vec<_>, Vec<_>) = sessions
            .iter()
            .cloned()
            .partition(|s| renewed.contains_key(&s.id()));
        for session in &kept {
            session.renewed(sent, renewed.get(&session.id()).copied().flatten());
        }
        if conn.is_past() {
            // A failover has judged them in this very moment, by less than what was just counted on.
            let to = self.config.timelines.highest();
            for session in &kept {
                session.lose(Loss::FailedOver {
                    from: conn.server().timeline.unwrap_or_default(),
                    to,
                    missing: "its last heartbeat was answered by the primary of the past",
                });
            }
            return Ok(());
        }
        if missing.is_empty() {
            self.wary = false;
            return Ok(());
        }
        let rows = conn
            .query(queries::SESSION_LIVE.sql, &[ids(&missing)])
            .await?;
        let live: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        let blocker = match self.stuck.take() {
            Some(stuck) if !live.is_empty() => stuck.blocker(conn).await,
            _ => None,
        };
        let blocker = blocker.as_deref().unwrap_or("somebody");
        for session in &missing {
            if live.contains(&session.id()) {
                self.events.push(Event {
                    level: Level::Warning,
                    source: "heartbeat",
                    session: Some(session.id()),
                    lost: false,
                    lease: None,
                    subject: None,
                    message: format!(
                        "{blocker} holds a lock on the row of session {}; it is lost in {:.1} s unless that ends",
                        session.id(),
                        session.trusted_for().as_secs_f64()
                    ),
                });
            } else {
                session.lose(Loss::Gone);
            }
        }
        if live.is_empty() {
            Ok(())
        } else {
            Err(Error::TimedOut("a session's row is locked".to_owned()))
        }
    }
}

/// A connection that was given up while the server was still at a beat.
struct Stuck {
    pid: Option<i32>,
    canceller: Canceller,
}

impl Stuck {
    /// Who keeps that beat waiting, as told by the server; then the beat is called off.
    async fn blocker(&self, conn: &mut Conn) -> Option<String> {
        let pid = Param::Int(i64::from(self.pid?));
        let rows = conn
            .query(queries::SESSION_BLOCKER.sql, &[pid])
            .await
            .ok()?;
        let row = rows.first()?;
        let told = format!(
            "backend {} ({:?}, user {:?}, {})",
            row.get::<_, i32>("pid"),
            row.get::<_, String>("application_name"),
            row.get::<_, String>("username"),
            row.get::<_, String>("state"),
        );
        // Best effort: it would end by itself when the lock is gone.
        drop(tokio::time::timeout(Duration::from_millis(200), self.canceller.cancel()).await);
        Some(told)
    }
}

fn shortest_trust(sessions: &[Arc<SessionState>]) -> Duration {
    sessions
        .iter()
        .map(|session| session.trusted_for())
        .min()
        .unwrap_or_default()
}

/// `period`, earlier by up to `share` of it.
fn jittered(period: Duration, share: f64) -> Duration {
    period.mul_f64(1.0 - share * fastrand::f64())
}
