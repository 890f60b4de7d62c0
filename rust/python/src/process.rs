//! Processes: their names, and what of their definitions the database keeps.

use bmdb_core::process::Definition;
use pyo3::prelude::*;

use crate::backoff::Backoff;
use crate::error::to_python;

/// Raises ValueError for a process name that is empty, longer than 128 bytes or holds a NUL.
#[pyfunction]
pub(crate) fn check_process(py: Python<'_>, name: &str) -> PyResult<()> {
    bmdb_core::work::check_process(name).map_err(|error| to_python(py, error))
}

/// A `bmdb.Process`, as far as the database keeps it.
#[derive(FromPyObject)]
pub(crate) struct Process {
    name: String,
    excludes: Vec<String>,
    crash_backoff: Option<Py<Backoff>>,
    quarantine_after: Option<i64>,
    /// Changes of tags, as pairs of a table and INSERT, UPDATE or DELETE.
    #[pyo3(default)]
    watches: Vec<(String, String)>,
    /// The fingerprint of the eligibility that watches.
    #[pyo3(default)]
    watcher: String,
}

/// The definitions for the core.
pub(crate) fn definitions(processes: Vec<Process>) -> Vec<Definition> {
    let define = |process: Process| Definition {
        name: process.name,
        excludes: process.excludes,
        crash_backoff: process
            .crash_backoff
            .map(|backoff| backoff.get().core().clone()),
        quarantine_after: process.quarantine_after,
        watch: process.watches,
        watcher: process.watcher,
    };
    processes.into_iter().map(define).collect()
}
