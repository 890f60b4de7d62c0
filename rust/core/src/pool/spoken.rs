//! What a connection has to know to speak to a CockroachDB.

use super::conn::Conn;
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::queries;

impl Conn {
    /// Its number among the connections of this OS process.
    #[must_use]
    pub fn number(&self) -> i64 {
        self.number
    }

    /// Refuses a server that will not do, and a way to it that is another's.
    pub(super) fn check_spoken(&self) -> Result<()> {
        self.server.dialect.check_version(&self.server.banner)?;
        if self.server.dialect == Dialect::CockroachDb && self.pooled.is_some() {
            return Err(Error::Config(
                "pooler=True is for PostgreSQL: connect straight to CockroachDB".to_owned(),
            ));
        }
        Ok(())
    }

    /// A statement of ours as this server understands it; any other as it is.
    pub(super) fn spoken<'a>(&self, sql: &'a str) -> Result<&'a str> {
        match self.server.dialect {
            Dialect::PostgreSql => Ok(sql),
            Dialect::CockroachDb => queries::cockroachdb::spoken(sql),
        }
    }
}
