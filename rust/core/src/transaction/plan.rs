//! What a transaction is to do, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::uuid;
use crate::dialect::Isolation;
use crate::error::{Error, Result, Trace, TransactionId};
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
    /// The same, and the transaction is given this name; one that has been committed under it: refused.
    Keyed {
        /// What its caller calls it.
        key: String,
        /// Made for this call: what is found under the name is ours, or somebody else's.
        call: Uuid,
    },
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
    pub fn opening_statement(&self) -> Option<(Arc<str>, Vec<Param>)> {
        match (&self.opening, &self.session) {
            (Opening::Fence, Some(session)) => Some((
                Arc::from(queries::SESSION_FENCE.sql),
                vec![uuid(session.id())],
            )),
            (Opening::Keyed { key, call }, Some(session)) => {
                let params = vec![
                    uuid(session.id()),
                    Param::Text(key.clone()),
                    uuid(*call),
                    Param::Text(session.component().to_owned()),
                ];
                Some((Arc::from(queries::SESSION_FENCE_KEYED.sql), params))
            }
            (Opening::End { sql, params, .. }, _) => Some((sql.clone(), params.clone())),
            _ => None,
        }
    }

    /// That statement found no row: the session, which is told so, or the lease is gone.
    #[must_use]
    pub fn missing(&self) -> Error {
        match (&self.opening, &self.session) {
            (Opening::Fence | Opening::Keyed { .. }, Some(session)) => {
                session.lose(Loss::Gone);
                session.expired(&session.loss().unwrap_or(Loss::Gone))
            }
            _ => Error::LeaseLost(
                "the lease is gone: it was ended, or its session was given up; nothing was written"
                    .to_owned(),
            ),
        }
    }

    /// That statement found that a transaction of this name has been committed.
    #[must_use]
    pub fn done_before(&self) -> Error {
        let key = match &self.opening {
            Opening::Keyed { key, .. } => key.as_str(),
            _ => "",
        };
        Error::AlreadyCommitted(format!(
            "a transaction with the idempotency key {key:?} has been committed by an earlier call: the callback was not run"
        ))
    }

    /// What the transaction leaves behind when it is committed; `claimed`: what it has leased.
    #[must_use]
    pub fn trace(&self, claimed: Option<&Claimed>) -> Option<Trace> {
        match &self.opening {
            Opening::End { lease, event, .. } => Some(lease.trace(event)),
            Opening::Keyed { key, call } => Some(Trace::Key {
                key: key.clone(),
                call: *call,
            }),
            _ => claimed.map(|claimed| claimed.trace("Started")),
        }
    }

    /// Gives the transaction a name, under which it is committed once only.
    pub fn name(&mut self, key: String) -> Result<()> {
        check_key(&key)?;
        self.opening = Opening::Keyed {
            key,
            call: Uuid::new_v4(),
        };
        self.settles = true;
        Ok(())
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

/// The longest name of a transaction, in bytes.
const LONGEST_KEY: usize = 512;

fn check_key(key: &str) -> Result<()> {
    let problem = if key.is_empty() {
        "is empty".to_owned()
    } else if key.len() > LONGEST_KEY {
        format!("has {} bytes, and {LONGEST_KEY} is the most", key.len())
    } else if key.contains('\0') {
        "contains a NUL character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Value {
        message: format!("the idempotency key {problem}"),
        out_of_range: true,
    })
}

/// The error for a COMMIT whose answer was lost.
pub(crate) fn ambiguous(cause: &str, transaction: &TransactionId) -> Error {
    Error::AmbiguousCommit {
        message: format!(
            "COMMIT was sent and its outcome is not known ({cause}); resolve() asks the server"
        ),
        transaction: Box::new(transaction.clone()),
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
