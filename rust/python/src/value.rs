//! Python objects into parameters, and column values into Python objects.

use std::net::IpAddr;

use bmdb_core::value::{
    CodecError, MICROS_PER_DAY, Param, Value, civil_from_days, days_from_civil,
};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict,
    PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTime, PyTimeAccess, PyTuple, PyType,
    PyTzInfo, PyTzInfoAccess,
};

/// Lists and dicts may be nested this deep; beyond that, something most likely contains itself.
const DEEPEST: usize = 200;

static JSON_LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A class of the standard library, imported once.
macro_rules! class {
    ($py:expr, $module:literal, $name:literal) => {{
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import($py, $module, $name)
    }};
}

/// TypeError for a kind that does not match, ValueError for a value that does not fit.
pub(crate) fn codec_error(error: CodecError) -> PyErr {
    if error.out_of_range {
        PyValueError::new_err(error.message)
    } else {
        PyTypeError::new_err(error.message)
    }
}

/// What a Python object stands for as a parameter.
///
/// Raises TypeError for an object that no SQL type takes, and ValueError for one that no SQL type can hold.
pub(crate) fn param_from_python(object: &Bound<'_, PyAny>) -> PyResult<Param> {
    convert(object, 0)
}

fn convert(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Param> {
    if depth > DEEPEST {
        return Err(PyValueError::new_err(format!(
            "a parameter nested more than {DEEPEST} deep fits no SQL type (does it contain itself?)"
        )));
    }
    let py = object.py();
    if object.is_none() {
        return Ok(Param::Null);
    }
    if let Ok(text) = object.cast_exact::<PyString>() {
        return Ok(Param::Text(text_of(text)?));
    }
    if let Ok(flag) = object.cast::<PyBool>() {
        return Ok(Param::Bool(flag.is_true()));
    }
    if object.is_exact_instance_of::<PyInt>() {
        return integer(object);
    }
    if object.is_instance(class!(py, "uuid", "UUID")?)? {
        let bytes = object.getattr(intern!(py, "bytes"))?;
        return Ok(Param::Uuid(bytes.cast::<PyBytes>()?.as_bytes().try_into()?));
    }
    // Before the subclasses of str and int: an enum's value counts, whatever else it is.
    if object.is_instance(class!(py, "enum", "Enum")?)? {
        return convert(&object.getattr(intern!(py, "value"))?, depth + 1);
    }
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Param::Text(text_of(text)?));
    }
    if object.is_instance_of::<PyInt>() {
        return integer(object);
    }
    if let Ok(float) = object.cast::<PyFloat>() {
        return Ok(Param::Float(float.extract()?));
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Param::Bytes(bytes.as_bytes().to_vec()));
    }
    if let Ok(bytes) = object.cast::<PyByteArray>() {
        return Ok(Param::Bytes(bytes.to_vec()));
    }
    if object.is_instance_of::<PyMemoryView>() {
        let bytes = object.call_method0(intern!(py, "tobytes"))?;
        return Ok(Param::Bytes(bytes.cast::<PyBytes>()?.as_bytes().to_vec()));
    }
    if let Ok(list) = object.cast::<PyList>() {
        return items(list.iter(), depth);
    }
    if let Ok(tuple) = object.cast::<PyTuple>() {
        return items(tuple.iter(), depth);
    }
    if let Ok(dict) = object.cast::<PyDict>() {
        let mut members = Vec::with_capacity(dict.len());
        for (key, value) in dict.iter() {
            let Ok(key) = key.cast::<PyString>() else {
                return Err(PyTypeError::new_err(format!(
                    "a dict with a key of type {} does not fit type json: its keys must be str",
                    name_of(&key)
                )));
            };
            members.push((text_of(key)?, convert(&value, depth + 1)?));
        }
        return Ok(Param::Object(members));
    }
    if object.is_instance(class!(py, "decimal", "Decimal")?)? {
        return Ok(Param::Numeric(text_of(&object.str()?)?));
    }
    match temporal(object)? {
        Some(param) => Ok(param),
        None => network(object)?.ok_or_else(|| {
            PyTypeError::new_err(format!(
                "a parameter of type {} fits no SQL type: convert it first",
                name_of(object)
            ))
        }),
    }
}

fn name_of(object: &Bound<'_, PyAny>) -> String {
    object
        .get_type()
        .fully_qualified_name()
        .map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

fn text_of(text: &Bound<'_, PyString>) -> PyResult<String> {
    text.to_str().map(str::to_owned).map_err(|_| {
        PyValueError::new_err("a str with a lone surrogate does not fit type text, which is UTF-8: encode it to bytes")
    })
}

fn integer(object: &Bound<'_, PyAny>) -> PyResult<Param> {
    let py = object.py();
    match object.extract::<i64>() {
        Ok(value) => Ok(Param::Int(value)),
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => {
            // A subclass may print itself differently.
            let digits = py
                .get_type::<PyInt>()
                .call_method1(intern!(py, "__repr__"), (object,))?;
            Ok(Param::BigInt(digits.extract()?))
        }
        Err(error) => Err(error),
    }
}

fn items<'py>(objects: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> PyResult<Param> {
    objects
        .map(|object| convert(&object, depth + 1))
        .collect::<PyResult<_>>()
        .map(Param::Array)
}

