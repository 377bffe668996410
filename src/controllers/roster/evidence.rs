//! What lets a cluster in as soon as it is found: the fleet secret, where the join depends on it, and
//! the word of a SearchDomain.

use std::sync::Arc;

use kube::ResourceExt as _;

use crate::{
    api::{
        ForeignCluster, SearchDomain,
        foreign_cluster::{IncomingPeering, TrustMode},
    },
    controllers::{Context, foreign_cluster::introduce},
    engine::{
        policy::{self, Evidence},
        roster::Candidate,
        sighting::Voucher,
    },
    peer::client::Connection,
};

/// Looks at what a candidate can show, in the order of the protocol (section 4). What a person has
/// decided is not asked about again.
pub(super) async fn shown(
    context: &Arc<Context>,
    candidate: &Candidate,
    domains: &[SearchDomain],
    present: Option<&ForeignCluster>,
    connection: &Connection,
) -> Option<Evidence> {
    if present.is_some_and(is_decided) {
        return None;
    }
    let switches = context.policy().discovery_config;
    let decides = switches.autojoin && !switches.autojoin_untrusted && context.fleet.is_some();
    if decides && present.is_none() {
        let answer = introduce(context, connection, None).await.ok();
        if let Some(evidence) = answer.and_then(|answer| answer.evidence) {
            return Some(evidence);
        }
    }
    let key = &connection.proven.fingerprint;
    let vouched = vouchers(candidate, domains)
        .any(|(domain, voucher)| policy::vouched(&domain.spec, voucher, key));
    vouched.then_some(Evidence::Tlsa)
}

/// Whether a person has said yes or no, or it is in already.
fn is_decided(object: &ForeignCluster) -> bool {
    object.spec.trust_mode == TrustMode::Trusted
        || object.spec.incoming_peering_enabled == IncomingPeering::No
}

/// What the domains say of a candidate, each with who says it.
fn vouchers<'a>(
    candidate: &'a Candidate,
    domains: &'a [SearchDomain],
) -> impl Iterator<Item = (&'a SearchDomain, &'a Voucher)> {
    domains.iter().flat_map(|domain| {
        let name = domain.name_any();
        let all = candidate.vouchers.iter();
        all.filter(move |voucher| voucher.search_domain == name)
            .map(move |voucher| (domain, voucher))
    })
}
