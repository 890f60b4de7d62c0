//! Which server a connection may lead to, once it has told what it is.

use std::time::Duration;

use super::conn::Conn;
use crate::config::Config;
use crate::connect::PassedOver;
use crate::dialect::Dialect;
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::queries;

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

    /// In the simple protocol, which takes one trip for each question where preparing takes two.
    pub(super) async fn identify(&mut self, promised: Option<i32>) -> Result<()> {
        let banner = self.ask("SELECT version() AS version").await?;
        self.server.banner = banner
            .as_ref()
            .and_then(|row| row.get("version"))
            .unwrap_or_default()
            .to_owned();
        self.server.dialect = Dialect::from_version(&self.server.banner);
        self.check_spoken()?;
        if self.server.dialect == Dialect::PostgreSql
            && let Some(row) = self.ask(queries::SERVER_IDENTITY.sql).await?
        {
            let timeline = row.get("timeline");
            self.server.timeline = timeline.and_then(|text| u32::from_str_radix(text, 16).ok());
            self.server.standby = row.get("standby") == Some("t");
            self.server.incarnation = row.get("incarnation").and_then(|text| text.parse().ok());
            self.server.pid = row.get("pid").and_then(|text| text.parse().ok());
            self.server.started = row.get("started").map(str::to_owned);
            self.behind = promised.is_some() && promised != self.server.pid;
            if self.pooled.is_some() {
                // It serves this question; the next one may be another's.
                (self.server.pid, self.server.started) = (None, None);
            }
        }
        Ok(())
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
