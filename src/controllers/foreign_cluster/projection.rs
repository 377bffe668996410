//! The steps that write our own objects: the projections that people look at with kubectl.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    advertisement_name, gather::TOMBSTONES, local_network_name, remote_network_name, tunnel_name,
};
use crate::{
    api::{
        Advertisement, AdvertisementSpec, ForeignCluster, NetworkConfig, NetworkConfigSpec,
        NetworkConfigStatus, PeeringRequest, SearchDomain, TunnelEndpoint,
        advertisement::{NodeReference, Offer, SecretReference},
        foreign_cluster::TrustMode,
        labels::{self, FINALIZER_PEERED, FINALIZER_TUNNEL, event},
        peering_request::Acceptance,
    },
    controllers::{
        Context, Error, creating, enrolment::claimed_id, gone_is_fine, is_conflict, is_not_found,
        managed, status::difference,
    },
    engine::{
        peering::{TunnelWish, happening::Happening, node_name},
        policy::Evidence,
    },
};

/// Whose network a NetworkConfig describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Local,
    Remote,
}

fn objects(context: &Context) -> Api<ForeignCluster> {
    Api::all(context.client.clone())
}

fn id_of(object: &ForeignCluster) -> String {
    claimed_id(object)
        .map(|id| id.to_string())
        .unwrap_or_default()
}

/// The finalizers are a list that others write too, so the write is refused when it is outdated.
async fn set_finalizers<K>(
    api: &Api<K>,
    object: &K,
    finalizers: Vec<String>,
    action: &'static str,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let patch = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": object.resource_version(),
    }});
    write_unless_outdated(api, object, patch, action).await
}

/// What is done with the finalizers of a ForeignCluster.
const FINALIZERS: &str = "write the finalizers of a ForeignCluster";

/// Puts our finalizer on an object, or takes it off.
pub(super) async fn set_finalizer(
    context: &Context,
    object: &ForeignCluster,
    is_held: bool,
) -> Result<(), Error> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|one| one != FINALIZER_PEERED);
    finalizers.extend(is_held.then(|| FINALIZER_PEERED.to_owned()));
    set_finalizers(&objects(context), object, finalizers, FINALIZERS).await
}

/// Writes whether a peer is trusted, and by what it was let in. Without that nothing new is said, so
/// the write is refused when a person has said something meanwhile.
pub(super) async fn set_trust(
    context: &Context,
    object: &ForeignCluster,
    mode: TrustMode,
    by: Option<Evidence>,
) -> Result<(), Error> {
    let noted = by.map(Evidence::reason);
    let mut patch = json!({
        "metadata": {"annotations": { labels::TRUSTED_BY: noted }},
        "spec": {"trustMode": mode},
    });
    if by.is_none() {
        json_patch::merge(&mut patch, &version_of(object));
    }
    let action = "write the trust mode of a ForeignCluster";
    write_unless_outdated(&objects(context), object, patch, action).await
}

/// Takes away the SearchDomains with which an object would be deleted, or the note that policy wanted
/// the join, unless somebody has written the object meanwhile.
pub(super) async fn untie(
    context: &Context,
    object: &ForeignCluster,
    is_owned: bool,
) -> Result<(), Error> {
    let mut patch = if is_owned {
        let mut owners = object.owner_references().to_vec();
        owners.retain(|owner| owner.kind != SearchDomain::kind(&()));
        json!({"metadata": {"ownerReferences": owners}})
    } else {
        json!({"metadata": {"annotations": {labels::JOINED_BY: null}}})
    };
    json_patch::merge(&mut patch, &version_of(object));
    let action = "write the owners or notes of a ForeignCluster";
    write_unless_outdated(&objects(context), object, patch, action).await
}

/// The part of a patch that has it refused when the object has changed since.
fn version_of(object: &ForeignCluster) -> Value {
    json!({ "metadata": { "resourceVersion": object.resource_version() } })
}

async fn write_unless_outdated<K>(
    api: &Api<K>,
    object: &K,
    patch: Value,
    action: &'static str,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let patch = Patch::Merge(patch);
    let patched = api.patch(&object.name_any(), &managed(), &patch).await;
    match patched {
        // The next look plans from the newer version.
        Err(error) if is_conflict(&error) => Ok(()),
        other => gone_is_fine(other).map_err(Error::api(action)),
    }
}

