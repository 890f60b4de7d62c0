//! A model of the database: rows with locks, statements that see a snapshot, transactions that commit in an order.
//!
//! Each operation stands for a statement in `rust/core/queries` (named beside it); `looked_at.rs` makes whoever changes
//! one of these look at the model too. What PostgreSQL does by itself is modelled as it is documented: READ COMMITTED takes a
//! snapshot for each statement, a row that another transaction has changed is waited for and looked at again, UNIQUE
//! sees what is not committed.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;

use crate::clockwork::{Micros, Slot};
use crate::ledger::{End, Happened, Ledger};
use crate::mutants::Mutant;

pub type Session = u32;
pub type TxId = u64;

/// How long a backend may sit in a fenced transaction past its session's deadline: `collect.rs`, `STALLED_GRACE`.
pub const STALLED_GRACE: Micros = 250_000;

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Connecting.
    Connect,
    /// `session/start.sql`.
    Start { session: Session, interval: Micros },
    /// `session/renew.sql`.
    Renew(Session),
    /// BEGIN with `session/fence.sql`.
    Fence(Session),
    /// A statement of the user's.
    Write {
        machine: usize,
        token: i64,
        number: u64,
    },
    /// `SELECT 1; COMMIT`.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// BEGIN with `claim/scan.sql`.
    Claim {
        session: Session,
        seen: Option<Vec<usize>>,
    },
    /// `claim/verify.sql`.
    Verify(Session),
    /// BEGIN with `work/finish.sql`, `fail.sql`, `cancel.sql`.
    End {
        session: Session,
        machine: usize,
        token: i64,
        how: End,
        wait: Micros,
    },
    /// `work/finish.sql` and its like in a transaction of its own, sent in one trip.
    EndAtOnce {
        session: Session,
        machine: usize,
        token: i64,
        how: End,
    },
    /// `work/recorded.sql`.
    Recorded { machine: usize, token: i64 },
    /// `collect/outlook.sql`.
    Look,
    /// BEGIN with `collect/end_stalled.sql`, `lock_expired.sql`, `busy.sql`, `lose.sql`.
    Collect { seen: Option<Vec<Session>> },
    /// `server/transaction_status.sql`, and `server/end_unfinished.sql` if it goes on.
    Status(TxId),
}

/// What a statement answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// No row.
    Nothing,
    /// A transaction is open.
    Opened(TxId),
    Leased {
        machine: usize,
        token: i64,
    },
    Outlook {
        expired: bool,
        next: Option<Micros>,
    },
    Status(Option<bool>),
}

/// What an executed statement leads to.
pub struct Executed {
    pub reply: Reply,
    /// Somebody may go on who waits.
    pub released: bool,
    /// Connections that were ended.
    pub ended: Vec<Connection>,
}

/// A connection, as both ends see it.
#[derive(Clone)]
pub struct Connection(Rc<Ends>);

struct Ends {
    number: u64,
    process: usize,
    broken: Cell<bool>,
    closed: Cell<bool>,
    last_arrival: Cell<Micros>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0.number)
    }
}

impl Connection {
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The client cannot use it any more.
    pub fn broken(&self) -> bool {
        self.0.broken.get()
    }

    /// The server has closed it.
    pub fn closed(&self) -> bool {
        self.0.closed.get()
    }

    /// True the first time.
    pub fn break_client(&self) -> bool {
        !self.0.broken.replace(true)
    }

    /// True the first time.
    pub fn break_server(&self) -> bool {
        !self.0.closed.replace(true)
    }

    /// Messages arrive in the order in which they were sent.
    pub fn arrival(&self, wanted: Micros) -> Micros {
        let at = wanted.max(self.0.last_arrival.get() + 1);
        self.0.last_arrival.set(at);
        at
    }
}

#[derive(Debug, Clone, Default)]
pub struct SessionRow {
    pub deadline: Micros,
    pub interval: Micros,
    /// Locked FOR KEY SHARE by these.
    pub shared: Vec<TxId>,
    /// Locked FOR UPDATE, and deleted when it commits, by this.
    pub taken: Option<TxId>,
}

#[derive(Debug, Clone)]
pub struct WorkRow {
    pub session: Session,
    pub token: i64,
    /// Not committed yet.
    pub inserted_by: Option<TxId>,
    /// Locked; deleted when it commits, if `deleted`.
    pub locked_by: Option<TxId>,
    pub deleted: bool,
}

#[derive(Debug, Default)]
pub struct Machine {
    pub work: Option<WorkRow>,
    pub token: i64,
    /// What a finish records: the machine does not match any more.
    pub tagged: bool,
    pub backoff_until: Micros,
    pub locked_by: Option<TxId>,
}

pub enum Effect {
    Note(Happened),
    Tag(usize),
    BackOff(usize, Micros),
}

pub struct Transaction {
    pub connection: Connection,
    pub effects: Vec<Effect>,
    /// The session by whose deadline it is ended (an advisory lock names it).
    pub marked: Option<Session>,
    pub leased: Vec<usize>,
}

