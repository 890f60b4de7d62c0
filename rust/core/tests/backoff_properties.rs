//! The rules of backoff for every input, and the original's vectors.

use bmdb_core::backoff::{Backoff, Field, InvalidBackoff, LONGEST, Previous, no_backoff};
use proptest::prelude::*;
use serde_json::Value;

const NANOS: i128 = 1_000_000_000;

fn rule(initial: f64, maximum: f64, exponent: f64) -> Backoff {
    Backoff::new(initial, Some(maximum), exponent, 0.0).unwrap()
}

fn after(seconds: i64) -> Option<Previous> {
    Some(Previous::from_whole_seconds(seconds))
}

fn seconds() -> impl Strategy<Value = i64> {
    prop_oneof![
        0..100_000i64,
        LONGEST - 100_000..=LONGEST,
        any::<i64>(),
        prop::sample::select(vec![i64::MIN, -1, 0, 1, 2, LONGEST - 1, LONGEST, i64::MAX]),
    ]
}

fn duration() -> impl Strategy<Value = f64> {
    prop_oneof![
        (0..100_000i32).prop_map(f64::from),
        0.0..100_000f64,
        9.2e9..9.3e9,
        0.0..=f64::MAX,
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::MIN_POSITIVE,
            1.0,
            1.0 + f64::EPSILON,
            f64::MAX
        ]),
    ]
}

fn growth() -> impl Strategy<Value = f64> {
    prop_oneof![
        1.0 + f64::EPSILON..4.0,
        1.0 + f64::EPSILON..=f64::MAX,
        prop::sample::select(vec![1.0 + f64::EPSILON, 1.1, 1.2, 2.0, f64::MAX]),
    ]
}

/// The rounded-up maximum in force, by other arithmetic than the crate's.
fn highest(initial: f64, maximum: f64) -> i64 {
    let longer = if initial > maximum { initial } else { maximum };
    if longer >= LONGEST as f64 {
        LONGEST
    } else {
        let whole = longer as i64;
        (whole + i64::from(longer > whole as f64)).max(1)
    }
}

#[test]
fn vectors() {
    let text = include_str!("../../../tests/unit/backoff_vectors.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let setting = |name: &str| case["backoff"][name].as_f64();
        let backoff = case["backoff"].is_object().then(|| {
            Backoff::new(
                setting("initial").unwrap_or(0.0),
                setting("maximum"),
                setting("exponent").unwrap_or(0.0),
                0.0,
            )
            .unwrap()
        });
        let mut previous = case["previous"]
            .as_f64()
            .map(|seconds| Previous::from_seconds(seconds).unwrap());
        for expected in case["periods"].as_array().unwrap() {
            let period = match &backoff {
                Some(backoff) => backoff.next(previous),
                None => no_backoff(previous),
            };
            assert_eq!(Some(period), expected.as_i64(), "{}", case["name"]);
            previous = after(period);
        }
    }
}

#[test]
fn documented_sequence() {
    let expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17];
    assert_eq!(rule(1.0, 86_400.0, 1.1).schedule(14), expected);
}

#[test]
fn products_are_truncated_to_nanoseconds_and_rounded_up_to_seconds() {
    assert_eq!(rule(1.0, 1e6, 1.1).next(after(10)), 11);
    assert_eq!(rule(1.0, 1e6, 1.1).next(after(11)), 13);
    let previous = Previous::from_seconds(2.1).unwrap();
    assert_eq!(previous, Previous::from_nanoseconds(2_100_000_000));
    assert_eq!(rule(1.0, 1e6, 10.0).next(Some(previous)), 21);
}

#[test]
fn what_does_not_fit_becomes_the_maximum() {
    for previous in [4_611_686_019, LONGEST - 2, LONGEST, i64::MAX] {
        assert_eq!(rule(1.0, 3600.0, 2.0).next(after(previous)), 3600);
        assert_eq!(rule(1.0, f64::MAX, 2.0).next(after(previous)), LONGEST);
    }
    assert_eq!(no_backoff(after(i64::MAX)), LONGEST);
}

#[test]
fn refusals_name_the_field() {
    let build = |index: usize, value: f64| {
        let mut given = [1.0, 1.0, 1.0, 0.0];
        given[index] = value;
        Backoff::new(given[0], Some(given[1]), given[2], given[3])
    };
    let fields = [
        Field::Initial,
        Field::Maximum,
        Field::Exponent,
        Field::Jitter,
    ];
    for (index, field) in fields.into_iter().enumerate() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = build(index, value).unwrap_err();
            assert!(
                matches!(error, InvalidBackoff::NotFinite { field: named, .. } if named == field)
            );
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{field} must be finite"))
            );
        }
        let error = build(index, -0.5).unwrap_err();
        assert_eq!(error, InvalidBackoff::Negative { field, value: -0.5 });
    }
    let error = build(3, 1.5).unwrap_err();
    assert_eq!(
        error.to_string(),
        "jitter must lie between 0 and 1, but is 1.5"
    );
    let error = Previous::from_seconds(f64::NAN).unwrap_err();
    assert_eq!(error.to_string(), "previous must be finite, not NaN");
}

