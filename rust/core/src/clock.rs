//! The clock that trust is measured on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::lease::Moment;

/// Reads a clock that keeps counting while the machine is suspended, so that trust runs out during a suspension too.
///
/// Tests can make it skip ahead, as waking from a suspension does.
#[derive(Debug, Default)]
pub struct Clock {
    skipped_nanoseconds: AtomicU64,
}

impl Clock {
    /// Now, since boot.
    #[must_use]
    pub fn now(&self) -> Moment {
        let skipped = Duration::from_nanos(self.skipped_nanoseconds.load(Ordering::Relaxed));
        Moment::since_boot(boot_time() + skipped)
    }

    /// Lets the clock jump ahead by `duration`, as if the machine had slept that long.
    pub fn skip(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.skipped_nanoseconds
            .fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

fn boot_time() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let id = rustix::time::ClockId::Boottime;
    // Elsewhere the monotonic clock is the nearest there is; on macOS it counts sleep.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let id = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_moves_the_clock_ahead() {
        let clock = Clock::default();
        let before = clock.now();
        clock.skip(Duration::from_secs(60));
        assert!(clock.now() >= before + Duration::from_secs(60));
    }
}
