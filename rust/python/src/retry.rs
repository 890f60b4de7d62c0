//! `bmdb_core::retry` and the classification of SQLSTATE codes, in strings and tuples.

use std::time::Duration;

use bmdb_core::retry::{Action, Event, Failure, Limits, Machine, Protocol, Verdict};
use bmdb_core::sqlstate;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The retry policy of one transaction: told what happened, it answers what to do. It does no I/O and has no clock.
///
/// `protocol` is "rollback" (PostgreSQL) or "savepoint" (CockroachDB); times are in seconds, and a `max_elapsed` of
/// None means no limit. `settles`: the driver can find out how a lost commit ended. ValueError for anything else.
#[pyclass(name = "RetryMachine", module = "bmdb._core")]
struct RetryMachine {
    machine: Machine,
}

#[pymethods]
impl RetryMachine {
    #[new]
    #[pyo3(signature = (protocol, max_retries=50, max_elapsed=Some(60.0), first_delay=0.002, max_delay=1.0, settles=false))]
    fn new(
        protocol: &str,
        max_retries: u32,
        max_elapsed: Option<f64>,
        first_delay: f64,
        max_delay: f64,
        settles: bool,
    ) -> PyResult<Self> {
        let protocol = match protocol {
            "rollback" => Protocol::Rollback,
            "savepoint" => Protocol::Savepoint,
            other => {
                return Err(PyValueError::new_err(format!(
                    "protocol must be 'rollback' or 'savepoint', not {other:?}"
                )));
            }
        };
        let limits = Limits {
            max_retries,
            max_elapsed: max_elapsed.map(|s| seconds("max_elapsed", s)).transpose()?,
            first_delay: seconds("first_delay", first_delay)?,
            max_delay: seconds("max_delay", max_delay)?,
        };
        Ok(Self {
            machine: Machine::new(protocol, limits, settles),
        })
    }

    /// The first action; called again later, the pending one.
    fn start<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let action = self.machine.start();
        describe(py, action, self.machine.attempts())
    }

    /// The action after `event`. `elapsed`: seconds since the start; `random`: uniform in [0, 1).
    ///
    /// Actions: ("begin", reconnect), ("run", attempt), ("commit",), ("rollback",), ("restart",), ("sleep", seconds),
    /// ("settle",), ("finish", verdict, attempts) with a verdict of "committed", "raise", "fail", "exhausted",
    /// "ambiguous" or "restart_failed". ValueError, and no move, when the event is unknown, lacks its failure, has one
    /// that does not belong, or does not answer the pending action.
    fn step<'py>(
        &mut self,
        py: Python<'py>,
        event: &str,
        failure: Option<&str>,
        elapsed: f64,
        random: f64,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let event = event_of(event, failure.map(failure_of).transpose()?)?;
        let elapsed = seconds("elapsed", elapsed)?;
        let action = self
            .machine
            .step(event, elapsed, random)
            .map_err(|refusal| PyValueError::new_err(refusal.to_string()))?;
        describe(py, action, self.machine.attempts())
    }

    /// How often the callback has been run, the pending run included.
    #[getter]
    fn attempts(&self) -> u32 {
        self.machine.attempts()
    }
}

/// An action as Python gets it; see `RetryMachine.step`.
pub(crate) fn describe(
    py: Python<'_>,
    action: Action,
    attempts: u32,
) -> PyResult<Bound<'_, PyTuple>> {
    match action {
        Action::Begin { reconnect } => ("begin", reconnect).into_pyobject(py),
        Action::Run { attempt } => ("run", attempt).into_pyobject(py),
        Action::Commit => ("commit",).into_pyobject(py),
        Action::Rollback => ("rollback",).into_pyobject(py),
        Action::Restart => ("restart",).into_pyobject(py),
        Action::Sleep(delay) => ("sleep", delay.as_secs_f64()).into_pyobject(py),
        Action::Settle => ("settle",).into_pyobject(py),
        Action::Finish(verdict) => ("finish", verdict_name(verdict), attempts).into_pyobject(py),
    }
}

/// "retryable", "disconnected", "overloaded", "ambiguous" or "permanent": what an error with this SQLSTATE means for
/// a transaction. `fatal`: its severity was FATAL or PANIC.
#[pyfunction]
#[pyo3(signature = (code, fatal=false))]
fn classify_sqlstate(code: &str, fatal: bool) -> &'static str {
    failure_name(sqlstate::classify(code, fatal))
}

/// A failure by its name.
pub(crate) fn failure_name(failure: Failure) -> &'static str {
    match failure {
        Failure::Retryable => "retryable",
        Failure::Disconnected => "disconnected",
        Failure::Overloaded => "overloaded",
        Failure::Ambiguous => "ambiguous",
        Failure::Permanent => "permanent",
    }
}

/// The failure of that name.
pub(crate) fn failure_of(name: &str) -> PyResult<Failure> {
    Ok(match name {
        "retryable" => Failure::Retryable,
        "disconnected" => Failure::Disconnected,
        "overloaded" => Failure::Overloaded,
        "ambiguous" => Failure::Ambiguous,
        "permanent" => Failure::Permanent,
        other => {
            return Err(PyValueError::new_err(format!("unknown failure {other:?}")));
        }
    })
}

/// The event of that name.
pub(crate) fn event_of(name: &str, failure: Option<Failure>) -> PyResult<Event> {
    Ok(match (name, failure) {
        ("begun", None) => Event::Begun,
        ("begin_failed", Some(failure)) => Event::BeginFailed(failure),
        ("returned", None) => Event::Returned,
        ("returned_after", Some(failure)) => Event::ReturnedAfter(failure),
        ("raised", failure) => Event::Raised(failure),
        ("committed", None) => Event::Committed,
        ("commit_failed", Some(failure)) => Event::CommitFailed(failure),
        ("rolled_back", None) => Event::RolledBack,
        ("restarted", None) => Event::Restarted,
        ("restart_failed", None) => Event::RestartFailed,
        ("slept", None) => Event::Slept,
        ("settled_committed", None) => Event::SettledCommitted,
        ("settled_aborted", None) => Event::SettledAborted,
        ("unsettled", None) => Event::Unsettled,
        (name, failure) => {
            let with = if failure.is_some() { "with" } else { "without" };
            return Err(PyValueError::new_err(format!(
                "there is no event {name:?} {with} a failure"
            )));
        }
    })
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Committed => "committed",
        Verdict::Raise => "raise",
        Verdict::Fail => "fail",
        Verdict::Exhausted { .. } => "exhausted",
        Verdict::Ambiguous => "ambiguous",
        Verdict::RestartFailed => "restart_failed",
    }
}

fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        PyValueError::new_err(format!(
            "{name} must be a number of seconds from 0 up, not {value}"
        ))
    })
}

/// Adds the classes and functions of this file to `bmdb._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RetryMachine>()?;
    module.add_function(wrap_pyfunction!(classify_sqlstate, module)?)
}
