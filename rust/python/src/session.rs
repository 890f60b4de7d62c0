//! `bmdb._core.Session`: a session's id and trust.

use std::sync::Arc;
use std::time::Duration;

use bmdb_core::drive::Drive;
use bmdb_core::lease::Loss;
use bmdb_core::session::SessionState;
use bmdb_core::value::Value;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::drive;
use crate::error::to_python;
use crate::value::value_to_python;

/// The core of a `Session` or an `AsyncSession`.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Session {
    state: Arc<SessionState>,
}

impl Session {
    pub(crate) fn new(state: Arc<SessionState>) -> Self {
        Session { state }
    }

    pub(crate) fn state(&self) -> &Arc<SessionState> {
        &self.state
    }
}

fn optional_limit(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    timeout
        .map(|seconds| {
            // max() would take NaN for zero.
            let seconds = if seconds < 0.0 { 0.0 } else { seconds };
            Duration::try_from_secs_f64(seconds).map_err(|_| {
                PyValueError::new_err(format!(
                    "timeout must be a number of seconds, not {seconds}"
                ))
            })
        })
        .transpose()
}

#[pymethods]
impl Session {
    #[getter]
    fn uuid(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        value_to_python(py, Value::Uuid(self.state.id().into_bytes()))
    }

    /// Seconds, as effective.
    #[getter]
    fn interval(&self) -> f64 {
        self.state.interval().as_secs_f64()
    }

    #[getter]
    fn expired(&self) -> bool {
        self.state.loss().is_some()
    }

    /// True when the session has gone in another way than by being closed.
    #[getter]
    fn lost(&self) -> bool {
        self.state.loss().is_some_and(|loss| loss != Loss::Closed)
    }

    /// Seconds; 0.0 once expired.
    #[getter]
    fn trusted_for(&self) -> f64 {
        self.state.trusted_for().as_secs_f64()
    }

    /// Why the session is lost, or None.
    #[getter]
    fn loss(&self) -> Option<String> {
        self.state.loss().map(|loss| loss.to_string())
    }

    /// Raises SessionExpiredError when the session is lost.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.state.check().map_err(|error| to_python(py, error))
    }

    /// Waits until the session is lost, for `timeout` seconds at most; True when it is.
    #[pyo3(signature = (timeout=None))]
    fn wait_expired(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let limit = optional_limit(timeout)?;
        let caller = drive::caller();
        drive::run(py, self.state.wait_lost(&caller, limit))
    }

    #[pyo3(signature = (timeout=None))]
    fn wait_expired_async<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (state, limit) = (self.state.clone(), optional_limit(timeout)?);
        let wait = async move { state.wait_lost(&Drive::Runtime, limit).await };
        drive::spawn(py, wait, |py, lost| {
            Ok(lost.into_pyobject(py)?.to_owned().into_any().unbind())
        })
    }
}
