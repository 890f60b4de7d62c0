//! A bounded set of connections, each handed to one transaction at a time.

mod conn;
mod opening;
mod recognition;
mod spoken;
mod unnamed;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use conn::PLAIN_SETTINGS;
use conn::unless;
pub use conn::{Conn, Server};

use crate::config::{Config, TargetSessionAttrs};
use crate::dialect::{Access, Dialect};
use crate::drive::Drive;
use crate::error::{Error, Result};

/// How long a step of our own (BEGIN, ROLLBACK, a look-up) may take before its connection is given up.
pub const STEP_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait for a free connection.
pub const CHECKOUT_LIMIT: Duration = Duration::from_secs(30);

/// Boxed, as handing a connection out and taking it back would otherwise copy its kilobyte each time.
type IdleConn = Box<Conn>;

/// The connections of one `Connection`.
pub struct Pool {
    config: Config,
    drive: Drive,
    size: usize,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<IdleConn>>,
    closed: AtomicBool,
    server: OnceLock<Server>,
    owner: u32,
    /// What a new connection is set to.
    settings: Option<&'static str>,
    /// When its users last saw to what has to be done now and then.
    housekept: Mutex<Option<Instant>>,
    /// What its transactions may do.
    access: Access,
}

impl Pool {
    /// An empty pool; connections are opened as they are needed.
    #[must_use]
    pub fn new(config: Config, drive: Drive, size: usize) -> Arc<Pool> {
        Self::with_settings(config, drive, size, None)
    }

    /// The same for transactions that may do so much.
    #[must_use]
    pub fn with_access(config: Config, drive: Drive, size: usize, access: Access) -> Arc<Pool> {
        Self::made(config, drive, size, access.settings(), access)
    }

    /// The same for statements of our own, which want settings that users' must not meet.
    #[must_use]
    pub fn with_settings(
        config: Config,
        drive: Drive,
        size: usize,
        settings: Option<&'static str>,
    ) -> Arc<Pool> {
        Self::made(config, drive, size, settings, Access::ReadWrite)
    }

    fn made(
        config: Config,
        drive: Drive,
        size: usize,
        settings: Option<&'static str>,
        access: Access,
    ) -> Arc<Pool> {
        let config = Config {
            primary_wanted: access == Access::ReadWrite
                && matches!(
                    config.target_session_attrs,
                    TargetSessionAttrs::Any
                        | TargetSessionAttrs::ReadWrite
                        | TargetSessionAttrs::Primary
                ),
            ..config
        };
        Arc::new(Pool {
            settings,
            access,
            config,
            drive,
            size,
            permits: Arc::new(Semaphore::new(size)),
            idle: Mutex::new(Vec::new()),
            closed: AtomicBool::new(false),
            server: OnceLock::new(),
            owner: std::process::id(),
            housekept: Mutex::new(None),
        })
    }

    /// Whether it is `every` so long since this last said so, or the first time.
    pub fn is_due(&self, every: Duration) -> bool {
        let mut housekept = self
            .housekept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let due = housekept.is_none_or(|at| at.elapsed() >= every);
        if due {
            *housekept = Some(Instant::now());
        }
        due
    }

    /// Who drives this pool's I/O.
    #[must_use]
    pub fn drive(&self) -> &Drive {
        &self.drive
    }

