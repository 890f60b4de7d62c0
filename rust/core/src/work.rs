//! Work: a lease on a machine for a process, from claim to end.

mod holding;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::backoff::{Backoff, Previous, no_backoff};
use crate::error::{DatabaseError, Error, Result};
use crate::hold::Hold;
use crate::lease::Moment;
use crate::metrics::WorkResult;
use crate::queries::{self, Query};
use crate::session::SessionState;
use crate::settle::{Claimed, name_lease};
use crate::sqlstate;
use crate::tag::Shape;
use crate::timelines::Told;
use crate::transaction::{Opening, Transaction, uuid};
use crate::value::Param;

/// The longest process name, in bytes.
pub const LONGEST_PROCESS: usize = 128;
/// The longest cause kept, in bytes; a longer one is cut and marked.
pub const LONGEST_CAUSE: usize = 8 * 1024;
/// What marks a cause that was cut.
pub const CUT_MARK: &str = " ... [cut]";

/// Where work stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkState {
    /// The lease is held, as far as is known.
    Active,
    /// An end is on its way.
    Ending,
    /// Ended by finish.
    Finished,
    /// Ended by fail.
    Failed,
    /// Ended by cancel.
    Canceled,
    /// The lease is gone without its holder's doing.
    Lost,
}

impl WorkState {
    /// For people and for Python.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WorkState::Active => "active",
            WorkState::Ending => "ending",
            WorkState::Finished => "finished",
            WorkState::Failed => "failed",
            WorkState::Canceled => "canceled",
            WorkState::Lost => "lost",
        }
    }
}

/// How work is to end.
#[derive(Debug, Clone)]
pub enum Ending {
    /// Done; the backoff is forgiven.
    Finish,
    /// Not done; not again for so many seconds.
    Fail {
        /// For people; already checked.
        cause: String,
        /// How long to leave the machine alone, in seconds.
        wait: i64,
        /// The period that the next one grows from: the wait before jitter, in seconds.
        period: i64,
    },
    /// Given back, as if it had not begun.
    Cancel,
}

impl Ending {
    fn state(&self) -> WorkState {
        match self {
            Ending::Finish => WorkState::Finished,
            Ending::Fail { .. } => WorkState::Failed,
            Ending::Cancel => WorkState::Canceled,
        }
    }

    /// The statement that does it, without changes of tags.
    #[must_use]
    pub fn query(&self) -> &'static Query {
        match self {
            Ending::Finish => &queries::WORK_FINISH,
            Ending::Fail { .. } => &queries::WORK_FAIL,
            Ending::Cancel => &queries::WORK_CANCEL,
        }
    }

    /// What history calls it.
    #[must_use]
    pub fn event(&self) -> &'static str {
        match self {
            Ending::Finish => "Finished",
            Ending::Fail { .. } => "Failed",
            Ending::Cancel => "Canceled",
        }
    }

    fn result(&self) -> WorkResult {
        match self {
            Ending::Finish => WorkResult::Finished,
            Ending::Fail { .. } => WorkResult::Failed,
            Ending::Cancel => WorkResult::Canceled,
        }
    }
}

/// Checks a process name: not empty, at most 128 bytes, no NUL.
pub fn check_process(process: &str) -> Result<()> {
    let problem = if process.is_empty() {
        "is empty".to_owned()
    } else if process.len() > LONGEST_PROCESS {
        format!(
            "has {} bytes, and {LONGEST_PROCESS} is the most",
            process.len()
        )
    } else if process.contains('\0') {
        "contains a NUL character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Value {
        message: format!("the process name {problem}"),
        out_of_range: true,
    })
}

/// Checks a cause, and cuts it to what is kept.
pub fn checked_cause(cause: &str) -> Result<String> {
    if cause.contains('\0') {
        return Err(Error::Value {
            message:
                "the cause contains a NUL character, which PostgreSQL cannot store: replace it"
                    .to_owned(),
            out_of_range: true,
        });
    }
    if cause.len() <= LONGEST_CAUSE {
        return Ok(cause.to_owned());
    }
    let kept = cause.floor_char_boundary(LONGEST_CAUSE - CUT_MARK.len());
    Ok(format!("{}{CUT_MARK}", &cause[..kept]))
}

