//! While work goes on: whether it is still held, for how long it may be, and what its failure would mean.

use std::time::Duration;

use super::{Ending, WorkLease, WorkState};
use crate::backoff::Backoff;
use crate::error::Result;
use crate::hold::Hold;
use crate::transaction::Opening;

impl WorkLease {
    /// Refuses when the lease is lost; work that has ended is not.
    pub fn check(&self) -> Result<()> {
        let standing = self.lock();
        match standing.state {
            WorkState::Finished | WorkState::Failed | WorkState::Canceled => Ok(()),
            WorkState::Ending => self.session.check(),
            WorkState::Lost if standing.reason.is_some() => self.check_active(&standing),
            WorkState::Active | WorkState::Lost => {
                self.session.check()?;
                self.check_active(&standing)
            }
        }
    }

    /// The backoff of failures that name none.
    #[must_use]
    pub fn backoff(&self) -> Option<Backoff> {
        self.lock().backoff.clone()
    }

    /// Replaces it.
    pub fn set_backoff(&self, backoff: Option<Backoff>) {
        self.lock().backoff = backoff;
    }

    /// From now on the work may be held for so long without a touch, or for as long as its session lives. Refused when
    /// it is lost already.
    pub(crate) fn hold(&self, limit: Option<Duration>) -> Result<()> {
        let mut standing = self.lock();
        let now = self.session.clock().now();
        if standing.outlasted(now).is_some() {
            return self.check_active(&standing);
        }
        standing.hold = limit.map(|limit| Hold::new(limit, now));
        Ok(())
    }

    /// Starts the time that the work may be held anew. Refused when it is lost or has ended.
    pub fn touch(&self) -> Result<()> {
        let mut standing = self.lock();
        if standing.state == WorkState::Active {
            self.session.check()?;
        }
        if standing.state != WorkState::Ending {
            self.check_active(&standing)?;
        }
        let now = self.session.clock().now();
        if let Some(hold) = &mut standing.hold {
            hold.touch(now);
        }
        Ok(())
    }

    /// How long the work may still be held; `None` when there is nothing to watch (any more).
    pub(crate) fn hold_left(&self) -> Option<Duration> {
        let standing = self.lock();
        let held = matches!(standing.state, WorkState::Active | WorkState::Ending)
            && self.session.loss().is_none();
        let now = self.session.clock().now();
        let hold = standing.hold.as_ref().filter(|_| held)?;
        Some(hold.remaining(now))
    }

    /// Waits for the end that is on its way: whether the work has ended then, or `None` when nobody knows.
    pub async fn until_settled(&self) -> Option<bool> {
        loop {
            let settled = self.settled.notified();
            {
                let standing = self.lock();
                match standing.state {
                    WorkState::Ending => {}
                    WorkState::Finished | WorkState::Failed | WorkState::Canceled => {
                        return Some(true);
                    }
                    _ if standing.doubtful => return None,
                    _ => return Some(false),
                }
            }
            settled.await;
        }
    }

    /// Takes overdue work from its holder: why, and how to open the transaction that fails it. Waits for an end that is
    /// on its way; `None` when that has ended the work, or something else has taken it.
    pub(crate) async fn overdue(&self) -> Option<(String, Opening)> {
        loop {
            let settled = self.settled.notified();
            {
                let mut standing = self.lock();
                match standing.state {
                    WorkState::Active if self.session.loss().is_some() => return None,
                    WorkState::Active => {
                        let reason = standing.hold.as_ref()?.reason();
                        standing.state = WorkState::Lost;
                        standing.reason = Some(reason.clone());
                        let backoff = standing.backoff.as_ref();
                        let (wait, period) = self.backoff_seconds(backoff, fastrand::f64());
                        let ending = Ending::Fail {
                            cause: reason.clone(),
                            wait,
                            period,
                        };
                        return Some((reason, self.opening(&ending, None)));
                    }
                    WorkState::Ending => {}
                    _ => return None,
                }
            }
            settled.await;
        }
    }
}
