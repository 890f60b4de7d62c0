//! The statements of the model: what each of [`Op`] does to rows and locks.

use crate::clockwork::Micros;
use crate::database::{
    Connection, Database, Effect, Executed, Machine, Op, Reply, STALLED_GRACE, Session, SessionRow,
    Transaction, TxId, WorkRow,
};
use crate::ledger::{End, Happened, Ledger};
use crate::mutants::Mutant;

impl Database {
    /// The statement with the snapshot that it judges on, if it acts later than it looks.
    pub fn snapshot(&mut self, _connection: &Connection, op: &Op, now: Micros) -> Option<Op> {
        let now = self.clock(now);
        match op {
            Op::Claim {
                session,
                seen: None,
            } => {
                let eligible = |machine: &Machine| {
                    let free = machine
                        .work
                        .as_ref()
                        .is_none_or(|row| row.inserted_by.is_some());
                    free && !machine.tagged && machine.backoff_until <= now
                };
                let numbers = 0..self.machines.len();
                let seen = numbers.filter(|n| eligible(&self.machines[*n])).collect();
                Some(Op::Claim {
                    session: *session,
                    seen: Some(seen),
                })
            }
            Op::Collect { seen: None } => {
                let expired =
                    |(id, row): (&Session, &SessionRow)| (row.deadline < now).then_some(*id);
                let seen = self.sessions.iter().filter_map(expired).collect();
                Some(Op::Collect { seen: Some(seen) })
            }
            _ => None,
        }
    }

    /// Does a statement; None while it waits for a lock.
    pub fn execute(
        &mut self,
        connection: &Connection,
        op: &Op,
        now: Micros,
        ledger: &mut Ledger,
    ) -> Option<Executed> {
        let now = self.clock(now);
        let mut ended = Vec::new();
        let mut released = false;
        let reply = match op {
            Op::Connect => Reply::Done,
            Op::Start { session, interval } => {
                let row = SessionRow {
                    deadline: now + interval,
                    interval: *interval,
                    ..SessionRow::default()
                };
                self.sessions.insert(*session, row);
                Reply::Done
            }
            Op::Renew(session) => match self.sessions.get_mut(session) {
                Some(row) if row.taken.is_some() => return None,
                Some(row) if row.deadline > now => {
                    row.deadline = now + row.interval;
                    Reply::Done
                }
                _ => Reply::Nothing,
            },
            Op::Fence(session) => {
                let Some(alive) = self.key_share(*session, now)? else {
                    return Some(Executed {
                        reply: Reply::Nothing,
                        released,
                        ended,
                    });
                };
                let tx = self.begin(connection, Some(*session));
                if alive && !self.is(Mutant::CheckWithoutLock) {
                    self.share(*session, tx);
                }
                Reply::Opened(tx)
            }
            Op::Write {
                machine,
                token,
                number,
            } => {
                let tx = self.transaction(connection)?;
                let write = Happened::Write {
                    machine: *machine,
                    token: *token,
                    number: *number,
                };
                tx.effects.push(Effect::Note(write));
                Reply::Done
            }
            Op::Commit | Op::Rollback => {
                let Some(tx) = self.by_connection.get(&connection.number()).copied() else {
                    return Some(Executed {
                        reply: Reply::Nothing,
                        released,
                        ended,
                    });
                };
                self.finish(tx, matches!(op, Op::Commit), now, ledger);
                released = true;
                Reply::Done
            }
            Op::Claim { session, seen } => {
                self.claim(connection, *session, seen.as_deref()?, now)?
            }
            Op::Verify(session) => self.verify(connection, *session, now)?,
            Op::End {
                session,
                machine,
                token,
                how,
                wait,
            } => {
                let lease = (*session, *machine, *token);
                self.end(connection, lease, *how, now + wait)?
            }
            Op::EndAtOnce {
                session,
                machine,
                token,
                how,
            } => match self.end(connection, (*session, *machine, *token), *how, now)? {
                Reply::Opened(tx) => {
                    self.finish(tx, true, now, ledger);
                    released = true;
                    Reply::Done
                }
                nothing => nothing,
            },
            Op::Recorded { machine, token } => match ledger.is_ended(*machine, *token) {
                true => Reply::Done,
                false => Reply::Nothing,
            },
            Op::Look => {
                let others = self.sessions.values().filter(|row| row.taken.is_none());
                let deadlines = others.map(|row| row.deadline);
                let expired = deadlines.clone().any(|deadline| deadline < now);
                let next = deadlines.filter(|deadline| *deadline >= now).min();
                Reply::Outlook {
                    expired,
                    next: next.map(|next| next - now),
                }
            }
            Op::Collect { seen } => {
                ended = self.end_stalled(now, ledger);
                released = !ended.is_empty();
                self.collect(connection, seen.as_deref()?, now)?
            }
            Op::Status(tx) => {
                let known = self.status.get(tx).copied();
                if known.is_none()
                    && !self.is(Mutant::SettleImpatient)
                    && let Some(unfinished) = self.open.get(tx)
                {
                    // What its client gave up is ended, so that the next look finds it aborted.
                    ended.push(unfinished.connection.clone());
                    self.finish(*tx, false, now, ledger);
                    released = true;
                }
                Reply::Status(known)
            }
        };
        Some(Executed {
            reply,
            released,
            ended,
        })
    }