#[test]
fn normalised_settings() {
    let unset = Backoff::new(0.0, None, 0.0, 0.0).unwrap().normalised();
    assert_eq!((unset.initial, unset.maximum, unset.exponent), (1, 1, 1.0));
    let crossed = rule(10.5, 3.0, 0.5).normalised();
    assert_eq!(
        (crossed.initial, crossed.maximum, crossed.exponent),
        (11, 11, 1.0)
    );
    assert!(Backoff::new(1.0, None, 1.5, 0.0).unwrap().never_grows());
    assert!(!rule(1.0, 1.0, 1.5).never_grows());
}

#[test]
fn jitter_reaches_both_of_its_bounds() {
    let backoff = Backoff::new(10.0, None, 1.0, 0.5).unwrap();
    let below_one = 1.0 - f64::EPSILON / 2.0;
    assert_eq!(backoff.jittered(10, 0.0), 10);
    assert_eq!(backoff.jittered(10, below_one), 5);
    assert_eq!(
        Backoff::new(10.0, None, 1.0, 1.0)
            .unwrap()
            .jittered(10, below_one),
        1
    );
    for period in [i64::MIN, 0, 1] {
        assert_eq!(backoff.jittered(period, below_one), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_growing_backoff_rises_and_stays_within_bounds(
        initial in duration(), maximum in duration(), exponent in growth(), previous in seconds(),
    ) {
        let backoff = rule(initial, maximum, exponent);
        let highest = highest(initial, maximum);
        let period = backoff.next(after(previous));
        prop_assert!((1..=highest).contains(&period));
        if previous >= highest {
            prop_assert_eq!(period, highest);
        } else {
            prop_assert!(period > previous.max(1) || period == highest);
        }
    }

    #[test]
    fn the_period_is_the_rounded_up_product(exponent in growth(), previous in 1..1_000_000i64) {
        let product = ((i128::from(previous) * NANOS) as f64 * exponent) as i128;
        let rounded = (product.min(i128::from(i64::MAX)) + NANOS - 1) / NANOS;
        let expected = (rounded as i64).max(previous + 1);
        prop_assert_eq!(rule(1.0, f64::MAX, exponent).next(after(previous)), expected);
    }

    #[test]
    fn a_simple_backoff_never_changes(
        initial in duration(), maximum in duration(), exponent in 0.0..=1.0, previous in seconds(),
    ) {
        let backoff = rule(initial, maximum, exponent);
        prop_assert_eq!(backoff.next(after(previous)), highest(initial, 0.0));
        prop_assert_eq!(backoff.next(None), highest(initial, 0.0));
    }

    #[test]
    fn a_schedule_feeds_itself(initial in duration(), maximum in duration(), exponent in growth()) {
        let backoff = rule(initial, maximum, exponent);
        let schedule = backoff.schedule(30);
        prop_assert_eq!(schedule[0], highest(initial, 0.0));
        for pair in schedule.windows(2) {
            prop_assert_eq!(pair[1], backoff.next(after(pair[0])));
            prop_assert!(pair[1] > pair[0] || pair[1] == highest(initial, maximum));
        }
    }

    #[test]
    fn jitter_takes_off_its_share_at_most(
        period in 1..=LONGEST, jitter in 0.0..=1.0, random in prop_oneof![0.0..1.0, prop::num::f64::ANY],
    ) {
        let backoff = Backoff::new(1.0, None, 1.0, jitter).unwrap();
        let wait = backoff.jittered(period, random);
        prop_assert!(wait >= 1 && wait <= period);
        prop_assert!((period - wait) as f64 <= period as f64 * jitter);
    }

    #[test]
    fn every_float_is_taken_or_refused_by_name(value in prop::num::f64::ANY, previous in any::<i64>()) {
        let sound = value.is_finite() && value >= 0.0;
        prop_assert_eq!(Previous::from_seconds(value).is_ok(), sound);
        let backoff = Backoff::new(value, Some(value), value, value);
        prop_assert_eq!(backoff.is_ok(), sound && value <= 1.0);
        if let Ok(backoff) = Backoff::new(value, Some(value), value, 0.0) {
            prop_assert!((1..=LONGEST).contains(&backoff.next(after(previous))));
        }
    }

    #[test]
    fn a_previous_period_is_the_same_however_given(nanoseconds in 0..=i64::MAX) {
        let seconds = (i128::from(nanoseconds) + NANOS - 1) / NANOS;
        let previous = Previous::from_nanoseconds(nanoseconds.into());
        prop_assert_eq!(no_backoff(Some(previous)), (seconds as i64).max(1));
        let whole = nanoseconds / 1_000_000_000;
        let same = Previous::from_whole_seconds(whole);
        prop_assert_eq!(same, Previous::from_nanoseconds(i128::from(whole) * NANOS));
        prop_assert_eq!(same, Previous::from_seconds(whole as f64).unwrap());
    }
}
