//! Rows: what `fetch` gives, with columns by name and by position.

use std::sync::Arc;

use bmdb_core::value::{Raw, decode};
use pyo3::exceptions::{PyAttributeError, PyKeyError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PySlice, PyString, PyTuple};

use crate::value::{codec_error, value_to_python};

/// The names that all rows of one result share.
#[derive(Debug)]
struct Columns {
    names: Vec<String>,
}

impl Columns {
    fn new(names: Vec<String>) -> Self {
        Self { names }
    }

    /// Looked for one after the other, which for the columns of a query is sooner done than made quick.
    fn position(&self, name: &str) -> Result<usize, String> {
        let mut found = (0..).zip(&self.names).filter(|(_, known)| *known == name);
        match (found.next(), found.next()) {
            (Some((position, _)), None) => Ok(position),
            (Some(_), Some(_)) => Err(format!(
                "this row has more than one column {name:?}: use its position"
            )),
            (None, _) => Err(format!(
                "this row has no column {name:?}, only: {}",
                self.names.join(", ")
            )),
        }
    }
}

/// One row of a result: columns as attributes, by name and by position. Equal to a tuple of the same values.
#[pyclass(frozen, sequence, module = "bmdb", name = "Row")]
pub(crate) struct Row {
    columns: Arc<Columns>,
    values: Py<PyTuple>,
}

#[pymethods]
impl Row {
    /// A row of these column names and values, equally many. Raises ValueError if they are not.
    #[new]
    fn new(fields: Vec<String>, values: Bound<'_, PyTuple>) -> PyResult<Self> {
        if fields.len() != values.len() {
            return Err(PyValueError::new_err(format!(
                "{} columns but {} values",
                fields.len(),
                values.len()
            )));
        }
        Ok(Self {
            columns: Arc::new(Columns::new(fields)),
            values: values.unbind(),
        })
    }

    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let position = self
            .columns
            .position(name)
            .map_err(PyAttributeError::new_err)?;
        self.values.bind(py).get_item(position)
    }

    fn __getitem__<'py>(&self, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let values = self.values.bind(key.py());
        if let Ok(name) = key.cast::<PyString>() {
            let position = self
                .columns
                .position(name.to_str()?)
                .map_err(PyKeyError::new_err)?;
            values.get_item(position)
        } else if key.is_instance_of::<PyInt>() || key.is_instance_of::<PySlice>() {
            values.as_any().get_item(key)
        } else {
            let kind = key.get_type().name()?;
            Err(PyTypeError::new_err(format!(
                "a column is an int, a slice or a str, not {kind}"
            )))
        }
    }

    fn __len__(&self) -> usize {
        self.columns.names.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.values.bind(py).try_iter()?.into_any())
    }

    fn __contains__(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.values.bind(value.py()).as_any().contains(value)
    }

    fn __eq__<'py>(&self, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = other.py();
        let values = self.values.bind(py).as_any();
        if let Ok(row) = other.cast::<Row>() {
            values.rich_compare(row.get().values.bind(py), pyo3::basic::CompareOp::Eq)
        } else if other.is_instance_of::<PyTuple>() {
            values.rich_compare(other, pyo3::basic::CompareOp::Eq)
        } else {
            Ok(py.NotImplemented().into_bound(py))
        }
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.values.bind(py).hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut columns = Vec::with_capacity(self.columns.names.len());
        for (name, value) in self.columns.names.iter().zip(self.values.bind(py).iter()) {
            columns.push(format!("{name}={}", value.repr()?));
        }
        Ok(format!("Row({})", columns.join(", ")))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        (
            py.get_type::<Row>(),
            (self.fields(py)?, self.values.bind(py)),
        )
            .into_pyobject(py)
    }

    fn __dir__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let names = py
            .get_type::<PyAny>()
            .call_method1(intern!(py, "__dir__"), (slf,))?;
        names.call_method1(intern!(py, "extend"), (slf.get().fields(py)?,))?;
        Ok(names)
    }

    /// The column names, in order.
    #[getter(_fields)]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.columns.names)
    }

    /// A dict of column names and values. Raises ValueError if two columns share a name.
    #[pyo3(name = "_asdict")]
    fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.columns.names.iter().zip(self.values.bind(py).iter()) {
            self.columns.position(name).map_err(PyValueError::new_err)?;
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }
}

/// The Python object in one column. Raises TypeError for a type that has none, ValueError for a value that has none.
pub(crate) fn value_of(
    py: Python<'_>,
    row: &tokio_postgres::Row,
    position: usize,
) -> PyResult<Py<PyAny>> {
    let column = &row.columns()[position];
    let raw: Raw<'_> = row
        .try_get(position)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    match decode(column.type_(), raw.0) {
        Ok(value) => value_to_python(py, value),
        Err(mut error) => {
            error.message = format!("column {:?}: {}", column.name(), error.message);
            Err(codec_error(error))
        }
    }
}

/// All rows of one result, each column converted by its type.
pub(crate) fn rows_to_python(py: Python<'_>, rows: &[tokio_postgres::Row]) -> PyResult<Vec<Row>> {
    let Some(first) = rows.first() else {
        return Ok(Vec::new());
    };
    let names = first
        .columns()
        .iter()
        .map(|column| column.name().to_owned())
        .collect();
    let columns = Arc::new(Columns::new(names));
    let mut values = Vec::with_capacity(first.len());
    rows.iter()
        .map(|row| {
            for position in 0..row.len() {
                values.push(value_of(py, row, position)?);
            }
            Ok(Row {
                columns: Arc::clone(&columns),
                values: PyTuple::new(py, values.drain(..))?.unbind(),
            })
        })
        .collect()
}

/// Rows of these column names, from tuples of their values.
#[pyfunction]
fn rows(fields: Vec<String>, values: Vec<Bound<'_, PyTuple>>) -> PyResult<Vec<Row>> {
    let columns = Arc::new(Columns::new(fields));
    values
        .into_iter()
        .map(|values| {
            let (wanted, given) = (columns.names.len(), values.len());
            if wanted != given {
                return Err(PyValueError::new_err(format!(
                    "{wanted} columns but {given} values"
                )));
            }
            Ok(Row {
                columns: Arc::clone(&columns),
                values: values.unbind(),
            })
        })
        .collect()
}

/// Adds the class and the function of this file to `bmdb._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Row>()?;
    module.add_function(wrap_pyfunction!(rows, module)?)
}
