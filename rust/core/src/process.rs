//! Processes: what of their definitions the database keeps, so that it holds for every worker.
//!
//! Registration only adds. A worker of another version that declares less must not take away what others rely on;
//! whoever means to says so by `replace`.

use std::sync::Arc;

use tokio_postgres::Row;

use crate::backoff::Backoff;
use crate::collect::own_plan;
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::migrate::explain_missing_schema;
use crate::pool::Pool;
use crate::queries;
use crate::sqlstate;
use crate::transaction::{Conclusion, Transaction};
use crate::value::Param;
use crate::work::check_process;

/// What the database keeps of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Processes that must not hold a machine while this one does, nor the other way round.
    pub excludes: Vec<String>,
    /// How long a machine is left alone when a holder is lost.
    pub crash_backoff: Option<Backoff>,
    /// Losses in a row after which a machine is left alone until it is released.
    pub quarantine_after: Option<i64>,
    /// Changes of tags after which a machine may need the process: a tag's table, and INSERT, UPDATE or DELETE. None: the
    /// process always looks by itself.
    pub watch: Vec<(String, String)>,
    /// Who watches: the eligibility, by its fingerprint. Empty where nothing is watched.
    pub watcher: String,
}

/// Stores the definitions, and returns what cannot be watched, for people. What is stored already, and nothing to store,
/// costs no write, so a role that may only read these tables can work with processes that somebody else has registered.
pub async fn register(
    pool: &Arc<Pool>,
    definitions: &[Definition],
    replace: bool,
) -> Result<Vec<String>> {
    for definition in definitions {
        check_process(&definition.name)?;
        definition
            .excludes
            .iter()
            .try_for_each(|name| check_process(name))?;
        check_watch(definition)?;
    }
    let registered = match store(pool, definitions, replace).await {
        // Done twice it does no more than once.
        Err(Error::AmbiguousCommit { .. }) => store(pool, definitions, replace).await,
        registered => registered,
    };
    registered
        .map_err(explain_missing_schema)
        .map_err(|error| explain_refusal(error, definitions))
}

fn check_watch(definition: &Definition) -> Result<()> {
    for (table, event) in &definition.watch {
        if table.is_empty() || table.contains('\0') {
            return Err(Error::Config(
                "a tag's table to watch has a name".to_owned(),
            ));
        }
        if !["INSERT", "UPDATE", "DELETE"].contains(&event.as_str()) {
            return Err(Error::Config(format!(
                "INSERT, UPDATE and DELETE can be watched, not {event:?}"
            )));
        }
    }
    Ok(())
}

async fn store(pool: &Arc<Pool>, definitions: &[Definition], replace: bool) -> Result<Vec<String>> {
    let mut tx = Transaction::new(pool.clone(), own_plan());
    loop {
        tx.begin().await?;
        let outcome = store_within(&mut tx, definitions, replace, pool.dialect()).await;
        let raised = outcome.as_ref().err().map(|error| Some(error.failure()));
        match (tx.conclude(raised).await?, outcome) {
            (Conclusion::Again, _) => {}
            (_, outcome) => return outcome,
        }
    }
}

async fn store_within(
    tx: &mut Transaction,
    definitions: &[Definition],
    replace: bool,
    dialect: Dialect,
) -> Result<Vec<String>> {
    let names = definitions.iter().map(|definition| &definition.name);
    let stored = tx
        .query(queries::PROCESS_STORED.sql, &[texts(names)])
        .await?;
    // CockroachDB has no triggers with the rows of a statement.
    let watching = dialect == Dialect::PostgreSql;
    let unattended = match watching {
        true => unattended(tx, definitions).await?,
        false => Vec::new(),
    };
    let mut changed: Vec<&Definition> = definitions
        .iter()
        .filter(|wanted| {
            let row = stored
                .iter()
                .find(|row| row.get::<_, &str>("process") == wanted.name);
            unattended.contains(&wanted.name)
                || row.is_none_or(|row| !is_stored(wanted, row, replace, watching))
        })
        .collect();
    // In one order, so that two that register the same do not deadlock.
    changed.sort_by(|one, other| one.name.cmp(&other.name));
    for definition in &changed {
        let backoff = definition.crash_backoff.as_ref();
        let number = |value: Option<f64>| value.map_or(Param::Null, Param::Float);
        let params = [
            Param::Text(definition.name.clone()),
            number(backoff.map(Backoff::initial)),
            number(backoff.and_then(Backoff::maximum)),
            number(backoff.map(Backoff::exponent)),
            number(backoff.map(Backoff::jitter)),
            definition.quarantine_after.map_or(Param::Null, Param::Int),
            Param::Bool(replace),
        ];
        tx.query(queries::PROCESS_REGISTER.sql, &params).await?;
        let params = [
            Param::Text(definition.name.clone()),
            texts(&definition.excludes),
        ];
        if replace {
            tx.query(queries::PROCESS_INCLUDE.sql, &params).await?;
        }
        if !definition.excludes.is_empty() {
            tx.query(queries::PROCESS_EXCLUDE.sql, &params).await?;
        }
    }
    let mut unwatched = Vec::new();
    if watching {
        // After all rows of `processes`, whose order keeps two that register from a deadlock.
        for definition in changed {
            unwatched.extend(watch(tx, definition, replace).await?);
        }
    }
    Ok(unwatched)
}

