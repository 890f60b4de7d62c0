//! The heart of bmdb: leases on machines, kept in the database that describes them.
//!
//! A *session* is a row that a heartbeat keeps alive; *work* is a row that ties a session to a machine and a
//! process. `trusted_until` is the moment past which a session no longer believes in itself: it lies before the
//! database's own deadline, so a holder knows that it is lost before anybody else gets its machine.
//!
//! Pure modules (no I/O, no clock): [`backoff`], [`browse`], [`eligibility`], [`hold`], [`retry`], [`lease`], [`lookout`], [`pace`],
//! [`sqlstate`], [`tag`], [`value`].
pub mod backoff;
pub mod batch;
pub mod browse;
pub mod clock;
pub mod collect;
pub mod config;
pub mod connect;
pub mod connection;
pub mod dialect;
pub mod drive;
pub mod eligibility;
pub mod error;
pub mod events;
pub mod foreign;
pub mod gate;
pub mod heartbeat;
pub mod hold;
pub mod lease;
pub mod lookout;
pub mod metrics;
pub mod migrate;
pub mod overdue;
pub mod pace;
pub mod panics;
pub mod pool;
pub mod pooler;
pub mod process;
pub mod queries;
pub mod reflect;
pub mod retry;
pub mod roles;
pub mod session;
pub mod settle;
pub mod sqlstate;
pub mod tag;
pub mod testing;
pub mod timelines;
pub mod tls;
pub mod transaction;
pub mod value;
pub mod work;
