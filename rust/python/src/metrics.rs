//! A snapshot of the core's metrics as plain Python values.

use bmdb_core::metrics::{Metrics, SampleValue};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// [(name, kind, labels, value), …]: kind "counter" or "gauge" with a number, "histogram" with (buckets, sum).
pub(crate) fn to_python<'py>(py: Python<'py>, metrics: &Metrics) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for sample in metrics.snapshot() {
        let labels = PyDict::new(py);
        for (name, value) in sample.labels {
            labels.set_item(name, value)?;
        }
        match sample.value {
            SampleValue::Counter(value) => list.append((sample.name, "counter", labels, value))?,
            SampleValue::Gauge(value) => list.append((sample.name, "gauge", labels, value))?,
            SampleValue::Histogram(value) => {
                list.append((sample.name, "histogram", labels, (value.buckets, value.sum)))?;
            }
        }
    }
    Ok(list)
}
