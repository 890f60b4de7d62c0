//! `bmdb._core.Connection`: opening, the schema, sessions, collection, closing.

use std::sync::{Arc, OnceLock};

use bmdb_core::batch::lanes;
use bmdb_core::connection::{Connection as Core, Settings};
use bmdb_core::dialect::Isolation;
use bmdb_core::drive::Drive;
use bmdb_core::error::Result;
use bmdb_core::events::Level;
use bmdb_core::transaction::Plan;
use bmdb_core::value::Value;
use bmdb_core::work::End;
use bmdb_core::{migrate, reflect, roles};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use uuid::Uuid;

use crate::batch::{self, Batches, Change};
use crate::canary::{self, Policy};
use crate::drive;
use crate::error::{Doubt, to_python};
use crate::foreign::{ForeignTransaction, whereabouts};
use crate::limits::{limit, optional_isolation, optional_retries};
use crate::metrics;
use crate::process::{Process, definitions};
use crate::questions::Questions;
use crate::session::Session;
use crate::settings::{Given, prepare};
use crate::transaction::{Kind, Transaction};
use crate::value::value_to_python;
use crate::work::{Work, ending, machine_ids};

/// The core of a `Connection` or an `AsyncConnection`.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Connection {
    core: Arc<Core>,
    throwaway: bool,
    /// Asked once: it cannot change.
    database: Arc<OnceLock<(i64, String)>>,
}

/// A tag: its name, its table, and its fields with their types.
type Tag = (String, String, Vec<(String, String)>);

async fn open((settings, throwaway): (Settings, bool)) -> Result<Connection> {
    let core = Arc::new(Core::open(settings).await?);
    Ok(Connection {
        core,
        throwaway,
        database: Arc::default(),
    })
}

fn collected(outcome: bmdb_core::collect::Collected) -> (u64, u64) {
    (outcome.sessions, outcome.leases)
}

