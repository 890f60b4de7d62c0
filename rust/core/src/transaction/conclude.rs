//! After the callback: commit, restart or roll back, and find out what a lost commit came to.

use std::pin::pin;
use std::time::Duration;

use super::{Conclusion, Opening, Transaction, until_lost};
use crate::dialect::Isolation;
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::metrics::Outcome;
use crate::panics::{caught, fail_point};
use crate::pool::{Checkout, STEP_LIMIT};
use crate::retry::{Action, Event, Failure, Protocol, Verdict};
use crate::settle;
use crate::sqlstate;

/// What is known of a commit whose wait for a synchronous standby was cancelled.
pub(crate) const HERE_ONLY: &str =
    "the wait for a synchronous standby was cancelled: the commit is durable here only";

impl Transaction {
    /// Tells how the callback ended, and brings the transaction to its end or to another attempt.
    ///
    /// `raised` is `None` when it returned; `Some(failure)` when it raised, with the failure of the database error in
    /// the exception's chain, if there is one.
    pub async fn conclude(&mut self, raised: Option<Option<Failure>>) -> Result<Conclusion> {
        self.pool.check_usable()?;
        if !self.running() {
            if raised.is_some() && !self.ended {
                // Given up between two attempts.
                drop(self.roll_back_or_drop().await);
                self.end(Outcome::Failed);
            }
            return Err(Error::WorkState("this transaction has ended".to_owned()));
        }
        let stepped = caught(pin!(self.step_until_settled(raised))).await;
        let outcome = match stepped {
            // Perhaps amid COMMIT.
            Err(Error::Panicked(text)) => {
                self.drop_connection();
                Err(self.ambiguous(&text))
            }
            outcome => outcome,
        };
        match &outcome {
            Ok(Conclusion::Again) => {
                self.tell_gate(true);
                self.pass = None;
            }
            Ok(Conclusion::Committed) => {
                self.tell_gate(false);
                self.end(Outcome::Committed);
            }
            Ok(Conclusion::Raise) => self.end(Outcome::Failed),
            Err(Error::AmbiguousCommit { .. } | Error::InterruptedCommit { committed: None }) => {
                self.end(Outcome::Unknown)
            }
            Err(Error::InterruptedCommit {
                committed: Some(true),
            }) => self.end(Outcome::Committed),
            Err(_) => self.end(Outcome::Failed),
        }
        outcome
    }

    async fn step_until_settled(&mut self, raised: Option<Option<Failure>>) -> Result<Conclusion> {
        let open = match (raised, self.checkout.as_mut().map(Checkout::conn)) {
            (None, Some(conn)) if !conn.broken => conn.still_open().await?,
            _ => false,
        };
        let event = match raised {
            Some(failure) => Event::Raised(self.effective(failure)),
            None if open => Event::Returned,
            // The server hung up, or the callback swallowed the error that broke the connection. Known before COMMIT
            // is sent, that leaves no doubt about the outcome.
            None => Event::ReturnedAfter(
                self.error
                    .get_or_insert_with(|| {
                        Error::ConnectionFailed(
                            "the server closed the connection before COMMIT".to_owned(),
                        )
                    })
                    .failure(),
            ),
        };
        self.advance(event);
        loop {
            let event = match self.action {
                Action::Commit => self.commit().await?,
                Action::Rollback => {
                    self.roll_back_or_drop().await?;
                    Event::RolledBack
                }
                Action::Restart => self.go_back().await,
                Action::Settle => self.settle().await?,
                Action::Finish(verdict) => return self.finished(verdict),
                // The rest is begin()'s.
                Action::Begin { .. } | Action::Sleep(_) | Action::Run { .. } => {
                    return Ok(Conclusion::Again);
                }
            };
            self.advance(event);
        }
    }

    /// What the callback's first error was that the server has not got over, for an exception that only says that the
    /// transaction is aborted (25P02).
    #[must_use]
    pub fn first_failure(&self) -> Option<Failure> {
        self.error.as_ref().map(Error::failure)
    }

    /// A broken connection ends an attempt whatever else the callback made of it.
    fn effective(&mut self, raised: Option<Failure>) -> Option<Failure> {
        let broken = self.is_broken();
        match raised {
            Some(Failure::Retryable) if broken => Some(Failure::Disconnected),
            // It was another connection that broke: an exception like any other.
            Some(Failure::Disconnected) if !broken => None,
            other => other,
        }
    }

    fn is_broken(&mut self) -> bool {
        self.checkout
            .as_mut()
            .is_none_or(|checkout| checkout.conn().broken)
    }

