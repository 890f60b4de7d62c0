//! How many claims by callback for one process may run at once, here.
//!
//! Callbacks of the same process tend to offer the same machines, and then all but one of those that run together are
//! wasted. Each `Connection` therefore widens its gate by about one for each round of claims that went well, and halves
//! it when one met a rival: the additive increase and multiplicative decrease of TCP's congestion control. Other processes
//! are not seen from here, so once the gate is at its narrowest each claim also waits a random part of a pause, which doubles
//! with every conflict and shrinks by a fifth with every success, until about one claim in four meets a rival however many processes there are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// The longest pause before a claim, in seconds.
const LONGEST_PAUSE: f64 = 0.25;
/// The pause after a first conflict, in seconds; one below a quarter of it is none.
const FIRST_PAUSE: f64 = 0.002;

#[derive(Debug)]
struct State {
    width: f64,
    inside: usize,
    pause: f64,
    waiting: VecDeque<oneshot::Sender<Pass>>,
}

/// The gate of one process.
#[derive(Debug)]
pub struct Gate {
    widest: f64,
    state: Mutex<State>,
}

/// What to do before passing.
#[derive(Debug)]
pub enum Entry {
    /// Nothing: inside already.
    Inside(Pass),
    /// Wait for this.
    Wait(oneshot::Receiver<Pass>),
}

/// The right to be inside. Dropped: outside again.
#[derive(Debug)]
pub struct Pass(Option<Arc<Gate>>);

impl Gate {
    /// A gate that lets `widest` through at once at first, and never more.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn new(widest: usize) -> Self {
        let widest = widest.max(1) as f64;
        let state = State {
            width: widest,
            inside: 0,
            pause: 0.0,
            waiting: VecDeque::new(),
        };
        Gate {
            widest,
            state: Mutex::new(state),
        }
    }

    /// Asks to pass.
    pub fn enter(self: &Arc<Self>) -> Entry {
        let mut state = self.lock();
        if state.inside < state.allowed() {
            state.inside += 1;
            return Entry::Inside(Pass(Some(self.clone())));
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        Entry::Wait(receiver)
    }

    /// A claim went well.
    pub fn on_success(self: &Arc<Self>) {
        let mut state = self.lock();
        state.pause *= 0.8;
        if state.pause < FIRST_PAUSE / 4.0 {
            state.pause = 0.0;
        }
        state.width = (state.width + 1.0 / state.width).min(self.widest);
        state.admit(self);
    }

    /// A claim met a rival.
    pub fn on_conflict(&self) {
        let mut state = self.lock();
        // Alone inside: the rival was in another process.
        if state.allowed() <= 1 {
            state.pause = (state.pause * 2.0).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
        state.width = (state.width / 2.0).max(1.0);
    }

    /// How long to wait before a claim, given a random number in [0, 1): nothing while no rivals are met.
    #[must_use]
    pub fn pause(&self, random: f64) -> Duration {
        Duration::from_secs_f64(self.lock().pause * random)
    }

    fn leave(self: &Arc<Self>) {
        let mut state = self.lock();
        state.inside -= 1;
        state.admit(self);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn allowed(&self) -> usize {
        self.width as usize
    }

    fn admit(&mut self, gate: &Arc<Gate>) {
        while self.inside < self.allowed() {
            let Some(next) = self.waiting.pop_front() else {
                return;
            };
            // The pass itself is sent, so that it is given back even if nobody looks at it any more. Whoever has stopped
            // waiting already is passed over; that pass must not lock the gate again.
            self.inside += 1;
            if let Err(mut refused) = next.send(Pass(Some(gate.clone()))) {
                refused.0 = None;
                self.inside -= 1;
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(entry: Entry) -> Pass {
        match entry {
            Entry::Inside(pass) => pass,
            Entry::Wait(_) => panic!("had to wait"),
        }
    }

    #[test]
    fn a_conflict_halves_the_gate_and_success_widens_it_again() {
        let gate = Arc::new(Gate::new(4));
        gate.on_conflict();
        let passes = [inside(gate.enter()), inside(gate.enter())];
        assert!(matches!(gate.enter(), Entry::Wait(_)));
        drop(passes);
        for _ in 0..20 {
            gate.on_success();
        }
        let _passes: Vec<Pass> = (0..4).map(|_| inside(gate.enter())).collect();
        assert!(matches!(gate.enter(), Entry::Wait(_)));
    }

    #[test]
    fn at_least_one_may_always_pass() {
        let gate = Arc::new(Gate::new(2));
        for _ in 0..100 {
            gate.on_conflict();
        }
        drop(inside(gate.enter()));
        assert!(gate.pause(0.999).as_secs_f64() <= LONGEST_PAUSE);
    }

    #[test]
    fn the_pause_grows_with_conflicts_and_goes_with_success() {
        let gate = Arc::new(Gate::new(2));
        gate.on_conflict();
        assert_eq!(gate.pause(0.999), Duration::ZERO);
        gate.on_conflict();
        gate.on_conflict();
        assert_eq!(gate.pause(0.5), Duration::from_millis(2));
        for _ in 0..10 {
            gate.on_success();
        }
        assert_eq!(gate.pause(0.999), Duration::ZERO);
    }

    #[test]
    fn whoever_was_admitted_and_is_gone_keeps_no_place() {
        let gate = Arc::new(Gate::new(1));
        let first = inside(gate.enter());
        let Entry::Wait(waiting) = gate.enter() else {
            panic!("not full")
        };
        drop(first); // admits the one that waits,
        drop(waiting); // which a signal took away before it looked
        drop(inside(gate.enter()));
    }

    #[test]
    fn leaving_admits_the_next_that_still_waits() {
        let gate = Arc::new(Gate::new(1));
        let first = inside(gate.enter());
        let Entry::Wait(gone) = gate.enter() else {
            panic!("not full")
        };
        let Entry::Wait(mut waiting) = gate.enter() else {
            panic!("not full")
        };
        drop(gone);
        drop(first);
        let pass = waiting.try_recv().unwrap();
        assert!(matches!(gate.enter(), Entry::Wait(_)));
        drop(pass);
    }
}
