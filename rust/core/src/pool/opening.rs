//! Which server a connection may lead to, once it has told what it is.

use std::time::Duration;

use super::conn::Conn;
use crate::config::Config;
use crate::connect::PassedOver;
use crate::drive::Drive;
use crate::error::{Error, Result};

impl Conn {
    /// Connects to a server that may be used, and asks it what it is. Should another primary have taken over since the last
    /// connection, this one judges what of the sessions came along.
    pub async fn open(config: &Config, drive: &Drive, limit: Option<Duration>) -> Result<Conn> {
        let timelines = &config.timelines;
        let hosts = u32::try_from(config.hosts.len()).unwrap_or(u32::MAX);
        // A host that does not answer must leave the others their time.
        let hurried = limit
            .map(|limit| limit / hosts)
            .filter(|share| hosts > 1 && config.connect_timeout.is_none_or(|own| own > *share))
            .map(|share| config.clone().with_connect_timeout(share));
        let config = hurried.as_ref().unwrap_or(config);
        let mut passed_over = PassedOver::default();
        loop {
            let (mut conn, target, number) =
                Self::open_one(config, drive, limit, &passed_over).await?;
            let others = config.hosts.len() > 1;
            let refusal = timelines.refusal(&conn.server, config.primary_wanted, others);
            match refusal {
                None if timelines.admit(&mut conn).await? => {
                    timelines.used(number);
                    return Ok(conn);
                }
                // Judged anew against what has taken over in this very moment.
                None => {}
                Some(reason) => passed_over.add(target, reason),
            }
            conn.close().await;
        }
    }

    /// Through a pooler each transaction may meet another server: asks which one it is now, and judges the sessions if it is a
    /// new primary. Without a pooler it is always the same.
    pub async fn look_again(&mut self) -> Result<()> {
        if self.pooled.is_none() {
            return Ok(());
        }
        self.identify(None).await?;
        let timelines = self.timelines.clone();
        let refusal = timelines.refusal(self.server(), self.primary_wanted, false);
        match refusal {
            None if timelines.admit(self).await? => Ok(()),
            None => Err(Error::ConnectionFailed(
                "another primary has taken over in this very moment".to_owned(),
            )),
            Some(reason) => Err(Error::ConnectionFailed(reason)),
        }
    }

    /// Through a pooler, after the server has told its timeline: refuses one that the sessions have not met, which the next
    /// connection judges, and one of the past.
    pub(super) fn refuse_unmet(&mut self) -> Result<()> {
        let met = self.timelines.highest();
        match self.server().timeline {
            Some(timeline) if self.pooled.is_some() && met > 0 && timeline != met => {
                self.broken = true;
                Err(Error::ConnectionFailed(format!(
                    "the pooler led to another server (timeline {timeline}) than the last one (timeline {met})"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Whether another primary has taken over from the server that this leads to, or it was a standby.
    #[must_use]
    pub fn is_past(&self) -> bool {
        let had_a_primary = self.timelines.highest() > 0;
        self.timelines.is_past(self.server.timeline)
            || self.server.standby && self.primary_wanted && had_a_primary
    }
}
