//! What a person's object takes over from those that discovery and visits made for the same cluster.

use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch},
};
use serde_json::json;

use super::{list, standing};
use crate::{
    api::{
        ClusterId, ClusterName, ForeignCluster,
        foreign_cluster::{DiscoveryType, IncomingPeering, TrustMode},
        labels,
    },
    controllers::{Context, Error, gone_is_fine, managed},
};

/// Writes the proven identity into an object that a person wrote without one. What discovery or a
/// visit made for the same cluster makes way; of two that people wrote, the other one's name is
/// returned and nothing is written.
pub(in crate::controllers) async fn fill_identity(
    context: &Context,
    object: &ForeignCluster,
    id: &ClusterId,
    name: &ClusterName,
) -> Result<Option<String>, Error> {
    let _alone = context.enrolment.lock().await;
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    let objects = list(context).await?;
    let others = objects.iter().filter(|other| other.uid() != object.uid());
    let other = standing(others, id);
    let mut spec = json!({
        "clusterIdentity": {
            "clusterID": id,
            "clusterName": Some(name).filter(|name| !name.as_str().is_empty()),
        },
    });
    let mut notes = serde_json::Map::new();
    if let Some(other) = other {
        if other.spec.discovery_type == DiscoveryType::Manual {
            return Ok(Some(other.name_any()));
        }
        // What was said of the cluster holds for it, whichever object says it: a refusal at any
        // moment, the rest once the object is known to be the cluster's.
        let incoming = json!({ "incomingPeeringEnabled": other.spec.incoming_peering_enabled });
        if other.spec.is_denied() {
            let patch = Patch::Merge(json!({ "spec": incoming }));
            let denied = api.patch(&object.name_any(), &managed(), &patch).await;
            gone_is_fine(denied).map_err(Error::api("deny a ForeignCluster"))?;
        } else if object.spec.incoming_peering_enabled == IncomingPeering::Auto {
            json_patch::merge(&mut spec, &incoming);
        }
        let deleted = api
            .delete(&other.name_any(), &DeleteParams::default())
            .await;
        gone_is_fine(deleted).map_err(Error::api("delete a ForeignCluster"))?;
        if other.spec.join {
            json_patch::merge(&mut spec, &json!({ "join": true }));
        }
        if other.spec.trust_mode == TrustMode::Trusted {
            json_patch::merge(&mut spec, &json!({ "trustMode": TrustMode::Trusted }));
            let by = other.annotations().get(labels::TRUSTED_BY);
            notes.insert(labels::TRUSTED_BY.into(), json!(by));
        }
    }
    let patch = json!({
        "metadata": {
            "labels": {
                labels::CLUSTER_ID: id,
                labels::DISCOVERY_TYPE: object.spec.discovery_type,
            },
            "annotations": notes,
        },
        "spec": spec,
    });
    let patched = api
        .patch(&object.name_any(), &managed(), &Patch::Merge(patch))
        .await;
    gone_is_fine(patched).map_err(Error::api("fill in the identity of a ForeignCluster"))?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use axum::http::{Method, Request};
    use kube::{
        api::{ListParams, PatchParams, PostParams},
        client::Body,
    };

    use super::*;
    use crate::{
        api::labels::reason,
        controllers::enrolment::{
            Newcomer, claimed_id, context, enrol,
            tests::{newcomer, trusted_place},
        },
        engine::policy::Evidence,
    };

    #[tokio::test]
    async fn what_a_visit_made_makes_way_for_what_a_person_wrote() {
        let context = context().await;
        let visitor = Newcomer {
            evidence: Some(Evidence::FleetSecret),
            ..newcomer(DiscoveryType::IncomingPeering)
        };
        enrol(&context, &visitor).await.unwrap();
        trusted_place(&context).await;
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let object = api.get("by-hand").await.unwrap();
        let id = &visitor.cluster_id;
        let other = fill_identity(&context, &object, id, &visitor.cluster_name)
            .await
            .unwrap();
        assert_eq!(other, None);
        let objects = list(&context).await.unwrap();
        assert_eq!(objects.len(), 1);
        assert_eq!(claimed_id(&objects[0]).as_ref(), Some(id));
        assert_eq!(
            objects[0].annotations()[labels::TRUSTED_BY],
            reason::FLEET_SECRET
        );
    }

    #[tokio::test]
    async fn what_was_said_of_a_cluster_goes_over_to_what_a_person_writes() {
        let context = context().await;
        let found = newcomer(DiscoveryType::Lan);
        let object = enrol(&context, &found).await.unwrap();
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let said = json!({"spec": {"incomingPeeringEnabled": "No", "join": true}});
        let parameters = PatchParams::default();
        api.patch(&object.name_any(), &parameters, &Patch::Merge(said))
            .await
            .unwrap();
        trusted_place(&context).await;
        let by_hand = api.get("by-hand").await.unwrap();
        fill_identity(&context, &by_hand, &found.cluster_id, &found.cluster_name)
            .await
            .unwrap();
        let spec = api.get("by-hand").await.unwrap().spec;
        assert_eq!(spec.incoming_peering_enabled, IncomingPeering::No);
        assert!(spec.join);
    }

    #[tokio::test]
    async fn a_refusal_stands_at_every_moment_of_the_handing_over() {
        let context = context().await;
        let found = newcomer(DiscoveryType::Lan);
        let name = enrol(&context, &found).await.unwrap().name_any();
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let no = Patch::Merge(json!({"spec": {"incomingPeeringEnabled": "No"}}));
        let parameters = PatchParams::default();
        api.patch(&name, &parameters, &no).await.unwrap();
        trusted_place(&context).await;
        let by_hand = api.get("by-hand").await.unwrap();
        let mut failing = Arc::into_inner(context).unwrap();
        failing.client = writing_nothing_after_a_deletion(failing.client.clone());
        let (id, name) = (&found.cluster_id, &found.cluster_name);
        let filled = fill_identity(&failing, &by_hand, id, name).await;
        filled.expect_err("the last write fails");
        let left = api.list(&ListParams::default()).await.unwrap().items;
        assert!(
            left.iter().any(|object| object.spec.is_denied()),
            "{left:?}"
        );
    }

    fn writing_nothing_after_a_deletion(client: kube::Client) -> kube::Client {
        let deleted = Arc::new(AtomicBool::new(false));
        let service = tower::service_fn(move |request: Request<Body>| {
            let client = client.clone();
            let fails = deleted.load(Ordering::SeqCst);
            if request.method() == Method::DELETE {
                deleted.store(true, Ordering::SeqCst);
            }
            async move {
                if fails {
                    return Err(kube::Error::Service("the disk is full".into()));
                }
                client.send(request).await
            }
        });
        kube::Client::new(service, labels::NAMESPACE)
    }

    #[tokio::test]
    async fn of_two_objects_that_people_wrote_the_first_keeps_the_cluster() {
        let context = context().await;
        trusted_place(&context).await;
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let first = api.get("by-hand").await.unwrap();
        let (id, name) = (ClusterId::from_spki(b"peer"), ClusterName::default());
        assert_eq!(
            fill_identity(&context, &first, &id, &name).await.unwrap(),
            None
        );
        let second = ForeignCluster::new("again", first.spec.clone());
        let second = api.create(&PostParams::default(), &second).await.unwrap();
        let keeper = fill_identity(&context, &second, &id, &name).await.unwrap();
        assert_eq!(keeper.as_deref(), Some("by-hand"));
    }
}
