//! What a transaction is to do, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use super::uuid;
use crate::dialect::{Dialect, Isolation};
use crate::error::{Error, TransactionId};
use crate::gate::Gate;
use crate::lease::Loss;
use crate::pool::STEP_LIMIT;
use crate::queries;
use crate::retry::Limits;
use crate::session::SessionState;
use crate::settle::Claimed;
use crate::value::Param;

/// What is sent together with BEGIN, and what it means when it finds no row.
#[derive(Clone)]
pub enum Opening {
    /// Nothing: the transaction is not fenced. Only for statements of our own.
    Nothing,
    /// The session's row is checked and locked; no row: the session is lost.
    Fence,
    /// The lease is ended by deleting its row; no row: the lease is lost.
    End {
        /// The statement; its first column is the transaction's id.
        sql: Arc<str>,
        /// Its parameters.
        params: Vec<Param>,
        /// The lease it ends, to settle a lost commit by.
        lease: Claimed,
        /// The event that it writes to history.
        event: &'static str,
    },
}

/// How to run a transaction.
#[derive(Clone)]
pub struct Plan {
    /// How strictly it is kept apart from others.
    pub isolation: Isolation,
    /// When to give up.
    pub limits: Limits,
    /// How long one statement may take; without a limit the session's trust is one.
    pub statement_limit: Option<Duration>,
    /// Whose trust it depends on.
    pub session: Option<Arc<SessionState>>,
    /// What goes with BEGIN.
    pub opening: Opening,
    /// Whether a lost commit is settled here rather than reported.
    pub settles: bool,
    /// The gate that a claim passes through.
    pub gate: Option<Arc<Gate>>,
}

impl Plan {
    /// The statement that goes with BEGIN, and its parameters. Its first column is the transaction's id.
    #[must_use]
    pub fn opening_statement(&self, dialect: Dialect) -> Option<(Arc<str>, Vec<Param>)> {
        match (&self.opening, &self.session) {
            (Opening::Fence, Some(session)) => {
                let query = match dialect {
                    Dialect::PostgreSql => &queries::SESSION_FENCE,
                    Dialect::CockroachDb => &queries::SESSION_FENCE_PLAIN,
                };
                Some((Arc::from(query.sql), vec![uuid(session.id())]))
            }
            (Opening::End { sql, params, .. }, _) => Some((sql.clone(), params.clone())),
            _ => None,
        }
    }

    /// That statement found no row: the session, which is told so, or the lease is gone.
    #[must_use]
    pub fn missing(&self) -> Error {
        match (&self.opening, &self.session) {
            (Opening::Fence, Some(session)) => {
                session.lose(Loss::Gone);
                session.expired(&session.loss().unwrap_or(Loss::Gone))
            }
            _ => Error::LeaseLost(
                "the lease is gone: it was ended, or its session was given up; nothing was written"
                    .to_owned(),
            ),
        }
    }

    /// How long to ask what a lost commit came to: a lease is only worth that while it can be trusted, and a little
    /// longer lets the server recover.
    #[must_use]
    pub fn settle_limit(&self) -> Duration {
        self.session
            .as_ref()
            .map_or(STEP_LIMIT, |session| session.trusted_for())
            .max(Duration::from_secs(2))
    }
}

/// The error for a COMMIT whose answer was lost.
pub(crate) fn ambiguous(cause: &str, transaction: &TransactionId) -> Error {
    Error::AmbiguousCommit {
        message: format!(
            "COMMIT was sent and its outcome is not known ({cause}); resolve() asks the server"
        ),
        transaction: transaction.clone(),
    }
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// It is committed.
    Committed,
    /// Nothing is; begin and run the callback again.
    Again,
    /// Nothing is; the callback's own exception surfaces.
    Raise,
}
