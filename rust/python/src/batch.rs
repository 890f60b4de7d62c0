//! `bmdb._core.Batches`, `Eligibility` and `Change`: claims and ends without callbacks.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;

use bmdb_core::batch::claims::{ClaimJob, Claims};
use bmdb_core::batch::coalesce::{Coalescer, Runner};
use bmdb_core::batch::ends::EndJob;
use bmdb_core::batch::lanes::{self, Declared};
use bmdb_core::connection::Connection as Core;
use bmdb_core::eligibility;
use bmdb_core::error::{Error, Result};
use bmdb_core::panics::caught;
use bmdb_core::queries::{self, Query};
use bmdb_core::tag;
use bmdb_core::work::{End, WorkLease};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::backoff::Backoff;
use crate::completion::{self, Completion, Outcome, is_done};
use crate::drive::{self, Promise};
use crate::error::to_python;
use crate::session::Session;
use crate::value::param_from_python;
use crate::work::{Work, ending};

/// Which machines need a process; see `bmdb.eligible`.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Eligibility {
    pub(crate) declared: Declared,
    having: Py<PyTuple>,
    lacking: Py<PyTuple>,
    params: Py<PyTuple>,
}

fn names(given: &Bound<'_, PyTuple>) -> PyResult<Vec<String>> {
    given.iter().map(|name| name.extract()).collect()
}

#[pymethods]
impl Eligibility {
    #[new]
    #[pyo3(signature = (having, lacking, condition, params, order, sql))]
    fn new(
        py: Python<'_>,
        having: Bound<'_, PyTuple>,
        lacking: Bound<'_, PyTuple>,
        condition: Option<String>,
        params: Bound<'_, PyTuple>,
        order: Option<String>,
        sql: Option<String>,
    ) -> PyResult<Self> {
        let eligibility = eligibility::Eligibility {
            having: names(&having)?,
            lacking: names(&lacking)?,
            condition,
            params: params
                .iter()
                .map(|param| param_from_python(&param))
                .collect::<PyResult<_>>()?,
            order,
            sql,
        };
        Ok(Eligibility {
            declared: Declared::new(eligibility).map_err(|error| to_python(py, error))?,
            having: having.unbind(),
            lacking: lacking.unbind(),
            params: params.unbind(),
        })
    }

    /// Names of the tags that a machine must have.
    #[getter]
    fn having(&self, py: Python<'_>) -> Py<PyTuple> {
        self.having.clone_ref(py)
    }

    /// Names of the tags that a machine must not have.
    #[getter]
    fn lacking(&self, py: Python<'_>) -> Py<PyTuple> {
        self.lacking.clone_ref(py)
    }

    /// The condition in SQL, or None.
    #[getter]
    fn r#where(&self) -> Option<&str> {
        self.declared.eligibility.condition.as_deref()
    }

    /// What the SQL refers to by $1, $2 and so on.
    #[getter]
    fn params(&self, py: Python<'_>) -> Py<PyTuple> {
        self.params.clone_ref(py)
    }

    /// The order in SQL, or None.
    #[getter]
    fn order_by(&self) -> Option<&str> {
        self.declared.eligibility.order.as_deref()
    }

    /// The whole query, or None.
    #[getter]
    fn sql(&self) -> Option<&str> {
        self.declared.eligibility.sql.as_deref()
    }

    /// Short, and equal for equal ones.
    #[getter]
    fn fingerprint(&self) -> &str {
        &self.declared.fingerprint
    }

    /// The same with these SQL literals in place of the parameters: (condition, order, query).
    fn written(&self, literals: Vec<String>) -> (Option<String>, Option<String>, Option<String>) {
        let written = self.declared.eligibility.written(&literals);
        (written.condition, written.order, written.sql)
    }

    /// For pickle and copy.
    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        (
            self.having.clone_ref(py),
            self.lacking.clone_ref(py),
            self.r#where(),
            self.params.clone_ref(py),
            self.order_by(),
            self.sql(),
        )
            .into_pyobject(py)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<Eligibility>()
            .is_ok_and(|other| other.get().declared.identity == self.declared.identity)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.declared.identity.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let declared = &self.declared.eligibility;
        let mut parts = Vec::new();
        for (name, tuple) in [("having", &self.having), ("lacking", &self.lacking)] {
            if !tuple.bind(py).is_empty() {
                parts.push(format!("{name}={}", tuple.bind(py).repr()?));
            }
        }
        let texts = [
            ("where", &declared.condition),
            ("order_by", &declared.order),
            ("sql", &declared.sql),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                parts.push(format!("{name}={text:?}"));
            }
        }
        if !declared.params.is_empty() {
            // Values may be secrets, and belong to nobody's log.
            parts.push(format!("params=<{}>", declared.params.len()));
        }
        Ok(format!("eligible({})", parts.join(", ")))
    }
}

