//! A panic is a bug here, and ends as an error of the call that met it: it must not end the program, nor leave somebody waiting.
//!
//! [`fail_point`] panics where a test has asked for it.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use crate::error::{Error, Result};

/// What the future comes to; a panic in it is an error. What it has borrowed must be fit for use, or for being dropped, at each of
/// its waits, as it must for being cancelled there. By reference, since a future that takes another holds room for it twice.
pub async fn caught<T, F: Future<Output = Result<T>>>(mut future: Pin<&mut F>) -> Result<T> {
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(Error::Panicked(text(panic.as_ref())))))
    })
    .await
}

fn text(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "of an unknown kind".to_owned());
    format!("a bug in bmdb, please report it; what was being done may have been done: {said}")
}

static ARMED: AtomicBool = AtomicBool::new(false);
static POINT: Mutex<Option<String>> = Mutex::new(None);

/// The next call of [`fail_point`] with this name panics, once; `None`: none does.
pub fn arm(name: Option<String>) {
    let mut point = POINT.lock().unwrap_or_else(PoisonError::into_inner);
    ARMED.store(name.is_some(), Ordering::Release);
    *point = name;
}

/// Where a test may want a panic. Costs a look at a flag.
///
/// # Panics
/// When a test has asked for it.
pub(crate) fn fail_point(name: &str) {
    if !ARMED.load(Ordering::Acquire) {
        return;
    }
    let mut point = POINT.lock().unwrap_or_else(PoisonError::into_inner);
    if point.as_deref() != Some(name) {
        return;
    }
    *point = None;
    ARMED.store(false, Ordering::Release);
    drop(point);
    panic!("asked for at {name:?}");
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::drive::complete;

    #[test]
    fn a_panic_is_an_error_that_says_what_it_was() {
        let outcome: Result<()> = complete(caught(pin!(async {
            assert_eq!(1 + 1, 3, "sums");
            Ok(())
        })));
        assert!(outcome.unwrap_err().to_string().contains("sums"));
        assert_eq!(complete(caught(pin!(async { Ok(1) }))).unwrap(), 1);
    }

    #[test]
    fn a_point_fails_once_and_no_other_does() {
        arm(Some("here".to_owned()));
        fail_point("there");
        assert!(catch_unwind(|| fail_point("here")).is_err());
        fail_point("here");
    }
}
