//! One connection: its prepared statements, the limit on every wait, and whether it can be used again.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Row, SimpleQueryMessage, SimpleQueryRow, Statement};

use super::STEP_LIMIT;
use super::unnamed::{Pooled, Ready};
use crate::config::Config;
use crate::connect::{self, Canceller, PassedOver, PgConnection, Target};
use crate::dialect::Dialect;
use crate::drive::{Drive, Reactor};
use crate::error::{Error, Result};
use crate::timelines::Timelines;
use crate::value::Param;

/// What the driver makes of a request.
pub(super) type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

/// Statements kept prepared on one connection; beyond that all are closed and prepared anew as needed.
const STATEMENTS_KEPT: usize = 256;

/// What statements outside transactions are set to.
pub(crate) const PLAIN_SETTINGS: &str =
    "SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off";

/// Numbers the connections of this OS process.
static NUMBERS: AtomicI64 = AtomicI64::new(1);

/// What the server told of itself when the connection was opened.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// Which kind of server it is.
    pub dialect: Dialect,
    /// Its banner: `PostgreSQL 18.1 on …`.
    pub banner: String,
    /// The WAL timeline; `None` on a standby or where there is none.
    pub timeline: Option<u32>,
    /// Whether it was in recovery, as a standby is, when it was asked.
    pub standby: bool,
    /// Changes when the server recovers from a crash.
    pub incarnation: Option<i64>,
    /// The backend that serves this connection, where the server numbers them.
    pub pid: Option<i32>,
    /// When that backend started: a number alone may be given away again.
    pub started: Option<String>,
}

/// One connection to the server.
pub struct Conn {
    pub(super) client: Client,
    canceller: Canceller,
    reactor: Reactor,
    drive: Drive,
    statements: HashMap<String, Statement>,
    pub(super) server: Server,
    pub(super) timelines: Arc<Timelines>,
    pub(super) primary_wanted: bool,
    /// Where a pooler may stand in between: what takes the place of prepared statements and of settings of the session.
    pub(super) pooled: Option<Pooled>,
    /// Somebody stands in between: the backend is not the one that was promised.
    pub(super) behind: bool,
    doubtful_commit: Arc<AtomicBool>,
    task: Pump,
    /// Something went wrong on the wire, or a wait was given up: not to be used again.
    pub(crate) broken: bool,
    /// A transaction may be open on the server.
    pub(crate) in_transaction: bool,
    /// A statement may have changed the session beyond its transaction.
    pub(crate) altered: bool,
    /// Statements outside transactions have the defaults that they need.
    plain: bool,
    /// Its number among the connections of this OS process.
    pub(super) number: i64,
}

impl Conn {
    pub(super) async fn open_one(
        config: &Config,
        drive: &Drive,
        limit: Option<Duration>,
        passed_over: &PassedOver,
    ) -> Result<(Conn, Target, usize)> {
        let reactor = drive.reactor()?;
        let doubtful_commit = Arc::new(AtomicBool::new(false));
        let noticed = doubtful_commit.clone();
        let established = drive
            .io(&reactor, limit, "connecting", async {
                let established = connect::connect(config, passed_over).await?;
                let promised = established.canceller.promised().await;
                Ok::<_, Error>((
                    promised,
                    established.client,
                    established.canceller,
                    established.connection,
                    established.target,
                    established.number,
                ))
            })
            .await??;
        let (promised, client, canceller, connection, target, number) = established;
        let task = reactor.spawn(pump(connection, noticed));
        let mut conn = Conn {
            client,
            canceller,
            reactor,
            drive: drive.clone(),
            statements: HashMap::new(),
            server: Server::default(),
            pooled: config
                .pooler
                .clone()
                .map(|pooler| Pooled::new(pooler, PLAIN_SETTINGS)),
            behind: false,
            timelines: config.timelines.clone(),
            primary_wanted: config.primary_wanted,
            doubtful_commit,
            task: Pump(task),
            broken: false,
            in_transaction: false,
            altered: false,
            plain: false,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        };
        conn.identify(promised).await?;
        Ok((conn, target, number))
    }

