//! Discovery in DNS domains, with the real BIND.
#![expect(
    clippy::indexing_slicing,
    reason = "a rig that cannot be used fails its test"
)]

#[path = "dns/belonging.rs"]
mod belonging;
#[path = "dns/bind.rs"]
mod bind;
#[path = "dns/conditions.rs"]
mod conditions;
#[path = "dns/corpus.rs"]
mod corpus;
#[path = "dns/daemon.rs"]
mod daemon;
#[path = "dns/discover.rs"]
mod discover;
#[path = "dns/hostile.rs"]
mod hostile;
#[path = "dns/keys.rs"]
mod keys;
#[path = "dns/lab.rs"]
mod lab;
#[path = "dns/lookup.rs"]
mod lookup;
#[path = "support/process.rs"]
#[expect(dead_code, reason = "tests and benchmarks elsewhere use the rest")]
mod process;
#[path = "dns/publish.rs"]
mod publish;
#[path = "dns/signed.rs"]
mod signed;
#[path = "dns/web_pki.rs"]
mod web_pki;
#[path = "dns/zone.rs"]
mod zone;
