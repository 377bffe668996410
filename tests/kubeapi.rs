//! The embedded API against what a real one answered, and against its clients.
//!
//! `kubeapi/behaviours.md` says which test shows which behaviour.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is not as expected fails its test"
)]

#[path = "kubeapi/access.rs"]
mod access;
#[path = "kubeapi/answers.rs"]
mod answers;
#[path = "kubeapi/apply.rs"]
mod apply;
#[path = "kubeapi/bad_input.rs"]
mod bad_input;
#[path = "kubeapi/behaviours.rs"]
mod behaviours;
#[path = "kubeapi/burden.rs"]
mod burden;
#[path = "kubeapi/clients.rs"]
mod clients;
#[path = "kubeapi/collection.rs"]
mod collection;
#[path = "kubeapi/corpus.rs"]
mod corpus;
#[path = "kubeapi/durability.rs"]
mod durability;
#[path = "kubeapi/options.rs"]
mod options;
#[path = "support/process.rs"]
#[expect(dead_code, reason = "tests and benchmarks elsewhere use the rest")]
mod process;
#[path = "kubeapi/reading.rs"]
mod reading;
#[path = "kubeapi/recorded.rs"]
mod recorded;
#[path = "kubeapi/rig.rs"]
mod rig;
#[path = "kubeapi/watches.rs"]
mod watches;
#[path = "kubeapi/writing.rs"]
mod writing;
