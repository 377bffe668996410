//! Discovery in DNS domains, with the real BIND.

#[path = "dns/bind.rs"]
mod bind;
#[path = "dns/lookup.rs"]
mod lookup;
