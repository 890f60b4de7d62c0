//! SQL values, to and from PostgreSQL's binary format. Pure: no I/O and no clock.
//!
//! [`Param`] is what a caller passes for `$1`; its target is the type that the server inferred. [`Value`] is what a
//! column holds. A conversion either keeps the value or fails with a [`CodecError`]: nothing is wrapped, truncated
//! or guessed. The one rounding is `float8` to `float4`, because that is what such a column means.
//!
//! | SQL type | takes | gives |
//! | --- | --- | --- |
//! | bool | Bool | Bool |
//! | int2, int4, int8, oid | Int | Int |
//! | float4, float8 | Float; Int where it is exact | Float |
//! | numeric | Numeric, Int, BigInt; Float by its shortest decimal form | Numeric |
//! | text, varchar, bpchar, name, "char", enums | Text | Text |
//! | bytea | Bytes | Bytes |
//! | uuid | Uuid; Text that parses | Uuid |
//! | date, time, timestamp, timestamptz | Date, Time, Timestamp, TimestampTz | the same, years 1 to 9999 |
//! | interval | Interval | Interval without months |
//! | json, jsonb | Bool, Int, BigInt, Float, Numeric, Text, Array, Object | Json |
//! | inet, cidr | Inet; Text that parses | Inet |
//! | arrays of these | Array, rectangular, at most six deep | Array |
//!
//! A domain is its base type. NULL goes both ways for every type. A list for `json[]` is one dimension: the lists in
//! it are JSON. An array's lower bounds are not kept.

mod array;
mod calendar;
mod decode;
mod encode;
mod json;
mod network;
mod numeric;
mod shape;

use std::net::IpAddr;

use postgres_types::{FromSql, Type};

pub use calendar::{MICROS_PER_DAY, civil_from_days, days_from_civil};
pub use decode::decode;
pub use encode::encode;

/// A value that does not fit, told with the SQL type and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CodecError {
    /// What does not fit, into which type, and what helps.
    pub message: String,
    /// The kind of value is right but this one does not fit; otherwise the kind is wrong.
    pub out_of_range: bool,
}

impl CodecError {
    /// The kind of the value does not match the type.
    #[must_use]
    pub fn wrong_type(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            out_of_range: false,
        }
    }

    /// The value lies outside what the type, or the receiver, can hold.
    #[must_use]
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            out_of_range: true,
        }
    }
}

impl From<CodecError> for crate::error::Error {
    fn from(error: CodecError) -> Self {
        Self::Value {
            message: error.message,
            out_of_range: error.out_of_range,
        }
    }
}

/// What a caller passes for one `$n`.
#[derive(Debug, Clone, PartialEq)]
pub enum Param {
    /// NULL, for every type.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer within 64 bits.
    Int(i64),
    /// Decimal digits, with a sign where negative, of an integer beyond 64 bits.
    BigInt(String),
    /// A binary float.
    Float(f64),
    /// A decimal number as text: `-1.50`, `1E+5`, `NaN`, `Infinity`.
    Numeric(String),
    /// Text without NUL.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// The sixteen bytes of a UUID, most significant first.
    Uuid([u8; 16]),
    /// Days since 2000-01-01.
    Date(i32),
    /// Microseconds since midnight, without a zone.
    Time(i64),
    /// Microseconds since 2000-01-01 00:00, without a zone.
    Timestamp(i64),
    /// Microseconds since 2000-01-01 00:00 UTC.
    TimestampTz(i64),
    /// A duration. PostgreSQL keeps the three apart, since months and days vary in length.
    Interval {
        /// Calendar months.
        months: i32,
        /// Calendar days.
        days: i32,
        /// Microseconds.
        micros: i64,
    },
    /// An address with the length of its network prefix.
    Inet {
        /// The address.
        addr: IpAddr,
        /// Bits of the network part: 32 or 128 for one host.
        prefix: u8,
        /// A network and not a host within one.
        is_network: bool,
    },
    /// A list: an SQL array or a JSON array.
    Array(Vec<Param>),
    /// A JSON object.
    Object(Vec<(String, Param)>),
}

impl Param {
    /// The kind of value, as error messages name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::BigInt(_) => "int",
            Self::Float(_) => "float",
            Self::Numeric(_) => "Decimal",
            Self::Text(_) => "str",
            Self::Bytes(_) => "bytes",
            Self::Uuid(_) => "UUID",
            Self::Date(_) => "date",
            Self::Time(_) => "time",
            Self::Timestamp(_) => "datetime without a zone",
            Self::TimestampTz(_) => "datetime with a zone",
            Self::Interval { .. } => "timedelta",
            Self::Inet { .. } => "IP address",
            Self::Array(_) => "list",
            Self::Object(_) => "dict",
        }
    }
}

/// What one column of one row holds, borrowed from the row where that saves a copy.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// NULL, and what a function that returns void gives.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A binary float; a float4 is widened exactly.
    Float(f64),
    /// A decimal number with all its digits, or `NaN`, `Infinity`, `-Infinity`.
    Numeric(String),
    /// Text, or the label of an enum.
    Text(&'a str),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// The sixteen bytes of a UUID, most significant first.
    Uuid([u8; 16]),
    /// Days since 2000-01-01, years 1 to 9999.
    Date(i32),
    /// Microseconds since midnight, less than a day.
    Time(i64),
    /// Microseconds since 2000-01-01 00:00 without a zone, years 1 to 9999.
    Timestamp(i64),
    /// Microseconds since 2000-01-01 00:00 UTC, years 1 to 9999.
    TimestampTz(i64),
    /// A duration of whole days and microseconds, at most 999,999,999 days either way.
    Interval {
        /// Days.
        days: i32,
        /// Microseconds, of either sign and possibly more than a day.
        micros: i64,
    },
    /// JSON text, unparsed.
    Json(&'a str),
    /// An address with the length of its network prefix.
    Inet {
        /// The address.
        addr: IpAddr,
        /// Bits of the network part.
        prefix: u8,
        /// The column is a cidr.
        is_network: bool,
    },
    /// An array; each further dimension is an array within it. Without elements it is empty, whatever its dimensions.
    Array(Vec<Value<'a>>),
}

/// The bytes of a column as the server sent them. Every type, and NULL, can be read so: `row.try_get::<_, Raw>(0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(pub Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
