//! How long a machine is left alone after its work failed.
//!
//! A [`Backoff`] describes the first period, the factor by which it grows and the longest period. Nothing here keeps
//! state: the database remembers the last period of each machine and process, and [`Backoff::next`] turns it into the
//! one that follows. Periods are whole seconds, always rounded up, because that is the unit that the database holds.
//!
//! # Numbers
//! * A setting is a finite `f64` of seconds and is taken at its exact binary value: what is a hair above two seconds
//!   rounds up to three. Settings longer than [`LIMIT`] are cut to it.
//! * The product of period and exponent is formed as in the system that this one follows: in nanoseconds, with one
//!   `f64` multiplication whose result is truncated to a whole nanosecond. So ten seconds times 1.1 are eleven seconds,
//!   although the product of those two floats is slightly more. A product that does not fit an `i64` of nanoseconds
//!   becomes the maximum.
//! * Above 2^53 ns (104 days) an `f64` no longer holds every nanosecond, and an exponent hardly above one may
//!   add less than a second. The rule that a period below the maximum grows by a second or more holds regardless.

use std::fmt;
use std::hash::{Hash, Hasher};

const NANOS: i64 = 1_000_000_000;

/// The longest duration in seconds, as a setting: what an `i64` of nanoseconds can hold, about 292 years.
pub const LIMIT: f64 = i64::MAX as f64 / NANOS as f64;

/// The longest period in whole seconds: [`LIMIT`], rounded up.
pub const LONGEST: i64 = i64::MAX / NANOS + 1;

/// A number given by the caller, named in the errors about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The first period.
    Initial,
    /// The longest period.
    Maximum,
    /// The growth from one period to the next.
    Exponent,
    /// The share of a period that chance may take off.
    Jitter,
    /// The period before the one asked for.
    Previous,
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Field::Initial => "initial",
            Field::Maximum => "maximum",
            Field::Exponent => "exponent",
            Field::Jitter => "jitter",
            Field::Previous => "previous",
        })
    }
}

/// Why a number was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidBackoff {
    /// NaN or an infinity.
    #[error("{field} must be finite, not {value:?}")]
    NotFinite {
        /// Which number.
        field: Field,
        /// What was given.
        value: f64,
    },
    /// Less than zero.
    #[error("{field} must not be negative, but is {value:?}")]
    Negative {
        /// Which number.
        field: Field,
        /// What was given.
        value: f64,
    },
    /// A share of more than the whole.
    #[error("{field} must lie between 0 and 1, but is {value:?}")]
    AboveOne {
        /// Which number.
        field: Field,
        /// What was given.
        value: f64,
    },
}

/// The period that was in force before, as stored or as given by a caller. Anything below a second counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// Nearest whole nanosecond: what is multiplied.
    nanoseconds: i64,
    /// Rounded up: what the next period must exceed, and what is kept where nothing is configured.
    seconds: i64,
}

impl Previous {
    const SECOND: Previous = Previous {
        nanoseconds: NANOS,
        seconds: 1,
    };

    /// A period as the database stores it: any bigint. Zero and less count as a second, more than [`LONGEST`] as that.
    #[must_use]
    pub fn from_whole_seconds(seconds: i64) -> Self {
        let seconds = seconds.clamp(1, LONGEST);
        Previous {
            nanoseconds: seconds.saturating_mul(NANOS),
            seconds,
        }
    }

    /// A period in nanoseconds, cut to what fits as in [`Previous::from_whole_seconds`].
    #[must_use]
    pub fn from_nanoseconds(nanoseconds: i128) -> Self {
        let nanoseconds =
            i64::try_from(nanoseconds.clamp(NANOS.into(), i64::MAX.into())).unwrap_or(i64::MAX);
        Previous {
            nanoseconds,
            seconds: round_up(nanoseconds),
        }
    }

    /// A period in seconds; what exceeds [`LIMIT`] counts as that.
    ///
    /// # Errors
    /// [`InvalidBackoff`] naming `previous` for NaN, an infinity or a negative number.
    pub fn from_seconds(seconds: f64) -> Result<Self, InvalidBackoff> {
        let seconds = duration(Field::Previous, seconds)?;
        if seconds < 1.0 {
            return Ok(Previous::SECOND);
        }
        // Whole and fractional part apart, since their sum in nanoseconds can need more than 53 bits.
        let whole = seconds.trunc() as i64;
        let fraction = ((seconds - seconds.trunc()) * NANOS as f64).round_ties_even() as i64;
        Ok(Previous {
            nanoseconds: whole.saturating_mul(NANOS).saturating_add(fraction),
            seconds: seconds.ceil() as i64,
        })
    }
}

/// The settings in force once what is unset, too small or too large has been replaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalised {
    /// The first period: the initial one rounded up, one second or more.
    pub initial: i64,
    /// The longest period: the maximum rounded up, no shorter than the first period.
    pub maximum: i64,
    /// The exponent, 1 or more. At 1 every period is the first one.
    pub exponent: f64,
}

/// A rule for the periods between failures, checked when made and never changed.
///
/// Two are equal if the same settings were given.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: f64,
    maximum: Option<f64>,
    exponent: f64,
    jitter: f64,
    rules: Normalised,
}

