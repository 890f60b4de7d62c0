//! How far a claim may look when nothing is found: a pure budget of machines to examine.
//!
//! In a fleet where few machines are eligible, each look costs as much as the machines that it passes over. So looks go on
//! where the last one ended, and what they may examine in vain refills at a steady rate. That spreads a sweep over the
//! whole fleet, in `machines / rate` seconds at the latest, and bounds what idle polling costs. A fleet that fits into
//! one window is always looked at as a whole.

use std::time::Duration;

use uuid::Uuid;

use crate::lease::Moment;

/// The fewest machines that one look examines.
pub const FIRST_WINDOW: i64 = 2_000;
/// The most.
pub const LARGEST_WINDOW: i64 = 20_000;
/// What may be examined at once after a quiet time.
pub const BURST: f64 = 200_000.0;
/// What one call may examine in the first round over the fleet, which is free.
pub const FIRST_ROUND: i64 = 200_000;
/// Machines a second, where nothing tells of changes: under one percent of a core.
pub const RATE: f64 = 5_000.0;
/// The same where triggers tell of changes, so that the sweep only has to find what they missed.
pub const WATCHED_RATE: f64 = 1_000.0;

/// For how long notes can be relied on without a look at them.
pub const NOTES_KEPT: Duration = Duration::from_secs(4 * 60);

/// The budget of one process here.
#[derive(Debug, Clone)]
pub struct Budget {
    left: f64,
    at: Option<Moment>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            left: BURST,
            at: None,
        }
    }
}

impl Budget {
    /// Refills for the time since the last call.
    pub fn refill(&mut self, now: Moment, watched: bool) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.since(at));
        let rate = if watched { WATCHED_RATE } else { RATE };
        self.left = (self.left + passed.as_secs_f64() * rate).min(BURST);
        self.at = Some(now);
    }

    /// Whether nobody has looked for so long that collection may have forgotten notes (collect/forget_attention.sql keeps them for
    /// five minutes): then a whole round is free, as the first one is.
    #[must_use]
    pub fn is_stale(&self, now: Moment) -> bool {
        self.at.is_some_and(|at| now.since(at) > NOTES_KEPT)
    }

    /// How many machines the next look may examine, which would like `wanted`; none when the budget is used up.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn allows(&self, wanted: i64) -> Option<i64> {
        // A small look costs nearly as much as a larger one.
        let allowed = wanted.min(self.left as i64);
        (allowed >= FIRST_WINDOW.min(wanted)).then_some(allowed)
    }

    /// A look has examined so many and did not find what it was for.
    #[allow(clippy::cast_precision_loss)]
    pub fn spend(&mut self, examined: i64) {
        self.left = (self.left - examined as f64).max(0.0);
    }
}

/// Where the scan stands.
pub struct Scan {
    /// The last id that was looked at.
    pub after: Uuid,
    /// Whether the last look found less than was wanted.
    pub sparse: bool,
    /// What may still be looked at in vain.
    pub budget: Budget,
    /// How many ids there were at the last full round.
    pub fleet: Option<i64>,
    /// Where the first round of all began, and whether it has come to the end of the ids; none once it is complete. It is
    /// free: what was eligible before is only found by looking.
    pub first: Option<(Uuid, bool)>,
}

impl Scan {
    /// From this id on.
    #[must_use]
    pub fn new(start: Uuid) -> Self {
        Scan {
            after: start,
            sparse: false,
            budget: Budget::default(),
            fleet: None,
            first: Some((start, false)),
        }
    }

    /// The next look begins after this id; `wraps`: the ids have come to their end.
    pub fn go_on(&mut self, after: Uuid, wraps: bool) {
        self.after = after;
        if let Some((start, wrapped)) = &mut self.first {
            *wrapped |= wraps;
            if *wrapped && !wraps && after >= *start {
                self.first = None;
            }
        }
    }

    /// A round is complete.
    pub fn complete(&mut self, fleet: i64) {
        self.fleet = Some(fleet);
        self.first = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment::since_boot(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn a_sweep_goes_on_at_its_rate_once_the_burst_is_used_up() {
        let mut budget = Budget::default();
        budget.refill(at(0.0), false);
        budget.spend(200_000);
        assert_eq!(budget.allows(FIRST_WINDOW), None);
        budget.refill(at(0.4), false);
        assert_eq!(budget.allows(LARGEST_WINDOW), Some(2_000));
        budget.refill(at(4.0), false);
        assert_eq!(budget.allows(LARGEST_WINDOW), Some(20_000));
    }

    #[test]
    fn it_is_slower_where_changes_are_told() {
        let mut budget = Budget::default();
        budget.refill(at(0.0), true);
        budget.spend(200_000);
        budget.refill(at(2.0), true);
        assert_eq!(budget.allows(LARGEST_WINDOW), Some(2_000));
    }

    #[test]
    fn the_first_round_ends_where_it_began() {
        let id = Uuid::from_u128;
        let mut scan = Scan::new(id(50));
        scan.go_on(id(90), false);
        scan.go_on(Uuid::nil(), true);
        scan.go_on(id(40), false);
        assert!(scan.first.is_some());
        scan.go_on(id(60), false);
        assert!(scan.first.is_none());
    }

    #[test]
    fn who_has_not_looked_for_minutes_cannot_rely_on_notes() {
        let mut budget = Budget::default();
        assert!(
            !budget.is_stale(at(1e6)),
            "its first round is to come anyway"
        );
        budget.refill(at(10.0), true);
        assert!(!budget.is_stale(at(240.0)));
        assert!(budget.is_stale(at(251.0)));
    }

    #[test]
    fn a_pause_saves_no_more_than_the_burst() {
        let mut budget = Budget::default();
        budget.refill(at(0.0), false);
        budget.refill(at(1e6), false);
        budget.spend(150_000);
        assert_eq!(budget.allows(60_000), Some(50_000));
    }
}
