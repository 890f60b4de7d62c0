//! What `connect` was given, checked.

use bmdb_core::config::Config;
use bmdb_core::connection::{Pooling, Settings};
use bmdb_core::dialect::Access;
use bmdb_core::drive::Drive;
use bmdb_core::error::Result;
use pyo3::prelude::*;

use crate::error::to_python;
use crate::limits::{isolation, retries};

/// What `connect` was given besides the server's address.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Given {
    component: String,
    runtime_info: String,
    pool_size: i64,
    isolation: String,
    max_retries: i64,
    throwaway: bool,
    access: String,
    pooling: String,
}

/// How to open a connection, and whether its server is thrown away with it.
pub(crate) fn prepare(
    py: Python<'_>,
    pairs: Vec<(String, String)>,
    drive: Drive,
    given: Given,
) -> PyResult<(Settings, bool)> {
    let settings = || -> Result<Settings> {
        Ok(Settings {
            config: Config::from_pairs(pairs)?,
            drive,
            component: given.component,
            runtime_info: given.runtime_info,
            pool_size: usize::try_from(given.pool_size).unwrap_or(0),
            isolation: isolation(&given.isolation)?,
            max_retries: retries(given.max_retries)?,
            access: match given.access.as_str() {
                "read only" => Access::ReadOnly { weak: false },
                "weak" => Access::ReadOnly { weak: true },
                _ => Access::ReadWrite,
            },
            pooling: match given.pooling.as_str() {
                "expect" => Pooling::Expect,
                "adapt" => Pooling::Adapt,
                _ => Pooling::Refuse,
            },
        })
    };
    let settings = settings().map_err(|error| to_python(py, error))?;
    Ok((settings, given.throwaway))
}
