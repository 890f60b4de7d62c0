//! Encoding and decoding are each other's inverse, refuse what does not fit, and survive any bytes.

use std::net::IpAddr;

use bmdb_core::value::{
    CodecError, MICROS_PER_DAY, Param, Value, civil_from_days, days_from_civil, decode, encode,
};
use bytes::BytesMut;
use postgres_types::{IsNull, Kind, Type};
use proptest::prelude::*;

const FIRST_DAY: i32 = -730_119;
const LAST_DAY: i32 = 2_921_939;

/// Everything that is read, and a few that are not.
const TYPES: [Type; 34] = [
    Type::BOOL,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::OID,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::NUMERIC,
    Type::TEXT,
    Type::VARCHAR,
    Type::BPCHAR,
    Type::NAME,
    Type::CHAR,
    Type::BYTEA,
    Type::UUID,
    Type::DATE,
    Type::TIME,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::INTERVAL,
    Type::JSON,
    Type::JSONB,
    Type::INET,
    Type::CIDR,
    Type::VOID,
    Type::UNKNOWN,
    Type::BOOL_ARRAY,
    Type::INT4_ARRAY,
    Type::NUMERIC_ARRAY,
    Type::TEXT_ARRAY,
    Type::JSONB_ARRAY,
    Type::POINT,
    Type::INT4_RANGE,
    Type::RECORD,
];

fn wire(param: &Param, ty: &Type) -> Result<Option<BytesMut>, CodecError> {
    let mut out = BytesMut::new();
    Ok(match encode(param, ty, &mut out)? {
        IsNull::Yes => None,
        IsNull::No => Some(out),
    })
}

/// Encodes, then lets `check` see what decodes.
fn through<T>(param: &Param, ty: &Type, check: impl FnOnce(Value<'_>) -> T) -> T {
    let raw = wire(param, ty).expect("the parameter fits");
    check(decode(ty, raw.as_deref()).expect("what was written can be read"))
}

fn refused(param: &Param, ty: &Type) -> CodecError {
    wire(param, ty).expect_err("the parameter does not fit")
}

fn anything() -> impl Strategy<Value = Param> {
    let leaf = prop_oneof![
        Just(Param::Null),
        any::<bool>().prop_map(Param::Bool),
        any::<i64>().prop_map(Param::Int),
        "-?[1-9][0-9]{19,40}".prop_map(Param::BigInt),
        any::<f64>().prop_map(Param::Float),
        "-?[0-9]{1,9}(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,20})?|NaN|-?Infinity|sNaN"
            .prop_map(Param::Numeric),
        any::<String>().prop_map(Param::Text),
        any::<Vec<u8>>().prop_map(Param::Bytes),
        any::<[u8; 16]>().prop_map(Param::Uuid),
        any::<i32>().prop_map(Param::Date),
        any::<i64>().prop_map(Param::Time),
        any::<i64>().prop_map(Param::Timestamp),
        any::<i64>().prop_map(Param::TimestampTz),
        any::<(i32, i32, i64)>().prop_map(|(months, days, micros)| Param::Interval {
            months,
            days,
            micros
        }),
        any::<(IpAddr, u8, bool)>().prop_map(|(addr, prefix, is_network)| Param::Inet {
            addr,
            prefix,
            is_network
        }),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Param::Array),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(Param::Object),
        ]
    })
}

