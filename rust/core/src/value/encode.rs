//! Parameters into the binary format of the type that the server expects.

use bytes::{BufMut, BytesMut};
use postgres_types::{IsNull, ToSql, Type};

use super::calendar::{MICROS_PER_DAY, holds_day, holds_micros};
use super::shape::{Shape, name_of, unwritable};
use super::{CodecError, Param, array, json, network, numeric};

/// Appends `param` in the binary format of `ty`, without a length.
///
/// # Errors
/// [`CodecError`] if the kind of value does not match the type, or this value does not fit into it. What was appended
/// to `out` by then is of no use.
pub fn encode(param: &Param, ty: &Type, out: &mut BytesMut) -> Result<IsNull, CodecError> {
    let shape = Shape::of(ty);
    match (shape, param) {
        (_, Param::Null) => return Ok(IsNull::Yes),
        (Shape::Other | Shape::Void, _) => return Err(unwritable(ty)),
        (Shape::Json | Shape::Jsonb, _) => json_text(param, shape == Shape::Jsonb, out)?,
        (Shape::Bool, Param::Bool(value)) => out.put_u8(u8::from(*value)),
        (Shape::Int2 | Shape::Int4 | Shape::Int8 | Shape::Oid, Param::Int(value)) => {
            integer(*value, shape, ty, out)?
        }
        (Shape::Int2 | Shape::Int4 | Shape::Int8 | Shape::Oid, Param::BigInt(_)) => {
            return Err(too_big(ty));
        }
        (Shape::Float4, Param::Float(value)) => single(*value, ty, out)?,
        (Shape::Float8, Param::Float(value)) => out.put_f64(*value),
        (Shape::Float4 | Shape::Float8, Param::Int(value)) => exact_float(*value, shape, ty, out)?,
        (Shape::Float4 | Shape::Float8, Param::BigInt(_)) => return Err(inexact(ty)),
        (Shape::Numeric, Param::Numeric(text) | Param::BigInt(text)) => numeric::encode(text, out)?,
        (Shape::Numeric, Param::Int(value)) => numeric::encode(&value.to_string(), out)?,
        // The shortest text that reads back as the same float: 0.1 and not its 55 binary decimals.
        (Shape::Numeric, Param::Float(value)) => numeric::encode(&format!("{value:e}"), out)?,
        (Shape::Text, Param::Text(text)) => plain_text(text, ty, out)?,
        (Shape::Char, Param::Text(text)) => character(text, out)?,
        (Shape::Bytea, Param::Bytes(bytes)) => out.put_slice(bytes),
        (Shape::Uuid, Param::Uuid(bytes)) => out.put_slice(bytes),
        (Shape::Uuid, Param::Text(text)) => match uuid::Uuid::try_parse(text) {
            Ok(uuid) => out.put_slice(uuid.as_bytes()),
            Err(_) => {
                return Err(CodecError::out_of_range(
                    "a str that is no UUID does not fit type uuid",
                ));
            }
        },
        (Shape::Date, Param::Date(days)) if holds_day(*days) => out.put_i32(*days),
        (Shape::Time, Param::Time(micros)) if (0..MICROS_PER_DAY).contains(micros) => {
            out.put_i64(*micros)
        }
        (Shape::Timestamp, Param::Timestamp(micros)) if holds_micros(*micros) => {
            out.put_i64(*micros)
        }
        (Shape::TimestampTz, Param::TimestampTz(micros)) if holds_micros(*micros) => {
            out.put_i64(*micros)
        }
        (Shape::Date, Param::Date(_))
        | (Shape::Time, Param::Time(_))
        | (Shape::Timestamp, Param::Timestamp(_))
        | (Shape::TimestampTz, Param::TimestampTz(_)) => return Err(outside_calendar(param, ty)),
        (
            Shape::Interval,
            Param::Interval {
                months,
                days,
                micros,
            },
        ) => {
            out.put_i64(*micros);
            out.put_i32(*days);
            out.put_i32(*months);
        }
        (Shape::Inet | Shape::Cidr, Param::Inet { addr, prefix, .. }) => {
            network::encode(*addr, *prefix, shape == Shape::Cidr, out)?;
        }
        (Shape::Inet | Shape::Cidr, Param::Text(text)) => match network::parse(text) {
            Some((addr, prefix)) => network::encode(addr, prefix, shape == Shape::Cidr, out)?,
            None => {
                let name = name_of(ty);
                return Err(CodecError::out_of_range(format!(
                    "a str that is no IP address does not fit type {name}"
                )));
            }
        },
        (Shape::Array(element), Param::Array(items)) => array::encode_array(items, element, out)?,
        _ => return Err(mismatch(param, shape, ty)),
    }
    Ok(IsNull::No)
}

