//! Two clusters over loopback with real TLS, and strangers that try to come between.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "peer/corpus.rs"]
mod corpus;
#[path = "peer/digits.rs"]
mod digits;
#[path = "peer/discretion.rs"]
mod discretion;
#[path = "peer/front_desk.rs"]
mod front_desk;
#[path = "peer/gateway.rs"]
mod gateway;
#[path = "peer/handshake.rs"]
mod handshake;
#[path = "peer/identity.rs"]
mod identity;
#[path = "peer/patience.rs"]
mod patience;
#[path = "peer/record.rs"]
mod record;
#[path = "peer/rig.rs"]
mod rig;
#[path = "peer/strangers.rs"]
mod strangers;
#[path = "peer/tokens.rs"]
mod tokens;
