//! Ends of work without a callback, in group commits.
//!
//! A call returns once the commit that its own end was part of is durable. Ends in one group share nothing else: a lease that is
//! lost is just not among the rows that come back, and a group that fails is done again by halves until the one that it
//! failed for is alone. An end may be done twice without harm, since the lease with its token goes only once; so after a lost
//! answer it is done again, and if the lease is gone by then, its event in history tells whether that was us.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::coalesce::{Batch, Entry, Runner};
use super::retire::{passed, retired, still_open, unknown};
use crate::error::{Error, Result};
use crate::migrate::explain_missing_schema;
use crate::panics::fail_point;
use crate::pool::{Pool, STEP_LIMIT, Server};
use crate::queries;
use crate::retry::{Action, Event, Failure, Limits, Machine, Verdict};
use crate::sqlstate;
use crate::tag::Shape;
use crate::transaction::{HERE_ONLY, uuid};
use crate::value::Param;
use crate::work::{End, Ending, WorkLease, ending_params};

/// The most ends in one group commit.
const MOST: usize = 500;
/// An end to be done.
pub struct EndJob {
    end: End,
    values: Vec<Param>,
    /// It was sent already, and what came of that is not known.
    unsure: bool,
    /// Who was sent it and did not answer.
    unanswered: Vec<Arc<Server>>,
}

impl EndJob {
    /// The error for one of which nobody knows what came.
    fn unknown(&self, cause: &Error) -> Error {
        let trace = self.end.work().claimed().trace(self.end.ending().event());
        unknown(cause, trace, self.unanswered.iter().map(Arc::as_ref))
    }
}

impl EndJob {
    /// An end, with the values of its changes in the order of the shape. Refused while another is on its way.
    pub fn new(mut end: End, values: Vec<Param>) -> Result<Self> {
        end.begin()?;
        Ok(EndJob {
            end,
            values,
            unsure: false,
            unanswered: Vec::new(),
        })
    }

    fn done(&mut self) -> Result<()> {
        self.end.done();
        Ok(())
    }

    fn failed(&mut self, error: Error) -> Result<()> {
        self.end.failed(&error);
        Err(error)
    }
}

/// Ends of one kind with changes of one shape.
pub struct Ends {
    /// Where nobody waits for a lock for long.
    pool: Arc<Pool>,
    /// Where those end that have to.
    patient: Arc<Pool>,
    shape: Arc<Shape>,
    stale: AtomicBool,
}

impl Ends {
    /// Ends by this statement.
    #[must_use]
    pub fn new(pool: Arc<Pool>, patient: Arc<Pool>, shape: Arc<Shape>) -> Self {
        Ends {
            pool,
            patient,
            shape,
            stale: AtomicBool::new(false),
        }
    }

    /// Whether its statement did not fit the tags or the values: they may have been altered.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Its statement.
    #[must_use]
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }
}

impl Runner for Ends {
    type Job = EndJob;
    type Outcome = ();

    const LEADERS: usize = 2;
    const ROOM: usize = 20_000;

    fn most(&self) -> usize {
        if self.shape.single { 1 } else { MOST }
    }

    fn weight(&self, _: &EndJob) -> usize {
        1
    }

    async fn run(&self, batch: &mut Batch<Self>) -> Result<()> {
        let (mut size, mut singly) = (batch.entries.len(), false);
        while !batch.entries.is_empty() {
            refuse_expired(batch);
            let size_now = size.min(batch.entries.len());
            if size_now == 0 {
                break;
            }
            match self.end(batch, size_now).await? {
                Settled::All(outcomes) => {
                    for mut outcome in outcomes {
                        let Some(mut entry) = batch.entries.pop_front() else {
                            break;
                        };
                        let outcome = match &mut outcome {
                            None => entry.job.done(),
                            Some(error) => entry.job.failed(error.clone()),
                        };
                        batch.tell(entry, outcome);
                    }
                    size = if singly { 1 } else { batch.entries.len() };
                }
                Settled::Apart => size = size_now / 2,
                // One by one: whoever is locked costs the others one wait, and not one for each halving.
                Settled::HeldUp if size_now > 1 => {
                    size = 1;
                    singly = true;
                }
                Settled::HeldUp => {
                    if let Some(entry) = batch.entries.pop_front() {
                        batch.send_home(entry);
                    }
                    size = 1;
                }
            }
        }
        Ok(())
    }

    fn orphaned(&self, _: Result<()>) {}
}

/// What a group came to: an error or none for each of its members, or that it has to be taken apart; one that is held up
/// alone goes home.
enum Settled {
    All(Vec<Option<Error>>),
    Apart,
    HeldUp,
}

