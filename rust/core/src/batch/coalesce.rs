//! Calls that come while others are under way are done together.
//!
//! Whoever calls and finds nobody at it leads: it takes what waits, its own call with it, does that as one batch and
//! tells everybody how theirs fared. What comes meanwhile waits; when a leader is done, one of those that wait leads next. So
//! a call that is alone goes out at once, on the thread or task that made it, and batches grow just as large as the
//! answer of the one before took. Nothing runs in the background, and nothing is done for a caller that is gone.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::panics::caught;

/// How long to wait for a place in a queue that is full.
pub const ROOM_LIMIT: Duration = Duration::from_secs(30);
/// A wait that is as long as it takes: what is waited for has limits of its own.
const WITHOUT_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is done in batches.
pub trait Runner: Send + Sync + Sized + 'static {
    /// One call's wish.
    type Job: Send + 'static;
    /// What comes of it.
    type Outcome: Send + 'static;

    /// How many batches may be under way at once.
    const LEADERS: usize;
    /// How many calls may wait.
    const ROOM: usize;

    /// The most that a batch may weigh.
    fn most(&self) -> usize;

    /// What a job weighs.
    fn weight(&self, job: &Self::Job) -> usize;

    /// Does a batch, and tells each of its entries. Entries that are left when it fails go back to the head of the queue, so it
    /// fails only for a reason of its caller's own, such as a signal.
    fn run(&self, batch: &mut Batch<Self>) -> impl Future<Output = Result<()>> + Send;

    /// Its caller was gone when this was told.
    fn orphaned(&self, outcome: Result<Self::Outcome>);
}

/// What a caller hears.
enum Word<R: Runner> {
    Outcome(usize, Result<R::Outcome>),
    Lead(Leadership<R>),
    Alone(Entry<R>),
}

/// Tells an outcome to somebody who waits elsewhere; gives it back when nobody does any more.
pub type Tell<R> = Box<
    dyn FnOnce(Result<<R as Runner>::Outcome>) -> Option<Result<<R as Runner>::Outcome>>
        + Send
        + Sync,
>;

/// Who waits for a job.
enum Caller<R: Runner> {
    /// A call that waits here, and can lead.
    Here(usize, UnboundedSender<Word<R>>),
    /// Somebody who is told; tasks of this runtime lead instead.
    Elsewhere(Handle, Tell<R>),
}

/// A job and who waits for it.
pub struct Entry<R: Runner> {
    /// What is to be done.
    pub job: R::Job,
    caller: Caller<R>,
    _room: Arc<OwnedSemaphorePermit>,
}

impl<R: Runner> Entry<R> {
    /// False once its caller is gone.
    fn is_awaited(&self) -> bool {
        match &self.caller {
            Caller::Here(_, caller) => !caller.is_closed(),
            Caller::Elsewhere(..) => true,
        }
    }

    /// Tells the caller; what nobody hears is handed back.
    fn tell(self, outcome: Result<R::Outcome>) -> Option<Result<R::Outcome>> {
        let (position, caller) = match self.caller {
            Caller::Here(position, caller) => (position, caller),
            Caller::Elsewhere(_, tell) => return tell(outcome),
        };
        match caller.send(Word::Outcome(position, outcome)) {
            Ok(()) => None,
            Err(unheard) => match unheard.0 {
                Word::Outcome(_, outcome) => Some(outcome),
                Word::Lead(_) | Word::Alone(_) => None,
            },
        }
    }
}

struct State<R: Runner> {
    waiting: VecDeque<Entry<R>>,
    leading: usize,
}

/// One queue, and those who work it off.
pub struct Coalescer<R: Runner> {
    /// What does the batches.
    pub runner: R,
    state: Mutex<State<R>>,
    room: Arc<Semaphore>,
}

