//! What ties a ForeignCluster to the SearchDomains that it was found through: its label, its owners
//! and who decides its join. The owners let Kubernetes take away what only a deleted SearchDomain
//! had found; the finalizer of the ForeignCluster then takes the peering down in order.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource as _, ResourceExt, api::Patch};
use serde_json::json;

use crate::{
    api::{
        ClusterId, ForeignCluster, SearchDomain,
        cluster_config::DiscoveryConfig,
        foreign_cluster::{DiscoveryType, TrustMode},
        labels,
    },
    controllers::{
        Context, Error,
        enrolment::{self, Newcomer},
        gone_is_fine, managed,
    },
    engine::policy,
};

/// Whether policy joins a newcomer: that of its SearchDomain, when it was found through one.
pub(in crate::controllers) fn joins(
    newcomer: &Newcomer,
    config: &DiscoveryConfig,
    trusted: bool,
) -> bool {
    match (newcomer.source, newcomer.search_domains.first()) {
        (DiscoveryType::Wan, Some(domain)) => domain.spec.autojoin,
        _ => policy::autojoin(config, trusted),
    }
}

/// Returns the SearchDomain that a discovered object is to be labelled with, unless it is already
/// labelled with one through which the cluster is found.
pub(in crate::controllers) fn unlabelled(
    present: &ForeignCluster,
    newcomer: &Newcomer,
) -> Option<String> {
    if present.spec.discovery_type == DiscoveryType::Manual {
        return None;
    }
    let names = || newcomer.search_domains.iter().map(ResourceExt::name_any);
    let label = present.labels().get(labels::SEARCH_DOMAIN);
    if names().any(|name| label == Some(&name)) {
        return None;
    }
    names().next()
}

/// The SearchDomains that keep an object alive: those of a cluster that nothing else has found.
pub(in crate::controllers) fn owners(newcomer: &Newcomer) -> Vec<OwnerReference> {
    if newcomer.source != DiscoveryType::Wan {
        return Vec::new();
    }
    newcomer
        .search_domains
        .iter()
        .filter_map(|domain| domain.owner_ref(&()))
        .collect()
}

/// Returns the owners of an object that was in DNS before, when they have changed: another
/// SearchDomain has it too, or it is on the LAN as well and does not depend on any.
pub(in crate::controllers) fn changed_owners(
    present: &ForeignCluster,
    newcomer: &Newcomer,
) -> Option<Vec<OwnerReference>> {
    let is_ours = |owner: &OwnerReference| owner.kind == SearchDomain::kind(&());
    let old = present.owner_references();
    let wanted = match newcomer.source {
        // A refusal outlives the SearchDomain that found whom it is for.
        DiscoveryType::Wan if present.spec.is_denied() => Vec::new(),
        // What a visit made belongs to none, also after a domain was found to list it.
        DiscoveryType::Wan if old.iter().any(is_ours) => owners(newcomer),
        DiscoveryType::Lan => Vec::new(),
        DiscoveryType::Wan | DiscoveryType::Manual | DiscoveryType::IncomingPeering => return None,
    };
    let others = old.iter().filter(|owner| !is_ours(owner)).cloned();
    let new: Vec<OwnerReference> = others.chain(wanted).collect();
    let uids = |owners: &[OwnerReference]| -> BTreeSet<String> {
        owners.iter().map(|owner| owner.uid.clone()).collect()
    };
    (uids(old) != uids(&new)).then_some(new)
}

/// Returns the clusters of a SearchDomain about which nobody has decided yet.
pub(super) async fn undecided(context: &Context, name: &str) -> Vec<ClusterId> {
    let objects = enrolment::list(context).await.unwrap_or_default();
    let waiting = objects.iter().filter(|object| {
        object
            .labels()
            .get(labels::SEARCH_DOMAIN)
            .map(String::as_str)
            == Some(name)
            && object.spec.trust_mode != TrustMode::Trusted
            && !object.spec.is_denied()
    });
    waiting.filter_map(enrolment::claimed_id).collect()
}

