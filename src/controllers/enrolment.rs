//! One ForeignCluster per cluster id, whoever finds the cluster first.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Resource as _, ResourceExt,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{Context, Error};
use crate::{
    api::{
        ClusterId, ClusterName, ForeignCluster, ForeignClusterSpec, SearchDomain,
        cluster_config::DiscoveryConfig,
        foreign_cluster::{ClusterIdentity, DiscoveryType, IncomingPeering, TrustMode},
        labels::{self, reason},
    },
    engine::{naming, peering::status::STAGE_JOIN_REQUESTED, policy},
};

/// A cluster whose key was proven, as somebody found it.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// Its id.
    pub cluster_id: ClusterId,
    /// Its name, possibly empty.
    pub cluster_name: ClusterName,
    /// The URL of its peer endpoint.
    pub auth_url: String,
    /// How it was found.
    pub source: DiscoveryType,
    /// The SearchDomains that it was found through, the most promising first.
    pub search_domains: Vec<SearchDomain>,
    /// Whether it has shown that it knows the fleet secret.
    pub trusted: bool,
}

/// Finds the ForeignCluster of a cluster id.
pub async fn find(context: &Context, id: &ClusterId) -> Result<Option<ForeignCluster>, Error> {
    Ok(list(context)
        .await?
        .into_iter()
        .find(|object| claimed_id(object).as_ref() == Some(id)))
}

/// Returns the id that an object claims.
pub fn claimed_id(object: &ForeignCluster) -> Option<ClusterId> {
    object
        .spec
        .cluster_identity
        .as_ref()?
        .cluster_id
        .parse()
        .ok()
}

/// Makes sure that a cluster has its ForeignCluster, and returns it.
///
/// Policy writes the spec when the object is created. A find may take over an object that a
/// visit made and nobody has touched since, and follows the address of what it has found before.
pub async fn enrol(context: &Context, newcomer: &Newcomer) -> Result<ForeignCluster, Error> {
    let _alone = context.enrolment.lock().await;
    let objects = list(context).await?;
    let present = objects
        .iter()
        .find(|object| claimed_id(object).as_ref() == Some(&newcomer.cluster_id))
        .or_else(|| {
            objects
                .iter()
                .find(|object| is_same_place(object, newcomer))
        });
    match present {
        Some(present) => update(context, present, newcomer).await,
        None => create(context, &objects, newcomer).await,
    }
}

/// Lists all ForeignClusters.
pub(super) async fn list(context: &Context) -> Result<Vec<ForeignCluster>, Error> {
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(Error::api("list ForeignClusters"))?;
    Ok(list.items)
}

/// Whether a person's object without an identity names the very place where the cluster was found.
fn is_same_place(object: &ForeignCluster, newcomer: &Newcomer) -> bool {
    let url = object.spec.auth_url.trim_end_matches('/');
    object.spec.cluster_identity.is_none() && url == newcomer.auth_url.trim_end_matches('/')
}

async fn create(
    context: &Context,
    objects: &[ForeignCluster],
    newcomer: &Newcomer,
) -> Result<ForeignCluster, Error> {
    let nobody = ClusterId::from_spki(&[]);
    let taken: BTreeMap<String, ClusterId> = objects
        .iter()
        .map(|object| {
            (
                object.name_any(),
                claimed_id(object).unwrap_or_else(|| nobody.clone()),
            )
        })
        .collect();
    let name = naming::object_name(&newcomer.cluster_name, &newcomer.cluster_id, &taken);
    let config = context.policy().discovery_config;
    let found = newcomer.source != DiscoveryType::IncomingPeering;
    let object = ForeignCluster {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(object_labels(newcomer)),
            annotations: Some(object_annotations(context, newcomer)),
            owner_references: Some(owners(newcomer)).filter(|owners| !owners.is_empty()),
            ..ObjectMeta::default()
        },
        spec: ForeignClusterSpec {
            cluster_identity: Some(identity(newcomer)),
            namespace: Some(labels::NAMESPACE.to_owned()),
            join: found && joins(newcomer, &config, newcomer.trusted),
            discovery_type: newcomer.source,
            auth_url: newcomer.auth_url.clone(),
            trust_mode: if newcomer.trusted {
                TrustMode::Trusted
            } else {
                TrustMode::Untrusted
            },
            incoming_peering_enabled: IncomingPeering::Auto,
        },
        status: None,
    };
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    let parameters = PostParams {
        field_manager: Some(labels::MANAGER.to_owned()),
        ..PostParams::default()
    };
    let created = api
        .create(&parameters, &object)
        .await
        .map_err(Error::api("create a ForeignCluster"))?;
    tracing::info!(
        cluster = %name,
        id = %newcomer.cluster_id,
        source = newcomer.source.as_str(),
        join = created.spec.join,
        "Cluster found"
    );
    Ok(created)
}

