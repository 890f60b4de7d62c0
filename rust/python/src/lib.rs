//! The Python border of bmdb: conversion, and letting go of the GIL. Everything true about leases is in `bmdb-core`.

mod backoff;
mod batch;
#[cfg(unix)]
mod bridge;
mod browse;
mod canary;
mod completion;
mod connection;
mod drive;
mod error;
mod foreign;
mod limits;
mod messenger;
mod metrics;
mod nesting;
mod pace;
mod process;
mod questions;
mod retry;
mod row;
mod session;
mod settings;
mod transaction;
mod value;
mod work;

use bmdb_core::queries as known;
use pyo3::prelude::*;

/// bmdb's own statements: [(name, text), …].
#[pyfunction]
fn queries() -> Vec<(&'static str, &'static str)> {
    known::ALL
        .iter()
        .map(|query| (query.name, query.sql))
        .collect()
}

/// The testing kit's statements: [(name, text), …].
#[pyfunction]
fn testing_statements() -> Vec<(&'static str, &'static str)> {
    bmdb_core::testing::STATEMENTS.to_vec()
}

/// The schema version that this library was written for.
#[pyfunction]
fn latest_schema_version() -> i64 {
    bmdb_core::migrate::latest()
}

/// For tests: panics at this point the next time, once.
#[pyfunction]
#[pyo3(signature = (name))]
fn fail_at(name: Option<String>) {
    bmdb_core::panics::arm(name);
}

/// Whether every server of these lists, as libpq's keywords have them, is reached without leaving this machine.
#[pyfunction]
fn only_loopback(host: &str, hostaddr: &str) -> bool {
    bmdb_core::config::loopback::only(host, hostaddr)
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    backoff::register(module)?;
    pace::register(module)?;
    retry::register(module)?;
    foreign::register(module)?;
    row::register(module)?;
    batch::register(module)?;
    browse::register(module)?;
    module.add_class::<connection::Connection>()?;
    module.add_class::<session::Session>()?;
    module.add_class::<transaction::Transaction>()?;
    module.add_class::<work::Work>()?;
    module.add_class::<questions::Questions>()?;
    module.add_class::<nesting::Nesting>()?;
    module.add_class::<error::Doubt>()?;
    module.add_function(wrap_pyfunction!(queries, module)?)?;
    module.add_function(wrap_pyfunction!(testing_statements, module)?)?;
    module.add_function(wrap_pyfunction!(canary::stop_canary, module)?)?;
    module.add_function(wrap_pyfunction!(process::check_process, module)?)?;
    module.add_function(wrap_pyfunction!(messenger::stop_completions, module)?)?;
    module.add_function(wrap_pyfunction!(fail_at, module)?)?;
    module.add_function(wrap_pyfunction!(only_loopback, module)?)?;
    module.add_function(wrap_pyfunction!(latest_schema_version, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
