//! A session: a row that the heartbeat keeps alive, and the trust in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::clock::Clock;
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::events::{Event, Events, Level};
use crate::lease::{Loss, Moment, SHORTEST_INTERVAL, Trust};
use crate::metrics::{ProcessorMetrics, WorkResult};
use crate::timelines::{Account, Holder, Told};

/// What a session's users, its transactions and the heartbeat share.
pub struct SessionState {
    id: Uuid,
    component: String,
    trust: Mutex<Trust>,
    clock: Arc<Clock>,
    lost: Notify,
    told: std::sync::atomic::AtomicBool,
    events: Arc<Events>,
    metrics: Arc<ProcessorMetrics>,
    /// How many leases are held, by process.
    leases: Mutex<HashMap<String, u64>>,
    record: Mutex<Record>,
}

/// The most events of leases that are remembered between two renewals.
const MOST_TOLD: usize = 20_000;

/// What the session was told, with the moments of the telling.
#[derive(Default)]
struct Record {
    deadline: Option<SystemTime>,
    told: Vec<(Moment, Told)>,
    traceless: Option<Moment>,
}

impl SessionState {
    /// A session whose row was written by a statement sent at `sent`.
    #[must_use]
    pub fn new(
        id: Uuid,
        component: &str,
        interval: Duration,
        sent: Moment,
        clock: Arc<Clock>,
        events: Arc<Events>,
        metrics: Arc<ProcessorMetrics>,
    ) -> Arc<Self> {
        metrics.on_session_started();
        Arc::new(SessionState {
            id,
            component: component.to_owned(),
            trust: Mutex::new(Trust::new(interval, sent)),
            clock,
            lost: Notify::new(),
            told: std::sync::atomic::AtomicBool::new(false),
            events,
            metrics,
            leases: Mutex::new(HashMap::new()),
            record: Mutex::default(),
        })
    }

    /// Fresh for each session.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The component, as history records it.
    #[must_use]
    pub fn component(&self) -> &str {
        &self.component
    }