/// What one attempt has ended.
struct Ended {
    /// Their places in the batch.
    positions: HashSet<i64>,
    /// It is durable on this server, and may not be on others.
    here_only: bool,
}

fn refuse_expired(batch: &mut Batch<Ends>) {
    for _ in 0..batch.entries.len() {
        let Some(mut entry) = batch.entries.pop_front() else {
            return;
        };
        match entry.job.end.work().session().check() {
            // One that was sent already has to be found out about.
            Err(error) if !entry.job.unsure => {
                let outcome = entry.job.failed(error);
                batch.tell(entry, outcome);
            }
            _ => batch.entries.push_back(entry),
        }
    }
}

impl Ends {
    /// Ends the first `size` of them in one transaction, over as many attempts as it takes.
    async fn end(&self, batch: &mut Batch<Self>, size: usize) -> Result<Settled> {
        let alone = batch.alone;
        let entries = &mut batch.entries;
        let mut machine = Machine::new(self.pool.dialect().protocol(), Limits::default(), false);
        let mut action = machine.start();
        let started = Instant::now();
        let mut last: Option<Error> = None;
        loop {
            let event = match action {
                Action::Begin { .. } => match self.attempt(entries, size, alone).await {
                    Ok(ended) => return self.judged(entries, size, &ended).await,
                    Err((error, server)) => {
                        let failure = error.failure();
                        let held_up = error.sqlstate() == Some(sqlstate::LOCK_NOT_AVAILABLE)
                            || matches!(error, Error::TimedOut(_));
                        let answered = server.is_none();
                        if let Some(server) = server.map(Arc::new) {
                            for entry in entries.iter_mut().take(size) {
                                entry.job.unsure = true;
                                entry.job.unanswered.push(server.clone());
                            }
                        }
                        if matches!(error, Error::Interrupted) {
                            return Err(error);
                        }
                        if held_up && !alone {
                            return Ok(Settled::HeldUp);
                        }
                        if answered && failure == Failure::Permanent {
                            return Ok(if size > 1 {
                                Settled::Apart
                            } else {
                                self.given_up(entries, size, error).await?
                            });
                        }
                        last = Some(error);
                        Event::BeginFailed(if failure == Failure::Permanent {
                            Failure::Disconnected
                        } else {
                            failure
                        })
                    }
                },
                Action::Sleep(pause) => {
                    self.pool.drive().sleep(pause).await?;
                    Event::Slept
                }
                Action::Finish(verdict) => {
                    let error = last.take().unwrap_or_else(|| {
                        Error::ConnectionFailed("the end could not be sent".to_owned())
                    });
                    let error = match verdict {
                        Verdict::Exhausted { attempts } => {
                            for entry in entries.iter().take(size) {
                                let session = entry.job.end.work().session();
                                session.metrics().on_transaction_exhausted();
                            }
                            Error::RetriesExhausted {
                                attempts,
                                last: Some(Box::new(error)),
                            }
                        }
                        _ => error,
                    };
                    return self.given_up(entries, size, error).await;
                }
                other => unreachable!("{other:?} comes after BEGIN"),
            };
            action = machine
                .step(event, started.elapsed(), fastrand::f64())
                .expect("the driver answers what the machine asked for");
        }
    }

    /// One attempt: the positions that were ended. An error comes with the server if what was sent may have taken effect.
    async fn attempt(
        &self,
        entries: &VecDeque<Entry<Ends>>,
        size: usize,
        alone: bool,
    ) -> std::result::Result<Ended, (Error, Option<Server>)> {
        let ends: Vec<(&WorkLease, &Ending)> = entries
            .iter()
            .take(size)
            .map(|entry| (entry.job.end.work().as_ref(), entry.job.end.ending()))
            .collect();
        let limit = ends
            .iter()
            .map(|(work, _)| work.session().interval() / 4)
            .min()
            .unwrap_or(STEP_LIMIT)
            .min(STEP_LIMIT);
        let values: Vec<&[Param]> = entries
            .iter()
            .take(size)
            .map(|e| e.job.values.as_slice())
            .collect();
        let params = ending_params(&ends, &values, false, self.shape.single);
        let pool = if alone { &self.patient } else { &self.pool };
        let mut checkout = pool.checkout().await.map_err(|error| (error, None))?;
        let conn = checkout.conn();
        if alone {
            conn.plain().await.map_err(|error| (error, None))?;
        }
        still_open(conn).await.map_err(|error| (error, None))?;
        let server = conn.server().clone();
        fail_point("end");
        let never = std::future::pending();
        let rows = conn
            .query_unless(&self.shape.sql, &params, never, Some(limit))
            .await
            .map_err(|error| match error {
                Error::TimedOut(_) => Error::TimedOut(format!(
                    "ending work took longer than {:.1} s",
                    limit.as_secs_f64()
                )),
                other => other,
            });
        let rows = match rows {
            Ok(_) if conn.is_past() => {
                conn.broken = true;
                Err(passed())
            }
            rows => rows,
        };
        let here_only = conn.take_doubtful_commit();
        match rows {
            Ok(rows) => Ok(Ended {
                positions: rows.iter().map(|row| row.get("position")).collect(),
                here_only,
            }),
            Err(error) => {
                let unanswered = conn.broken;
                if matches!(error, Error::Value { .. })
                    || error
                        .sqlstate()
                        .is_some_and(|state| state.starts_with("42"))
                {
                    self.stale.store(true, Ordering::Release);
                }
                Err((explain_missing_schema(error), unanswered.then_some(server)))
            }
        }
    }

