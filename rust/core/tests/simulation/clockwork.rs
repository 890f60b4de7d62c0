//! Time, tasks and the network of a simulated world: one thread, one seed, no clock but its own.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::database::{Connection, Database, Op, Reply};
use crate::faults::Cut;
use crate::ledger::Ledger;
use crate::mutants::Mutant;

/// Microseconds since the beginning of the world.
pub type Micros = u64;

/// The server ends a transaction of the core's own that sits idle for so long: `transaction.rs`, `IDLE_LIMIT`.
const IDLE_LIMIT: Micros = 3_000_000;

/// So many microseconds.
pub fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What a call that brought no answer came to, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

enum Due {
    Wake(usize),
    Run(Box<dyn FnOnce(&Sim)>),
}

struct Entry {
    at: Micros,
    number: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

type Task = Option<Pin<Box<dyn Future<Output = ()>>>>;

/// A process of the world: its tasks stop and die together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process {
    /// Stopped until then.
    pub paused_until: Micros,
    /// How much faster than the database's its clock runs, in millionths.
    pub drift: i64,
    /// Its messages take so much longer until then.
    pub slow: (Micros, Micros),
    /// What happens to its next message.
    pub cut: Option<Cut>,
    /// What it sends until then is lost.
    pub parted_until: Micros,
    /// It is stopped for so long at its next COMMIT (true), or whatever it sends.
    pub stall: Option<(bool, Micros)>,
    /// How often it was stopped.
    pub pauses: u32,
}

struct World {
    now: Cell<Micros>,
    number: Cell<u64>,
    current: Cell<usize>,
    queue: RefCell<BinaryHeap<Reverse<Entry>>>,
    tasks: RefCell<Vec<(usize, Task)>>,
    processes: RefCell<Vec<Process>>,
    rng: RefCell<fastrand::Rng>,
    db: RefCell<Database>,
    ledger: RefCell<Ledger>,
    trace: RefCell<Vec<String>>,
    tracing: bool,
    mutant: Option<Mutant>,
}

/// A handle on the world.
#[derive(Clone)]
pub struct Sim(Rc<World>);

impl Sim {
    pub fn new(seed: u64, machines: usize, mutant: Option<Mutant>, tracing: bool) -> Sim {
        Sim(Rc::new(World {
            now: Cell::new(0),
            number: Cell::new(0),
            current: Cell::new(usize::MAX),
            queue: RefCell::default(),
            tasks: RefCell::default(),
            processes: RefCell::default(),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            db: RefCell::new(Database::new(machines, mutant)),
            ledger: RefCell::new(Ledger::new(machines)),
            trace: RefCell::default(),
            tracing,
            mutant,
        }))
    }

    pub fn now(&self) -> Micros {
        self.0.now.get()
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.0.mutant == Some(mutant)
    }

    pub fn db<T>(&self, look: impl FnOnce(&mut Database) -> T) -> T {
        look(&mut self.0.db.borrow_mut())
    }