/// Numbers the leases of this OS process.
static LEASES: AtomicU64 = AtomicU64::new(1);

/// A lease that was claimed.
pub struct WorkLease {
    serial: u64,
    session: Arc<SessionState>,
    claimed: Claimed,
    previous_seconds: Option<i64>,
    standing: Mutex<Standing>,
    /// Told when an end that was on its way has come to its outcome.
    settled: Notify,
}

/// What changes while work goes on.
struct Standing {
    state: WorkState,
    /// Why it is lost, where that is known here.
    reason: Option<String>,
    hold: Option<Hold>,
    backoff: Option<Backoff>,
    /// What came of the last end is not known.
    doubtful: bool,
}

impl Standing {
    /// The hold that work in hand has outlasted. An end that is on its way is left to the database.
    fn outlasted(&self, now: Moment) -> Option<&Hold> {
        let active = self.state == WorkState::Active;
        self.hold
            .as_ref()
            .filter(|hold| active && hold.overdue(now))
    }
}

/// What a claim came to.
pub enum Claim {
    /// This machine is leased, once the transaction commits.
    Leased(Arc<WorkLease>),
    /// All machines offered are taken.
    Conflict,
}

/// Leases the first of `machines` that nobody holds under `process`, inside the transaction.
pub async fn claim(tx: &mut Transaction, process: &str, machines: &[Uuid]) -> Result<Claim> {
    let session = tx
        .session()
        .cloned()
        .ok_or_else(|| Error::WorkState("a claim needs a session".to_owned()))?;
    let lease = name_lease();
    let offered = Param::Array(machines.iter().copied().map(uuid).collect());
    let params = [
        offered.clone(),
        Param::Text(process.to_owned()),
        uuid(session.id()),
        Param::Text(session.component().to_owned()),
        uuid(lease),
    ];
    let rows = tx.query(queries::WORK_CLAIM.sql, &params).await?;
    let Some(row) = rows.first() else {
        return match tx
            .query(queries::WORK_UNKNOWN.sql, &[offered])
            .await?
            .first()
        {
            Some(unknown) => Err(unknown_machine(unknown.get(0))),
            None => Ok(Claim::Conflict),
        };
    };
    let claimed = Claimed {
        machine: row.get("machine_id"),
        process: process.to_owned(),
        session: session.id(),
        token: row.get("token"),
        lease,
    };
    tx.note_claim(Some(claimed.clone()));
    let previous = row.get("last_interval_seconds");
    Ok(Claim::Leased(WorkLease::leased(session, claimed, previous)))
}

/// The parameters of ends of one kind, as `work/finish.sql` and its like take them, with the values of their changes. `single`:
/// one end, whose changes are plain values in place of arrays. `marks`: whether they name their backend
/// to collection, as a transaction must that stays open.
#[must_use]
pub(crate) fn ending_params(
    ends: &[(&WorkLease, &Ending)],
    values: &[&[Param]],
    marks: bool,
    single: bool,
) -> Vec<Param> {
    let column = |value: &dyn Fn(&WorkLease) -> Param| {
        Param::Array(ends.iter().map(|(work, _)| value(work)).collect())
    };
    let mut params = vec![
        column(&|work| uuid(work.claimed.machine)),
        column(&|work| Param::Text(work.claimed.process.clone())),
        column(&|work| uuid(work.claimed.session)),
        column(&|work| Param::Int(work.claimed.token)),
        column(&|work| Param::Text(work.session.component().to_owned())),
        Param::Bool(marks),
    ];
    let mut failures: [Vec<Param>; 3] = Default::default();
    for (_, ending) in ends {
        if let Ending::Fail {
            cause,
            wait,
            period,
        } = ending
        {
            failures[0].push(Param::Text(cause.clone()));
            failures[1].push(Param::Int(*wait));
            failures[2].push(Param::Int(*period));
        }
    }
    if !failures[0].is_empty() {
        params.extend(failures.map(Param::Array));
    }
    for column in 0..values.first().map_or(0, |first| first.len()) {
        let mut of_each = values.iter().map(|values| values[column].clone());
        params.push(match of_each.next() {
            Some(only) if single => only,
            first => Param::Array(first.into_iter().chain(of_each).collect()),
        });
    }
    params
}

