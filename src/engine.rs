//! All decisions: pure functions and machines that never do I/O, read a clock or roll dice.

#![forbid(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod addresses;
pub mod addressing;
pub mod backoff;
pub mod domain;
pub mod naming;
pub mod offer;
pub mod overlay;
pub mod peering;
pub mod policy;
pub mod roster;
pub mod sighting;
pub mod tokens;
