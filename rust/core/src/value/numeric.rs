//! Decimal text, to and from the base-10000 digits of PostgreSQL's numeric.

use bytes::{BufMut, BytesMut};

use super::CodecError;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xC000;
const INFINITE: u16 = 0xD000;
const NEGATIVE_INFINITE: u16 = 0xF000;

/// The limits of the type: digits before and after the decimal point.
const MOST_DIGITS: i64 = 131_072;
const MOST_SCALE: i64 = 16_383;

/// A decimal number, or one of the three that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decimal<'t> {
    NotANumber,
    Infinite {
        negative: bool,
    },
    Finite {
        negative: bool,
        whole: &'t str,
        fraction: &'t str,
        exponent: i64,
    },
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads `[-]digits[.digits][e[+-]digits]`, `NaN`, `Infinity`.
pub(super) fn parse(text: &str) -> Option<Decimal<'_>> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if unsigned.eq_ignore_ascii_case("nan") {
        return Some(Decimal::NotANumber);
    }
    if unsigned.eq_ignore_ascii_case("infinity") || unsigned.eq_ignore_ascii_case("inf") {
        return Some(Decimal::Infinite { negative });
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !all_digits(digits) {
                return None;
            }
            // Beyond 64 bits the exponent is out of every range; the end of the range says so as well.
            let end = if exponent.starts_with('-') {
                i64::MIN / 4
            } else {
                i64::MAX / 4
            };
            (
                mantissa,
                exponent
                    .parse()
                    .unwrap_or(end)
                    .clamp(i64::MIN / 4, i64::MAX / 4),
            )
        }
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let sound =
        !(whole.is_empty() && fraction.is_empty()) && all_digits(whole) && all_digits(fraction);
    sound.then_some(Decimal::Finite {
        negative,
        whole,
        fraction,
        exponent,
    })
}

/// Writes the wire format, with as many decimals as the text shows.
pub(super) fn encode(text: &str, out: &mut BytesMut) -> Result<(), CodecError> {
    let Some(decimal) = parse(text) else {
        return Err(CodecError::out_of_range(
            "a Decimal that is no number (sNaN?) does not fit type numeric",
        ));
    };
    let (negative, whole, fraction, exponent) = match decimal {
        Decimal::NotANumber => return special(NOT_A_NUMBER, out),
        Decimal::Infinite { negative: false } => return special(INFINITE, out),
        Decimal::Infinite { negative: true } => return special(NEGATIVE_INFINITE, out),
        Decimal::Finite {
            negative,
            whole,
            fraction,
            exponent,
        } => (negative, whole, fraction, exponent),
    };
    let scale = (fraction.len() as i64 - exponent).max(0);
    let mut digits: Vec<u8> = whole
        .bytes()
        .chain(fraction.bytes())
        .map(|byte| byte - b'0')
        .collect();
    // The power of ten of the digit after the last.
    let point = whole.len() as i64 + exponent;
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..leading);
    let point = point - leading as i64;
    while digits.last() == Some(&0) {
        digits.pop();
    }
    if scale > MOST_SCALE || (!digits.is_empty() && point > MOST_DIGITS) {
        return Err(CodecError::out_of_range(format!(
            "a Decimal with more than {MOST_DIGITS} digits before or {MOST_SCALE} after the point does not fit type numeric"
        )));
    }
    if digits.is_empty() {
        return put(&[], 0, POSITIVE, scale, out);
    }
    // Groups of four start at the decimal point.
    let weight = (point - 1).div_euclid(4);
    let padding = (weight + 1) * 4 - point;
    let mut padded = vec![0; padding as usize];
    padded.append(&mut digits);
    padded.resize(padded.len().next_multiple_of(4), 0);
    let groups: Vec<u16> = padded
        .chunks_exact(4)
        .map(|group| {
            group
                .iter()
                .fold(0, |sum, digit| sum * 10 + u16::from(*digit))
        })
        .collect();
    put(
        &groups,
        weight,
        if negative { NEGATIVE } else { POSITIVE },
        scale,
        out,
    )
}

fn special(sign: u16, out: &mut BytesMut) -> Result<(), CodecError> {
    put(&[], 0, sign, 0, out)
}

fn put(
    groups: &[u16],
    weight: i64,
    sign: u16,
    scale: i64,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    let (Ok(count), Ok(weight), Ok(scale)) = (
        u16::try_from(groups.len()),
        i16::try_from(weight),
        u16::try_from(scale),
    ) else {
        return Err(CodecError::out_of_range(
            "a Decimal with that many digits does not fit type numeric",
        ));
    };
    out.put_u16(count);
    out.put_i16(weight);
    out.put_u16(sign);
    out.put_u16(scale);
    groups.iter().for_each(|group| out.put_u16(*group));
    Ok(())
}

/// Reads the wire format into text with all decimals of the stored scale.
pub(super) fn decode(raw: &[u8]) -> Option<String> {
    let (header, body) = raw.split_at_checked(8)?;
    let field = |index: usize| u16::from_be_bytes([header[index], header[index + 1]]);
    let (count, weight, sign, scale) = (
        field(0),
        i64::from(field(2) as i16),
        field(4),
        usize::from(field(6)),
    );
    if body.len() != usize::from(count) * 2 {
        return None;
    }
    let negative = match sign {
        POSITIVE => false,
        NEGATIVE => true,
        NOT_A_NUMBER => return Some("NaN".to_owned()),
        INFINITE => return Some("Infinity".to_owned()),
        NEGATIVE_INFINITE => return Some("-Infinity".to_owned()),
        _ => return None,
    };
    // The group that stands for 10000^power; those not sent are zero.
    let group = |power: i64| {
        let index = usize::try_from(weight - power)
            .ok()
            .filter(|index| *index < usize::from(count));
        index.map_or(0, |index| {
            u16::from_be_bytes([body[index * 2], body[index * 2 + 1]])
        })
    };
    let mut text = String::with_capacity(usize::from(count) * 4 + scale + 3);
    if negative {
        text.push('-');
    }
    let start = text.len();
    for power in (0..=weight).rev() {
        text.push_str(&format!("{:04}", group(power)));
    }
    let zeros = text[start..]
        .bytes()
        .take_while(|byte| *byte == b'0')
        .count();
    text.replace_range(start..start + zeros, "");
    if text.len() == start {
        text.push('0');
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        let mut power = -1;
        while text.len() < end {
            text.push_str(&format!("{:04}", group(power)));
            power -= 1;
        }
        text.truncate(end);
    }
    Some(text)
}
