//! Outcomes on their way to the asyncio futures that wait for them.

use std::future::Future;

use bmdb_core::error::Result;
use pyo3::intern;
use pyo3::prelude::*;

use crate::drive;
use crate::error::to_python;

/// An outcome that an asyncio future is still to be told.
pub(crate) trait Completion: Send {
    /// The future that waits for it.
    fn promise(&self) -> &Py<PyAny>;

    /// Tells the future, unless it is done already. Only on the thread of its event loop, while that runs.
    fn settle(self: Box<Self>, py: Python<'_>) -> PyResult<()>;

    /// The event loop was closed: nobody goes on with what was begun. Needs no GIL.
    fn orphan(self: Box<Self>);
}

/// What came of a future of the core's.
pub(crate) struct Outcome<T, C, O> {
    pub(crate) promise: Py<PyAny>,
    pub(crate) outcome: Result<T>,
    pub(crate) convert: C,
    pub(crate) orphaned: O,
}

impl<T, C, O> Completion for Outcome<T, C, O>
where
    T: Send,
    C: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send,
    O: Future<Output = ()> + Send + 'static,
{
    fn promise(&self) -> &Py<PyAny> {
        &self.promise
    }

    fn settle(self: Box<Self>, py: Python<'_>) -> PyResult<()> {
        let promise = self.promise.bind(py);
        if is_done(promise)? {
            return Ok(());
        }
        let outcome = match self.outcome {
            Ok(value) => (self.convert)(py, value),
            Err(error) => Err(to_python(py, error)),
        };
        tell(promise, outcome)
    }

    fn orphan(self: Box<Self>) {
        if let Ok(runtime) = drive::runtime() {
            drop(runtime.spawn(self.orphaned));
        }
    }
}

/// Whether nobody waits for it any more: it was cancelled.
pub(crate) fn is_done(promise: &Bound<'_, PyAny>) -> PyResult<bool> {
    promise
        .call_method0(intern!(promise.py(), "done"))?
        .is_truthy()
}

/// Tells a future that is not done.
pub(crate) fn tell(promise: &Bound<'_, PyAny>, outcome: PyResult<Py<PyAny>>) -> PyResult<()> {
    let py = promise.py();
    match outcome {
        Ok(value) => promise.call_method1(intern!(py, "set_result"), (value,))?,
        Err(error) => {
            promise.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?
        }
    };
    Ok(())
}
