//! `bmdb._core.Transaction`: begin → callback → conclude, and the statements in between.

use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use bmdb_core::collect::own_plan;
use bmdb_core::connection::Connection as CoreConnection;
use bmdb_core::dialect::Isolation;
use bmdb_core::error::{Error, Result};
use bmdb_core::migrate::explain_missing_schema;
use bmdb_core::queries;
use bmdb_core::retry::Failure;
use bmdb_core::transaction::{Conclusion, Plan, Transaction as Core};
use bmdb_core::value::Param;
use bmdb_core::work::{Claim, End, WorkLease, claim};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

use crate::drive;
use crate::error::{Chain, failure_in_chain, to_python};
use crate::row::{Row, rows_to_python};
use crate::value::param_from_python;
use crate::work::{Work, machine_ids};

/// What a transaction is for.
pub(crate) enum Kind {
    /// Whatever its callback does.
    Plain,
    /// Leasing a machine; what it has leased so far.
    Claim(Option<Arc<WorkLease>>),
    /// Ending work.
    End(End),
}

struct Inner {
    tx: Core,
    kind: Kind,
    user: Option<ThreadId>,
}

/// One transaction over all its attempts. Used by one thread or task at a time.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Transaction {
    inner: Arc<Mutex<Inner>>,
    abandoned: Arc<Notify>,
}

impl Transaction {
    pub(crate) fn new(connection: &CoreConnection, plan: Plan, kind: Kind) -> Self {
        let tx = Core::new(connection.pool().clone(), plan);
        let abandoned = tx.abandoner();
        Transaction {
            inner: Arc::new(Mutex::new(Inner {
                tx,
                kind,
                user: None,
            })),
            abandoned,
        }
    }

    /// For statements of our own, each of which may take so long; `read_only`: on one snapshot in which nothing can be written.
    pub(crate) fn unfenced(connection: &CoreConnection, limit: Duration, read_only: bool) -> Self {
        let mut plan = own_plan();
        plan.statement_limit = Some(limit);
        if read_only {
            plan.isolation = Isolation::ReadOnly;
        }
        Self::new(connection, plan, Kind::Plain)
    }

    /// The transaction for a statement: refuses a second user at the same time, and another thread's.
    fn enter(&self, py: Python<'_>, sync: bool) -> PyResult<OwnedMutexGuard<Inner>> {
        let refuse = |text: &str| to_python(py, Error::WorkState(text.to_owned()));
        let inner = self.inner.clone().try_lock_owned().map_err(|_| {
            refuse("this transaction is in use elsewhere: run its statements one after the other")
        })?;
        if sync
            && inner
                .user
                .is_some_and(|user| user != std::thread::current().id())
        {
            return Err(refuse("q belongs to the thread that its callback runs on"));
        }
        Ok(inner)
    }

    /// Starts a step for asyncio. With its event loop closed there is nobody to conclude: then it is rolled back.
    fn spawn<'py, T, F, C>(
        &self,
        py: Python<'py>,
        step: F,
        convert: C,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
        C: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        let inner = self.inner.clone();
        let roll_back = async move {
            let raised = Chain {
                failure: None,
                only_aborted: false,
            };
            // It may have ended already, as after a failed begin.
            drop(inner.lock_owned().await.conclude(Some(raised)).await);
        };
        drive::spawn_for(py, step, convert, roll_back)
    }
}

impl Inner {
    async fn begin(&mut self) -> Result<()> {
        if let Kind::End(end) = &mut self.kind {
            end.begin()?;
        }
        let outcome = self.tx.begin().await.map_err(explain_missing_schema);
        if let (Err(error), Kind::End(end)) = (&outcome, &mut self.kind) {
            end.failed(error);
        }
        outcome
    }