proptest! {
    #[test]
    fn integers_fit_or_are_refused(value: i64) {
        for (ty, low, high) in [
            (Type::INT2, i16::MIN.into(), i16::MAX.into()),
            (Type::INT4, i32::MIN.into(), i32::MAX.into()),
            (Type::INT8, i64::MIN, i64::MAX),
            (Type::OID, 0, u32::MAX.into()),
        ] {
            for value in [value, value >> 32, value >> 48, low, high] {
                let param = Param::Int(value);
                if (low..=high).contains(&value) {
                    prop_assert!(through(&param, &ty, |read| read == Value::Int(value)));
                } else {
                    prop_assert!(refused(&param, &ty).out_of_range);
                }
            }
        }
    }

    #[test]
    fn floats_keep_every_bit(bits: u64) {
        let float = f64::from_bits(bits);
        let same = through(&Param::Float(float), &Type::FLOAT8, |read| {
            matches!(read, Value::Float(back) if back.to_bits() == bits)
        });
        prop_assert!(same);
    }

    #[test]
    fn single_floats_round_once(float: f64) {
        let rounded = f64::from(float as f32);
        match wire(&Param::Float(float), &Type::FLOAT4) {
            Ok(raw) => prop_assert_eq!(decode(&Type::FLOAT4, raw.as_deref()), Ok(Value::Float(rounded))),
            Err(error) => prop_assert!(error.out_of_range && (rounded.is_infinite() || rounded == 0.0)),
        }
    }

    #[test]
    fn integers_become_floats_only_when_exact(value: i64, shift in 0_u32..63) {
        let value = value >> shift;
        match wire(&Param::Int(value), &Type::FLOAT8) {
            Ok(raw) => {
                let exact = matches!(
                    decode(&Type::FLOAT8, raw.as_deref()),
                    Ok(Value::Float(float)) if format!("{float:.0}") == value.to_string()
                );
                prop_assert!(exact, "{value}");
            }
            Err(error) => {
                prop_assert!(error.out_of_range);
                prop_assert_ne!(format!("{:.0}", value as f64), value.to_string());
            }
        }
    }

    #[test]
    fn numerics_keep_every_digit(negative: bool, whole in "0|[1-9][0-9]{0,45}", fraction in "[0-9]{0,30}") {
        let mut text = whole;
        if !fraction.is_empty() {
            text = format!("{text}.{fraction}");
        }
        if negative && text.contains(|digit: char| digit.is_ascii_digit() && digit != '0') {
            text.insert(0, '-');
        }
        let read = through(&Param::Numeric(text.clone()), &Type::NUMERIC, |read| read == Value::Numeric(text.clone()));
        prop_assert!(read, "{text}");
    }

    #[test]
    fn exponents_only_move_the_point(digits in "[1-9][0-9]{0,12}", exponent in 0_usize..30) {
        let written = through(&Param::Numeric(format!("{digits}E+{exponent}")), &Type::NUMERIC, |read| {
            read == Value::Numeric(format!("{digits}{}", "0".repeat(exponent)))
        });
        prop_assert!(written);
        let padded = format!("{}{digits}", "0".repeat(exponent));
        let (whole, fraction) = padded.split_at(padded.len() - exponent);
        let whole = whole.trim_start_matches('0');
        let expected = match (whole, fraction) {
            (whole, "") => whole.to_owned(),
            ("", fraction) => format!("0.{fraction}"),
            (whole, fraction) => format!("{whole}.{fraction}"),
        };
        let written = through(&Param::Numeric(format!("{digits}E-{exponent}")), &Type::NUMERIC, |read| {
            read == Value::Numeric(expected.clone())
        });
        prop_assert!(written, "{digits}E-{exponent} is not {expected}");
    }

    #[test]
    fn floats_become_numerics_by_their_shortest_text(float in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
        let back = through(&Param::Float(float), &Type::NUMERIC, |read| match read {
            Value::Numeric(text) => text.parse::<f64>().ok(),
            _ => None,
        });
        prop_assert_eq!(back, Some(float));
    }

    #[test]
    fn text_is_kept_unless_it_has_a_nul(text: String) {
        for ty in [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::UNKNOWN] {
            let param = Param::Text(text.clone());
            if text.contains('\0') {
                prop_assert!(refused(&param, &ty).out_of_range);
            } else {
                prop_assert!(through(&param, &ty, |read| read == Value::Text(&text)));
            }
        }
    }

    #[test]
    fn bytes_and_uuids_are_kept(bytes: Vec<u8>, uuid: [u8; 16]) {
        prop_assert!(through(&Param::Bytes(bytes.clone()), &Type::BYTEA, |read| read == Value::Bytes(&bytes)));
        prop_assert!(through(&Param::Uuid(uuid), &Type::UUID, |read| read == Value::Uuid(uuid)));
        let text = Param::Text(uuid::Uuid::from_bytes(uuid).to_string());
        prop_assert!(through(&text, &Type::UUID, |read| read == Value::Uuid(uuid)));
    }

    #[test]
    fn days_and_dates_are_each_other(days in FIRST_DAY..=LAST_DAY) {
        let (year, month, day) = civil_from_days(days);
        prop_assert_eq!(days_from_civil(year, month, day), days);
        prop_assert!(through(&Param::Date(days), &Type::DATE, |read| read == Value::Date(days)));
    }

    #[test]
    fn instants_are_kept_within_the_calendar(micros: i64, narrow: bool) {
        let micros = if narrow { micros / 40 } else { micros };
        let day = micros.div_euclid(MICROS_PER_DAY);
        let within = (i64::from(FIRST_DAY)..=i64::from(LAST_DAY)).contains(&day);
        for (ty, param, value) in [
            (Type::TIMESTAMP, Param::Timestamp(micros), Value::Timestamp(micros)),
            (Type::TIMESTAMPTZ, Param::TimestampTz(micros), Value::TimestampTz(micros)),
        ] {
            if within {
                prop_assert!(through(&param, &ty, |read| read == value));
            } else {
                prop_assert!(refused(&param, &ty).out_of_range);
                prop_assert!(decode(&ty, Some(&micros.to_be_bytes())).is_err_and(|error| error.out_of_range));
            }
        }
    }

    #[test]
    fn networks_are_kept(addr: IpAddr, prefix in 0_u8..=128) {
        let param = Param::Inet { addr, prefix, is_network: false };
        if prefix > if addr.is_ipv4() { 32 } else { 128 } {
            prop_assert!(refused(&param, &Type::INET).out_of_range);
        } else {
            let value = Value::Inet { addr, prefix, is_network: false };
            prop_assert!(through(&param, &Type::INET, |read| read == value));
            let text = Param::Text(format!("{addr}/{prefix}"));
            prop_assert!(through(&text, &Type::INET, |read| read == value));
        }
    }

    #[test]
    fn json_says_what_was_passed(text: String, number: i64) {
        let items = vec![Param::Int(number), Param::Null, Param::Bool(true), Param::Text(text.clone())];
        let param = Param::Object(vec![(text.clone(), Param::Array(items)), ("b".to_owned(), Param::Object(Vec::new()))]);
        let parsed = through(&param, &Type::JSON, |read| match read {
            Value::Json(json) => serde_json::from_str::<serde_json::Value>(json).ok(),
            _ => None,
        });
        let mut expected = serde_json::Map::new();
        expected.insert(text.clone(), serde_json::json!([number, null, true, text]));
        expected.insert("b".to_owned(), serde_json::json!({}));
        prop_assert_eq!(parsed, Some(serde_json::Value::Object(expected)));
    }

    #[test]
    fn json_numbers_keep_their_value(float: f64, digits in "-?[0-9]{1,20}(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?") {
        for (param, number) in [(Param::Float(float), Some(float)), (Param::Numeric(digits.clone()), digits.parse().ok())] {
            match wire(&param, &Type::JSON) {
                Ok(raw) => {
                    let written = String::from_utf8(raw.expect("no NULL").to_vec()).expect("UTF-8");
                    prop_assert!(serde_json::from_str::<serde_json::Value>(&written).is_ok(), "{}", written);
                    prop_assert_eq!(written.parse::<f64>().ok(), number);
                }
                Err(error) => prop_assert!(error.out_of_range && !float.is_finite()),
            }
        }
    }

    #[test]
    fn rectangular_lists_are_kept(rows in 1_usize..4, columns in 1_usize..4, seed in prop::collection::vec(any::<Option<i32>>(), 9)) {
        let at = |row: usize, column: usize| seed[row * 3 + column];
        let list = |row: usize| {
            let cells = (0..columns).map(|column| at(row, column).map_or(Param::Null, |cell| Param::Int(cell.into())));
            Param::Array(cells.collect())
        };
        let expected = (0..rows).map(|row| {
            let cells = (0..columns).map(|column| at(row, column).map_or(Value::Null, |cell| Value::Int(cell.into())));
            Value::Array(cells.collect())
        });
        let expected = Value::Array(expected.collect());
        let kept = through(&Param::Array((0..rows).map(list).collect()), &Type::INT4_ARRAY, |read| read == expected);
        prop_assert!(kept);
    }

    #[test]
    fn every_parameter_fits_or_is_refused(param in anything()) {
        for ty in &TYPES {
            match wire(&param, ty) {
                Ok(raw) => {
                    if let Err(error) = decode(ty, raw.as_deref()) {
                        // Only what another program would read is written without being readable here.
                        prop_assert!(*ty == Type::INTERVAL && error.out_of_range, "{param:?} as {ty}: {error}");
                    }
                }
                Err(error) => prop_assert!(error.message.contains("type "), "{}", error.message),
            }
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes: Vec<u8>, dimensions in 0_u8..9, length: i32) {
        let mut array = vec![0, 0, 0, dimensions, 0, 0, 0, 0, 0, 0, 0, 0];
        for _ in 0..dimensions {
            array.extend(length.to_be_bytes());
            array.extend(1_i32.to_be_bytes());
        }
        array.extend(&bytes);
        for ty in &TYPES {
            for raw in [&bytes, &array] {
                if let Err(error) = decode(ty, Some(raw)) {
                    prop_assert!(!error.message.is_empty());
                }
            }
        }
    }
}

#[test]
fn null_goes_both_ways_for_every_type() {
    for ty in &TYPES {
        assert_eq!(wire(&Param::Null, ty).expect("NULL fits"), None);
        assert_eq!(decode(ty, None), Ok(Value::Null));
    }
    assert_eq!(decode(&Type::VOID, Some(b"")), Ok(Value::Null));
}

#[test]
fn intervals_have_no_months_and_an_end() {
    let read = |months: i32, days: i32, micros: i64| {
        let raw = [
            &micros.to_be_bytes()[..],
            &days.to_be_bytes(),
            &months.to_be_bytes(),
        ]
        .concat();
        decode(&Type::INTERVAL, Some(&raw)).map(|value| format!("{value:?}"))
    };
    assert_eq!(
        read(0, 3, -5),
        Ok("Interval { days: 3, micros: -5 }".to_owned())
    );
    assert!(read(0, 999_999_999, MICROS_PER_DAY - 1).is_ok());
    assert!(read(0, -999_999_999, 0).is_ok());
    for (months, days, micros) in [
        (1, 0, 0),
        (-1, 0, 0),
        (0, 999_999_999, MICROS_PER_DAY),
        (0, -999_999_999, -1),
        (0, i32::MAX, i64::MAX),
        (i32::MAX, i32::MAX, i64::MAX),
    ] {
        let error = read(months, days, micros).expect_err("no timedelta holds it");
        assert!(
            error.out_of_range && error.message.contains("extract(epoch"),
            "{error}"
        );
    }
}

#[test]
fn numeric_edges() {
    let read = |text: &str| {
        let raw = wire(&Param::Numeric(text.to_owned()), &Type::NUMERIC)?;
        decode(&Type::NUMERIC, raw.as_deref()).map(|value| format!("{value:?}"))
    };
    for (text, expected) in [
        ("-0", "0"),
        ("0.00", "0.00"),
        ("0E+5", "0"),
        ("0E-3", "0.000"),
        ("-1.50", "-1.50"),
        ("10000", "10000"),
        ("0.0001", "0.0001"),
        ("0.00010", "0.00010"),
        ("99999999", "99999999"),
        ("NaN", "NaN"),
        ("-NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
    ] {
        assert_eq!(read(text), Ok(format!("Numeric({expected:?})")), "{text}");
    }
    for text in ["1E+131071", "1E-16383", "-1E+131071"] {
        assert!(read(text).is_ok(), "{text}");
    }
    for text in [
        "1E+131072",
        "1E-16384",
        "1E+99999999999999999999",
        "1E-99999999999999999999",
        "sNaN",
        "",
        ".",
        "1e",
        "0x1",
    ] {
        assert!(read(text).is_err_and(|error| error.out_of_range), "{text}");
    }
}

#[test]
fn lists_must_be_rectangular_and_shallow() {
    let int = |value| Param::Int(value);
    let list = |items: &[Param]| Param::Array(items.to_vec());
    for ragged in [
        list(&[list(&[int(1)]), list(&[int(1), int(2)])]),
        list(&[list(&[int(1)]), int(2)]),
        list(&[int(1), list(&[int(2)])]),
        list(&[Param::Null, list(&[int(2)])]),
        list(&[list(&[int(1)]), Param::Null]),
        list(&[list(&[]), list(&[int(2)])]),
    ] {
        let error = refused(&ragged, &Type::INT4_ARRAY);
        assert!(
            error.out_of_range && error.message.contains("ragged"),
            "{ragged:?}: {error}"
        );
    }
    let deep = |depth| (1..depth).fold(list(&[int(1)]), |inner, _| list(&[inner]));
    assert!(wire(&deep(6), &Type::INT4_ARRAY).is_ok());
    assert!(
        refused(&deep(7), &Type::INT4_ARRAY)
            .message
            .contains("6 dimensions")
    );
    for empty in [list(&[]), list(&[list(&[]), list(&[])])] {
        assert!(through(&empty, &Type::INT4_ARRAY, |read| read
            == Value::Array(Vec::new())));
    }
    let json = list(&[list(&[int(1)]), Param::Null, list(&[int(1), int(2)])]);
    let expected = Value::Array(vec![Value::Json("[1]"), Value::Null, Value::Json("[1,2]")]);
    assert!(through(&json, &Type::JSONB_ARRAY, |read| read == expected));
}

#[test]
fn enums_and_domains_are_what_they_stand_for() {
    let of = |name: &str, kind| Type::new(name.to_owned(), 90_000, kind, "public".to_owned());
    let mood = of("mood", Kind::Enum(vec!["glad".to_owned()]));
    let label = Param::Text("glad".to_owned());
    assert!(through(&label, &mood, |read| read == Value::Text("glad")));
    let year = of("year", Kind::Domain(of("small", Kind::Domain(Type::INT2))));
    assert!(through(&Param::Int(7), &year, |read| read == Value::Int(7)));
    assert!(refused(&Param::Int(70_000), &year).message.contains("year"));
    let moods = of("_mood", Kind::Array(mood));
    assert!(through(&Param::Array(vec![label]), &moods, |read| read
        == Value::Array(vec![Value::Text("glad")])));
    assert!(refused(&Param::Int(1), &moods).message.contains("mood[]"));
}

#[test]
fn other_types_name_the_cast() {
    let written = refused(&Param::Text("(1,2)".to_owned()), &Type::POINT);
    assert!(
        !written.out_of_range && written.message.contains("$1::text::point"),
        "{written}"
    );
    for (ty, cast) in [
        (Type::POINT, "::text"),
        (Type::POINT_ARRAY, "::text"),
        (Type::MONEY, "::numeric"),
        (Type::INT4_RANGE, "lower("),
        (Type::RECORD, "to_jsonb"),
        (Type::TIMETZ, "::text"),
    ] {
        let raw = [
            &1_i32.to_be_bytes()[..],
            &[0; 8],
            &1_i32.to_be_bytes(),
            &[0; 4],
            &1_i32.to_be_bytes(),
            &[0],
        ]
        .concat();
        let error = decode(&ty, Some(&raw)).expect_err("no format of ours");
        assert!(
            !error.out_of_range && error.message.contains(cast),
            "{error}"
        );
    }
}

#[test]
fn what_would_be_rounded_away_is_refused() {
    assert!(through(&Param::Int(1 << 24), &Type::FLOAT4, |read| read
        == Value::Float(16_777_216.0)));
    for param in [
        Param::Int((1 << 24) + 1),
        Param::Float(1e-60),
        Param::Float(-1e39),
    ] {
        assert!(refused(&param, &Type::FLOAT4).out_of_range, "{param:?}");
    }
    for param in [Param::Int((1 << 53) + 1), Param::Int(i64::MAX)] {
        assert!(refused(&param, &Type::FLOAT8).out_of_range, "{param:?}");
    }
}

#[test]
fn a_cidr_is_a_network() {
    for network in [
        "192.0.2.0/24",
        "192.0.2.1/32",
        "0.0.0.0/0",
        "2001:db8::/32",
        "::/0",
        "::1",
    ] {
        assert!(
            wire(&Param::Text(network.to_owned()), &Type::CIDR).is_ok(),
            "{network}"
        );
    }
    for host in [
        "192.0.2.1/24",
        "0.0.0.1/0",
        "128.0.0.0/0",
        "2001:db8::1/64",
        "8000::/0",
    ] {
        assert!(
            refused(&Param::Text(host.to_owned()), &Type::CIDR).out_of_range,
            "{host}"
        );
        assert!(
            wire(&Param::Text(host.to_owned()), &Type::INET).is_ok(),
            "{host}"
        );
    }
}