async fn update(
    context: &Context,
    present: &ForeignCluster,
    newcomer: &Newcomer,
) -> Result<ForeignCluster, Error> {
    let mut spec = serde_json::Map::new();
    let mut metadata = json!({});
    if policy::takes_over(newcomer.source, present.spec.discovery_type) {
        spec.insert("discoveryType".into(), json!(newcomer.source.as_str()));
        metadata["labels"] = json!({ labels::DISCOVERY_TYPE: newcomer.source.as_str() });
        if is_undecided(present) {
            let trusted = newcomer.trusted || present.spec.trust_mode == TrustMode::Trusted;
            let join = joins(newcomer, &context.policy().discovery_config, trusted);
            spec.insert("join".into(), json!(join));
        }
    }
    let discovered = matches!(
        present.spec.discovery_type,
        DiscoveryType::Lan | DiscoveryType::Wan
    );
    let finds =
        newcomer.source == present.spec.discovery_type || spec.contains_key("discoveryType");
    if (discovered || spec.contains_key("discoveryType"))
        && finds
        && present.spec.auth_url != newcomer.auth_url
    {
        spec.insert("authUrl".into(), json!(newcomer.auth_url));
    }
    if newcomer.trusted && present.spec.trust_mode != TrustMode::Trusted {
        spec.insert("trustMode".into(), json!(TrustMode::Trusted));
        metadata["annotations"] = json!({ labels::TRUSTED_BY: reason::FLEET_SECRET });
    }
    if let Some(domain) = unlabelled(present, newcomer) {
        metadata["labels"][labels::SEARCH_DOMAIN] = json!(domain);
    }
    if let Some(owners) = changed_owners(present, newcomer) {
        metadata["ownerReferences"] = json!(owners);
    }
    if spec.is_empty() && metadata == json!({}) {
        return Ok(present.clone());
    }
    let patch = json!({ "metadata": metadata, "spec": spec });
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    api.patch(
        &present.name_any(),
        &PatchParams::apply(labels::MANAGER),
        &Patch::Merge(patch),
    )
    .await
    .map_err(Error::api("update a ForeignCluster"))
}

/// Whether policy joins a newcomer: that of its SearchDomain, when it was found through one.
fn joins(newcomer: &Newcomer, config: &DiscoveryConfig, trusted: bool) -> bool {
    match (newcomer.source, newcomer.search_domains.first()) {
        (DiscoveryType::Wan, Some(domain)) => domain.spec.autojoin,
        _ => policy::autojoin(config, trusted),
    }
}

/// Returns the SearchDomain that a discovered object is to be labelled with, unless it is already
/// labelled with one through which the cluster is found.
fn unlabelled(present: &ForeignCluster, newcomer: &Newcomer) -> Option<String> {
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
fn owners(newcomer: &Newcomer) -> Vec<OwnerReference> {
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
fn changed_owners(present: &ForeignCluster, newcomer: &Newcomer) -> Option<Vec<OwnerReference>> {
    let is_ours = |owner: &OwnerReference| owner.kind == SearchDomain::kind(&());
    let old = present.owner_references();
    let wanted = match newcomer.source {
        DiscoveryType::Wan if present.spec.discovery_type == DiscoveryType::Wan => owners(newcomer),
        DiscoveryType::Lan => Vec::new(),
        _ => return None,
    };
    let others = old.iter().filter(|owner| !is_ours(owner)).cloned();
    let new: Vec<OwnerReference> = others.chain(wanted).collect();
    let uids = |owners: &[OwnerReference]| -> BTreeSet<String> {
        owners.iter().map(|owner| owner.uid.clone()).collect()
    };
    (uids(old) != uids(&new)).then_some(new)
}

/// Takes the label of SearchDomains that are gone off the objects that live on without them.
pub(super) async fn release(context: &Context, present: &BTreeSet<String>) -> Result<(), Error> {
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    for object in list(context).await? {
        let stale = object
            .labels()
            .get(labels::SEARCH_DOMAIN)
            .is_some_and(|label| !present.contains(label));
        if !stale || object.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let patch = json!({ "metadata": { "labels": { labels::SEARCH_DOMAIN: null } } });
        let parameters = PatchParams::apply(labels::MANAGER);
        let patched = api
            .patch(&object.name_any(), &parameters, &Patch::Merge(patch))
            .await;
        super::gone_is_fine(patched).map_err(Error::api("update a ForeignCluster"))?;
    }
    Ok(())
}

/// Whether nobody has ever asked for the join of an object that a visit made, so that policy may
/// still decide it.
fn is_undecided(object: &ForeignCluster) -> bool {
    let asked = object
        .status
        .as_ref()
        .is_some_and(|status| status.timeline.contains_key(STAGE_JOIN_REQUESTED));
    !object.spec.join && !asked
}

fn identity(newcomer: &Newcomer) -> ClusterIdentity {
    let name = newcomer.cluster_name.as_str();
    ClusterIdentity {
        cluster_id: newcomer.cluster_id.to_string(),
        cluster_name: (!name.is_empty()).then(|| name.to_owned()),
    }
}

fn object_labels(newcomer: &Newcomer) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (
            labels::CLUSTER_ID.to_owned(),
            newcomer.cluster_id.to_string(),
        ),
        (
            labels::DISCOVERY_TYPE.to_owned(),
            newcomer.source.as_str().to_owned(),
        ),
    ]);
    if let Some(domain) = newcomer.search_domains.first() {
        labels.insert(labels::SEARCH_DOMAIN.to_owned(), domain.name_any());
    }
    labels
}

fn object_annotations(context: &Context, newcomer: &Newcomer) -> BTreeMap<String, String> {
    let second = context.now().as_second().to_string();
    let mut annotations = BTreeMap::from([(labels::LAST_UPDATE.to_owned(), second)]);
    if newcomer.trusted {
        annotations.insert(
            labels::TRUSTED_BY.to_owned(),
            reason::FLEET_SECRET.to_owned(),
        );
    }
    annotations
}
