//! The driver of the retry machine: one transaction, run again as often as it takes.
//!
//! It is stepped, so that a callback runs wherever its caller wants, never inside a wait of ours:
//! [`Transaction::begin`] → the callback, which uses [`Transaction::query`] → [`Transaction::conclude`], which commits,
//! or says that the callback has to run [`Conclusion::Again`].

mod conclude;
mod plan;
mod restart;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::dialect::{self, Access, Dialect, Isolation};
use crate::error::{Error, Result, TransactionId};
use crate::gate::{Entry, Pass};
use crate::metrics::Outcome;
use crate::panics::fail_point;
use crate::pool::{Checkout, Conn, Pool, STEP_LIMIT};
use crate::retry::{Action, Event, Machine, Verdict};
use crate::session::SessionState;
use crate::settle::Claimed;
use crate::sqlstate;
use crate::value::Param;

pub(crate) use conclude::HERE_ONLY;
pub(crate) use plan::ambiguous;
pub use plan::{Conclusion, Opening, Plan};

/// How long the server waits for the next statement of a transaction of our own.
const IDLE_LIMIT: &str = "SET LOCAL idle_in_transaction_session_timeout = '3s'";

/// How long a claim may queue behind others of its process here.
const GATE_LIMIT: Duration = Duration::from_secs(120);
/// How long a begin that nobody waits for any more may still take before its connection is dropped.
const GRACE: Duration = Duration::from_millis(100);

/// One transaction over all its attempts.
pub struct Transaction {
    pool: Arc<Pool>,
    plan: Plan,
    machine: Machine,
    action: Action,
    started: Instant,
    checkout: Option<Checkout>,
    error: Option<Error>,
    id: TransactionId,
    pass: Option<Pass>,
    /// Time spent at the gate, which does not count as trying.
    queued: Duration,
    /// It is committed on this server, but that may not last.
    doubtful: bool,
    /// Told when nobody waits for the running statement any more.
    abandoned: Arc<Notify>,
    ended: bool,
    /// Goes before everybody else's where it can.
    urgent: bool,
    /// The savepoint is restored, and with it what went with BEGIN is undone.
    restarted: bool,
}

impl Transaction {
    /// A transaction that has not begun.
    #[must_use]
    pub fn new(pool: Arc<Pool>, plan: Plan) -> Self {
        let mut machine = Machine::new(pool.dialect().protocol(), plan.limits, plan.settles);
        let action = machine.start();
        Transaction {
            pool,
            plan,
            machine,
            action,
            started: Instant::now(),
            checkout: None,
            error: None,
            id: TransactionId::default(),
            pass: None,
            queued: Duration::ZERO,
            doubtful: false,
            abandoned: Arc::new(Notify::new()),
            ended: false,
            urgent: false,
            restarted: false,
        }
    }

    /// Lets it go before everybody else's where it can. For collection.
    #[must_use]
    pub fn urgent(mut self) -> Self {
        self.urgent = true;
        self
    }