fn unknown_machine(machine: Uuid) -> Error {
    Error::Database(Box::new(DatabaseError {
        sqlstate: sqlstate::FOREIGN_KEY_VIOLATION.to_owned(),
        fatal: false,
        message: format!(
            "retrieve returned {machine}, which is not in machines: return ids of existing machines"
        ),
        detail: None,
        hint: None,
        constraint: Some("work_machine_fkey".to_owned()),
        table: Some("work".to_owned()),
        routine: None,
    }))
}

impl WorkLease {
    /// A lease that is in the database, or will be with its transaction.
    #[must_use]
    pub(crate) fn leased(
        session: Arc<SessionState>,
        claimed: Claimed,
        previous_seconds: Option<i64>,
    ) -> Arc<Self> {
        Arc::new(WorkLease {
            serial: LEASES.fetch_add(1, Ordering::Relaxed),
            session,
            claimed,
            previous_seconds,
            standing: Mutex::new(Standing {
                state: WorkState::Active,
                reason: None,
                hold: None,
                backoff: None,
                doubtful: false,
            }),
            settled: Notify::new(),
        })
    }

    /// Its number among the leases of this OS process.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The machine leased.
    #[must_use]
    pub fn machine(&self) -> Uuid {
        self.claimed.machine
    }

    /// The process it is leased for.
    #[must_use]
    pub fn process(&self) -> &str {
        &self.claimed.process
    }

    /// Rises with each lease of this machine and process.
    #[must_use]
    pub fn token(&self) -> i64 {
        self.claimed.token
    }

    /// The session that holds it.
    #[must_use]
    pub fn session(&self) -> &Arc<SessionState> {
        &self.session
    }

    /// The last backoff's period in seconds, if the work has failed since it was last finished.
    #[must_use]
    pub fn previous_seconds(&self) -> Option<i64> {
        self.previous_seconds
    }

    /// Where it stands. A lease whose session is lost, or that is held for too long, is lost.
    #[must_use]
    pub fn state(&self) -> WorkState {
        let standing = self.lock();
        let gone = || {
            standing.outlasted(self.session.clock().now()).is_some()
                || self.session.loss().is_some()
        };
        if standing.state == WorkState::Active && gone() {
            WorkState::Lost
        } else {
            standing.state
        }
    }

    /// To be called once the claim is committed.
    pub fn begun(&self) {
        self.session.lease_begun(self.process());
        self.told("Started");
    }

    /// Its holder, or whoever acts for it, has been told of this event.
    pub(crate) fn told(&self, event: &'static str) {
        self.session.told(Told {
            machine: self.machine(),
            process: self.process().to_owned(),
            token: self.token(),
            event,
        });
    }

    /// The wait and the period of a backoff that begins now, in seconds. Without a backoff the previous period stays.
    #[must_use]
    pub fn backoff_seconds(&self, backoff: Option<&Backoff>, random: f64) -> (i64, i64) {
        let previous = self.previous_seconds.map(Previous::from_whole_seconds);
        match backoff {
            Some(backoff) => {
                let period = backoff.next(previous);
                (backoff.jittered(period, random), period)
            }
            None => {
                let period = no_backoff(previous);
                (period, period)
            }
        }
    }

    /// Prepares an end: checks that the work can still be ended.
    pub fn end(self: &Arc<Self>, ending: Ending) -> Result<End> {
        self.session.check().inspect_err(|_| self.lost())?;
        self.check_active(&self.lock())?;
        Ok(End {
            work: self.clone(),
            on_its_way: false,
            ending,
        })
    }

    pub(crate) fn opening(
        &self,
        ending: &Ending,
        shape: Option<(Arc<Shape>, Vec<Param>)>,
    ) -> Opening {
        let (sql, values, single) = match &shape {
            Some((shape, values)) => (shape.sql.as_str(), values.as_slice(), shape.single),
            None => (ending.query().sql, &[][..], false),
        };
        let params = ending_params(&[(self, ending)], &[values], true, single);
        let sql = Arc::from(sql);
        Opening::End {
            sql,
            params,
            lease: self.claimed.clone(),
            event: ending.event(),
        }
    }

