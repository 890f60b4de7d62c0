//! Every statement of our own, by name.
//!
//! One statement a file: `queries/session/poke.sql` is [`SESSION_POKE`], named `session_poke`. The texts are written for
//! PostgreSQL. Where CockroachDB wants another one it stands beside it, as `queries/work/claim.cockroachdb.sql`, and
//! [`cockroachdb`] says which these are, and which statements cannot be had there.

pub mod cockroachdb;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::dialect::Dialect;
use crate::error::Result;

/// What a statement answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// No rows: only the number of rows it affected matters.
    None,
    /// One row, or none.
    One,
    /// Any number of rows.
    Many,
}

/// A statement that this crate knows.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// Folder and file: `session_poke`.
    pub name: &'static str,
    /// The text of the file, with parameters `$1`, `$2` and so on.
    pub sql: &'static str,
    /// What it answers with.
    pub rows: Rows,
}

impl Query {
    /// The text as this server understands it; an error where it has nothing of the kind.
    pub fn text(&'static self, dialect: Dialect) -> Result<&'static str> {
        match dialect {
            Dialect::PostgreSql => Ok(self.sql),
            Dialect::CockroachDb => cockroachdb::text(self),
        }
    }
}

/// Declares a static for each file under `queries/`, and [`ALL`].
macro_rules! queries {
    ($($constant:ident = $folder:literal, $file:literal, $rows:ident;)*) => {
        $(
            #[doc = concat!("`queries/", $folder, "/", $file, ".sql`")]
            pub static $constant: Query = Query {
                name: concat!($folder, "_", $file),
                sql: include_str!(concat!("../queries/", $folder, "/", $file, ".sql")),
                rows: Rows::$rows,
            };
        )*

        /// All statements, in the order of their declaration.
        pub static ALL: &[&Query] = &[$(&$constant),*];
    };
}

queries! {
    AGENT_AUTHENTICATE = "agent", "authenticate", One;
    AGENT_OS_INSTALLATION_OF = "agent", "os_installation_of", One;
    CLAIM_ATTEND = "claim", "attend", One;
    CLAIM_LEASED = "claim", "leased", Many;
    CLAIM_SCAN = "claim", "scan", None;
    CLAIM_VERIFY = "claim", "verify", Many;
    CLAIM_WINDOW_END = "claim", "window_end", One;
    COLLECT_BACK_OFF = "collect", "back_off", None;
    COLLECT_BUSY = "collect", "busy", Many;
    COLLECT_END_STALLED = "collect", "end_stalled", One;
    COLLECT_FORGET_ATTENTION = "collect", "forget_attention", None;
    COLLECT_LOCK_EXPIRED = "collect", "lock_expired", Many;
    COLLECT_LOSE = "collect", "lose", Many;
    COLLECT_OUTLOOK = "collect", "outlook", One;
    COLLECT_QUARANTINE = "collect", "quarantine", None;
    COMPLETION_MACHINES = "completion", "machines", Many;
    COMPLETION_SESSIONS = "completion", "sessions", Many;
    DOCTOR_BACKEND = "doctor", "backend", One;
    DOCTOR_CLOCK = "doctor", "clock", One;
    DOCTOR_CONNECTIONS = "doctor", "connections", One;
    DOCTOR_HORIZON = "doctor", "horizon", Many;
    DOCTOR_INDEXES = "doctor", "indexes", Many;
    DOCTOR_LIMIT = "doctor", "limit", One;
    DOCTOR_PRIVILEGES = "doctor", "privileges", Many;
    DOCTOR_SETTINGS = "doctor", "settings", Many;
    DOCTOR_STANDBYS = "doctor", "standbys", Many;
    DOCTOR_STANDING = "doctor", "standing", One;
    DOCTOR_TABLES = "doctor", "tables", Many;
    DOCTOR_TLS = "doctor", "tls", One;
    DOCTOR_TRIGGERS = "doctor", "triggers", Many;
    DOCTOR_WRITE = "doctor", "write", One;
    EXPLAIN_BACKLOG = "explain", "backlog", One;
    EXPLAIN_FACTS = "explain", "facts", Many;
    EXPLAIN_PLACE = "explain", "place", One;
    MACHINE_ADD_PROVIDED = "machine", "add_provided", None;
    MACHINE_BY_ID = "machine", "by_id", One;
    MACHINE_DELETE_AGENT_HEARTBEAT = "machine", "delete_agent_heartbeat", None;
    MACHINE_DELETE_AGENT_STARTED = "machine", "delete_agent_started", None;
    MACHINE_DELETE_HARDWARE_REPORT = "machine", "delete_hardware_report", None;
    MACHINE_DELETE_OS_INSTALLATION_REPORT = "machine", "delete_os_installation_report", None;
    MACHINE_DELETE_OS_INSTALLATION_REQUEST = "machine", "delete_os_installation_request", None;
    MACHINE_DELETE_PROVIDED = "machine", "delete_provided", None;
    MACHINE_LIST = "machine", "list", Many;
    MACHINE_NEW = "machine", "new", One;
    MACHINE_PROVIDED = "machine", "provided", Many;
    MACHINE_SET_AGENT_HEARTBEAT = "machine", "set_agent_heartbeat", None;
    MACHINE_SET_AGENT_STARTED = "machine", "set_agent_started", None;
    MACHINE_SET_HARDWARE_REPORT = "machine", "set_hardware_report", None;
    MACHINE_SET_OS_INSTALLATION_REPORT = "machine", "set_os_installation_report", None;
    MACHINE_SET_OS_INSTALLATION_REQUEST = "machine", "set_os_installation_request", None;
    MACHINE_UPDATE_PROVIDER_STATUS = "machine", "update_provider_status", None;
    PROCESS_DECLARE = "process", "declare", None;
    PROCESS_DECLARED = "process", "declared", Many;
    OVERVIEW_BACKOFFS = "overview", "backoffs", Many;
    OVERVIEW_COLLECTION = "overview", "collection", One;
    OVERVIEW_EVENTS = "overview", "events", Many;
    OVERVIEW_LEASES = "overview", "leases", Many;
    OVERVIEW_MACHINES = "overview", "machines", One;
    OVERVIEW_SESSIONS = "overview", "sessions", Many;
    PROCESS_EXCLUDE = "process", "exclude", None;
    PROCESS_INCLUDE = "process", "include", None;
    PROCESS_INTRODUCE = "process", "introduce", None;
    PROCESS_KNOWN = "process", "known", Many;
    PROCESS_LIST = "process", "list", Many;
    PROCESS_POLLED = "process", "polled", None;
    PROCESS_REGISTER = "process", "register", None;
    PROCESS_STORED = "process", "stored", Many;
    PROCESS_WATCH = "process", "watch", Many;
    PROCESS_WATCHED = "process", "watched", Many;
    PROCESS_WATCHES = "process", "watches", Many;
    PROCESS_WATCHING = "process", "watching", None;
    SCHEMA_CREATE = "schema", "create", None;
    SCHEMA_FORGET = "schema", "forget", None;
    SCHEMA_LOCK = "schema", "lock", One;
    SCHEMA_NOTE = "schema", "note", None;
    SCHEMA_PRESENT = "schema", "present", One;
    SCHEMA_VERSION = "schema", "version", One;
    SERVER_CURRENT_TRANSACTION = "server", "current_transaction", One;
    SERVER_DATABASE = "server", "database", One;
    SERVER_ENCODING = "server", "encoding", One;
    SERVER_END_UNFINISHED = "server", "end_unfinished", One;
    SERVER_IDENTITY = "server", "identity", One;
    SERVER_LINEAGE = "server", "lineage", One;
    SERVER_LOOKED_UP = "server", "looked_up", Many;
    SERVER_RETIRE = "server", "retire", Many;
    SERVER_TRANSACTION_STATUS = "server", "transaction_status", One;
    SESSION_BLOCKER = "session", "blocker", One;
    SESSION_BY_ID = "session", "by_id", One;
    SESSION_CHECK = "session", "check", One;
    SESSION_DEADLINE = "session", "deadline", One;
    SESSION_DELETE = "session", "delete", None;
    SESSION_END = "session", "end", One;
    SESSION_FENCE = "session", "fence", One;
    SESSION_FENCE_KEYED = "session", "fence_keyed", One;
    SESSION_FORGOTTEN = "session", "forgotten", One;
    SESSION_LIST = "session", "list", Many;
    SESSION_LIVE = "session", "live", Many;
    SESSION_LOCK = "session", "lock", One;
    SESSION_POKE = "session", "poke", None;
    SESSION_RENEW = "session", "renew", Many;
    SESSION_RENEW_UNLOCKED = "session", "renew_unlocked", Many;
    SESSION_START = "session", "start", None;
    STATISTICS_COLLECTION_LAG = "statistics", "collection_lag", One;
    STATISTICS_COUNT_ACTIVE_BACKOFFS = "statistics", "count_active_backoffs", Many;
    STATISTICS_COUNT_ACTIVE_WORK = "statistics", "count_active_work", Many;
    STATISTICS_COUNT_HEARTBEATING = "statistics", "count_heartbeating", One;
    STATISTICS_COUNT_HOLDS = "statistics", "count_holds", Many;
    STATISTICS_COUNT_INSTALLED = "statistics", "count_installed", One;
    STATISTICS_COUNT_MACHINES = "statistics", "count_machines", One;
    STATISTICS_COUNT_PENDING_AGENT_RECOVERY = "statistics", "count_pending_agent_recovery", One;
    STATISTICS_COUNT_PENDING_AGENT_START = "statistics", "count_pending_agent_start", One;
    STATISTICS_COUNT_PENDING_INSTALLATION = "statistics", "count_pending_installation", One;
    STATISTICS_COUNT_PROVIDED = "statistics", "count_provided", One;
    STATISTICS_COUNT_QUARANTINES = "statistics", "count_quarantines", Many;
    STATISTICS_COUNT_SESSIONS = "statistics", "count_sessions", Many;
    STATISTICS_MACHINE_HARDWARE = "statistics", "machine_hardware", Many;
    TAG_REFLECT = "tag", "reflect", Many;
    TRANSACTION_FORGET = "transaction", "forget", None;
    TRANSACTION_MARKED = "transaction", "marked", One;
    WEB_MACHINES_STATES = "web", "machines_states", Many;
    WEB_MACHINE_BACKOFFS = "web", "machine_backoffs", Many;
    WEB_MACHINE_HISTORY = "web", "machine_history", Many;
    WEB_MACHINE_QUARANTINES = "web", "machine_quarantines", Many;
    WEB_MACHINE_WORK = "web", "machine_work", Many;
    WEB_PROCESS_CAUSES = "web", "process_causes", Many;
    WEB_PROCESS_NUMBERS = "web", "process_numbers", Many;
    WEB_PROCESS_THROUGHPUT = "web", "process_throughput", Many;
    WEB_SESSION_HISTORY = "web", "session_history", Many;
    WEB_SESSION_LEASES = "web", "session_leases", Many;
    WORK_BACKOFFS = "work", "backoffs", Many;
    WORK_BACKOFF_LIST = "work", "backoff_list", Many;
    WORK_BACKOFF_OF = "work", "backoff_of", One;
    WORK_CANCEL = "work", "cancel", One;
    WORK_CLAIM = "work", "claim", One;
    WORK_CLEAR_BACKOFF = "work", "clear_backoff", One;
    WORK_DELETE_BACKOFF = "work", "delete_backoff", None;
    WORK_FAIL = "work", "fail", One;
    WORK_FINISH = "work", "finish", One;
    WORK_FORCE_RELEASE = "work", "force_release", One;
    WORK_HISTORY_AHEAD = "work", "history_ahead", One;
    WORK_HISTORY_LATEST = "work", "history_latest", Many;
    WORK_HISTORY_OF = "work", "history_of", Many;
    WORK_HISTORY_OLDER = "work", "history_older", One;
    WORK_HISTORY_PRUNE = "work", "history_prune", One;
    WORK_HOLD = "work", "hold", None;
    WORK_HOLDS = "work", "holds", Many;
    WORK_INSERT_BACKOFF = "work", "insert_backoff", None;
    WORK_INSERT_HISTORY = "work", "insert_history", None;
    WORK_LEASES = "work", "leases", Many;
    WORK_LIST = "work", "list", Many;
    WORK_LISTEN = "work", "listen", None;
    WORK_NOTIFY = "work", "notify", None;
    WORK_LOSS_OF = "work", "loss_of", One;
    WORK_QUARANTINES = "work", "quarantines", Many;
    WORK_RELEASE_HOLD = "work", "release_hold", None;
    WORK_RELEASE_QUARANTINE = "work", "release_quarantine", None;
    WORK_RELEASE = "work", "release", None;
    WORK_SETTLED = "work", "settled", Many;
    WORK_START = "work", "start", One;
    WORK_RECORDED = "work", "recorded", One;
    WORK_UNKNOWN = "work", "unknown", One;
    WORKFLOW_AGENT_RECOVERY = "workflow", "agent_recovery", Many;
    WORKFLOW_AGENT_START = "workflow", "agent_start", Many;
}

static BY_NAME: LazyLock<HashMap<&'static str, &'static Query>> =
    LazyLock::new(|| ALL.iter().map(|query| (query.name, *query)).collect());

/// The statement of this name, such as `session_poke`.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Query> {
    BY_NAME.get(name).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// `folder_file` of every file under `queries/`.
    fn files() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
        let mut names = BTreeSet::new();
        for folder in fs::read_dir(root).unwrap().map(std::result::Result::unwrap) {
            for file in fs::read_dir(folder.path())
                .unwrap()
                .map(std::result::Result::unwrap)
            {
                let path = file.path();
                assert_eq!(path.extension().unwrap(), "sql", "{path:?} is no statement");
                if path.to_str().unwrap().ends_with(".cockroachdb.sql") {
                    continue;
                }
                names.insert(format!(
                    "{}_{}",
                    folder.file_name().to_str().unwrap(),
                    path.file_stem().unwrap().to_str().unwrap()
                ));
            }
        }
        names
    }

    #[test]
    fn every_file_is_registered_once_and_nothing_else() {
        let registered: BTreeSet<String> = ALL.iter().map(|query| query.name.to_owned()).collect();
        assert_eq!(registered, files());
        assert_eq!(registered.len(), ALL.len());
    }

    #[test]
    fn every_name_is_found() {
        for query in ALL {
            assert_eq!(by_name(query.name), Some(*query));
        }
        assert_eq!(by_name("session"), None);
        assert_eq!(by_name(""), None);
    }

    #[test]
    fn every_file_is_one_statement() {
        for query in ALL {
            let code: String = query
                .sql
                .lines()
                .filter(|line| !line.trim_start().starts_with("--"))
                .collect();
            let statement = code.trim_end().strip_suffix(';').unwrap_or(code.trim_end());
            assert!(!statement.trim().is_empty(), "{}: no statement", query.name);
            assert!(
                !statement.contains(';'),
                "{}: more than one statement",
                query.name
            );
        }
    }
}
