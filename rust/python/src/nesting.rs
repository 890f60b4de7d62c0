//! `bmdb._core.Nesting`: marks in a context that a transaction is running. Native, since Python may interrupt a context manager of its
//! own between marking and the block, and the mark would then stay for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bmdb_core::error::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::error::to_python;

/// Marks that a transaction of a connection is running in this context, so that another inside it is refused.
///
/// A transaction inside another's callback would wait for a second connection while holding the first, and would not be part of it.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Nesting {
    owner: Py<PyAny>,
    active: AtomicBool,
    before: Mutex<Option<Py<Nesting>>>,
}

impl Nesting {
    fn outer(&self, py: Python<'_>) -> Option<Py<Nesting>> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.as_ref().map(|outer| outer.clone_ref(py))
    }
}

/// The innermost one of a context, a ContextVar.
fn current(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CURRENT
        .get_or_try_init(py, || {
            let class = py.import("contextvars")?.getattr("ContextVar")?;
            Ok::<_, PyErr>(class.call1(("bmdb_transaction",))?.unbind())
        })
        .map(|current| current.bind(py))
}

#[pymethods]
impl Nesting {
    #[new]
    fn new(owner: Py<PyAny>) -> Self {
        Nesting {
            owner,
            active: AtomicBool::new(false),
            before: Mutex::new(None),
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let py = slf.py();
        let current = current(py)?;
        let innermost: Option<Py<Nesting>> =
            current.call_method1("get", (py.None(),))?.extract()?;
        let mut outer = innermost.as_ref().map(|outer| outer.clone_ref(py));
        while let Some(one) = outer {
            let one = one.get();
            if one.active.load(Ordering::Acquire) && one.owner.is(&slf.get().owner) {
                let text = "a transaction inside another one's callback: use the q that the callback was given, or do this \
                            after it has returned";
                return Err(to_python(py, Error::WorkState(text.to_owned())));
            }
            outer = one.outer(py);
        }
        *slf.get()
            .before
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = innermost;
        slf.get().active.store(true, Ordering::Release);
        current.call_method1("set", (&slf,))?;
        Ok(slf)
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.active.store(false, Ordering::Release);
        let before = self
            .before
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        current(py)?.call_method1("set", (before,))?;
        Ok(())
    }
}