    fn begin(&mut self, connection: &Connection, marked: Option<Session>) -> TxId {
        let id = self.next_tx;
        self.next_tx += 1;
        let transaction = Transaction {
            connection: connection.clone(),
            effects: Vec::new(),
            marked,
            leased: Vec::new(),
        };
        self.open.insert(id, transaction);
        self.by_connection.insert(connection.number(), id);
        id
    }

    fn transaction(&mut self, connection: &Connection) -> Option<&mut Transaction> {
        let id = self.by_connection.get(&connection.number())?;
        self.open.get_mut(id)
    }

    /// Whether a session lives, to one that locks it FOR KEY SHARE; outer None: wait, inner None: it is gone.
    fn key_share(&self, session: Session, now: Micros) -> Option<Option<bool>> {
        match self.sessions.get(&session) {
            Some(row) if row.taken.is_some() => None,
            Some(row) if row.deadline > now || self.is(Mutant::FenceDropped) => Some(Some(true)),
            _ if self.is(Mutant::FenceDropped) => Some(Some(false)),
            _ => Some(None),
        }
    }

    fn share(&mut self, session: Session, tx: TxId) {
        if let Some(row) = self.sessions.get_mut(&session) {
            row.shared.push(tx);
        }
    }

    fn claim(
        &mut self,
        connection: &Connection,
        session: Session,
        seen: &[usize],
        now: Micros,
    ) -> Option<Reply> {
        let alive = match self.key_share(session, now)? {
            Some(alive) => alive,
            None if self.is(Mutant::ClaimWithoutSession) => false,
            None => {
                let tx = self.begin(connection, None);
                return Some(Reply::Opened(tx));
            }
        };
        let tx = self.begin(connection, Some(session));
        if alive {
            self.share(session, tx);
        }
        // A machine's row is locked while it is claimed, so that rivals pass it over; UNIQUE guards what they insert.
        let candidate = seen
            .iter()
            .copied()
            .find(|n| self.machines[*n].locked_by.is_none());
        if let Some(number) = candidate {
            let machine = &mut self.machines[number];
            machine.locked_by = Some(tx);
            if machine.work.is_none() {
                if self.mutant != Some(Mutant::TokenKept) || machine.token == 0 {
                    machine.token += 1;
                }
                machine.work = Some(WorkRow {
                    session,
                    token: machine.token,
                    inserted_by: Some(tx),
                    locked_by: None,
                    deleted: false,
                });
                self.open.get_mut(&tx)?.leased.push(number);
            }
        }
        Some(Reply::Opened(tx))
    }

