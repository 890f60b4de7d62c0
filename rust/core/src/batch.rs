//! Claims and ends of work without callbacks, many at a time.
//!
//! A caller makes one plain call; what others call meanwhile is done with it, in one transaction (see [`coalesce`]). None
//! shares more than that: each has its own verdict, and what fails for one is done again without it.

pub mod claims;
pub mod coalesce;
pub mod ends;
pub mod lanes;
mod retire;
pub mod sweep;
