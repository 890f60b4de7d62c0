//! A worker process: its heartbeat, its collection and its work, on the core's own state machines.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bmdb_core::backoff::Backoff;
use bmdb_core::lease::{Loss, Moment, Trust, beat_period, retry_pause, trust};
use bmdb_core::lookout::{Lookout, Outlook};
use bmdb_core::retry::{Action, Event, Failure, Limits, Machine, Protocol, Verdict};

use crate::clockwork::{Broken, Micros, Sim, micros};
use crate::database::{Connection, Op, Reply, Session, TxId};
use crate::faults::QUIET;
use crate::ledger::{End, Told};
use crate::mutants::Mutant;

/// How long a step of the core's own may take: `pool.rs`, `STEP_LIMIT`; shorter here, as everything is.
const STEP: Micros = 600_000;

/// How long the outcome of a lost COMMIT is asked for.
const SETTLING: Micros = 3_000_000;

/// A process from its start on, with one session after another.
pub async fn process(sim: Sim, number: usize, interval: Micros) {
    let interval = Duration::from_micros(interval);
    sim.spawn(number, collection(sim.clone(), number, interval));
    loop {
        let session = sim.ledger(|ledger| ledger.next_session());
        let sent = moment(&sim, number);
        let connection = sim.db(|db| db.connect(number));
        let start = Op::Start {
            session,
            interval: micros(interval),
        };
        if sim.call(number, &connection, start, STEP).await.is_ok() {
            let worker = Worker {
                sim: sim.clone(),
                number,
                session,
                trust: Rc::new(RefCell::new(Trust::new(interval, sent))),
                connection: Rc::default(),
                failures: Rc::default(),
            };
            sim.spawn(number, heartbeat(worker.clone(), interval));
            worker.work().await;
        }
        sim.abandon(&connection);
        sim.sleep(10_000 + sim.below(300_000)).await;
    }
}

fn moment(sim: &Sim, number: usize) -> Moment {
    Moment::since_boot(Duration::from_micros(sim.local(number)))
}

#[derive(Clone)]
struct Worker {
    sim: Sim,
    number: usize,
    session: Session,
    trust: Rc<RefCell<Trust>>,
    connection: Rc<RefCell<Option<Connection>>>,
    failures: Rc<Cell<u32>>,
}

/// What is done in a transaction beside what opens it.
#[derive(Clone, Copy)]
enum Body {
    Nothing,
    Verify,
    Write {
        machine: usize,
        token: i64,
        number: u64,
        pause: Micros,
    },
}

impl Worker {
    fn now(&self) -> Moment {
        moment(&self.sim, self.number)
    }

    fn lost(&self) -> bool {
        let lost = self.trust.borrow_mut().loss_at(self.now()).is_some();
        lost && !self.sim.is(Mutant::TrustIgnored)
    }

    fn renewed(&self, sent: Moment) {
        let now = self.now();
        let mut held = self.trust.borrow_mut();
        let margin = held.interval() - trust(held.interval());
        let dropped = self.sim.is(Mutant::MarginDropped);
        held.renewed(if dropped { sent + margin } else { sent }, now);
    }

    /// Acts on the machine as its holder for a moment that the margin allows for.
    async fn act(&self, machine: usize, token: i64) {
        let (sim, pauses) = (&self.sim, || self.sim.process(self.number, |p| p.pauses));
        let before = pauses();
        if self.lost() {
            return;
        }
        sim.sleep(sim.below(micros(self.interval()) / 20)).await;
        // Who is stopped between a look and what follows has the token only.
        if pauses() == before {
            sim.ledger(|ledger| ledger.acts(machine, token));
        }
    }

    async fn work(&self) {
        while !self.lost() {
            let claim = Op::Claim {
                session: self.session,
                seen: None,
            };
            let note = |told| {
                self.sim
                    .ledger(|ledger| ledger.told_of_claim(self.session, told))
            };
            note(None);
            let (told, leased) = self.transact(claim, Body::Verify).await;
            note(Some(told));
            match (told, leased) {
                (Told::Done, Some((machine, token))) => {
                    self.hold(machine, token).await;
                }
                // A lease that nobody knows of goes with its session.
                (Told::Unknown, _) => return self.leave(),
                _ => self.idle().await,
            }
        }
    }

