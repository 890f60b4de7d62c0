//! One way for each event loop on which all its completions arrive, many at a time.
//!
//! What waits in asyncio is told on its loop's own thread: outcomes queue here, one byte through a socket pair wakes the
//! loop, and its reader callback settles all that have come by then. The I/O thread never waits for the GIL for this.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use crate::completion::Completion;

/// How long a busy loop may keep the GIL from other threads, as Python's own switch interval is by default.
const SWITCH: Duration = Duration::from_millis(5);

/// Not asked for so long, a loop has waited without the GIL.
const LULL: Duration = Duration::from_millis(25);

/// Long enough for a thread that waits for the GIL to wake up and take it.
const RELEASE: Duration = Duration::from_micros(20);

/// What the loop's thread and the I/O thread share.
pub(crate) struct Queue {
    /// The process that may use it. In a forked child even the lock below may be held for ever.
    owner: u32,
    event_loop: Py<PyWeakrefReference>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Box<dyn Completion>>,
    /// Wakes the loop; None once that was closed.
    waker: Option<UnixStream>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a completion, from any thread and without the GIL.
    pub(crate) fn push(&self, completion: Box<dyn Completion>) {
        let mut state = self.state();
        let State { waiting, waker } = &mut *state;
        let Some(waker) = waker else {
            drop(state);
            completion.orphan();
            return;
        };
        waiting.push(completion);
        // The loop reads the byte before it takes the queue, so what finds others in it needs none of its own.
        if waiting.len() == 1 {
            while matches!(waker.write(&[1]), Err(error) if error.kind() == ErrorKind::Interrupted)
            {
            }
        }
    }

    fn serves(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        self.owner == std::process::id()
            && self
                .event_loop
                .bind(event_loop.py())
                .upgrade()
                .is_some_and(|known| known.is(event_loop))
    }
}

/// The queues of the event loops that have one, by the addresses of the loops. Only locked with the GIL held, and nothing
/// that runs Python happens meanwhile: so no other thread holds it when a process forks.
static QUEUES: LazyLock<Mutex<HashMap<usize, Arc<Queue>>>> = LazyLock::new(Mutex::default);

fn queues() -> MutexGuard<'static, HashMap<usize, Arc<Queue>>> {
    QUEUES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reader callback of one event loop, held by that loop alone: it goes when the loop is closed or dropped.
#[pyclass(frozen, module = "bmdb._core")]
struct Bridge {
    address: usize,
    queue: Arc<Queue>,
    reader: UnixStream,
    /// When other threads last had a chance to get the GIL.
    released: Mutex<Instant>,
}

/// The queue of the running `event_loop`. None: it cannot watch a file descriptor, or none is left.
pub(crate) fn queue_of(event_loop: &Bound<'_, PyAny>) -> PyResult<Option<Arc<Queue>>> {
    let known = queues().get(&address_of(event_loop)).cloned();
    if let Some(queue) = known.filter(|queue| queue.serves(event_loop)) {
        return Ok(Some(queue));
    }
    match open(event_loop) {
        Ok(queue) => Ok(Some(queue)),
        Err(error) if error.is_instance_of::<PyException>(event_loop.py()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn address_of(event_loop: &Bound<'_, PyAny>) -> usize {
    event_loop.as_ptr() as usize
}

fn open(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Queue>> {
    static CONTEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = event_loop.py();
    let (reader, waker) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    waker.set_nonblocking(true)?;
    let queue = Arc::new(Queue {
        owner: std::process::id(),
        event_loop: PyWeakrefReference::new(event_loop)?.unbind(),
        state: Mutex::new(State {
            waiting: Vec::new(),
            waker: Some(waker),
        }),
    });
    let fd = reader.as_raw_fd();
    let address = address_of(event_loop);
    let bridge = Bridge {
        address,
        queue: queue.clone(),
        reader,
        released: Mutex::new(Instant::now()),
    };
    // In a context of its own: the loop would keep the values of whoever happens to call first.
    let context = CONTEXT.import(py, "contextvars", "Context")?.call0()?;
    let add_reader = event_loop.getattr(intern!(py, "add_reader"))?;
    context.call_method1(intern!(py, "run"), (add_reader, fd, bridge))?;
    let replaced = queues().insert(address, queue.clone());
    drop(replaced);
    Ok(queue)
}

impl Bridge {
    /// Lets other threads have the GIL now and then. A loop with always something to do lets go of it at each of its
    /// looks at the selector, but for less time than it takes to wake up; and since Python's interval starts anew at each
    /// of these, those who wait would not ask for it either, for seconds.
    fn release(&self, py: Python<'_>) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let since = released.elapsed();
        if since < SWITCH {
            return;
        }
        if since < LULL {
            py.detach(|| std::thread::sleep(RELEASE));
        }
        *released = Instant::now();
    }

    /// Ends it: what is queued has nobody to be told, and neither has what comes later.
    fn close(&self) {
        if self.queue.owner != std::process::id() {
            return;
        }
        let removed = {
            let mut queues = queues();
            match queues.get(&self.address) {
                Some(queue) if Arc::ptr_eq(queue, &self.queue) => queues.remove(&self.address),
                _ => None,
            }
        };
        drop(removed);
        let state = std::mem::take(&mut *self.queue.state());
        for completion in state.waiting {
            completion.orphan();
        }
    }
}

#[pymethods]
impl Bridge {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        if self.queue.owner != std::process::id() {
            return Ok(());
        }
        self.release(py);
        let mut bytes = [0; 64];
        while matches!((&self.reader).read(&mut bytes), Err(error) if error.kind() == ErrorKind::Interrupted)
        {
        }
        let completions = std::mem::take(&mut self.queue.state().waiting);
        // All are told, whatever comes of one, a Ctrl-C above all.
        let mut told = Ok(());
        for completion in completions {
            told = told.and(completion.settle(py));
        }
        told
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if self.queue.owner != std::process::id() {
            return Ok(());
        }
        // Should the other thread hold it, the queue is not garbage.
        if let Ok(state) = self.queue.state.try_lock() {
            for completion in &state.waiting {
                visit.call(completion.promise())?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.close();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.close();
        if self.queue.owner != std::process::id() {
            // The parent's: what waits in it must not even be dropped here.
            std::mem::forget(self.queue.clone());
        }
    }
}
