//! What can go wrong, as values that the driver and the border can match on.

use uuid::Uuid;

use crate::retry::Failure;
use crate::sqlstate;
use crate::value::CodecError;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// One failure, told once. The Python border turns each variant into exactly one exception type.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The caller's settings make no sense, or cannot be used here (another process, a closed connection).
    #[error("{0}")]
    Config(String),
    /// A value cannot be converted to what the database expects, or back. `out_of_range` tells a value
    /// that does not fit from a type that does not match.
    #[error("{message}")]
    Value {
        /// What does not fit, and the remedy.
        message: String,
        /// The type matches but the value does not fit into it.
        out_of_range: bool,
    },
    /// No connection could be had, or the one in use broke.
    #[error("{0}")]
    ConnectionFailed(String),
    /// All connections stayed in use for too long.
    #[error("{0}")]
    PoolExhausted(String),
    /// The server answered with an error.
    #[error(transparent)]
    Database(Box<DatabaseError>),
    /// The session is gone: closed, expired, or its row was collected.
    #[error("{0}")]
    SessionExpired(String),
    /// Every machine offered is being worked on under this process already.
    #[error("{0}")]
    WorkConflict(String),
    /// The work has already ended, or the object is used out of turn.
    #[error("{0}")]
    WorkState(String),
    /// The lease's row is gone, so somebody else may hold the machine.
    #[error("{0}")]
    LeaseLost(String),
    /// A transaction of this name has been committed by an earlier call.
    #[error("{0}")]
    AlreadyCommitted(String),
    /// COMMIT was sent and its outcome is not known.
    #[error("{message}")]
    AmbiguousCommit {
        /// What was sent and what is known.
        message: String,
        /// The transaction to ask about.
        transaction: Box<TransactionId>,
    },
    /// The callback was run as often (or for as long) as allowed, and a retryable error stood each time.
    #[error("gave up after {attempts} attempts{}", .last.as_ref().map(|last| format!(": {last}")).unwrap_or_default())]
    RetriesExhausted {
        /// How often the callback ran.
        attempts: u32,
        /// What stopped the last attempt; `None` when it was the callback's own exception.
        last: Option<Box<Error>>,
    },
    /// Rolling back to the restart savepoint failed; both causes are kept.
    #[error("could not restart the transaction: {restart} (restarting because of: {cause})")]
    TransactionRestart {
        /// Why a restart was wanted.
        cause: Box<Error>,
        /// Why it failed.
        restart: Box<Error>,
    },
    /// The schema is missing, too new, or a migration failed.
    #[error("{0}")]
    Migration(String),
    /// A panic of ours, caught. What was being done may have been done.
    #[error("{0}")]
    Panicked(String),
    /// A wait ran past its limit.
    #[error("{0}")]
    TimedOut(String),
    /// A signal interrupted a wait; the border raises what its handler raised.
    #[error("interrupted")]
    Interrupted,
    /// A signal interrupted a commit.
    #[error("interrupted in COMMIT")]
    InterruptedCommit {
        /// Whether the transaction was committed; `None` when that is not known.
        committed: Option<bool>,
    },
}

/// What is needed to ask the server later how a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionId {
    /// `pg_current_xact_id()`, absent where the server has no such function.
    pub xid: Option<u64>,
    /// The WAL timeline on which the id means something.
    pub timeline: Option<u32>,
    /// When the server last recovered from a crash, as far as it tells: since then it may have given the id to another.
    pub incarnation: Option<i64>,
    /// What it leaves behind when it is committed, which tells where the id does not.
    pub trace: Option<Trace>,
    /// Who may still be at it, where it has no id.
    pub unanswered: Vec<Backend>,
    /// Its statement and its COMMIT were sent at once: both may still be on their way.
    pub pipelined: bool,
}

/// What a transaction leaves behind when it is committed, and nobody else does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// An event in the history of one of these leases of a session.
    Leases {
        /// Who holds them.
        session: Uuid,
        /// The first one.
        first: Uuid,
        /// The last one.
        last: Uuid,
        /// What history calls it.
        event: &'static str,
    },
    /// The name that its caller gave it.
    Key {
        /// As given.
        key: String,
        /// Made for the call.
        call: Uuid,
    },
}

/// A process of the server, which numbers them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Its number.
    pub pid: i32,
    /// When it started: a number alone may be given away again.
    pub started: String,
}

/// The fields of a server's ErrorResponse that callers act on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}{}", .detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
pub struct DatabaseError {
    /// Five characters.
    pub sqlstate: String,
    /// FATAL and PANIC end the connection.
    pub fatal: bool,
    /// The primary message.
    pub message: String,
    /// DETAIL.
    pub detail: Option<String>,
    /// HINT.
    pub hint: Option<String>,
    /// The constraint violated, if any.
    pub constraint: Option<String>,
    /// The table concerned, if any.
    pub table: Option<String>,
    /// The server's own routine that raised it; unlike the message it is never translated.
    pub routine: Option<String>,
}

impl Error {
    /// How the retry machine sees this error.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            // A plan prepared before a table changed, or a statement that somebody deallocated: prepared anew it works.
            Error::Database(error)
                if error.routine.as_deref() == Some("RevalidateCachedQuery")
                    || error.sqlstate == sqlstate::INVALID_STATEMENT_NAME =>
            {
                Failure::Retryable
            }
            Error::Database(error) => sqlstate::classify(&error.sqlstate, error.fatal),
            Error::ConnectionFailed(_) | Error::TimedOut(_) => Failure::Disconnected,
            Error::AmbiguousCommit { .. } => Failure::Ambiguous,
            _ => Failure::Permanent,
        }
    }

    /// The SQLSTATE, where the server gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Error::Database(error) => Some(&error.sqlstate),
            _ => None,
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        use std::error::Error as _;
        if let Some(db) = error.as_db_error() {
            let fatal = matches!(
                db.parsed_severity(),
                Some(
                    tokio_postgres::error::Severity::Fatal | tokio_postgres::error::Severity::Panic
                )
            );
            return Error::Database(Box::new(DatabaseError {
                sqlstate: db.code().code().to_owned(),
                fatal,
                message: db.message().to_owned(),
                detail: db.detail().map(str::to_owned),
                hint: db.hint().map(str::to_owned),
                constraint: db.constraint().map(str::to_owned),
                table: db.table().map(str::to_owned),
                routine: db.routine().map(str::to_owned),
            }));
        }
        let mut source = error.source();
        if let Some(codec) = source.and_then(|inner| inner.downcast_ref::<CodecError>()) {
            return Error::from(codec.clone());
        }
        let mut text = error.to_string();
        // The driver refused to send it, so nothing has happened to the connection: the call is at fault.
        if ["expected ", "error encoding message"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            if let Some(cause) = error.source() {
                text = format!("{text}: {cause}");
            }
            return Error::Value {
                message: format!("the statement cannot be sent: {text}"),
                out_of_range: true,
            };
        }
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text.push_str(": ");
                text.push_str(&inner_text);
            }
            source = inner.source();
        }
        Error::ConnectionFailed(text)
    }
}
