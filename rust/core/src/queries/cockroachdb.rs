//! The statements as CockroachDB wants them: which differ, and which there are none of.
//!
//! What is not named here is sent as it stands, and keeps to what both understand. The facts that the differences rest on, from
//! CockroachDB's documentation for 22.2 and later:
//!
//! * No statement modifies a table twice ("Statements containing multiple modification subqueries of the same table are
//!   disallowed"), and each statement within WITH has a RETURNING ("WITH clause does not return any columns").
//! * Advisory locks are accepted and do nothing; there is no NOTIFY, LISTEN, ctid, xid8 or `pg_xact_status`, and there are no
//!   triggers before 24.3 and none with the rows of a statement. So there are no hints and no notes on machines that changed: loops
//!   look by themselves.
//! * FOR KEY SHARE locks nothing under SERIALIZABLE, or as FOR SHARE does if a setting says so. So the fence is a row of its own:
//!   see `session/fence.cockroachdb.sql`.
//! * SKIP LOCKED is there from 22.2 on, and not for tables with several column families, which `sessions` has.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::*;
use crate::error::Error;

enum Variant {
    Own(&'static str),
    Never(&'static str),
}

const ITS_OWN: &str = "it is about PostgreSQL's own workings";
const NO_HINTS: &str = "it sends no hints: loops look by themselves";
const NO_NOTES: &str = "it has no triggers that note changed machines: claims look by themselves";

macro_rules! variants {
    ($($query:ident = $file:literal;)* ; $($missing:ident: $why:expr;)*) => {
        static VARIANTS: &[(&Query, Variant)] = &[
            $((&$query, Variant::Own(include_str!(concat!("../../queries/", $file, ".cockroachdb.sql")))),)*
            $((&$missing, Variant::Never($why)),)*
        ];
    };
}

variants! {
    CLAIM_SCAN = "claim/scan";
    CLAIM_VERIFY = "claim/verify";
    COLLECT_BACK_OFF = "collect/back_off";
    COLLECT_LOCK_EXPIRED = "collect/lock_expired";
    COLLECT_LOSE = "collect/lose";
    COLLECT_QUARANTINE = "collect/quarantine";
    PROCESS_DECLARE = "process/declare";
    PROCESS_EXCLUDE = "process/exclude";
    SCHEMA_NOTE = "schema/note";
    SESSION_END = "session/end";
    SESSION_FENCE = "session/fence";
    SESSION_FENCE_KEYED = "session/fence_keyed";
    SESSION_RENEW_UNLOCKED = "session/renew_unlocked";
    WORK_CANCEL = "work/cancel";
    WORK_CLAIM = "work/claim";
    WORK_CLEAR_BACKOFF = "work/clear_backoff";
    WORK_FAIL = "work/fail";
    WORK_FINISH = "work/finish";
    WORK_FORCE_RELEASE = "work/force_release";
    WORK_HISTORY_PRUNE = "work/history_prune";
    WORK_HOLD = "work/hold";
    WORK_RELEASE_HOLD = "work/release_hold";
    WORK_RELEASE_QUARANTINE = "work/release_quarantine";
    WORK_START = "work/start";
    // There are none of these.
    ;
    CLAIM_ATTEND: NO_NOTES;
    COLLECT_BUSY: "collection has priority over whoever is in its way";
    COLLECT_END_STALLED: "collection has priority over whoever is in its way";
    COLLECT_FORGET_ATTENTION: NO_NOTES;
    DOCTOR_BACKEND: ITS_OWN;
    DOCTOR_CLOCK: ITS_OWN;
    DOCTOR_CONNECTIONS: ITS_OWN;
    DOCTOR_HORIZON: ITS_OWN;
    DOCTOR_INDEXES: ITS_OWN;
    DOCTOR_LIMIT: ITS_OWN;
    DOCTOR_PRIVILEGES: ITS_OWN;
    DOCTOR_SETTINGS: ITS_OWN;
    DOCTOR_STANDBYS: ITS_OWN;
    DOCTOR_STANDING: ITS_OWN;
    DOCTOR_TABLES: ITS_OWN;
    DOCTOR_TLS: ITS_OWN;
    DOCTOR_TRIGGERS: ITS_OWN;
    DOCTOR_WRITE: ITS_OWN;
    PROCESS_WATCH: NO_NOTES;
    PROCESS_WATCHED: NO_NOTES;
    PROCESS_WATCHING: NO_NOTES;
    SCHEMA_LOCK: "its advisory locks do nothing";
    SERVER_CURRENT_TRANSACTION: "its transactions have no ids";
    SERVER_DATABASE: "connections and engines of yours are not supported there; bmdb.psycopg.run_transaction is";
    SERVER_END_UNFINISHED: ITS_OWN;
    SERVER_IDENTITY: ITS_OWN;
    SERVER_LINEAGE: ITS_OWN;
    SERVER_RETIRE: ITS_OWN;
    SERVER_TRANSACTION_STATUS: "its transactions have no ids";
    SESSION_BLOCKER: ITS_OWN;
    WORK_HISTORY_AHEAD: "history is one table there";
    WORK_LISTEN: NO_HINTS;
    WORK_NOTIFY: NO_HINTS;
}

static BY_TEXT: LazyLock<HashMap<&'static str, (&'static str, &'static Variant)>> =
    LazyLock::new(|| {
        let of = |(query, variant): &'static (&'static Query, Variant)| {
            (query.sql, (query.name, variant))
        };
        VARIANTS.iter().map(of).collect()
    });

/// A statement of ours by its text for PostgreSQL, or any other text, as CockroachDB wants it.
pub fn spoken(sql: &str) -> Result<&str> {
    match BY_TEXT.get(sql) {
        None => Ok(sql),
        Some((_, Variant::Own(text))) => Ok(text),
        Some((name, Variant::Never(why))) => Err(Error::Config(format!(
            "{name} is not to be had on CockroachDB: {why}"
        ))),
    }
}

/// The text of a statement for CockroachDB.
pub(super) fn text(query: &'static Query) -> Result<&'static str> {
    spoken(query.sql)
}

#[cfg(test)]
mod tests;