impl<R: Runner> Coalescer<R> {
    /// An empty queue.
    pub fn new(runner: R) -> Arc<Self> {
        Arc::new(Coalescer {
            runner,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                leading: 0,
            }),
            room: Arc::new(Semaphore::new(R::ROOM)),
        })
    }

    /// How many jobs wait for a batch.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Nobody waits, and nothing is under way.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.leading == 0
    }

    /// Has one job done.
    pub async fn call(self: &Arc<Self>, drive: &Drive, job: R::Job) -> Result<R::Outcome> {
        let mut outcomes = self.call_all(drive, vec![job]).await?;
        outcomes
            .pop()
            .unwrap_or_else(|| Err(Error::WorkState("a call without an outcome".to_owned())))
    }

    /// Has these jobs done; their outcomes, in the same order.
    ///
    /// Fails as a whole when there is no room in time, or when a signal ends the wait: jobs that no batch has taken by then
    /// are not done.
    pub async fn call_all(
        self: &Arc<Self>,
        drive: &Drive,
        jobs: Vec<R::Job>,
    ) -> Result<Vec<Result<R::Outcome>>> {
        let room = Arc::new(self.room_for(drive, jobs.len()).await?);
        let (caller, hears) = unbounded_channel();
        let mut answers = Answers {
            coalescer: self.clone(),
            outcomes: jobs.iter().map(|_| None).collect(),
            missing: jobs.len(),
            hears,
        };
        let lead = {
            let mut state = self.lock();
            let entries = jobs.into_iter().enumerate().map(|(position, job)| Entry {
                job,
                caller: Caller::Here(position, caller.clone()),
                _room: room.clone(),
            });
            state.waiting.extend(entries);
            state.may_lead()
        };
        drop(caller);
        if lead {
            Leadership(Some(self.clone())).work().await?;
        }
        while answers.missing > 0 {
            match answers.next(drive).await? {
                Word::Outcome(position, outcome) => {
                    answers.outcomes[position] = Some(outcome);
                    answers.missing -= 1;
                }
                Word::Lead(leadership) => leadership.work().await?,
                Word::Alone(entry) => {
                    let mut batch = Batch {
                        coalescer: self.clone(),
                        entries: VecDeque::from([entry]),
                        alone: true,
                    };
                    self.runner.run(&mut batch).await?;
                }
            }
        }
        Ok(answers.outcomes.drain(..).flatten().collect())
    }

    /// Has one job done by tasks of a runtime, and its outcome told. Gives it back when there is no room now.
    pub fn submit(
        self: &Arc<Self>,
        handle: &Handle,
        job: R::Job,
        tell: Tell<R>,
    ) -> std::result::Result<(), (R::Job, Tell<R>)> {
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            return Err((job, tell));
        };
        let lead = {
            let mut state = self.lock();
            state.waiting.push_back(Entry {
                job,
                caller: Caller::Elsewhere(handle.clone(), tell),
                _room: Arc::new(room),
            });
            state.may_lead()
        };
        if lead {
            spawn(handle, Leadership(Some(self.clone())).work());
        }
        Ok(())
    }

    async fn room_for(&self, drive: &Drive, jobs: usize) -> Result<OwnedSemaphorePermit> {
        let places = u32::try_from(jobs.clamp(1, R::ROOM)).unwrap_or(u32::MAX);
        if let Ok(permit) = self.room.clone().try_acquire_many_owned(places) {
            return Ok(permit);
        }
        let what = "waiting for a place in the queue";
        let acquire = self.room.clone().acquire_many_owned(places);
        match drive.wait(ROOM_LIMIT, what, acquire).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(Error::TimedOut(_)) => Err(Error::PoolExhausted(format!(
                "{} calls were waiting ahead of this one for {} s: the database does not keep up with them",
                R::ROOM,
                ROOM_LIMIT.as_secs()
            ))),
            Err(error) => Err(error),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a batch may hold, passing over those whose callers are gone.
    fn take(&self) -> VecDeque<Entry<R>> {
        let (mut taken, mut weight) = (VecDeque::new(), 0);
        let mut abandoned = Vec::new();
        let mut state = self.lock();
        while let Some(entry) = state.waiting.pop_front() {
            if !entry.is_awaited() {
                abandoned.push(entry);
                continue;
            }
            let its = self.runner.weight(&entry.job);
            if weight > 0 && weight + its > self.runner.most() {
                state.waiting.push_front(entry);
                break;
            }
            weight += its;
            taken.push_back(entry);
        }
        drop(state);
        // Outside the lock: what a job does when it is dropped is its own affair.
        drop(abandoned);
        taken
    }

    /// Lets somebody who waits lead, if nobody else may, and forgets those at the head whose callers are gone.
    fn promote(self: &Arc<Self>) {
        let mut gone = Vec::new();
        let mut elsewhere = None;
        let mut state = self.lock();
        while let Some(entry) = state.waiting.front() {
            if !entry.is_awaited() {
                gone.extend(state.waiting.pop_front());
                continue;
            }
            let caller = match &entry.caller {
                Caller::Here(_, caller) => Ok(caller.clone()),
                Caller::Elsewhere(handle, _) => Err(handle.clone()),
            };
            if !state.may_lead() {
                break;
            }
            // Under the lock, as a caller leaves under it: it hears this, or is seen to be gone above.
            let leadership = || Leadership(Some(self.clone()));
            match caller.map(|caller| caller.send(Word::Lead(leadership()))) {
                Ok(Ok(())) => break,
                Ok(Err(refused)) => {
                    // Its drop would want the lock.
                    if let Word::Lead(mut leadership) = refused.0 {
                        leadership.0 = None;
                    }
                    state.leading -= 1;
                    gone.extend(state.waiting.pop_front());
                }
                Err(handle) => {
                    elsewhere = Some(handle);
                    break;
                }
            }
        }
        drop(state);
        // Outside the lock: what a job does when it is dropped is its own affair.
        drop(gone);
        if let Some(handle) = elsewhere {
            spawn(&handle, Leadership(Some(self.clone())).work());
        }
    }
}