fn temporal(object: &Bound<'_, PyAny>) -> PyResult<Option<Param>> {
    // A datetime is a date as well, so it comes first.
    if let Ok(datetime) = object.cast::<PyDateTime>() {
        let micros = i64::from(days(datetime)) * MICROS_PER_DAY + micros_of_day(datetime);
        let offset = object.call_method0(intern!(object.py(), "utcoffset"))?;
        return Ok(Some(if offset.is_none() {
            Param::Timestamp(micros)
        } else {
            // An offset is less than a day.
            Param::TimestampTz(micros - duration(offset.cast()?) as i64)
        }));
    }
    if let Ok(date) = object.cast::<PyDate>() {
        return Ok(Some(Param::Date(days(date))));
    }
    if let Ok(time) = object.cast::<PyTime>() {
        if time.get_tzinfo().is_some() {
            return Err(PyTypeError::new_err(
                "a time with a zone does not fit type time: use a datetime, or drop it with .replace(tzinfo=None)",
            ));
        }
        return Ok(Some(Param::Time(micros_of_day(time))));
    }
    if let Ok(delta) = object.cast::<PyDelta>() {
        // All of it as microseconds: a timedelta's day is 24 hours, PostgreSQL's follows the time zone.
        let micros = i64::try_from(duration(delta)).map_err(|_| {
            PyValueError::new_err(
                "a timedelta of more than 292,277 years does not fit type interval",
            )
        })?;
        return Ok(Some(Param::Interval {
            months: 0,
            days: 0,
            micros,
        }));
    }
    Ok(None)
}

fn days(date: &impl PyDateAccess) -> i32 {
    days_from_civil(date.get_year(), date.get_month(), date.get_day())
}

fn micros_of_day(time: &impl PyTimeAccess) -> i64 {
    let seconds = (i64::from(time.get_hour()) * 60 + i64::from(time.get_minute())) * 60
        + i64::from(time.get_second());
    seconds * 1_000_000 + i64::from(time.get_microsecond())
}

fn duration(delta: &Bound<'_, PyDelta>) -> i128 {
    let seconds = i128::from(delta.get_days()) * 86_400 + i128::from(delta.get_seconds());
    seconds * 1_000_000 + i128::from(delta.get_microseconds())
}

fn network(object: &Bound<'_, PyAny>) -> PyResult<Option<Param>> {
    let py = object.py();
    // An interface is an address as well, so it comes first.
    let interface = object.is_instance(class!(py, "ipaddress", "IPv4Interface")?)?
        || object.is_instance(class!(py, "ipaddress", "IPv6Interface")?)?;
    let address = interface
        || object.is_instance(class!(py, "ipaddress", "IPv4Address")?)?
        || object.is_instance(class!(py, "ipaddress", "IPv6Address")?)?;
    let is_network = !address
        && (object.is_instance(class!(py, "ipaddress", "IPv4Network")?)?
            || object.is_instance(class!(py, "ipaddress", "IPv6Network")?)?);
    if !address && !is_network {
        return Ok(None);
    }
    let host = if is_network {
        object.getattr(intern!(py, "network_address"))?
    } else {
        object.clone()
    };
    let scope = host.getattr_opt(intern!(py, "scope_id"))?;
    if scope.is_some_and(|scope| !scope.is_none()) {
        return Err(PyValueError::new_err(
            "an IPv6 address with a zone (%) does not fit type inet",
        ));
    }
    let packed = host.getattr(intern!(py, "packed"))?;
    let packed = packed.cast::<PyBytes>()?.as_bytes();
    let addr = match <[u8; 4]>::try_from(packed) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(packed)?),
    };
    let prefix = if is_network {
        object.getattr(intern!(py, "prefixlen"))?.extract()?
    } else if interface {
        object
            .getattr(intern!(py, "network"))?
            .getattr(intern!(py, "prefixlen"))?
            .extract()?
    } else if addr.is_ipv4() {
        32
    } else {
        128
    };
    Ok(Some(Param::Inet {
        addr,
        prefix,
        is_network,
    }))
}

