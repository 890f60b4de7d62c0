//! Deterministic simulation: workers on the core's own state machines against a model of the database, from one seed.
//!
//! `SIMULATION_SCHEDULES` says how many schedules to try (`make soak`: a million), `SIMULATION_SEED` tells the story of one.

#![allow(unreachable_pub)]

mod clockwork;
mod database;
mod faults;
mod ledger;
mod looked_at;
mod mutants;
mod statements;
mod worker;

use clockwork::{Process, Sim};
use faults::{Fault, QUIET, Schedule, What};
use mutants::Mutant;

/// When all must have come right.
const END: u64 = QUIET + 14_000_000;

/// Unoptimised, it is a hundred times slower.
const USUAL: u64 = if cfg!(debug_assertions) { 300 } else { 10_000 };

/// What came of a schedule.
struct Outcome {
    wrong: Vec<String>,
    story: Vec<String>,
    cycles: u64,
    losses: u64,
}

fn simulate(schedule: &Schedule, mutant: Option<Mutant>, tracing: bool) -> Outcome {
    let sim = Sim::new(schedule.seed, schedule.machines, mutant, tracing);
    let workers: std::rc::Rc<Vec<std::cell::Cell<usize>>> = std::rc::Rc::new(
        (0..schedule.workers)
            .map(|_| std::cell::Cell::new(start(&sim, schedule.interval)))
            .collect(),
    );
    for fault in schedule.faults.clone() {
        let (workers, interval) = (workers.clone(), schedule.interval);
        sim.at(fault.at, move |sim| strike(sim, fault, &workers, interval));
    }
    // Somebody makes finished machines match again, until it gets quiet.
    for step in 1..QUIET / 300_000 {
        let machines = schedule.machines;
        sim.at(step * 300_000, move |sim| {
            let machine = usize::try_from(sim.below(machines as u64)).unwrap_or(0);
            if sim.db(|db| db.clear_tag(machine)) {
                sim.trace(|| format!("machine {machine} matches again"));
            }
        });
    }
    sim.run(END);
    let mut wrong = sim.ledger(ledger::Ledger::verdict);
    wrong.extend(sim.db(|db| db.leftovers(END)));
    let (cycles, losses) = sim.ledger(|ledger| (ledger.cycles, ledger.losses));
    sim.end();
    Outcome {
        wrong,
        story: sim.story(),
        cycles,
        losses,
    }
}

fn start(sim: &Sim, interval: u64) -> usize {
    // Clocks run up to 8 % off, far more than real ones: what is left of the margin is for acting without a look.
    let drift = 80_000 - i64::try_from(sim.below(160_000)).unwrap_or(0);
    let number = sim.add_process(Process {
        drift,
        ..Process::default()
    });
    sim.spawn(number, worker::process(sim.clone(), number, interval));
    number
}

fn strike(sim: &Sim, fault: Fault, workers: &[std::cell::Cell<usize>], interval: u64) {
    let number = workers[fault.worker].get();
    let now = sim.now();
    sim.trace(|| format!("p{number}: {:?}", fault.what));
    match fault.what {
        What::Pause { length } => sim.process(number, |p| {
            p.paused_until = p.paused_until.max(now + length);
            p.pauses += 1;
        }),
        What::Slow { length, by } => sim.process(number, |p| p.slow = (now + length, by)),
        What::Cut(cut) => sim.process(number, |p| p.cut = Some(cut)),
        What::Stall { at_commit, length } => {
            sim.process(number, |p| p.stall = Some((at_commit, length)))
        }
        What::Partition { length } => sim.process(number, |p| p.parted_until = now + length),
        What::Step { by } => {
            sim.db(|db| db.step(by));
            sim.ledger(ledger::Ledger::clock_was_set);
        }
        What::Crash => sim.crash_database(),
        What::Kill { silent, restart } => {
            sim.kill(number, silent);
            workers[fault.worker].set(number);
            let next = start(sim, interval);
            // It begins when the restart is over: until then it stands still.
            sim.process(next, |p| p.paused_until = now + restart);
            workers[fault.worker].set(next);
        }
    }
}