    /// Where this pool connects to.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The most connections that it opens.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// What its transactions may do.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The kind of server, once a connection has been opened.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.server
            .get()
            .map(|server| server.dialect)
            .unwrap_or_default()
    }

    /// The server's banner, once a connection has been opened.
    #[must_use]
    pub fn banner(&self) -> Option<&str> {
        self.server.get().map(|server| server.banner.as_str())
    }

    /// Refuses use after closing and in a forked child, where sockets and locks are shared with the parent.
    pub fn check_usable(&self) -> Result<()> {
        let here = std::process::id();
        if here != self.owner {
            return Err(Error::Config(format!(
                "this connection belongs to process {}, and this is its forked child {here}: open a new one here",
                self.owner
            )));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Config(
                "this connection is closed: open a new one".to_owned(),
            ));
        }
        Ok(())
    }

    /// Takes an idle connection, or opens one; waits while all are in use.
    pub async fn checkout(self: &Arc<Self>) -> Result<Checkout> {
        self.checkout_unless(std::future::pending(), None).await
    }

    /// The same, given up when `stop` is ready first; a new connection has to be there within `limit`.
    pub async fn checkout_unless<S>(
        self: &Arc<Self>,
        stop: S,
        limit: Option<Duration>,
    ) -> Result<Checkout>
    where
        S: Future<Output = Error>,
    {
        self.check_usable()?;
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait_for_permit(stop).await?,
        };
        self.check_usable()?;
        let idle = {
            let mut idle = self.idle();
            // What leads to a primary of the past, or to a standby after all, is no use any more.
            std::iter::from_fn(|| idle.pop()).find(|conn| !conn.is_past())
        };
        let conn = match idle {
            Some(conn) => conn,
            None => {
                // Boxed: with all of TLS in it, it would make the future of every transaction forty kilobytes.
                let opening = Box::pin(Conn::open(&self.config, &self.drive, limit));
                let mut conn = opening.await?;
                if let Some(settings) = self.settings {
                    let settings = conn.server().dialect.settings(settings);
                    conn.set(&settings).await?;
                }
                if self.server.get().is_none() {
                    // The first of all: what is wrong with the way there is told at once.
                    let looking = recognition::refuse_transaction_pooler(
                        &mut conn,
                        &self.config,
                        &self.drive,
                    );
                    Box::pin(looking).await?;
                }
                self.server.get_or_init(|| conn.server().clone());
                Box::new(conn)
            }
        };
        Ok(Checkout {
            conn: Some(conn),
            pool: self.clone(),
            _permit: permit,
        })
    }

    async fn wait_for_permit<S>(&self, stop: S) -> Result<OwnedSemaphorePermit>
    where
        S: Future<Output = Error>,
    {
        let acquire = unless(self.permits.clone().acquire_owned(), stop);
        let what = "waiting for a free connection";
        match self.drive.wait(CHECKOUT_LIMIT, what, acquire).await {
            Ok(Ok(Ok(permit))) => Ok(permit),
            Ok(Ok(Err(_))) => Err(Error::Config(
                "this connection is closed: open a new one".to_owned(),
            )),
            Ok(Err(error)) => Err(error),
            Err(Error::TimedOut(_)) => Err(Error::PoolExhausted(format!(
                "all {} connections were in use for {} s: raise pool_size, or let callbacks end sooner",
                self.size,
                CHECKOUT_LIMIT.as_secs()
            ))),
            Err(error) => Err(error),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<IdleConn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections open and idle, for people.
    #[must_use]
    pub fn idle_count(&self) -> usize {
        self.idle().len()
    }

    /// Closes idle connections; the pool stays open.
    pub async fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for conn in idle {
            conn.close().await;
        }
    }

    /// Closes idle connections now, and those in use when they come back.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        if std::process::id() != self.owner {
            // A forked child must not say goodbye on its parent's sockets.
            std::mem::forget(idle);
            return;
        }
        for conn in idle {
            conn.close().await;
        }
    }
}

/// A connection in use. Dropping it gives it back, or drops it when it broke or may still be in a transaction.
pub struct Checkout {
    conn: Option<IdleConn>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Checkout {
    /// The connection.
    pub fn conn(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("present until dropped")
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        if std::process::id() != self.pool.owner {
            std::mem::forget(conn);
        } else if !conn.broken
            && !conn.altered
            && !conn.in_transaction
            && !self.pool.closed.load(Ordering::Acquire)
        {
            self.pool.idle().push(conn);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if std::process::id() != self.owner {
            std::mem::forget(std::mem::take(&mut *self.idle()));
        }
    }
}
