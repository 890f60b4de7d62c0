//! Letting the core's futures run: on the calling thread without the GIL, or on a shared runtime for asyncio.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmdb_core::drive::{Drive, Interrupt, complete, on_main_thread};
use bmdb_core::error::Result;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::to_python;

/// How often a waiting main thread looks for signals.
const TICK: Duration = Duration::from_millis(50);

/// How long the thread that tells completions may take to end when the interpreter exits.
const EXIT_LIMIT: Duration = Duration::from_secs(1);

thread_local! {
    static INTERRUPT: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// What the signal handler raised on this thread.
pub(crate) fn take_interrupt() -> Option<PyErr> {
    INTERRUPT.with_borrow_mut(Option::take)
}

struct Signals;

impl Interrupt for Signals {
    fn tick(&self) -> Option<Duration> {
        on_main_thread().then_some(TICK)
    }

    fn interrupted(&self) -> bool {
        match Python::attach(|py| py.check_signals()) {
            Ok(()) => false,
            Err(error) => {
                INTERRUPT.set(Some(error));
                true
            }
        }
    }
}

/// The drive of sync calls.
pub(crate) fn caller() -> Drive {
    Drive::Caller(Arc::new(Signals))
}

/// Runs a future of a caller-driven connection to its end, without the GIL.
pub(crate) fn run<T, F>(py: Python<'_>, future: F) -> PyResult<T>
where
    F: Future<Output = Result<T>> + Send,
    T: Send,
{
    // Pinned here, so that only a reference is moved.
    let future = pin!(future);
    py.detach(|| complete(future))
        .map_err(|error| to_python(py, error))
}

/// A runtime belongs to the process that made it: a forked child makes its own.
static RUNTIME: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

fn runtime() -> PyResult<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::process::id();
    if let Some((owner, runtime)) = runtime.as_ref()
        && *owner == here
    {
        return Ok(runtime.handle().clone());
    }
    // The parent's threads do not exist here; its runtime cannot even be dropped.
    if let Some(inherited) = runtime.take() {
        std::mem::forget(inherited);
    }
    let made = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("bmdb-io")
        .enable_all()
        .build()
        .map_err(|error| {
            PyRuntimeError::new_err(format!("cannot start bmdb's I/O thread: {error}"))
        })?;
    let handle = made.handle().clone();
    *runtime = Some((here, made));
    Ok(handle)
}

type Completion = Box<dyn FnOnce(Python<'_>) + Send>;

/// A thread of a process, what it is told through (None: to end), and what tells that it has ended.
struct Completions {
    owner: u32,
    sender: Sender<Option<Completion>>,
    ended: Receiver<()>,
}

/// Completions are told by a thread of their own, so that waiting for the GIL never stops the I/O.
static COMPLETIONS: Mutex<Option<Completions>> = Mutex::new(None);

fn completions() -> PyResult<Sender<Option<Completion>>> {
    let mut completions = COMPLETIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::process::id();
    if let Some(running) = completions.as_ref()
        && running.owner == here
    {
        return Ok(running.sender.clone());
    }
    let (sender, receiver) = channel::<Option<Completion>>();
    let (ending, ended) = channel();
    std::thread::Builder::new()
        .name("bmdb-completions".to_owned())
        .spawn(move || {
            while let Ok(Some(first)) = receiver.recv() {
                let goes_on = Python::try_attach(|py| {
                    first(py);
                    loop {
                        match receiver.try_recv() {
                            Ok(Some(next)) => next(py),
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
    *completions = Some(Completions {
        owner: here,
        sender: sender.clone(),
        ended,
    });
    Ok(sender)
}

/// Ends the thread that tells completions, before the interpreter takes the GIL away for good: a thread that then waits
/// for it is ended from inside by Python, through frames of ours that nothing may unwind, and takes the process with it.
#[pyfunction]
pub(crate) fn stop_completions(py: Python<'_>) {
    let running = COMPLETIONS
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

/// Starts a future on the shared runtime and returns an asyncio future for its outcome.
///
/// `convert` runs with the GIL once the outcome is there. Cancelling the asyncio future does not stop the work: what
/// was begun comes to its own end, so that a connection is never left in the middle of an answer.
pub(crate) fn spawn<'py, T, F, C>(
    py: Python<'py>,
    future: F,
    convert: C,
) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
    C: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
{
    spawn_for(py, future, convert, async {})
}

/// The same; `orphaned` runs if the event loop was closed meanwhile, so that nobody can go on with what was begun.
pub(crate) fn spawn_for<'py, T, F, C, O>(
    py: Python<'py>,
    future: F,
    convert: C,
    orphaned: O,
) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
    C: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    O: Future<Output = ()> + Send + 'static,
{
    static GET_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let event_loop = GET_LOOP
        .import(py, "asyncio", "get_running_loop")?
        .call0()?;
    let waiting = event_loop.call_method0(intern!(py, "create_future"))?;
    let (event_loop, promise) = (event_loop.unbind(), waiting.clone().unbind());
    let completions = completions()?;
    runtime()?.spawn(async move {
        let outcome = future.await;
        let tell: Completion = Box::new(move |py| {
            let outcome = outcome
                .map_err(|error| to_python(py, error))
                .and_then(|value| convert(py, value));
            let (failed, value) = match outcome {
                Ok(value) => (false, value),
                Err(error) => (true, error.into_value(py).into_any()),
            };
            let Ok(settle) = pyo3::wrap_pyfunction!(settle, py) else {
                return;
            };
            let told = event_loop.call_method1(
                py,
                "call_soon_threadsafe",
                (settle, promise, failed, value),
            );
            if told.is_err()
                && let Ok(runtime) = runtime()
            {
                drop(runtime.spawn(orphaned));
            }
        });
        drop(completions.send(Some(tell)));
    });
    Ok(waiting)
}

#[pyfunction]
fn settle(promise: &Bound<'_, PyAny>, failed: bool, value: Bound<'_, PyAny>) -> PyResult<()> {
    let py = promise.py();
    if promise.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    let method = if failed {
        intern!(py, "set_exception")
    } else {
        intern!(py, "set_result")
    };
    promise.call_method1(method, (value,))?;
    Ok(())
}
