//! Claims by declared eligibility: what several callers want at once is claimed at once.
//!
//! Ids are gone through from a random one on, round and round: where most machines are eligible, a claim costs as much as the
//! machines that it leases, whatever the fleet's size. Where few are, it looks first at those that triggers have noticed,
//! and for the rest spreads its sweep over time (see [`super::sweep`]).
//!
//! A claim is one transaction in one trip: what the first statement leases on its snapshot, the second judges again on a
//! new one, before COMMIT. If the answer is lost, that backend is seen to be over, and what the claim has leased is found again by
//! the id that its client gave it.

mod owed;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio_postgres::Row;
use uuid::Uuid;

use super::coalesce::{Batch, Entry, Runner};
use super::retire::{passed, still_open};
use super::sweep::{FIRST_ROUND, FIRST_WINDOW, LARGEST_WINDOW, Scan};
use crate::eligibility::Compiled;
use crate::error::{Error, Result};
use crate::lease::Loss;
use crate::migrate::explain_missing_schema;
use crate::panics::fail_point;
use crate::pool::{Pool, STEP_LIMIT, Server};
use crate::retry::{Action, BEGIN_RETRIES, Event, Failure, Limits, Machine, Verdict};
use crate::session::SessionState;
use crate::settle::{Claimed, name_leases};
use crate::sqlstate;
use crate::transaction::{until_lost, uuid};
use crate::value::Param;
use crate::work::WorkLease;

/// The most leases in one claim.
pub const MOST: usize = 500;
const COMMIT: &str = "SELECT 1; COMMIT";
/// The exclusion that the database itself upholds (migration 0003).
const EXCLUSION: &str = "work_exclusion";
/// Rows of the attention table that are judged for each lease wanted, and at least.
const NOTICED: i64 = 4;
const NOTICED_AT_LEAST: i64 = 1_000;
/// How often one call looks at notes: what has piled up while nobody looked must not hide what is new.
const MOST_LOOKS: u32 = 100;

/// So many leases, at most, for one caller.
pub struct ClaimJob {
    limit: usize,
    leases: Vec<Arc<WorkLease>>,
}

impl ClaimJob {
    /// At most `limit` leases, 500 or fewer.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        ClaimJob {
            limit: limit.clamp(1, MOST),
            leases: Vec::new(),
        }
    }

    fn wants(&self) -> usize {
        self.limit - self.leases.len()
    }
}

/// A claim of which nobody knows what came.
struct Unsettled {
    claim: Uuid,
    server: Server,
    since: Instant,
}

/// Claims of one session for one process by one eligibility.
pub struct Claims {
    pool: Arc<Pool>,
    session: Arc<SessionState>,
    process: String,
    compiled: Compiled,
    params: Vec<Param>,
    /// Whose notes it looks at.
    watcher: Arc<str>,
    /// Whether triggers tell of machines that become eligible, and when that was asked last.
    watched: Mutex<(bool, Option<Instant>)>,
    /// When it last said in the database that it asks.
    told: Mutex<Option<Instant>>,
    scan: Mutex<Scan>,
    unsettled: Mutex<Vec<Unsettled>>,
    stale: AtomicBool,
    /// Leases whose callers were gone. They are only ever given back: what came of an attempt to do so may be unknown.
    spare: Mutex<Vec<Arc<WorkLease>>>,
}

impl Claims {
    /// Claims by these statements, whose eligibility has these parameters.
    #[must_use]
    pub fn new(
        pool: Arc<Pool>,
        session: Arc<SessionState>,
        process: &str,
        compiled: Compiled,
        params: Vec<Param>,
        watcher: Arc<str>,
    ) -> Self {
        Claims {
            pool,
            session,
            process: process.to_owned(),
            compiled,
            params,
            watcher,
            watched: Mutex::new((false, None)),
            told: Mutex::new(None),
            scan: Mutex::new(Scan::new(Uuid::new_v4())),
            unsettled: Mutex::new(Vec::new()),
            stale: AtomicBool::new(false),
            spare: Mutex::new(Vec::new()),
        }
    }

    /// Whether its statement has met a table or a column that is not there any more.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Whether it has leases to give back, or to find.
    #[must_use]
    pub fn owes(&self) -> bool {
        !lock(&self.spare).is_empty() || !lock(&self.unsettled).is_empty()
    }

    /// The session that it claims for.
    #[must_use]
    pub fn session(&self) -> &Arc<SessionState> {
        &self.session
    }
}