/// Deletes the object of a peer that is gone, unless somebody has written it meanwhile.
pub(super) async fn forget(context: &Context, object: &ForeignCluster) -> Result<(), Error> {
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: object.resource_version(),
        }),
        ..DeleteParams::default()
    };
    let deleted = objects(context)
        .delete(&object.name_any(), &parameters)
        .await;
    if deleted.as_ref().is_err_and(is_conflict) {
        // The next look plans from the newer version.
        return Ok(());
    }
    gone_is_fine(deleted).map_err(Error::api("delete a ForeignCluster"))?;
    if let Some(id) = claimed_id(object) {
        context.neighbours.forget(&id);
    }
    tracing::info!(cluster = %object.name_any(), "Cluster gone");
    Ok(())
}

pub(super) async fn dismiss_request(
    context: &Context,
    object: &ForeignCluster,
) -> Result<(), Error> {
    let api: Api<PeeringRequest> = Api::all(context.client.clone());
    delete(api, &id_of(object), "delete a PeeringRequest").await
}

pub(super) async fn write_advertisement(
    context: &Context,
    object: &ForeignCluster,
    offer: Offer,
    answer: Acceptance,
) -> Result<(), Error> {
    let id = id_of(object);
    let spec = AdvertisementSpec {
        cluster_id: id.clone(),
        offer,
        neighbors: None,
        properties: None,
        kube_config_ref: SecretReference::default(),
    };
    let mut wish = Advertisement::new(&advertisement_name(&id), spec);
    wish.metadata = projected(
        object,
        &advertisement_name(&id),
        &[(labels::CLUSTER_ID, &id)],
    );
    let accepted = answer == Acceptance::Accepted;
    // Every field by name, so that a merge takes out what is no longer so.
    let status = json!({
        "advertisementStatus": answer,
        "vkCreated": accepted,
        "vnodeReference": accepted.then(|| NodeReference { name: node_name(&id) }),
    });
    if answer == Acceptance::Accepted {
        tracing::info!(cluster = %object.name_any(), "Offer accepted");
    }
    let api: Api<Advertisement> = Api::all(context.client.clone());
    write(&api, &wish, "write an Advertisement").await?;
    write_status(
        &api,
        &wish.name_any(),
        &status,
        "write the status of an Advertisement",
    )
    .await
}

pub(super) async fn remove_advertisement(
    context: &Context,
    object: &ForeignCluster,
) -> Result<(), Error> {
    let api: Api<Advertisement> = Api::all(context.client.clone());
    delete(
        api,
        &advertisement_name(&id_of(object)),
        "delete an Advertisement",
    )
    .await
}

pub(super) async fn write_network(
    context: &Context,
    object: &ForeignCluster,
    side: Side,
    spec: NetworkConfigSpec,
    status: NetworkConfigStatus,
) -> Result<(), Error> {
    let id = id_of(object);
    let (name, value) = match side {
        Side::Local => (local_network_name(&id), "local"),
        Side::Remote => (remote_network_name(&id), "remote"),
    };
    let mut wish = NetworkConfig::new(&name, spec);
    let labels = [
        (labels::CLUSTER_ID, id.as_str()),
        (labels::NETWORK_SIDE, value),
    ];
    wish.metadata = projected(object, &name, &labels);
    // Every field by name, so that a merge takes out what the peer has taken back.
    let status = json!({
        "processed": status.processed,
        "podCIDRNAT": status.pod_cidr_nat,
        "externalCIDRNAT": status.external_cidr_nat,
    });
    let api: Api<NetworkConfig> = Api::all(context.client.clone());
    write(&api, &wish, "write a NetworkConfig").await?;
    write_status(&api, &name, &status, "write the status of a NetworkConfig").await
}

pub(super) async fn remove_networks(
    context: &Context,
    object: &ForeignCluster,
) -> Result<(), Error> {
    let id = id_of(object);
    for name in [local_network_name(&id), remote_network_name(&id)] {
        let api: Api<NetworkConfig> = Api::all(context.client.clone());
        delete(api, &name, "delete a NetworkConfig").await?;
    }
    Ok(())
}

pub(super) async fn write_tunnel(
    context: &Context,
    object: &ForeignCluster,
    wish: TunnelWish,
) -> Result<(), Error> {
    let id = id_of(object);
    let name = tunnel_name(&id);
    let mut tunnel = TunnelEndpoint::new(&name, wish.spec);
    let labels = [
        (labels::CLUSTER_ID, id.as_str()),
        (labels::TUNNEL_CLUSTER_ID, id.as_str()),
    ];
    tunnel.metadata = projected(object, &name, &labels);
    tunnel.metadata.finalizers = Some(vec![FINALIZER_TUNNEL.to_owned()]);
    let api: Api<TunnelEndpoint> = Api::all(context.client.clone());
    write(&api, &tunnel, "write a TunnelEndpoint").await?;
    write_status(
        &api,
        &name,
        &wish.status,
        "write the status of a TunnelEndpoint",
    )
    .await
}

