//! Going back to CockroachDB's savepoint, and what went with BEGIN and has to be done again then.

use std::sync::Arc;

use super::{Opening, Plan, Transaction, until_lost};
use crate::dialect::{self, Dialect};
use crate::error::{Error, Result};
use crate::pool::{Conn, STEP_LIMIT};
use crate::retry::Event;
use crate::value::Param;

impl Transaction {
    /// What goes with BEGIN on this connection.
    pub(super) fn opening_on(conn: &Conn, plan: &Plan) -> Option<(Arc<str>, Vec<Param>)> {
        let (sql, mut params) = plan.opening_statement()?;
        let fenced = matches!(plan.opening, Opening::Fence | Opening::Keyed { .. });
        if fenced && conn.server().dialect == Dialect::CockroachDb {
            params.push(Param::Int(conn.number()));
        }
        Some((sql, params))
    }

    /// After a restart: the fence, or the end of the lease, was undone with all the rest.
    pub(super) async fn open_again(&mut self) -> Result<()> {
        let conn = self.checkout.as_mut().expect("open").conn();
        if let Some((sql, params)) = Self::opening_on(conn, &self.plan) {
            let stop = until_lost(self.plan.session.clone(), Some(self.abandoned.clone()));
            let found = conn
                .query_unless(&sql, &params, stop, Some(STEP_LIMIT))
                .await?;
            match found.first() {
                None => return Err(self.plan.missing()),
                Some(row)
                    if matches!(self.plan.opening, Opening::Keyed { .. })
                        && !row.get::<_, bool>("fresh") =>
                {
                    return Err(self.plan.done_before());
                }
                Some(_) => {}
            }
        }
        self.restarted = false;
        Ok(())
    }

    /// Goes back to the savepoint, for another run.
    pub(super) async fn go_back(&mut self) -> Event {
        let conn = self.checkout.as_mut().expect("open").conn();
        match conn.batch(dialect::RESTART, Some(STEP_LIMIT)).await {
            Ok(()) => {
                self.restarted = true;
                Event::Restarted
            }
            Err(error) => {
                let cause = Box::new(self.take_error());
                self.error = Some(Error::TransactionRestart {
                    cause,
                    restart: Box::new(error),
                });
                Event::RestartFailed
            }
        }
    }
}
