//! The canary: asks for the GIL about four times a second and measures how long it has to wait.
//!
//! The heartbeat needs no Python, so a session lives on while C code holds the GIL and no Python runs, be it for hours. Two
//! threads for each OS process, while sessions are open: one asks for the GIL and tells what it waited; the other needs
//! no GIL, and ends the sessions that asked for it while the first still waits. It is there only if any did.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bmdb_core::events::{Event, Level};
use bmdb_core::lease::Loss;
use bmdb_core::metrics::Metrics;
use bmdb_core::session::SessionState;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(250);

/// A process that was stopped and continued has waited long, too, but has its answer before this has passed.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// How long the exit of the interpreter waits for the threads to end. Only a question that is still open makes it wait,
/// and where the GIL is that hard to get the exit must wait for it, too; a thread that asks beyond that is a crash.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

/// Frames told of the main thread's stack, the innermost.
const FRAMES: usize = 30;

/// How a session wants its interpreter watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// From so long a wait on there is a warning.
    warn: Option<Duration>,
    /// From so long a wait on the session is lost.
    max: Option<Duration>,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Policy {
    type Error = PyErr;

    /// Two numbers of seconds, or None.
    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let (warn, max): (Option<f64>, Option<f64>) = given.extract()?;
        let limit = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| PyValueError::new_err(format!("{seconds} is not a number of seconds")))
        };
        Ok(Policy {
            warn: warn.map(limit).transpose()?,
            max: max.map(limit).transpose()?,
        })
    }
}

struct Watched {
    session: Weak<SessionState>,
    metrics: Arc<Metrics>,
    policy: Policy,
}

impl Watched {
    /// The session, while it lives.
    fn living(&self) -> Option<Arc<SessionState>> {
        self.session
            .upgrade()
            .filter(|session| session.loss().is_none())
    }
}

#[derive(Default)]
struct State {
    watched: Vec<Watched>,
    /// Since when the first thread has been waiting for the GIL.
    asking: Option<Instant>,
    asker_runs: bool,
    sentry_runs: bool,
    stop: bool,
}

#[derive(Default)]
struct Canary {
    state: Mutex<State>,
    changed: Condvar,
}

/// Threads belong to the process that made them: a forked child makes its own. Locked only with the GIL held, so that
/// no other thread holds it when Python forks.
static CANARY: Mutex<Option<(u32, Arc<Canary>)>> = Mutex::new(None);

fn here() -> Arc<Canary> {
    let mut canary = CANARY.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if let Some((owner, canary)) = canary.as_ref()
        && *owner == process
    {
        return canary.clone();
    }
    if let Some(inherited) = canary.take() {
        // Its lock may be held by a thread that does not exist here.
        std::mem::forget(inherited);
    }
    let made = Arc::new(Canary::default());
    *canary = Some((process, made.clone()));
    made
}

/// Watches the interpreter for this session from now on, until it ends. To be called with the GIL held.
pub(crate) fn watch(
    _: Python<'_>,
    session: &Arc<SessionState>,
    metrics: &Arc<Metrics>,
    policy: Policy,
) {
    if policy.warn.is_none() && policy.max.is_none() {
        return;
    }
    let canary = here();
    let mut state = canary.lock();
    state.stop = false;
    state.watched.push(Watched {
        session: Arc::downgrade(session),
        metrics: metrics.clone(),
        policy,
    });
    let mut failed = false;
    if !state.asker_runs {
        state.asker_runs = spawn("bmdb-canary", &canary, Canary::ask);
        failed |= !state.asker_runs;
    }
    if policy.max.is_some() && !state.sentry_runs {
        state.sentry_runs = spawn("bmdb-sentry", &canary, Canary::stand_sentry);
        failed |= !state.sentry_runs;
    }
    drop(state);
    canary.changed.notify_all();
    if failed {
        let message = "the interpreter is not watched for stalls: no thread could be started";
        session
            .events()
            .tell(Level::Warning, "interpreter", message);
    }
}

fn spawn(name: &str, canary: &Arc<Canary>, run: fn(&Canary)) -> bool {
    let canary = canary.clone();
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || run(&canary)).is_ok()
}

/// Ends the threads, for the exit of the interpreter: none may ask for the GIL when that is gone.
#[pyfunction]
pub(crate) fn stop_canary(py: Python<'_>) {
    let canary = here();
    py.detach(|| {
        let mut state = canary.lock();
        state.stop = true;
        canary.changed.notify_all();
        // Out of time, the exit goes on all the same.
        drop(
            canary
                .changed
                .wait_timeout_while(state, EXIT_LIMIT, |state| {
                    state.asker_runs || state.sentry_runs
                }),
        );
    });
}

