//! What lets a cluster in as soon as it is found: the fleet secret, where the join depends on it, and
//! the word of a SearchDomain.

use std::sync::Arc;

use kube::ResourceExt as _;

use crate::{
    api::{ForeignCluster, SearchDomain, foreign_cluster::TrustMode},
    controllers::{Context, Error, enrolment, foreign_cluster::introduce},
    engine::{
        policy::{self, Evidence},
        roster::Candidate,
        sighting::Voucher,
    },
    peer::{client::Connection, web_pki::Ends},
};

/// The most names for which a certificate is looked at.
const HOSTS: usize = 16;

/// Looks at what a candidate can show, in the order of the protocol (section 4). What a person has
/// decided is not asked about again.
pub(super) async fn shown(
    context: &Arc<Context>,
    candidate: &Candidate,
    domains: &[SearchDomain],
    connection: &Connection,
) -> Result<Option<Evidence>, Error> {
    let switches = context.policy().discovery_config;
    let decides =
        switches.autojoin && !switches.autojoin_untrusted && context.fleet_secret().is_some();
    let vouch = domains.iter().any(|one| !one.spec.trusted_by.is_empty());
    if !decides && !vouch {
        return Ok(None);
    }
    let present = enrolment::find(context, &connection.proven.cluster_id).await?;
    if present.as_ref().is_some_and(is_decided) {
        return Ok(None);
    }
    if decides && present.is_none() {
        let answer = introduce(context, connection, None).await.ok();
        let evidence = answer.and_then(|answer| answer.evidence);
        if evidence.is_some() {
            return Ok(evidence);
        }
    }
    Ok(vouched(context, candidate, domains, connection).await)
}

/// Takes the word of the domains for a candidate.
async fn vouched(
    context: &Arc<Context>,
    candidate: &Candidate,
    domains: &[SearchDomain],
    connection: &Connection,
) -> Option<Evidence> {
    let key = &connection.proven.fingerprint;
    let vouched = vouchers(candidate, domains)
        .any(|(domain, voucher)| policy::vouched(&domain.spec, voucher, key));
    if vouched {
        return Some(Evidence::Tlsa);
    }
    let hosts: Vec<String> = vouchers(candidate, domains)
        .filter(|(domain, voucher)| policy::certifiable(&domain.spec, voucher))
        .map(|(_, voucher)| voucher.host.clone())
        .take(HOSTS)
        .collect();
    let attested = !hosts.is_empty() && is_attested(context, connection, hosts).await;
    attested.then_some(Evidence::WebPki)
}

/// Asks the cluster for a certificate for one of the hosts, and verifies it.
async fn is_attested(context: &Arc<Context>, connection: &Connection, hosts: Vec<String>) -> bool {
    let peer = connection.proven.cluster_id.clone();
    let Ok(Some(shown)) = connection.attestation().await else {
        tracing::debug!(%peer, "A cluster of a domain shows no certificate");
        return false;
    };
    let (context, exporter) = (Arc::clone(context), connection.exporter);
    let verifying = tokio::task::spawn_blocking(move || {
        let ends = Ends {
            asked: &peer,
            asking: &context.own.cluster_id,
            exporter: &exporter,
        };
        let verified = context.web_pki.verify(&shown, &hosts, ends, context.now());
        verified
            .inspect_err(
                |why| tracing::info!(%peer, %why, "A certificate does not let its cluster in"),
            )
            .is_ok()
    });
    verifying.await.unwrap_or_default()
}

/// Whether a person has said yes or no, or it is in already.
fn is_decided(object: &ForeignCluster) -> bool {
    object.spec.trust_mode == TrustMode::Trusted || object.spec.is_denied()
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