/// What the end of work changes of a tag; see `bmdb.set_tag` and `bmdb.clear_tag`.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Change {
    change: tag::Change,
    values: Option<Py<PyDict>>,
}

#[pymethods]
impl Change {
    /// `values`: columns and values to set, or None to clear the tag.
    #[new]
    fn new(tag: String, values: Option<Bound<'_, PyDict>>) -> PyResult<Self> {
        let change = match &values {
            None => tag::Change::Clear { tag },
            Some(values) => tag::Change::Set {
                tag,
                values: values
                    .iter()
                    .map(|(column, value)| Ok((column.extract()?, param_from_python(&value)?)))
                    .collect::<PyResult<_>>()?,
            },
        };
        Ok(Change {
            change,
            values: values.map(Bound::unbind),
        })
    }

    /// The tag's name.
    #[getter]
    fn tag(&self) -> &str {
        self.change.tag()
    }

    /// Columns and values, or None if the tag is cleared.
    #[getter]
    fn values(&self, py: Python<'_>) -> PyResult<Option<Py<PyDict>>> {
        self.values
            .as_ref()
            .map(|values| Ok(values.bind(py).copy()?.unbind()))
            .transpose()
    }

    /// For pickle and copy.
    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        (self.tag(), self.values(py)?).into_pyobject(py)
    }

    fn __repr__(&self) -> String {
        match &self.change {
            tag::Change::Clear { tag } => format!("clear_tag({tag:?})"),
            tag::Change::Set { tag, values } => {
                let columns = values.iter().map(|(column, _)| format!(", {column}=..."));
                format!("set_tag({tag:?}{})", columns.collect::<String>())
            }
        }
    }
}

/// One end: the work, its kind, the changes, the cause and the backoff of a failure.
type GivenEnd<'py> = (
    Bound<'py, Work>,
    String,
    Vec<Bound<'py, Change>>,
    Option<String>,
    Option<Bound<'py, Backoff>>,
);

/// The core's claims and ends without callbacks, of one connection.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Batches {
    core: Arc<Core>,
}

impl Batches {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Batches { core }
    }
}

fn of_kind(kind: &str) -> PyResult<&'static Query> {
    match kind {
        "finish" => Ok(&queries::WORK_FINISH),
        "fail" => Ok(&queries::WORK_FAIL),
        "cancel" => Ok(&queries::WORK_CANCEL),
        other => Err(PyValueError::new_err(format!(
            "work cannot end by {other:?}"
        ))),
    }
}

