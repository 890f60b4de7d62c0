//! Parameters as JSON text. Only writing: reading hands the text on.

use super::numeric::{self, Decimal};
use super::{CodecError, Param};

/// Appends `param` as JSON. Inside JSON, NULL is `null`. jsonb cannot hold the character U+0000, json can.
pub(super) fn write(param: &Param, binary: bool, out: &mut String) -> Result<(), CodecError> {
    match param {
        Param::Null => out.push_str("null"),
        Param::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Param::Int(value) => out.push_str(&value.to_string()),
        Param::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => out.push_str(&number.to_string()),
            None => return Err(not_finite()),
        },
        Param::BigInt(digits) | Param::Numeric(digits) => number(digits, out)?,
        Param::Text(text) => string(text, binary, out)?,
        Param::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, binary, out)?;
            }
            out.push(']');
        }
        Param::Object(members) => {
            out.push('{');
            for (index, (key, value)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                string(key, binary, out)?;
                out.push(':');
                write(value, binary, out)?;
            }
            out.push('}');
        }
        _ => {
            return Err(CodecError::wrong_type(format!(
                "a {} does not fit type json: pass its text, str(…)",
                param.kind()
            )));
        }
    }
    Ok(())
}

fn not_finite() -> CodecError {
    CodecError::out_of_range("NaN and infinity do not fit type json: pass None or a str")
}

fn number(digits: &str, out: &mut String) -> Result<(), CodecError> {
    let Some(Decimal::Finite {
        negative,
        whole,
        fraction,
        exponent,
    }) = numeric::parse(digits)
    else {
        return Err(not_finite());
    };
    if negative {
        out.push('-');
    }
    let whole = whole.trim_start_matches('0');
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    if exponent != 0 {
        out.push_str(&format!("e{exponent}"));
    }
    Ok(())
}

fn string(text: &str, binary: bool, out: &mut String) -> Result<(), CodecError> {
    if binary && text.contains('\0') {
        return Err(CodecError::out_of_range(
            "a str with a NUL character does not fit type jsonb",
        ));
    }
    // Displaying a JSON string escapes it.
    out.push_str(&serde_json::Value::from(text).to_string());
    Ok(())
}
