//! The one place where the core's errors become Python's.

use bmdb_core::error::{Error, TransactionId};
use bmdb_core::retry::Failure;
use bmdb_core::sqlstate;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyModule, PyType};

use crate::drive;

static ERRORS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// A transaction of which nobody knows how it ended, with what tells that later.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Doubt {
    pub(crate) id: TransactionId,
}

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    let errors = ERRORS.get_or_try_init(py, || py.import("bmdb.errors").map(Bound::unbind))?;
    Ok(errors.bind(py).getattr(name)?.cast_into::<PyType>()?)
}

/// Makes the exception that tells of `error`.
pub(crate) fn to_python(py: Python<'_>, error: Error) -> PyErr {
    let exception = build(py, error).unwrap_or_else(|failure| failure);
    // Python chains what is raised in an `except` block by itself only if Python raises it.
    let handled = py
        .import(intern!(py, "sys"))
        .and_then(|sys| sys.call_method0(intern!(py, "exception")));
    if let Ok(handled) = handled
        && !handled.is_none()
        && !handled.is(exception.value(py))
    {
        // Best effort: without it only the chain is shorter.
        let _ = exception
            .value(py)
            .setattr(intern!(py, "__context__"), handled);
    }
    exception
}

fn build(py: Python<'_>, error: Error) -> PyResult<PyErr> {
    let text = error.to_string();
    let plain = |name: &str, text: String| -> PyResult<PyErr> {
        Ok(PyErr::from_value(class(py, name)?.call1((text,))?))
    };
    Ok(match error {
        Error::Value {
            out_of_range: true, ..
        } => PyValueError::new_err(text),
        Error::Value { .. } => PyTypeError::new_err(text),
        Error::Config(_) => plain("ConfigError", text)?,
        Error::ConnectionFailed(_) | Error::PoolExhausted(_) | Error::TimedOut(_) => {
            plain("ConnectionFailedError", text)?
        }
        Error::SessionExpired(_) => plain("SessionExpiredError", text)?,
        Error::WorkConflict(_) => plain("WorkConflictError", text)?,
        Error::WorkState(_) => plain("WorkStateError", text)?,
        Error::AlreadyCommitted(_) => plain("AlreadyCommittedError", text)?,
        Error::Panicked(_) => plain("Error", text)?,
        Error::LeaseLost(_) => plain("LeaseLostError", text)?,
        Error::Migration(_) => plain("MigrationError", text)?,
        Error::Database(db) => {
            let keywords = [
                ("constraint", db.constraint.clone()),
                ("detail", db.detail.clone()),
                ("hint", db.hint.clone()),
                ("table", db.table.clone()),
            ]
            .into_py_dict(py)?;
            let arguments = (db.message.clone(), db.sqlstate.clone());
            PyErr::from_value(class(py, "DatabaseError")?.call(arguments, Some(&keywords))?)
        }
        Error::AmbiguousCommit { transaction, .. } => {
            let arguments = (
                text,
                transaction.xid,
                transaction.timeline,
                transaction.incarnation,
            );
            let exception = class(py, "AmbiguousCommitError")?.call1(arguments)?;
            let doubt = Doubt { id: *transaction };
            exception.setattr(intern!(py, "_doubt"), Py::new(py, doubt)?)?;
            PyErr::from_value(exception)
        }
        Error::RetriesExhausted { attempts, last } => {
            let exception =
                PyErr::from_value(class(py, "RetriesExhaustedError")?.call1((text, attempts))?);
            if let Some(last) = last {
                exception.set_cause(py, Some(build(py, *last)?));
            }
            exception
        }
        Error::TransactionRestart { cause, .. } => {
            let exception = plain("TransactionRestartError", text)?;
            exception.set_cause(py, Some(build(py, *cause)?));
            exception
        }
        Error::Interrupted => {
            drive::take_interrupt().unwrap_or_else(|| PyKeyboardInterrupt::new_err(()))
        }
        Error::InterruptedCommit { committed } => {
            let exception =
                drive::take_interrupt().unwrap_or_else(|| PyKeyboardInterrupt::new_err(()));
            let value = exception.value(py);
            value.setattr(intern!(py, "committed"), committed)?;
            let told = match committed {
                Some(true) => "the transaction being committed is committed",
                Some(false) => "the transaction being committed is rolled back",
                None => "whether the transaction being committed is committed is not known",
            };
            value.call_method1(intern!(py, "add_note"), (told,))?;
            exception
        }
    })
}

/// What an exception's chain of causes says about the database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    /// What the database error in it means for the transaction; `None` without one.
    pub(crate) failure: Option<Failure>,
    /// It only says that the transaction is aborted: something before it did that.
    pub(crate) only_aborted: bool,
}

/// Looks for database errors in an exception's chain of causes.
///
/// What ends a task or the program (CancelledError, KeyboardInterrupt, SystemExit) is never taken for a conflict, even if
/// it came while one was handled. Otherwise the chain is followed through `__cause__` and `__context__`, so an exception
/// that wraps a retryable error counts as one. psycopg's errors count too: they carry a `sqlstate`.
pub(crate) fn failure_in_chain(py: Python<'_>, exception: &Bound<'_, PyAny>) -> PyResult<Chain> {
    if !exception.is_instance_of::<PyException>() {
        return Ok(Chain {
            failure: None,
            only_aborted: false,
        });
    }
    let broken = class(py, "ConnectionFailedError")?;
    let mut pending = vec![exception.clone()];
    let mut seen: Vec<*mut pyo3::ffi::PyObject> = Vec::new();
    let mut found = None;
    let mut only_aborted = false;
    while let Some(link) = pending.pop() {
        if link.is_none() || seen.contains(&link.as_ptr()) {
            continue;
        }
        seen.push(link.as_ptr());
        let failure = if link.is_instance(&broken)? {
            Some(Failure::Disconnected)
        } else {
            let code = link.getattr(intern!(py, "sqlstate"));
            match code.and_then(|code| code.extract::<Option<String>>()) {
                Ok(Some(code)) => {
                    only_aborted |= code == sqlstate::IN_FAILED_SQL_TRANSACTION;
                    Some(sqlstate::classify(&code, false))
                }
                // One that psycopg found itself: a connection that broke, unless it turns out to be whole. What caused
                // it may say more.
                Ok(None) => {
                    found = found.or(Some(Failure::Disconnected));
                    None
                }
                Err(_) => None,
            }
        };
        match failure {
            Some(failure @ (Failure::Retryable | Failure::Disconnected)) => {
                return Ok(Chain {
                    failure: Some(failure),
                    only_aborted: false,
                });
            }
            Some(failure) => found = found.or(Some(failure)),
            None => {}
        }
        for attribute in [intern!(py, "__context__"), intern!(py, "__cause__")] {
            pending.push(link.getattr(attribute)?);
        }
    }
    Ok(Chain {
        failure: found,
        only_aborted,
    })
}
