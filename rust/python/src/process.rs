//! Processes: their names, and what of their definitions the database keeps.

use pyo3::prelude::*;

use crate::error::to_python;

/// Raises ValueError for a process name that is empty, longer than 128 bytes or holds a NUL.
#[pyfunction]
pub(crate) fn check_process(py: Python<'_>, name: &str) -> PyResult<()> {
    bmdb_core::work::check_process(name).map_err(|error| to_python(py, error))
}
