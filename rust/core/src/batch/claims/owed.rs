//! What claims owe: leases of which nobody knows, and leases that nobody waits for any more.

use std::sync::Arc;
use std::time::Duration;

use super::super::retire::{retired, unknown};
use super::{Claims, Unsettled, lock};
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::queries;
use crate::settle::claim_trace;
use crate::transaction::uuid;
use crate::value::Param;
use crate::work::{Ending, WorkLease, ending_params};

/// Through a pooler, how long to wait for a claim whose answer was lost, before it is tried again.
const AWAITED: Duration = Duration::from_millis(500);
/// And for how long to look with each later claim, to give back what has turned up. No pooler keeps a transaction for so long.
const LOOKED_FOR: Duration = Duration::from_secs(60);

impl Claims {
    /// What a claim has leased whose answer was lost.
    pub(super) async fn settle(
        &self,
        unsettled: &Unsettled,
        cause: &Error,
    ) -> Result<Vec<Arc<WorkLease>>> {
        let pooled = self.has_no_numbers();
        let limit = self.session.trusted_for().max(Duration::from_secs(2));
        // Such a backend has no number to be told by. What is found is the whole claim; what is not may still come.
        if !pooled && !retired(&self.pool, &unsettled.server, limit).await? {
            let trace = claim_trace(self.session.id(), unsettled.claim);
            return Err(unknown(cause, trace, std::iter::once(&unsettled.server)));
        }
        let params = [
            uuid(self.session.id()),
            Param::Text(self.process.clone()),
            uuid(unsettled.claim),
        ];
        let mut pause = Duration::from_millis(5);
        loop {
            let rows = {
                let mut checkout = self.pool.checkout().await?;
                let asked = checkout.conn().query(queries::CLAIM_LEASED.sql, &params);
                asked.await?
            };
            if !rows.is_empty() || !pooled || unsettled.since.elapsed() > AWAITED {
                return Ok(self.leases(&rows));
            }
            self.pool.drive().sleep(pause).await?;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Backends of a pooler and of CockroachDB have no number by which to see that one is over.
    fn has_no_numbers(&self) -> bool {
        self.pool.config().pooler.is_some() || self.pool.dialect() == Dialect::CockroachDb
    }

    /// Whether a look that finds nothing says that there will never be anything.
    pub(super) fn is_final(&self, unsettled: &Unsettled) -> bool {
        !self.has_no_numbers() || unsettled.since.elapsed() > LOOKED_FOR
    }

    /// What cannot be found out now is tried again later, and goes with the session at the latest.
    pub(super) async fn settle_left_over(&self) -> Result<()> {
        let left_over = std::mem::take(&mut *lock(&self.unsettled));
        for unsettled in left_over {
            match self.settle(&unsettled, &Error::Interrupted).await {
                Ok(leases) if leases.is_empty() && !self.is_final(&unsettled) => {
                    lock(&self.unsettled).push(unsettled);
                }
                Ok(leases) => lock(&self.spare).extend(leases),
                Err(error) => {
                    lock(&self.unsettled).push(unsettled);
                    if matches!(error, Error::Interrupted) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Cancels leases whose callers are gone.
    pub async fn give_back(&self) -> Result<()> {
        let spare = std::mem::take(&mut *lock(&self.spare));
        let mut ends = Vec::with_capacity(spare.len());
        for lease in &spare {
            if let Ok(mut end) = lease.end(Ending::Cancel)
                && end.begin().is_ok()
            {
                ends.push(end);
            }
        }
        if ends.is_empty() {
            return Ok(());
        }
        let given: Vec<(&WorkLease, &Ending)> = ends
            .iter()
            .map(|end| (end.work().as_ref(), end.ending()))
            .collect();
        let params = ending_params(&given, &[], false, false);
        let canceled = async {
            let mut checkout = self.pool.checkout().await?;
            let conn = checkout.conn();
            conn.plain().await?;
            conn.query(queries::WORK_CANCEL.sql, &params).await
        };
        match canceled.await {
            Ok(_) => ends.iter_mut().for_each(crate::work::End::done),
            // Tried again with the next claim; they go with the session at the latest.
            Err(error) => {
                ends.iter_mut().for_each(|end| end.failed(&error));
                lock(&self.spare).extend(spare);
            }
        }
        Ok(())
    }
}
