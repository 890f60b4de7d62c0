//! The retry policy of a transaction, as a state machine without I/O, clock or randomness.
//!
//! A driver owns the connection and the callback. It asks [`Machine::start`] what to do first, does it, tells
//! [`Machine::step`] how that ended, and goes on until it is told to finish:
//!
//! ```text
//!            ┌──────────────── Sleep ◄──────────────┐
//!            ▼                   │ (savepoint)      │
//! start ─► Begin ─► Run ◄────────┘                  │
//!                    ├─ returned ─► Commit ─────────┤ retryable: Rollback or Restart
//!                    └─ raised ─► Rollback, Restart ┤
//!                                   Settle ─────────┘ settled as aborted
//! ```
//!
//! What it promises: the callback is never run again once an earlier run may have been committed, and
//! [`Verdict::Committed`] is given only when a commit is known to have happened.

use std::time::Duration;

/// How often in a row a failed BEGIN is tried again before its error surfaces.
pub const BEGIN_RETRIES: u32 = 5;

/// How a transaction is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PostgreSQL: ROLLBACK and BEGIN anew, since rolling back to a savepoint keeps the old snapshot.
    Rollback,
    /// CockroachDB: SAVEPOINT cockroach_restart, whose RELEASE is the commit.
    Savepoint,
}

/// What an error means for the transaction in which it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The server gave this transaction up in favour of another: run it again on a new snapshot.
    Retryable,
    /// The connection is gone, and with it whatever was not committed.
    Disconnected,
    /// The server lacks connections, memory or disk.
    Overloaded,
    /// The statement may have taken effect, or not.
    Ambiguous,
    /// It would fail again.
    Permanent,
}

/// What happened, as the answer to the last [`Action`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A transaction is open (and has its savepoint, where the protocol wants one).
    Begun,
    /// No transaction could be opened; the driver has left none open behind it.
    BeginFailed(Failure),
    /// The callback returned, and no statement of its failed beyond repair.
    Returned,
    /// The callback returned although a statement's error had aborted the transaction.
    ReturnedAfter(Failure),
    /// The callback raised. The failure is that of the database error in its chain of causes, if there is one.
    Raised(Option<Failure>),
    /// The commit is known to have taken effect. In the savepoint protocol that is RELEASE, whatever follows it.
    Committed,
    /// The commit was sent, or could not be, and this came of it.
    CommitFailed(Failure),
    /// The transaction is over. A connection that broke or was dropped instead has rolled back too.
    RolledBack,
    /// The savepoint is restored.
    Restarted,
    /// The savepoint could not be restored.
    RestartFailed,
    /// The sleep is over.
    Slept,
    /// The commit asked about took effect.
    SettledCommitted,
    /// The commit asked about did not and cannot take effect any more.
    SettledAborted,
    /// Nobody could tell.
    Unsettled,
}

/// What the driver has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open a transaction. Answer: [`Event::Begun`], [`Event::BeginFailed`].
    Begin {
        /// Drop the connection in use and take another.
        reconnect: bool,
    },
    /// Run the callback. Answer: [`Event::Returned`], [`Event::ReturnedAfter`], [`Event::Raised`].
    Run {
        /// Which run of the callback this is, from 1.
        attempt: u32,
    },
    /// Commit. Answer: [`Event::Committed`], [`Event::CommitFailed`].
    Commit,
    /// Roll the transaction back, by ROLLBACK or by dropping the connection. Answer: [`Event::RolledBack`].
    Rollback,
    /// ROLLBACK TO SAVEPOINT cockroach_restart. Answer: [`Event::Restarted`], [`Event::RestartFailed`].
    Restart,
    /// Wait. Answer: [`Event::Slept`].
    Sleep(Duration),
    /// Drop the connection in use and find out on another how the commit ended. Answer:
    /// [`Event::SettledCommitted`], [`Event::SettledAborted`], [`Event::Unsettled`].
    Settle,
    /// Done; no event follows. After [`Verdict::Ambiguous`] and [`Verdict::RestartFailed`] the connection must
    /// be dropped: what it has open is not known.
    Finish(Verdict),
}

/// How the whole affair ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The last run of the callback is committed, and no other.
    Committed,
    /// Nothing is committed; the callback's own exception surfaces.
    Raise,
    /// Nothing is committed; the last database error surfaces.
    Fail,
    /// Nothing is committed; retries or time are used up.
    Exhausted {
        /// How often it was tried; the callback did not run in those that met a conflict at BEGIN.
        attempts: u32,
    },
    /// The last run of the callback is committed or nothing is; which of the two is not known.
    Ambiguous,
    /// Nothing is committed; going back to the savepoint failed.
    RestartFailed,
}

/// How long to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The callback runs at most once more often than this.
    pub max_retries: u32,
    /// No wait before another try starts after this long; `None`: as long as it takes.
    pub max_elapsed: Option<Duration>,
    /// The longest wait before the first retry; it doubles with each.
    pub first_delay: Duration,
    /// The longest wait before any.
    pub max_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_retries: 50,
            max_elapsed: Some(Duration::from_secs(60)),
            first_delay: Duration::from_millis(2),
            max_delay: Duration::from_secs(1),
        }
    }
}