    pub fn ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.0.ledger.borrow_mut())
    }

    /// Evenly from 0 to below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.0.rng.borrow_mut().u64(0..end.max(1))
    }

    /// Evenly in [0, 1).
    pub fn chance(&self) -> f64 {
        self.0.rng.borrow_mut().f64()
    }

    /// One line of the story, kept only if somebody will read it.
    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.0.tracing {
            let line = format!("{:>9.3} ms  {}", self.now() as f64 / 1e3, line());
            self.0.trace.borrow_mut().push(line);
        }
    }

    pub fn story(&self) -> Vec<String> {
        self.0.trace.take()
    }

    pub fn add_process(&self, process: Process) -> usize {
        let mut processes = self.0.processes.borrow_mut();
        processes.push(process);
        processes.len() - 1
    }

    pub fn process<T>(&self, number: usize, change: impl FnOnce(&mut Process) -> T) -> T {
        change(&mut self.0.processes.borrow_mut()[number])
    }

    /// Its tasks go; what it has said is on its way still, and the server hears of its end now or, `silent`, much later.
    pub fn kill(&self, process: usize, silent: bool) {
        for connection in self.db(|db| db.connections(Some(process))) {
            connection.break_client();
            let heard = self.now() + self.below(if silent { 12_000_000 } else { 5_000 });
            self.at(connection.arrival(heard), move |sim| {
                sim.hang_up(&connection)
            });
        }
        let running = self.0.current.get();
        for (number, (owner, task)) in self.0.tasks.borrow_mut().iter_mut().enumerate() {
            assert!(number != running, "a task cannot kill its own process");
            if *owner == process {
                *task = None;
            }
        }
    }

    /// The time on the clock of a process.
    pub fn local(&self, process: usize) -> Micros {
        let drift = self.process(process, |p| p.drift);
        let now = i64::try_from(self.now()).unwrap_or(i64::MAX);
        u64::try_from(now + now / 1_000_000 * drift + now % 1_000_000 * drift / 1_000_000)
            .unwrap_or(0)
    }

    pub fn at(&self, at: Micros, what: impl FnOnce(&Sim) + 'static) {
        self.push(at, Due::Run(Box::new(what)));
    }

    fn push(&self, at: Micros, due: Due) {
        let number = self.0.number.get();
        self.0.number.set(number + 1);
        let at = at.max(self.now());
        self.0
            .queue
            .borrow_mut()
            .push(Reverse(Entry { at, number, due }));
    }

    pub fn spawn(&self, process: usize, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.0.tasks.borrow_mut();
        tasks.push((process, Some(Box::pin(task))));
        self.push(self.now(), Due::Wake(tasks.len() - 1));
    }

    /// Lets the world go on until then.
    pub fn run(&self, until: Micros) {
        loop {
            let entry = {
                let mut queue = self.0.queue.borrow_mut();
                match queue.peek() {
                    Some(Reverse(entry)) if entry.at <= until => queue.pop().expect("peeked").0,
                    _ => break,
                }
            };
            self.0.now.set(entry.at);
            match entry.due {
                Due::Run(what) => what(self),
                Due::Wake(task) => self.wake(task),
            }
        }
        self.0.now.set(until);
    }

    /// The world ends; what refers to it goes, so that its memory does.
    pub fn end(&self) {
        self.0.tasks.borrow_mut().clear();
        self.0.queue.borrow_mut().clear();
    }

    fn wake(&self, number: usize) {
        let (owner, task) = {
            let mut tasks = self.0.tasks.borrow_mut();
            let (owner, task) = &mut tasks[number];
            (*owner, task.take())
        };
        let Some(mut task) = task else { return };
        let paused = self.process(owner, |p| p.paused_until);
        let put_back = if paused > self.now() {
            self.push(paused, Due::Wake(number));
            true
        } else {
            self.0.current.set(number);
            let poll = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            self.0.current.set(usize::MAX);
            poll.is_pending()
        };
        if put_back {
            self.0.tasks.borrow_mut()[number].1 = Some(task);
        }
    }

    /// Waits so long on the clock of a process.
    pub fn sleep(&self, duration: Micros) -> impl Future<Output = ()> + use<> {
        let sim = self.clone();
        let until = self.now() + duration;
        let mut told = false;
        std::future::poll_fn(move |_| {
            if sim.now() >= until {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut told, true) {
                sim.push(until, Due::Wake(sim.0.current.get()));
            }
            Poll::Pending
        })
    }

    /// How long a message is on its way.
    fn delay(&self, process: usize) -> Micros {
        let slow = self.process(process, |p| p.slow);
        let extra = if self.now() < slow.0 {
            self.below(slow.1)
        } else {
            0
        };
        // Most are quick, and one in thirty is not.
        let usual = if self.below(30) == 0 { 40_000 } else { 2_000 };
        100 + self.below(usual) + extra
    }

    /// One statement over a connection, for `limit` at most. What breaks it leaves the connection unusable.
    pub fn call(
        &self,
        process: usize,
        connection: &Connection,
        op: Op,
        limit: Micros,
    ) -> impl Future<Output = Result<Reply, Broken>> + use<> {
        let sim = self.clone();
        let connection = connection.clone();
        let slot: Slot = Rc::default();
        let mut op = Some(op);
        std::future::poll_fn(move |_| {
            if let Some(op) = op.take() {
                sim.send(process, &connection, op, limit, &slot);
            }
            match *slot.borrow() {
                Some(Answer::Here(answer)) => Poll::Ready(answer),
                _ => Poll::Pending,
            }
        })
    }

    fn send(&self, process: usize, connection: &Connection, op: Op, limit: Micros, slot: &Slot) {
        *slot.borrow_mut() = Some(Answer::Awaited(self.0.current.get()));
        if connection.broken() {
            self.answer(slot, Err(Broken));
            return;
        }
        let commit = op == Op::Commit;
        let stalled = self.process(process, |p| {
            let (_, length) = p.stall.take_if(|(at_commit, _)| commit || !*at_commit)?;
            p.paused_until = p.paused_until.max(self.now() + length);
            p.pauses += 1;
            Some(length)
        });
        let parted = self.now() < self.process(process, |p| p.parted_until);
        let cut = self.process(process, |p| p.cut.take_if(|cut| commit || !cut.at_commit));
        // Who is stopped sends when it goes on.
        let sent = self.now() + stalled.unwrap_or(0);
        let (there, back) = (self.delay(process), self.delay(process));
        let arrival = connection.arrival(sent + there);
        self.trace(|| {
            format!(
                "p{process} {connection:?} sends {op:?}{}",
                if cut.is_some() { " (cut)" } else { "" }
            )
        });
        let (arrives, returns) = match cut {
            None => (true, true),
            Some(cut) => {
                let (client, server) = (connection.clone(), connection.clone());
                let told = slot.clone();
                self.at(sent + cut.client_notices, move |sim| {
                    client.break_client();
                    sim.answer(&told, Err(Broken));
                });
                self.at(arrival.max(sent + cut.server_notices) + 1, move |sim| {
                    sim.hang_up(&server)
                });
                (cut.after_execution, false)
            }
        };
        if arrives && !parted {
            let (connection, slot) = (connection.clone(), returns.then(|| slot.clone()));
            self.at(arrival, move |sim| sim.execute(&connection, op, slot, back));
        }
        let (connection, slot) = (connection.clone(), slot.clone());
        self.at(sent + limit, move |sim| {
            if slot.borrow().is_some() && !matches!(*slot.borrow(), Some(Answer::Here(_))) {
                sim.abandon(&connection);
                sim.answer(&slot, Err(Broken));
            }
        });
    }

    /// The client drops the connection; the server hears of it some time later.
    pub fn abandon(&self, connection: &Connection) {
        if connection.break_client() {
            let heard = connection.arrival(self.now() + 1 + self.below(5_000)) + 1;
            let connection = connection.clone();
            self.at(heard, move |sim| sim.hang_up(&connection));
        }
    }

    fn hang_up(&self, connection: &Connection) {
        if connection.break_server() {
            self.trace(|| format!("{connection:?} is closed at the server"));
            self.db(|db| db.close(connection));
            self.released();
        }
    }

    /// All connections break and all open transactions are gone.
    pub fn crash_database(&self) {
        self.trace(|| "the database crashes".to_owned());
        for connection in self.db(|db| db.connections(None)) {
            connection.break_client();
            self.hang_up(&connection);
        }
    }

    fn answer(&self, slot: &Slot, answer: Result<Reply, Broken>) {
        let mut held = slot.borrow_mut();
        if let Some(Answer::Awaited(task)) = *held {
            *held = Some(Answer::Here(answer));
            self.push(self.now(), Due::Wake(task));
        }
    }

    fn execute(&self, connection: &Connection, op: Op, slot: Option<Slot>, back: Micros) {
        if connection.closed() {
            if let Some(slot) = slot {
                let connection = connection.clone();
                self.at(self.now() + back, move |sim| {
                    connection.break_client();
                    sim.answer(&slot, Err(Broken));
                });
            }
            return;
        }
        let now = self.now();
        if let Some(later) = self.db(|db| db.snapshot(connection, &op, now)) {
            // A statement that judges on its snapshot first, and acts later.
            let connection = connection.clone();
            let pause = 10 + self.below(30_000);
            self.at(now + pause, move |sim| {
                sim.act(&connection, later, slot, back, None)
            });
        } else {
            self.act(connection, op, slot, back, None);
        }
    }

    fn act(
        &self,
        connection: &Connection,
        op: Op,
        slot: Option<Slot>,
        back: Micros,
        since: Option<Micros>,
    ) {
        if connection.closed() {
            self.execute(connection, op, slot, back);
            return;
        }
        let now = self.now();
        let done = self.db(|db| self.ledger(|ledger| db.execute(connection, &op, now, ledger)));
        match done {
            None => {
                let waiting = (connection.clone(), op, slot, back);
                self.db(|db| db.waiting.push((since.unwrap_or(now), waiting)));
            }
            Some(done) => {
                self.trace(|| format!("    {connection:?} did {op:?}: {:?}", done.reply));
                for ended in done.ended {
                    ended.break_server();
                    self.db(|db| db.close(&ended));
                }
                if done.released {
                    self.released();
                }
                if let (Op::Collect { .. }, Reply::Opened(tx)) = (&op, done.reply)
                    && !self.is(Mutant::CollectorMayIdle)
                {
                    let connection = connection.clone();
                    self.at(now + IDLE_LIMIT, move |sim| {
                        if sim.db(|db| db.is_open(tx)) {
                            sim.hang_up(&connection);
                        }
                    });
                }
                if let Some(slot) = slot {
                    let connection = connection.clone();
                    self.at(now + back, move |sim| {
                        // What the server has closed meanwhile, its client learns with the next message.
                        if !connection.broken() {
                            sim.answer(&slot, Ok(done.reply));
                        }
                    });
                }
            }
        }
    }

    /// Locks were let go of: whoever waits tries again.
    fn released(&self) {
        let waiting = self.db(|db| std::mem::take(&mut db.waiting));
        for (since, (connection, op, slot, back)) in waiting {
            if matches!(op, Op::Collect { .. }) {
                let waited = self.now() - since;
                self.ledger(|ledger| ledger.collection_waited(waited));
            }
            self.at(self.now(), move |sim| {
                sim.act(&connection, op, slot, back, Some(since))
            });
        }
    }
}

pub enum Answer {
    /// By this task.
    Awaited(usize),
    Here(Result<Reply, Broken>),
}

/// Where an answer goes.
pub type Slot = Rc<RefCell<Option<Answer>>>;