fn into_object<T>(py: Python<'_>, value: T) -> PyResult<Py<PyAny>>
where
    T: for<'py> IntoPyObject<'py>,
{
    value.into_py_any(py)
}

impl Connection {
    /// How to run a transaction fenced by `session`; `key` names it.
    fn plan(
        &self,
        py: Python<'_>,
        session: &Session,
        isolation: Option<&str>,
        max_retries: Option<i64>,
        key: Option<String>,
    ) -> PyResult<Plan> {
        let mut plan = self.core.plan(
            session.state(),
            optional_isolation(py, isolation)?,
            optional_retries(py, max_retries)?,
        );
        if let Some(key) = key {
            plan.name(key).map_err(|error| to_python(py, error))?;
        }
        Ok(plan)
    }
}

#[pymethods]
impl Connection {
    /// Connects once, to find out whether that works. `pairs`: libpq keywords and values.
    #[staticmethod]
    fn open(py: Python<'_>, pairs: Vec<(String, String)>, settings: Given) -> PyResult<Connection> {
        let opening = prepare(py, pairs, drive::caller(), settings)?;
        drive::run(py, open(opening))
    }

    /// The same for asyncio.
    #[staticmethod]
    fn open_async<'py>(
        py: Python<'py>,
        pairs: Vec<(String, String)>,
        settings: Given,
    ) -> PyResult<Bound<'py, PyAny>> {
        let opening = prepare(py, pairs, Drive::Runtime, settings)?;
        drive::spawn(py, open(opening), |py, connection| {
            Ok(Py::new(py, connection)?.into_any())
        })
    }

    /// The schema's version; 0 when there is none.
    fn schema_version(&self, py: Python<'_>) -> PyResult<i64> {
        drive::run(py, migrate::version(self.core.pool()))
    }

    fn schema_version_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core.clone();
        drive::spawn(
            py,
            async move { migrate::version(core.pool()).await },
            into_object,
        )
    }

    /// Migrates to `to`, the latest version when None.
    fn migrate(&self, py: Python<'_>, to: Option<i64>) -> PyResult<i64> {
        drive::run(py, migrate::migrate(self.core.pool(), to, self.throwaway))
    }

    fn migrate_async<'py>(&self, py: Python<'py>, to: Option<i64>) -> PyResult<Bound<'py, PyAny>> {
        let (core, throwaway) = (self.core.clone(), self.throwaway);
        drive::spawn(
            py,
            async move { migrate::migrate(core.pool(), to, throwaway).await },
            into_object,
        )
    }

    /// Makes the roles of a fleet; their names: owner, worker, operator, viewer.
    fn create_roles(&self, py: Python<'_>, prefix: &str) -> PyResult<Vec<String>> {
        drive::run(py, roles::create(self.core.pool(), prefix))
    }

    /// Raises MigrationError for a schema that this library is too old for.
    fn check_schema_version(&self, py: Python<'_>, version: i64) -> PyResult<()> {
        migrate::check_not_too_new(version).map_err(|error| to_python(py, error))
    }

    /// Starts a session. `stalls` is from how many seconds of waiting for the GIL on there is a warning, and from how many
    /// on the session is lost; None: never.
    fn start_session(
        &self,
        py: Python<'_>,
        interval: f64,
        processor: &str,
        stalls: Policy,
    ) -> PyResult<Session> {
        let state = drive::run(py, self.core.start_session(interval, processor))?;
        canary::watch(py, &state, self.core.metrics(), stalls);
        Ok(Session::new(state))
    }

    fn start_session_async<'py>(
        &self,
        py: Python<'py>,
        interval: f64,
        processor: String,
        stalls: Policy,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, metrics) = (self.core.clone(), self.core.metrics().clone());
        let start = async move { core.start_session(interval, &processor).await };
        drive::spawn(py, start, move |py, state| {
            canary::watch(py, &state, &metrics, stalls);
            Ok(Py::new(py, Session::new(state))?.into_any())
        })
    }

    /// Releases a session's leases and removes its row.
    fn end_session(&self, py: Python<'_>, session: &Session) -> PyResult<()> {
        drive::run(py, self.core.end_session(session.state()))
    }

    fn end_session_async<'py>(
        &self,
        py: Python<'py>,
        session: &Session,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, state) = (self.core.clone(), session.state().clone());
        drive::spawn(
            py,
            async move { core.end_session(&state).await },
            |py, ()| Ok(py.None()),
        )
    }

    /// A transaction fenced by `session`.
    #[pyo3(signature = (session, isolation=None, max_retries=None, key=None))]
    fn transaction(
        &self,
        py: Python<'_>,
        session: &Session,
        isolation: Option<&str>,
        max_retries: Option<i64>,
        key: Option<String>,
    ) -> PyResult<Transaction> {
        let plan = self.plan(py, session, isolation, max_retries, key)?;
        Ok(Transaction::new(&self.core, plan, Kind::Plain))
    }

    /// A transaction fenced by `session` in which a machine may be claimed for `process`. Raises ValueError for a
    /// process name that is empty, longer than 128 bytes or holds a NUL.
    #[pyo3(signature = (session, process, isolation=None, max_retries=None))]
    fn claiming(
        &self,
        py: Python<'_>,
        session: &Session,
        process: &str,
        isolation: Option<&str>,
        max_retries: Option<i64>,
    ) -> PyResult<Transaction> {
        bmdb_core::work::check_process(process).map_err(|error| to_python(py, error))?;
        let mut plan = self.core.plan(
            session.state(),
            optional_isolation(py, isolation)?,
            optional_retries(py, max_retries)?,
        );
        plan.isolation = plan.isolation.at_least_one_snapshot();
        plan.settles = true;
        plan.gate = Some(self.core.gate(process));
        Ok(Transaction::new(&self.core, plan, Kind::Claim(None)))
    }

    /// From now on `work` may be held for `seconds` without a touch; None: for as long as its session lives. Raises
    /// LeaseLostError when it has been held too long already.
    fn hold(&self, py: Python<'_>, work: &Work, seconds: Option<f64>) -> PyResult<()> {
        let limit = seconds.map(limit).transpose()?;
        self.core
            .hold(work.lease(), limit)
            .map_err(|error| to_python(py, error))
    }

    /// A transaction that ends `work`: `kind` is "finish", "fail" (with a cause, and a Backoff or None) or "cancel".
    /// Without a callback of the user's it runs at READ COMMITTED.
    #[pyo3(signature = (work, kind, *, callback, cause=None, backoff=None, isolation=None, max_retries=None, changed=Vec::new()))]
    #[allow(clippy::too_many_arguments)]
    fn ending(
        &self,
        py: Python<'_>,
        work: &Work,
        kind: &str,
        callback: bool,
        cause: Option<&str>,
        backoff: Option<&crate::backoff::Backoff>,
        isolation: Option<&str>,
        max_retries: Option<i64>,
        changed: Vec<Bound<'_, Change>>,
    ) -> PyResult<Transaction> {
        let chosen = optional_isolation(py, isolation)?;
        let retries = optional_retries(py, max_retries)?;
        let (plan, end) = self.ending_plan(
            py, work, kind, callback, cause, backoff, chosen, retries, &changed,
        )?;
        Ok(Transaction::new(&self.core, plan, Kind::End(end)))
    }

    /// The core's share of a transaction fenced by `session` on another driver's connection.
    #[pyo3(signature = (session, isolation=None, max_retries=None, key=None))]
    fn foreign(
        &self,
        py: Python<'_>,
        session: &Session,
        isolation: Option<&str>,
        max_retries: Option<i64>,
        key: Option<String>,
    ) -> PyResult<ForeignTransaction> {
        let plan = self.plan(py, session, isolation, max_retries, key)?;
        Ok(ForeignTransaction::new(&self.core, plan, None))
    }

    /// The same for one that ends `work`; see `ending`.
    #[pyo3(signature = (work, kind, *, callback, cause=None, backoff=None, isolation=None, max_retries=None, changed=Vec::new()))]
    #[allow(clippy::too_many_arguments)]
    fn foreign_ending(
        &self,
        py: Python<'_>,
        work: &Work,
        kind: &str,
        callback: bool,
        cause: Option<&str>,
        backoff: Option<&crate::backoff::Backoff>,
        isolation: Option<&str>,
        max_retries: Option<i64>,
        changed: Vec<Bound<'_, Change>>,
    ) -> PyResult<ForeignTransaction> {
        let chosen = optional_isolation(py, isolation)?;
        let retries = optional_retries(py, max_retries)?;
        let (plan, end) = self.ending_plan(
            py, work, kind, callback, cause, backoff, chosen, retries, &changed,
        )?;
        Ok(ForeignTransaction::new(&self.core, plan, Some(end)))
    }

    /// Which database this leads to: (the cluster's identifier, the database's name).
    fn database(&self, py: Python<'_>) -> PyResult<(i64, String)> {
        drive::run(py, whereabouts(self.core.clone(), self.database.clone()))
    }

    /// The same once it has been asked, or None.
    #[getter]
    fn known_database(&self) -> Option<(i64, String)> {
        self.database.get().cloned()
    }

    fn database_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let database = whereabouts(self.core.clone(), self.database.clone());
        drive::spawn(py, database, into_object)
    }

    /// Claims and ends without callbacks.
    #[getter]
    fn batches(&self) -> Batches {
        Batches::new(self.core.clone())
    }

    /// Queries about eligibilities.
    #[getter]
    fn questions(&self) -> Questions {
        Questions::new(self.core.clone())
    }

    /// A transaction that no session fences, each of whose statements may take so many seconds; `read_only`: on one snapshot.
    #[pyo3(signature = (seconds = 5.0, read_only = false))]
    fn unfenced(&self, seconds: f64, read_only: bool) -> PyResult<Transaction> {
        Ok(Transaction::unfenced(
            &self.core,
            limit(seconds)?,
            read_only,
        ))
    }

    /// For people: which part of the fleet manager this is.
    #[getter]
    fn component(&self) -> &str {
        self.core.component()
    }

    /// Stores what the database keeps of these processes.
    fn register(&self, py: Python<'_>, processes: Vec<Process>, replace: bool) -> PyResult<()> {
        drive::run(py, self.core.register(&definitions(processes), replace))
    }

    fn register_async<'py>(
        &self,
        py: Python<'py>,
        processes: Vec<Process>,
        replace: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, definitions) = (self.core.clone(), definitions(processes));
        drive::spawn(
            py,
            async move { core.register(&definitions, replace).await },
            |py, ()| Ok(py.None()),
        )
    }

    /// Collects: returns the numbers of sessions and leases removed.
    fn collect(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        drive::run(py, self.core.collect()).map(collected)
    }

    fn collect_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core.clone();
        drive::spawn(
            py,
            async move { core.collect().await.map(collected) },
            into_object,
        )
    }

    /// Collects unless that was done here within the last second.
    fn collect_if_due(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        drive::run(py, self.core.collect_if_due()).map(collected)
    }

    fn collect_if_due_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core.clone();
        drive::spawn(
            py,
            async move { core.collect_if_due().await.map(collected) },
            into_object,
        )
    }

    /// How the transaction ended that an error is about: True committed, False aborted, None when that cannot be told within
    /// `timeout` seconds. For a thread without an event loop, whoever drives the connection.
    fn transaction_outcome(
        &self,
        py: Python<'_>,
        doubt: &Bound<'_, Doubt>,
        timeout: f64,
    ) -> PyResult<Option<bool>> {
        let (core, id, limit) = (self.core.clone(), doubt.get().id.clone(), limit(timeout)?);
        let asked = async move { core.transaction_outcome(&id, limit).await };
        match self.core.pool().drive() {
            Drive::Caller(_) => drive::run(py, asked),
            Drive::Runtime => drive::run_on_runtime(py, asked),
        }
    }

    fn transaction_outcome_async<'py>(
        &self,
        py: Python<'py>,
        doubt: &Bound<'_, Doubt>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, id, limit) = (self.core.clone(), doubt.get().id.clone(), limit(timeout)?);
        let asked = async move { core.transaction_outcome(&id, limit).await };
        drive::spawn(py, asked, into_object)
    }

    /// The tags in the database: (name, table, [(field, type), …]).
    fn tags(&self, py: Python<'_>) -> PyResult<Vec<Tag>> {
        let tags = drive::run(py, reflect::tags(self.core.pool()))?;
        Ok(tags
            .into_iter()
            .map(|tag| (tag.name, tag.table, tag.fields))
            .collect())
    }

    fn tags_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core.clone();
        let tags = async move {
            let tags = reflect::tags(core.pool()).await?;
            Ok(tags
                .into_iter()
                .map(|tag| (tag.name, tag.table, tag.fields))
                .collect::<Vec<_>>())
        };
        drive::spawn(py, tags, into_object)
    }

    /// Which of these machines has which tag: [(machine, tag), …].
    fn tags_of(&self, py: Python<'_>, machines: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let machines = tagged_machines(machines)?;
        let held = drive::run(py, reflect::tags_of(self.core.pool(), &machines))?;
        held_to_python(py, held)
    }

    fn tags_of_async<'py>(
        &self,
        py: Python<'py>,
        machines: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, machines) = (self.core.clone(), tagged_machines(machines)?);
        drive::spawn(
            py,
            async move { reflect::tags_of(core.pool(), &machines).await },
            held_to_python,
        )
    }

    /// Counters, gauges and histograms as they stand; see `bmdb.metrics`.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        metrics::to_python(py, self.core.metrics())
    }

    /// Waits up to `timeout` seconds for events: [(level, source, session, lost, message, lease), …]. None once closed.
    fn drain_events<'py>(
        &self,
        py: Python<'py>,
        timeout: f64,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let (events, limit) = (self.core.events().clone(), limit(timeout)?);
        let Some(drained) = py.detach(|| events.drain(limit)) else {
            return Ok(None);
        };
        let list = PyList::empty(py);
        for event in drained {
            let level = match event.level {
                Level::Debug => 10,
                Level::Info => 20,
                Level::Warning => 30,
                Level::Error => 40,
            };
            let session = event.session.map(|id| id.to_string());
            let subject = event
                .subject
                .map(|subject| (subject.machine.to_string(), subject.process, subject.token));
            list.append((
                level,
                event.source,
                session,
                event.lost,
                event.message,
                event.lease,
                subject,
            ))?;
        }
        Ok(Some(list))
    }

    /// Lets the clock that trust is measured on jump ahead, as waking from a suspension does. For tests.
    fn skip_clock(&self, seconds: f64) -> PyResult<()> {
        self.core.clock().skip(limit(seconds)?);
        Ok(())
    }

    /// The server's banner.
    #[getter]
    fn banner(&self) -> Option<String> {
        self.core.pool().banner().map(str::to_owned)
    }

    #[getter]
    fn throwaway(&self) -> bool {
        self.throwaway
    }

    /// Whether a pooler may stand in between.
    #[getter]
    fn pooled(&self) -> bool {
        self.core.pool().config().pooler.is_some()
    }

    #[getter]
    fn closed(&self) -> bool {
        self.core.closed()
    }

    /// Ends all sessions and closes all connections.
    fn close(&self, py: Python<'_>) {
        py.detach(|| bmdb_core::drive::complete(self.core.close()));
    }

    /// Closes, but takes no longer than `seconds`: for interpreter exit.
    fn close_within(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        let (core, limit) = (self.core.clone(), limit(seconds)?);
        py.detach(|| core.close_within(limit));
        Ok(())
    }

    fn close_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core.clone();
        let close = async move {
            core.close().await;
            Ok(())
        };
        drive::spawn(py, close, |py, ()| Ok(py.None()))
    }
}

