//! What a person's object takes over from those that discovery and visits made for the same cluster.

use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{list, standing};
use crate::{
    api::{
        ClusterId, ClusterName, ForeignCluster,
        foreign_cluster::{DiscoveryType, IncomingPeering, TrustMode},
        labels,
    },
    controllers::{Context, Error, gone_is_fine, managed},
};

/// What was said of a cluster in an object that makes way. It stands on the other one from before the
/// deletion until the identity is written there, so that it is lost at no moment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Legacy {
    cluster_id: ClusterId,
    join: bool,
    is_trusted: bool,
    trusted_by: Option<String>,
    incoming: IncomingPeering,
}

impl Legacy {
    fn of(object: &ForeignCluster, id: &ClusterId) -> Self {
        Self {
            cluster_id: id.clone(),
            join: object.spec.join,
            is_trusted: object.spec.trust_mode == TrustMode::Trusted,
            trusted_by: object.annotations().get(labels::TRUSTED_BY).cloned(),
            incoming: object.spec.incoming_peering_enabled,
        }
    }

    /// Reads what an earlier try has noted for the cluster.
    fn noted(object: &ForeignCluster, id: &ClusterId) -> Option<Self> {
        let text = object.annotations().get(labels::HANDED_OVER)?;
        let legacy: Self = serde_json::from_str(text).ok()?;
        (legacy.cluster_id == *id).then_some(legacy)
    }

    /// Adds what an earlier try has noted: the cluster may have come again since.
    fn after(self, earlier: Self) -> Self {
        let (is_trusted, trusted_by) = if earlier.is_trusted {
            (true, earlier.trusted_by)
        } else {
            (self.is_trusted, self.trusted_by)
        };
        let incoming = match self.incoming {
            IncomingPeering::Auto => earlier.incoming,
            said @ (IncomingPeering::Yes | IncomingPeering::No) => said,
        };
        Self {
            cluster_id: self.cluster_id,
            join: self.join || earlier.join,
            is_trusted,
            trusted_by,
            incoming,
        }
    }

    /// The patch that notes it. A refusal holds at once, the rest once the object is known to be the
    /// cluster's.
    fn note(&self) -> Result<Value, Error> {
        let text = serde_json::to_string(self)?;
        let mut patch = json!({"metadata": {"annotations": {labels::HANDED_OVER: text}}});
        if self.incoming == IncomingPeering::No {
            let no = json!({"spec": {"incomingPeeringEnabled": self.incoming}});
            json_patch::merge(&mut patch, &no);
        }
        Ok(patch)
    }

    /// Adds to a patch what has the object say it.
    fn take_over(&self, object: &ForeignCluster, patch: &mut Value) {
        let mut add = |part: Value| json_patch::merge(patch, &part);
        if object.spec.incoming_peering_enabled == IncomingPeering::Auto {
            add(json!({"spec": {"incomingPeeringEnabled": self.incoming}}));
        }
        if self.join {
            add(json!({"spec": {"join": true}}));
        }
        if self.is_trusted {
            add(json!({"spec": {"trustMode": TrustMode::Trusted}}));
            if let Some(by) = &self.trusted_by {
                add(json!({"metadata": {"annotations": {labels::TRUSTED_BY: by}}}));
            }
        }
    }
}

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
    let objects = list(context).await?;
    let (own, others): (Vec<_>, Vec<_>) = objects
        .iter()
        .partition(|other| other.uid() == object.uid());
    let mut legacy = own.first().and_then(|own| Legacy::noted(own, id));
    if let Some(other) = standing(others, id) {
        if other.spec.discovery_type == DiscoveryType::Manual {
            return Ok(Some(other.name_any()));
        }
        let mut left = Legacy::of(other, id);
        if let Some(earlier) = legacy {
            left = left.after(earlier);
        }
        write(context, object, left.note()?).await?;
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let deleted = api
            .delete(&other.name_any(), &DeleteParams::default())
            .await;
        gone_is_fine(deleted).map_err(Error::api("delete a ForeignCluster"))?;
        legacy = Some(left);
    }
    let mut patch = json!({
        "metadata": {
            "labels": {
                labels::CLUSTER_ID: id,
                labels::DISCOVERY_TYPE: object.spec.discovery_type,
            },
            "annotations": { labels::HANDED_OVER: null },
        },
        "spec": {
            "clusterIdentity": {
                "clusterID": id,
                "clusterName": Some(name).filter(|name| !name.as_str().is_empty()),
            },
        },
    });
    if let Some(legacy) = legacy {
        legacy.take_over(object, &mut patch);
    }
    write(context, object, patch).await?;
    Ok(None)
}

async fn write(context: &Context, object: &ForeignCluster, patch: Value) -> Result<(), Error> {
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    let patch = Patch::Merge(patch);
    let patched = api.patch(&object.name_any(), &managed(), &patch).await;
    gone_is_fine(patched).map_err(Error::api("fill in the identity of a ForeignCluster"))
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
        api::{ForeignClusterSpec, labels::reason},
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

    #[tokio::test]
    async fn what_was_wanted_of_a_cluster_outlives_a_handing_over_that_breaks_off() {
        let context = context().await;
        let found = newcomer(DiscoveryType::Lan);
        let name = enrol(&context, &found).await.unwrap().name_any();
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let said = json!({"incomingPeeringEnabled": "Yes", "join": true, "trustMode": "Trusted"});
        let said = Patch::Merge(json!({ "spec": said }));
        let parameters = PatchParams::default();
        api.patch(&name, &parameters, &said).await.unwrap();
        let mut by_hand = ForeignCluster::new("by-hand", ForeignClusterSpec::default());
        by_hand.spec.auth_url.clone_from(&found.auth_url);
        let by_hand = api.create(&PostParams::default(), &by_hand).await.unwrap();
        let mut failing = Arc::into_inner(context).unwrap();
        let client = failing.client.clone();
        failing.client = writing_nothing_after_a_deletion(client.clone());
        let (id, name) = (&found.cluster_id, &found.cluster_name);
        let filled = fill_identity(&failing, &by_hand, id, name).await;
        filled.expect_err("the last write fails");
        let left = api.get("by-hand").await.unwrap();
        assert_eq!(left.spec, by_hand.spec, "another one may be there");
        failing.client = client;
        let visit = newcomer(DiscoveryType::IncomingPeering);
        enrol(&failing, &visit).await.unwrap();
        fill_identity(&failing, &left, id, name).await.unwrap();
        let object = api.get("by-hand").await.unwrap();
        let spec = &object.spec;
        assert!(spec.join && spec.trust_mode == TrustMode::Trusted);
        assert_eq!(spec.incoming_peering_enabled, IncomingPeering::Yes);
        assert!(!object.annotations().contains_key(labels::HANDED_OVER));
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
