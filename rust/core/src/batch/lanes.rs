//! The queues of one `Connection`: one for each shape of ends, one for each session, process and eligibility of claims.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::claims::{ClaimJob, Claims};
use super::coalesce::Coalescer;
use super::ends::{EndJob, Ends};
use crate::eligibility::{Compiled, Eligibility, questions};
use crate::error::{Error, Result};
use crate::migrate::explain_missing_schema;
use crate::pool::Pool;
use crate::queries::{self, Query};
use crate::reflect;
use crate::session::SessionState;
use crate::settle;
use crate::tag::{Change, Shape, Tag, shape, shape_key};
use crate::value::Param;
use crate::work::{End, Ending, WorkLease, check_process};

/// The connections for claims and ends, beside those of the pool: a callback that keeps one cannot hold these up.
const CONNECTIONS: usize = 4;
/// What those are set to. One plan for each statement, made of look-ups in indexes whatever the statistics say: a table that was
/// empty when it was planned does not stay so. Nobody waits for a lock for long: an end that would is done by its own
/// caller, on a connection of the pool.
const SETTINGS: &str = "SET default_transaction_isolation = 'read committed'; \
    SET default_transaction_read_only = off; SET lock_timeout = '100ms'; SET jit = off; \
    SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off";
/// Queues and statements kept; beyond that those go that nobody uses, as when each call has parameters of its own.
const LANES_KEPT: usize = 256;
/// How long to rely on what the catalogue said of a tag.
const SHAPE_AGE: Duration = Duration::from_secs(60);
/// How long to look after an interrupt whether an end took effect.
const QUICK_LOOK: Duration = Duration::from_millis(100);

/// An eligibility with what tells it apart, so that equal ones share a queue.
#[derive(Debug, Clone)]
pub struct Declared {
    /// What is declared.
    pub eligibility: Eligibility,
    /// Equal for equal ones.
    pub identity: Arc<str>,
    /// A short form of that, by which the database keeps its notes apart.
    pub fingerprint: Arc<str>,
}

impl Declared {
    /// Checks it as far as that goes without a database.
    pub fn new(eligibility: Eligibility) -> Result<Self> {
        eligibility.check()?;
        let identity = format!("{eligibility:?}");
        Ok(Declared {
            eligibility,
            fingerprint: short(&identity).into(),
            identity: identity.into(),
        })
    }
}

/// Queries about an eligibility. Where a tag is not there, only the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Questions {
    /// About machine `$1`: which of the tags it has, whether the condition holds, whether it is eligible.
    pub examined: String,
    /// For all machines that need the process.
    pub statement: Option<String>,
    /// How many machines process `$1` could lease now, and which place machine `$2` has among them.
    pub place: Option<String>,
}

