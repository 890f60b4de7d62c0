//! For event loops that cannot watch a file descriptor: a thread of its own tells them of each completion.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};

use crate::completion::Completion;

/// How long the thread may take to end when the interpreter exits.
const EXIT_LIMIT: Duration = Duration::from_secs(1);

/// An event loop, and what one of its futures is to be told.
pub(crate) type Message = (Py<PyAny>, Box<dyn Completion>);

/// A thread of a process, what it is given (None: to end), and what tells that it has ended.
struct Messenger {
    owner: u32,
    sender: Sender<Option<Message>>,
    ended: Receiver<()>,
}

/// A thread of its own, so that waiting for the GIL never stops the I/O.
static MESSENGER: Mutex<Option<Messenger>> = Mutex::new(None);

/// What to give messages to.
pub(crate) fn messenger() -> PyResult<Sender<Option<Message>>> {
    let mut messenger = MESSENGER.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::process::id();
    if let Some(running) = messenger.as_ref()
        && running.owner == here
    {
        return Ok(running.sender.clone());
    }
    let (sender, receiver) = channel::<Option<Message>>();
    let (ending, ended) = channel();
    std::thread::Builder::new()
        .name("bmdb-completions".to_owned())
        .spawn(move || {
            while let Ok(Some(first)) = receiver.recv() {
                let goes_on = Python::try_attach(|py| {
                    tell(py, first);
                    loop {
                        match receiver.try_recv() {
                            Ok(Some(next)) => tell(py, next),
                            Ok(None) => return false,
                            Err(_) => return true,
                        }
                    }
                });
                // None: the interpreter is going away; nobody waits any more.
                if goes_on != Some(true) {
                    break;
                }
            }
            let _ = ending.send(());
        })
        .map_err(|error| {
            PyRuntimeError::new_err(format!("cannot start bmdb's completion thread: {error}"))
        })?;
    *messenger = Some(Messenger {
        owner: here,
        sender: sender.clone(),
        ended,
    });
    Ok(sender)
}

fn tell(py: Python<'_>, (event_loop, completion): Message) {
    // A closed loop refuses it; then the delivery is dropped, which is all that is to be done.
    if let Ok(delivery) = Py::new(py, Delivery::new(completion)) {
        drop(event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (delivery,)));
    }
}

/// Ends the thread, before the interpreter takes the GIL away for good: a thread that then waits for it is ended from
/// inside by Python, through frames of ours that nothing may unwind, and takes the process with it.
#[pyfunction]
pub(crate) fn stop_completions(py: Python<'_>) {
    let running = MESSENGER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(running) = running.filter(|running| running.owner == std::process::id()) else {
        return;
    };
    drop(running.sender.send(None));
    // It may need the GIL to come to its end. A loop that does not take what it is told cannot hold up the exit for long.
    py.detach(move || {
        let _ = running.ended.recv_timeout(EXIT_LIMIT);
    });
}

/// One completion as a callback for `call_soon_threadsafe`. If it is dropped instead of called, the loop was closed.
#[pyclass(frozen, module = "bmdb._core")]
struct Delivery {
    owner: u32,
    completion: Mutex<Option<Box<dyn Completion>>>,
}

impl Delivery {
    fn new(completion: Box<dyn Completion>) -> Self {
        Delivery {
            owner: std::process::id(),
            completion: Mutex::new(Some(completion)),
        }
    }

    fn take(&self) -> Option<Box<dyn Completion>> {
        self.completion
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

#[pymethods]
impl Delivery {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.take()
            .map_or(Ok(()), |completion| completion.settle(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(completion) = self.completion.try_lock()
            && let Some(completion) = completion.as_ref()
        {
            visit.call(completion.promise())?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        if let Some(completion) = self.take() {
            completion.orphan();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(completion) = self.take() else {
            return;
        };
        if self.owner == std::process::id() {
            completion.orphan();
        } else {
            // What the parent began is the parent's to end.
            std::mem::forget(completion);
        }
    }
}
