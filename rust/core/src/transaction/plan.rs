//! What a transaction is to do, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use crate::dialect::Isolation;
use crate::gate::Gate;
use crate::queries::Query;
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
        query: &'static Query,
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
