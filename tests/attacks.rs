//! Attacks on the built program and on its doors, one test for each.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "attacks/addresses.rs"]
mod addresses;
#[path = "attacks/bombs.rs"]
mod bombs;
#[path = "attacks/canary.rs"]
mod canary;
#[path = "attacks/certificates.rs"]
mod certificates;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "tests of a cluster use the rest")]
mod daemon;
#[path = "attacks/eve.rs"]
mod eve;
#[path = "attacks/exhaustion.rs"]
mod exhaustion;
#[path = "attacks/impostor.rs"]
mod impostor;
#[path = "lan/lab.rs"]
#[expect(dead_code, reason = "tests of the LAN use the rest")]
mod lab;
#[path = "attacks/local_user.rs"]
mod local_user;
#[path = "attacks/names.rs"]
mod names;
#[path = "attacks/quotas.rs"]
mod quotas;
#[path = "attacks/ranges.rs"]
mod ranges;
#[path = "peer/rig.rs"]
#[expect(dead_code, reason = "tests of peers use the rest")]
mod rig;