/// On a runtime nothing interrupts a leader, so there is nothing to be told of its work.
fn spawn(handle: &Handle, work: impl Future<Output = Result<()>> + Send + 'static) {
    drop(handle.spawn(async move { drop(work.await) }));
}

impl<R: Runner> State<R> {
    fn may_lead(&mut self) -> bool {
        let may = self.leading < R::LEADERS;
        if may {
            self.leading += 1;
        }
        may
    }
}

struct Answers<R: Runner> {
    coalescer: Arc<Coalescer<R>>,
    outcomes: Vec<Option<Result<R::Outcome>>>,
    missing: usize,
    hears: UnboundedReceiver<Word<R>>,
}

impl<R: Runner> Answers<R> {
    async fn next(&mut self, drive: &Drive) -> Result<Word<R>> {
        if let Ok(word) = self.hears.try_recv() {
            return Ok(word);
        }
        let word = drive
            .wait(WITHOUT_LIMIT, "waiting for a batch", self.hears.recv())
            .await?;
        word.ok_or_else(|| Error::WorkState("a call was dropped from its queue".to_owned()))
    }
}

impl<R: Runner> Drop for Answers<R> {
    /// A caller that leaves early passes on what it was told: an outcome that it has not taken, the right to lead.
    fn drop(&mut self) {
        if self.missing == 0 {
            return;
        }
        let state = self.coalescer.lock();
        self.hears.close();
        drop(state);
        for outcome in self.outcomes.drain(..).flatten() {
            self.coalescer.runner.orphaned(outcome);
        }
        while let Ok(word) = self.hears.try_recv() {
            if let Word::Outcome(_, outcome) = word {
                self.coalescer.runner.orphaned(outcome);
            }
        }
        // Its own jobs, if they wait at the head, are not done any more.
        self.coalescer.promote();
    }
}

/// The right and the duty to do the next batch. Dropped, it goes to somebody who waits.
struct Leadership<R: Runner>(Option<Arc<Coalescer<R>>>);

impl<R: Runner> Leadership<R> {
    async fn work(self) -> Result<()> {
        let Some(coalescer) = &self.0 else {
            return Ok(());
        };
        let entries = coalescer.take();
        if entries.is_empty() {
            return Ok(());
        }
        let mut batch = Batch {
            coalescer: coalescer.clone(),
            entries,
            alone: false,
        };
        let ran = caught(pin!(coalescer.runner.run(&mut batch))).await;
        match ran {
            // Done again by the next leader, they might meet it again, and for ever.
            Err(error @ Error::Panicked(_)) => {
                batch.tell_all(|| Err(error.clone()));
                Ok(())
            }
            outcome => outcome,
        }
    }
}

impl<R: Runner> Drop for Leadership<R> {
    fn drop(&mut self) {
        if let Some(coalescer) = self.0.take() {
            coalescer.lock().leading -= 1;
            coalescer.promote();
        }
    }
}

/// What is done together. What is left of it when it is dropped goes back to the head of the queue.
pub struct Batch<R: Runner> {
    coalescer: Arc<Coalescer<R>>,
    /// In the order of their calls.
    pub entries: VecDeque<Entry<R>>,
    /// It is one job, done by its own caller, who keeps nobody waiting.
    pub alone: bool,
}

impl<R: Runner> Batch<R> {
    /// Tells an entry that was taken out of the batch.
    pub fn tell(&self, entry: Entry<R>, outcome: Result<R::Outcome>) {
        if let Some(unheard) = entry.tell(outcome) {
            self.coalescer.runner.orphaned(unheard);
        }
    }

    /// Has its own caller do this entry, alone.
    pub fn send_home(&self, entry: Entry<R>) {
        let leader = match &entry.caller {
            Caller::Here(_, caller) => Ok(caller.clone()),
            Caller::Elsewhere(handle, _) => Err(handle.clone()),
        };
        match leader {
            // Whoever is gone wants nothing done.
            Ok(caller) => drop(caller.send(Word::Alone(entry))),
            Err(handle) => {
                let mut batch = Batch {
                    coalescer: self.coalescer.clone(),
                    entries: VecDeque::from([entry]),
                    alone: true,
                };
                spawn(&handle, async move {
                    let coalescer = batch.coalescer.clone();
                    coalescer.runner.run(&mut batch).await
                });
            }
        }
    }

    /// Tells all that are left.
    pub fn tell_all(&mut self, mut outcome: impl FnMut() -> Result<R::Outcome>) {
        while let Some(entry) = self.entries.pop_front() {
            self.tell(entry, outcome());
        }
    }
}

impl<R: Runner> Drop for Batch<R> {
    fn drop(&mut self) {
        let mut state = self.coalescer.lock();
        while let Some(entry) = self.entries.pop_back() {
            state.waiting.push_front(entry);
        }
    }
}
