//! `bmdb._core.ForeignTransaction`: what a driver in Python needs of the core to carry out a fenced transaction.

use std::sync::{Arc, OnceLock};

use bmdb_core::connection::Connection as CoreConnection;
use bmdb_core::dialect::{self, Dialect};
use bmdb_core::error::{Error, Result, TransactionId};
use bmdb_core::foreign::{self, Foreign as Core};
use bmdb_core::metrics::Outcome;
use bmdb_core::migrate;
use bmdb_core::retry::{Action, Limits, Protocol};
use bmdb_core::transaction::Plan;
use bmdb_core::value::{Param, Value};
use bmdb_core::work::End;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::drive;
use crate::error::{failure_in_chain, to_python};
use crate::limits::{isolation, retries};
use crate::retry::{describe, event_of, failure_name, failure_of};
use crate::value::value_to_python;

/// Which database the pool leads to, asked once.
pub(crate) async fn whereabouts(
    core: Arc<CoreConnection>,
    known: Arc<OnceLock<(i64, String)>>,
) -> Result<(i64, String)> {
    if let Some(known) = known.get() {
        return Ok(known.clone());
    }
    let database = foreign::database(core.pool()).await?;
    Ok(known
        .get_or_init(|| (database.system, database.name))
        .clone())
}

/// The core's share of a transaction on another driver's connection. Used by one thread or task at a time.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct ForeignTransaction {
    inner: Arc<Mutex<Core>>,
}

impl ForeignTransaction {
    pub(crate) fn new(connection: &CoreConnection, plan: Plan, end: Option<End>) -> Self {
        Self::of(Core::new(connection.pool().clone(), plan, end))
    }

    fn of(core: Core) -> Self {
        ForeignTransaction {
            inner: Arc::new(Mutex::new(core)),
        }
    }

    fn enter(&self, py: Python<'_>) -> PyResult<OwnedMutexGuard<Core>> {
        let taken = self.inner.clone().try_lock_owned();
        taken.map_err(|_| {
            let text =
                "this transaction is in use elsewhere: run its statements one after the other";
            to_python(py, Error::WorkState(text.to_owned()))
        })
    }
}

#[pymethods]
impl ForeignTransaction {
    /// A transaction that no session fences. `protocol`: "rollback" or "savepoint". Raises ConfigError for an isolation
    /// level or a number of retries that makes no sense.
    #[staticmethod]
    fn alone(
        py: Python<'_>,
        protocol: &str,
        isolation_level: &str,
        max_retries: i64,
    ) -> PyResult<Self> {
        let refused = |error| to_python(py, error);
        let protocol = match protocol {
            "rollback" => Protocol::Rollback,
            "savepoint" => Protocol::Savepoint,
            other => {
                return Err(PyValueError::new_err(format!(
                    "there is no protocol {other:?}"
                )));
            }
        };
        let limits = Limits {
            max_retries: retries(max_retries).map_err(refused)?,
            ..Limits::default()
        };
        let isolation = isolation(isolation_level).map_err(refused)?;
        Ok(Self::of(Core::alone(protocol, isolation, limits)))
    }

