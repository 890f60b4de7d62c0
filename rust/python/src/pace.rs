//! `bmdb_core::pace`, in floats of seconds.

use std::num::NonZeroU32;
use std::time::Duration;

use bmdb_core::pace::Pace as Core;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A token bucket that is told the time: how often something may be done. May be shared by threads.
///
/// `burst` tokens at first, and one more each `every` seconds, never more than `burst`. ValueError for an `every` that
/// is negative, NaN or too large, and for a `burst` of 0.
#[pyclass(frozen, module = "bmdb._core")]
struct Pace(Core);

#[pymethods]
impl Pace {
    #[new]
    fn new(every: f64, burst: u32) -> PyResult<Self> {
        let every = seconds("every", every)?;
        let burst = NonZeroU32::new(burst)
            .ok_or_else(|| PyValueError::new_err("burst must be at least 1"))?;
        Ok(Pace(Core::new(every, burst)))
    }

    /// Takes a token at the time `now`, in seconds from any start that stays the same: 0.0, or in how many seconds there
    /// will be one, which others may take first. A `now` before the latest one told counts as that.
    fn take(&self, now: f64) -> PyResult<f64> {
        Ok(match self.0.take(seconds("now", now)?) {
            Ok(()) => 0.0,
            Err(wait) => wait.as_secs_f64(),
        })
    }
}

fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        PyValueError::new_err(format!("{name} must be seconds, 0 or more, not {value}"))
    })
}

/// Adds this file's classes to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Pace>()
}
