//! Statements as a connection runs them: prepared by name, or unnamed where a pooler may stand in between.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, SimpleQueryMessage, Statement};

use super::STEP_LIMIT;
use super::conn::{Answer, Conn, borrowed, unless};
use crate::dialect::{Dialect, ROLLBACK};
use crate::error::{Error, Result};
use crate::pooler::{self, Pooler, Signature};
use crate::queries;
use crate::sqlstate;
use crate::value::Param;

/// How often to try another name while statements of other clients occupy those of the driver.
const NAMES_TRIED: u32 = 100;

/// What a connection through a pooler keeps.
pub(super) struct Pooled {
    pub(super) pooler: Pooler,
    /// What each transaction is set to, after its BEGIN.
    local: String,
    /// What a statement that runs by itself begins with.
    pub(super) begin: String,
    /// The driver has looked up types in this transaction, by statements with names, which must not stay on this backend.
    pub(super) looked_up: bool,
    /// Statements whose columns' types this connection has looked up. It must do so before they run: afterwards their own error
    /// would have aborted the transaction, and that of the looking would hide it.
    described: HashSet<String>,
}

impl Pooled {
    pub(super) fn new(pooler: Pooler, settings: &str) -> Self {
        let local = pooler::local(settings);
        let access = match settings.contains("default_transaction_read_only = on") {
            true => "READ ONLY",
            false => "READ WRITE",
        };
        Pooled {
            begin: format!("BEGIN ISOLATION LEVEL READ COMMITTED {access}{local}"),
            pooler,
            local,
            looked_up: false,
            described: HashSet::new(),
        }
    }
}

/// A statement, ready to be sent with its values.
pub(super) enum Ready {
    /// Prepared on this connection.
    Named(Statement),
    /// To be sent with text, types and values.
    Unnamed(Arc<[Type]>),
}

impl Ready {
    /// Refuses another number of values than it takes, in the driver's words for a prepared one.
    pub(super) fn check(&self, params: &[Param]) -> Result<()> {
        match self {
            Ready::Unnamed(types) if types.len() != params.len() => Err(Error::Value {
                message: format!(
                    "the statement cannot be sent: expected {} parameters but got {}",
                    types.len(),
                    params.len()
                ),
                out_of_range: true,
            }),
            _ => Ok(()),
        }
    }

    pub(super) async fn rows(
        &self,
        client: &Client,
        sql: &str,
        params: &[Param],
    ) -> Answer<Vec<Row>> {
        match self {
            Ready::Named(statement) => client.query(statement, &borrowed(params)).await,
            Ready::Unnamed(types) => Box::pin(client.query_typed(sql, &typed(params, types))).await,
        }
    }

    pub(super) async fn count(&self, client: &Client, sql: &str, params: &[Param]) -> Answer<u64> {
        match self {
            Ready::Named(statement) => client.execute(statement, &borrowed(params)).await,
            Ready::Unnamed(types) => {
                Box::pin(client.execute_typed(sql, &typed(params, types))).await
            }
        }
    }
}

fn typed<'a>(params: &'a [Param], types: &[Type]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    borrowed(params)
        .into_iter()
        .zip(types.iter().cloned())
        .collect()
}

fn is_foreign(ty: &Type) -> bool {
    Type::from_oid(ty.oid()).is_none()
}

impl Conn {
    /// Settings for all that follows: of the session, or of each transaction where a pooler may give it another backend.
    pub async fn set(&mut self, settings: &str) -> Result<()> {
        match &mut self.pooled {
            Some(pooled) => {
                *pooled = Pooled::new(pooled.pooler.clone(), settings);
                Ok(())
            }
            None => self.batch(settings, Some(STEP_LIMIT)).await,
        }
    }

    /// The text that begins a transaction here.
    pub(super) fn beginning(&self, begin: &str) -> String {
        match &self.pooled {
            Some(pooled) => format!("{begin}{}", pooled.local),
            None => begin.to_owned(),
        }
    }

    /// True where what is said outside a transaction has to be made one, which then says its isolation by itself.
    pub(super) fn runs_alone(&self) -> bool {
        self.pooled.is_some() && !self.in_transaction
    }

    /// Runs one statement as a transaction of its own, in one trip.
    pub(super) async fn alone<S>(
        &mut self,
        sql: &str,
        params: &[Param],
        stop: S,
        limit: Option<Duration>,
    ) -> Result<Vec<Row>>
    where
        S: Future<Output = Error>,
    {
        let begin = self.pooled.as_ref().map(|pooled| pooled.begin.clone());
        let (_, rows) = self
            .transaction(
                &begin.unwrap_or_default(),
                None,
                (sql, params),
                "COMMIT",
                stop,
                limit.unwrap_or(STEP_LIMIT),
            )
            .await?;
        Ok(rows)
    }

