//! When to look for expired sessions: a schedule without I/O or clock.
//!
//! A session that nobody renews can be collected from its deadline on, and how soon after that somebody looks is part of
//! how long its machines stay locked. So each look also learns the next deadline among the sessions of others, and the next
//! look falls just behind it, whenever the beats may be.

use std::time::{Duration, Instant};

/// Looks follow one another no sooner than this, unless for a session that is past its trust.
const PAUSE: Duration = Duration::from_secs(1);

/// How long after a deadline to look at most: many processes wait for the same one, and the first few suffice.
const SPREAD: Duration = Duration::from_millis(200);

/// When to look again for what was found expired: another collection may be at it, or its holder's backend.
const AGAIN: Duration = Duration::from_millis(300);

/// What a look has seen of others' sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlook {
    /// Some have expired.
    pub expired: bool,
    /// The time until the next one expires if it is not renewed.
    pub next: Option<Duration>,
    /// The time until the next one expires that does not trust in itself any more, and so will not be renewed.
    pub doomed: Option<Duration>,
}

/// The schedule of one process's looks.
#[derive(Debug, Default)]
pub struct Lookout {
    /// None before the first look, which is due as soon as there is a connection.
    due: Option<Instant>,
    /// How many looks in a row have found something expired.
    found: u32,
}

impl Lookout {
    /// When the next look is due; None is now.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// True when a look is due at `now`.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// A look at `now` has seen this; None if it failed. Without anything to wait for, the next is `period` later.
    /// `chance`, from 0 to 1, places it within its spread.
    pub fn looked(&mut self, now: Instant, seen: Option<Outlook>, period: Duration, chance: f64) {
        let period = period.max(PAUSE);
        let seen = seen.unwrap_or_default();
        let pause = if seen.expired {
            AGAIN * 2u32.saturating_pow(self.found.min(16))
        } else {
            let next = seen.next.map(|next| next.max(PAUSE));
            let soonest = next.into_iter().chain(seen.doomed).min();
            soonest.map_or(period, |soonest| soonest + SPREAD.mul_f64(chance))
        };
        self.found = if seen.expired { self.found + 1 } else { 0 };
        self.due = Some(now + pause.min(period));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(2_500);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn pause(seen: Outlook) -> Duration {
        let (now, mut lookout) = (Instant::now(), Lookout::default());
        lookout.looked(now, Some(seen), PERIOD, 0.5);
        lookout.due().unwrap() - now
    }

    #[test]
    fn the_first_look_is_due_at_once() {
        assert!(Lookout::default().is_due(Instant::now()));
    }

    #[test]
    fn a_look_falls_just_behind_the_next_deadline() {
        let seen = Outlook {
            next: Some(ms(1_700)),
            ..Outlook::default()
        };
        assert_eq!(pause(seen), ms(1_800));
    }

    #[test]
    fn without_a_deadline_ahead_looks_come_like_beats() {
        assert_eq!(pause(Outlook::default()), PERIOD);
        let seen = Outlook {
            next: Some(ms(4_000)),
            ..Outlook::default()
        };
        assert_eq!(pause(seen), PERIOD);
    }

    #[test]
    fn one_a_second_is_enough_while_all_are_well() {
        let seen = Outlook {
            next: Some(ms(400)),
            ..Outlook::default()
        };
        assert_eq!(pause(seen), ms(1_100));
    }

    #[test]
    fn a_session_past_its_trust_is_not_kept_waiting() {
        let seen = Outlook {
            next: Some(ms(400)),
            doomed: Some(ms(400)),
            ..Outlook::default()
        };
        assert_eq!(pause(seen), ms(500));
    }

    #[test]
    fn what_cannot_be_collected_is_looked_at_ever_less_often() {
        let (now, mut lookout) = (Instant::now(), Lookout::default());
        let seen = Outlook {
            expired: true,
            ..Outlook::default()
        };
        let mut pauses = Vec::new();
        for _ in 0..40 {
            lookout.looked(now, Some(seen), PERIOD, 0.0);
            pauses.push(lookout.due().unwrap() - now);
        }
        assert_eq!(pauses[..4], [ms(300), ms(600), ms(1_200), ms(2_400)]);
        assert!(pauses[4..].iter().all(|pause| *pause == PERIOD));
        lookout.looked(now, Some(Outlook::default()), PERIOD, 0.0);
        lookout.looked(now, Some(seen), PERIOD, 0.0);
        assert_eq!(lookout.due().unwrap() - now, ms(300));
    }

    #[test]
    fn a_failed_look_is_not_repeated_at_once() {
        let (now, mut lookout) = (Instant::now(), Lookout::default());
        lookout.looked(now, None, PERIOD, 0.0);
        assert!(!lookout.is_due(now + PERIOD - ms(1)));
        assert!(lookout.is_due(now + PERIOD));
    }
}