pub(crate) fn changes(given: &[Bound<'_, Change>]) -> Vec<tag::Change> {
    given
        .iter()
        .map(|change| change.get().change.clone())
        .collect()
}

fn works(py: Python<'_>, leases: Vec<Arc<WorkLease>>) -> PyResult<Py<PyAny>> {
    let works = PyList::empty(py);
    for lease in leases {
        works.append(Py::new(py, Work::new(lease))?)?;
    }
    Ok(works.into_any().unbind())
}

/// None for each that ended, else its error.
fn verdicts(py: Python<'_>, outcomes: Vec<Result<()>>) -> PyResult<Py<PyAny>> {
    let verdicts = PyList::empty(py);
    for outcome in outcomes {
        match outcome {
            Ok(()) => verdicts.append(py.None())?,
            Err(error) => verdicts.append(to_python(py, error).into_value(py))?,
        }
    }
    Ok(verdicts.into_any().unbind())
}

#[pymethods]
impl Batches {
    /// Leases up to `limit` eligible machines: a list, empty when there are none.
    fn claim(
        &self,
        py: Python<'_>,
        session: &Session,
        process: &str,
        eligibility: &Eligibility,
        limit: usize,
    ) -> PyResult<Py<PyAny>> {
        let (lanes, declared) = (self.core.lanes(), &eligibility.declared);
        let claim = lanes.claim(session.state(), process, declared, limit);
        let leases = drive::run(py, claim)?;
        // What a handler raises that was held up by the call would make the caller lose what it returns.
        if let Err(raised) = py.check_signals() {
            if let Some(lane) = lanes.known_claims(session.state(), process, declared) {
                lane.runner.orphaned(Ok(leases));
                drop(drive::run(py, lane.runner.give_back()));
            }
            return Err(raised);
        }
        works(py, leases)
    }

    /// The same for asyncio. Leases that come for a future that was cancelled are given back.
    fn claim_async<'py>(
        &self,
        py: Python<'py>,
        session: &Session,
        process: &str,
        eligibility: &Eligibility,
        limit: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (lanes, declared) = (self.core.lanes(), &eligibility.declared);
        let usable = self.core.pool().check_usable();
        usable
            .and_then(|()| session.state().check())
            .map_err(|error| to_python(py, error))?;
        let (waiting, promise) = Promise::new(py)?;
        let handle = drive::runtime()?;
        let job = ClaimJob::new(limit);
        let known = lanes.known_claims(session.state(), process, declared);
        let full = match known {
            Some(lane) => {
                let told = lane.clone();
                lane.submit(
                    &handle,
                    job,
                    Box::new(move |outcome| tell(promise, outcome, told)),
                )
                .err()
                .map(|(job, tell)| (lane, job, tell))
            }
            None => {
                let (core, session) = (self.core.clone(), session.state().clone());
                let (process, declared) = (process.to_owned(), declared.clone());
                handle.spawn(async move {
                    match core.lanes().claims(&session, &process, &declared).await {
                        Ok(lane) => {
                            let outcome = caught(pin!(lane.call(core.pool().drive(), job))).await;
                            drop(tell(promise, outcome, lane));
                        }
                        Err(error) => promise.keep(|promise| Outcome {
                            promise,
                            outcome: Err(error),
                            convert: works,
                            orphaned: async {},
                        }),
                    }
                });
                None
            }
        };
        if let Some((lane, job, tell)) = full {
            // It waits for a place, for as long as that may take.
            let core = self.core.clone();
            handle.spawn(async move {
                let outcome = caught(pin!(lane.call(core.pool().drive(), job))).await;
                drop(tell(outcome));
            });
        }
        Ok(waiting)
    }

    /// The statements that claim by an eligibility: (claim, attend, verify, window_end).
    fn statements(
        &self,
        py: Python<'_>,
        eligibility: &Eligibility,
    ) -> PyResult<(String, String, String, String)> {
        let compiled = drive::run(py, self.core.lanes().compiled(&eligibility.declared))?;
        Ok((
            compiled.claim,
            compiled.attend,
            compiled.verify,
            compiled.window_end,
        ))
    }

    /// The statement of such an end with these changes.
    fn end_statement(
        &self,
        py: Python<'_>,
        kind: &str,
        changed: Vec<Bound<'_, Change>>,
    ) -> PyResult<String> {
        let (query, changed) = (of_kind(kind)?, changes(&changed));
        let shape = drive::run(py, self.core.lanes().shape(query, &changed))?;
        Ok(shape.1.sql.clone())
    }

    /// Gets ready to make these changes at an end of this kind with a callback.
    fn prepare(&self, py: Python<'_>, kind: &str, changed: Vec<Bound<'_, Change>>) -> PyResult<()> {
        let (query, changed) = (of_kind(kind)?, changes(&changed));
        drive::run(py, self.core.lanes().shape(query, &changed)).map(drop)
    }

    fn prepare_async<'py>(
        &self,
        py: Python<'py>,
        kind: &str,
        changed: Vec<Bound<'_, Change>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, query, changed) = (self.core.clone(), of_kind(kind)?, changes(&changed));
        let prepare = async move { core.lanes().shape(query, &changed).await.map(drop) };
        drive::spawn(py, prepare, |py, ()| Ok(py.None()))
    }

    /// Ends work: "finish", "fail" (with a cause, and a Backoff or None) or "cancel".
    #[pyo3(signature = (work, kind, changed, cause=None, backoff=None))]
    fn end(
        &self,
        py: Python<'_>,
        work: &Work,
        kind: &str,
        changed: Vec<Bound<'_, Change>>,
        cause: Option<&str>,
        backoff: Option<&Backoff>,
    ) -> PyResult<()> {
        let end = ending(py, work, kind, cause, backoff)?;
        let changed = changes(&changed);
        drive::run(py, self.core.lanes().end(end, changed))
    }

    #[pyo3(signature = (work, kind, changed, cause=None, backoff=None))]
    fn end_async<'py>(
        &self,
        py: Python<'py>,
        work: &Work,
        kind: &str,
        changed: Vec<Bound<'_, Change>>,
        cause: Option<&str>,
        backoff: Option<&Backoff>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut end = ending(py, work, kind, cause, backoff)?;
        // Whoever is cancelled from now on waits for how it ends, also before it has come to its queue.
        end.begin().map_err(|error| to_python(py, error))?;
        let (lanes, changed) = (self.core.lanes(), changes(&changed));
        self.core
            .pool()
            .check_usable()
            .map_err(|error| to_python(py, error))?;
        let Some(lane) = lanes.known_ends(end.ending(), &changed) else {
            let core = self.core.clone();
            let end = async move { core.lanes().end(end, changed).await };
            return drive::spawn(py, end, |py, ()| Ok(py.None()));
        };
        let job = EndJob::new(end, lanes::values(changed)).map_err(|error| to_python(py, error))?;
        let (waiting, promise) = Promise::new(py)?;
        let handle = drive::runtime()?;
        let tell = Box::new(move |outcome| {
            promise.keep(|promise| Outcome {
                promise,
                outcome,
                convert: |py: Python<'_>, ()| Ok(py.None()),
                orphaned: async {},
            });
            None
        });
        if let Err((job, tell)) = lane.submit(&handle, job, tell) {
            let core = self.core.clone();
            handle.spawn(async move {
                let outcome = caught(pin!(lane.call(core.pool().drive(), job))).await;
                drop(tell(outcome));
            });
        }
        Ok(waiting)
    }

    /// Waits for the end of `work` that is on its way: whether it has taken effect, or None when nobody knows.
    fn settled_async<'py>(&self, py: Python<'py>, work: &Work) -> PyResult<Bound<'py, PyAny>> {
        let lease = work.lease().clone();
        let settled = async move { Ok(lease.until_settled().await) };
        drive::spawn(py, settled, |py, ended: Option<bool>| ended.into_py_any(py))
    }

    /// Ends many: for each None, or the error that it would have raised alone.
    fn end_many(&self, py: Python<'_>, ends: Vec<GivenEnd<'_>>) -> PyResult<Py<PyAny>> {
        let (prepared, refused) = prepare(py, ends)?;
        let ended = drive::run(py, self.core.lanes().end_many(prepared))?;
        verdicts(py, merged(ended, refused))
    }

    fn end_many_async<'py>(
        &self,
        py: Python<'py>,
        ends: Vec<GivenEnd<'py>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (prepared, refused) = prepare(py, ends)?;
        let core = self.core.clone();
        let end = async move { Ok(merged(core.lanes().end_many(prepared).await?, refused)) };
        drive::spawn(py, end, verdicts)
    }
}