/// FNV-1a: the same in every process, which the standard library does not promise of its hashes.
fn short(text: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Ends of one shape, and where they were given.
type Group = (Arc<Shape>, Vec<usize>, Vec<EndJob>);
type Lane = (Uuid, String, Arc<str>);

/// The queues.
pub struct Lanes {
    pool: Arc<Pool>,
    own: Arc<Pool>,
    shapes: Mutex<HashMap<String, (Arc<Shape>, Instant)>>,
    ends: Mutex<HashMap<String, Arc<Coalescer<Ends>>>>,
    claims: Mutex<HashMap<Lane, Arc<Coalescer<Claims>>>>,
}

impl Lanes {
    /// None yet.
    #[must_use]
    pub fn new(pool: Arc<Pool>) -> Self {
        let (config, drive) = (pool.config().clone(), pool.drive().clone());
        Lanes {
            own: Pool::with_settings(config, drive, CONNECTIONS, Some(SETTINGS)),
            pool,
            shapes: Mutex::default(),
            ends: Mutex::default(),
            claims: Mutex::default(),
        }
    }

    /// The statement that ends work so and makes these changes. Fails for a tag or a column that is not there.
    pub async fn shape(
        &self,
        template: &'static Query,
        changes: &[Change],
    ) -> Result<(String, Arc<Shape>)> {
        let key = shape_key(template.name, changes);
        if let Some(known) = self.fresh(&key) {
            return Ok((key, known));
        }
        let tags = if changes.is_empty() {
            Vec::new()
        } else {
            self.tags().await?
        };
        let given = if template == &queries::WORK_FAIL {
            9
        } else {
            6
        };
        let made = Arc::new(shape(
            self.pool.dialect(),
            template.sql,
            given,
            &tags,
            changes,
        )?);
        let mut shapes = lock(&self.shapes);
        if shapes.len() >= LANES_KEPT {
            shapes.clear();
        }
        // Ends of a shape that is still what it was share its queue.
        let made = match shapes.remove(&key) {
            Some((known, _)) if known == made => known,
            _ => made,
        };
        shapes.insert(key.clone(), (made.clone(), Instant::now()));
        Ok((key, made))
    }

    /// The same if it has been asked for before.
    #[must_use]
    pub fn known_shape(&self, ending: &Ending, changes: &[Change]) -> Option<Arc<Shape>> {
        self.fresh(&shape_key(ending.query().name, changes))
    }

    /// A statement that the catalogue has been asked about not long ago: tags may be altered.
    fn fresh(&self, key: &str) -> Option<Arc<Shape>> {
        let stale = lock(&self.ends)
            .get(key)
            .is_some_and(|lane| lane.runner.is_stale());
        if stale {
            return None;
        }
        let shapes = lock(&self.shapes);
        let (shape, asked) = shapes.get(key)?;
        (asked.elapsed() < SHAPE_AGE).then(|| shape.clone())
    }

    async fn tags(&self) -> Result<Vec<Tag>> {
        reflect::tags(&self.pool)
            .await
            .map_err(explain_missing_schema)
    }

    /// Ends work, with these changes of its machine's tags, in a transaction that others may share.
    pub async fn end(&self, end: End, changes: Vec<Change>) -> Result<()> {
        self.pool.check_usable()?;
        let (key, shape) = self.shape(end.ending().query(), &changes).await?;
        let (work, ending) = (end.work().clone(), end.ending().clone());
        let job = EndJob::new(end, values(changes))?;
        match self.lane(key, shape).call(self.pool.drive(), job).await {
            Err(Error::Interrupted) => {
                let committed = settle::quick_recorded(
                    self.pool.config(),
                    self.pool.drive(),
                    work.claimed(),
                    ending.event(),
                    QUICK_LOOK,
                );
                let committed = committed.await;
                if committed == Some(true)
                    && let Ok(mut end) = work.end(ending)
                    && end.begin().is_ok()
                {
                    end.done();
                }
                Err(Error::InterruptedCommit { committed })
            }
            outcome => outcome,
        }
    }

    /// Ends many at once; what came of each, in the same order.
    pub async fn end_many(&self, ends: Vec<(End, Vec<Change>)>) -> Result<Vec<Result<()>>> {
        self.pool.check_usable()?;
        let count = ends.len();
        let mut outcomes: Vec<Option<Result<()>>> = (0..count).map(|_| None).collect();
        let mut groups: HashMap<String, Group> = HashMap::new();
        for (position, (end, changes)) in ends.into_iter().enumerate() {
            let prepared = match self.shape(end.ending().query(), &changes).await {
                Ok((key, shape)) => EndJob::new(end, values(changes)).map(|job| (key, shape, job)),
                Err(error @ Error::Interrupted) => return Err(error),
                Err(error) => Err(error),
            };
            match prepared {
                Ok((key, shape, job)) => {
                    let group = groups
                        .entry(key)
                        .or_insert_with(|| (shape, Vec::new(), Vec::new()));
                    group.1.push(position);
                    group.2.push(job);
                }
                Err(error) => outcomes[position] = Some(Err(error)),
            }
        }
        for (key, (shape, positions, jobs)) in groups {
            let lane = self.lane(key, shape);
            let ended = match lane.call_all(self.pool.drive(), jobs).await {
                Ok(ended) => ended,
                Err(error @ Error::Interrupted) => return Err(error),
                // What befell one group must not hide that another is durable.
                Err(error) => positions.iter().map(|_| Err(error.clone())).collect(),
            };
            for (position, outcome) in positions.into_iter().zip(ended) {
                outcomes[position] = Some(outcome);
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    fn lane(&self, key: String, shape: Arc<Shape>) -> Arc<Coalescer<Ends>> {
        let mut ends = lock(&self.ends);
        if let Some(lane) = ends.get(&key)
            && *lane.runner.shape() == shape
            && !lane.runner.is_stale()
        {
            return lane.clone();
        }
        if ends.len() >= LANES_KEPT {
            ends.retain(|_, lane| !lane.is_idle());
        }
        let lane = Coalescer::new(Ends::new(self.own.clone(), self.pool.clone(), shape));
        ends.insert(key, lane.clone());
        lane
    }

    /// Leases up to `limit` machines that are eligible; none when there are none to be found now.
    pub async fn claim(
        &self,
        session: &Arc<SessionState>,
        process: &str,
        declared: &Declared,
        limit: usize,
    ) -> Result<Vec<Arc<WorkLease>>> {
        let lane = self.claims(session, process, declared).await?;
        lane.call(self.pool.drive(), ClaimJob::new(limit)).await
    }

    /// The queue of such claims.
    pub async fn claims(
        &self,
        session: &Arc<SessionState>,
        process: &str,
        declared: &Declared,
    ) -> Result<Arc<Coalescer<Claims>>> {
        self.pool.check_usable()?;
        session.check()?;
        match self.known_claims(session, process, declared) {
            Some(lane) => Ok(lane),
            None => self.claim_lane(session, process, declared).await,
        }
    }

    /// The statements that claim by an eligibility, for whoever wants to see their plans.
    pub async fn compiled(&self, declared: &Declared) -> Result<Compiled> {
        self.pool.check_usable()?;
        declared
            .eligibility
            .compile(self.pool.dialect(), &self.tags().await?)
    }

    /// What people and programs ask about an eligibility without parameters.
    pub async fn questions(&self, eligibility: &Eligibility) -> Result<Questions> {
        self.pool.check_usable()?;
        let tags = self.tags().await?;
        Ok(Questions {
            examined: eligibility.examined(&tags)?,
            statement: eligibility.statement(&tags).ok(),
            place: eligibility.place(&tags).ok(),
        })
    }

    /// The query for how many machines process `$1` could lease now by one of these.
    pub async fn backlog(&self, eligibilities: &[Eligibility]) -> Result<String> {
        self.pool.check_usable()?;
        questions::backlog(eligibilities, &self.tags().await?)
    }

    /// The queue of such claims, if there has been one before.
    #[must_use]
    pub fn known_claims(
        &self,
        session: &SessionState,
        process: &str,
        declared: &Declared,
    ) -> Option<Arc<Coalescer<Claims>>> {
        let key = lane_key(session, process, declared);
        let known = lock(&self.claims).get(&key).cloned();
        known.filter(|lane| !lane.runner.is_stale())
    }

    /// The queue of such ends, if there has been one before.
    #[must_use]
    pub fn known_ends(&self, ending: &Ending, changes: &[Change]) -> Option<Arc<Coalescer<Ends>>> {
        let key = shape_key(ending.query().name, changes);
        let shape = self.fresh(&key)?;
        let known = lock(&self.ends).get(&key).cloned();
        known.filter(|lane| *lane.runner.shape() == shape)
    }

    async fn claim_lane(
        &self,
        session: &Arc<SessionState>,
        process: &str,
        declared: &Declared,
    ) -> Result<Arc<Coalescer<Claims>>> {
        check_process(process)?;
        let compiled = self.compiled(declared).await?;
        let (params, watcher) = (
            declared.eligibility.params.clone(),
            declared.fingerprint.clone(),
        );
        // A query of the user's is planned as users' queries are.
        let pool = if compiled.windowed {
            &self.own
        } else {
            &self.pool
        };
        let claims = Claims::new(
            pool.clone(),
            session.clone(),
            process,
            compiled,
            params,
            watcher,
        );
        let key = lane_key(session, process, declared);
        let mut lanes = lock(&self.claims);
        // Those of sessions that are gone will not be asked again.
        lanes.retain(|_, lane| lane.runner.session().loss().is_none());
        if lanes.get(&key).is_some_and(|lane| lane.runner.is_stale()) {
            // What it owes goes with the session.
            lanes.remove(&key);
        }
        if lanes.len() >= LANES_KEPT {
            lanes.retain(|_, lane| !lane.is_idle() || lane.runner.owes());
        }
        Ok(lanes
            .entry(key)
            .or_insert_with(|| Coalescer::new(claims))
            .clone())
    }

    /// Closes their connections.
    pub async fn close(&self) {
        self.own.close().await;
    }

    /// How many calls wait for a batch, for people.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let ends: usize = lock(&self.ends).values().map(|lane| lane.waiting()).sum();
        let claims: usize = lock(&self.claims).values().map(|lane| lane.waiting()).sum();
        ends + claims
    }
}

fn lane_key(session: &SessionState, process: &str, declared: &Declared) -> Lane {
    let identity = declared.identity.clone();
    (session.id(), process.to_owned(), identity)
}

/// The values of changes, in the order of their shape's parameters.
#[must_use]
pub fn values(changes: Vec<Change>) -> Vec<Param> {
    let of = |change| match change {
        Change::Set { values, .. } => values,
        Change::Clear { .. } => Vec::new(),
    };
    changes
        .into_iter()
        .flat_map(of)
        .map(|(_, value)| value)
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