impl ToSql for Param {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        encode(self, ty, out).map_err(Into::into)
    }

    /// Everything: `encode` tells more about what does not fit than this could.
    fn accepts(_: &Type) -> bool {
        true
    }

    postgres_types::to_sql_checked!();
}

fn mismatch(param: &Param, shape: Shape<'_>, ty: &Type) -> CodecError {
    let (kind, name, takes) = (param.kind(), name_of(ty), shape.takes());
    let article = if kind.starts_with(['i', 'I']) {
        "an"
    } else {
        "a"
    };
    let cast = match param {
        Param::Text(_) => format!(", or cast the text in the query, $1::text::{name}"),
        _ if shape == Shape::Text => ", or cast in the query, to what you pass first".to_owned(),
        _ => String::new(),
    };
    CodecError::wrong_type(format!(
        "{article} {kind} does not fit type {name}: pass {takes}{cast}"
    ))
}

fn too_big(ty: &Type) -> CodecError {
    CodecError::out_of_range(format!(
        "an int beyond 64 bits does not fit type {}",
        name_of(ty)
    ))
}

fn inexact(ty: &Type) -> CodecError {
    CodecError::out_of_range(format!(
        "an int of that size does not fit type {} exactly: pass float(…) to round it",
        name_of(ty)
    ))
}

fn outside_calendar(param: &Param, ty: &Type) -> CodecError {
    let range = if matches!(param, Param::Time(_)) {
        "00:00 to 24:00, exclusive"
    } else {
        "years 1 to 9999 in UTC"
    };
    CodecError::out_of_range(format!(
        "a {} outside {range} does not fit type {}",
        param.kind(),
        name_of(ty)
    ))
}

fn integer(value: i64, shape: Shape<'_>, ty: &Type, out: &mut BytesMut) -> Result<(), CodecError> {
    let fits = match shape {
        Shape::Int2 => i16::try_from(value).map(|value| out.put_i16(value)).is_ok(),
        Shape::Int4 => i32::try_from(value).map(|value| out.put_i32(value)).is_ok(),
        Shape::Oid => u32::try_from(value).map(|value| out.put_u32(value)).is_ok(),
        _ => {
            out.put_i64(value);
            true
        }
    };
    if fits {
        Ok(())
    } else {
        Err(CodecError::out_of_range(format!(
            "{value} does not fit type {}",
            name_of(ty)
        )))
    }
}

/// Rounds to the nearest float4, but neither to infinity nor to zero.
fn single(value: f64, ty: &Type, out: &mut BytesMut) -> Result<(), CodecError> {
    let rounded = value as f32;
    if (rounded.is_infinite() && value.is_finite()) || (rounded == 0.0 && value != 0.0) {
        return Err(CodecError::out_of_range(format!(
            "{value:e} does not fit type {}",
            name_of(ty)
        )));
    }
    out.put_f32(rounded);
    Ok(())
}

fn exact_float(
    value: i64,
    shape: Shape<'_>,
    ty: &Type,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    // Compared at 128 bits, where a float rounded up to 2^63 stays apart from i64::MAX.
    if shape == Shape::Float4 {
        let float = value as f32;
        if float as i128 != i128::from(value) {
            return Err(inexact(ty));
        }
        out.put_f32(float);
    } else {
        let float = value as f64;
        if float as i128 != i128::from(value) {
            return Err(inexact(ty));
        }
        out.put_f64(float);
    }
    Ok(())
}

fn plain_text(text: &str, ty: &Type, out: &mut BytesMut) -> Result<(), CodecError> {
    if text.contains('\0') {
        let name = name_of(ty);
        return Err(CodecError::out_of_range(format!(
            "a str with a NUL character does not fit type {name}"
        )));
    }
    out.put_slice(text.as_bytes());
    Ok(())
}

fn character(text: &str, out: &mut BytesMut) -> Result<(), CodecError> {
    match text.as_bytes() {
        [] => out.put_u8(0),
        [byte] if byte.is_ascii() && *byte != 0 => out.put_u8(*byte),
        _ => {
            return Err(CodecError::out_of_range(
                "only a str of at most one ASCII character fits type \"char\"",
            ));
        }
    }
    Ok(())
}

fn json_text(param: &Param, binary: bool, out: &mut BytesMut) -> Result<(), CodecError> {
    let mut text = String::new();
    json::write(param, binary, &mut text)?;
    if binary {
        // The version of the format.
        out.put_u8(1);
    }
    out.put_slice(text.as_bytes());
    Ok(())
}