    /// What the statement takes and gives, asked of the server unless it is known. In a transaction, so that one backend hears the
    /// question and the goodbye to its name.
    pub(super) async fn learn<S>(
        &mut self,
        sql: &str,
        stop: S,
        limit: Option<Duration>,
    ) -> Result<Signature>
    where
        S: Future<Output = Error>,
    {
        let (pooler, described) = match &self.pooled {
            Some(pooled) => (pooled.pooler.clone(), pooled.described.contains(sql)),
            None => (Pooler::default(), false),
        };
        if let Some(known) = pooler.known(sql)
            && (described || !known.foreign_columns)
        {
            return Ok(known);
        }
        let mut stop = pin!(stop);
        let within = self.in_transaction;
        let mut tried = 0;
        let statement = loop {
            let begin = async {
                match within {
                    true => Ok(()),
                    false => self.client.batch_execute("BEGIN").await,
                }
            };
            let both = async { tokio::join!(biased; begin, self.client.prepare(sql)) };
            let outcome = self
                .io(limit, sql, unless(both, stop.as_mut()))
                .await
                .flatten();
            self.in_transaction = true;
            let (begun, prepared) = self.abandon_on_stop(outcome).await?;
            self.checked(begun)?;
            let prepared = self.checked(prepared);
            if prepared.is_err() && !within && !self.broken {
                self.batch(ROLLBACK, Some(STEP_LIMIT)).await?;
                self.in_transaction = false;
            }
            match prepared {
                Err(error) if error.sqlstate() == Some(sqlstate::DUPLICATE_STATEMENT) => {
                    tried += 1;
                    if within || tried > NAMES_TRIED {
                        // The transaction is aborted, and another attempt has another name.
                        self.broken = true;
                        let text = "a statement of another client's stands in the way at the pooler's server";
                        return Err(Error::ConnectionFailed(format!("{text} ({error})")));
                    }
                }
                prepared => break prepared?,
            }
        };
        let signature = Signature {
            params: statement.params().into(),
            foreign_columns: statement
                .columns()
                .iter()
                .any(|column| is_foreign(column.type_())),
        };
        // Takes the name from the backend: that is sent before anything else.
        drop(statement);
        let looked_up = signature.foreign_columns || signature.params.iter().any(is_foreign);
        if let Some(pooled) = self.pooled.as_mut().filter(|_| looked_up) {
            pooled.looked_up = true;
            pooled.described.insert(sql.to_owned());
        }
        if !within {
            self.forget_lookups().await?;
            self.batch(ROLLBACK, Some(STEP_LIMIT)).await?;
            self.in_transaction = false;
        }
        pooler.learn(sql, signature.clone());
        Ok(signature)
    }

    /// True when a ROLLBACK would leave statements behind that only the end of the connection takes away.
    #[must_use]
    pub fn leaves_statements(&self) -> bool {
        self.pooled.as_ref().is_some_and(|pooled| pooled.looked_up)
    }

    /// Before COMMIT: takes the statements from the backend by which the driver has looked up types. It believes that they are
    /// there still, so this connection is not used again.
    pub async fn forget_lookups(&mut self) -> Result<()> {
        if !self.leaves_statements() {
            return Ok(());
        }
        self.altered = true;
        let looking = self.client.simple_query(queries::SERVER_LOOKED_UP.sql);
        let outcome = self
            .io(Some(STEP_LIMIT), "looking for statements", looking)
            .await;
        let messages = self.answered(outcome).await?;
        let names: Vec<String> = messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(|name| format!("DEALLOCATE {name}")),
                _ => None,
            })
            .collect();
        if !names.is_empty() {
            self.batch(&names.join("; "), Some(STEP_LIMIT)).await?;
        }
        if let Some(pooled) = &mut self.pooled {
            pooled.looked_up = false;
        }
        Ok(())
    }

    /// After a statement: what it gave may have been looked up, and an error may mean that what is known of it no longer holds.
    pub(super) fn take_note<T>(&mut self, sql: &str, outcome: &Result<T>) {
        let Some(pooled) = &self.pooled else { return };
        if let Err(error) = outcome {
            let stale = match error {
                Error::Value { .. } => true,
                Error::Database(db) => ["42", "22", "08"]
                    .iter()
                    .any(|class| db.sqlstate.starts_with(class)),
                _ => false,
            };
            if stale {
                pooled.pooler.forget(sql);
            }
        }
    }

    /// Columns of types that are not built in have been looked up by the driver.
    pub(super) fn note_columns(&mut self, signature_says: bool, rows: Option<&Row>) {
        let met = rows.is_some_and(|row| row.columns().iter().any(|c| is_foreign(c.type_())));
        if let Some(pooled) = self.pooled.as_mut().filter(|_| signature_says || met) {
            pooled.looked_up = true;
        }
    }

    /// Reads what `server/lineage.sql` says: through a pooler each transaction may have come to another server.
    pub(super) fn note_lineage(&mut self, messages: &[SimpleQueryMessage]) {
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                self.server.timeline = row
                    .try_get("timeline")
                    .ok()
                    .flatten()
                    .and_then(|text| u32::from_str_radix(text, 16).ok());
                self.server.incarnation = row
                    .try_get("incarnation")
                    .ok()
                    .flatten()
                    .and_then(|text| text.parse().ok());
            }
        }
    }

    /// What follows BEGIN through a pooler: the question which server this is.
    pub(super) fn lineage_question(&self) -> Option<&'static str> {
        (self.pooled.is_some() && self.server.dialect == Dialect::PostgreSql)
            .then_some(queries::SERVER_LINEAGE.sql)
    }

    /// Learns anew, through a pooler, which server answers.
    pub async fn refresh(&mut self) -> Result<()> {
        let Some(question) = self.lineage_question() else {
            return Ok(());
        };
        let asking = self.client.simple_query(question);
        let outcome = self.io(Some(STEP_LIMIT), question, asking).await;
        let messages = self.answered(outcome).await?;
        self.note_lineage(&messages);
        Ok(())
    }
}
