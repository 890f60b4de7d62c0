//! The core's share of a transaction that another driver carries out, such as psycopg on a connection of the user's.
//!
//! The same plan, retry machine, fence and way to end work as in [`crate::transaction`]; only the I/O is somebody else's.
//! That driver asks [`Foreign::action`] what to do, does it, and tells [`Foreign::step`] how it went. What a lost COMMIT
//! came to is asked on the core's own connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dialect::Isolation;
use crate::error::{Error, Result, TransactionId};
use crate::metrics::Outcome;
use crate::pool::Pool;
use crate::queries;
use crate::retry::{Action, Event, Failure, Limits, Machine, Protocol, Verdict};
use crate::settle;
use crate::transaction::{Opening, Plan, ambiguous};
use crate::value::Param;
use crate::work::End;

/// How long somebody who pressed Ctrl-C in COMMIT waits to be told how it ended.
const GLANCE_LIMIT: Duration = Duration::from_millis(100);

/// Which database of which cluster: the identifier that all copies of a cluster share, and the database's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Made when the cluster was initialised.
    pub system: i64,
    /// The database's name.
    pub name: String,
}

/// Asks which database the pool leads to.
pub async fn database(pool: &Arc<Pool>) -> Result<Database> {
    let ask = async || {
        let mut checkout = pool.checkout().await?;
        checkout
            .conn()
            .query(queries::SERVER_DATABASE.sql, &[])
            .await
    };
    let rows = match ask().await {
        // An idle connection may have gone stale: a new one tells.
        Err(error) if error.failure() == Failure::Disconnected => ask().await?,
        rows => rows?,
    };
    let row = rows
        .first()
        .ok_or_else(|| Error::ConnectionFailed("the server does not say who it is".to_owned()))?;
    Ok(Database {
        system: row.get("system"),
        name: row.get("name"),
    })
}

/// One transaction over all its attempts, without its I/O.
pub struct Foreign {
    /// `None`: no session fences it, and nobody can settle it.
    pool: Option<Arc<Pool>>,
    plan: Plan,
    machine: Machine,
    action: Action,
    end: Option<End>,
    id: TransactionId,
    started: Instant,
    over: bool,
}

impl Foreign {
    /// A transaction fenced by the plan's session; `end` is the end of work that it carries out, if it does.
    #[must_use]
    pub fn new(pool: Arc<Pool>, plan: Plan, end: Option<End>) -> Self {
        let protocol = pool.dialect().protocol();
        Self::made(Some(pool), plan, end, protocol)
    }

    /// A transaction that no session fences: the retry executor alone.
    #[must_use]
    pub fn alone(protocol: Protocol, isolation: Isolation, limits: Limits) -> Self {
        let plan = Plan {
            isolation,
            limits,
            statement_limit: None,
            session: None,
            opening: Opening::Nothing,
            settles: false,
            gate: None,
        };
        Self::made(None, plan, None, protocol)
    }

    fn made(pool: Option<Arc<Pool>>, plan: Plan, end: Option<End>, protocol: Protocol) -> Self {
        let mut machine = Machine::new(protocol, plan.limits, plan.settles);
        let action = machine.start();
        Foreign {
            pool,
            plan,
            machine,
            action,
            end,
            id: TransactionId::default(),
            started: Instant::now(),
            over: false,
        }
    }