impl Canary {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, limit)
            .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }

    /// The first thread.
    fn ask(&self) {
        loop {
            let mut state = self.lock();
            let next = Instant::now() + PAUSE;
            loop {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() || state.stop {
                    break;
                }
                state = self.pause(state, left);
            }
            let before = state.watched.len();
            state.watched.retain(|watched| watched.living().is_some());
            if state.watched.len() < before {
                // The other may have nobody left to stand for.
                self.changed.notify_all();
            }
            if state.stop || state.watched.is_empty() {
                break self.asker_ends(state);
            }
            let since = Instant::now();
            state.asking = Some(since);
            drop(state);
            let answered = Python::try_attach(|py| self.answered(py, since.elapsed()));
            if answered.is_none() {
                // The interpreter is going away.
                break self.asker_ends(self.lock());
            }
        }
    }

    fn asker_ends(&self, mut state: MutexGuard<'_, State>) {
        state.asking = None;
        state.asker_runs = false;
        drop(state);
        self.changed.notify_all();
    }

    /// The GIL is had after such a wait: whoever held it stands where it gave it up.
    fn answered(&self, py: Python<'_>, waited: Duration) {
        let mut state = self.lock();
        state.asking = None;
        let mut told: Vec<&Arc<Metrics>> = Vec::new();
        let mut warned = None;
        for watched in &state.watched {
            if !told.iter().any(|told| Arc::ptr_eq(told, &watched.metrics)) {
                watched.metrics.interpreter_stall.observe(waited);
                told.push(&watched.metrics);
            }
            // One listener is enough.
            if warned.is_none() && watched.policy.warn.is_some_and(|warn| waited >= warn) {
                warned = watched.living();
            }
        }
        drop(state);
        let Some(session) = warned else { return };
        let stack = main_stack(py).unwrap_or_else(|_| "  (its stack cannot be had)\n".to_owned());
        session.events().push(Event {
            level: Level::Warning,
            source: "interpreter",
            session: None,
            lost: false,
            lease: None,
            subject: None,
            message: format!(
                "no Python ran for {:.1} s: something held the GIL; the main thread is at\n{}",
                waited.as_secs_f64(),
                stack.trim_end()
            ),
        });
    }

    /// The second thread.
    fn stand_sentry(&self) {
        let mut state = self.lock();
        loop {
            let limits = |state: &State| -> Option<Duration> {
                let living = state
                    .watched
                    .iter()
                    .filter(|watched| watched.living().is_some());
                living.filter_map(|watched| watched.policy.max).min()
            };
            let Some(shortest) = limits(&state).filter(|_| !state.stop) else {
                state.sentry_runs = false;
                drop(state);
                self.changed.notify_all();
                return;
            };
            // Should a wait begin right after this look, it is not too long before the next.
            let waited = state.asking.map_or(Duration::ZERO, |since| since.elapsed());
            let left = shortest.saturating_sub(waited);
            if !left.is_zero() {
                state = self.pause(state, left);
                continue;
            }
            let asking = state.asking;
            let end = Instant::now() + SECOND_LOOK;
            while state.asking == asking && Instant::now() < end && !state.stop {
                state = self.pause(state, SECOND_LOOK);
            }
            if state.asking == asking {
                state = self.end_sessions(state, waited);
            }
        }
    }

    fn end_sessions<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        waited: Duration,
    ) -> MutexGuard<'a, State> {
        let over: Vec<(Arc<SessionState>, Duration)> = state
            .watched
            .iter()
            .filter_map(|watched| {
                let limit = watched.policy.max.filter(|max| waited >= *max)?;
                Some((watched.living()?, limit))
            })
            .collect();
        drop(state);
        for (session, limit) in over {
            session.lose(Loss::InterpreterStalled { limit });
        }
        self.lock()
    }
}

fn main_stack(py: Python<'_>) -> PyResult<String> {
    let threads = py.import(intern!(py, "threading"))?;
    let main = threads
        .call_method0(intern!(py, "main_thread"))?
        .getattr(intern!(py, "ident"))?;
    let frames = py
        .import(intern!(py, "sys"))?
        .call_method0(intern!(py, "_current_frames"))?;
    let lines = py.import(intern!(py, "traceback"))?.call_method1(
        intern!(py, "format_stack"),
        (frames.get_item(main)?, FRAMES),
    )?;
    PyString::new(py, "")
        .call_method1(intern!(py, "join"), (lines,))?
        .extract()
}