type Waiting = (Connection, Op, Option<Slot>, Micros);

pub struct Database {
    pub sessions: BTreeMap<Session, SessionRow>,
    pub machines: Vec<Machine>,
    pub open: BTreeMap<TxId, Transaction>,
    pub status: HashMap<TxId, bool>,
    pub by_connection: HashMap<u64, TxId>,
    pub connections: Vec<Connection>,
    pub next_tx: TxId,
    pub next_connection: u64,
    /// How far its clock has been set from the world's.
    pub offset: i64,
    /// Statements that wait for a lock, since when.
    pub waiting: Vec<(Micros, Waiting)>,
    pub mutant: Option<Mutant>,
}

impl Database {
    pub fn new(machines: usize, mutant: Option<Mutant>) -> Self {
        Database {
            sessions: BTreeMap::new(),
            machines: (0..machines).map(|_| Machine::default()).collect(),
            open: BTreeMap::new(),
            status: HashMap::new(),
            by_connection: HashMap::new(),
            connections: Vec::new(),
            next_tx: 1,
            next_connection: 0,
            offset: 0,
            waiting: Vec::new(),
            mutant,
        }
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn connect(&mut self, process: usize) -> Connection {
        self.next_connection += 1;
        let connection = Connection(Rc::new(Ends {
            number: self.next_connection,
            process,
            broken: Cell::new(false),
            closed: Cell::new(false),
            last_arrival: Cell::new(0),
        }));
        self.connections.retain(|known| !known.closed());
        self.connections.push(connection.clone());
        connection
    }

    /// Those that are open, of one process or of all.
    pub fn connections(&self, process: Option<usize>) -> Vec<Connection> {
        let open = self.connections.iter().filter(|known| !known.closed());
        open.filter(|known| process.is_none_or(|process| known.0.process == process))
            .cloned()
            .collect()
    }

    /// Sets its clock.
    pub fn step(&mut self, by: i64) {
        self.offset += by;
    }

    /// What its clock shows.
    pub fn clock(&self, now: Micros) -> Micros {
        now.saturating_add_signed(self.offset)
    }

    /// Somebody makes a machine match again, if nobody works on it.
    pub fn clear_tag(&mut self, machine: usize) -> bool {
        let machine = &mut self.machines[machine];
        if machine.tagged && machine.work.is_none() {
            machine.tagged = false;
            return true;
        }
        false
    }

    /// What is left of work when all should be done.
    pub fn leftovers(&self, now: Micros) -> Vec<String> {
        let now = self.clock(now);
        let mut found = Vec::new();
        for (number, machine) in self.machines.iter().enumerate() {
            if !machine.tagged {
                found.push(format!("machine {number} was never finished: {machine:?}"));
            }
        }
        for (id, row) in &self.sessions {
            if row.deadline + 3_000_000 < now {
                found.push(format!("session {id} was never collected: {row:?}"));
            }
        }
        found
    }

    /// Whether this transaction is still open.
    pub fn is_open(&self, tx: TxId) -> bool {
        self.open.contains_key(&tx)
    }

    /// A connection is gone, and what it had open is rolled back.
    pub fn close(&mut self, connection: &Connection) {
        if let Some(tx) = self.by_connection.get(&connection.number()).copied() {
            self.finish(tx, false, 0, &mut Ledger::new(0));
        }
    }

    pub fn finish(&mut self, id: TxId, commit: bool, now: Micros, ledger: &mut Ledger) {
        let Some(transaction) = self.open.remove(&id) else {
            return;
        };
        self.by_connection.remove(&transaction.connection.number());
        self.status.insert(id, commit);
        if commit {
            for effect in transaction.effects {
                match effect {
                    Effect::Note(happened) => {
                        if let Happened::Started { machine, .. } = happened
                            && self.machines[machine].tagged
                        {
                            ledger.violation(format!(
                                "machine {machine} was leased although it was finished"
                            ));
                        }
                        ledger.happened(happened, now);
                    }
                    Effect::Tag(machine) => self.machines[machine].tagged = true,
                    Effect::BackOff(machine, until) => self.machines[machine].backoff_until = until,
                }
            }
        }
        for machine in &mut self.machines {
            if machine.locked_by == Some(id) {
                machine.locked_by = None;
            }
            if let Some(row) = &mut machine.work {
                if row.inserted_by == Some(id) {
                    row.inserted_by = None;
                    if !commit {
                        machine.work = None;
                        continue;
                    }
                }
                if row.locked_by == Some(id) {
                    row.locked_by = None;
                    if commit && row.deleted {
                        machine.work = None;
                        continue;
                    }
                    row.deleted = false;
                }
            }
        }
        for row in self.sessions.values_mut() {
            row.shared.retain(|holder| *holder != id);
        }
        if commit {
            self.sessions.retain(|_, row| row.taken != Some(id));
        } else {
            for row in self.sessions.values_mut() {
                if row.taken == Some(id) {
                    row.taken = None;
                }
            }
        }
    }
}
