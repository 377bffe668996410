//! Discovery in DNS domains, with the real BIND.

#[path = "dns/bind.rs"]
mod bind;
#[path = "dns/daemon.rs"]
mod daemon;
#[path = "dns/lab.rs"]
mod lab;
#[path = "dns/lookup.rs"]
mod lookup;
#[path = "dns/publish.rs"]
mod publish;