/// The processes among these that are to be watched and are not, or not all of what they watch.
async fn unattended(tx: &mut Transaction, definitions: &[Definition]) -> Result<Vec<String>> {
    let watching: Vec<&Definition> = definitions
        .iter()
        .filter(|definition| !definition.watch.is_empty())
        .collect();
    if watching.is_empty() {
        return Ok(Vec::new());
    }
    let names = watching.iter().map(|definition| &definition.name);
    let attended = tx
        .query(queries::PROCESS_WATCHED.sql, &[texts(names)])
        .await?;
    Ok(watching
        .into_iter()
        .filter(|wanted| !attended.iter().any(|row| is_watched(row, wanted)))
        .map(|wanted| wanted.name.clone())
        .collect())
}

/// Stores what an eligibility of a process watches, beside what its others do unless `replace`; returns what cannot be watched.
async fn watch(
    tx: &mut Transaction,
    definition: &Definition,
    replace: bool,
) -> Result<Vec<String>> {
    let wanted = &definition.watch;
    let name = Param::Text(definition.name.clone());
    let stored = tx
        .query(queries::PROCESS_WATCHES.sql, std::slice::from_ref(&name))
        .await?;
    if wanted.is_empty() && (!replace || stored.is_empty()) {
        return Ok(Vec::new());
    }
    let params = [
        texts(wanted.iter().map(|(table, _)| table)),
        texts(wanted.iter().map(|(_, event)| event)),
        name,
        Param::Text(definition.watcher.clone()),
        Param::Bool(replace),
    ];
    let unwatched = tx.query(queries::PROCESS_WATCH.sql, &params).await?;
    Ok(unwatched
        .iter()
        .map(|row| {
            format!(
                "process {} hears of no {} on {}, and finds what it changes when it looks by itself: {}",
                definition.name,
                row.get::<_, &str>("change"),
                row.get::<_, &str>("unwatched"),
                row.get::<_, &str>("reason"),
            )
        })
        .collect())
}

/// Whether registering `wanted` would change nothing.
fn is_stored(wanted: &Definition, row: &Row, replace: bool, watching: bool) -> bool {
    let excludes: Vec<String> = row.get("excludes");
    let declared = wanted.excludes.iter().all(|name| excludes.contains(name));
    let crash_backoff = stored_backoff(row);
    let quarantine_after = row.get::<_, Option<i32>>("quarantine_after").map(i64::from);
    let (watchers, changes) = watches(row);
    let watches: Vec<(&String, &(String, String))> = watchers.iter().zip(&changes).collect();
    let watched = !watching
        || wanted
            .watch
            .iter()
            .all(|change| watches.contains(&(&wanted.watcher, change)))
            && (!replace
                || watches.iter().all(|(watcher, change)| {
                    **watcher == wanted.watcher && wanted.watch.contains(change)
                }));
    let kept = |wanted_is_none: bool, same: bool| same || (wanted_is_none && !replace);
    declared
        && watched
        && (!replace || excludes.iter().all(|name| wanted.excludes.contains(name)))
        && kept(
            wanted.crash_backoff.is_none(),
            wanted.crash_backoff == crash_backoff,
        )
        && kept(
            wanted.quarantine_after.is_none(),
            wanted.quarantine_after == quarantine_after,
        )
}

/// Whether a row of `process/watched.sql` says that triggers answer for all that this watches.
fn is_watched(row: &Row, wanted: &Definition) -> bool {
    row.get::<_, &str>("process") == wanted.name
        && row.get::<_, &str>("watcher") == wanted.watcher
        && row.get("watched")
}

fn watches(row: &Row) -> (Vec<String>, Vec<(String, String)>) {
    let tags: Vec<String> = row.get("watched_tags");
    let events: Vec<String> = row.get("watched_events");
    (row.get("watchers"), tags.into_iter().zip(events).collect())
}

/// The crash backoff in a row of `processes`. One that makes no sense, written by hand, counts as none.
pub(crate) fn stored_backoff(row: &Row) -> Option<Backoff> {
    let number = |column: &str| row.get::<_, Option<f64>>(column);
    Backoff::new(
        number("crash_backoff_initial")?,
        number("crash_backoff_maximum"),
        number("crash_backoff_exponent")?,
        number("crash_backoff_jitter")?,
    )
    .ok()
}

fn texts<'a>(names: impl IntoIterator<Item = &'a String>) -> Param {
    Param::Array(names.into_iter().cloned().map(Param::Text).collect())
}

/// Tells a role that may not write the definitions who can do it instead.
fn explain_refusal(error: Error, definitions: &[Definition]) -> Error {
    let Error::Database(mut error) = error else {
        return error;
    };
    if error.sqlstate == sqlstate::INSUFFICIENT_PRIVILEGE {
        let names: Vec<&str> = definitions
            .iter()
            .map(|definition| definition.name.as_str())
            .collect();
        error.message = format!(
            "cannot register process {}: {}; register it once as a role that may write processes and \
             process_exclusion, and this role can work with it",
            names.join(", "),
            error.message
        );
    }
    Error::Database(error)
}
