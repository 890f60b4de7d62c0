//! Everything that one `Connection` of the Python API stands on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::batch::lanes::Lanes;
use crate::clock::Clock;
use crate::collect::{self, Collected, own_plan};
use crate::config::Config;
use crate::dialect::{Access, Dialect, Isolation};
use crate::drive::Drive;
use crate::error::{Error, Result, TransactionId};
use crate::events::{Events, Level};
use crate::heartbeat::Heartbeat;
use crate::lease::{Loss, Moment};
use crate::metrics::Metrics;
use crate::migrate;
use crate::pool::Pool;
use crate::pooler::UNSPOKEN;
use crate::process::{self, Definition};
use crate::queries;
use crate::retry::Limits;
use crate::session::{SessionState, whole_interval};
use crate::settle;
use crate::timelines::Holder;
use crate::transaction::{Conclusion, Opening, Plan, Transaction, uuid};
use crate::value::Param;
use crate::work::WorkLease;

/// Collections asked for by callers who found nothing are done at most this often.
const COLLECT_PAUSE: Duration = Duration::from_secs(1);

/// More connections than any server takes.
const LARGEST_POOL: usize = 10_000;

/// How a `Connection` is set up.
pub struct Settings {
    /// Where to connect.
    pub config: Config,
    /// Who drives its I/O.
    pub drive: Drive,
    /// For people: which part of the fleet manager this is.
    pub component: String,
    /// For people: where it runs.
    pub runtime_info: String,
    /// The most connections of the pool; the heartbeat has its own.
    pub pool_size: usize,
    /// Of transactions with a callback.
    pub isolation: Isolation,
    /// Of transactions with a callback.
    pub max_retries: u32,
    /// Whether it may write. What only looks starts no session.
    pub access: Access,
    /// What to do where a pooler stands in between.
    pub pooling: Pooling,
}

/// What to do where a pooler stands in between that gives each transaction another backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// Say so, and what helps.
    #[default]
    Refuse,
    /// One may: leave nothing on a backend, and look for nothing there.
    Expect,
    /// The same if there is one.
    Adapt,
}

/// A component's access to the database.
pub struct Connection {
    pool: Arc<Pool>,
    settings: ConnectionSettings,
    clock: Arc<Clock>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    heartbeat: Mutex<Option<Heartbeat>>,
    collected: Mutex<Option<Instant>>,
    gates: Mutex<HashMap<String, Arc<crate::gate::Gate>>>,
    lanes: Lanes,
    closed: AtomicBool,
    closing: Mutex<Closing>,
    close_ended: Condvar,
}

struct ConnectionSettings {
    component: String,
    runtime_info: String,
    isolation: Isolation,
    max_retries: u32,
}

/// Deadlines are written and read by clocks that may differ by 500 ms, and a fifth of the interval is what a holder gives up before.
const SHORTEST_ON_COCKROACHDB: Duration = Duration::from_secs(3);

impl Connection {
    /// Connects once, so that what is wrong is told here, and looks at the schema.
    pub async fn open(settings: Settings) -> Result<Connection> {
        let Settings {
            config,
            drive,
            component,
            runtime_info,
            pool_size,
            isolation,
            max_retries,
            access,
            pooling,
        } = settings;
        if !(1..=LARGEST_POOL).contains(&pool_size) {
            return Err(Error::Config(format!(
                "pool_size must be a whole number from 1 to {LARGEST_POOL}"
            )));
        }
        let config = if config.application_name == "bmdb" {
            config.with_application_name(&format!("bmdb {component}"))
        } else {
            config
        };
        let config = match pooling {
            Pooling::Expect => config.with_pooler(),
            Pooling::Refuse | Pooling::Adapt => config,
        };
        let mut pool = Pool::with_access(config.clone(), drive.clone(), pool_size, access);
        match pool.checkout().await {
            Err(Error::Config(text)) if text == UNSPOKEN && pooling == Pooling::Adapt => {
                pool = Pool::with_access(config.with_pooler(), drive, pool_size, access);
                drop(pool.checkout().await?);
            }
            first => drop(first?),
        }
        Ok(Connection {
            lanes: Lanes::new(pool.clone()),
            pool,
            settings: ConnectionSettings {
                component,
                runtime_info,
                isolation,
                max_retries,
            },
            clock: Arc::new(Clock::default()),
            events: Arc::new(Events::default()),
            metrics: Arc::new(Metrics::default()),
            heartbeat: Mutex::new(None),
            collected: Mutex::new(None),
            gates: Mutex::new(HashMap::new()),
            closed: AtomicBool::new(false),
            closing: Mutex::new(Closing::NotBegun),
            close_ended: Condvar::new(),
        })
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// What the core has to tell.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The clock that trust is measured on.
    #[must_use]
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// The default isolation of transactions with a callback.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.settings.isolation
    }