/// An event that does not answer the action pending. The machine has not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} does not answer {pending:?}")]
pub struct OutOfTurn {
    /// What was told.
    pub event: Event,
    /// What was being waited for; `None` before the start.
    pub pending: Option<Action>,
}

/// What a rollback leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Retry,
    Finish(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Beginning {
        reconnect: bool,
    },
    Running,
    Committing,
    RollingBack(After),
    Restarting,
    /// With the transaction to run in still open, or one to begin.
    Sleeping {
        delay: Duration,
        then: Wake,
    },
    Settling,
    Finished(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    Run,
    Begin { reconnect: bool },
}

/// One call of `transact`, from its first BEGIN to its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    protocol: Protocol,
    limits: Limits,
    settles: bool,
    attempts: u32,
    /// Attempts that met a conflict in the statement sent with BEGIN, so that the callback did not even run.
    conflicts_at_begin: u32,
    begin_failures: u32,
    stage: Stage,
}

impl Machine {
    /// A machine at rest. `settles`: the driver can find out how a lost commit ended ([`Action::Settle`]).
    #[must_use]
    pub fn new(protocol: Protocol, limits: Limits, settles: bool) -> Self {
        Self {
            protocol,
            limits,
            settles,
            attempts: 0,
            conflicts_at_begin: 0,
            begin_failures: 0,
            stage: Stage::New,
        }
    }

    /// What to do first. Called again later, it repeats the action that is pending.
    pub fn start(&mut self) -> Action {
        if self.stage == Stage::New {
            self.stage = Stage::Beginning { reconnect: false };
        }
        self.action()
    }

    /// How often the callback has been run, the run that is pending included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What to do after `event`.
    ///
    /// `elapsed` is the time since the start; `random` is uniform in [0, 1) and spreads the waits.
    ///
    /// # Errors
    /// [`OutOfTurn`] when `event` does not answer the pending action; the machine stays as it was.
    pub fn step(
        &mut self,
        event: Event,
        elapsed: Duration,
        random: f64,
    ) -> Result<Action, OutOfTurn> {
        let stage = match (self.stage, event) {
            (Stage::Beginning { .. }, Event::Begun) => {
                self.begin_failures = 0;
                Stage::Running
            }
            (Stage::Beginning { .. }, Event::BeginFailed(failure)) => {
                self.begin_failed(failure, elapsed, random)
            }
            (Stage::Running, Event::Returned) => Stage::Committing,
            (Stage::Running, Event::ReturnedAfter(failure)) => {
                self.run_failed(failure, Verdict::Fail, elapsed, random)
            }
            (Stage::Running, Event::Raised(Some(failure))) => {
                self.run_failed(failure, Verdict::Raise, elapsed, random)
            }
            (Stage::Running, Event::Raised(None)) => {
                Stage::RollingBack(After::Finish(Verdict::Raise))
            }
            (Stage::Committing, Event::Committed) => Stage::Finished(Verdict::Committed),
            (Stage::Committing, Event::CommitFailed(failure)) => {
                self.commit_failed(failure, elapsed)
            }
            (Stage::RollingBack(After::Finish(verdict)), Event::RolledBack) => {
                Stage::Finished(verdict)
            }
            (Stage::RollingBack(After::Retry), Event::RolledBack) => {
                self.retry_by_begin(false, elapsed, random)
            }
            (Stage::Restarting, Event::Restarted) => self.retry_in_place(elapsed, random),
            (Stage::Restarting, Event::RestartFailed) => Stage::Finished(Verdict::RestartFailed),
            (Stage::Sleeping { then, .. }, Event::Slept) => match then {
                Wake::Run => Stage::Running,
                Wake::Begin { reconnect } => Stage::Beginning { reconnect },
            },
            (Stage::Settling, Event::SettledCommitted) => Stage::Finished(Verdict::Committed),
            (Stage::Settling, Event::SettledAborted) => self.retry_by_begin(true, elapsed, random),
            (Stage::Settling, Event::Unsettled) => Stage::Finished(Verdict::Ambiguous),
            _ => {
                return Err(OutOfTurn {
                    event,
                    pending: (self.stage != Stage::New).then(|| self.action()),
                });
            }
        };
        if stage == Stage::Running {
            self.attempts = self.attempts.saturating_add(1);
        }
        self.stage = stage;
        Ok(self.action())
    }

    fn action(&self) -> Action {
        match self.stage {
            Stage::New => Action::Begin { reconnect: false },
            Stage::Beginning { reconnect } => Action::Begin { reconnect },
            Stage::Running => Action::Run {
                attempt: self.attempts,
            },
            Stage::Committing => Action::Commit,
            Stage::RollingBack(_) => Action::Rollback,
            Stage::Restarting => Action::Restart,
            Stage::Sleeping { delay, .. } => Action::Sleep(delay),
            Stage::Settling => Action::Settle,
            Stage::Finished(verdict) => Action::Finish(verdict),
        }
    }