/// What one statement looks at.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// What triggers have noticed.
    Attention,
    /// So many ids after this one.
    Window(Uuid, i64),
}

/// One round over the ids, as far as the budget goes.
struct Round {
    start: Uuid,
    wrapped: bool,
    watched: bool,
    attended: bool,
    looks: u32,
    window: i64,
    examined: i64,
}

impl Runner for Claims {
    type Job = ClaimJob;
    type Outcome = Vec<Arc<WorkLease>>;

    const LEADERS: usize = 1;
    const ROOM: usize = 20_000;

    fn most(&self) -> usize {
        MOST
    }

    fn weight(&self, job: &ClaimJob) -> usize {
        job.limit
    }

    async fn run(&self, batch: &mut Batch<Self>) -> Result<()> {
        let outcome = self.claim_all(batch).await;
        match outcome {
            Err(Error::Interrupted) => {
                // The next to lead goes on; what its caller has got already goes back.
                for entry in &mut batch.entries {
                    let leases = std::mem::take(&mut entry.job.leases);
                    lock(&self.spare).extend(leases);
                }
                Err(Error::Interrupted)
            }
            Err(error) => {
                self.tell_rest(batch, Some(&error));
                self.give_back().await
            }
            Ok(()) => {
                self.tell_rest(batch, None);
                self.give_back().await
            }
        }
    }

    fn orphaned(&self, outcome: Result<Vec<Arc<WorkLease>>>) {
        if let Ok(leases) = outcome {
            lock(&self.spare).extend(leases);
        }
    }
}

impl Claims {
    async fn claim_all(&self, batch: &mut Batch<Self>) -> Result<()> {
        self.session.check()?;
        self.settle_left_over().await?;
        self.tell_polled().await?;
        let watched = self.is_watched().await?;
        let mut round = {
            let mut scan = lock(&self.scan);
            let now = self.session.clock().now();
            if scan.budget.is_stale(now) {
                let after = scan.after;
                scan.first = Some((after, false));
            }
            scan.budget.refill(now, watched);
            Round {
                start: scan.after,
                wrapped: false,
                watched,
                attended: !(watched && scan.sparse),
                looks: 0,
                window: FIRST_WINDOW,
                examined: 0,
            }
        };
        loop {
            let wanted: usize = batch.entries.iter().map(|entry| entry.job.wants()).sum();
            if wanted == 0 {
                return Ok(());
            }
            let Some(look) = self.next_look(&mut round) else {
                return Ok(());
            };
            let (look, leases, more) = self.claim(look, wanted.min(MOST)).await?;
            let found = leases.len();
            let last = leases.iter().map(|lease| lease.machine()).max();
            self.hand_out(batch, leases);
            let Look::Window(after, window) = look else {
                // As many notes as were asked for: there may be more, and the one that matters among them.
                round.looks += 1;
                round.attended = !more || round.looks >= MOST_LOOKS;
                continue;
            };
            if !self.compiled.windowed {
                return Ok(());
            }
            lock(&self.scan).sparse = found < wanted;
            match last {
                Some(last) => lock(&self.scan).go_on(last, false),
                None => {
                    let (examined, end) = self.window_end(after, window).await?;
                    round.examined += examined;
                    // Whoever has something already is not kept waiting for long.
                    self.tell_satisfied(batch, round.examined >= FIRST_WINDOW);
                    round.window = (round.window * 2).min(LARGEST_WINDOW);
                    let mut scan = lock(&self.scan);
                    if scan.first.is_none() {
                        scan.budget.spend(examined);
                    }
                    match end {
                        Some(end) if round.wrapped && end >= round.start => {
                            scan.after = end;
                            scan.complete(round.examined);
                            return Ok(());
                        }
                        Some(end) => scan.go_on(end, false),
                        None if round.wrapped => {
                            scan.after = round.start;
                            scan.complete(if after.is_nil() {
                                examined
                            } else {
                                round.examined
                            });
                            return Ok(());
                        }
                        None => {
                            round.wrapped = true;
                            scan.go_on(Uuid::nil(), true);
                        }
                    }
                }
            }
        }
    }

    fn next_look(&self, round: &mut Round) -> Option<Look> {
        if !round.attended {
            round.attended = true;
            return Some(Look::Attention);
        }
        let scan = lock(&self.scan);
        if !self.compiled.windowed {
            return Some(Look::Window(scan.after, 0));
        }
        let first = scan.first.is_some() && round.examined < FIRST_ROUND;
        let whole = first || scan.fleet.is_some_and(|fleet| fleet <= FIRST_WINDOW);
        let window = if whole {
            Some(round.window)
        } else {
            scan.budget.allows(round.window)
        };
        match window {
            Some(window) => Some(Look::Window(scan.after, window)),
            // A claim that may not go through ids looks at what has been noticed, at least.
            None if round.watched && round.looks == 0 => Some(Look::Attention),
            None => None,
        }
    }