/// Ends that can be tried, with the changes of each.
type Prepared = Vec<(End, Vec<tag::Change>)>;
/// Leases on their way to the future that waits for them; given back when it does not any more.
struct Claimed {
    promise: Py<PyAny>,
    outcome: Result<Vec<Arc<WorkLease>>>,
    lane: Arc<Coalescer<Claims>>,
}

impl Completion for Claimed {
    fn promise(&self) -> &Py<PyAny> {
        &self.promise
    }

    fn settle(self: Box<Self>, py: Python<'_>) -> PyResult<()> {
        let promise = self.promise.clone_ref(py).into_bound(py);
        if is_done(&promise)? {
            self.orphan();
            return Ok(());
        }
        let outcome = match self.outcome {
            Ok(leases) => works(py, leases),
            Err(error) => Err(to_python(py, error)),
        };
        completion::tell(&promise, outcome)
    }

    fn orphan(self: Box<Self>) {
        let Claimed { outcome, lane, .. } = *self;
        lane.runner.orphaned(outcome);
        if let Ok(runtime) = drive::runtime() {
            runtime.spawn(async move { drop(lane.runner.give_back().await) });
        }
    }
}

type Leases = Result<Vec<Arc<WorkLease>>>;

fn tell(promise: Promise, outcome: Leases, lane: Arc<Coalescer<Claims>>) -> Option<Leases> {
    promise.keep(|promise| Claimed {
        promise,
        outcome,
        lane,
    });
    None
}

type Refused = Vec<Option<Error>>;

/// Those that can be tried, and for each given one the error if it cannot.
fn prepare(py: Python<'_>, ends: Vec<GivenEnd<'_>>) -> PyResult<(Prepared, Refused)> {
    let mut prepared = Vec::with_capacity(ends.len());
    let mut refused = Vec::with_capacity(ends.len());
    for (work, kind, changed, cause, backoff) in ends {
        let backoff = backoff.as_ref().map(|backoff| backoff.get());
        let made = crate::work::made(py, work.get(), &kind, cause.as_deref(), backoff)?;
        refused.push(match work.get().lease().end(made) {
            Ok(end) => {
                prepared.push((end, changes(&changed)));
                None
            }
            Err(error) => Some(error),
        });
    }
    Ok((prepared, refused))
}

fn merged(ended: Vec<Result<()>>, refused: Refused) -> Vec<Result<()>> {
    let mut ended = ended.into_iter();
    let outcome = |refused| match refused {
        Some(error) => Some(Err(error)),
        None => ended.next(),
    };
    refused.into_iter().filter_map(outcome).collect()
}

/// Adds the classes of this file to `bmdb._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Eligibility>()?;
    module.add_class::<Change>()?;
    module.add_class::<Batches>()
}
