//! Arrays: a header of dimensions, then the elements row by row.

use bytes::{BufMut, BytesMut};
use postgres_types::{IsNull, Type};

use super::encode::encode;
use super::shape::{Shape, name_of};
use super::{CodecError, Param, Value, decode};

/// The server's own limit.
const MOST_DIMENSIONS: usize = 6;

/// Writes a rectangular list of lists.
pub(super) fn encode_array(
    items: &[Param],
    element: &Type,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    let dimensions = dimensions_of(items, element)?;
    let empty = dimensions.contains(&0);
    let element_oid = element.oid();
    out.put_i32(if empty { 0 } else { dimensions.len() as i32 });
    let flags = out.len();
    out.put_i32(0);
    out.put_u32(element_oid);
    if !empty {
        for length in &dimensions {
            let length = i32::try_from(*length)
                .map_err(|_| CodecError::out_of_range("a list is too long for an array"))?;
            out.put_i32(length);
            out.put_i32(1);
        }
    }
    let mut has_null = false;
    write_level(items, &dimensions, element, &mut has_null, out)?;
    if has_null {
        out[flags..flags + 4].copy_from_slice(&1_i32.to_be_bytes());
    }
    Ok(())
}

fn dimensions_of(items: &[Param], element: &Type) -> Result<Vec<usize>, CodecError> {
    let mut dimensions = vec![items.len()];
    if !Shape::of(element).contains_lists() {
        let mut level = items;
        while let Some(Param::Array(inner)) = level.first() {
            dimensions.push(inner.len());
            level = inner;
        }
    }
    if dimensions.len() > MOST_DIMENSIONS {
        return Err(CodecError::out_of_range(format!(
            "a list {} deep does not fit type {}[]: an array has at most {MOST_DIMENSIONS} dimensions",
            dimensions.len(),
            name_of(element)
        )));
    }
    Ok(dimensions)
}

fn write_level(
    items: &[Param],
    dimensions: &[usize],
    element: &Type,
    has_null: &mut bool,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    let ragged = || {
        CodecError::out_of_range(format!(
            "a ragged list does not fit type {}[]: all lists in it must be equally long and deep",
            name_of(element)
        ))
    };
    let Some((length, deeper)) = dimensions.split_first() else {
        return Err(ragged());
    };
    if items.len() != *length {
        return Err(ragged());
    }
    for item in items {
        match item {
            Param::Array(inner) if !deeper.is_empty() => {
                write_level(inner, deeper, element, has_null, out)?
            }
            _ if !deeper.is_empty() => return Err(ragged()),
            Param::Array(_) if !Shape::of(element).contains_lists() => return Err(ragged()),
            _ => {
                let start = out.len();
                out.put_i32(-1);
                match encode(item, element, out)? {
                    IsNull::Yes => *has_null = true,
                    IsNull::No => {
                        let written = i32::try_from(out.len() - start - 4).map_err(|_| {
                            CodecError::out_of_range("an array element is larger than 2 GiB")
                        })?;
                        out[start..start + 4].copy_from_slice(&written.to_be_bytes());
                    }
                }
            }
        }
    }
    Ok(())
}

/// Reads an array into nested lists; `None` means that the bytes make no sense.
pub(super) fn decode_array<'a>(
    element: &Type,
    raw: &'a [u8],
) -> Result<Option<Value<'a>>, CodecError> {
    let mut reader = Reader(raw);
    let Some(dimensions) = reader.header() else {
        return Ok(None);
    };
    let value = if dimensions.is_empty() || dimensions.contains(&0) {
        Some(Value::Array(Vec::new()))
    } else {
        read_level(&mut reader, &dimensions, element)?
    };
    Ok(value.filter(|_| reader.0.is_empty()))
}

fn read_level<'a>(
    reader: &mut Reader<'a>,
    dimensions: &[usize],
    element: &Type,
) -> Result<Option<Value<'a>>, CodecError> {
    let Some((length, deeper)) = dimensions.split_first() else {
        return match reader.element() {
            Some(raw) => decode(element, raw).map(Some),
            None => Ok(None),
        };
    };
    // No capacity in advance: a length that the bytes do not bear out must not cost memory.
    let mut items = Vec::new();
    for _ in 0..*length {
        match read_level(reader, deeper, element)? {
            Some(item) => items.push(item),
            None => return Ok(None),
        }
    }
    Ok(Some(Value::Array(items)))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn int(&mut self) -> Option<i32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*head))
    }

    fn header(&mut self) -> Option<Vec<usize>> {
        let count = usize::try_from(self.int()?)
            .ok()
            .filter(|count| *count <= MOST_DIMENSIONS)?;
        let (_flags, _element_oid) = (self.int()?, self.int()?);
        let mut dimensions = Vec::with_capacity(count);
        for _ in 0..count {
            dimensions.push(usize::try_from(self.int()?).ok()?);
            let _lower_bound = self.int()?;
        }
        Some(dimensions)
    }

    /// The outer `None` means that the bytes end too early, the inner one NULL.
    fn element(&mut self) -> Option<Option<&'a [u8]>> {
        let length = self.int()?;
        if length < 0 {
            return Some(None);
        }
        let (element, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(Some(element))
    }
}