    async fn conclude(&mut self, raised: Option<Chain>) -> Result<&'static str> {
        let raised = raised.map(|chain| match (chain.failure, self.tx.first_failure()) {
            // What this transaction met itself says more than what the exception says of it.
            (Some(_), Some(first @ Failure::Retryable)) => Some(first),
            (failure, first) if chain.only_aborted => first.or(failure),
            (failure, _) => failure,
        });
        let outcome = self.tx.conclude(raised).await;
        match (&outcome, &mut self.kind) {
            (Ok(Conclusion::Committed), Kind::End(end)) => end.done(),
            (Ok(Conclusion::Committed), Kind::Claim(Some(lease))) => lease.begun(),
            (Ok(Conclusion::Again), Kind::Claim(lease)) => *lease = None,
            (Ok(Conclusion::Raise), Kind::End(end)) => end.failed(&Error::WorkState(String::new())),
            // Ctrl-C met a COMMIT that took effect.
            (
                Err(Error::InterruptedCommit {
                    committed: Some(true),
                }),
                Kind::End(end),
            ) => end.done(),
            (
                Err(Error::InterruptedCommit {
                    committed: Some(true),
                }),
                Kind::Claim(Some(lease)),
            ) => lease.begun(),
            (Err(error), Kind::End(end)) => end.failed(error),
            _ => {}
        }
        outcome.map(|conclusion| match conclusion {
            Conclusion::Committed => "committed",
            Conclusion::Again => "again",
            Conclusion::Raise => "raise",
        })
    }

    /// Refuses a statement that is not the callback's to run.
    fn check(&mut self, py: Python<'_>, sql: &str) -> PyResult<()> {
        let checked = self.tx.check_statement(sql);
        checked.map_err(|error| to_python(py, error))
    }

    /// One of our own statements: without its tables it is the schema that is missing.
    async fn call(&mut self, sql: &str, params: &[Param]) -> Result<Vec<tokio_postgres::Row>> {
        let rows = self.tx.query(sql, params).await;
        rows.map_err(explain_missing_schema)
    }

    async fn call_count(&mut self, sql: &str, params: &[Param]) -> Result<u64> {
        let count = self.tx.execute(sql, params).await;
        count.map_err(explain_missing_schema)
    }

    async fn claim(
        &mut self,
        process: &str,
        machines: &[uuid::Uuid],
    ) -> Result<Option<Arc<WorkLease>>> {
        let claimed = match claim(&mut self.tx, process, machines).await? {
            Claim::Leased(lease) => Some(lease),
            Claim::Conflict => {
                self.tx.tell_gate(true);
                None
            }
        };
        self.kind = Kind::Claim(claimed.clone());
        Ok(claimed)
    }
}

fn known(name: &str) -> PyResult<&'static str> {
    queries::by_name(name)
        .map(|query| query.sql)
        .ok_or_else(|| PyValueError::new_err(format!("there is no query {name:?}")))
}

fn parameters(params: &Bound<'_, PyTuple>) -> PyResult<Vec<Param>> {
    params
        .iter()
        .map(|param| param_from_python(&param))
        .collect()
}

fn rows_object(py: Python<'_>, rows: &[tokio_postgres::Row]) -> PyResult<Py<PyAny>> {
    Ok(rows_to_python(py, rows)?.into_pyobject(py)?.unbind())
}

fn work_object(py: Python<'_>, lease: Option<Arc<WorkLease>>) -> PyResult<Py<PyAny>> {
    match lease {
        Some(lease) => Ok(Py::new(py, Work::new(lease))?.into_any()),
        None => Ok(py.None()),
    }
}

fn raised(py: Python<'_>, exception: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Chain>> {
    exception
        .map(|exception| failure_in_chain(py, exception))
        .transpose()
}

#[pymethods]
impl Transaction {
    /// How often the callback has been let run.
    #[getter]
    fn attempts(&self) -> u32 {
        self.inner.try_lock().map_or(0, |inner| inner.tx.attempts())
    }

    /// The SQLSTATE of what went wrong last in the attempt that has just ended, or None.
    #[getter]
    fn last_sqlstate(&self) -> Option<String> {
        let inner = self.inner.try_lock().ok()?;
        inner.tx.last_sqlstate().map(str::to_owned)
    }