    async fn window_end(&self, after: Uuid, window: i64) -> Result<(i64, Option<Uuid>)> {
        let mut tries = 0;
        loop {
            // What broke the connection of the claim may have broken all others that wait here, and looking harms nobody.
            match self.window_end_once(after, window).await {
                Err(error) if error.failure() == Failure::Disconnected && tries < BEGIN_RETRIES => {
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn window_end_once(&self, after: Uuid, window: i64) -> Result<(i64, Option<Uuid>)> {
        let mut checkout = self.pool.checkout().await?;
        let params = [uuid(after), Param::Int(window)];
        let rows = checkout
            .conn()
            .query(&self.compiled.window_end, &params)
            .await?;
        Ok(rows
            .first()
            .map_or((0, None), |row| (row.get("examined"), row.get("last"))))
    }

    /// Gives leases to those that wait, in the order of their calls; what nobody wants is spare.
    fn hand_out(&self, batch: &mut Batch<Self>, leases: Vec<Arc<WorkLease>>) {
        let mut leases = leases.into_iter();
        for entry in &mut batch.entries {
            let wants = entry.job.wants();
            entry.job.leases.extend(leases.by_ref().take(wants));
        }
        lock(&self.spare).extend(leases);
        self.tell_satisfied(batch, false);
    }

    /// Tells those that have all they want, or anything.
    fn tell_satisfied(&self, batch: &mut Batch<Self>, with_some: bool) {
        for _ in 0..batch.entries.len() {
            let Some(entry) = batch.entries.pop_front() else {
                return;
            };
            if entry.job.wants() == 0 || (with_some && !entry.job.leases.is_empty()) {
                tell(batch, entry);
            } else {
                batch.entries.push_back(entry);
            }
        }
    }

    fn tell_rest(&self, batch: &mut Batch<Self>, error: Option<&Error>) {
        while let Some(entry) = batch.entries.pop_front() {
            match error {
                Some(error) if entry.job.leases.is_empty() => batch.tell(entry, Err(error.clone())),
                _ => tell(batch, entry),
            }
        }
    }

    /// Claims once, over as many attempts as it takes.
    /// Where it has looked in the end, what it has leased, and whether there may be more notes than it has looked at.
    async fn claim(
        &self,
        mut look: Look,
        limit: usize,
    ) -> Result<(Look, Vec<Arc<WorkLease>>, bool)> {
        let mut machine = Machine::new(self.pool.dialect().protocol(), Limits::default(), false);
        let mut action = machine.start();
        let started = Instant::now();
        let mut last = None;
        loop {
            let event = match action {
                Action::Begin { .. } => match self.attempt(look, limit).await {
                    Ok((leases, more)) => return Ok((look, leases, more)),
                    Err(error) => {
                        let held_up = matches!(&error, Error::Database(told)
                            if told.constraint.as_deref() == Some(EXCLUSION)
                                || told.sqlstate == sqlstate::LOCK_NOT_AVAILABLE);
                        // Whoever is in the way there may stay for long.
                        if let (true, Look::Window(_, window)) = (held_up, look) {
                            look = Look::Window(Uuid::new_v4(), window);
                        }
                        let failure = if held_up {
                            Failure::Retryable
                        } else {
                            error.failure()
                        };
                        if matches!(failure, Failure::Permanent | Failure::Ambiguous) {
                            return Err(error);
                        }
                        last = Some(error);
                        Event::BeginFailed(failure)
                    }
                },
                Action::Sleep(pause) => {
                    self.pool.drive().sleep(pause).await?;
                    Event::Slept
                }
                Action::Finish(Verdict::Exhausted { attempts }) => {
                    self.session.metrics().on_transaction_exhausted();
                    return Err(Error::RetriesExhausted {
                        attempts,
                        last: last.map(Box::new),
                    });
                }
                Action::Finish(_) => {
                    return Err(last.unwrap_or_else(|| {
                        Error::ConnectionFailed("the claim could not be sent".to_owned())
                    }));
                }
                other => unreachable!("{other:?} comes after BEGIN"),
            };
            action = machine
                .step(event, started.elapsed(), fastrand::f64())
                .expect("the driver answers what the machine asked for");
        }
    }

    /// What one attempt has leased, and whether there may be more notes than it has looked at.
    async fn attempt(&self, look: Look, limit: usize) -> Result<(Vec<Arc<WorkLease>>, bool)> {
        self.session.check()?;
        fail_point("claim");
        let claim = name_leases();
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX);
        let (text, after, window) = match look {
            Look::Attention => {
                let rows = (wanted * NOTICED).max(NOTICED_AT_LEAST);
                (&self.compiled.attend, Uuid::nil(), rows)
            }
            Look::Window(after, window) => (&self.compiled.claim, after, window),
        };
        let mut params = self.params.clone();
        params.extend([
            uuid(self.session.id()),
            Param::Text(self.process.clone()),
            uuid(claim),
        ]);
        let mut verify = params.clone();
        params.extend([uuid(after), Param::Int(window), Param::Int(wanted)]);
        if matches!(look, Look::Attention) {
            params.push(Param::Text(self.watcher.to_string()));
        }
        verify.push(Param::Text(self.session.component().to_owned()));
        let trusted = self.session.trusted_for();
        let stop = until_lost(Some(self.session.clone()), None);
        let mut checkout = self.pool.checkout_unless(stop, Some(trusted)).await?;
        let conn = checkout.conn();
        still_open(conn).await?;
        let server = conn.server().clone();
        // A look that goes on for long is a claim by SQL of the user's; a dead link is noticed within its limit.
        let limit = if self.compiled.windowed {
            (self.session.interval() / 4).min(STEP_LIMIT)
        } else {
            STEP_LIMIT
        };
        let outcome = conn
            .transaction(
                self.pool.dialect().begin_whole(),
                Some((text, &params)),
                (&self.compiled.verify, &verify),
                COMMIT,
                until_lost(Some(self.session.clone()), None),
                limit,
            )
            .await;
        // Durable on this server only, it is a lease all the same: a failover ends the session.
        conn.take_doubtful_commit();
        let outcome = match outcome {
            Ok(_) if conn.is_past() => {
                conn.broken = true;
                Err(passed())
            }
            outcome => outcome,
        };
        let unanswered = outcome.is_err() && conn.broken;
        match outcome {
            Ok((_, rows)) if rows.is_empty() => {
                self.session.lose(Loss::Gone);
                Err(self
                    .session
                    .expired(&self.session.loss().unwrap_or(Loss::Gone)))
            }
            Ok((ahead, rows)) => {
                let noticed = ahead.first().map_or(0, |row| row.get("noticed"));
                Ok((self.leases(&rows), noticed > 0 && noticed >= window))
            }
            Err(error) if unanswered => {
                drop(checkout);
                let unsettled = Unsettled {
                    claim,
                    server,
                    since: Instant::now(),
                };
                if matches!(error, Error::Interrupted) {
                    lock(&self.unsettled).push(unsettled);
                    return Err(error);
                }
                match self.settle(&unsettled, &error).await {
                    Ok(found) if found.is_empty() => {
                        if !self.is_final(&unsettled) {
                            lock(&self.unsettled).push(unsettled);
                        }
                        Err(error)
                    }
                    Ok(found) => Ok((found, false)),
                    Err(unknown) => {
                        lock(&self.unsettled).push(unsettled);
                        Err(unknown)
                    }
                }
            }
            Err(error)
                if error
                    .sqlstate()
                    .is_some_and(|state| state.starts_with("42")) =>
            {
                self.stale.store(true, Ordering::Release);
                Err(if self.compiled.users {
                    error
                } else {
                    explain_missing_schema(error)
                })
            }
            // A table that a user's text wants is no matter of our schema.
            Err(error) if self.compiled.users => Err(error),
            Err(error) => Err(explain_missing_schema(error)),
        }
    }

    fn leases(&self, rows: &[Row]) -> Vec<Arc<WorkLease>> {
        let lease = |row: &Row| {
            let claimed = Claimed {
                machine: row.get::<_, Option<Uuid>>("machine_id")?,
                process: self.process.clone(),
                session: self.session.id(),
                token: row.get("token"),
                lease: row.get("lease_id"),
            };
            let previous = row.get("last_interval_seconds");
            let lease = WorkLease::leased(self.session.clone(), claimed, previous);
            lease.begun();
            Some(lease)
        };
        rows.iter().filter_map(lease).collect()
    }
}

fn tell(batch: &Batch<Claims>, mut entry: Entry<Claims>) {
    let leases = std::mem::take(&mut entry.job.leases);
    batch.tell(entry, Ok(leases));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
