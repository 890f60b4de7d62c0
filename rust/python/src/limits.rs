//! How a caller wants a transaction run: how strictly, and how often at most.

use std::time::Duration;

use bmdb_core::dialect::Isolation;
use bmdb_core::error::{Error, Result};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::to_python;

pub(crate) fn isolation(name: &str) -> Result<Isolation> {
    Isolation::parse(name).ok_or_else(|| {
        Error::Config(format!(
            "isolation must be 'serializable', 'repeatable read' or 'read committed', not {name:?}"
        ))
    })
}

pub(crate) fn retries(number: i64) -> Result<u32> {
    u32::try_from(number).map_err(|_| {
        Error::Config(format!(
            "max_retries must be a whole number from 0 to {}, not {number}",
            u32::MAX
        ))
    })
}

pub(crate) fn optional_retries(py: Python<'_>, number: Option<i64>) -> PyResult<Option<u32>> {
    number
        .map(retries)
        .transpose()
        .map_err(|error| to_python(py, error))
}

pub(crate) fn optional_isolation(
    py: Python<'_>,
    name: Option<&str>,
) -> PyResult<Option<Isolation>> {
    name.map(isolation)
        .transpose()
        .map_err(|error| to_python(py, error))
}

/// A span of time; what is negative is none.
pub(crate) fn limit(seconds: f64) -> PyResult<Duration> {
    let seconds = if seconds < 0.0 { 0.0 } else { seconds };
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{seconds} is not a number of seconds")))
}
