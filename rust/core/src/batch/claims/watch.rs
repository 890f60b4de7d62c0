//! What a queue of claims tells the database of itself, and is told: that it asks, and whether triggers note what it waits for.

use std::time::{Duration, Instant};

use super::{Claims, lock};
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::migrate::explain_missing_schema;
use crate::queries;
use crate::value::Param;

/// How long to rely on what was told about triggers.
const WATCH_PAUSE: Duration = Duration::from_secs(10);
/// How often to say in the database that somebody asks.
const POLLED: Duration = Duration::from_secs(60);

impl Claims {
    /// Whether triggers can be relied on, as of a little while ago.
    pub(super) async fn is_watched(&self) -> Result<bool> {
        let (watched, asked) = *lock(&self.watched);
        if asked.is_some_and(|asked| asked.elapsed() < WATCH_PAUSE)
            || !self.compiled.windowed
            || self.pool.dialect() != Dialect::PostgreSql
        {
            return Ok(watched);
        }
        let process = Param::Text(self.process.clone());
        let processes = Param::Array(vec![process.clone()]);
        let mut checkout = self.pool.checkout().await?;
        let conn = checkout.conn();
        let rows = conn
            .query(queries::PROCESS_WATCHED.sql, &[processes])
            .await
            .map_err(explain_missing_schema)?;
        let ours = rows
            .iter()
            .find(|row| row.get::<_, &str>("watcher") == &*self.watcher);
        let watched = ours.is_some_and(|row| row.get("watched"));
        if ours.is_some_and(|row| row.get("unseen")) {
            let watcher = Param::Text(self.watcher.to_string());
            match conn
                .query(queries::PROCESS_WATCHING.sql, &[process, watcher])
                .await
            {
                // Housekeeping: the claim does not fail for it, and the next one tries again.
                Ok(_) | Err(Error::Database(_)) => {}
                Err(error) => return Err(error),
            }
        }
        *lock(&self.watched) = (watched, Some(Instant::now()));
        Ok(watched)
    }

    /// Says in the database, now and then, that somebody asks by this eligibility.
    pub(super) async fn tell_polled(&self) -> Result<()> {
        {
            let mut told = lock(&self.told);
            if told.is_some_and(|told| told.elapsed() < POLLED) {
                return Ok(());
            }
            *told = Some(Instant::now());
        }
        let params = [&*self.process, &*self.watcher].map(|text| Param::Text(text.to_owned()));
        let mut checkout = self.pool.checkout().await?;
        let told = checkout.conn().query(queries::PROCESS_POLLED.sql, &params);
        match told.await {
            // Housekeeping, as above.
            Ok(_) | Err(Error::Database(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
