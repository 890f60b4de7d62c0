//! Calls that are done together: everybody hears exactly one outcome, and the right to lead never gets lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmdb_core::batch::coalesce::{Batch, Coalescer, Runner};
use bmdb_core::drive::{Drive, Interrupt, complete};
use bmdb_core::error::{Error, Result};
use proptest::prelude::*;
use tokio::time::{Instant, sleep, timeout};

const MOST: usize = 6;

struct Job {
    id: usize,
    weight: usize,
}

/// How a batch goes: how long it takes, and after how many of its jobs a signal ends it.
#[derive(Debug, Clone, Copy)]
struct Course {
    millis: u64,
    interrupted_after: Option<usize>,
}

#[derive(Default)]
struct Told {
    /// The weight and the number of jobs of each batch, and when it began.
    batches: Vec<(usize, usize, Instant)>,
    /// How often each job was done.
    done: HashMap<usize, usize>,
    orphaned: Vec<usize>,
}

/// Does jobs by waiting; `LEADERS` batches at once.
struct Fake<const LEADERS: usize> {
    courses: Mutex<std::vec::IntoIter<Course>>,
    told: Mutex<Told>,
    under_way: std::sync::atomic::AtomicUsize,
}

impl<const LEADERS: usize> Fake<LEADERS> {
    fn new(courses: Vec<Course>) -> Arc<Coalescer<Self>> {
        Coalescer::new(Fake {
            courses: Mutex::new(courses.into_iter()),
            told: Mutex::default(),
            under_way: std::sync::atomic::AtomicUsize::new(0),
        })
    }
}

/// Counts a batch for as long as it is under way, also if it is dropped.
struct UnderWay<'a>(&'a std::sync::atomic::AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<const LEADERS: usize> Runner for Fake<LEADERS> {
    type Job = Job;
    type Outcome = usize;

    const LEADERS: usize = LEADERS;
    const ROOM: usize = 40;

    fn most(&self) -> usize {
        MOST
    }

    fn weight(&self, job: &Job) -> usize {
        job.weight
    }

    async fn run(&self, batch: &mut Batch<Self>) -> Result<()> {
        assert!(self.under_way.fetch_add(1, Ordering::SeqCst) < LEADERS);
        let _under_way = UnderWay(&self.under_way);
        let weight = batch.entries.iter().map(|entry| entry.job.weight).sum();
        let begun = (weight, batch.entries.len(), Instant::now());
        self.told.lock().unwrap().batches.push(begun);
        let course = self.courses.lock().unwrap().next().unwrap_or(Course {
            millis: 1,
            interrupted_after: None,
        });
        sleep(Duration::from_millis(course.millis)).await;
        for number in 0.. {
            if course.interrupted_after == Some(number) {
                return Err(Error::Interrupted);
            }
            let Some(entry) = batch.entries.pop_front() else {
                break;
            };
            let id = entry.job.id;
            *self.told.lock().unwrap().done.entry(id).or_default() += 1;
            batch.tell(entry, Ok(id));
        }
        Ok(())
    }

    fn orphaned(&self, outcome: Result<usize>) {
        self.told.lock().unwrap().orphaned.push(outcome.unwrap());
    }
}

/// When somebody calls, for how much, and after how long it is gone, if it does not wait for the outcome.
#[derive(Debug, Clone)]
struct Caller {
    at: u64,
    weights: Vec<usize>,
    gone_after: Option<u64>,
}

fn callers() -> impl Strategy<Value = Vec<Caller>> {
    let caller = (
        0..30_u64,
        prop::collection::vec(1..9_usize, 1..4),
        prop::option::of(0..12_u64),
    )
        .prop_map(|(at, weights, gone_after)| Caller {
            at,
            weights,
            gone_after,
        });
    prop::collection::vec(caller, 1..14)
}

fn courses() -> impl Strategy<Value = Vec<Course>> {
    let course = (0..8_u64, prop::option::weighted(0.25, 0..3_usize)).prop_map(
        |(millis, interrupted_after)| Course {
            millis,
            interrupted_after,
        },
    );
    prop::collection::vec(course, 0..20)
}

/// What one caller heard: nothing if it was gone first.
type Heard = Option<Result<Vec<Result<usize>>>>;

