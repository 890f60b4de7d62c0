//! What goes wrong in a world, and when: made of a seed, and made smaller once it has shown something.

use crate::clockwork::Micros;

/// A message after which a connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// It is the next COMMIT; otherwise whatever is sent next.
    pub at_commit: bool,
    /// It arrives and is executed; only the answer is lost.
    pub after_execution: bool,
    /// How long until each side notices.
    pub client_notices: Micros,
    pub server_notices: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The process stands still (SIGSTOP, a suspended machine): its clock does not.
    Pause { length: Micros },
    /// The process dies and another takes its place; `silent`: the server does not hear of it for long.
    Kill { silent: bool, restart: Micros },
    /// A connection breaks.
    Cut(Cut),
    /// The process is stopped just before its next COMMIT, or whatever it sends next: past its last look at the clock.
    Stall { at_commit: bool, length: Micros },
    /// What the process sends vanishes for a while, and nobody is told.
    Partition { length: Micros },
    /// The database's clock steps.
    Step { by: i64 },
    /// Its messages take up to so much longer for a while.
    Slow { length: Micros, by: Micros },
    /// The database crashes and is there again at once.
    Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub at: Micros,
    pub worker: usize,
    pub what: What,
}

/// Faults end here; the rest of the world's time is for what should then come right.
pub const QUIET: Micros = 8_000_000;

/// A world to be simulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub workers: usize,
    pub machines: usize,
    /// The sessions' interval.
    pub interval: Micros,
    pub faults: Vec<Fault>,
}

impl Schedule {
    pub fn of(seed: u64) -> Self {
        // Apart from the world's own dice, so that fewer faults leave the rest as it was for as long as possible.
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x5eed_5eed);
        let workers = dice.usize(2..5);
        let interval = 1_000_000 * dice.u64(1..4);
        let mut faults: Vec<Fault> = (0..dice.usize(1..9))
            .map(|_| Fault {
                at: dice.u64(200_000..QUIET - 1_000_000),
                worker: dice.usize(0..workers),
                what: match dice.u8(0..20) {
                    0..3 => What::Pause {
                        length: dice.u64(0..3 * interval),
                    },
                    3..6 => What::Stall {
                        at_commit: dice.bool(),
                        length: dice.u64(0..3 * interval),
                    },
                    6..8 => What::Kill {
                        silent: dice.bool(),
                        restart: dice.u64(0..1_000_000),
                    },
                    8..13 => What::Cut(Cut {
                        at_commit: dice.bool(),
                        after_execution: dice.bool(),
                        client_notices: soon_or_late(&mut dice, 1_500_000),
                        server_notices: soon_or_late(&mut dice, 4_000_000),
                    }),
                    13..15 => What::Slow {
                        length: dice.u64(0..4_000_000),
                        by: dice.u64(1..interval),
                    },
                    15..18 => What::Partition {
                        length: dice.u64(0..3 * interval),
                    },
                    18 => What::Step {
                        by: if dice.bool() {
                            dice.i64(0..3_600_000_000)
                        } else {
                            dice.i64(-500_000..0)
                        },
                    },
                    _ => What::Crash,
                },
            })
            .collect();
        // A network that gets slow and is then gone: what was heard last was heard late.
        for number in 0..faults.len() {
            let Fault { at, worker, what } = faults[number];
            if let What::Slow { length, .. } = what
                && dice.bool()
            {
                let length = length.min(2 * interval);
                faults[number].what = What::Slow {
                    length,
                    by: interval,
                };
                let at = (at + length).min(QUIET - 1_000_000);
                let length = dice.u64(interval..3 * interval);
                faults.push(Fault {
                    at,
                    worker,
                    what: What::Partition { length },
                });
            }
        }
        Schedule {
            seed,
            workers,
            machines: dice.usize(1..4),
            interval,
            faults,
        }
    }

    /// The same with as few faults as still make it fail.
    pub fn shrunk(mut self, fails: impl Fn(&Schedule) -> bool) -> Self {
        let mut number = 0;
        while number < self.faults.len() {
            let mut smaller = self.clone();
            smaller.faults.remove(number);
            if fails(&smaller) {
                self = smaller;
            } else {
                number += 1;
            }
        }
        self
    }
}

/// Within 5 ms, or within `late`.
fn soon_or_late(dice: &mut fastrand::Rng, late: Micros) -> Micros {
    let end = if dice.bool() { 5_000 } else { late };
    dice.u64(0..end)
}
