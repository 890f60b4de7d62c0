//! `bmdb.Backoff`: Python's numbers and timedeltas in, whole seconds out.

use bmdb_core::backoff::{Backoff as Core, Field, InvalidBackoff, Previous, no_backoff};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyUserWarning, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDelta, PyDeltaAccess, PyDict, PyFloat, PyInt, PyList, PyTuple};

/// Far beyond any use, and still a list that fits into memory.
const LONGEST_SCHEDULE: i64 = 1_000_000;

/// How long a machine is left alone after its work failed, as a rule for growing periods.
///
/// `initial` and `maximum` are seconds (int or float) or a `datetime.timedelta`; the attributes of the same names are
/// floats of seconds, as given, and `maximum` is None if it was not. Periods are whole seconds, always rounded up.
/// An `initial` below one second counts as one. A `maximum` that is not given, or lies below `initial`, counts as
/// `initial`, so an `exponent` above 1 needs a maximum to have an effect: without one a UserWarning says so. An
/// `exponent` of 0 to 1 means that every period is `initial`. Durations beyond 2**63 nanoseconds (292 years) are cut
/// to that.
///
/// `jitter` is a share from 0 to 1: `next` and failed work take off up to `jitter` times the period, a whole number of
/// seconds drawn evenly by `random.random()`, and leave at least one second. Nothing is ever added. What the database
/// remembers as the previous period is the one before jitter, so jitter does not slow the growth.
///
/// Frozen; equal and of equal hash if the settings are equal; can be pickled, and copies are the object itself.
///
/// Raises ValueError, naming the argument, for NaN, infinities, negative and non-numeric values (bool included) and a
/// jitter above 1.
#[pyclass(frozen, eq, hash, module = "bmdb", name = "Backoff")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Backoff(Core);

impl Backoff {
    /// The rule itself, for failing work.
    pub(crate) fn core(&self) -> &Core {
        &self.0
    }
}

impl From<Core> for Backoff {
    fn from(core: Core) -> Self {
        Backoff(core)
    }
}

#[pymethods]
impl Backoff {
    #[new]
    #[pyo3(signature = (initial=1.0, maximum=None, exponent=1.0, *, jitter=0.0))]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = initial)] initial: f64,
        #[pyo3(from_py_with = maximum)] maximum: Option<f64>,
        #[pyo3(from_py_with = exponent)] exponent: f64,
        #[pyo3(from_py_with = jitter)] jitter: f64,
    ) -> PyResult<Self> {
        let core = Core::new(initial, maximum, exponent, jitter).map_err(refused)?;
        if core.never_grows() {
            PyErr::warn(
                py,
                &py.get_type::<PyUserWarning>(),
                c"a Backoff with an exponent above 1 but no maximum never grows, because the maximum then is the initial period: give maximum",
                1,
            )?;
        }
        Ok(Backoff(core))
    }

    /// The initial period in seconds, as given.
    #[getter]
    fn initial(&self) -> f64 {
        self.0.initial()
    }

    /// The longest period in seconds, as given; None if it was not.
    #[getter]
    fn maximum(&self) -> Option<f64> {
        self.0.maximum()
    }

    /// The growth from one period to the next, as given.
    #[getter]
    fn exponent(&self) -> f64 {
        self.0.exponent()
    }

    /// The largest share of a period that chance may take off.
    #[getter]
    fn jitter(&self) -> f64 {
        self.0.jitter()
    }

    /// The whole seconds to wait after another failure, from 1 to the rounded-up maximum.
    ///
    /// `previous` is the period before: seconds or a timedelta, of which less than one second counts as one and more
    /// than 292 years as that; None after a first failure. With an exponent above 1 the result is `previous` times the
    /// exponent, rounded up and at least a second more than `previous`, but never above the maximum. Else, and without
    /// `previous`, it is the rounded-up initial period. Jitter, where set, then comes off.
    ///
    /// Raises ValueError, naming `previous`, if that is NaN, infinite, negative or non-numeric.
    #[pyo3(signature = (previous=None))]
    fn next(&self, py: Python<'_>, previous: Option<&Bound<'_, PyAny>>) -> PyResult<i64> {
        let period = self.0.next(to_previous(previous)?);
        if self.0.jitter() == 0.0 {
            return Ok(period);
        }
        static RANDOM: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
        let random = RANDOM.get_or_try_init(py, || py.import("random").map(Bound::unbind))?;
        // Looked up each time, so that who replaces it, as tests do, is heard.
        let random = random.call_method0(py, intern!(py, "random"))?;
        Ok(self.0.jittered(period, random.extract(py)?))
    }

    /// The first `n` periods in seconds, each the previous one of the next, without jitter.
    ///
    /// Raises ValueError if `n` is negative or above a million.
    fn schedule<'py>(
        &self,
        py: Python<'py>,
        n: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let count = match n.extract::<i64>() {
            Err(error) if !error.is_instance_of::<PyOverflowError>(py) => return Err(error),
            Ok(count @ 0..=LONGEST_SCHEDULE) => count as usize,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "n must lie between 0 and {LONGEST_SCHEDULE}"
                )));
            }
        };
        PyList::new(py, self.0.schedule(count))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let show = |number: f64| PyFloat::new(py, number).repr().map(|text| text.to_string());
        Ok(format!(
            "Backoff(initial={}, maximum={}, exponent={}, jitter={})",
            show(self.0.initial())?,
            self.0
                .maximum()
                .map_or_else(|| Ok("None".to_owned()), show)?,
            show(self.0.exponent())?,
            show(self.0.jitter())?,
        ))
    }

    fn __copy__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: PyRef<'py, Self>, _memo: &Bound<'py, PyAny>) -> PyRef<'py, Self> {
        slf
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let core = slf.get().core();
        let arguments = (core.initial(), core.maximum(), core.exponent()).into_pyobject(py)?;
        let named = PyDict::new(py);
        named.set_item(intern!(py, "jitter"), core.jitter())?;
        let make = py
            .import(intern!(py, "copyreg"))?
            .getattr(intern!(py, "__newobj_ex__"))?;
        (make, (slf.get_type(), arguments, named)).into_pyobject(py)
    }
}