    /// What the driver has to do next.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// How often the callback has been let run.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.machine.attempts()
    }

    /// The isolation level to begin with.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.plan.isolation
    }

    /// Takes note of what came of the last action.
    pub fn step(&mut self, event: Event) -> Result<Action> {
        let elapsed = self.started.elapsed();
        self.action = self
            .machine
            .step(event, elapsed, fastrand::f64())
            .map_err(|refusal| Error::WorkState(refusal.to_string()))?;
        if let (Action::Run { attempt }, Some(session)) = (self.action, &self.plan.session) {
            session.metrics().on_transaction_started(attempt);
        }
        if let (Action::Finish(Verdict::Exhausted { .. }), Some(session)) =
            (self.action, &self.plan.session)
        {
            session.metrics().on_transaction_exhausted();
        }
        Ok(self.action)
    }

    /// Refuses to go on once the session is lost, the connection closed, or in a forked child. To be asked before BEGIN,
    /// before each statement and before COMMIT.
    pub fn check(&self) -> Result<()> {
        if let Some(pool) = &self.pool {
            pool.check_usable()?;
            if pool.config().timelines.is_past(self.id.timeline) {
                return Err(Error::ConnectionFailed(
                    "this connection leads to a primary of the past: another server has taken over"
                        .to_owned(),
                ));
            }
        }
        match &self.plan.session {
            Some(session) => session.check(),
            None => Ok(()),
        }
    }

    /// A transaction is about to be opened. Refused too while another end of the same work is on its way.
    pub fn begin(&mut self) -> Result<()> {
        self.id = TransactionId::default();
        self.check()?;
        match &mut self.end {
            Some(end) => end.begin(),
            None => Ok(()),
        }
    }

    /// The statement that has to follow BEGIN at once, and its parameters. Its first column is the transaction's id.
    #[must_use]
    pub fn opening(&self) -> Option<(Arc<str>, Vec<Param>)> {
        self.plan.opening_statement()
    }

    /// That statement found its row: this is the transaction's id. Refused when it is not `fresh`: its name was used before.
    /// Refused too on a primary of the past, and on a new one that no connection of our own has met, which would have judged
    /// the session.
    pub fn opened(&mut self, id: TransactionId, fresh: bool) -> Result<()> {
        self.id = id;
        self.check()?;
        let known = self
            .pool
            .as_ref()
            .map_or(0, |pool| pool.config().timelines.highest());
        if let Some(timeline) = self.id.timeline
            && known > 0
            && timeline > known
        {
            return Err(Error::ConnectionFailed(format!(
                "this connection leads to a new primary (timeline {timeline}), and the session has not met it yet"
            )));
        }
        if !fresh {
            return Err(self.plan.done_before());
        }
        self.id.trace = self.plan.trace(None);
        Ok(())
    }

    /// Whether it has a name, under which it is committed once only.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        matches!(self.plan.opening, Opening::Keyed { .. })
    }

    /// That statement found no row: the session, or the lease, is gone.
    #[must_use]
    pub fn missing(&self) -> Error {
        self.plan.missing()
    }

    /// After an interrupt in COMMIT: one look at how it ended, which cannot be interrupted.
    pub async fn glance(&self) -> Option<bool> {
        let pool = self.pool.as_ref()?;
        settle::quick_outcome(pool.config(), pool.drive(), &self.id, GLANCE_LIMIT).await
    }

    /// Asks the server how the transaction ended; `None` when nobody can tell.
    pub async fn settle(&self) -> Result<Option<bool>> {
        let Some(pool) = &self.pool else {
            return Ok(None);
        };
        settle::outcome(pool, &self.id, self.plan.settle_limit()).await
    }

    /// The error for a COMMIT whose answer was lost.
    #[must_use]
    pub fn ambiguous(&self, cause: &str) -> Error {
        ambiguous(cause, &self.id)
    }

    /// It is over. `lost`: because the session or the lease is gone. Only the first call counts.
    pub fn over(&mut self, outcome: Outcome, lost: bool) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if let Some(session) = &self.plan.session {
            let metrics = session.metrics();
            metrics.on_transaction_ended(outcome, self.started.elapsed());
        }
        match (&mut self.end, outcome) {
            (Some(end), Outcome::Committed) => end.done(),
            (Some(end), _) if lost => end.failed(&Error::LeaseLost(String::new())),
            (Some(end), _) => end.failed(&Error::WorkState(String::new())),
            (None, Outcome::Committed) => {
                if let Some(session) = &self.plan.session {
                    session.told_traceless();
                }
            }
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Failure;

    #[test]
    fn alone_it_has_no_fence_and_settles_nothing() {
        let mut tx = Foreign::alone(
            Protocol::Rollback,
            Isolation::Serializable,
            Limits::default(),
        );
        assert_eq!(tx.action(), Action::Begin { reconnect: false });
        assert!(tx.opening().is_none());
        assert!(tx.begin().is_ok());
        assert_eq!(tx.step(Event::Begun).unwrap(), Action::Run { attempt: 1 });
        assert_eq!(tx.step(Event::Returned).unwrap(), Action::Commit);
        assert_eq!(
            tx.step(Event::CommitFailed(Failure::Disconnected)).unwrap(),
            Action::Finish(Verdict::Ambiguous)
        );
    }

    #[test]
    fn an_event_out_of_turn_is_refused() {
        let mut tx = Foreign::alone(Protocol::Savepoint, Isolation::default(), Limits::default());
        assert!(matches!(tx.step(Event::Returned), Err(Error::WorkState(_))));
        assert_eq!(tx.action(), Action::Begin { reconnect: false });
    }
}