/// Takes the label of SearchDomains that are gone off the objects that live on without them.
pub(super) async fn release(context: &Context, present: &BTreeSet<String>) -> Result<(), Error> {
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    for object in enrolment::list(context).await? {
        let stale = object
            .labels()
            .get(labels::SEARCH_DOMAIN)
            .is_some_and(|label| !present.contains(label));
        if !stale || object.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let patch = json!({ "metadata": { "labels": { labels::SEARCH_DOMAIN: null } } });
        let patched = api
            .patch(&object.name_any(), &managed(), &Patch::Merge(patch))
            .await;
        gone_is_fine(patched).map_err(Error::api("update a ForeignCluster"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;
    use crate::api::{ForeignClusterSpec, SearchDomainSpec};

    fn domain(name: &str, autojoin: bool) -> SearchDomain {
        let spec = SearchDomainSpec {
            domain: format!("{name}.test"),
            autojoin,
            public_only: None,
            trusted_by: Vec::new(),
        };
        let mut domain = SearchDomain::new(name, spec);
        domain.metadata.uid = Some(format!("uid-{name}"));
        domain
    }

    fn found(source: DiscoveryType, search_domains: Vec<SearchDomain>) -> Newcomer {
        Newcomer {
            cluster_id: "rome".parse().expect("an id"),
            cluster_name: "rome".to_owned().into(),
            auth_url: "https://10.0.0.1:5870".to_owned(),
            source,
            search_domains,
            evidence: None,
        }
    }

    /// An object that is in these SearchDomains.
    fn object(source: DiscoveryType, owners: &[SearchDomain]) -> ForeignCluster {
        let newcomer = found(DiscoveryType::Wan, owners.to_vec());
        let label = owners.first().map(ResourceExt::name_any);
        ForeignCluster {
            metadata: ObjectMeta {
                owner_references: Some(super::owners(&newcomer)),
                labels: label.map(|name| [(labels::SEARCH_DOMAIN.to_owned(), name)].into()),
                ..ObjectMeta::default()
            },
            spec: ForeignClusterSpec {
                discovery_type: source,
                ..ForeignClusterSpec::default()
            },
            status: None,
        }
    }

    #[test]
    fn a_search_domain_decides_the_join_of_its_own() {
        use DiscoveryType::{Lan, Wan};
        let config = crate::api::ClusterConfigSpec::default().discovery_config;
        let mut never = config.clone();
        never.autojoin = false;
        assert!(joins(&found(Wan, vec![domain("a", true)]), &never, false));
        assert!(!joins(&found(Wan, vec![domain("a", false)]), &config, true));
        assert!(joins(&found(Lan, vec![domain("a", false)]), &config, false));
        assert!(!joins(&found(Lan, vec![domain("a", true)]), &never, true));
    }

    #[test]
    fn an_object_belongs_to_all_domains_it_is_found_in_and_to_none_once_it_is_on_the_lan() {
        use DiscoveryType::{IncomingPeering, Lan, Manual, Wan};
        let (a, b) = (domain("a", true), domain("b", true));
        let both = || vec![a.clone(), b.clone()];
        let count = |present: &ForeignCluster, newcomer: &Newcomer| {
            changed_owners(present, newcomer).map(|owners| owners.len())
        };
        let in_a = object(Wan, &both()[..1]);
        assert_eq!(count(&in_a, &found(Wan, vec![a.clone()])), None);
        assert_eq!(count(&in_a, &found(Wan, both())), Some(2));
        assert_eq!(count(&in_a, &found(Lan, both())), Some(0));
        assert_eq!(count(&object(Lan, &[]), &found(Wan, both())), None);
        assert_eq!(count(&object(Manual, &[]), &found(Wan, both())), None);
        for before in [IncomingPeering, Wan] {
            assert_eq!(count(&object(before, &[]), &found(Wan, both())), None);
        }
        let mut denied = object(Wan, &[]);
        denied.spec.incoming_peering_enabled = crate::api::foreign_cluster::IncomingPeering::No;
        assert_eq!(count(&denied, &found(Wan, both())), None);
    }

    #[test]
    fn the_label_names_one_of_the_domains_and_a_persons_object_has_none() {
        use DiscoveryType::{Lan, Manual, Wan};
        let (a, b) = (domain("a", true), domain("b", true));
        let in_a = object(Wan, std::slice::from_ref(&a));
        assert_eq!(unlabelled(&in_a, &found(Wan, vec![b.clone(), a])), None);
        let moved = unlabelled(&in_a, &found(Wan, vec![b.clone()]));
        assert_eq!(moved.as_deref(), Some("b"));
        let on_lan = unlabelled(&object(Lan, &[]), &found(Lan, vec![b.clone()]));
        assert_eq!(on_lan.as_deref(), Some("b"));
        assert_eq!(unlabelled(&object(Manual, &[]), &found(Wan, vec![b])), None);
        assert_eq!(unlabelled(&in_a, &found(Lan, vec![])), None);
    }
}