    async fn commit(&mut self) -> Result<Event> {
        // Trust that has ended forbids even to try. The row lock would refuse too, but only once asked.
        if let Some(session) = &self.plan.session
            && let Err(error) = session.check()
        {
            self.roll_back_or_drop().await?;
            return Err(error);
        }
        let session = self.plan.session.clone();
        let drive = self.pool.drive().clone();
        let conn = self.checkout.as_mut().expect("open").conn();
        let dialect = conn.server().dialect;
        conn.take_doubtful_commit();
        fail_point("commit");
        // Any other error aborts the transaction, and COMMIT says so.
        match conn.forget_lookups().await {
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) if conn.broken => {
                self.error = Some(error);
                self.drop_connection();
                // COMMIT was not sent, so there is no doubt.
                return Ok(Event::CommitFailed(Failure::Retryable));
            }
            _ => {}
        }
        // A dead link may say nothing for ever while the heartbeat's own keeps the session alive.
        let outcome = conn
            .batch_unless(
                dialect.commit(),
                until_lost(session, None),
                Some(STEP_LIMIT),
            )
            .await;
        match outcome {
            Ok(()) if conn.is_past() => {
                let message = "another primary has taken over from the one that answered";
                self.error = Some(self.ambiguous(message));
                self.drop_connection();
                Ok(Event::CommitFailed(Failure::Ambiguous))
            }
            Ok(()) if conn.take_doubtful_commit() => {
                self.error = Some(self.ambiguous(HERE_ONLY));
                self.doubtful = true;
                self.drop_connection();
                Ok(Event::CommitFailed(Failure::Ambiguous))
            }
            Ok(()) => {
                if let Some(after) = dialect.after_commit() {
                    conn.broken |= conn.batch(after, Some(STEP_LIMIT)).await.is_err();
                }
                conn.in_transaction = false;
                Ok(Event::Committed)
            }
            Err(Error::Interrupted) => {
                let committed = self.look_up_interrupted(&drive).await;
                Err(Error::InterruptedCommit { committed })
            }
            // The server refused to go on with what a swallowed error had aborted.
            Err(error) if error.sqlstate() == Some(sqlstate::IN_FAILED_SQL_TRANSACTION) => {
                let failure = self.error.get_or_insert(error).failure();
                Ok(Event::CommitFailed(match failure {
                    Failure::Retryable => Failure::Retryable,
                    _ => Failure::Permanent,
                }))
            }
            Err(error) => {
                let failure = match (&error, error.failure()) {
                    // The session was lost while we waited for the answer.
                    (Error::SessionExpired(_), _) => Failure::Ambiguous,
                    // A FATAL after COMMIT was sent may have come before or after it took effect.
                    (_, failure) => failure,
                };
                self.error = Some(match failure {
                    Failure::Disconnected | Failure::Ambiguous => {
                        self.ambiguous(&error.to_string())
                    }
                    _ if dialect.protocol() == Protocol::Savepoint
                        && failure != Failure::Retryable =>
                    {
                        self.ambiguous(&error.to_string())
                    }
                    _ => error,
                });
                Ok(Event::CommitFailed(failure))
            }
        }
    }

    /// After Ctrl-C in COMMIT: a short look whether it took effect, so that the exception can say so.
    async fn look_up_interrupted(&mut self, drive: &Drive) -> Option<bool> {
        self.drop_connection();
        let limit = Duration::from_millis(100);
        let quick = settle::quick_outcome(self.pool.config(), drive, &self.id, limit);
        quick.await
    }

    fn ambiguous(&self, cause: &str) -> Error {
        super::ambiguous(cause, &self.id)
    }

    async fn settle(&mut self) -> Result<Event> {
        self.drop_connection();
        // What this server says of it later is no answer. A claim that is lost with it ends its session.
        if std::mem::take(&mut self.doubtful) && !self.claims() {
            return Ok(Event::Unsettled);
        }
        let limit = self.plan.settle_limit();
        Ok(match settle::outcome(&self.pool, &self.id, limit).await? {
            Some(true) => Event::SettledCommitted,
            Some(false) => Event::SettledAborted,
            None => Event::Unsettled,
        })
    }

    /// Whether it has leased something.
    fn claims(&self) -> bool {
        matches!(self.plan.opening, Opening::Fence) && self.id.trace.is_some()
    }

    fn finished(&mut self, verdict: Verdict) -> Result<Conclusion> {
        match verdict {
            Verdict::Committed => {
                let ends = matches!(self.plan.opening, Opening::End { .. });
                if let Some(session) = &self.plan.session
                    && self.plan.isolation != Isolation::ReadOnly
                    && !ends
                    && !self.claims()
                {
                    session.told_traceless();
                }
                Ok(Conclusion::Committed)
            }
            Verdict::Raise => Ok(Conclusion::Raise),
            Verdict::Exhausted { attempts } => Err(Error::RetriesExhausted {
                attempts,
                last: self.error.take().map(Box::new),
            }),
            Verdict::Fail | Verdict::Ambiguous | Verdict::RestartFailed => Err(self.take_error()),
        }
    }
}