/// The Python object for what a column holds. JSON is parsed by `json.loads`.
pub(crate) fn value_to_python(py: Python<'_>, value: Value<'_>) -> PyResult<Py<PyAny>> {
    let object = match value {
        Value::Null => return Ok(py.None()),
        Value::Bool(value) => PyBool::new(py, value).to_owned().into_any(),
        Value::Int(value) => PyInt::new(py, value).into_any(),
        Value::Float(value) => PyFloat::new(py, value).into_any(),
        Value::Numeric(text) => class!(py, "decimal", "Decimal")?.call1((text,))?,
        Value::Text(text) => PyString::new(py, text).into_any(),
        Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Value::Uuid(bytes) => uuid(py, bytes)?,
        Value::Date(days) => {
            let (year, month, day) = civil_from_days(days);
            PyDate::new(py, year, month, day)?.into_any()
        }
        Value::Time(micros) => {
            let (hour, minute, second, micro) = clock(micros);
            PyTime::new(py, hour, minute, second, micro, None)?.into_any()
        }
        Value::Timestamp(micros) => datetime(py, micros, None)?,
        Value::TimestampTz(micros) => {
            let utc = PyTzInfo::utc(py)?;
            datetime(py, micros, Some(&utc))?
        }
        Value::Interval { days, micros } => {
            let days = i64::from(days) + micros.div_euclid(MICROS_PER_DAY);
            let micros = micros.rem_euclid(MICROS_PER_DAY);
            let (seconds, micros) = ((micros / 1_000_000) as i32, (micros % 1_000_000) as i32);
            PyDelta::new(py, days.try_into()?, seconds, micros, false)?.into_any()
        }
        Value::Json(text) => {
            let loads = JSON_LOADS.import(py, "json", "loads")?;
            loads.call1((text,))?
        }
        Value::Inet {
            addr,
            prefix,
            is_network,
        } => address(py, addr, prefix, is_network)?,
        Value::Array(values) => {
            let list = PyList::empty(py);
            for value in values {
                list.append(value_to_python(py, value)?)?;
            }
            list.into_any()
        }
    };
    Ok(object.unbind())
}

/// A UUID without its constructor, which checks for most of its time which of six ways was taken: fresh, it is given its
/// two slots, as when one is unpickled.
fn uuid(py: Python<'_>, bytes: [u8; 16]) -> PyResult<Bound<'_, PyAny>> {
    static NEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static SET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static UNKNOWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static FROM_BYTES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let object = || py.get_type::<PyAny>();
    let new = NEW.get_or_try_init(py, || {
        object().getattr(intern!(py, "__new__")).map(Bound::unbind)
    })?;
    // UUID's own refuses everything: it is immutable.
    let set = SET.get_or_try_init(py, || {
        let set = object().getattr(intern!(py, "__setattr__"));
        set.map(Bound::unbind)
    })?;
    let unknown = UNKNOWN.get_or_try_init(py, || {
        let safe = class!(py, "uuid", "SafeUUID")?;
        safe.getattr(intern!(py, "unknown")).map(Bound::unbind)
    })?;
    let made = new.bind(py).call1((class!(py, "uuid", "UUID")?,))?;
    let number = FROM_BYTES
        .get_or_try_init(py, || {
            let from_bytes = py.get_type::<PyInt>().getattr(intern!(py, "from_bytes"));
            from_bytes.map(Bound::unbind)
        })?
        .call1(py, (PyBytes::new(py, &bytes),))?;
    set.call1(py, (&made, intern!(py, "int"), number))?;
    set.call1(py, (&made, intern!(py, "is_safe"), unknown))?;
    Ok(made)
}

fn clock(micros: i64) -> (u8, u8, u8, u32) {
    let seconds = micros / 1_000_000;
    (
        (seconds / 3_600) as u8,
        (seconds / 60 % 60) as u8,
        (seconds % 60) as u8,
        (micros % 1_000_000) as u32,
    )
}

/// A datetime from the ten bytes that one is pickled as: with a call of Python's for it anyway, one argument is read
/// sooner than eight.
fn datetime<'py>(
    py: Python<'py>,
    micros: i64,
    zone: Option<&Bound<'py, PyTzInfo>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (year, month, day) = civil_from_days(micros.div_euclid(MICROS_PER_DAY).try_into()?);
    let (hour, minute, second, micro) = clock(micros.rem_euclid(MICROS_PER_DAY));
    let [_, _, years, year] = year.to_be_bytes();
    let [_, high, middle, low] = micro.to_be_bytes();
    let state = [
        years, year, month, day, hour, minute, second, high, middle, low,
    ];
    let state = PyBytes::new(py, &state);
    let class = class!(py, "datetime", "datetime")?;
    match zone {
        Some(zone) => class.call1((state, zone)),
        None => class.call1((state,)),
    }
}

fn address(
    py: Python<'_>,
    addr: IpAddr,
    prefix: u8,
    is_network: bool,
) -> PyResult<Bound<'_, PyAny>> {
    let (whole, packed) = match addr {
        IpAddr::V4(addr) => (prefix == 32, PyBytes::new(py, &addr.octets())),
        IpAddr::V6(addr) => (prefix == 128, PyBytes::new(py, &addr.octets())),
    };
    match (addr.is_ipv4(), is_network) {
        (true, true) => class!(py, "ipaddress", "IPv4Network")?.call1(((packed, prefix),)),
        (false, true) => class!(py, "ipaddress", "IPv6Network")?.call1(((packed, prefix),)),
        (true, false) if whole => class!(py, "ipaddress", "IPv4Address")?.call1((packed,)),
        (false, false) if whole => class!(py, "ipaddress", "IPv6Address")?.call1((packed,)),
        (true, false) => class!(py, "ipaddress", "IPv4Interface")?.call1(((packed, prefix),)),
        (false, false) => class!(py, "ipaddress", "IPv6Interface")?.call1(((packed, prefix),)),
    }
}