    fn verify(&mut self, connection: &Connection, session: Session, now: Micros) -> Option<Reply> {
        let careless = self.is(Mutant::ClaimWithoutVerify);
        let tx = self.by_connection.get(&connection.number()).copied()?;
        let leased = std::mem::take(&mut self.open.get_mut(&tx)?.leased);
        let mut reply = Reply::Nothing;
        for number in leased {
            let machine = &mut self.machines[number];
            if !careless && (machine.tagged || machine.backoff_until > now) {
                machine.work = None;
                continue;
            }
            let token = machine.token;
            let note = Effect::Note(Happened::Started {
                machine: number,
                token,
                session,
            });
            self.open.get_mut(&tx)?.effects.push(note);
            reply = Reply::Leased {
                machine: number,
                token,
            };
        }
        Some(reply)
    }

    fn end(
        &mut self,
        connection: &Connection,
        (session, number, token): (Session, usize, i64),
        how: End,
        until: Micros,
    ) -> Option<Reply> {
        let machine = &mut self.machines[number];
        let mine = |row: &&mut WorkRow| {
            row.session == session && row.token == token && row.inserted_by.is_none()
        };
        let row = machine.work.as_mut().filter(mine);
        if row.as_ref().is_some_and(|row| row.locked_by.is_some()) {
            return None;
        }
        if row.is_none() && !self.is(Mutant::FinishWithoutCount) {
            return Some(Reply::Nothing);
        }
        let tx = self.begin(connection, Some(session));
        let machine = &mut self.machines[number];
        let mut effects = Vec::new();
        if let Some(row) = machine.work.as_mut().filter(mine) {
            row.locked_by = Some(tx);
            row.deleted = true;
            effects.push(Effect::Note(Happened::Ended {
                machine: number,
                token,
                how,
            }));
        }
        match how {
            End::Finished => effects.push(Effect::Tag(number)),
            End::Failed => effects.push(Effect::BackOff(number, until)),
            End::Canceled | End::Lost => {}
        }
        self.open.get_mut(&tx)?.effects = effects;
        Some(Reply::Opened(tx))
    }

    fn end_stalled(&mut self, now: Micros, ledger: &mut Ledger) -> Vec<Connection> {
        let mut ended = Vec::new();
        for (id, transaction) in &self.open {
            let dead = transaction.marked.is_some_and(|session| {
                let row = self.sessions.get(&session);
                row.is_some_and(|row| row.deadline + STALLED_GRACE < now)
            });
            if dead {
                ended.push((*id, transaction.connection.clone()));
            }
        }
        let mut connections = Vec::new();
        for (id, connection) in ended {
            self.finish(id, false, now, ledger);
            connections.push(connection);
        }
        connections
    }

    fn collect(&mut self, connection: &Connection, seen: &[Session], now: Micros) -> Option<Reply> {
        let polite = !self.is(Mutant::CollectWithoutSkipLocked);
        let mut free = Vec::new();
        for session in seen {
            let Some(row) = self.sessions.get(session) else {
                continue;
            };
            // Looked at again, as every locked row is.
            if row.deadline >= now {
                continue;
            }
            if row.taken.is_some() || !row.shared.is_empty() {
                if !polite {
                    return None;
                }
                continue;
            }
            let busy = |machine: &Machine| {
                let work = machine
                    .work
                    .as_ref()
                    .filter(|work| work.session == *session);
                work.is_some_and(|work| work.locked_by.is_some())
            };
            if self.machines.iter().any(busy) {
                if !polite {
                    return None;
                }
                continue;
            }
            free.push(*session);
        }
        if free.is_empty() {
            return Some(Reply::Nothing);
        }
        let tx = self.begin(connection, None);
        for session in free {
            self.sessions.get_mut(&session)?.taken = Some(tx);
            for (number, machine) in self.machines.iter_mut().enumerate() {
                let of_it =
                    |row: &&mut WorkRow| row.session == session && row.inserted_by.is_none();
                if let Some(row) = machine.work.as_mut().filter(of_it) {
                    row.locked_by = Some(tx);
                    row.deleted = true;
                    let note = Happened::Ended {
                        machine: number,
                        token: row.token,
                        how: End::Lost,
                    };
                    self.open.get_mut(&tx)?.effects.push(Effect::Note(note));
                }
            }
        }
        Some(Reply::Opened(tx))
    }
}
