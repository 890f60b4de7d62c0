//! The retry machine under every order of events, and the exact moves that its callers rely on.

use std::time::Duration;

use bmdb_core::retry::{Action, BEGIN_RETRIES, Event, Failure, Limits, Machine, Protocol, Verdict};
use proptest::prelude::*;
use proptest::sample::select;

use Failure::{Ambiguous, Disconnected, Overloaded, Permanent, Retryable};

const FAILURES: [Failure; 5] = [Retryable, Disconnected, Overloaded, Ambiguous, Permanent];

fn all_events() -> Vec<Event> {
    let mut events = vec![
        Event::Begun,
        Event::Returned,
        Event::Raised(None),
        Event::Committed,
        Event::RolledBack,
        Event::Restarted,
        Event::RestartFailed,
        Event::Slept,
        Event::SettledCommitted,
        Event::SettledAborted,
        Event::Unsettled,
    ];
    for failure in FAILURES {
        events.extend([
            Event::BeginFailed(failure),
            Event::ReturnedAfter(failure),
            Event::Raised(Some(failure)),
            Event::CommitFailed(failure),
        ]);
    }
    events
}

/// Written apart from the machine, from the documentation of `Action`.
fn answers(action: Action, event: Event) -> bool {
    match event {
        Event::Begun | Event::BeginFailed(_) => matches!(action, Action::Begin { .. }),
        Event::Returned | Event::ReturnedAfter(_) | Event::Raised(_) => {
            matches!(action, Action::Run { .. })
        }
        Event::Committed | Event::CommitFailed(_) => action == Action::Commit,
        Event::RolledBack => action == Action::Rollback,
        Event::Restarted | Event::RestartFailed => action == Action::Restart,
        Event::Slept => matches!(action, Action::Sleep(_)),
        Event::SettledCommitted | Event::SettledAborted | Event::Unsettled => {
            action == Action::Settle
        }
    }
}

fn protocols() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Rollback, Protocol::Savepoint])
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        0_u32..6,
        proptest::option::of(0_u64..1_500),
        0_u64..50,
        0_u64..200,
    )
        .prop_map(
            |(max_retries, max_elapsed, first_delay, max_delay)| Limits {
                max_retries,
                max_elapsed: max_elapsed.map(Duration::from_millis),
                first_delay: Duration::from_millis(first_delay),
                max_delay: Duration::from_millis(max_delay),
            },
        )
}

/// What a server and a connection would look like after the events told so far.
#[derive(Default)]
struct World {
    open: bool,
    returned: bool,
    committed: bool,
    /// A commit was sent whose outcome is open.
    in_doubt: bool,
}

impl World {
    fn record(&mut self, protocol: Protocol, event: Event) {
        match event {
            Event::Begun => {
                *self = World {
                    open: true,
                    ..World::default()
                }
            }
            Event::Returned => self.returned = true,
            Event::ReturnedAfter(Disconnected) | Event::Raised(Some(Disconnected)) => {
                self.open = false
            }
            Event::Committed | Event::SettledCommitted => {
                *self = World {
                    committed: true,
                    ..World::default()
                };
            }
            Event::CommitFailed(failure) => {
                self.returned = false;
                self.in_doubt = match failure {
                    Retryable => false,
                    Disconnected | Ambiguous => true,
                    Permanent | Overloaded => protocol == Protocol::Savepoint,
                };
                self.open = !self.in_doubt;
            }
            Event::SettledAborted => self.in_doubt = false,
            Event::RolledBack => self.open = false,
            _ => {}
        }
    }

