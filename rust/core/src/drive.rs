//! Who drives the I/O: the calling thread, or a shared runtime.
//!
//! Everything in this crate that waits is an `async fn`. Under [`Drive::Runtime`] it awaits as usual. Under
//! [`Drive::Caller`] each connection has a small runtime of its own and every wait happens *inside* the poll, on the
//! thread that called: no hop to another thread and back. Such a future is ready at its first poll; [`complete`]
//! takes its value.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};

/// Asked now and then by a thread that waits, so that a signal can end the wait.
pub trait Interrupt: Send + Sync {
    /// How often to ask on this thread; `None` where nothing can interrupt it.
    fn tick(&self) -> Option<Duration>;
    /// True when the wait shall end.
    fn interrupted(&self) -> bool;
}

/// Whether this is the thread that Python runs signal handlers on. Where that cannot be told, every thread may be.
#[must_use]
pub fn on_main_thread() -> bool {
    #[cfg(target_os = "linux")]
    return rustix::thread::gettid() == rustix::process::getpid();
    #[cfg(not(target_os = "linux"))]
    true
}

/// Who drives the I/O.
#[derive(Clone)]
pub enum Drive {
    /// The calling thread does, asking the interrupt now and then.
    Caller(Arc<dyn Interrupt>),
    /// The tokio runtime that polls us does.
    Runtime,
}

/// A connection's own runtime, present under [`Drive::Caller`].
#[derive(Debug)]
pub struct Reactor(Option<Runtime>);

impl Reactor {
    /// Lets a background task make progress whenever this reactor runs something.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match &self.0 {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        }
    }

    /// Runs something short to its end on the calling thread, deaf to interrupts. `None` where there is no runtime.
    pub fn block_on_quietly<F: Future>(&self, future: F) -> Option<F::Output> {
        self.0.as_ref().map(|runtime| runtime.block_on(future))
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // A name being looked up on the runtime's blocking pool must not hold anybody up.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drive {
    /// A reactor for a new connection.
    pub fn reactor(&self) -> Result<Reactor> {
        match self {
            Drive::Runtime => Ok(Reactor(None)),
            Drive::Caller(_) => Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()
                .map(|runtime| Reactor(Some(runtime)))
                .map_err(|e| {
                    Error::ConnectionFailed(format!(
                        "cannot start an event loop for a connection: {e}"
                    ))
                }),
        }
    }

    /// Runs I/O of the connection that `reactor` belongs to, for `limit` at most.
    pub async fn io<F: Future>(
        &self,
        reactor: &Reactor,
        limit: Option<Duration>,
        what: &str,
        io: F,
    ) -> Result<F::Output> {
        let limited = async {
            match limit {
                Some(limit) => tokio::time::timeout(limit, io)
                    .await
                    .map_err(|_| timed_out(what, limit)),
                None => Ok(io.await),
            }
        };
        match (self, &reactor.0) {
            (Drive::Caller(interrupt), Some(runtime)) => match interrupt.tick() {
                None => runtime.block_on(limited),
                Some(tick) => runtime.block_on(async {
                    let mut limited = pin!(limited);
                    loop {
                        match tokio::time::timeout(tick, &mut limited).await {
                            Ok(outcome) => return outcome,
                            Err(_) if interrupt.interrupted() => return Err(Error::Interrupted),
                            Err(_) => {}
                        }
                    }
                }),
            },
            _ => limited.await,
        }
    }

    /// Waits for something that needs no I/O (a free connection), for `limit` at most.
    pub async fn wait<F: Future>(
        &self,
        limit: Duration,
        what: &str,
        future: F,
    ) -> Result<F::Output> {
        match self {
            Drive::Runtime => tokio::time::timeout(limit, future)
                .await
                .map_err(|_| timed_out(what, limit)),
            Drive::Caller(interrupt) => {
                park(interrupt.as_ref(), limit, future)?.ok_or_else(|| timed_out(what, limit))
            }
        }
    }

    /// Sleeps.
    pub async fn sleep(&self, duration: Duration) -> Result<()> {
        match self {
            Drive::Runtime => tokio::time::sleep(duration).await,
            Drive::Caller(interrupt) => {
                park(interrupt.as_ref(), duration, std::future::pending::<()>())?;
            }
        }
        Ok(())
    }
}

/// Takes the value of a future made for [`Drive::Caller`].
///
/// # Panics
/// If the future waits for something that is not driven by the caller, which is a bug of this crate.
pub fn complete<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => {
            unreachable!("everything that waits under Drive::Caller does so inside its poll")
        }
    }
}

fn timed_out(what: &str, limit: Duration) -> Error {
    Error::TimedOut(format!(
        "{what} took longer than {:.1} s",
        limit.as_secs_f64()
    ))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Parks this thread until the future is ready; `None` when `limit` has passed first.
fn park<F: Future>(
    interrupt: &dyn Interrupt,
    limit: Duration,
    future: F,
) -> Result<Option<F::Output>> {
    let mut future: Pin<&mut F> = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let end = Instant::now() + limit;
    let tick = interrupt.tick();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Ok(Some(value));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        std::thread::park_timeout(tick.map_or(left, |tick| tick.min(left)));
        if tick.is_some() && interrupt.interrupted() {
            return Err(Error::Interrupted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Flag(AtomicBool);

    impl Interrupt for Flag {
        fn tick(&self) -> Option<Duration> {
            Some(Duration::from_millis(10))
        }
        fn interrupted(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn caller(interrupted: bool) -> Drive {
        Drive::Caller(Arc::new(Flag(AtomicBool::new(interrupted))))
    }

    #[test]
    fn a_wait_ends_in_time_and_says_what_for() {
        let outcome = complete(caller(false).wait(
            Duration::from_millis(30),
            "a free connection",
            std::future::pending::<()>(),
        ));
        assert!(
            matches!(outcome, Err(Error::TimedOut(text)) if text.contains("a free connection"))
        );
    }

    #[test]
    fn a_signal_ends_a_wait_and_io() {
        let drive = caller(true);
        let started = Instant::now();
        assert!(matches!(
            complete(drive.sleep(Duration::from_secs(9))),
            Err(Error::Interrupted)
        ));
        let reactor = drive.reactor().unwrap();
        let outcome = complete(drive.io(&reactor, None, "nothing", std::future::pending::<()>()));
        assert!(matches!(outcome, Err(Error::Interrupted)));
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_wait_is_woken_from_another_thread() {
        let semaphore = Arc::new(tokio::sync::Semaphore::new(0));
        let other = semaphore.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            other.add_permits(1);
        });
        let permit =
            complete(caller(false).wait(Duration::from_secs(5), "a permit", semaphore.acquire()));
        assert!(permit.unwrap().is_ok());
        thread.join().unwrap();
    }
}
