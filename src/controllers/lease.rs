//! Leases, by which somebody says again and again that it lives.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

use crate::engine::peering::LEASE_RENEWAL;

/// How often a Lease is renewed.
pub(crate) const RENEWAL: Duration = LEASE_RENEWAL.unsigned_abs();
/// For how many seconds it holds (the kubelet's default).
const SECONDS: i32 = 40;

/// What a Lease says that was renewed now.
pub(crate) fn renewed(holder: Option<String>, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: holder,
        lease_duration_seconds: Some(SECONDS),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    }
}
