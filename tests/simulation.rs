//! Whole clusters in one process, without sockets, on paused time.
//!
//! Each history runs on a thread of its own with the real controllers, the real peer endpoint and
//! the real embedded API; only the LAN, the disk and the packets in the tunnel are simulated. What
//! is chosen by chance here comes from the seed of the history. Keys, object ids and the order of
//! hash maps still come from the operating system, so that a history is not the same to the bit
//! when it is run again: its transitions are, its interleavings nearly.
//!
//! `SIMULATION_LOG=debug` prints what is logged with its virtual time, `PROPTEST_CASES` runs more
//! histories.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, in its helpers too, and prints what was logged on request"
)]

#[path = "simulation/account.rs"]
mod account;
#[path = "simulation/approval.rs"]
mod approval;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/histories.rs"]
mod histories;
#[path = "simulation/invariants.rs"]
mod invariants;
#[path = "simulation/lan.rs"]
mod lan;
#[path = "simulation/life.rs"]
mod life;
#[path = "simulation/logbook.rs"]
mod logbook;
#[path = "simulation/places.rs"]
mod places;
#[path = "simulation/reference.rs"]
mod reference;
#[path = "simulation/restarts.rs"]
mod restarts;
#[path = "simulation/scenarios.rs"]
mod scenarios;
#[path = "simulation/transition.rs"]
mod transition;
#[path = "simulation/untunnelled.rs"]
mod untunnelled;
#[path = "simulation/world.rs"]
mod world;