    async fn judged(
        &self,
        entries: &mut VecDeque<Entry<Ends>>,
        size: usize,
        ended: &Ended,
    ) -> Result<Settled> {
        let mut outcomes = Vec::with_capacity(size);
        let Ended {
            positions: ended,
            here_only,
        } = ended;
        // Should a signal end the look at history, those that were ended just now must not be taken for lost.
        for (entry, position) in entries.iter_mut().take(size).zip(1..) {
            entry.job.unsure |= ended.contains(&position);
        }
        for (entry, position) in entries.iter().take(size).zip(1..) {
            let done = match entry.job.unsure {
                _ if ended.contains(&position) => Some(true),
                // It may have been the attempt before.
                true => self.recorded(&entry.job.end).await?,
                false => Some(false),
            };
            outcomes.push(match done {
                // What this server says of it is no answer: a failover may take it back.
                Some(true) if *here_only => Some(here_only_error()),
                Some(true) => None,
                Some(false) => Some(gone()),
                None => Some(entry.job.unknown(&gone())),
            });
        }
        Ok(Settled::All(outcomes))
    }

    /// It cannot be done; but an attempt that was not answered may have taken effect, or still may until it is seen to be over.
    async fn given_up(
        &self,
        entries: &VecDeque<Entry<Ends>>,
        size: usize,
        error: Error,
    ) -> Result<Settled> {
        let mut over: HashMap<usize, bool> = HashMap::new();
        let mut outcomes = Vec::with_capacity(size);
        for entry in entries.iter().take(size) {
            let session = entry.job.end.work().session();
            let mut all_over = true;
            for server in &entry.job.unanswered {
                all_over &= match over.get(&Arc::as_ptr(server).addr()) {
                    Some(known) => *known,
                    None => {
                        let limit = session.trusted_for().max(Duration::from_secs(2));
                        let known = retired(&self.pool, server, limit).await?;
                        over.insert(Arc::as_ptr(server).addr(), known);
                        known
                    }
                };
            }
            let recorded = match entry.job.unsure {
                true => self.recorded(&entry.job.end).await?,
                false => Some(false),
            };
            outcomes.push(match recorded {
                Some(true) => None,
                // Of a session that is lost meanwhile nothing else can be said.
                Some(false) if all_over => {
                    Some(session.check().err().unwrap_or_else(|| error.clone()))
                }
                _ => Some(entry.job.unknown(&error)),
            });
        }
        Ok(Settled::All(outcomes))
    }

    /// Whether history has the end; `None` when nobody answers.
    async fn recorded(&self, end: &End) -> Result<Option<bool>> {
        let lease = end.work().claimed();
        let params = [
            uuid(lease.lease),
            uuid(lease.lease),
            Param::Text(end.ending().event().to_owned()),
        ];
        let asked = async {
            let mut checkout = self.pool.checkout().await?;
            let conn = checkout.conn();
            conn.query(queries::WORK_RECORDED.sql, &params).await
        };
        match asked.await {
            Ok(rows) => Ok(Some(!rows.is_empty())),
            Err(error @ Error::Interrupted) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

fn here_only_error() -> Error {
    Error::AmbiguousCommit {
        message: format!("the work has ended, and a failover may take that back: {HERE_ONLY}"),
        transaction: Box::default(),
    }
}

fn gone() -> Error {
    Error::LeaseLost(
        "the lease is gone: it was ended, or its session was given up; nothing was written"
            .to_owned(),
    )
}