    /// For people: which part of the fleet manager this is.
    #[must_use]
    pub fn component(&self) -> &str {
        &self.settings.component
    }

    /// True once closed.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Claims and ends without callbacks.
    #[must_use]
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The gate that claims by callback for `process` pass through.
    #[must_use]
    pub fn gate(&self, process: &str) -> Arc<crate::gate::Gate> {
        let mut gates = lock(&self.gates);
        gates
            .entry(process.to_owned())
            .or_insert_with(|| Arc::new(crate::gate::Gate::new(self.pool.size())))
            .clone()
    }

    /// Writes a session's row and has it renewed from now on.
    pub async fn start_session(&self, interval: f64, processor: &str) -> Result<Arc<SessionState>> {
        let interval = whole_interval(interval)?;
        self.pool.check_usable()?;
        let timelines = &self.pool.config().timelines;
        let session = loop {
            let timeline = timelines.highest();
            let (id, sent) = match self.write_session(interval).await {
                // Should it have been written, it holds nothing and expires by itself.
                Err(Error::AmbiguousCommit { .. }) => self.write_session(interval).await?,
                written => written?,
            };
            let session = SessionState::new(
                id,
                &self.settings.component,
                interval,
                sent,
                self.clock.clone(),
                self.events.clone(),
                self.metrics.processor(processor),
            );
            let holder: Arc<dyn Holder> = session.clone();
            timelines.watch(Arc::downgrade(&holder));
            // Else a failover came in between, and has not judged it.
            if timelines.highest() == timeline {
                break session;
            }
            session.lose(Loss::Gone);
        };
        if self.pool.dialect() == Dialect::CockroachDb && interval < SHORTEST_ON_COCKROACHDB {
            self.events.tell(Level::Warning, "session", format!(
                "an interval of {} s is shorter than five times the difference that CockroachDB allows its nodes' clocks by default \
                 (500 ms): a session may be collected a moment before its holder knows; what it writes is refused all the same",
                interval.as_secs()
            ));
        }
        let mut heartbeat = lock(&self.heartbeat);
        if self.closed() {
            // Nobody would ever end it; it expires by itself.
            return Err(Error::Config(
                "this connection is closed: open a new one".to_owned(),
            ));
        }
        // One that has died (it told its sessions) is replaced.
        if heartbeat
            .as_ref()
            .is_none_or(|heartbeat| !heartbeat.is_alive())
        {
            *heartbeat = Some(Heartbeat::start(
                self.pool.config().clone(),
                self.clock.clone(),
                self.events.clone(),
                self.metrics.clone(),
            )?);
        }
        if let Some(heartbeat) = heartbeat.as_ref() {
            heartbeat.watch(session.clone());
        }
        Ok(session)
    }

    /// Writes the row of a session with a fresh id; returns that and the moment before it was sent.
    async fn write_session(&self, interval: Duration) -> Result<(Uuid, Moment)> {
        let id = Uuid::new_v4();
        let seconds = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
        let params = [
            uuid(id),
            Param::Text(self.settings.component.clone()),
            Param::Text(self.settings.runtime_info.clone()),
            Param::Int(seconds),
        ];
        let mut tx = Transaction::new(self.pool.clone(), own_plan());
        loop {
            tx.begin().await?;
            let current = require_schema(&mut tx).await;
            let sent = self.clock.now();
            let outcome = match current {
                Ok(()) => tx.query(queries::SESSION_START.sql, &params).await,
                Err(error) => Err(error),
            };
            let raised = outcome.as_ref().err().map(|error| Some(error.failure()));
            match (tx.conclude(raised).await?, outcome) {
                (Conclusion::Again, _) => {}
                (_, outcome) => {
                    outcome.map_err(migrate::explain_missing_schema)?;
                    return Ok((id, sent));
                }
            }
        }
    }

    /// Releases a session's leases and removes its row, now.
    pub async fn end_session(&self, session: &Arc<SessionState>) -> Result<()> {
        let already_lost = session.loss().is_some();
        if let Some(heartbeat) = lock(&self.heartbeat).as_ref() {
            heartbeat.forget(session.id());
        }
        session.lose(Loss::Closed);
        if already_lost {
            // Whatever is left of it is collection's.
            return Ok(());
        }
        match self.delete_session(session).await {
            // Done twice it does no more than once.
            Err(Error::AmbiguousCommit { .. }) => self.delete_session(session).await,
            deleted => deleted,
        }
    }

    async fn delete_session(&self, session: &SessionState) -> Result<()> {
        let mut tx = Transaction::new(self.pool.clone(), own_plan());
        loop {
            tx.begin().await?;
            let outcome = end_within(&mut tx, session).await;
            let raised = outcome.as_ref().err().map(|error| Some(error.failure()));
            match tx.conclude(raised).await? {
                Conclusion::Again => {}
                Conclusion::Raise => return outcome,
                Conclusion::Committed => return Ok(()),
            }
        }
    }

