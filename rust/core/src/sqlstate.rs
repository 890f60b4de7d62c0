//! SQLSTATE codes that this crate acts on, and what each class of them means for a retry.
//!
//! Names and classes follow PostgreSQL's documentation, appendix A ("PostgreSQL Error Codes"). CockroachDB uses
//! the same codes; `CR000` is its own, from before it spoke `40001`.

use crate::retry::Failure;

/// A class of codes is their first two characters.
const CLASS_CONNECTION: &str = "08";
const CLASS_AUTHORIZATION: &str = "28";
const CLASS_RESOURCES: &str = "53";

/// The transaction's outcome at the far end is unknown.
pub const TRANSACTION_RESOLUTION_UNKNOWN: &str = "08007";
/// The server does not offer this, or not in this version.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// A value outside a setting's range; FATAL when a start-up option has it.
pub const INVALID_PARAMETER_VALUE: &str = "22023";
/// A NOT NULL column got NULL.
pub const NOT_NULL_VIOLATION: &str = "23502";
/// A reference to a row that is not there, or the deletion of one that is referred to.
pub const FOREIGN_KEY_VIOLATION: &str = "23503";
/// A row that a unique constraint or index already has.
pub const UNIQUE_VIOLATION: &str = "23505";
/// A CHECK constraint said no.
pub const CHECK_VIOLATION: &str = "23514";
/// A write in a read-only transaction, or on a standby.
pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
/// A statement (COMMIT too, when sent behind another) after an error had aborted the transaction.
pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
/// The password is wrong.
pub const INVALID_PASSWORD: &str = "28P01";
/// No such database.
pub const INVALID_CATALOG_NAME: &str = "3D000";
/// A prepared statement of this name is not there, or no longer.
pub const INVALID_STATEMENT_NAME: &str = "26000";
/// A prepared statement of this name is there already.
pub const DUPLICATE_STATEMENT: &str = "42P05";
/// Serializable or repeatable read cannot be upheld: run the whole transaction again.
/// A conflict between transactions.
pub const SERIALIZATION_FAILURE: &str = "40001";
/// Whether the statement took effect is unknown; CockroachDB's ambiguous commit.
pub const STATEMENT_COMPLETION_UNKNOWN: &str = "40003";
/// This transaction was chosen to break a deadlock.
pub const DEADLOCK_DETECTED: &str = "40P01";
/// The role may not do this; FATAL when it may not even connect.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// No such column.
pub const UNDEFINED_COLUMN: &str = "42703";
/// No such type, setting or other object; FATAL when a start-up option names an unknown setting.
pub const UNDEFINED_OBJECT: &str = "42704";
/// No such function.
pub const UNDEFINED_FUNCTION: &str = "42883";
/// No such table.
pub const UNDEFINED_TABLE: &str = "42P01";
/// A table of that name exists.
pub const DUPLICATE_TABLE: &str = "42P07";
/// The connection limit is reached.
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// Something is not ready for this; FATAL when a database accepts no connections.
pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
/// A lock was not to be had within `lock_timeout`, or at once under NOWAIT.
pub const LOCK_NOT_AVAILABLE: &str = "55P03";
/// The statement was cancelled, by a request or by `statement_timeout`.
pub const QUERY_CANCELED: &str = "57014";
/// An administrator ended the connection or is shutting the server down.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// Another backend crashed and the server restarts.
pub const CRASH_SHUTDOWN: &str = "57P02";
/// The server is starting up, recovering or shutting down.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// Early CockroachDB's code for "retry this transaction".
pub const COCKROACH_RETRY: &str = "CR000";

/// What an error with this code means for a transaction.
///
/// `fatal` says that the severity was FATAL or PANIC: the server has closed the connection behind the error,
/// whatever the code. Such an error still counts as permanent when it is a refusal to let us in, which the next
/// connection would meet again. A code that is not known is permanent.
///
/// * `40003` and `08007`: ambiguous, at any severity.
/// * `53300`: overloaded at any severity; the rest of class 53 unless fatal (a full disk under the WAL is a PANIC,
///   and whether the commit reached the disk is then as open as after a broken socket).
/// * `57P01`, `57P02`, `57P03` and the rest of class 08: disconnected.
/// * `40001`, `40P01`, `CR000`: retryable, unless fatal (a standby cancels by closing the connection with `40001`).
#[must_use]
pub fn classify(code: &str, fatal: bool) -> Failure {
    match code {
        STATEMENT_COMPLETION_UNKNOWN | TRANSACTION_RESOLUTION_UNKNOWN => return Failure::Ambiguous,
        TOO_MANY_CONNECTIONS => return Failure::Overloaded,
        ADMIN_SHUTDOWN | CRASH_SHUTDOWN | CANNOT_CONNECT_NOW => return Failure::Disconnected,
        _ => {}
    }
    if code.starts_with(CLASS_CONNECTION) {
        return Failure::Disconnected;
    }
    if fatal {
        return if refuses_entry(code) {
            Failure::Permanent
        } else {
            Failure::Disconnected
        };
    }
    match code {
        SERIALIZATION_FAILURE | DEADLOCK_DETECTED | COCKROACH_RETRY => Failure::Retryable,
        _ if code.starts_with(CLASS_RESOURCES) => Failure::Overloaded,
        _ => Failure::Permanent,
    }
}

/// The codes with which a server turns a new connection away for good.
fn refuses_entry(code: &str) -> bool {
    code.starts_with(CLASS_AUTHORIZATION)
        || matches!(
            code,
            FEATURE_NOT_SUPPORTED
                | INVALID_PARAMETER_VALUE
                | INVALID_CATALOG_NAME
                | INSUFFICIENT_PRIVILEGE
                | UNDEFINED_OBJECT
                | OBJECT_NOT_IN_PREREQUISITE_STATE
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_all(codes: &[&str], fatal: bool, expected: Failure) {
        for code in codes {
            assert_eq!(classify(code, fatal), expected, "{code}, fatal: {fatal}");
        }
    }

    #[test]
    fn an_ordinary_error_is_classified_by_its_code() {
        assert_all(&["40001", "40P01", "CR000"], false, Failure::Retryable);
        assert_all(&["40003", "08007"], false, Failure::Ambiguous);
        assert_all(
            &["53000", "53100", "53200", "53300"],
            false,
            Failure::Overloaded,
        );
        assert_all(
            &[
                "57P01", "57P02", "57P03", "08000", "08003", "08006", "08P01",
            ],
            false,
            Failure::Disconnected,
        );
        assert_all(
            &[
                "23505", "25P02", "40002", "42601", "57014", "57P04", "P0001", "XX000", "", "é",
            ],
            false,
            Failure::Permanent,
        );
    }

    #[test]
    fn a_fatal_error_has_ended_the_connection() {
        assert_all(
            &[
                "40001", "25P03", "57P01", "57P04", "57P05", "53100", "XX000", "08006", "",
            ],
            true,
            Failure::Disconnected,
        );
        assert_all(&["40003", "08007"], true, Failure::Ambiguous);
        assert_all(&["53300"], true, Failure::Overloaded);
    }

    #[test]
    fn a_refusal_to_connect_is_permanent() {
        assert_all(
            &[
                "28000", "28P01", "3D000", "42501", "0A000", "22023", "42704", "55000",
            ],
            true,
            Failure::Permanent,
        );
    }
}