/// The whole seconds to wait after a failure for which no backoff is given.
///
/// That is `previous` (seconds or a timedelta) again, rounded up, or one second if there is none.
/// Raises ValueError, naming `previous`, if that is NaN, infinite, negative or non-numeric.
#[pyfunction]
#[pyo3(signature = (previous=None))]
fn backoff_without(previous: Option<&Bound<'_, PyAny>>) -> PyResult<i64> {
    Ok(no_backoff(to_previous(previous)?))
}

/// Adds this file's classes and functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Backoff>()?;
    module.add_function(wrap_pyfunction!(backoff_without, module)?)
}

fn initial(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    seconds(Field::Initial, value)
}

fn maximum(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if value.is_none() {
        Ok(None)
    } else {
        seconds(Field::Maximum, value).map(Some)
    }
}

fn exponent(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    number(Field::Exponent, value, "a number")
}

fn jitter(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    number(Field::Jitter, value, "a number")
}

fn to_previous(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Previous>> {
    let Some(value) = value else {
        return Ok(None);
    };
    let previous = if let Ok(whole) = value.cast_exact::<PyInt>() {
        match whole.extract::<i64>() {
            Ok(whole) if whole >= 0 => Previous::from_whole_seconds(whole),
            Ok(whole) => return Err(negative(whole as f64)),
            Err(_) if whole.lt(0)? => return Err(negative(f64::MIN)),
            Err(_) => Previous::from_whole_seconds(i64::MAX),
        }
    } else if let Ok(delta) = value.cast::<PyDelta>() {
        let whole = i64::from(delta.get_days()) * 86_400 + i64::from(delta.get_seconds());
        if whole < 0 {
            return Err(negative(whole as f64));
        }
        Previous::from_nanoseconds(
            i128::from(whole) * 1_000_000_000 + i128::from(delta.get_microseconds()) * 1_000,
        )
    } else {
        Previous::from_seconds(seconds(Field::Previous, value)?).map_err(refused)?
    };
    Ok(Some(previous))
}

fn seconds(field: Field, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    if value.is_instance_of::<PyDelta>() {
        return value
            .call_method0(intern!(value.py(), "total_seconds"))?
            .extract();
    }
    number(field, value, "a number of seconds or a datetime.timedelta")
}

/// Any real number as a float; an int too large for one becomes the largest float of its sign.
fn number(field: Field, value: &Bound<'_, PyAny>, wanted: &str) -> PyResult<f64> {
    let py = value.py();
    let wrong = || -> PyResult<PyErr> {
        Ok(PyValueError::new_err(format!(
            "{field} must be {wanted}, not {}",
            value.get_type().qualname()?
        )))
    };
    if value.is_instance_of::<PyBool>() {
        return Err(wrong()?);
    }
    match value.extract::<f64>() {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => Err(wrong()?),
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => {
            Ok(if value.lt(0)? { f64::MIN } else { f64::MAX })
        }
        other => other,
    }
}

fn negative(value: f64) -> PyErr {
    refused(InvalidBackoff::Negative {
        field: Field::Previous,
        value,
    })
}

fn refused(error: InvalidBackoff) -> PyErr {
    PyValueError::new_err(error.to_string())
}
