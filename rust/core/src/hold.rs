//! How long work may be held: a deadline that its holder can push away, without I/O or clock.
//!
//! A session that lives says that its process lives, and nothing of the work: a call that never returns would hold its
//! machine for good. Past the deadline the lease is lost for its holder first, and only then failed in the database, so
//! that nobody else gets the machine while its holder still believes in it.

use std::time::Duration;

use crate::lease::Moment;

/// The deadline of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    limit: Duration,
    until: Moment,
}

impl Hold {
    /// A hold that begins now.
    #[must_use]
    pub fn new(limit: Duration, now: Moment) -> Self {
        Hold {
            limit,
            until: now + limit,
        }
    }

    /// How long it lasts from its start or the last touch.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Starts it anew, unless it is past its deadline: what is overdue stays so. Never shortens it.
    pub fn touch(&mut self, now: Moment) -> bool {
        if self.overdue(now) {
            return false;
        }
        self.until = self.until.max(now + self.limit);
        true
    }

    /// True from the deadline on.
    #[must_use]
    pub fn overdue(&self, now: Moment) -> bool {
        now >= self.until
    }

    /// What is left at `now`; zero once overdue.
    #[must_use]
    pub fn remaining(&self, now: Moment) -> Duration {
        self.until.since(now)
    }

    /// What is told of a lease that was held past its deadline.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("held longer than {} s", self.limit.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::since_boot(Duration::from_millis(milliseconds))
    }

    #[test]
    fn the_reason_names_the_limit_as_people_write_it() {
        for (seconds, text) in [(600.0, "600"), (0.25, "0.25"), (1e-9, "0.000000001")] {
            let hold = Hold::new(Duration::from_secs_f64(seconds), at(0));
            assert_eq!(hold.reason(), format!("held longer than {text} s"));
        }
    }

    proptest! {
        /// Overdue exactly if some pause between touches, or the last one, has lasted for the limit; then for good.
        #[test]
        fn overdue_is_a_pause_as_long_as_the_limit(
            limit in 1u64..1_000,
            pauses in prop::collection::vec(0u64..1_500, 1..20),
        ) {
            let mut now = 1_000;
            let mut hold = Hold::new(Duration::from_millis(limit), at(now));
            let mut missed = false;
            for pause in pauses {
                now += pause;
                missed |= pause >= limit;
                prop_assert_eq!(hold.overdue(at(now)), missed);
                prop_assert_eq!(hold.remaining(at(now)).is_zero(), missed);
                prop_assert_eq!(hold.touch(at(now)), !missed);
            }
        }

        /// A touch on a clock read earlier than another's, on another thread, takes nothing away.
        #[test]
        fn a_touch_never_shortens(earlier in 0u64..300, between in 0u64..300, left in 1u64..300) {
            let later = earlier + between;
            let limit = later + left;
            let mut hold = Hold::new(Duration::from_millis(limit), at(0));
            hold.touch(at(later));
            let before = hold.remaining(at(later));
            hold.touch(at(earlier));
            prop_assert_eq!(hold.remaining(at(later)), before);
        }
    }
}
