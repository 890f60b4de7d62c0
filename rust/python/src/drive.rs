//! Letting the core's futures run: on the calling thread without the GIL, or on a shared runtime for asyncio.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmdb_core::drive::{Drive, Interrupt, complete, on_main_thread};
use bmdb_core::error::Result;
use bmdb_core::panics::caught;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::runtime::{Builder, Handle, Runtime};

#[cfg(unix)]
use crate::bridge;
use crate::completion::{Completion, Outcome};
use crate::error::to_python;
use crate::messenger::{self, Message};

/// How often a waiting main thread looks for signals.
const TICK: Duration = Duration::from_millis(50);

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
    py.detach(|| complete(caught(pin!(future))))
        .map_err(|error| to_python(py, error))
}

// Exclusively, as a receiver is nothing to be shared.
fn waited<T>(outcome: &mut Receiver<T>) -> std::result::Result<T, RecvTimeoutError> {
    outcome.recv_timeout(TICK)
}

/// Runs a future of a connection that asyncio calls drive to its end, on a thread that may wait. Signals are looked for as ever.
pub(crate) fn run_on_runtime<T, F>(py: Python<'_>, future: F) -> PyResult<T>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let (told, mut outcome) = std::sync::mpsc::sync_channel(1);
    let task = runtime()?.spawn(async move {
        // Nobody listens any more after a signal.
        drop(told.send(caught(pin!(future)).await));
    });
    loop {
        match py.detach(|| waited(&mut outcome)) {
            Ok(outcome) => return outcome.map_err(|error| to_python(py, error)),
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| task.abort())?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err("bmdb's I/O thread has failed"));
            }
        }
    }
}

/// A runtime belongs to the process that made it: a forked child makes its own.
static RUNTIME: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

pub(crate) fn runtime() -> PyResult<Handle> {
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

/// The way of a completion to its event loop.
enum Route {
    #[cfg(unix)]
    Bridge(Arc<bridge::Queue>),
    Messenger(Sender<Option<Message>>, Py<PyAny>),
}

impl Route {
    fn to(event_loop: &Bound<'_, PyAny>) -> PyResult<Route> {
        #[cfg(unix)]
        if let Some(queue) = bridge::queue_of(event_loop)? {
            return Ok(Route::Bridge(queue));
        }
        let messenger = messenger::messenger()?;
        Ok(Route::Messenger(messenger, event_loop.clone().unbind()))
    }

    fn send(self, completion: Box<dyn Completion>) {
        match self {
            #[cfg(unix)]
            Route::Bridge(queue) => queue.push(completion),
            // Nobody takes it any more when the interpreter exits.
            Route::Messenger(messenger, event_loop) => {
                drop(messenger.send(Some((event_loop, completion))));
            }
        }
    }
}

/// An asyncio future that is told its outcome from anywhere.
pub(crate) struct Promise {
    route: Route,
    promise: Py<PyAny>,
}

impl Promise {
    /// One of the running event loop, with what to wait for.
    pub(crate) fn new(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, Promise)> {
        static GET_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let event_loop = GET_LOOP
            .import(py, "asyncio", "get_running_loop")?
            .call0()?;
        let waiting = event_loop.call_method0(intern!(py, "create_future"))?;
        let route = Route::to(&event_loop)?;
        let promise = waiting.clone().unbind();
        Ok((waiting, Promise { route, promise }))
    }

    /// Sends what `make` makes of the future.
    pub(crate) fn keep<C: Completion + 'static>(self, make: impl FnOnce(Py<PyAny>) -> C) {
        self.route.send(Box::new(make(self.promise)));
    }
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
    let (waiting, promise) = Promise::new(py)?;
    runtime()?.spawn(async move {
        let outcome = caught(pin!(future)).await;
        promise.keep(|promise| Outcome {
            promise,
            outcome,
            convert,
            orphaned,
        });
    });
    Ok(waiting)
}