async fn play<const LEADERS: usize>(
    callers: &[Caller],
    courses: Vec<Course>,
) -> std::result::Result<(), TestCaseError> {
    let coalescer = Fake::<LEADERS>::new(courses);
    let mut tasks = Vec::new();
    let mut first = 0;
    for caller in callers {
        let ids = first..first + caller.weights.len();
        first = ids.end;
        let jobs: Vec<Job> = ids
            .clone()
            .zip(&caller.weights)
            .map(|(id, weight)| Job {
                id,
                weight: *weight,
            })
            .collect();
        let (caller, coalescer) = (caller.clone(), coalescer.clone());
        let task = tokio::spawn(async move {
            sleep(Duration::from_millis(caller.at)).await;
            let call = coalescer.call_all(&Drive::Runtime, jobs);
            let heard: Heard = match caller.gone_after {
                Some(after) => timeout(Duration::from_millis(after), call).await.ok(),
                None => Some(call.await),
            };
            heard
        });
        tasks.push((ids, task));
    }
    let mut heard_of = HashMap::new();
    for (ids, task) in tasks {
        let ended = timeout(Duration::from_secs(60), task).await;
        let heard = ended
            .expect("somebody waits for ever: nobody leads")
            .unwrap();
        match heard {
            Some(Ok(outcomes)) => {
                prop_assert_eq!(outcomes.len(), ids.len());
                for (id, outcome) in ids.zip(outcomes) {
                    prop_assert_eq!(
                        outcome.unwrap(),
                        id,
                        "outcomes come in the order of the jobs"
                    );
                    heard_of.insert(id, true);
                }
            }
            // The caller's own interrupt, or its own leaving.
            Some(Err(Error::Interrupted)) | None => {
                for id in ids {
                    heard_of.insert(id, false);
                }
            }
            Some(Err(other)) => prop_assert!(false, "{other}"),
        }
    }
    {
        let told = coalescer.runner.told.lock().unwrap();
        for (weight, jobs, _) in &told.batches {
            prop_assert!(*jobs > 0);
            prop_assert!(*weight <= MOST || *jobs == 1, "{weight} in {jobs} jobs");
        }
        for (id, heard) in &heard_of {
            let done = told.done.get(id).copied().unwrap_or_default();
            let orphaned = told.orphaned.iter().filter(|orphan| *orphan == id).count();
            prop_assert!(done <= 1, "job {id} was done {done} times");
            // What was done and not heard is handed back, once.
            prop_assert_eq!(orphaned, usize::from(done == 1 && !heard), "job {}", id);
            prop_assert!(done == 1 || !heard);
        }
    }
    prop_assert_eq!(coalescer.waiting(), 0);
    // Whatever happened, the next one that calls is served, and at once.
    *coalescer.runner.courses.lock().unwrap() = Vec::new().into_iter();
    let called = Instant::now();
    let job = Job {
        id: first,
        weight: 1,
    };
    let last = timeout(
        Duration::from_secs(60),
        coalescer.call(&Drive::Runtime, job),
    )
    .await;
    prop_assert_eq!(last.expect("the right to lead is lost").unwrap(), first);
    let told = coalescer.runner.told.lock().unwrap();
    prop_assert_eq!(told.batches.last().unwrap().2, called);
    Ok(())
}

fn in_made_up_time<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #[test]
    fn everybody_hears_one_outcome_with_one_leader(callers in callers(), courses in courses()) {
        in_made_up_time(play::<1>(&callers, courses))?;
    }

    #[test]
    fn everybody_hears_one_outcome_with_two_leaders(callers in callers(), courses in courses()) {
        in_made_up_time(play::<2>(&callers, courses))?;
    }
}

#[test]
fn a_lone_call_goes_out_at_once_and_what_comes_meanwhile_is_one_batch() {
    in_made_up_time(async {
        let long = Course {
            millis: 100,
            interrupted_after: None,
        };
        let coalescer = Fake::<1>::new(vec![long, long]);
        let began = Instant::now();
        let calls: Vec<_> = (0..5)
            .map(|id| {
                let coalescer = coalescer.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(id as u64)).await;
                    coalescer.call(&Drive::Runtime, Job { id, weight: 1 }).await
                })
            })
            .collect();
        for (id, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), id);
        }
        let told = coalescer.runner.told.lock().unwrap();
        let batches: Vec<_> = told
            .batches
            .iter()
            .map(|(_, jobs, at)| (*jobs, at.duration_since(began).as_millis()))
            .collect();
        assert_eq!(batches, [(1, 0), (4, 100)]);
    });
}