    /// Waits before the next look for work; nobody hurries once it is quiet.
    async fn idle(&self) {
        let longest = if self.sim.now() < QUIET {
            200_000
        } else {
            1_000_000
        };
        self.sim.sleep(20_000 + self.sim.below(longest)).await;
    }

    async fn hold(&self, machine: usize, token: i64) {
        let sim = &self.sim;
        let busy = sim.now() < QUIET;
        if busy && sim.below(3) == 0 {
            // Long work without a transaction.
            let until = sim.now() + sim.below(2 * micros(self.interval()));
            while sim.now() < until && !self.lost() {
                self.act(machine, token).await;
                sim.sleep(sim.below(50_000)).await;
            }
        }
        for _ in 0..sim.below(if busy { 4 } else { 2 }) {
            self.act(machine, token).await;
            if self.lost() {
                return;
            }
            let number = sim.ledger(|ledger| ledger.next_write());
            let pause = if sim.below(3) == 0 {
                sim.below(400_000)
            } else {
                0
            };
            let write = Body::Write {
                machine,
                token,
                number,
                pause,
            };
            let note = |told| sim.ledger(|ledger| ledger.told_of_write(number, told));
            note(None);
            let (told, _) = self.transact(Op::Fence(self.session), write).await;
            note(Some(told));
            sim.sleep(sim.below(100_000)).await;
        }
        self.act(machine, token).await;
        let how = match sim.below(10) {
            0 if busy => End::Canceled,
            1 | 2 if busy => End::Failed,
            _ => End::Finished,
        };
        let wait = match how {
            End::Failed => {
                self.failures.set(self.failures.get() + 1);
                let backoff = Backoff::new(0.5, Some(2.0), 2.0, 0.0).expect("sound");
                let period = backoff
                    .schedule(self.failures.get().min(4) as usize)
                    .pop()
                    .unwrap_or(1);
                u64::try_from(period).unwrap_or(1) * 1_000_000
            }
            _ => 0,
        };
        // An end that has failed may be tried again, as long as the lease is there.
        for _ in 0..5 {
            if self.lost() {
                return;
            }
            let end = Op::End {
                session: self.session,
                machine,
                token,
                how,
                wait,
            };
            let note = |told| sim.ledger(|ledger| ledger.told_of_end(machine, token, told));
            note(None);
            let told = match (how, sim.below(2)) {
                (End::Finished | End::Canceled, 0) => self.end_at_once(machine, token, how).await,
                _ => self.transact(end, Body::Nothing).await.0,
            };
            note(Some(told));
            match told {
                Told::Done => return,
                Told::Unknown => return self.leave(),
                Told::Failed => sim.sleep(50_000).await,
            }
        }
        self.leave();
    }

    fn interval(&self) -> Duration {
        self.trust.borrow().interval()
    }

    fn leave(&self) {
        self.trust.borrow_mut().lose(Loss::Closed);
    }

    async fn connection(&self) -> Result<Connection, Broken> {
        let held = self.connection.borrow_mut().take();
        match held {
            Some(connection) if !connection.broken() => Ok(connection),
            _ => {
                let connection = self.sim.db(|db| db.connect(self.number));
                self.call(&connection, Op::Connect).await?;
                Ok(connection)
            }
        }
    }

    async fn call(&self, connection: &Connection, op: Op) -> Result<Reply, Broken> {
        self.sim.call(self.number, connection, op, STEP).await
    }