    fn begin_failed(&mut self, failure: Failure, elapsed: Duration, random: f64) -> Stage {
        if failure == Failure::Retryable {
            // A conflict like any other: the connection is sound, and the attempt counts.
            self.conflicts_at_begin = self.conflicts_at_begin.saturating_add(1);
            return self.retry_by_begin(false, elapsed, random);
        }
        let passing = match failure {
            Failure::Disconnected | Failure::Overloaded => true,
            Failure::Retryable | Failure::Ambiguous | Failure::Permanent => false,
        };
        if !passing || self.begin_failures >= BEGIN_RETRIES || !self.in_time(elapsed) {
            return Stage::Finished(Verdict::Fail);
        }
        self.begin_failures += 1;
        // A server that restarts or is full needs longer than a rival transaction: waits end at the longest
        // allowed, and at least half of each is kept.
        let ceiling = self.limits.max_delay / (1 << (BEGIN_RETRIES - self.begin_failures));
        Stage::Sleeping {
            delay: share(ceiling, 0.5 + 0.5 * random.clamp(0.0, 1.0)),
            then: Wake::Begin { reconnect: true },
        }
    }

    fn run_failed(
        &self,
        failure: Failure,
        otherwise: Verdict,
        elapsed: Duration,
        random: f64,
    ) -> Stage {
        match failure {
            Failure::Retryable => self.retry_here(elapsed),
            Failure::Disconnected => self.retry_by_begin(true, elapsed, random),
            Failure::Overloaded | Failure::Ambiguous | Failure::Permanent => {
                Stage::RollingBack(After::Finish(otherwise))
            }
        }
    }

    fn commit_failed(&self, failure: Failure, elapsed: Duration) -> Stage {
        match (failure, self.protocol) {
            (Failure::Retryable, _) => self.retry_here(elapsed),
            // PostgreSQL reports an error of COMMIT only for a transaction that it has aborted.
            (Failure::Permanent | Failure::Overloaded, Protocol::Rollback) => {
                Stage::RollingBack(After::Finish(Verdict::Fail))
            }
            (Failure::Permanent | Failure::Overloaded, Protocol::Savepoint)
            | (Failure::Disconnected | Failure::Ambiguous, _) => {
                if self.settles {
                    Stage::Settling
                } else {
                    Stage::Finished(Verdict::Ambiguous)
                }
            }
        }
    }

    /// A retry on the connection in use, whose transaction is still open.
    fn retry_here(&self, elapsed: Duration) -> Stage {
        if !self.may_retry(elapsed) {
            return Stage::RollingBack(After::Finish(self.exhausted()));
        }
        match self.protocol {
            Protocol::Rollback => Stage::RollingBack(After::Retry),
            Protocol::Savepoint => Stage::Restarting,
        }
    }

    /// A retry that begins anew: no transaction is open any more.
    fn retry_by_begin(&self, reconnect: bool, elapsed: Duration, random: f64) -> Stage {
        if self.may_retry(elapsed) {
            self.sleep(random, Wake::Begin { reconnect })
        } else {
            Stage::Finished(self.exhausted())
        }
    }

    /// A retry in the transaction whose savepoint is restored, unless that took too long.
    fn retry_in_place(&self, elapsed: Duration, random: f64) -> Stage {
        if self.may_retry(elapsed) {
            self.sleep(random, Wake::Run)
        } else {
            Stage::RollingBack(After::Finish(self.exhausted()))
        }
    }

    /// Full jitter: anything up to a ceiling that doubles with each retry, so that rivals part.
    fn sleep(&self, random: f64, then: Wake) -> Stage {
        let doublings = self.tries().saturating_sub(1).min(31);
        let ceiling = self
            .limits
            .first_delay
            .saturating_mul(1 << doublings)
            .min(self.limits.max_delay);
        Stage::Sleeping {
            delay: share(ceiling, random),
            then,
        }
    }

    fn may_retry(&self, elapsed: Duration) -> bool {
        self.tries() <= self.limits.max_retries && self.in_time(elapsed)
    }

    fn tries(&self) -> u32 {
        self.attempts.saturating_add(self.conflicts_at_begin)
    }

    fn in_time(&self, elapsed: Duration) -> bool {
        self.limits.max_elapsed.is_none_or(|limit| elapsed < limit)
    }

    fn exhausted(&self) -> Verdict {
        Verdict::Exhausted {
            attempts: self.tries(),
        }
    }
}

/// This fraction of `whole`; all of it when the fraction is no number in [0, 1].
fn share(whole: Duration, fraction: f64) -> Duration {
    if !(0.0..=1.0).contains(&fraction) {
        return whole;
    }
    Duration::try_from_secs_f64(whole.as_secs_f64() * fraction)
        .map_or(whole, |part| part.min(whole))
}