#[test]
fn a_queue_that_stays_full_ends_in_an_error_that_says_so() {
    in_made_up_time(async {
        let stuck = Course {
            millis: 3_600_000,
            interrupted_after: None,
        };
        let coalescer = Fake::<1>::new(vec![stuck]);
        let calls: Vec<_> = (0..Fake::<1>::ROOM)
            .map(|id| {
                let coalescer = coalescer.clone();
                tokio::spawn(
                    async move { coalescer.call(&Drive::Runtime, Job { id, weight: 1 }).await },
                )
            })
            .collect();
        tokio::task::yield_now().await;
        let began = Instant::now();
        let refused = coalescer
            .call(&Drive::Runtime, Job { id: 99, weight: 1 })
            .await;
        assert!(began.elapsed() >= Duration::from_secs(30));
        assert!(
            matches!(&refused, Err(Error::PoolExhausted(text)) if text.contains("40 calls")),
            "{refused:?}"
        );
        for call in calls {
            call.await.unwrap().unwrap();
        }
    });
}

/// Interrupts its thread once told to.
#[derive(Default)]
struct Signal(AtomicBool);

impl Interrupt for Signal {
    fn tick(&self) -> Option<Duration> {
        Some(Duration::from_millis(1))
    }
    fn interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Spins for a moment instead of waiting, so that threads meet anywhere.
struct Spinning;

impl Runner for Spinning {
    type Job = usize;
    type Outcome = usize;

    const LEADERS: usize = 2;
    const ROOM: usize = 1_000;

    fn most(&self) -> usize {
        8
    }

    fn weight(&self, _: &usize) -> usize {
        1
    }

    async fn run(&self, batch: &mut Batch<Self>) -> Result<()> {
        for _ in 0..fastrand::u32(0..2_000) {
            std::hint::spin_loop();
        }
        if fastrand::u8(..) < 20 {
            return Err(Error::Interrupted);
        }
        while let Some(entry) = batch.entries.pop_front() {
            let id = entry.job;
            batch.tell(entry, Ok(id));
        }
        Ok(())
    }

    fn orphaned(&self, _: Result<usize>) {}
}

#[test]
fn threads_that_are_interrupted_anywhere_leave_the_others_to_go_on() {
    let coalescer = Coalescer::new(Spinning);
    std::thread::scope(|scope| {
        for number in 0..8_usize {
            let coalescer = coalescer.clone();
            scope.spawn(move || {
                for round in 0..2_000_usize {
                    let signal = Arc::new(Signal::default());
                    // Interrupted in its wait now and then, besides when its batch is.
                    signal.0.store(fastrand::u8(..) < 40, Ordering::SeqCst);
                    let id = number * 10_000 + round;
                    let drive = Drive::Caller(signal);
                    match complete(coalescer.call(&drive, id)) {
                        Ok(outcome) => assert_eq!(outcome, id),
                        Err(error) => assert!(matches!(error, Error::Interrupted), "{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(coalescer.waiting(), 0);
    let drive = Drive::Caller(Arc::new(Signal::default()));
    while matches!(complete(coalescer.call(&drive, 1)), Err(Error::Interrupted)) {}
}

#[test]
fn jobs_that_are_submitted_are_done_among_the_others_and_told() {
    in_made_up_time(async {
        let short = Course {
            millis: 3,
            interrupted_after: None,
        };
        let coalescer = Fake::<1>::new(vec![short; 40]);
        let told = Arc::new(Mutex::new(Vec::new()));
        let handle = tokio::runtime::Handle::current();
        let mut calls = Vec::new();
        for id in 0..30 {
            if id % 3 == 0 {
                let coalescer = coalescer.clone();
                calls.push(tokio::spawn(async move {
                    // Gone before a batch takes it, now and then.
                    let call = coalescer.call(&Drive::Runtime, Job { id, weight: 1 });
                    timeout(Duration::from_millis(id as u64), call).await
                }));
                continue;
            }
            let heard = told.clone();
            // Every fifth has nobody any more who would hear it.
            let tell = move |outcome: Result<usize>| {
                if id % 5 == 0 {
                    return Some(outcome);
                }
                heard.lock().unwrap().push(outcome.unwrap());
                None
            };
            let submitted = coalescer.submit(&handle, Job { id, weight: 1 }, Box::new(tell));
            assert!(submitted.is_ok());
        }
        for call in calls {
            drop(call.await.unwrap());
        }
        sleep(Duration::from_secs(1)).await;
        let mut told = told.lock().unwrap().clone();
        told.sort_unstable();
        let expected: Vec<_> = (0..30).filter(|id| id % 3 != 0 && id % 5 != 0).collect();
        assert_eq!(told, expected);
        let mut orphaned = coalescer.runner.told.lock().unwrap().orphaned.clone();
        orphaned.retain(|id| id % 3 != 0);
        orphaned.sort_unstable();
        assert_eq!(orphaned, [5, 10, 20, 25]);
        assert!(coalescer.is_idle());
    });
}
