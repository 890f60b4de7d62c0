//! Counters and histograms, cheap to write from any thread and read as a snapshot.
//!
//! The six counters of the original keep their names. Each is labelled `processor`, the short name of the component
//! that a session was started for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the lateness histogram's buckets, in seconds.
pub const LATENESS_BOUNDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// Upper bounds of the stall histogram's buckets, in seconds: a thread that wants the GIL asks for it after 5 ms.
pub const STALL_BOUNDS: &[f64] = &[
    0.001, 0.0075, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Upper bounds of the duration histogram's buckets, in seconds.
pub const DURATION_BOUNDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// How a transaction ended, for its duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was committed.
    Committed,
    /// It was not.
    Failed,
    /// That is not known.
    Unknown,
}

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Committed, Outcome::Failed, Outcome::Unknown];

    fn label(self) -> &'static str {
        match self {
            Outcome::Committed => "committed",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        }
    }
}

/// How work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkResult {
    /// By finish.
    Finished,
    /// By cancel, or by the end of its session.
    Canceled,
    /// By fail.
    Failed,
}

impl WorkResult {
    /// The metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            WorkResult::Finished => "finished",
            WorkResult::Canceled => "canceled",
            WorkResult::Failed => "failed",
        }
    }
}

/// A cumulative histogram over fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<AtomicU64>,
    sum_nanoseconds: AtomicU64,
}

/// A histogram as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    /// `(upper bound in seconds, number at or below it)`, the last bound infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Of all observations, in seconds.
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_nanoseconds: AtomicU64::new(0),
        }
    }

    /// Counts one observation.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanoseconds.fetch_add(
            u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    fn snapshot(&self) -> HistogramSnapshot {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut total = 0;
        let buckets = bounds
            .zip(&self.counts)
            .map(|(bound, count)| {
                total += count.load(Ordering::Relaxed);
                (bound, total)
            })
            .collect();
        #[allow(clippy::cast_precision_loss)]
        let sum = self.sum_nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        HistogramSnapshot { buckets, sum }
    }
}

/// What one processor has done.
#[derive(Debug)]
pub struct ProcessorMetrics {
    processor: String,
    session_started: AtomicU64,
    session_lost: AtomicU64,
    transaction_executed: AtomicU64,
    transaction_retried: AtomicU64,
    transaction_failed: AtomicU64,
    transaction_exhausted: AtomicU64,
    sessions_live: AtomicI64,
    leases_live: AtomicI64,
    work_started: Mutex<BTreeMap<String, u64>>,
    work_finished: Mutex<BTreeMap<(String, WorkResult), u64>>,
    transaction_seconds: [Histogram; 3],
}

impl ProcessorMetrics {
    fn new(processor: &str) -> Self {
        ProcessorMetrics {
            processor: processor.to_owned(),
            session_started: AtomicU64::new(0),
            session_lost: AtomicU64::new(0),
            transaction_executed: AtomicU64::new(0),
            transaction_retried: AtomicU64::new(0),
            transaction_failed: AtomicU64::new(0),
            transaction_exhausted: AtomicU64::new(0),
            sessions_live: AtomicI64::new(0),
            leases_live: AtomicI64::new(0),
            work_started: Mutex::new(BTreeMap::new()),
            work_finished: Mutex::new(BTreeMap::new()),
            transaction_seconds: Outcome::ALL.map(|_| Histogram::new(DURATION_BOUNDS)),
        }
    }

    /// A session has begun.
    pub fn on_session_started(&self) {
        self.session_started.fetch_add(1, Ordering::Relaxed);
        self.sessions_live.fetch_add(1, Ordering::Relaxed);
    }

    /// A session has ended: closed by its owner, or lost.
    pub fn on_session_ended(&self, lost: bool) {
        if lost {
            self.session_lost.fetch_add(1, Ordering::Relaxed);
        }
        self.sessions_live.fetch_sub(1, Ordering::Relaxed);
    }

