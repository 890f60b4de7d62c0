//! `bmdb._core.Work`: a lease, and how to end it.

use std::sync::Arc;

use bmdb_core::value::{Param, Value};
use bmdb_core::work::{End, Ending, WorkLease, WorkState, checked_cause};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::error::to_python;
use crate::value::{param_from_python, value_to_python};

/// The core of a `Work` or an `AsyncWork`.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Work {
    lease: Arc<WorkLease>,
}

impl Work {
    pub(crate) fn new(lease: Arc<WorkLease>) -> Self {
        Work { lease }
    }

    pub(crate) fn lease(&self) -> &Arc<WorkLease> {
        &self.lease
    }
}

#[pymethods]
impl Work {
    #[getter]
    fn machine(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        value_to_python(py, Value::Uuid(self.lease.machine().into_bytes()))
    }

    #[getter]
    fn process(&self) -> &str {
        self.lease.process()
    }

    #[getter]
    fn token(&self) -> i64 {
        self.lease.token()
    }

    /// Whole seconds, or None.
    #[getter]
    fn previous_backoff(&self) -> Option<i64> {
        self.lease.previous_seconds()
    }

    #[getter]
    fn state(&self) -> &'static str {
        self.lease.state().name()
    }

    #[getter]
    fn lost(&self) -> bool {
        self.lease.state() == WorkState::Lost
    }

    /// Its number among the leases of this OS process; events name it.
    #[getter]
    fn serial(&self) -> u64 {
        self.lease.serial()
    }

    /// Raises SessionExpiredError or LeaseLostError when it is lost.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.lease.check().map_err(|error| to_python(py, error))
    }

    /// The backoff of failures that name none.
    #[getter]
    fn backoff(&self) -> Option<Backoff> {
        self.lease.backoff().map(Backoff::from)
    }

    #[setter]
    fn set_backoff(&self, backoff: Option<PyRef<'_, Backoff>>) {
        self.lease
            .set_backoff(backoff.map(|backoff| backoff.core().clone()));
    }

    /// Starts the time that it may be held anew.
    fn touch(&self, py: Python<'_>) -> PyResult<()> {
        self.lease.touch().map_err(|error| to_python(py, error))
    }
}

/// The end of `work` of this kind: "finish", "fail" or "cancel".
pub(crate) fn ending(
    py: Python<'_>,
    work: &Work,
    kind: &str,
    cause: Option<&str>,
    backoff: Option<&Backoff>,
) -> PyResult<End> {
    let ending = made(py, work, kind, cause, backoff)?;
    work.lease()
        .end(ending)
        .map_err(|error| to_python(py, error))
}

/// How it is to end, with the wait of a failure.
pub(crate) fn made(
    py: Python<'_>,
    work: &Work,
    kind: &str,
    cause: Option<&str>,
    backoff: Option<&Backoff>,
) -> PyResult<Ending> {
    Ok(match kind {
        "finish" => Ending::Finish,
        "cancel" => Ending::Cancel,
        "fail" => {
            let cause =
                checked_cause(cause.unwrap_or_default()).map_err(|error| to_python(py, error))?;
            let set = work.lease().backoff();
            let backoff = backoff.map(Backoff::core).or(set.as_ref());
            // Jitter is drawn where `Backoff` documents it, so that seeding Python's generator decides it.
            let random = match backoff {
                Some(backoff) if backoff.jitter() > 0.0 => random(py)?,
                _ => 0.0,
            };
            let (wait, period) = work.lease().backoff_seconds(backoff, random);
            Ending::Fail {
                cause,
                wait,
                period,
            }
        }
        other => {
            return Err(PyValueError::new_err(format!(
                "work cannot end by {other:?}"
            )));
        }
    })
}

fn random(py: Python<'_>) -> PyResult<f64> {
    py.import(intern!(py, "random"))?
        .call_method0(intern!(py, "random"))?
        .extract()
}

/// The machine ids that a retrieval function returned: UUIDs, or rows that have a `machine_id`.
pub(crate) fn machine_ids(returned: &Bound<'_, PyAny>) -> PyResult<Vec<Uuid>> {
    let py = returned.py();
    let remedy = "retrieve must return machine ids (UUIDs), or rows that have a machine_id";
    let junk = |what: &Bound<'_, PyAny>| -> PyErr {
        let name = what
            .get_type()
            .name()
            .map_or_else(|_| "?".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("{remedy}, not {name}"))
    };
    if returned.is_none() {
        return Ok(Vec::new());
    }
    if returned.is_instance_of::<pyo3::types::PyString>()
        || returned.is_instance_of::<pyo3::types::PyBytes>()
    {
        return Err(junk(returned));
    }
    let mut ids = Vec::new();
    for item in returned.try_iter().map_err(|_| junk(returned))? {
        let item = item?;
        let id = item
            .getattr_opt(intern!(py, "machine_id"))?
            .unwrap_or_else(|| item.clone());
        match param_from_python(&id) {
            Ok(Param::Uuid(bytes)) => ids.push(Uuid::from_bytes(bytes)),
            Ok(Param::Text(text)) => ids.push(Uuid::parse_str(&text).map_err(|_| junk(&id))?),
            _ => return Err(junk(&id)),
        }
    }
    Ok(ids)
}