    /// Where its doings are counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ProcessorMetrics> {
        &self.metrics
    }

    /// The clock that its trust is measured on.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where it tells what happens to it.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// As effective: whole seconds.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.trust().interval()
    }

    /// Why the session is lost, if it is.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        let now = self.clock.now();
        let loss = self.trust().loss_at(now).cloned();
        if let Some(loss) = &loss {
            self.tell(loss);
        }
        loss
    }

    /// How long the session may still be trusted without another renewal; zero once lost.
    #[must_use]
    pub fn trusted_for(&self) -> Duration {
        let now = self.clock.now();
        self.trust().remaining(now)
    }

    /// Refuses when the session is lost.
    pub fn check(&self) -> Result<()> {
        match self.loss() {
            None => Ok(()),
            Some(loss) => Err(self.expired(&loss)),
        }
    }

    /// The error that tells of a loss.
    #[must_use]
    pub fn expired(&self, loss: &Loss) -> Error {
        Error::SessionExpired(format!(
            "session {} is gone: {loss}; start a new session",
            self.id
        ))
    }

    /// A renewal sent at `sent` was answered with this deadline.
    pub fn renewed(&self, sent: Moment, deadline: Option<SystemTime>) {
        let now = self.clock.now();
        self.trust().renewed(sent, now);
        // What was told before the renewal was sent lies before it in the log, and is there if that is.
        let mut record = self.record();
        record.deadline = deadline.max(record.deadline);
        record.told.retain(|(told, _)| *told >= sent);
        record.traceless = record.traceless.filter(|told| *told >= sent);
    }

    /// It has been told of this event of a lease of its own.
    pub(crate) fn told(&self, told: Told) {
        let now = self.clock.now();
        let mut record = self.record();
        if record.told.len() < MOST_TOLD {
            record.told.push((now, told));
        } else {
            record.traceless = Some(now);
        }
    }

    /// It has been told of a commit that cannot be found again.
    pub(crate) fn told_traceless(&self) {
        let now = self.clock.now();
        self.record().traceless = Some(now);
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session is lost. The first reason stands; whoever waits is woken.
    pub fn lose(&self, loss: Loss) {
        self.trust().lose(loss);
        // Through loss(), so that a loss by time that nobody has noticed yet keeps its own reason.
        drop(self.loss());
    }

    /// A lease of this session has begun.
    pub(crate) fn lease_begun(&self, process: &str) {
        *self.leases().entry(process.to_owned()).or_insert(0) += 1;
        self.metrics.on_work_started(process);
    }

    /// A lease of this session has ended as told; nothing is counted if the session's end has counted it already.
    pub(crate) fn lease_ended(&self, process: &str, result: Option<WorkResult>) {
        {
            let mut leases = self.leases();
            let Some(count) = leases.get_mut(process).filter(|count| **count > 0) else {
                return;
            };
            *count -= 1;
        }
        match result {
            Some(result) => self.metrics.on_work_finished(process, result),
            None => self.metrics.on_work_lost(),
        }
    }

    /// With the session its leases go: released when it was closed, lost otherwise.
    fn settle_leases(&self, loss: &Loss) {
        for (process, count) in std::mem::take(&mut *self.leases()) {
            for _ in 0..count {
                match loss {
                    Loss::Closed => self
                        .metrics
                        .on_work_finished(&process, WorkResult::Canceled),
                    _ => self.metrics.on_work_lost(),
                }
            }
        }
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, loss: &Loss) {
        if self.told.swap(true, std::sync::atomic::Ordering::AcqRel) {
            return;
        }
        self.metrics.on_session_ended(*loss != Loss::Closed);
        self.settle_leases(loss);
        let level = if *loss == Loss::Closed {
            Level::Info
        } else {
            Level::Error
        };
        self.events.push(Event {
            level,
            source: "session",
            session: Some(self.id),
            lost: *loss != Loss::Closed,
            lease: None,
            subject: None,
            message: format!("session {} is gone: {loss}", self.id),
        });
        self.lost.notify_waiters();
    }

    /// Ready when the session is lost, with the error that says so. Needs no timer: the heartbeat tells in time.
    pub async fn until_lost(&self) -> Error {
        loop {
            let notified = self.lost.notified();
            if let Some(loss) = self.loss() {
                return self.expired(&loss);
            }
            notified.await;
        }
    }

    /// Waits until the session is lost, for `limit` at most; true when it is. Watches trust itself, so that it is right
    /// even if the heartbeat's thread were not running.
    pub async fn wait_lost(&self, drive: &Drive, limit: Option<Duration>) -> Result<bool> {
        let end = limit.map(|limit| std::time::Instant::now() + limit);
        loop {
            let notified = self.lost.notified();
            if self.loss().is_some() {
                return Ok(true);
            }
            let left = end.map(|end| end.saturating_duration_since(std::time::Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            let trusted = self.trusted_for();
            let pause = left
                .map_or(trusted, |left| left.min(trusted))
                .max(Duration::from_millis(1));
            match drive.wait(pause, "the session", notified).await {
                Ok(()) | Err(Error::TimedOut(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn trust(&self) -> std::sync::MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder for SessionState {
    fn id(&self) -> Uuid {
        self.id
    }

    fn is_lost(&self) -> bool {
        self.loss().is_some()
    }

    fn account(&self) -> Account {
        let record = self.record();
        Account {
            deadline: record.deadline,
            told: record.told.iter().map(|(_, told)| told.clone()).collect(),
            traceless: record.traceless.is_some(),
        }
    }

    fn fail_over(&self, from: u32, to: u32, missing: &'static str) {
        self.lose(Loss::FailedOver { from, to, missing });
    }

    fn survive(&self, from: u32, to: u32) {
        self.events.push(Event {
            level: Level::Warning,
            source: "session",
            session: Some(self.id),
            lost: false,
            lease: None,
            subject: None,
            message: format!(
                "the database failed over (timeline {from} to {to}); session {} goes on, as all that it was told is there",
                self.id
            ),
        });
    }
}

/// The interval as the database keeps it: whole seconds, rounded up, at least one.
pub fn whole_interval(seconds: f64) -> Result<Duration> {
    if !seconds.is_finite() || seconds < SHORTEST_INTERVAL.as_secs_f64() {
        return Err(Error::Config(format!(
            "interval must be at least {} second, not {seconds}: a shorter one leaves no time to renew the session",
            SHORTEST_INTERVAL.as_secs()
        )));
    }
    if seconds > f64::from(i32::MAX) {
        return Err(Error::Config(format!(
            "interval must be at most {} seconds, not {seconds}",
            i32::MAX
        )));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(Duration::from_secs(seconds.ceil() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn session(clock: &Arc<Clock>) -> Arc<SessionState> {
        let metrics = Metrics::default().processor("test");
        let events = Arc::new(Events::default());
        SessionState::new(
            Uuid::from_u128(7),
            "test",
            Duration::from_secs(5),
            clock.now(),
            clock.clone(),
            events,
            metrics,
        )
    }

    #[test]
    fn a_suspension_ends_trust_on_waking() {
        let clock = Arc::new(Clock::default());
        let session = session(&clock);
        assert!(session.check().is_ok());
        clock.skip(Duration::from_secs(4));
        assert!(
            matches!(session.check(), Err(Error::SessionExpired(text)) if text.contains("no heartbeat"))
        );
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_loss() {
        let clock = Arc::new(Clock::default());
        let session = session(&clock);
        let other = session.clone();
        let waiter = tokio::spawn(async move { other.wait_lost(&Drive::Runtime, None).await });
        tokio::task::yield_now().await;
        session.lose(Loss::Gone);
        assert!(waiter.await.unwrap().unwrap());
    }

    #[test]
    fn intervals_are_whole_seconds_rounded_up() {
        assert_eq!(whole_interval(1.2).unwrap(), Duration::from_secs(2));
        for bad in [0.99, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(whole_interval(bad).is_err(), "{bad}");
        }
    }
}
