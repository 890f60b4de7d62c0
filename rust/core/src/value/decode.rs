//! The binary format of a column into a value.

use postgres_types::Type;

use super::calendar::{MICROS_PER_DAY, holds_day, holds_micros};
use super::shape::{Shape, name_of, unreadable};
use super::{CodecError, Value, array, network, numeric};

/// The longest duration that fits, either way: that of Python's timedelta.
const MOST_DAYS: i64 = 999_999_999;

/// Reads one column of type `ty`; `None` is NULL.
///
/// # Errors
/// [`CodecError`] if the type is none of those above, if the value lies outside what [`Value`] holds (a date beyond
/// year 9999, an interval with months), or if the bytes make no sense.
pub fn decode<'a>(ty: &Type, raw: Option<&'a [u8]>) -> Result<Value<'a>, CodecError> {
    let Some(raw) = raw else {
        return Ok(Value::Null);
    };
    let value = match Shape::of(ty) {
        Shape::Bool => fixed::<1>(raw).map(|bytes| Value::Bool(bytes[0] != 0)),
        Shape::Int2 => fixed(raw).map(|bytes| Value::Int(i16::from_be_bytes(bytes).into())),
        Shape::Int4 => fixed(raw).map(|bytes| Value::Int(i32::from_be_bytes(bytes).into())),
        Shape::Int8 => fixed(raw).map(|bytes| Value::Int(i64::from_be_bytes(bytes))),
        Shape::Oid => fixed(raw).map(|bytes| Value::Int(u32::from_be_bytes(bytes).into())),
        Shape::Float4 => fixed(raw).map(|bytes| Value::Float(f32::from_be_bytes(bytes).into())),
        Shape::Float8 => fixed(raw).map(|bytes| Value::Float(f64::from_be_bytes(bytes))),
        Shape::Numeric => numeric::decode(raw).map(Value::Numeric),
        // The empty character is sent as NUL.
        Shape::Char if raw == [0] => Some(Value::Text("")),
        Shape::Text | Shape::Char => return text(ty, raw).map(Value::Text),
        Shape::Json => return text(ty, raw).map(Value::Json),
        Shape::Jsonb => match raw.split_first() {
            Some((1, body)) => return text(ty, body).map(Value::Json),
            _ => None,
        },
        Shape::Bytea => Some(Value::Bytes(raw)),
        Shape::Uuid => fixed(raw).map(Value::Uuid),
        Shape::Date => match fixed(raw).map(i32::from_be_bytes) {
            Some(days) if !holds_day(days) => {
                return Err(outside_calendar(ty, days == i32::MAX || days == i32::MIN));
            }
            days => days.map(Value::Date),
        },
        Shape::Time => match fixed(raw).map(i64::from_be_bytes) {
            Some(MICROS_PER_DAY) => {
                return Err(CodecError::out_of_range(
                    "cannot read the time 24:00: no time of day holds it; cast it in the query, with …::text",
                ));
            }
            micros => micros
                .filter(|micros| (0..MICROS_PER_DAY).contains(micros))
                .map(Value::Time),
        },
        Shape::Timestamp => instant(ty, raw)?.map(Value::Timestamp),
        Shape::TimestampTz => instant(ty, raw)?.map(Value::TimestampTz),
        Shape::Interval => interval(raw)?,
        Shape::Inet => network::decode(raw).map(|(addr, prefix)| Value::Inet {
            addr,
            prefix,
            is_network: false,
        }),
        Shape::Cidr => network::decode(raw).map(|(addr, prefix)| Value::Inet {
            addr,
            prefix,
            is_network: true,
        }),
        Shape::Void => Some(Value::Null),
        Shape::Array(element) => array::decode_array(element, raw)?,
        Shape::Other => return Err(unreadable(ty)),
    };
    value.ok_or_else(|| senseless(ty))
}

fn fixed<const N: usize>(raw: &[u8]) -> Option<[u8; N]> {
    raw.try_into().ok()
}

fn senseless(ty: &Type) -> CodecError {
    CodecError::out_of_range(format!(
        "the server sent bytes that are no value of type {}",
        name_of(ty)
    ))
}

fn text<'a>(ty: &Type, raw: &'a [u8]) -> Result<&'a str, CodecError> {
    std::str::from_utf8(raw).map_err(|_| {
        CodecError::out_of_range(format!(
            "the server sent a value of type {} that is not UTF-8",
            name_of(ty)
        ))
    })
}

fn outside_calendar(ty: &Type, infinite: bool) -> CodecError {
    let what = if infinite {
        "infinity"
    } else {
        "a value outside years 1 to 9999"
    };
    CodecError::out_of_range(format!(
        "cannot read {what} of type {}: cast it in the query, with …::text",
        name_of(ty)
    ))
}

fn instant(ty: &Type, raw: &[u8]) -> Result<Option<i64>, CodecError> {
    match fixed(raw).map(i64::from_be_bytes) {
        Some(micros) if !holds_micros(micros) => Err(outside_calendar(
            ty,
            micros == i64::MAX || micros == i64::MIN,
        )),
        micros => Ok(micros),
    }
}

fn interval(raw: &[u8]) -> Result<Option<Value<'static>>, CodecError> {
    let Some(bytes) = fixed::<16>(raw) else {
        return Ok(None);
    };
    let (Some((micros, rest)), Some((_, months))) =
        (bytes.split_first_chunk(), bytes.split_last_chunk())
    else {
        return Ok(None);
    };
    let (micros, months) = (i64::from_be_bytes(*micros), i32::from_be_bytes(*months));
    let days = rest
        .first_chunk()
        .map_or(0, |days| i32::from_be_bytes(*days));
    let unfit = |what: &str| {
        Err(CodecError::out_of_range(format!(
            "cannot read {what} of type interval: cast it in the query, with extract(epoch from …) or …::text"
        )))
    };
    match (months, days, micros) {
        (i32::MAX, i32::MAX, i64::MAX) | (i32::MIN, i32::MIN, i64::MIN) => unfit("infinity"),
        (0, ..) => {
            let whole_days = i64::from(days) + micros.div_euclid(MICROS_PER_DAY);
            if (-MOST_DAYS..=MOST_DAYS).contains(&whole_days) {
                Ok(Some(Value::Interval { days, micros }))
            } else {
                unfit("a value beyond 999,999,999 days")
            }
        }
        _ => unfit("a value with months, whose length varies,"),
    }
}