    /// One transaction by the core's retry machine; what is told of it, and what was leased.
    async fn transact(&self, opening: Op, body: Body) -> (Told, Option<(usize, i64)>) {
        let sim = &self.sim;
        let limits = Limits {
            max_retries: 8,
            max_elapsed: Some(Duration::from_secs(6)),
            ..Limits::default()
        };
        let mut machine = Machine::new(Protocol::Rollback, limits, true);
        let started = sim.local(self.number);
        let mut open: Option<(Connection, TxId)> = None;
        let mut last: TxId = 0;
        let mut leased = None;
        let mut action = machine.start();
        loop {
            let event = match action {
                Action::Begin { .. } => {
                    if self.lost() {
                        return (Told::Failed, None);
                    }
                    match self.begin(opening.clone()).await {
                        Ok(Some((connection, tx))) => {
                            last = tx;
                            open = Some((connection, tx));
                            Event::Begun
                        }
                        Ok(None) => return (Told::Failed, None),
                        Err(Broken) => Event::BeginFailed(Failure::Disconnected),
                    }
                }
                Action::Run { .. } => {
                    let (connection, _) = open.as_ref().expect("begun");
                    let (event, found) = self.run(connection, body).await;
                    leased = found;
                    event
                }
                Action::Commit => {
                    let (connection, _) = open.as_ref().expect("begun");
                    if self.lost() {
                        sim.abandon(connection);
                        return (Told::Failed, None);
                    }
                    match self.call(connection, Op::Commit).await {
                        // A transaction that was ended meanwhile says so.
                        Ok(Reply::Nothing) => Event::CommitFailed(Failure::Permanent),
                        Ok(_) => Event::Committed,
                        Err(Broken) if sim.is(Mutant::LostCommitFailed) => {
                            return (Told::Failed, None);
                        }
                        Err(Broken) if sim.is(Mutant::LostCommitDone) => {
                            return (Told::Done, leased);
                        }
                        Err(Broken) => Event::CommitFailed(Failure::Disconnected),
                    }
                }
                Action::Rollback => {
                    let (connection, _) = open.take().expect("begun");
                    if self.call(&connection, Op::Rollback).await.is_ok() {
                        *self.connection.borrow_mut() = Some(connection);
                    }
                    Event::RolledBack
                }
                Action::Sleep(pause) => {
                    sim.sleep(micros(pause)).await;
                    Event::Slept
                }
                Action::Settle => match self.settle(last).await {
                    Some(true) => Event::SettledCommitted,
                    Some(false) => Event::SettledAborted,
                    None => Event::Unsettled,
                },
                Action::Restart => unreachable!("another protocol's"),
                Action::Finish(verdict) => {
                    if let Some((connection, _)) = open
                        && !connection.broken()
                    {
                        *self.connection.borrow_mut() = Some(connection);
                    }
                    return match verdict {
                        Verdict::Committed => (Told::Done, leased),
                        Verdict::Ambiguous => (Told::Unknown, None),
                        _ => (Told::Failed, None),
                    };
                }
            };
            let elapsed = Duration::from_micros(sim.local(self.number).saturating_sub(started));
            action = machine.step(event, elapsed, sim.chance()).expect("in turn");
        }
    }

    /// An end in one trip; what became of a lost one, history tells.
    async fn end_at_once(&self, machine: usize, token: i64, how: End) -> Told {
        let Ok(connection) = self.connection().await else {
            return Told::Failed;
        };
        let end = Op::EndAtOnce {
            session: self.session,
            machine,
            token,
            how,
        };
        if self.lost() {
            return Told::Failed;
        }
        match self.call(&connection, end).await {
            Ok(reply) => {
                *self.connection.borrow_mut() = Some(connection);
                if reply == Reply::Done {
                    Told::Done
                } else {
                    Told::Failed
                }
            }
            Err(Broken) => {
                let Ok(connection) = self.connection().await else {
                    return Told::Unknown;
                };
                match self
                    .call(&connection, Op::Recorded { machine, token })
                    .await
                {
                    Ok(Reply::Done) => Told::Done,
                    // It may be on its way still.
                    _ => Told::Unknown,
                }
            }
        }
    }

    /// None: the session or the lease is gone.
    async fn begin(&self, opening: Op) -> Result<Option<(Connection, TxId)>, Broken> {
        let connection = self.connection().await?;
        match self.call(&connection, opening).await? {
            Reply::Opened(tx) => Ok(Some((connection, tx))),
            _ => {
                *self.connection.borrow_mut() = Some(connection);
                Ok(None)
            }
        }
    }

    async fn run(&self, connection: &Connection, body: Body) -> (Event, Option<(usize, i64)>) {
        let broken = Event::Raised(Some(Failure::Disconnected));
        match body {
            Body::Nothing => (Event::Returned, None),
            Body::Verify => match self.call(connection, Op::Verify(self.session)).await {
                Ok(Reply::Leased { machine, token }) => (Event::Returned, Some((machine, token))),
                Ok(_) => (Event::Raised(None), None),
                Err(Broken) => (broken, None),
            },
            Body::Write {
                machine,
                token,
                number,
                pause,
            } => {
                let write = Op::Write {
                    machine,
                    token,
                    number,
                };
                let written = self.call(connection, write).await;
                self.sim.sleep(pause).await;
                (
                    if written.is_ok() {
                        Event::Returned
                    } else {
                        broken
                    },
                    None,
                )
            }
        }
    }

