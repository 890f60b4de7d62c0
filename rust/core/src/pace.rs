//! How often the source of a loop may be asked: a token bucket, told the time by its caller.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// The shortest time between two tokens; nobody asks a database more often on purpose.
const SHORTEST: Duration = Duration::from_micros(1);

/// The longest time between two tokens, the largest bucket and the latest moment: beyond any use, and all of them
/// together still fit into the nanoseconds of a u64.
const LONGEST: Duration = Duration::from_secs(86_400);
const LARGEST: NonZeroU32 = NonZeroU32::new(1 << 16).unwrap();
const LATEST: Duration = Duration::from_secs(1 << 32);

/// The time as the caller said it last; it never goes back.
#[derive(Debug, Clone, Default)]
struct Told(Arc<AtomicU64>);

impl Told {
    fn advance(&self, now: Duration) -> u64 {
        let now = u64::try_from(now.min(LATEST).as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_max(now, Ordering::AcqRel).max(now)
    }
}

impl Clock for Told {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Acquire).into()
    }
}

/// A full bucket of tokens, refilled one at a time. May be shared by threads.
#[derive(Debug)]
pub struct Pace {
    clock: Told,
    bucket: RateLimiter<NotKeyed, InMemoryState, Told, NoOpMiddleware<Nanos>>,
}

impl Pace {
    /// A bucket of `burst` tokens (65,536 at most) that gets another one each `every` (a day at most).
    #[must_use]
    pub fn new(every: Duration, burst: NonZeroU32) -> Self {
        let quota = Quota::with_period(every.clamp(SHORTEST, LONGEST))
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst.min(LARGEST));
        let clock = Told::default();
        let bucket = RateLimiter::direct_with_clock(quota, clock.clone());
        Pace { clock, bucket }
    }

    /// Takes a token at the moment `now`, counted from any start that stays the same. Without one left, answers how
    /// long it is until there will be one, which others may take first.
    pub fn take(&self, now: Duration) -> Result<(), Duration> {
        let now = self.clock.advance(now);
        self.bucket.check().map_err(|refused| {
            refused
                .earliest_possible()
                .duration_since(now.into())
                .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(250);

    fn pace(burst: u32) -> Pace {
        Pace::new(EVERY, NonZeroU32::new(burst).unwrap())
    }

    /// How many are had by whoever asks as soon as it may, until `end`.
    fn had_until(pace: &Pace, end: Duration) -> usize {
        let mut now = Duration::ZERO;
        let mut count = 0;
        while now <= end {
            match pace.take(now) {
                Ok(()) => count += 1,
                Err(wait) => now += wait,
            }
        }
        count
    }

    #[test]
    fn a_burst_is_had_at_once_and_the_rest_one_by_one() {
        // Eight at first, and one each quarter of a second for ten seconds.
        assert_eq!(had_until(&pace(8), Duration::from_secs(10)), 8 + 40);
        assert_eq!(had_until(&pace(1), Duration::from_secs(10)), 1 + 40);
    }

    #[test]
    fn the_wait_ends_exactly_when_there_is_a_token() {
        let pace = pace(1);
        let start = Duration::from_secs(7);
        assert_eq!(pace.take(start), Ok(()));
        assert_eq!(pace.take(start), Err(EVERY));
        assert_eq!(
            pace.take(start + Duration::from_millis(100)),
            Err(Duration::from_millis(150))
        );
        assert_eq!(
            pace.take(start + EVERY - Duration::from_nanos(1)),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(pace.take(start + EVERY), Ok(()));
    }

    #[test]
    fn a_long_pause_fills_the_bucket_and_no_more() {
        let pace = pace(8);
        assert_eq!(had_until(&pace, Duration::ZERO), 8);
        let later = Duration::from_secs(3600);
        let had = (0..20).filter(|_| pace.take(later).is_ok()).count();
        assert_eq!(had, 8);
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_tokens() {
        let pace = pace(1);
        assert_eq!(pace.take(Duration::from_secs(10)), Ok(()));
        assert_eq!(pace.take(Duration::from_secs(1)), Err(EVERY));
        assert_eq!(pace.take(Duration::from_secs(10) + EVERY), Ok(()));
    }

    #[test]
    fn nothing_makes_it_overflow() {
        let huge = Pace::new(Duration::MAX, NonZeroU32::MAX);
        assert_eq!(huge.take(Duration::MAX), Ok(()));
        let _ = huge.take(Duration::MAX);
        let quick = Pace::new(Duration::ZERO, NonZeroU32::MIN);
        assert_eq!(quick.take(Duration::ZERO), Ok(()));
        assert!(quick.take(Duration::ZERO).is_err());
    }
}
