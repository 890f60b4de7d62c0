//! What is known of statements where a pooler may lead each transaction to another backend.
//!
//! A statement prepared by name stays on the backend that prepared it, where the next transaction may not come, and other clients'
//! may. So statements go unnamed: text, types and values in one trip. Values go in binary, so the types of the parameters must
//! be known before; they are asked once for each text and kept here, for all connections to that database. They are then told to
//! the server with each use: should a column have changed its type meanwhile, the server casts or refuses, and never takes the
//! bytes of one type for those of another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postgres_types::Type;

/// What to do about a pooler that nobody has spoken of.
pub const UNSPOKEN: &str = "a transaction pooler (such as PgBouncer with pool_mode=transaction) stands in between, and gives each \
     transaction another backend: pass pooler=True to connect(), or connect to the server itself";

/// Texts kept; beyond that all are asked anew as needed.
const TEXTS_KEPT: usize = 1024;

/// What a statement takes and gives.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The types of its parameters.
    pub params: Arc<[Type]>,
    /// Whether it gives columns of types that are not built in, which the driver looks up when it meets them.
    pub foreign_columns: bool,
}

/// What all connections through a pooler to one database share.
#[derive(Debug, Clone, Default)]
pub struct Pooler {
    signatures: Arc<Mutex<HashMap<String, Signature>>>,
}

impl Pooler {
    /// What is known of this text.
    #[must_use]
    pub fn known(&self, sql: &str) -> Option<Signature> {
        self.signatures().get(sql).cloned()
    }

    /// This is known from now on.
    pub fn learn(&self, sql: &str, signature: Signature) {
        let mut signatures = self.signatures();
        if signatures.len() >= TEXTS_KEPT && !signatures.contains_key(sql) {
            signatures.clear();
        }
        signatures.insert(sql.to_owned(), signature);
    }

    /// It may have changed: the next use asks again.
    pub fn forget(&self, sql: &str) {
        self.signatures().remove(sql);
    }

    fn signatures(&self) -> MutexGuard<'_, HashMap<String, Signature>> {
        self.signatures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settings of a session, made those of one transaction that has just begun. What says how to begin is left out.
#[must_use]
pub fn local(settings: &str) -> String {
    settings
        .split(';')
        .filter_map(|setting| setting.trim().strip_prefix("SET "))
        .filter(|setting| !setting.starts_with("default_transaction_"))
        .map(|setting| format!("; SET LOCAL {setting}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_those_of_one_transaction() {
        let session =
            "SET default_transaction_read_only = on; SET lock_timeout = '1s';  SET jit = off";
        assert_eq!(
            local(session),
            "; SET LOCAL lock_timeout = '1s'; SET LOCAL jit = off"
        );
        assert_eq!(local("SET default_transaction_read_only = off"), "");
    }

    #[test]
    fn clones_share_what_they_learn_and_forget_it_together() {
        let (one, other) = {
            let pooler = Pooler::default();
            (pooler.clone(), pooler)
        };
        assert!(other.known("SELECT $1::int").is_none());
        let signature = Signature {
            params: [Type::INT4].into(),
            foreign_columns: false,
        };
        one.learn("SELECT $1::int", signature);
        let known = other.known("SELECT $1::int").expect("just learnt");
        assert_eq!(*known.params, [Type::INT4]);
        other.forget("SELECT $1::int");
        assert!(one.known("SELECT $1::int").is_none());
    }

    #[test]
    fn texts_without_end_do_not_pile_up() {
        let pooler = Pooler::default();
        for number in 0..3 * TEXTS_KEPT {
            let signature = Signature {
                params: [].into(),
                foreign_columns: false,
            };
            pooler.learn(&format!("SELECT {number}"), signature);
        }
        assert!(pooler.signatures().len() <= TEXTS_KEPT);
    }
}
