//! Statements for what people browse, made of the tags that there are.

use bmdb_core::browse::{self, Filter};
use bmdb_core::reflect::Tag;
use pyo3::prelude::*;

use crate::error::to_python;

/// A tag as `tags` tells it: name, table, fields with their types.
type Told = (String, String, Vec<(String, String)>);

/// What machines are asked for by.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Given {
    having: Vec<String>,
    lacking: Vec<String>,
    state: Option<String>,
    backlog: Option<String>,
    process: bool,
    bounded: bool,
    provider: bool,
    created: bool,
    descending: bool,
    continued: bool,
}

fn known(tags: Vec<Told>) -> Vec<Tag> {
    tags.into_iter()
        .map(|(name, table, fields)| Tag {
            name,
            table,
            fields,
            required: Vec::new(),
        })
        .collect()
}

/// The statement for a page of machines, and the names of its parameters in order.
#[pyfunction]
fn machines_statement(
    py: Python<'_>,
    tags: Vec<Told>,
    filter: Given,
) -> PyResult<(String, Vec<&'static str>)> {
    let filter = Filter {
        having: filter.having,
        lacking: filter.lacking,
        state: filter.state,
        backlog: filter.backlog,
        process: filter.process,
        bounded: filter.bounded,
        provider: filter.provider,
        created: filter.created,
        descending: filter.descending,
        continued: filter.continued,
    };
    let made = browse::machines(&filter, &known(tags)).map_err(|error| to_python(py, error))?;
    Ok((made.sql, made.params))
}

/// The statements about the tags: of many machines, how many have each, and what they say of one machine.
#[pyfunction]
fn tag_statements(tags: Vec<Told>) -> (String, String, String) {
    let tags = known(tags);
    (
        browse::holders(&tags),
        browse::counts(&tags),
        browse::values(&tags),
    )
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(machines_statement, module)?)?;
    module.add_function(wrap_pyfunction!(tag_statements, module)?)
}