    /// A transaction's callback is about to run for the `attempt`th time, from 1.
    pub fn on_transaction_started(&self, attempt: u32) {
        let counter = if attempt <= 1 {
            &self.transaction_executed
        } else {
            &self.transaction_retried
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A transaction has ended after `duration`.
    pub fn on_transaction_ended(&self, outcome: Outcome, duration: Duration) {
        if outcome != Outcome::Committed {
            self.transaction_failed.fetch_add(1, Ordering::Relaxed);
        }
        self.transaction_seconds[outcome as usize].observe(duration);
    }

    /// A transaction was given up because it had been tried as often, or for as long, as allowed.
    pub fn on_transaction_exhausted(&self) {
        self.transaction_exhausted.fetch_add(1, Ordering::Relaxed);
    }

    /// Work has begun.
    pub fn on_work_started(&self, process: &str) {
        self.leases_live.fetch_add(1, Ordering::Relaxed);
        bump(&mut lock(&self.work_started), process);
    }

    /// Work has ended.
    pub fn on_work_finished(&self, process: &str, result: WorkResult) {
        self.leases_live.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.work_finished)
            .entry((process.to_owned(), result))
            .or_insert(0) += 1;
    }

    /// A lease has gone without the holder ending it.
    pub fn on_work_lost(&self) {
        self.leases_live.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bump(map: &mut BTreeMap<String, u64>, key: &str) {
    match map.get_mut(key) {
        Some(count) => *count += 1,
        None => {
            map.insert(key.to_owned(), 1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric, as Prometheus names it but without `_total`.
    pub name: &'static str,
    /// What kind of metric it is.
    pub value: SampleValue,
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
}

/// A sample's value by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum SampleValue {
    /// Only ever rises.
    Counter(u64),
    /// Rises and falls.
    Gauge(i64),
    /// A distribution, in seconds.
    Histogram(HistogramSnapshot),
}

/// Everything that one `Connection` counts.
#[derive(Debug)]
pub struct Metrics {
    processors: Mutex<BTreeMap<String, Arc<ProcessorMetrics>>>,
    /// How much later than planned beats were sent.
    pub heartbeat_lateness: Histogram,
    /// How long a thread that wanted to run Python waited for that.
    pub interpreter_stall: Histogram,
    heartbeats: AtomicU64,
    heartbeat_failures: AtomicU64,
    collected_sessions: AtomicU64,
    collected_leases: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            processors: Mutex::new(BTreeMap::new()),
            heartbeat_lateness: Histogram::new(LATENESS_BOUNDS),
            interpreter_stall: Histogram::new(STALL_BOUNDS),
            heartbeats: AtomicU64::new(0),
            heartbeat_failures: AtomicU64::new(0),
            collected_sessions: AtomicU64::new(0),
            collected_leases: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// The counters of one processor, made when first asked for.
    #[must_use]
    pub fn processor(&self, name: &str) -> Arc<ProcessorMetrics> {
        let mut processors = lock(&self.processors);
        processors
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(ProcessorMetrics::new(name)))
            .clone()
    }

    /// A beat was answered, or failed.
    pub fn on_heartbeat(&self, succeeded: bool) {
        let counter = if succeeded {
            &self.heartbeats
        } else {
            &self.heartbeat_failures
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A collection removed so many sessions and leases.
    pub fn on_collected(&self, sessions: u64, leases: u64) {
        self.collected_sessions
            .fetch_add(sessions, Ordering::Relaxed);
        self.collected_leases.fetch_add(leases, Ordering::Relaxed);
    }

    /// All values as they stand; not one instant, but each is exact.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Sample> {
        let plain = |name, value| Sample {
            name,
            value,
            labels: Vec::new(),
        };
        let count = |counter: &AtomicU64| SampleValue::Counter(counter.load(Ordering::Relaxed));
        let mut samples = vec![
            plain("bmdb_heartbeats", count(&self.heartbeats)),
            plain("bmdb_heartbeat_failures", count(&self.heartbeat_failures)),
            plain(
                "bmdb_heartbeat_lateness_seconds",
                SampleValue::Histogram(self.heartbeat_lateness.snapshot()),
            ),
            plain(
                "bmdb_interpreter_stall_seconds",
                SampleValue::Histogram(self.interpreter_stall.snapshot()),
            ),
            plain("bmdb_collected_sessions", count(&self.collected_sessions)),
            plain("bmdb_collected_leases", count(&self.collected_leases)),
        ];
        for metrics in lock(&self.processors).values() {
            let mut add = |name, value, more: &[(&'static str, &str)]| {
                let mut labels = vec![("processor", metrics.processor.clone())];
                labels.extend(
                    more.iter()
                        .map(|(label, text)| (*label, (*text).to_owned())),
                );
                samples.push(Sample {
                    name,
                    value,
                    labels,
                });
            };
            add("bmdb_session_started", count(&metrics.session_started), &[]);
            add("bmdb_session_lost", count(&metrics.session_lost), &[]);
            add(
                "bmdb_transaction_executed",
                count(&metrics.transaction_executed),
                &[],
            );
            add(
                "bmdb_transaction_retried",
                count(&metrics.transaction_retried),
                &[],
            );
            add(
                "bmdb_transaction_failed",
                count(&metrics.transaction_failed),
                &[],
            );
            add(
                "bmdb_transaction_exhausted",
                count(&metrics.transaction_exhausted),
                &[],
            );
            add(
                "bmdb_sessions_live",
                SampleValue::Gauge(metrics.sessions_live.load(Ordering::Relaxed)),
                &[],
            );
            add(
                "bmdb_leases_live",
                SampleValue::Gauge(metrics.leases_live.load(Ordering::Relaxed)),
                &[],
            );
            for (process, n) in lock(&metrics.work_started).iter() {
                add(
                    "bmdb_work_started",
                    SampleValue::Counter(*n),
                    &[("process", process)],
                );
            }
            for ((process, result), n) in lock(&metrics.work_finished).iter() {
                let labels = [("process", process.as_str()), ("result", result.label())];
                add("bmdb_work_finished", SampleValue::Counter(*n), &labels);
            }
            for outcome in Outcome::ALL {
                let histogram = metrics.transaction_seconds[outcome as usize].snapshot();
                add(
                    "bmdb_transaction_seconds",
                    SampleValue::Histogram(histogram),
                    &[("outcome", outcome.label())],
                );
            }
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for milliseconds in [100, 500, 5000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(
            snapshot.buckets,
            vec![(0.1, 1), (1.0, 2), (f64::INFINITY, 3)]
        );
        assert!((snapshot.sum - 5.6).abs() < 1e-9);
    }

    #[test]
    fn the_first_attempt_is_executed_and_later_ones_are_retried() {
        let metrics = Metrics::default();
        let processor = metrics.processor("starter");
        for attempt in 1..=3 {
            processor.on_transaction_started(attempt);
        }
        let value = |name| {
            metrics
                .snapshot()
                .into_iter()
                .find(|s| s.name == name)
                .map(|s| s.value)
        };
        assert_eq!(
            value("bmdb_transaction_executed"),
            Some(SampleValue::Counter(1))
        );
        assert_eq!(
            value("bmdb_transaction_retried"),
            Some(SampleValue::Counter(2))
        );
    }
}
