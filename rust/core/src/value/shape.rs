//! Which of the known formats a type has, and how messages name it.

use postgres_types::{Kind, Type};

use super::CodecError;

/// The wire format of a type, with domains unwrapped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape<'t> {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Char,
    Bytea,
    Uuid,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Json,
    Jsonb,
    Inet,
    Cidr,
    Void,
    Array(&'t Type),
    Other,
}

impl<'t> Shape<'t> {
    pub(super) fn of(ty: &'t Type) -> Self {
        match *ty {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID => Self::Oid,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::NUMERIC => Self::Numeric,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => Self::Text,
            Type::CHAR => Self::Char,
            Type::BYTEA => Self::Bytea,
            Type::UUID => Self::Uuid,
            Type::DATE => Self::Date,
            Type::TIME => Self::Time,
            Type::TIMESTAMP => Self::Timestamp,
            Type::TIMESTAMPTZ => Self::TimestampTz,
            Type::INTERVAL => Self::Interval,
            Type::JSON => Self::Json,
            Type::JSONB => Self::Jsonb,
            Type::INET => Self::Inet,
            Type::CIDR => Self::Cidr,
            Type::VOID => Self::Void,
            _ => match ty.kind() {
                Kind::Domain(base) => Self::of(base),
                Kind::Enum(_) => Self::Text,
                Kind::Array(element) => Self::Array(element),
                _ => Self::Other,
            },
        }
    }

    /// What a caller may pass for such a type.
    pub(super) fn takes(self) -> &'static str {
        match self {
            Self::Bool => "a bool",
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Oid => "an int",
            Self::Float4 | Self::Float8 => "a float or an int",
            Self::Numeric => "a Decimal, an int or a float",
            Self::Text => "a str",
            Self::Char => "a str of one ASCII character",
            Self::Bytea => "bytes",
            Self::Uuid => "a UUID or its text",
            Self::Date => "a date",
            Self::Time => "a time without a zone",
            Self::Timestamp => "a datetime without a zone",
            Self::TimestampTz => "a datetime with a zone",
            Self::Interval => "a timedelta",
            Self::Json | Self::Jsonb => "a str, a number, a bool, a list or a dict",
            Self::Inet | Self::Cidr => "an IP address or network, or its text",
            Self::Array(_) => "a list",
            Self::Void | Self::Other => "None",
        }
    }

    /// A list inside a list belongs to the element and is no further dimension.
    pub(super) fn contains_lists(self) -> bool {
        matches!(self, Self::Json | Self::Jsonb | Self::Array(_))
    }
}

/// The name as SQL writes it: `int4[]`, not `_int4`.
pub(super) fn name_of(ty: &Type) -> String {
    match ty.kind() {
        Kind::Array(element) => format!("{}[]", name_of(element)),
        _ => ty.to_string(),
    }
}

/// No format of ours reads this type: name the cast that helps.
pub(super) fn unreadable(ty: &Type) -> CodecError {
    let name = name_of(ty);
    let remedy = match ty.kind() {
        Kind::Composite(_) => "name its fields, or use to_jsonb(…)",
        Kind::Range(_) => "use lower(…) and upper(…), or …::text",
        _ if *ty == Type::RECORD => "name its columns, or use to_jsonb(…)",
        _ if *ty == Type::MONEY => "…::numeric",
        _ => "…::text",
    };
    CodecError::wrong_type(format!(
        "cannot read a value of type {name}: cast it in the query, with {remedy}"
    ))
}

/// No format of ours writes this type: name the cast that helps.
pub(super) fn unwritable(ty: &Type) -> CodecError {
    let name = name_of(ty);
    CodecError::wrong_type(format!(
        "cannot write a parameter of type {name}: pass its text and cast it in the query, $1::text::{name}"
    ))
}
