//! How long a session may believe in itself: a state machine without I/O or clock.
//!
//! The database lets a session live until *its* moment of renewal + interval. The renewal happens after it was sent, so
//! the moment of *sending* + interval lies before that deadline, and an interval/5 of margin covers the difference
//! between two clocks' speeds and the time that it takes to stop. Past that a session is lost here, whatever the network
//! says, before the database lets anybody else have its machines.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// The shortest interval that leaves a network round trip room between beats.
pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// A point in time on the suspension-counting clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// A moment so long after boot.
    #[must_use]
    pub fn since_boot(duration: Duration) -> Self {
        Moment(duration)
    }

    /// The time from `earlier` to this moment, zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

/// Why a session is lost. Once lost, a session stays lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Its owner closed it.
    Closed,
    /// No renewal succeeded before trust ended.
    TrustEnded {
        /// The interval, for the message.
        interval: Duration,
    },
    /// The database no longer has a live row for it.
    Gone,
    /// The heartbeat itself failed.
    HeartbeatFailed(String),
    /// Another primary has taken over, and what the session was told of may be lost there.
    FailedOver {
        /// The timeline that the session was on.
        from: u32,
        /// The timeline of the new primary.
        to: u32,
        /// What is not there.
        missing: &'static str,
    },
    /// The interpreter that its work is done in stood still.
    InterpreterStalled {
        /// For how long it may.
        limit: Duration,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Closed => write!(f, "it was closed"),
            Loss::TrustEnded { interval } => write!(
                f,
                "no heartbeat reached the database within {:.1} s (four fifths of its interval)",
                trust(*interval).as_secs_f64()
            ),
            Loss::Gone => write!(
                f,
                "its row is gone from the database, or past its deadline there"
            ),
            Loss::FailedOver { from, to, missing } => write!(
                f,
                "the database failed over (timeline {from} to {to}), and what this session was told may be lost: {missing}"
            ),
            Loss::InterpreterStalled { limit } => write!(
                f,
                "the Python interpreter stood still for more than {} s (its max_stall)",
                limit.as_secs_f64()
            ),
            Loss::HeartbeatFailed(cause) => write!(f, "its heartbeat failed: {cause}"),
        }
    }
}

/// How long one successful renewal is trusted: the interval less a fifth.
#[must_use]
pub fn trust(interval: Duration) -> Duration {
    interval - interval / 5
}

/// The time between two beats before jitter: half the interval.
#[must_use]
pub fn beat_period(interval: Duration) -> Duration {
    interval / 2
}

/// The pause between attempts after a failed beat: a fifth of the interval.
#[must_use]
pub fn retry_pause(interval: Duration) -> Duration {
    interval / 5
}

/// One session's trust.
#[derive(Debug, Clone)]
pub struct Trust {
    interval: Duration,
    trusted_until: Moment,
    loss: Option<Loss>,
}

impl Trust {
    /// Trust that begins with the statement that created the session, sent at `sent`.
    #[must_use]
    pub fn new(interval: Duration, sent: Moment) -> Self {
        Trust {
            interval,
            trusted_until: sent + trust(interval),
            loss: None,
        }
    }

    /// A renewal sent at `sent` has succeeded, as is known at `now`. A renewal that is learnt of too late changes
    /// nothing: what was lost stays lost. Trust never moves backwards.
    pub fn renewed(&mut self, sent: Moment, now: Moment) {
        if self.loss_at(now).is_none() {
            self.trusted_until = self.trusted_until.max(sent + trust(self.interval));
        }
    }

    /// The session is lost for a reason other than time; the first reason stands.
    pub fn lose(&mut self, loss: Loss) -> bool {
        if self.loss.is_some() {
            return false;
        }
        self.loss = Some(loss);
        true
    }

    /// Why the session is lost, if it is by `now`. Sticky.
    pub fn loss_at(&mut self, now: Moment) -> Option<&Loss> {
        if self.loss.is_none() && now >= self.trusted_until {
            self.loss = Some(Loss::TrustEnded {
                interval: self.interval,
            });
        }
        self.loss.as_ref()
    }

    /// What is left of trust at `now`; zero once lost.
    pub fn remaining(&mut self, now: Moment) -> Duration {
        if self.loss_at(now).is_some() {
            Duration::ZERO
        } else {
            self.trusted_until.since(now)
        }
    }

    /// The interval that the session was started with.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: f64) -> Moment {
        Moment::since_boot(Duration::from_secs_f64(seconds))
    }

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn trust_ends_a_fifth_before_the_databases_deadline() {
        let mut trust = Trust::new(INTERVAL, at(100.0));
        assert_eq!(trust.loss_at(at(103.999)), None);
        assert_eq!(
            trust.loss_at(at(104.0)),
            Some(&Loss::TrustEnded { interval: INTERVAL })
        );
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_sent() {
        let mut trust = Trust::new(INTERVAL, at(100.0));
        trust.renewed(at(102.0), at(103.9));
        assert_eq!(trust.remaining(at(103.9)), Duration::from_secs_f64(2.1));
    }

    #[test]
    fn a_renewal_learnt_of_too_late_does_not_revive() {
        let mut trust = Trust::new(INTERVAL, at(100.0));
        trust.renewed(at(103.0), at(104.5));
        assert!(trust.loss_at(at(104.5)).is_some());
    }

    #[test]
    fn the_first_reason_stands() {
        let mut trust = Trust::new(INTERVAL, at(100.0));
        assert!(trust.lose(Loss::Gone));
        assert!(!trust.lose(Loss::Closed));
        assert_eq!(trust.loss_at(at(100.0)), Some(&Loss::Gone));
    }

    proptest! {
        /// A session believes in itself only while the database still does, whatever the delays.
        #[test]
        fn never_trusted_past_the_databases_deadline(
            interval in 1_000u64..60_000,
            beats in prop::collection::vec((0u64..40_000, 0u64..5_000, 0u64..5_000, any::<bool>()), 0..20),
            probe in 0u64..40_000,
        ) {
            let interval = Duration::from_millis(interval);
            let ms = |n: u64| Moment::since_boot(Duration::from_millis(n));
            let mut now = 0u64;
            let mut trust = Trust::new(interval, ms(0));
            let mut deadline = interval; // the row was written at 0 at the earliest
            for (pause, there, back, heard) in beats {
                let (sent, executed) = (now + pause, now + pause + there);
                let alive = Duration::from_millis(executed) < deadline;
                if alive { deadline = Duration::from_millis(executed) + interval; }
                now = executed + back;
                if alive && heard { trust.renewed(ms(sent), ms(now)); }
                if trust.loss_at(ms(now)).is_none() {
                    prop_assert!(Duration::from_millis(now) < deadline);
                }
            }
            let end = now + probe;
            if trust.loss_at(ms(end)).is_none() {
                prop_assert!(Duration::from_millis(end) < deadline);
            }
        }

        #[test]
        fn lost_is_for_good(later in 0u64..100_000) {
            let mut trust = Trust::new(INTERVAL, at(0.0));
            trust.lose(Loss::Gone);
            let then = Moment::since_boot(Duration::from_millis(later));
            trust.renewed(then, then);
            prop_assert_eq!(trust.remaining(then), Duration::ZERO);
        }
    }
}