impl Connection {
    #[allow(clippy::too_many_arguments)]
    fn ending_plan(
        &self,
        py: Python<'_>,
        work: &Work,
        kind: &str,
        callback: bool,
        cause: Option<&str>,
        backoff: Option<&crate::backoff::Backoff>,
        chosen: Option<Isolation>,
        retries: Option<u32>,
        changed: &[Bound<'_, Change>],
    ) -> PyResult<(Plan, End)> {
        let end = ending(py, work, kind, cause, backoff)?;
        let changed = batch::changes(changed);
        let shape = if changed.is_empty() {
            None
        } else {
            let known = self.core.lanes().known_shape(end.ending(), &changed);
            let known = known.ok_or_else(|| PyValueError::new_err("call prepare() first"))?;
            Some((known, lanes::values(changed)))
        };
        let opening = end.opening(shape);
        let isolation = if callback {
            chosen
        } else {
            Some(Isolation::ReadCommitted)
        };
        let mut plan = self.core.plan(work.lease().session(), isolation, retries);
        plan.opening = opening;
        plan.settles = true;
        Ok((plan, end))
    }
}

fn tagged_machines(machines: &Bound<'_, PyAny>) -> PyResult<Vec<Uuid>> {
    machine_ids(machines).map_err(|_| PyTypeError::new_err("machines must be machine ids (UUIDs)"))
}

fn held_to_python(py: Python<'_>, held: Vec<(Uuid, String)>) -> PyResult<Py<PyAny>> {
    held.into_iter()
        .map(|(machine, tag)| Ok((value_to_python(py, Value::Uuid(machine.into_bytes()))?, tag)))
        .collect::<PyResult<Vec<_>>>()?
        .into_py_any(py)
}