    /// How often the callback has been let run.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.machine.attempts()
    }

    /// What this transaction leased, for settling a lost commit; set by the claim.
    pub fn note_claim(&mut self, claimed: Option<Claimed>) {
        self.id.trace = self.plan.trace(claimed.as_ref());
    }

    /// Tells a running statement, or a begin, that nobody waits for it any more; it is then called off.
    #[must_use]
    pub fn abandoner(&self) -> Arc<Notify> {
        self.abandoned.clone()
    }

    /// The session it is fenced by.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<SessionState>> {
        self.plan.session.as_ref()
    }

    /// The SQLSTATE of what went wrong last in the attempt that has just ended, if the server said one.
    #[must_use]
    pub fn last_sqlstate(&self) -> Option<&str> {
        self.error.as_ref().and_then(Error::sqlstate)
    }

    /// The kind of server, once it has begun.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.pool.dialect()
    }

    /// The isolation level that it runs at.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.plan.isolation
    }

    /// True while the callback may use it.
    #[must_use]
    pub fn running(&self) -> bool {
        !self.ended && matches!(self.action, Action::Run { .. })
    }

    /// Opens a transaction, or opens it again, so that the callback may run.
    ///
    /// Fails with the session's or the lease's loss, or when no connection can be had. After an error it has ended.
    pub async fn begin(&mut self) -> Result<()> {
        let outcome = self.step_until_run().await;
        match &outcome {
            Ok(()) => {
                self.error = None;
                if let Some(session) = &self.plan.session {
                    session.metrics().on_transaction_started(self.attempts());
                }
            }
            Err(_) => self.end(Outcome::Failed),
        }
        outcome
    }

    async fn step_until_run(&mut self) -> Result<()> {
        if self.ended {
            return Err(Error::WorkState("this transaction has ended".to_owned()));
        }
        loop {
            let event = match self.action {
                Action::Run { .. } if self.restarted => match self.open_again().await {
                    Ok(()) => return Ok(()),
                    Err(error) if is_final(&error) => {
                        self.roll_back_or_drop().await?;
                        return Err(error);
                    }
                    Err(error) => {
                        let failure = error.failure();
                        self.error = Some(error);
                        Event::ReturnedAfter(failure)
                    }
                },
                Action::Run { .. } => return Ok(()),
                Action::Rollback => {
                    self.roll_back_or_drop().await?;
                    Event::RolledBack
                }
                Action::Restart => self.go_back().await,
                Action::Sleep(pause) => {
                    tokio::select! {
                        biased;
                        slept = self.pool.drive().sleep(pause) => slept?,
                        () = self.abandoned.notified() => return Err(Error::Interrupted),
                    }
                    Event::Slept
                }
                Action::Begin { reconnect } => {
                    if reconnect {
                        self.drop_connection();
                    }
                    match self.open().await {
                        Ok(()) => Event::Begun,
                        Err(error) if is_final(&error) => return Err(error),
                        Err(error) => {
                            let failure = error.failure();
                            self.error = Some(error);
                            Event::BeginFailed(failure)
                        }
                    }
                }
                Action::Finish(_) => return Err(self.take_error()),
                action => unreachable!("{action:?} comes after the callback"),
            };
            self.advance(event);
        }
    }

    /// Takes a connection and opens a transaction on it.
    async fn open(&mut self) -> Result<()> {
        self.pool.check_usable()?;
        if let Some(session) = &self.plan.session {
            session.check()?;
        }
        self.id = TransactionId::default();
        self.restarted = false;
        self.pass_gate().await?;
        if self.checkout.is_none() {
            let stop = until_lost(self.plan.session.clone(), Some(self.abandoned.clone()));
            let limit = self.plan.session.as_ref().map(|s| s.trusted_for());
            let taking = self.pool.checkout_unless(stop, limit);
            self.checkout = Some(tokio::select! {
                biased;
                taken = taking => taken?,
                () = given_up(&self.abandoned) => return Err(Error::Interrupted),
            });
        }
        let checkout = self.checkout.as_mut().expect("just taken");
        let opened = tokio::select! {
            biased;
            opened = Self::open_on(checkout.conn(), &self.plan, self.pool.access(), self.urgent) => Some(opened),
            () = given_up(&self.abandoned) => None,
        };
        let Some(opened) = opened else {
            // In the middle of an answer, so it is of no use to anybody.
            self.drop_connection();
            return Err(Error::Interrupted);
        };
        let row = match opened {
            Ok(row) => row,
            Err(error) => {
                // Whatever is open on it is not worth another round trip.
                self.roll_back_or_drop().await?;
                return Err(error);
            }
        };
        let server = checkout.conn().server();
        let (timeline, incarnation) = (server.timeline, server.incarnation);
        let keyed = matches!(self.plan.opening, Opening::Keyed { .. });
        match (&self.plan.opening, row) {
            (Opening::Nothing, _) => {}
            (_, Some(row)) if keyed && !row.get::<_, bool>("fresh") => {
                self.roll_back_or_drop().await?;
                return Err(self.plan.done_before());
            }
            (_, Some(row)) => {
                let xid = row.try_get::<_, Option<i64>>(0).ok().flatten();
                self.id = TransactionId {
                    xid: xid.and_then(|xid| u64::try_from(xid).ok()),
                    timeline,
                    incarnation,
                    trace: self.plan.trace(None),
                    ..TransactionId::default()
                };
            }
            (_, None) => {
                self.roll_back_or_drop().await?;
                return Err(self.plan.missing());
            }
        }
        Ok(())
    }

    /// A claim waits here until its process's gate lets it through.
    async fn pass_gate(&mut self) -> Result<()> {
        let Some(gate) = self.plan.gate.clone() else {
            return Ok(());
        };
        if self.pass.is_some() {
            return Ok(());
        }
        let arrived = Instant::now();
        self.pass = Some(match gate.enter() {
            Entry::Inside(pass) => pass,
            Entry::Wait(admitted) => {
                // Whoever is inside may need this very connection to get on.
                self.checkout = None;
                let stop = until_lost(self.plan.session.clone(), Some(self.abandoned.clone()));
                let admitted = async {
                    tokio::select! {
                        // The gate goes only with its connection.
                        pass = admitted => pass.map_err(|_| Error::Config("this connection is closed".to_owned())),
                        error = stop => Err(error),
                    }
                };
                let what = "waiting for other claims";
                match self.pool.drive().wait(GATE_LIMIT, what, admitted).await {
                    Ok(pass) => pass?,
                    Err(Error::TimedOut(text)) => return Err(Error::PoolExhausted(text)),
                    Err(error) => return Err(error),
                }
            }
        });
        self.queued += arrived.elapsed();
        let drive = self.pool.drive();
        // Inside the gate, so that it paces all claims from here together.
        let pause = gate.pause(fastrand::f64());
        if !pause.is_zero() {
            drive.sleep(pause).await?;
        }
        Ok(())
    }

    /// Tells the gate how a claim fared; a conflict makes room for the rivals.
    pub fn tell_gate(&mut self, conflict: bool) {
        if let Some(gate) = &self.plan.gate {
            if conflict {
                gate.on_conflict()
            } else {
                gate.on_success()
            }
        }
    }

    async fn open_on(
        conn: &mut Conn,
        plan: &Plan,
        access: Access,
        urgent: bool,
    ) -> Result<Option<Row>> {
        let dialect = conn.server().dialect;
        let begin = match urgent {
            true => dialect.begin_urgent(plan.isolation, access),
            false => dialect.begin(plan.isolation, access),
        };
        // A dead link is noticed within a quarter of the interval, and another connection tried.
        let limit = plan
            .session
            .as_ref()
            .map_or(STEP_LIMIT, |session| session.interval() / 4)
            .min(STEP_LIMIT);
        let rows = match Self::opening_on(conn, plan) {
            Some((sql, params)) => conn.begin_with(begin, Some((&sql, &params)), limit).await?,
            // Rows that every collector passes over must not stay locked because somebody is stopped here.
            None if dialect == Dialect::PostgreSql => {
                let begin = format!("{begin}; {IDLE_LIMIT}");
                conn.begin_with(&begin, None, limit).await?
            }
            None => conn.begin_with(begin, None, limit).await?,
        };
        Ok(rows.into_iter().next())
    }

    /// Runs one statement inside the transaction and returns its rows.
    pub async fn query(&mut self, sql: &str, params: &[Param]) -> Result<Vec<Row>> {
        let conn = Self::usable(
            &self.pool,
            self.ended,
            &self.action,
            &mut self.checkout,
            &self.plan,
        )?;
        let stop = until_lost(self.plan.session.clone(), Some(self.abandoned.clone()));
        fail_point("statement");
        let outcome = conn
            .query_unless(sql, params, stop, self.plan.statement_limit)
            .await;
        self.noted(outcome)
    }

    /// Runs one statement inside the transaction and returns how many rows it affected.
    pub async fn execute(&mut self, sql: &str, params: &[Param]) -> Result<u64> {
        let conn = Self::usable(
            &self.pool,
            self.ended,
            &self.action,
            &mut self.checkout,
            &self.plan,
        )?;
        let stop = until_lost(self.plan.session.clone(), Some(self.abandoned.clone()));
        let outcome = conn
            .execute_unless(sql, params, stop, self.plan.statement_limit)
            .await;
        self.noted(outcome)
    }

    /// Checks a statement of the user's: refuses one that would end the transaction under us, and notes one after which
    /// the connection must not serve another.
    pub fn check_statement(&mut self, sql: &str) -> Result<()> {
        dialect::check_statement(sql)?;
        if !dialect::changes_session(sql) {
            return Ok(());
        }
        if self.pool.config().pooler.is_some() {
            return Err(Error::WorkState(
                "through a pooler nothing may be left in the session, which others get next: say SET LOCAL, or connect to \
                 the server itself"
                    .to_owned(),
            ));
        }
        if let Some(checkout) = &mut self.checkout {
            checkout.conn().altered = true;
        }
        Ok(())
    }

    fn usable<'a>(
        pool: &Pool,
        ended: bool,
        action: &Action,
        checkout: &'a mut Option<Checkout>,
        plan: &Plan,
    ) -> Result<&'a mut Conn> {
        pool.check_usable()?;
        if ended || !matches!(action, Action::Run { .. }) {
            return Err(Error::WorkState(
                "this transaction has ended: use q only inside its callback".to_owned(),
            ));
        }
        if let Some(session) = &plan.session {
            session.check()?;
        }
        match checkout.as_mut().map(Checkout::conn) {
            Some(conn) if !conn.broken => Ok(conn),
            _ => Err(Error::ConnectionFailed(
                "the connection broke earlier in this transaction".to_owned(),
            )),
        }
    }

    fn noted<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome
            && !matches!(error, Error::Value { .. } | Error::WorkState(_))
        {
            // What aborted the transaction says more than that it is aborted.
            let only_aborted = error.sqlstate() == Some(sqlstate::IN_FAILED_SQL_TRANSACTION);
            if !only_aborted || self.error.is_none() {
                self.error = Some(error.clone());
            }
        }
        outcome
    }

    /// Rolls back; a connection on which that fails is dropped, which rolls back too.
    async fn roll_back_or_drop(&mut self) -> Result<()> {
        let Some(checkout) = &mut self.checkout else {
            return Ok(());
        };
        let conn = checkout.conn();
        if conn.broken || conn.leaves_statements() {
            self.drop_connection();
            return Ok(());
        }
        match conn.batch(dialect::ROLLBACK, Some(STEP_LIMIT)).await {
            Ok(()) => {
                conn.in_transaction = false;
                Ok(())
            }
            Err(error) => {
                self.drop_connection();
                if matches!(error, Error::Interrupted) {
                    Err(error)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn drop_connection(&mut self) {
        if let Some(mut checkout) = self.checkout.take() {
            checkout.conn().broken = true;
        }
    }

    fn take_error(&mut self) -> Error {
        self.error
            .take()
            .unwrap_or_else(|| Error::ConnectionFailed("the transaction failed".to_owned()))
    }

    /// Lets the retry machine say what comes next.
    fn advance(&mut self, event: Event) {
        self.action = self
            .machine
            .step(
                event,
                self.started.elapsed().saturating_sub(self.queued),
                fastrand::f64(),
            )
            .expect("the driver answers what the machine asked for");
        if let (Action::Finish(Verdict::Exhausted { .. }), Some(session)) =
            (self.action, &self.plan.session)
        {
            session.metrics().on_transaction_exhausted();
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        self.checkout = None;
        self.pass = None;
        if let Some(session) = &self.plan.session {
            session
                .metrics()
                .on_transaction_ended(outcome, self.started.elapsed());
        }
    }
}

/// Errors before the callback that another attempt would not change.
fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::SessionExpired(_)
            | Error::LeaseLost(_)
            | Error::AlreadyCommitted(_)
            | Error::Config(_)
            | Error::PoolExhausted(_)
            | Error::AmbiguousCommit { .. }
            | Error::Interrupted
            | Error::Value { .. }
    )
}

/// Ready when the session is lost or the statement is abandoned.
pub(crate) async fn until_lost(
    session: Option<Arc<SessionState>>,
    abandoned: Option<Arc<Notify>>,
) -> Error {
    let lost = async {
        match session {
            Some(session) => session.until_lost().await,
            None => std::future::pending().await,
        }
    };
    let given_up = async {
        match abandoned {
            Some(abandoned) => abandoned.notified().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        error = lost => error,
        () = given_up => Error::Interrupted,
    }
}

/// Ready when nobody has waited for a begin for longer than its answer takes as a rule.
async fn given_up(abandoned: &Notify) {
    abandoned.notified().await;
    tokio::time::sleep(GRACE).await;
}

/// A uuid parameter.
#[must_use]
pub fn uuid(id: Uuid) -> Param {
    Param::Uuid(id.into_bytes())
}
