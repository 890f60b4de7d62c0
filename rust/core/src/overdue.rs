//! Leases held past their `max_hold`: lost for their holders, then failed in the database.
//!
//! Runs on the heartbeat's thread as a task of its own, so that neither waits for the other, and on connections of its
//! own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::collect::own_plan;
use crate::config::Config;
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::events::{Event, Level, Subject};
use crate::metrics::WorkResult;
use crate::pool::Pool;
use crate::transaction::{Conclusion, Opening, Plan, Transaction};
use crate::work::WorkLease;

/// Holds are looked at this often at least: no timer counts the time that the machine sleeps.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Leases being failed at a time.
const CONNECTIONS: usize = 2;

/// The leases of one heartbeat's sessions that may be held only for so long.
#[derive(Default)]
pub struct Holds {
    leases: Mutex<HashMap<u64, Arc<WorkLease>>>,
    added: Notify,
}

impl Holds {
    /// Watches this lease until it ends. It is kept: one that its holder has dropped needs this more than any other.
    pub fn add(&self, lease: Arc<WorkLease>) {
        self.leases().insert(lease.serial(), lease);
        self.added.notify_one();
    }

    /// Takes out what is overdue; the time until the next one is.
    fn due(&self) -> (Vec<Arc<WorkLease>>, Option<Duration>) {
        let mut due = Vec::new();
        let mut next: Option<Duration> = None;
        self.leases().retain(|_, lease| {
            let Some(left) = lease.hold_left() else {
                return false;
            };
            if left.is_zero() {
                due.push(lease.clone());
                return false;
            }
            next = Some(next.map_or(left, |next| next.min(left)));
            true
        });
        (due, next)
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<WorkLease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches holds for as long as the runtime that it was spawned on.
pub async fn watch(holds: Arc<Holds>, config: Config) {
    let pool = Pool::new(config, Drive::Runtime, CONNECTIONS);
    loop {
        let (due, next) = holds.due();
        for lease in due {
            tokio::spawn(give_up(lease, pool.clone()));
        }
        match next {
            None => holds.added.notified().await,
            Some(left) => tokio::select! {
                () = holds.added.notified() => {}
                () = tokio::time::sleep(left.min(LONGEST_PAUSE)) => {}
            },
        }
    }
}

/// Takes a lease from its holder, then fails it, over as many connections as it takes.
async fn give_up(lease: Arc<WorkLease>, pool: Arc<Pool>) {
    let Some((reason, opening)) = lease.overdue().await else {
        return;
    };
    let session = lease.session();
    let named = format!(
        "work {} on machine {} (token {})",
        lease.process(),
        lease.machine(),
        lease.token()
    );
    let tell = |level, lost, message| {
        session.events().push(Event {
            level,
            source: "work",
            session: Some(session.id()),
            lost: false,
            lease: lost,
            subject: Some(Subject {
                machine: lease.machine(),
                process: lease.process().to_owned(),
                token: lease.token(),
            }),
            message,
        });
    };
    tell(
        Level::Error,
        Some(lease.serial()),
        format!("{named} is lost: {reason}"),
    );
    let mut pause = Duration::from_millis(50);
    let result = loop {
        match fail(&lease, &opening, &pool).await {
            Ok(()) => {
                lease.told("Failed");
                break Some(WorkResult::Failed);
            }
            // Somebody else has ended it, or it goes with its session.
            Err(Error::LeaseLost(_) | Error::SessionExpired(_)) => break None,
            Err(error) => {
                let message = format!("could not fail {named}, trying again: {error}");
                tell(Level::Warning, None, message);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    };
    session.lease_ended(lease.process(), result);
    pool.close_idle().await;
}

async fn fail(lease: &WorkLease, opening: &Opening, pool: &Arc<Pool>) -> Result<()> {
    let plan = Plan {
        session: Some(lease.session().clone()),
        opening: opening.clone(),
        settles: true,
        ..own_plan()
    };
    let mut tx = Transaction::new(pool.clone(), plan);
    loop {
        tx.begin().await?;
        if tx.conclude(None).await? != Conclusion::Again {
            return Ok(());
        }
    }
}