impl Backoff {
    /// A rule from an initial period and a maximum in seconds, an exponent and a jitter from 0 to 1.
    ///
    /// An initial period below a second counts as one; a maximum that is absent or below the initial period counts as
    /// that; an exponent below 1 counts as 1. Zero therefore stands for "unset" everywhere.
    ///
    /// # Errors
    /// [`InvalidBackoff`], naming the first setting that is NaN, infinite or negative, or a jitter above 1.
    pub fn new(
        initial: f64,
        maximum: Option<f64>,
        exponent: f64,
        jitter: f64,
    ) -> Result<Self, InvalidBackoff> {
        let initial = duration(Field::Initial, initial)?;
        let maximum = maximum
            .map(|maximum| duration(Field::Maximum, maximum))
            .transpose()?;
        let exponent = finite(Field::Exponent, exponent)?;
        let jitter = finite(Field::Jitter, jitter)?;
        if jitter > 1.0 {
            return Err(InvalidBackoff::AboveOne {
                field: Field::Jitter,
                value: jitter,
            });
        }
        let first = (initial.ceil() as i64).max(1);
        let rules = Normalised {
            initial: first,
            maximum: maximum.map_or(first, |maximum| (maximum.ceil() as i64).max(first)),
            exponent: exponent.max(1.0),
        };
        Ok(Backoff {
            initial,
            maximum,
            exponent,
            jitter,
            rules,
        })
    }

    /// The first period in seconds, as given.
    #[must_use]
    pub fn initial(&self) -> f64 {
        self.initial
    }

    /// The longest period in seconds, as given.
    #[must_use]
    pub fn maximum(&self) -> Option<f64> {
        self.maximum
    }

    /// The exponent, as given.
    #[must_use]
    pub fn exponent(&self) -> f64 {
        self.exponent
    }

    /// The largest share of a period that [`Backoff::jittered`] takes off.
    #[must_use]
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// What the settings amount to.
    #[must_use]
    pub fn normalised(&self) -> Normalised {
        self.rules
    }

    /// An exponent above 1 without a maximum: the maximum is the initial period then, so nothing grows.
    #[must_use]
    pub fn never_grows(&self) -> bool {
        self.maximum.is_none() && self.exponent > 1.0
    }

    /// The period that follows `previous`, in whole seconds from 1 to the rounded-up maximum, before jitter.
    ///
    /// Without a previous period, and always with an exponent of 1, it is the rounded-up initial period. Else it is
    /// the previous one times the exponent, rounded up; while the previous one is below the maximum it is at least a
    /// second longer than that, unless the maximum comes first.
    #[must_use]
    pub fn next(&self, previous: Option<Previous>) -> i64 {
        let rules = &self.rules;
        let Some(previous) = previous else {
            return rules.initial;
        };
        if rules.exponent <= 1.0 {
            return rules.initial;
        }
        // The cast truncates, and ends at i64::MAX where the product does not fit.
        let product = (previous.nanoseconds as f64 * rules.exponent) as i64;
        round_up(product)
            .max(previous.seconds + 1)
            .min(rules.maximum)
    }

    /// The time to wait for a period that [`Backoff::next`] gave, in whole seconds.
    ///
    /// `random` is a number drawn evenly from 0 (included) to 1 (excluded). Up to `jitter × period` whole seconds come
    /// off, rounded down, each count as likely as the others; at least one second remains. Nothing is ever added, so
    /// the maximum holds. Store the period rather than the wait as the next call's `previous`, and jitter does not
    /// slow the growth.
    #[must_use]
    pub fn jittered(&self, period: i64, random: f64) -> i64 {
        let period = period.max(1);
        let spread = ((period as f64 * self.jitter) as i64).min(period - 1);
        let off = (random * (spread as f64 + 1.0)) as i64;
        period - off.clamp(0, spread)
    }

    /// The first `count` periods without jitter, each the previous one of the next.
    #[must_use]
    pub fn schedule(&self, count: usize) -> Vec<i64> {
        self.periods().take(count).collect()
    }

    /// All periods without jitter, each the previous one of the next; it never ends.
    pub fn periods(&self) -> impl Iterator<Item = i64> + '_ {
        std::iter::successors(Some(self.next(None)), |period| {
            Some(self.next(Some(Previous::from_whole_seconds(*period))))
        })
    }
}

impl PartialEq for Backoff {
    fn eq(&self, other: &Self) -> bool {
        (self.initial, self.maximum, self.exponent, self.jitter)
            == (other.initial, other.maximum, other.exponent, other.jitter)
    }
}

// Sound, since construction refuses NaN. It also drops the sign of zero, so equal settings have equal bits.
impl Eq for Backoff {}

impl Hash for Backoff {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.initial.to_bits().hash(state);
        self.maximum.map(f64::to_bits).hash(state);
        self.exponent.to_bits().hash(state);
        self.jitter.to_bits().hash(state);
    }
}

/// The period where no backoff is configured: the previous one again, rounded up, and one second without any.
#[must_use]
pub fn no_backoff(previous: Option<Previous>) -> i64 {
    previous.map_or(1, |previous| previous.seconds)
}

fn finite(field: Field, value: f64) -> Result<f64, InvalidBackoff> {
    if !value.is_finite() {
        return Err(InvalidBackoff::NotFinite { field, value });
    }
    if value < 0.0 {
        return Err(InvalidBackoff::Negative { field, value });
    }
    // Adding zero turns -0.0 into 0.0.
    Ok(value + 0.0)
}

fn duration(field: Field, seconds: f64) -> Result<f64, InvalidBackoff> {
    finite(field, seconds).map(|seconds| seconds.min(LIMIT))
}

/// Whole seconds, for a number of nanoseconds that is not negative.
fn round_up(nanoseconds: i64) -> i64 {
    nanoseconds / NANOS + i64::from(nanoseconds % NANOS != 0)
}