    /// From now on the work may be held for so long without a touch, or for as long as its session lives. Refused when
    /// it is lost already.
    pub fn hold(&self, lease: &Arc<WorkLease>, limit: Option<Duration>) -> Result<()> {
        lease.hold(limit)?;
        // Without a heartbeat its session is lost, and the lease with it.
        if let (Some(_), Some(heartbeat)) = (limit, lock(&self.heartbeat).as_ref()) {
            heartbeat.hold(lease.clone());
        }
        Ok(())
    }

    /// The plan of a transaction with a callback, fenced by `session`.
    #[must_use]
    pub fn plan(
        &self,
        session: &Arc<SessionState>,
        isolation: Option<Isolation>,
        max_retries: Option<u32>,
    ) -> Plan {
        Plan {
            isolation: isolation.unwrap_or(self.settings.isolation),
            limits: Limits {
                max_retries: max_retries.unwrap_or(self.settings.max_retries),
                ..Limits::default()
            },
            statement_limit: None,
            session: Some(session.clone()),
            opening: Opening::Fence,
            settles: false,
            gate: None,
        }
    }

    /// Stores what the database keeps of these processes.
    pub async fn register(&self, definitions: &[Definition], replace: bool) -> Result<()> {
        for unwatched in process::register(&self.pool, definitions, replace).await? {
            self.events.tell(Level::Warning, "work", unwatched);
        }
        Ok(())
    }

    /// Collects now.
    pub async fn collect(&self) -> Result<Collected> {
        let collected = collect::collect(&self.pool, &self.metrics).await?;
        collected.tell(&self.events);
        Ok(collected)
    }

    /// Collects unless somebody here did so within the last second.
    pub async fn collect_if_due(&self) -> Result<Collected> {
        {
            let mut collected = lock(&self.collected);
            if collected.is_some_and(|at| at.elapsed() < COLLECT_PAUSE) {
                return Ok(Collected::default());
            }
            *collected = Some(Instant::now());
        }
        self.collect().await
    }

    /// How a transaction ended whose commit was not answered; `None` when that cannot be told within `limit`.
    pub async fn transaction_outcome(
        &self,
        id: &TransactionId,
        limit: Duration,
    ) -> Result<Option<bool>> {
        settle::outcome(&self.pool, id, limit).await
    }

    /// Ends all sessions, the heartbeat and the connections. Errors are not told: what could not be released now is
    /// collected later.
    pub async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.pool.check_usable().is_ok() {
            let sessions = lock(&self.heartbeat)
                .as_ref()
                .map(Heartbeat::sessions)
                .unwrap_or_default();
            for session in sessions {
                if self.end_session(&session).await.is_err() {
                    break;
                }
            }
        }
        let heartbeat = lock(&self.heartbeat).take();
        drop(heartbeat);
        self.lanes.close().await;
        self.pool.close().await;
        self.events.close();
    }

    /// The same when the interpreter exits: done within `limit`, or left to collection. May be called again to wait on,
    /// so that several connections can be closed at once.
    pub fn close_within(self: &Arc<Self>, limit: Duration) {
        let mut stage = lock(&self.closing);
        if *stage == Closing::NotBegun {
            *stage = Closing::Begun;
            let this = self.clone();
            // On a thread of its own, so that a server that does not answer cannot hold up the exit.
            let thread = std::thread::Builder::new().name("bmdb-close".to_owned());
            if thread.spawn(move || this.close_here()).is_err() {
                *stage = Closing::Done;
            }
        }
        // Done, or out of time: either way the exit goes on.
        drop(
            self.close_ended
                .wait_timeout_while(stage, limit, |stage| *stage != Closing::Done),
        );
    }

    /// Closes from a thread that belongs to no runtime.
    fn close_here(&self) {
        match self.pool.drive() {
            Drive::Caller(_) => crate::drive::complete(self.close()),
            Drive::Runtime => {
                if let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                {
                    runtime.block_on(self.close());
                }
            }
        }
        *lock(&self.closing) = Closing::Done;
        self.close_ended.notify_all();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    NotBegun,
    Begun,
    Done,
}

/// Refuses a schema older than this library.
async fn require_schema(tx: &mut Transaction) -> Result<()> {
    let rows = tx.query(queries::SCHEMA_VERSION.sql, &[]).await?;
    migrate::check_not_too_old(rows.first().map_or(0, |row| row.get(0)))
}

async fn end_within(tx: &mut Transaction, session: &SessionState) -> Result<()> {
    tx.query(queries::SESSION_LOCK.sql, &[uuid(session.id())])
        .await?;
    let component = Param::Text(session.component().to_owned());
    tx.query(queries::SESSION_END.sql, &[uuid(session.id()), component])
        .await?;
    if tx.dialect() == Dialect::CockroachDb {
        let ids = Param::Array(vec![uuid(session.id())]);
        tx.query(queries::SESSION_DELETE.sql, &[ids]).await?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