    /// As `settle.rs`: asks until there is an answer.
    async fn settle(&self, tx: TxId) -> Option<bool> {
        let end = self.sim.now() + SETTLING;
        let mut pause = 5_000;
        while self.sim.now() < end {
            match self.connection().await {
                Ok(connection) => match self.call(&connection, Op::Status(tx)).await {
                    Ok(Reply::Status(Some(committed))) => {
                        *self.connection.borrow_mut() = Some(connection);
                        return Some(committed);
                    }
                    Ok(Reply::Status(None)) if self.sim.is(Mutant::SettleImpatient) => {
                        return Some(false);
                    }
                    Ok(_) => *self.connection.borrow_mut() = Some(connection),
                    Err(Broken) => pause = pause.max(100_000),
                },
                Err(Broken) => pause = pause.max(100_000),
            }
            self.sim.sleep(pause).await;
            pause = (pause * 2).min(500_000);
        }
        None
    }
}

/// As `heartbeat.rs`, for one session.
async fn heartbeat(worker: Worker, interval: Duration) {
    let (sim, number) = (worker.sim.clone(), worker.number);
    let mut connection: Option<Connection> = None;
    let mut failing = false;
    sim.sleep(micros(beat_period(interval)) * (50 + sim.below(50)) / 100)
        .await;
    loop {
        let left = worker.trust.borrow_mut().remaining(worker.now());
        if left.is_zero() {
            break;
        }
        let attempt = match connection {
            Some(_) => micros(retry_pause(interval)),
            None => micros(retry_pause(interval) * 2),
        };
        let limit = attempt.min(micros(left));
        let held = connection
            .take()
            .unwrap_or_else(|| sim.db(|db| db.connect(number)));
        let sent = worker.now();
        match sim
            .call(number, &held, Op::Renew(worker.session), limit)
            .await
        {
            Ok(Reply::Done) => {
                worker.renewed(sent);
                failing = false;
                connection = Some(held);
                sim.sleep(micros(beat_period(interval)) * (90 + sim.below(10)) / 100)
                    .await;
            }
            Ok(_) => {
                worker.trust.borrow_mut().lose(Loss::Gone);
            }
            Err(Broken) => {
                let pause = if failing {
                    micros(retry_pause(interval))
                        .min(micros(left) / 2)
                        .max(20_000)
                } else {
                    20_000
                };
                failing = true;
                sim.sleep(pause).await;
            }
        }
    }
    if let Some(connection) = connection {
        sim.abandon(&connection);
    }
}

/// As `heartbeat/look.rs` and `collect.rs`: any process collects what has expired.
async fn collection(sim: Sim, number: usize, interval: Duration) {
    let base = Instant::now();
    let clock = |sim: &Sim| base + Duration::from_micros(sim.local(number));
    let mut lookout = Lookout::default();
    let mut connection: Option<Connection> = None;
    loop {
        let now = clock(&sim);
        let pause = lookout
            .due()
            .map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        sim.sleep(micros(pause)).await;
        let held = match connection.take() {
            Some(held) if !held.broken() => held,
            _ => sim.db(|db| db.connect(number)),
        };
        let seen = look(&sim, number, &held).await;
        let outlook = seen.ok().map(|(expired, next)| Outlook {
            expired,
            next: next.map(Duration::from_micros),
            doomed: None,
        });
        lookout.looked(clock(&sim), outlook, beat_period(interval), sim.chance());
        connection = Some(held);
    }
}

async fn look(
    sim: &Sim,
    number: usize,
    held: &Connection,
) -> Result<(bool, Option<Micros>), Broken> {
    let call = |op| sim.call(number, held, op, STEP);
    let Reply::Outlook { expired, next } = call(Op::Look).await? else {
        return Err(Broken);
    };
    if expired && let Reply::Opened(_) = call(Op::Collect { seen: None }).await? {
        call(Op::Commit).await?;
    }
    Ok((expired, next))
}
