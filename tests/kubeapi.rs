//! The embedded API against what a real one answered, and against its clients.
#![expect(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a rig that cannot be used fails its test"
)]

#[path = "kubeapi/access.rs"]
mod access;
#[path = "kubeapi/answers.rs"]
mod answers;
#[path = "kubeapi/apply.rs"]
mod apply;
#[path = "kubeapi/bad_input.rs"]
mod bad_input;
#[path = "kubeapi/collection.rs"]
mod collection;
#[path = "kubeapi/durability.rs"]
mod durability;
#[path = "kubeapi/recorded.rs"]
mod recorded;
#[path = "kubeapi/rig.rs"]
mod rig;
#[path = "kubeapi/watches.rs"]
mod watches;
