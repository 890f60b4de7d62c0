//! What has happened in the database, what was told to workers, and whether the two agree.

use std::collections::{BTreeMap, HashMap};

use crate::clockwork::Micros;
use crate::database::Session;

/// How a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Finished,
    Failed,
    Canceled,
    Lost,
}

/// What a commit brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    Started {
        machine: usize,
        token: i64,
        session: Session,
    },
    Ended {
        machine: usize,
        token: i64,
        how: End,
    },
    Write {
        machine: usize,
        token: i64,
        number: u64,
    },
}

/// What a worker was told of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Done,
    Failed,
    Unknown,
}

/// What was begun, and what workers were told of it. Who dies in between, or is told that nobody knows, was told nothing.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    begun: u32,
    done: u32,
    failed: u32,
    happened: u32,
}

impl Tally {
    fn told(&mut self, told: Option<Told>) {
        match told {
            None => self.begun += 1,
            Some(Told::Done) => self.done += 1,
            Some(Told::Failed) => self.failed += 1,
            Some(Told::Unknown) => {}
        }
    }

    fn is_true(&self) -> bool {
        (self.done..=self.begun - self.failed).contains(&self.happened)
    }
}

/// A collection never waits: longer than this it has.
const PATIENCE: Micros = 200_000;

#[derive(Debug, Default)]
pub struct Ledger {
    /// The highest token started on each machine.
    started: Vec<i64>,
    claims: BTreeMap<Session, Tally>,
    ends: BTreeMap<(usize, i64), Tally>,
    writes: HashMap<u64, Tally>,
    lost: BTreeMap<(usize, i64), Micros>,
    violations: Vec<String>,
    sessions: Session,
    clock_was_set: bool,
    numbers: u64,
    /// How much was done in all.
    pub cycles: u64,
    pub losses: u64,
}

impl Ledger {
    pub fn new(machines: usize) -> Self {
        Ledger {
            started: vec![0; machines],
            ..Ledger::default()
        }
    }

    /// A number for a session.
    pub fn next_session(&mut self) -> Session {
        self.sessions += 1;
        self.sessions
    }

    /// A number for a write.
    pub fn next_write(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// In the order of commits.
    pub fn happened(&mut self, happened: Happened, now: Micros) {
        match happened {
            Happened::Started {
                machine,
                token,
                session,
            } => {
                if token <= self.started[machine] {
                    self.violation(format!(
                        "machine {machine}: token {token} after {}",
                        self.started[machine]
                    ));
                }
                self.started[machine] = token;
                self.claims.entry(session).or_default().happened += 1;
            }
            Happened::Ended {
                machine,
                token,
                how,
            } => {
                let tally = self.ends.entry((machine, token)).or_default();
                let ended_before = tally.happened > 0 || self.lost.contains_key(&(machine, token));
                if ended_before {
                    self.violation(format!(
                        "machine {machine}, token {token}: ended again as {how:?}"
                    ));
                }
                if how == End::Lost {
                    self.lost.insert((machine, token), now);
                    self.losses += 1;
                } else {
                    self.ends.entry((machine, token)).or_default().happened += 1;
                    self.cycles += u64::from(how == End::Finished);
                }
            }
            Happened::Write {
                machine,
                token,
                number,
            } => {
                if token < self.started[machine] {
                    let next = self.started[machine];
                    self.violation(format!(
                        "machine {machine}: token {token} wrote after {next} had begun"
                    ));
                }
                self.writes.entry(number).or_default().happened += 1;
            }
        }
    }

    /// An attempt begins (None), or its worker is told of its end.
    pub fn told_of_claim(&mut self, session: Session, told: Option<Told>) {
        self.claims.entry(session).or_default().told(told);
    }

    pub fn told_of_end(&mut self, machine: usize, token: i64, told: Option<Told>) {
        self.ends.entry((machine, token)).or_default().told(told);
    }

    pub fn told_of_write(&mut self, number: u64, told: Option<Told>) {
        self.writes.entry(number).or_default().told(told);
    }

    /// Somebody who is not lost by its own clock acts as the holder of this lease.
    pub fn acts(&mut self, machine: usize, token: i64) {
        let started = self.started[machine];
        if token < started && !self.clock_was_set {
            self.violation(format!(
                "machine {machine}: the holder of {token} believed in it after {started} had begun"
            ));
        }
    }

    pub fn collection_waited(&mut self, waited: Micros) {
        if waited > PATIENCE {
            self.violation(format!(
                "a collection waited {} ms for a lock",
                waited / 1000
            ));
        }
    }

    /// Whether its holder has ended this lease.
    pub fn is_ended(&self, machine: usize, token: i64) -> bool {
        self.ends
            .get(&(machine, token))
            .is_some_and(|tally| tally.happened > 0)
    }

    /// From now on nobody can know better than by its own clock: the database's has been set.
    pub fn clock_was_set(&mut self) {
        self.clock_was_set = true;
    }

    /// Everything that is wrong.
    pub fn verdict(&mut self) -> Vec<String> {
        let mut found = std::mem::take(&mut self.violations);
        for (session, tally) in &self.claims {
            if !tally.is_true() {
                found.push(format!(
                    "session {session}: of its claims was told what is not so: {tally:?}"
                ));
            }
        }
        for ((machine, token), tally) in &self.ends {
            if !tally.is_true() {
                found.push(format!("machine {machine}, token {token}: of its end was told what is not so: {tally:?}"));
            }
        }
        for (number, tally) in &self.writes {
            if !tally.is_true() {
                found.push(format!(
                    "write {number}: was told what is not so: {tally:?}"
                ));
            }
        }
        found
    }
}