    /// "serializable", "repeatable read" or "read committed".
    #[getter]
    fn isolation(&self) -> &'static str {
        self.inner
            .try_lock()
            .map_or("", |inner| inner.tx.isolation().name())
    }

    /// True between begin and conclude.
    #[getter]
    fn running(&self) -> bool {
        self.inner.try_lock().is_ok_and(|inner| inner.tx.running())
    }

    /// Opens the transaction, or opens it again.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let mut inner = self.enter(py, false)?;
        inner.user = Some(std::thread::current().id());
        drive::run(py, async move { inner.begin().await })
    }

    fn begin_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut inner = self.enter(py, false)?;
        self.spawn(py, async move { inner.begin().await }, |py, ()| {
            Ok(py.None())
        })
    }

    /// Tells how the callback ended (`exception` is what it raised, or None): "committed", "again" or "raise".
    #[pyo3(signature = (exception=None))]
    fn conclude(
        &self,
        py: Python<'_>,
        exception: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<&'static str> {
        let raised = raised(py, exception)?;
        let mut inner = self.enter(py, true)?;
        drive::run(py, async move { inner.conclude(raised).await })
    }

    #[pyo3(signature = (exception=None))]
    fn conclude_async<'py>(
        &self,
        py: Python<'py>,
        exception: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let raised = raised(py, exception)?;
        let inner = self.inner.clone();
        if inner.try_lock().is_err() {
            // A statement that a cancelled task left behind is called off; what it did is rolled back.
            self.abandoned.notify_one();
        }
        let conclude = async move { inner.lock_owned().await.conclude(raised).await };
        self.spawn(py, conclude, |py, text| {
            Ok(text.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Leases the first of `machines` that can be; None when all are taken.
    fn claim(
        &self,
        py: Python<'_>,
        process: &str,
        machines: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let machines = machine_ids(machines)?;
        let mut inner = self.enter(py, true)?;
        let lease = drive::run(py, async move { inner.claim(process, &machines).await })?;
        work_object(py, lease)
    }

    fn claim_async<'py>(
        &self,
        py: Python<'py>,
        process: String,
        machines: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let machines = machine_ids(machines)?;
        let mut inner = self.enter(py, false)?;
        self.spawn(
            py,
            async move { inner.claim(&process, &machines).await },
            work_object,
        )
    }

    /// Runs one of bmdb's own statements; returns its rows.
    fn call(&self, py: Python<'_>, name: &str, params: &Bound<'_, PyTuple>) -> PyResult<Vec<Row>> {
        let (sql, params) = (known(name)?, parameters(params)?);
        let mut inner = self.enter(py, true)?;
        let rows = drive::run(py, async move { inner.call(sql, &params).await })?;
        rows_to_python(py, &rows)
    }

    fn call_async<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        params: &Bound<'_, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (sql, params) = (known(name)?, parameters(params)?);
        let mut inner = self.enter(py, false)?;
        self.spawn(
            py,
            async move { inner.call(sql, &params).await },
            |py, rows| rows_object(py, &rows),
        )
    }

    /// Runs one of bmdb's own statements; returns how many rows it affected.
    fn call_count(&self, py: Python<'_>, name: &str, params: &Bound<'_, PyTuple>) -> PyResult<u64> {
        let (sql, params) = (known(name)?, parameters(params)?);
        let mut inner = self.enter(py, true)?;
        drive::run(py, async move { inner.call_count(sql, &params).await })
    }

    fn call_count_async<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        params: &Bound<'_, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (sql, params) = (known(name)?, parameters(params)?);
        let mut inner = self.enter(py, false)?;
        let count = async move { inner.call_count(sql, &params).await };
        self.spawn(py, count, |py, count| {
            Ok(count.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Runs a statement; returns its rows.
    fn fetch(&self, py: Python<'_>, sql: &str, params: &Bound<'_, PyTuple>) -> PyResult<Vec<Row>> {
        let params = parameters(params)?;
        let mut inner = self.enter(py, true)?;
        inner.check(py, sql)?;
        let rows = drive::run(py, async move { inner.tx.query(sql, &params).await })?;
        rows_to_python(py, &rows)
    }

    fn fetch_async<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: &Bound<'_, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let params = parameters(params)?;
        let mut inner = self.enter(py, false)?;
        inner.check(py, sql)?;
        let sql = sql.to_owned();
        self.spawn(
            py,
            async move { inner.tx.query(&sql, &params).await },
            |py, rows| rows_object(py, &rows),
        )
    }

    /// Runs a statement; returns how many rows it affected.
    fn execute(&self, py: Python<'_>, sql: &str, params: &Bound<'_, PyTuple>) -> PyResult<u64> {
        let params = parameters(params)?;
        let mut inner = self.enter(py, true)?;
        inner.check(py, sql)?;
        drive::run(py, async move { inner.tx.execute(sql, &params).await })
    }

    fn execute_async<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: &Bound<'_, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let params = parameters(params)?;
        let mut inner = self.enter(py, false)?;
        inner.check(py, sql)?;
        let sql = sql.to_owned();
        let count = async move { inner.tx.execute(&sql, &params).await };
        self.spawn(py, count, |py, count| {
            Ok(count.into_pyobject(py)?.into_any().unbind())
        })
    }
}