    /// What to do next; see `RetryMachine.step`.
    #[getter]
    fn action<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let core = self.enter(py)?;
        describe(py, core.action(), core.attempts())
    }

    /// The action after `event`, of which `failure` tells more.
    #[pyo3(signature = (event, failure=None))]
    fn step<'py>(
        &self,
        py: Python<'py>,
        event: &str,
        failure: Option<&str>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let event = event_of(event, failure.map(failure_of).transpose()?)?;
        let mut core = self.enter(py)?;
        let action = core.step(event).map_err(|error| to_python(py, error))?;
        describe(py, action, core.attempts())
    }

    /// How often the callback has been let run.
    #[getter]
    fn attempts(&self) -> u32 {
        self.inner.try_lock().map_or(0, |core| core.attempts())
    }

    /// True between begin and conclude.
    #[getter]
    fn running(&self) -> bool {
        let core = self.inner.try_lock();
        core.is_ok_and(|core| matches!(core.action(), Action::Run { .. }))
    }

    /// "serializable", "repeatable read" or "read committed".
    #[getter]
    fn isolation(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.enter(py)?.isolation().name())
    }

    /// Raises when nothing may be sent any more: SessionExpiredError, ConfigError.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.enter(py)?;
        core.check().map_err(|error| to_python(py, error))
    }

    /// Raises WorkStateError for a statement that is not the callback's to run, ValueError for one with a NUL.
    fn check_statement(&self, py: Python<'_>, sql: &str) -> PyResult<()> {
        let core = self.enter(py)?;
        let checked = core.check().and_then(|()| dialect::check_statement(sql));
        checked.map_err(|error| to_python(py, error))
    }

    /// Before BEGIN: the same, and refuses work that is being ended already.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let mut core = self.enter(py)?;
        core.begin().map_err(|error| to_python(py, error))
    }

    /// The statement that follows BEGIN and its parameters, or None.
    fn opening(&self, py: Python<'_>) -> PyResult<Option<(String, Py<PyTuple>)>> {
        let Some((sql, params)) = self.enter(py)?.opening() else {
            return Ok(None);
        };
        let params = params
            .into_iter()
            .map(|param| param_to_python(py, param))
            .collect::<PyResult<Vec<_>>>()?;
        Ok(Some((sql.to_string(), PyTuple::new(py, params)?.unbind())))
    }

    /// It found its row, whose first column is the transaction's id. Raises AlreadyCommittedError when it is not `fresh`.
    #[pyo3(signature = (xid, timeline, incarnation, *, fresh=true))]
    fn opened(
        &self,
        py: Python<'_>,
        xid: Option<u64>,
        timeline: Option<u32>,
        incarnation: Option<i64>,
        fresh: bool,
    ) -> PyResult<()> {
        let id = TransactionId {
            xid,
            timeline,
            incarnation,
            ..TransactionId::default()
        };
        let opened = self.enter(py)?.opened(id, fresh);
        opened.map_err(|error| to_python(py, error))
    }

    /// Whether it has a name, under which it is committed once only.
    #[getter]
    fn keyed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.enter(py)?.is_keyed())
    }

    /// It found none. Always raises: SessionExpiredError or LeaseLostError.
    fn missing(&self, py: Python<'_>) -> PyResult<()> {
        let error = self.enter(py)?.missing();
        Err(to_python(py, error))
    }

    /// What the database error in an exception's chain means, or None; and whether it only says "aborted".
    fn failure_of(
        &self,
        py: Python<'_>,
        exception: &Bound<'_, PyAny>,
    ) -> PyResult<(Option<&'static str>, bool)> {
        let chain = failure_in_chain(py, exception)?;
        Ok((chain.failure.map(failure_name), chain.only_aborted))
    }

    /// Asks how the commit ended: True, False, or None when nobody can tell.
    fn settle(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        let core = self.enter(py)?;
        drive::run(py, async move { core.settle().await })
    }

    fn settle_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.enter(py)?;
        let settle = async move { core.settle().await };
        drive::spawn(py, settle, |py, committed| committed.into_py_any(py))
    }

    /// The same in one look of 100 ms that nothing interrupts.
    fn glance(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        let core = self.enter(py)?;
        drive::run(py, async move { Ok(core.glance().await) })
    }

    fn glance_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.enter(py)?;
        let glance = async move { Ok(core.glance().await) };
        drive::spawn(py, glance, |py, committed| committed.into_py_any(py))
    }

    /// The AmbiguousCommitError to raise.
    fn ambiguous(&self, py: Python<'_>, cause: &str) -> PyResult<Py<PyAny>> {
        let error = self.enter(py)?.ambiguous(cause);
        to_python(py, error).into_value(py).into_py_any(py)
    }

    /// It is over: `outcome` is "committed", "failed" or "unknown"; `lost`: its session or lease is gone.
    #[pyo3(signature = (outcome, *, lost=false))]
    fn over(&self, py: Python<'_>, outcome: &str, lost: bool) -> PyResult<()> {
        let outcome = match outcome {
            "committed" => Outcome::Committed,
            "failed" => Outcome::Failed,
            "unknown" => Outcome::Unknown,
            other => {
                return Err(PyValueError::new_err(format!(
                    "there is no outcome {other:?}"
                )));
            }
        };
        self.enter(py)?.over(outcome, lost);
        Ok(())
    }
}

fn param_to_python(py: Python<'_>, param: Param) -> PyResult<Py<PyAny>> {
    match param {
        Param::Null => Ok(py.None()),
        Param::Bool(value) => value.into_py_any(py),
        Param::Int(value) => value.into_py_any(py),
        Param::Float(value) => value.into_py_any(py),
        Param::Text(text) => text.into_py_any(py),
        Param::Uuid(bytes) => value_to_python(py, Value::Uuid(bytes)),
        Param::Bytes(bytes) => value_to_python(py, Value::Bytes(&bytes)),
        Param::Numeric(text) => value_to_python(py, Value::Numeric(text)),
        Param::Date(days) => value_to_python(py, Value::Date(days)),
        Param::Time(micros) => value_to_python(py, Value::Time(micros)),
        Param::Timestamp(micros) => value_to_python(py, Value::Timestamp(micros)),
        Param::TimestampTz(micros) => value_to_python(py, Value::TimestampTz(micros)),
        Param::Array(items) => items
            .into_iter()
            .map(|item| param_to_python(py, item))
            .collect::<PyResult<Vec<_>>>()?
            .into_py_any(py),
        other => Err(PyValueError::new_err(format!(
            "a {} cannot be set on a connection of yours: set that tag in the callback",
            other.kind()
        ))),
    }
}

/// The statements of CockroachDB's retry protocol: (savepoint, release, back to it).
#[pyfunction]
fn restart_savepoint() -> (&'static str, &'static str, &'static str) {
    (
        dialect::SAVEPOINT,
        Dialect::CockroachDb.commit(),
        dialect::RESTART,
    )
}

/// What to say when a statement of bmdb's own met `cause`, a missing table.
#[pyfunction]
fn missing_schema(cause: &str) -> String {
    migrate::missing_schema(cause)
}

/// Adds the class and the functions of this file to `bmdb._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ForeignTransaction>()?;
    module.add_function(wrap_pyfunction!(restart_savepoint, module)?)?;
    module.add_function(wrap_pyfunction!(missing_schema, module)?)
}