    /// The lease as it is found again.
    #[must_use]
    pub(crate) fn claimed(&self) -> &Claimed {
        &self.claimed
    }

    fn check_active(&self, standing: &Standing) -> Result<()> {
        let lost = |reason: Option<String>| {
            let reason = reason
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default();
            Err(Error::LeaseLost(format!(
                "the lease of {} is lost{reason}",
                self.machine()
            )))
        };
        if let Some(hold) = standing.outlasted(self.session.clock().now()) {
            return lost(Some(hold.reason()));
        }
        match standing.state {
            WorkState::Active => Ok(()),
            WorkState::Ending => Err(Error::WorkState(
                "this work is being ended already".to_owned(),
            )),
            WorkState::Lost => lost(standing.reason.clone()),
            ended => Err(Error::WorkState(format!(
                "this work has {} already: it ends once",
                ended.name()
            ))),
        }
    }

    fn lost(&self) {
        let mut standing = self.lock();
        if matches!(standing.state, WorkState::Active | WorkState::Ending) {
            standing.state = WorkState::Lost;
            self.session.lease_ended(self.process(), None);
        }
    }

    /// An end that was on its way has come to nothing.
    fn active_again(&self) {
        self.lock().state = WorkState::Active;
        self.settled.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An end. Dropped before its outcome is told, the work is active again: the end may be tried again.
pub struct End {
    work: Arc<WorkLease>,
    ending: Ending,
    on_its_way: bool,
}

impl End {
    /// The work that it ends.
    #[must_use]
    pub fn work(&self) -> &Arc<WorkLease> {
        &self.work
    }

    /// How it is to end.
    #[must_use]
    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    /// How to open the transaction that does it, with the statement of `shape` and its values in place of the plain one.
    #[must_use]
    pub fn opening(&self, shape: Option<(Arc<Shape>, Vec<Param>)>) -> Opening {
        self.work.opening(&self.ending, shape)
    }

    /// Its transaction is about to begin, or to begin again. Refused while another end is on its way.
    pub fn begin(&mut self) -> Result<()> {
        if !self.on_its_way {
            let mut standing = self.work.lock();
            self.work.check_active(&standing)?;
            standing.state = WorkState::Ending;
            self.on_its_way = true;
        }
        Ok(())
    }

    /// It is committed.
    pub fn done(&mut self) {
        self.on_its_way = false;
        self.work.lock().state = self.ending.state();
        self.work.settled.notify_waiters();
        let result = Some(self.ending.result());
        self.work.session.lease_ended(self.work.process(), result);
        self.work.told(self.ending.event());
    }

    /// It is not. After a loss there is nothing left to end; after anything else it may be tried again.
    pub fn failed(&mut self, error: &Error) {
        if !std::mem::take(&mut self.on_its_way) {
            return;
        }
        self.work.lock().doubtful = matches!(error, Error::AmbiguousCommit { .. });
        if matches!(error, Error::LeaseLost(_) | Error::SessionExpired(_)) {
            self.work.lost();
            self.work.settled.notify_waiters();
        } else {
            self.work.active_again();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.on_its_way {
            self.work.active_again();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_cause_is_cut_between_characters_and_marked() {
        let cut = checked_cause(&"é".repeat(LONGEST_CAUSE)).unwrap();
        assert!(cut.len() <= LONGEST_CAUSE);
        assert!(cut.ends_with(CUT_MARK));
        assert!(cut.starts_with('é'));
    }

    #[test]
    fn a_short_cause_is_kept_whole() {
        assert_eq!(checked_cause("no answer").unwrap(), "no answer");
        assert!(checked_cause("a\0b").is_err());
    }

    #[test]
    fn process_names_have_limits() {
        assert!(check_process("ShepherdAgentStart").is_ok());
        assert!(check_process(&"x".repeat(LONGEST_PROCESS)).is_ok());
        for bad in ["", "a\0b", &"x".repeat(LONGEST_PROCESS + 1)] {
            assert!(check_process(bad).is_err());
        }
    }
}