    pub(super) async fn ask(&mut self, sql: &str) -> Result<Option<SimpleQueryRow>> {
        let outcome = self
            .io(Some(STEP_LIMIT), sql, self.client.simple_query(sql))
            .await;
        let messages = self.answered(outcome).await?;
        Ok(messages.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        }))
    }

    /// What the server told of itself.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Who drives its I/O.
    #[must_use]
    pub fn drive(&self) -> &Drive {
        &self.drive
    }

    /// Asks the server to stop what this connection runs.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Takes note of what the server may have said meanwhile; false when it has hung up.
    ///
    /// A connection that the caller drives hears nothing between two calls.
    pub async fn still_open(&mut self) -> Result<bool> {
        // The first lets the socket be looked at, the second lets the pump act on it.
        let listen = async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        };
        self.io(None, "listening", listen).await?;
        self.broken |= self.client.is_closed() || self.is_past();
        Ok(!self.broken)
    }

    /// Applies settings and prepares a statement ahead of its first use, in one trip.
    pub async fn set_up(&mut self, settings: &str, sql: &str) -> Result<()> {
        let sql = self.spoken(sql)?;
        let settings = self.server.dialect.settings(settings);
        if self.pooled.is_some() {
            self.set(&settings).await?;
            let never = std::future::pending();
            return Box::pin(self.learn(sql, never, Some(STEP_LIMIT)))
                .await
                .map(drop);
        }
        let both = async {
            tokio::join!(
                self.client.batch_execute(&settings),
                self.client.prepare(sql)
            )
        };
        let outcome = self.io(Some(STEP_LIMIT), sql, both).await;
        let (set, statement) = self.abandon_on_stop(outcome).await?;
        self.checked(set)?;
        let statement = self.checked(statement)?;
        self.keep(sql, statement);
        Ok(())
    }

    /// Runs I/O on this connection under the time limit; see [`Drive::io`].
    pub(super) async fn io<F: Future>(
        &self,
        limit: Option<Duration>,
        what: &str,
        io: F,
    ) -> Result<F::Output> {
        // Only a reference goes on, which the futures of the drive then hold in place of several copies.
        let io = pin!(io);
        self.drive.io(&self.reactor, limit, what, io).await
    }

    /// Whatever ends a wait early leaves an answer on the wire, so the connection is done for; the server is asked to
    /// stop, so that no lock is held for long.
    pub(super) async fn abandon_on_stop<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.broken = true;
            // Boxed, since it connects anew: it would be the largest part of every statement's future.
            let cancel = Box::pin(self.canceller.cancel());
            let limit = Duration::from_millis(100);
            let quiet = tokio_timeout(limit, cancel);
            match &self.drive {
                // Not interruptible: an interrupt is what brought us here.
                Drive::Caller(_) => self.reactor_block(quiet),
                Drive::Runtime => drop(quiet.await),
            }
        }
        outcome
    }

    fn reactor_block<F: Future>(&self, future: F) {
        drop(self.reactor.block_on_quietly(future));
    }

    /// Takes the answer of a wait, and notes from it whether the connection can go on.
    pub(super) async fn answered<T>(&mut self, outcome: Result<Answer<T>>) -> Result<T> {
        let answer = self.abandon_on_stop(outcome).await?;
        self.checked(answer)
    }

    /// Runs a text of one or more statements without parameters or results.
    pub async fn batch(&mut self, sql: &str, limit: Option<Duration>) -> Result<()> {
        self.batch_unless(sql, std::future::pending(), limit).await
    }

    /// The same, given up when `stop` is ready first.
    pub async fn batch_unless<S>(
        &mut self,
        sql: &str,
        stop: S,
        limit: Option<Duration>,
    ) -> Result<()>
    where
        S: Future<Output = Error>,
    {
        let work = unless(self.client.batch_execute(sql), stop);
        let outcome = self.io(limit, sql, work).await.flatten();
        self.answered(outcome).await
    }

    /// The statement as prepared on this connection, now if need be.
    async fn statement<S>(&mut self, sql: &str, stop: S, limit: Option<Duration>) -> Result<Ready>
    where
        S: Future<Output = Error>,
    {
        let sql = self.spoken(sql)?;
        if self.pooled.is_some() {
            let signature = Box::pin(self.learn(sql, stop, limit)).await?;
            self.note_columns(signature.foreign_columns, None);
            return Ok(Ready::Unnamed(signature.params));
        }
        if let Some(kept) = self.statements.get(sql) {
            return Ok(Ready::Named(kept.clone()));
        }
        // Boxed, as it is rare, and the largest part of every statement's future.
        let work = unless(Box::pin(self.client.prepare(sql)), stop);
        let outcome = self.io(limit, sql, work).await.flatten();
        let statement = self.answered(outcome).await?;
        self.keep(sql, statement.clone());
        Ok(Ready::Named(statement))
    }

    /// Runs one of our own statements.
    pub async fn query(&mut self, sql: &str, params: &[Param]) -> Result<Vec<Row>> {
        self.query_unless(sql, params, std::future::pending(), Some(STEP_LIMIT))
            .await
    }

    /// Runs one statement, given up when `stop` is ready first; preparing it has `limit` for itself.
    pub async fn query_unless<S>(
        &mut self,
        sql: &str,
        params: &[Param],
        stop: S,
        limit: Option<Duration>,
    ) -> Result<Vec<Row>>
    where
        S: Future<Output = Error>,
    {
        let mut stop = pin!(stop);
        if self.runs_alone() {
            let outcome = Box::pin(self.alone(sql, params, stop, limit)).await;
            self.take_note(sql, &outcome);
            return outcome;
        }
        let statement = self.statement(sql, stop.as_mut(), limit).await?;
        statement.check(params)?;
        let work = unless(statement.rows(&self.client, sql, params), stop);
        let outcome = self.io(limit, sql, work).await.flatten();
        let outcome = self.answered(outcome).await;
        self.take_note(sql, &outcome);
        self.note_columns(false, outcome.as_ref().ok().and_then(|rows| rows.first()));
        outcome
    }

    /// The same for the number of rows that it affected.
    pub async fn execute_unless<S>(
        &mut self,
        sql: &str,
        params: &[Param],
        stop: S,
        limit: Option<Duration>,
    ) -> Result<u64>
    where
        S: Future<Output = Error>,
    {
        let mut stop = pin!(stop);
        let statement = self.statement(sql, stop.as_mut(), limit).await?;
        statement.check(params)?;
        let work = unless(statement.count(&self.client, sql, params), stop);
        let outcome = self.io(limit, sql, work).await.flatten();
        let outcome = self.answered(outcome).await;
        self.take_note(sql, &outcome);
        outcome
    }

    /// Opens a transaction and sends its first statement in the same trip, each trip within `limit`.
    pub async fn begin_with(
        &mut self,
        begin: &str,
        first: Option<(&str, &[Param])>,
        limit: Duration,
    ) -> Result<Vec<Row>> {
        let mut begin = self.beginning(begin);
        if let Some(question) = self.lineage_question() {
            begin = format!("{begin}; {question}");
        }
        let ready = match first {
            Some((sql, params)) => {
                let never = std::future::pending();
                let statement = self.statement(sql, never, Some(limit)).await?;
                statement.check(params)?;
                Some((statement, sql, params))
            }
            None => None,
        };
        self.in_transaction = true;
        let client = &self.client;
        let first = async {
            match &ready {
                Some((statement, sql, params)) => statement.rows(client, sql, params).await,
                None => Ok(Vec::new()),
            }
        };
        // Each is sent when it is first polled, so in this order.
        let both = async { tokio::join!(biased; client.simple_query(&begin), first) };
        let outcome = self.io(Some(limit), &begin, both).await;
        let (begun, rows) = self.abandon_on_stop(outcome).await?;
        if let (Err(refused), Ok(_), Some(_)) = (&begun, &rows, &ready) {
            // Without its BEGIN the statement ran by itself, and is committed.
            self.broken = true;
            return Err(Error::AmbiguousCommit {
                message: format!(
                    "BEGIN was refused ({refused}), so what was sent with it ran alone"
                ),
                transaction: Box::default(),
            });
        }
        let messages = self.checked(begun)?;
        self.note_lineage(&messages);
        self.refuse_unmet()?;
        let rows = self.checked(rows);
        if let Some((_, sql, _)) = ready {
            self.take_note(sql, &rows);
        }
        rows
    }

    /// Runs one statement or two as one transaction in one trip: `begin`, the statements, `commit`. The rows of each.
    ///
    /// After an error of a statement the transaction is rolled back. Any other error leaves open whether it was committed,
    /// and the connection broken. Preparing them, the first time, has `limit` for itself.
    pub async fn transaction<S>(
        &mut self,
        begin: &str,
        first: Option<(&str, &[Param])>,
        last: (&str, &[Param]),
        commit: &str,
        stop: S,
        limit: Duration,
    ) -> Result<(Vec<Row>, Vec<Row>)>
    where
        S: Future<Output = Error>,
    {
        let mut stop = pin!(stop);
        let begin = &self.beginning(begin);
        let ahead = match first {
            Some((sql, params)) => {
                let statement = self.statement(sql, stop.as_mut(), Some(limit)).await?;
                statement.check(params)?;
                Some((statement, sql, params))
            }
            None => None,
        };
        let statement = self.statement(last.0, stop.as_mut(), Some(limit)).await?;
        statement.check(last.1)?;
        self.in_transaction = true;
        let client = &self.client;
        let ahead = async {
            match &ahead {
                Some((statement, sql, params)) => statement.rows(client, sql, params).await,
                None => Ok(Vec::new()),
            }
        };
        // Each is sent when it is first polled, so in this order.
        let all = async {
            tokio::join!(
                biased;
                client.batch_execute(begin),
                ahead,
                statement.rows(client, last.0, last.1),
                client.batch_execute(commit)
            )
        };
        let outcome = self
            .io(Some(limit), begin, unless(all, stop))
            .await
            .flatten();
        let (begun, ahead, rows, committed) = self.abandon_on_stop(outcome).await?;
        if let Err(refused) = begun {
            // Without its BEGIN each statement ran by itself.
            self.broken = true;
            return Err(Error::ConnectionFailed(format!(
                "BEGIN was refused: {refused}"
            )));
        }
        let ahead = self.checked(ahead);
        let rows = self.checked(rows);
        if let Some((sql, _)) = first {
            self.take_note(sql, &ahead);
        }
        self.take_note(last.0, &rows);
        let committed = self.checked(committed);
        match ahead.and_then(|ahead| rows.and_then(|rows| committed.map(|()| (ahead, rows)))) {
            Ok(rows) => {
                self.in_transaction = false;
                Ok(rows)
            }
            Err(error) if self.broken => Err(error),
            Err(error) => {
                self.batch(crate::dialect::ROLLBACK, Some(STEP_LIMIT))
                    .await?;
                self.in_transaction = false;
                Err(error)
            }
        }
    }

    /// Sees to it that a statement outside a transaction runs at READ COMMITTED, whatever the role's defaults. Transactions
    /// of users say their isolation themselves.
    pub async fn plain(&mut self) -> Result<()> {
        // Through a pooler they are transactions, which say so themselves.
        if !self.plain && self.pooled.is_none() {
            let settings = self.server.dialect.settings(PLAIN_SETTINGS);
            self.batch(&settings, Some(STEP_LIMIT)).await?;
            self.plain = true;
        }
        Ok(())
    }

    fn keep(&mut self, sql: &str, statement: Statement) {
        if !self.statements.contains_key(sql) {
            if self.statements.len() >= STATEMENTS_KEPT {
                self.statements.clear();
            }
            self.statements.insert(sql.to_owned(), statement);
        }
    }

    /// Notes from an outcome whether the connection can go on.
    pub(super) fn checked<T>(&mut self, outcome: Answer<T>) -> Result<T> {
        outcome.map_err(|error| {
            let error = Error::from(error);
            match &error {
                Error::Database(db) => {
                    // What was a standby when it was asked may be a primary by now, or another server be reached there.
                    self.broken |= db.fatal || self.server.standby && self.primary_wanted;
                    let of_names = matches!(db.sqlstate.as_str(), "26000" | "42P05");
                    if of_names && self.behind && self.pooled.is_none() {
                        self.broken = true;
                        return Error::Config(format!("{} ({error})", crate::pooler::UNSPOKEN));
                    }
                    // A plan that no longer fits the table, or a statement that a pooler took away.
                    if matches!(db.sqlstate.as_str(), "0A000" | "26000") {
                        self.statements.clear();
                    }
                }
                Error::Value { .. } => {}
                _ => self.broken = true,
            }
            error
        })
    }

    /// True when, since it was last asked, the server warned that a commit is durable here only (01000).
    pub fn take_doubtful_commit(&self) -> bool {
        self.doubtful_commit.swap(false, Ordering::AcqRel)
    }

    /// Says goodbye to the server.
    pub async fn close(self) {
        let Conn {
            client,
            reactor,
            drive,
            mut task,
            ..
        } = self;
        drop(client);
        let farewell = tokio_timeout(Duration::from_millis(200), &mut task.0);
        match drive {
            Drive::Caller(_) => drop(reactor.block_on_quietly(farewell)),
            Drive::Runtime => drop(farewell.await),
        }
    }
}

pub(super) fn borrowed(params: &[Param]) -> Vec<&(dyn tokio_postgres::types::ToSql + Sync)> {
    params
        .iter()
        .map(|param| param as &(dyn tokio_postgres::types::ToSql + Sync))
        .collect()
}

pub(super) async fn unless<F: Future, S: Future<Output = Error>>(
    work: F,
    stop: S,
) -> Result<F::Output> {
    tokio::select! {
        biased;
        outcome = work => Ok(outcome),
        error = stop => Err(error),
    }
}

// The timer must be made inside the runtime that will drive it.
async fn tokio_timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

/// The task that moves a connection's bytes; dropped, it ends, and with it the socket.
struct Pump(JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Moves bytes until the connection ends, noting the one warning that changes what a commit means.
async fn pump(mut connection: PgConnection, doubtful_commit: Arc<AtomicBool>) {
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        if let AsyncMessage::Notice(notice) = message
            && notice.code().code() == "01000"
            && notice.routine() == Some("SyncRepWaitForLSN")
        {
            doubtful_commit.store(true, Ordering::Release);
        }
    }
}
