//! What the core has to tell people, kept until Python has time to listen.
//!
//! The heartbeat must never wait for Python, so it puts events into a bounded queue; a Python thread drains it into
//! `logging`. When nobody drains it the oldest events make room, and their number is told.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

const CAPACITY: usize = 1024;

/// How serious an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For those who look closely.
    Debug,
    /// Ordinary course of things.
    Info,
    /// Something is not as it should be, but nothing is lost.
    Warning,
    /// Something is lost.
    Error,
}

/// The lease that an event is about, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The machine leased.
    pub machine: Uuid,
    /// The process it is leased for.
    pub process: String,
    /// The lease's token.
    pub token: i64,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// How serious it is.
    pub level: Level,
    /// The part of the core it comes from: `heartbeat`, `session`, `work`, `collect`, `interpreter`.
    pub source: &'static str,
    /// The session concerned.
    pub session: Option<Uuid>,
    /// True when it says that `session` is lost, so that callbacks are run.
    pub lost: bool,
    /// The serial of the lease that is lost, when it says that this one alone is.
    pub lease: Option<u64>,
    /// The lease that it is about, lost or not.
    pub subject: Option<Subject>,
    /// For people; never contains a password.
    pub message: String,
}

impl Event {
    fn tells_of_loss(&self) -> bool {
        self.lost || self.lease.is_some()
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Event>,
    dropped: u64,
    closed: bool,
}

/// The queue of one `Connection`.
#[derive(Debug, Default)]
pub struct Events {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Events {
    /// Adds an event, at the cost of the oldest if need be. One that tells of a loss is never dropped.
    pub fn push(&self, event: Event) {
        let mut state = self.lock();
        if state.queue.len() >= CAPACITY
            && let Some(oldest) = state.queue.iter().position(|event| !event.tells_of_loss())
        {
            state.queue.remove(oldest);
            state.dropped += 1;
        }
        state.queue.push_back(event);
        drop(state);
        self.arrived.notify_one();
    }

    /// Shorthand for an event without a session.
    pub fn tell(&self, level: Level, source: &'static str, message: impl Into<String>) {
        self.push(Event {
            level,
            source,
            session: None,
            lost: false,
            lease: None,
            subject: None,
            message: message.into(),
        });
    }

    /// Takes what is there, waiting up to `limit` for something. `None` once closed and empty.
    pub fn drain(&self, limit: Duration) -> Option<Vec<Event>> {
        let mut state = self.lock();
        if state.queue.is_empty() && !state.closed {
            state = self
                .arrived
                .wait_timeout_while(state, limit, |state| {
                    state.queue.is_empty() && !state.closed
                })
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        if state.queue.is_empty() && state.closed {
            return None;
        }
        let mut events: Vec<Event> = state.queue.drain(..).collect();
        if state.dropped > 0 {
            events.push(Event {
                level: Level::Warning,
                source: "events",
                session: None,
                lost: false,
                lease: None,
                subject: None,
                message: format!("{} events were dropped, as nobody listened", state.dropped),
            });
            state.dropped = 0;
        }
        Some(events)
    }

    /// Lets whoever drains come to an end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_but_losses_stay() {
        let events = Events::default();
        let id = Uuid::from_u128(1);
        events.push(Event {
            level: Level::Error,
            source: "session",
            session: Some(id),
            lost: true,
            lease: None,
            subject: None,
            message: "lost".into(),
        });
        for n in 0..CAPACITY + 5 {
            events.tell(Level::Info, "heartbeat", n.to_string());
        }
        let drained = events.drain(Duration::ZERO).unwrap();
        assert!(drained[0].lost);
        assert!(
            drained
                .last()
                .unwrap()
                .message
                .contains("6 events were dropped")
        );
    }

    #[test]
    fn a_closed_queue_is_drained_to_its_end() {
        let events = Events::default();
        events.tell(Level::Info, "session", "last words");
        events.close();
        assert_eq!(events.drain(Duration::ZERO).unwrap().len(), 1);
        assert_eq!(events.drain(Duration::from_secs(9)), None);
    }
}