    fn allows(&self, action: Action) -> bool {
        match action {
            Action::Begin { .. } => !self.open && !self.committed && !self.in_doubt,
            Action::Run { .. } => self.open && !self.committed && !self.in_doubt,
            Action::Commit => self.open && self.returned,
            Action::Rollback | Action::Restart => self.open && !self.in_doubt,
            Action::Sleep(_) => !self.committed && !self.in_doubt,
            Action::Settle => self.in_doubt,
            Action::Finish(Verdict::Committed) => self.committed,
            Action::Finish(Verdict::Ambiguous) => self.in_doubt,
            Action::Finish(Verdict::RestartFailed) => self.open && !self.committed,
            Action::Finish(Verdict::Raise | Verdict::Fail | Verdict::Exhausted { .. }) => {
                !self.open && !self.committed && !self.in_doubt
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any events in any order, with absurd clocks and randomness: no panic, and a wrong event changes nothing.
    #[test]
    fn a_wrong_event_is_refused_and_changes_nothing(
        protocol in protocols(),
        limits in limits(),
        settles in any::<bool>(),
        steps in prop::collection::vec((select(all_events()), any::<u64>(), any::<f64>()), 0..200),
    ) {
        let mut machine = Machine::new(protocol, limits, settles);
        prop_assert!(machine.clone().step(Event::Begun, Duration::ZERO, 0.0).is_err());
        let mut action = machine.start();
        for (event, elapsed, random) in steps {
            let before = machine.clone();
            match machine.step(event, Duration::from_millis(elapsed), random) {
                Ok(next) => {
                    prop_assert!(answers(action, event), "{event:?} taken for {action:?}");
                    action = next;
                }
                Err(refusal) => {
                    prop_assert!(!answers(action, event), "{event:?} refused for {action:?}");
                    prop_assert_eq!(refusal.pending, Some(action));
                    prop_assert_eq!(&machine, &before);
                }
            }
            prop_assert_eq!(machine.start(), action);
        }
    }

    /// Any answers that fit: an end within bounds, and at no point an action that the state of the server forbids.
    #[test]
    fn every_course_ends_and_reports_what_happened(
        protocol in protocols(),
        limits in limits(),
        settles in any::<bool>(),
        choices in prop::collection::vec((any::<prop::sample::Index>(), 0_u64..60, 0.0..1.0_f64), 200),
    ) {
        let mut machine = Machine::new(protocol, limits, settles);
        let mut world = World::default();
        let mut elapsed = Duration::ZERO;
        let mut action = machine.start();
        let mut runs = 0;
        let mut conflicts = 0;
        let mut steps = 0;
        for (index, passed, random) in choices {
            prop_assert!(world.allows(action), "{action:?}");
            match action {
                Action::Finish(verdict) => {
                    if let Verdict::Exhausted { attempts } = verdict {
                        prop_assert_eq!(attempts, runs + conflicts);
                        let late = limits.max_elapsed.is_some_and(|limit| elapsed >= limit);
                        prop_assert!(late || runs + conflicts == limits.max_retries + 1);
                    }
                    break;
                }
                Action::Run { attempt } => {
                    runs += 1;
                    prop_assert_eq!(attempt, runs);
                    prop_assert!(runs + conflicts <= limits.max_retries + 1);
                }
                Action::Sleep(delay) => {
                    prop_assert!(delay <= limits.max_delay);
                    prop_assert!(limits.max_elapsed.is_none_or(|limit| elapsed < limit));
                }
                Action::Settle => prop_assert!(settles),
                Action::Restart => prop_assert_eq!(protocol, Protocol::Savepoint),
                _ => {}
            }
            prop_assert_eq!(machine.attempts(), runs);
            let fitting: Vec<Event> = all_events().into_iter().filter(|e| answers(action, *e)).collect();
            let event = *index.get(&fitting);
            if event == Event::BeginFailed(Retryable) {
                conflicts += 1;
            }
            world.record(protocol, event);
            elapsed += Duration::from_millis(passed);
            action = machine.step(event, elapsed, random).expect("the event fits");
            steps += 1;
        }
        prop_assert!(matches!(action, Action::Finish(_)), "no end after {steps} steps");
        // A round is at most 6 begins with 5 sleeps between, a run, a commit, a settlement, a rollback, a sleep.
        prop_assert!(steps <= 16 * (limits.max_retries + 1));
    }
}

/// Plays events that each must fit, with no wait shortened by chance, and returns the actions that answer them.
fn play(protocol: Protocol, limits: Limits, settles: bool, events: &[Event]) -> Vec<Action> {
    let mut machine = Machine::new(protocol, limits, settles);
    assert_eq!(machine.start(), Action::Begin { reconnect: false });
    let step = |event: &Event| {
        machine
            .step(*event, Duration::ZERO, 1.0)
            .expect("the event fits")
    };
    events.iter().map(step).collect()
}

const FIRST_SLEEP: Action = Action::Sleep(Duration::from_millis(2));
const BOTH: [Protocol; 2] = [Protocol::Rollback, Protocol::Savepoint];

#[track_caller]
fn assert_after_run(protocol: Protocol, events: &[Event], expected: &[Action]) {
    let events = [&[Event::Begun], events].concat();
    let actions = play(protocol, Limits::default(), true, &events);
    assert_eq!(actions[0], Action::Run { attempt: 1 });
    assert_eq!(&actions[1..], expected, "{protocol:?} {events:?}");
}

#[test]
fn a_retryable_error_begins_anew_or_goes_back_to_the_savepoint() {
    for ending in [
        vec![Event::Raised(Some(Retryable))],
        vec![Event::ReturnedAfter(Retryable)],
        vec![Event::Returned, Event::CommitFailed(Retryable)],
    ] {
        let commit = &[Action::Commit][..ending.len() - 1];
        assert_after_run(
            Protocol::Rollback,
            &[
                &ending[..],
                &[Event::RolledBack, Event::Slept, Event::Begun],
            ]
            .concat(),
            &[
                commit,
                &[
                    Action::Rollback,
                    FIRST_SLEEP,
                    Action::Begin { reconnect: false },
                    Action::Run { attempt: 2 },
                ],
            ]
            .concat(),
        );
        assert_after_run(
            Protocol::Savepoint,
            &[&ending[..], &[Event::Restarted, Event::Slept]].concat(),
            &[
                commit,
                &[Action::Restart, FIRST_SLEEP, Action::Run { attempt: 2 }],
            ]
            .concat(),
        );
    }
    assert_after_run(
        Protocol::Savepoint,
        &[Event::Raised(Some(Retryable)), Event::RestartFailed],
        &[Action::Restart, Action::Finish(Verdict::RestartFailed)],
    );
}

#[test]
fn a_lost_connection_before_the_commit_is_replaced() {
    for protocol in BOTH {
        for event in [
            Event::Raised(Some(Disconnected)),
            Event::ReturnedAfter(Disconnected),
        ] {
            assert_after_run(
                protocol,
                &[event, Event::Slept, Event::Begun],
                &[
                    FIRST_SLEEP,
                    Action::Begin { reconnect: true },
                    Action::Run { attempt: 2 },
                ],
            );
        }
    }
}

#[test]
fn other_errors_surface_after_a_rollback() {
    for protocol in BOTH {
        for failure in [Permanent, Ambiguous, Overloaded] {
            for (event, verdict) in [
                (Event::Raised(Some(failure)), Verdict::Raise),
                (Event::ReturnedAfter(failure), Verdict::Fail),
            ] {
                let expected = [Action::Rollback, Action::Finish(verdict)];
                assert_after_run(protocol, &[event, Event::RolledBack], &expected);
            }
        }
        assert_after_run(
            protocol,
            &[Event::Raised(None), Event::RolledBack],
            &[Action::Rollback, Action::Finish(Verdict::Raise)],
        );
    }
}

#[test]
fn a_commit_refused_by_postgresql_is_a_definite_failure() {
    for failure in [Permanent, Overloaded] {
        assert_after_run(
            Protocol::Rollback,
            &[
                Event::Returned,
                Event::CommitFailed(failure),
                Event::RolledBack,
            ],
            &[
                Action::Commit,
                Action::Rollback,
                Action::Finish(Verdict::Fail),
            ],
        );
    }
}

#[test]
fn a_commit_in_doubt_is_settled_and_only_then_retried() {
    for protocol in BOTH {
        for failure in FAILURES {
            let definite = match protocol {
                Protocol::Rollback => matches!(failure, Retryable | Permanent | Overloaded),
                Protocol::Savepoint => failure == Retryable,
            };
            if definite {
                continue;
            }
            let lost = [Event::Returned, Event::CommitFailed(failure)];
            for (answer, verdict) in [
                (Event::SettledCommitted, Verdict::Committed),
                (Event::Unsettled, Verdict::Ambiguous),
            ] {
                assert_after_run(
                    protocol,
                    &[&lost[..], &[answer]].concat(),
                    &[Action::Commit, Action::Settle, Action::Finish(verdict)],
                );
            }
            assert_after_run(
                protocol,
                &[
                    &lost[..],
                    &[Event::SettledAborted, Event::Slept, Event::Begun],
                ]
                .concat(),
                &[
                    Action::Commit,
                    Action::Settle,
                    FIRST_SLEEP,
                    Action::Begin { reconnect: true },
                    Action::Run { attempt: 2 },
                ],
            );
            let told = play(
                protocol,
                Limits::default(),
                false,
                &[&[Event::Begun], &lost[..]].concat(),
            );
            assert_eq!(told.last(), Some(&Action::Finish(Verdict::Ambiguous)));
        }
    }
}

#[test]
fn a_begin_is_tried_again_with_growing_waits_and_then_surfaces() {
    for failure in [Disconnected, Overloaded] {
        let mut events = Vec::new();
        for _ in 0..BEGIN_RETRIES {
            events.extend([Event::BeginFailed(failure), Event::Slept]);
        }
        events.push(Event::BeginFailed(failure));
        let actions = play(Protocol::Rollback, Limits::default(), true, &events);
        let waits: Vec<f64> = actions
            .iter()
            .filter_map(|a| {
                if let Action::Sleep(d) = a {
                    Some(d.as_secs_f64())
                } else {
                    None
                }
            })
            .collect();
        assert_eq!(waits, [0.0625, 0.125, 0.25, 0.5, 1.0]);
        assert_eq!(actions[1], Action::Begin { reconnect: true });
        assert_eq!(actions.last(), Some(&Action::Finish(Verdict::Fail)));
    }
    for failure in [Permanent, Ambiguous] {
        let actions = play(
            Protocol::Savepoint,
            Limits::default(),
            true,
            &[Event::BeginFailed(failure)],
        );
        assert_eq!(actions, [Action::Finish(Verdict::Fail)]);
    }
}

#[test]
fn a_conflict_at_begin_is_retried_on_the_same_connection_and_counts() {
    let limits = Limits {
        max_retries: 2,
        ..Limits::default()
    };
    let conflict = [Event::BeginFailed(Retryable), Event::Slept];
    let events = [&conflict[..], &conflict[..], &[Event::Begun]].concat();
    let actions = play(Protocol::Rollback, limits, true, &events);
    let anew = Action::Begin { reconnect: false };
    let second = Action::Sleep(Duration::from_millis(4));
    let run = Action::Run { attempt: 1 };
    assert_eq!(actions, [FIRST_SLEEP, anew, second, anew, run]);

    let events = [&conflict[..], &conflict[..], &conflict[..1]].concat();
    let actions = play(Protocol::Rollback, limits, true, &events);
    let exhausted = Action::Finish(Verdict::Exhausted { attempts: 3 });
    assert_eq!(actions.last(), Some(&exhausted));
}

#[test]
fn waits_double_up_to_the_longest_and_retries_end() {
    let mut machine = Machine::new(Protocol::Savepoint, Limits::default(), false);
    machine.start();
    machine
        .step(Event::Begun, Duration::ZERO, 0.0)
        .expect("begun");
    let mut waits = Vec::new();
    loop {
        match machine
            .step(Event::Raised(Some(Retryable)), Duration::ZERO, 0.0)
            .expect("raised")
        {
            Action::Restart => {}
            Action::Rollback => break,
            other => panic!("{other:?}"),
        }
        match machine
            .step(Event::Restarted, Duration::ZERO, 1.0)
            .expect("restarted")
        {
            Action::Sleep(delay) => waits.push(delay.as_millis()),
            other => panic!("{other:?}"),
        }
        machine
            .step(Event::Slept, Duration::ZERO, 0.0)
            .expect("slept");
    }
    assert_eq!(
        &waits[..11],
        &[2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]
    );
    assert_eq!(waits.len(), 50);
    let end = machine.step(Event::RolledBack, Duration::ZERO, 0.0);
    assert_eq!(end, Ok(Action::Finish(Verdict::Exhausted { attempts: 51 })));
}

#[test]
fn no_retry_starts_after_the_time_limit() {
    for (event, expected) in [
        (Event::Raised(Some(Retryable)), Action::Rollback),
        (
            Event::Raised(Some(Disconnected)),
            Action::Finish(Verdict::Exhausted { attempts: 1 }),
        ),
    ] {
        let mut machine = Machine::new(Protocol::Rollback, Limits::default(), false);
        machine.start();
        machine
            .step(Event::Begun, Duration::ZERO, 0.0)
            .expect("begun");
        assert_eq!(
            machine.step(event, Duration::from_secs(60), 0.5),
            Ok(expected)
        );
    }
    for (protocol, event, expected) in [
        (
            Protocol::Rollback,
            Event::RolledBack,
            Action::Finish(Verdict::Exhausted { attempts: 1 }),
        ),
        (Protocol::Savepoint, Event::Restarted, Action::Rollback),
    ] {
        let mut machine = Machine::new(protocol, Limits::default(), false);
        machine.start();
        machine
            .step(Event::Begun, Duration::ZERO, 0.0)
            .expect("begun");
        machine
            .step(Event::Raised(Some(Retryable)), Duration::ZERO, 0.0)
            .expect("raised");
        assert_eq!(
            machine.step(event, Duration::from_secs(60), 0.5),
            Ok(expected)
        );
    }
    let mut machine = Machine::new(Protocol::Rollback, Limits::default(), false);
    machine.start();
    let end = machine.step(
        Event::BeginFailed(Disconnected),
        Duration::from_secs(60),
        0.5,
    );
    assert_eq!(end, Ok(Action::Finish(Verdict::Fail)));
}

#[test]
fn extreme_limits_do_not_overflow() {
    let limits = Limits {
        max_retries: u32::MAX,
        max_elapsed: None,
        first_delay: Duration::MAX,
        max_delay: Duration::MAX,
    };
    for random in [0.0, 0.5, 1.0, -1.0, f64::NAN, f64::INFINITY] {
        let mut machine = Machine::new(Protocol::Savepoint, limits, false);
        machine.start();
        machine
            .step(Event::BeginFailed(Overloaded), Duration::MAX, random)
            .expect("begin failed");
        machine
            .step(Event::Slept, Duration::MAX, random)
            .expect("slept");
        machine
            .step(Event::Begun, Duration::MAX, random)
            .expect("begun");
        machine
            .step(Event::Raised(Some(Retryable)), Duration::MAX, random)
            .expect("raised");
        let action = machine.step(Event::Restarted, Duration::MAX, random);
        assert!(matches!(action, Ok(Action::Sleep(_))), "{action:?}");
    }
}