fn schedules(default: u64) -> u64 {
    std::env::var("SIMULATION_SCHEDULES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

/// The first schedule that goes wrong, if one does, with as few faults as show it.
fn first_wrong(seeds: std::ops::Range<u64>, mutant: Option<Mutant>) -> Option<Schedule> {
    let fails = |schedule: &Schedule| !simulate(schedule, mutant, false).wrong.is_empty();
    seeds
        .map(Schedule::of)
        .find(fails)
        .map(|schedule| schedule.shrunk(fails))
}

fn tell(schedule: &Schedule, mutant: Option<Mutant>) -> String {
    let outcome = simulate(schedule, mutant, true);
    let seed = schedule.seed;
    format!(
        "seed {seed} (SIMULATION_SEED={seed} tells its story)\n{schedule:#?}\n{}\n\n{}",
        outcome.story.join("\n"),
        outcome.wrong.join("\n")
    )
}

#[test]
fn nothing_goes_wrong_in_any_schedule() {
    if let Some(seed) = std::env::var("SIMULATION_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        let schedule = Schedule::of(seed);
        assert!(
            simulate(&schedule, None, false).wrong.is_empty(),
            "{}",
            tell(&schedule, None)
        );
        return;
    }
    let total = schedules(USUAL);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let share = total.div_ceil(threads);
    let wrong: Vec<Schedule> = std::thread::scope(|scope| {
        let seeds = |part: u64| part * share..((part + 1) * share).min(total);
        let parts: Vec<_> = (0..threads)
            .map(|part| scope.spawn(move || first_wrong(seeds(part), None)))
            .collect();
        parts
            .into_iter()
            .filter_map(|part| part.join().expect("no panic"))
            .collect()
    });
    if let Some(schedule) = wrong.first() {
        panic!("{}", tell(schedule, None));
    }
}

/// A simulation in which nothing happens finds nothing wrong.
#[test]
fn work_is_done_and_leases_are_lost() {
    let outcomes: Vec<Outcome> = (0..300)
        .map(|seed| simulate(&Schedule::of(seed), None, false))
        .collect();
    let cycles: u64 = outcomes.iter().map(|outcome| outcome.cycles).sum();
    let losses: u64 = outcomes.iter().map(|outcome| outcome.losses).sum();
    assert!(cycles > 300 * 5, "{cycles} finished");
    assert!(losses > 100, "{losses} lost");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in [1, 7, 4711] {
        let tell = || simulate(&Schedule::of(seed), None, true).story;
        assert_eq!(tell(), tell());
    }
}

/// The rarest takes more than four thousand schedules.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes ten thousand schedules, optimised")]
fn every_mutant_is_caught() {
    let missed: Vec<Mutant> = mutants::ALL
        .into_iter()
        .filter(|mutant| first_wrong(0..schedules(USUAL), Some(*mutant)).is_none())
        .collect();
    assert!(missed.is_empty(), "not seen: {missed:?}");
}

/// How soon, for those who change the model.
#[test]
#[ignore = "tells, and checks nothing"]
fn how_soon_mutants_are_caught() {
    let mut lines = Vec::new();
    for mutant in mutants::ALL {
        let found = first_wrong(0..schedules(USUAL), Some(mutant));
        lines.push(match found {
            None => format!("{mutant:?}: not in {} schedules", schedules(USUAL)),
            Some(schedule) => {
                let wrong = simulate(&schedule, Some(mutant), false).wrong;
                format!(
                    "{mutant:?}: seed {}, {} faults: {}",
                    schedule.seed,
                    schedule.faults.len(),
                    wrong[0]
                )
            }
        });
    }
    panic!("\n{}", lines.join("\n"));
}

#[test]
fn a_failing_schedule_is_made_smaller() {
    let mutant = Some(Mutant::LostCommitFailed);
    let found = first_wrong(0..1_000, mutant).expect("seen");
    assert!(found.faults.len() < Schedule::of(found.seed).faults.len() || found.faults.len() <= 2);
    for number in 0..found.faults.len() {
        let mut smaller = found.clone();
        smaller.faults.remove(number);
        assert!(
            simulate(&smaller, mutant, false).wrong.is_empty(),
            "one fault less shows it too"
        );
    }
    let story = tell(&found, mutant);
    assert!(
        story.contains("SIMULATION_SEED=") && story.contains("(cut)"),
        "{story}"
    );
}