pub(super) async fn remove_tunnel(context: &Context, object: &ForeignCluster) -> Result<(), Error> {
    let api: Api<TunnelEndpoint> = Api::all(context.client.clone());
    let name = tunnel_name(&id_of(object));
    if context.own.tunnel.is_none() {
        release_tunnel(&api, &name).await?;
    }
    delete(api, &name, "delete a TunnelEndpoint").await
}

/// Lets a TunnelEndpoint go of an earlier run that made tunnels: they ended with it.
async fn release_tunnel(api: &Api<TunnelEndpoint>, name: &str) -> Result<(), Error> {
    let present = api.get_opt(name).await;
    let Some(present) = present.map_err(Error::api("read a TunnelEndpoint"))? else {
        return Ok(());
    };
    let mut finalizers = present.finalizers().to_vec();
    finalizers.retain(|one| one != FINALIZER_TUNNEL);
    let action = "write the finalizers of a TunnelEndpoint";
    set_finalizers(api, &present, finalizers, action).await
}

/// Remembers a withdrawal that is owed, so that the deletion can end.
pub(super) async fn entomb(context: &Arc<Context>, object: &ForeignCluster) -> Result<(), Error> {
    let id = id_of(object);
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), labels::NAMESPACE);
    let stone = json!({ "data": { id.as_str(): object.spec.auth_url } });
    let written = api
        .patch(TOMBSTONES, &managed(), &Patch::Merge(&stone))
        .await;
    match written {
        Err(error) if is_not_found(&error) => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(TOMBSTONES.to_owned()),
                    ..ObjectMeta::default()
                },
                data: Some([(id, object.spec.auth_url.clone())].into()),
                ..ConfigMap::default()
            };
            api.create(&PostParams::default(), &map)
                .await
                .map_err(Error::api("write a tombstone"))?;
        }
        other => {
            other.map_err(Error::api("write a tombstone"))?;
        }
    }
    let owed = Happening {
        reason: event::REMOTE_CLEANUP_PENDING,
        warning: true,
        note: "the peer cannot be reached; what it keeps for us is withdrawn when it is seen again"
            .to_owned(),
    };
    context
        .events
        .publish(&context.client, object, &[owed], context.now())
        .await;
    tracing::warn!(
        cluster = %object.name_any(),
        "The peer cannot be reached; what it keeps for us is withdrawn when it is seen again"
    );
    Ok(())
}

pub(super) async fn exhume(context: &Context, object: &ForeignCluster) -> Result<(), Error> {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), labels::NAMESPACE);
    let patch = json!({ "data": { id_of(object): null } });
    gone_is_fine(
        api.patch(TOMBSTONES, &managed(), &Patch::Merge(&patch))
            .await,
    )
    .map_err(Error::api("remove a tombstone"))
}

/// The metadata of a projection: it belongs to its ForeignCluster.
pub(super) fn projected(
    object: &ForeignCluster,
    name: &str,
    labels: &[(&str, &str)],
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(
            labels
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        ),
        owner_references: owner(object).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn owner(object: &ForeignCluster) -> Option<OwnerReference> {
    object.controller_owner_ref(&())
}

/// Creates an object, or writes what is different in its spec.
async fn write<K>(api: &Api<K>, wish: &K, action: &'static str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let name = wish.name_any();
    let Some(present) = api.get_opt(&name).await.map_err(Error::api(action))? else {
        return match api.create(&creating(), wish).await {
            // Somebody was faster: the next look writes what is still different.
            Err(error) if is_conflict(&error) => Ok(()),
            other => other.map(drop).map_err(Error::api(action)),
        };
    };
    let (old, new) = (serde_json::to_value(&present)?, serde_json::to_value(wish)?);
    let part = |value: &Value, key: &str| value.get(key).cloned().unwrap_or(Value::Null);
    let Some(change) = difference(&part(&old, "spec"), &part(&new, "spec")) else {
        return Ok(());
    };
    let patched = api
        .patch(&name, &managed(), &Patch::Merge(json!({ "spec": change })))
        .await;
    gone_is_fine(patched).map_err(Error::api(action))
}

/// Merges a status into an object, leaving alone what others report there.
async fn write_status<K, S>(
    api: &Api<K>,
    name: &str,
    status: &S,
    action: &'static str,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    S: Serialize,
{
    let patch = Patch::Merge(json!({ "status": status }));
    gone_is_fine(api.patch_status(name, &managed(), &patch).await).map_err(Error::api(action))
}

async fn delete<K>(api: Api<K>, name: &str, action: &'static str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    gone_is_fine(api.delete(name, &DeleteParams::default()).await).map_err(Error::api(action))
}

#[cfg(test)]
mod tests;
