//! What is taken back is taken out of our own objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::{
    api::{ClusterId, ForeignClusterSpec, foreign_cluster::ClusterIdentity},
    controllers::enrolment::context,
};

#[tokio::test]
async fn what_is_taken_off_an_object_leaves_the_rest() {
    let context = context().await;
    let object = milan(&context).await;
    let metadata = json!({
        "annotations": {
            labels::TRUSTED_BY: "FleetSecret",
            labels::JOINED_BY: labels::POLICY,
            "other": "stays",
        },
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "SearchDomain", "name": "a", "uid": "a"},
            {"apiVersion": "v1", "kind": "Place", "name": "b", "uid": "b"},
        ],
    });
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let api = objects(&context);
    let before = api.patch("milan", &managed(), &patch).await.unwrap();
    // Who has read an older version writes nothing.
    for is_owned in [true, false] {
        untie(&context, &object, is_owned).await.unwrap();
        assert_eq!(api.get("milan").await.unwrap(), before);
    }
    untie(&context, &before, true).await.unwrap();
    let object = api.get("milan").await.unwrap();
    untie(&context, &object, false).await.unwrap();
    let object = api.get("milan").await.unwrap();
    let mode = object.spec.trust_mode;
    set_trust(&context, &object, mode, None).await.unwrap();
    let after = api.get("milan").await.unwrap();
    let owners = after.owner_references().iter();
    assert_eq!(owners.map(|owner| &owner.name).collect::<Vec<_>>(), ["b"]);
    let annotations = after.annotations().keys();
    assert_eq!(annotations.collect::<Vec<_>>(), ["other"]);
}

/// The object of a cluster, as it stands in the API.
async fn milan(context: &Context) -> ForeignCluster {
    let spec = ForeignClusterSpec {
        cluster_identity: Some(ClusterIdentity {
            cluster_id: ClusterId::from_spki(b"milan").to_string(),
            cluster_name: None,
        }),
        ..ForeignClusterSpec::default()
    };
    let object = ForeignCluster::new("milan", spec);
    let created = objects(context).create(&creating(), &object).await;
    created.unwrap()
}

#[tokio::test]
async fn what_was_written_meanwhile_is_not_forgotten() {
    let context = context().await;
    let object = milan(&context).await;
    let api = objects(&context);
    let no = Patch::Merge(json!({"spec": {"incomingPeeringEnabled": "No"}}));
    let denied = api.patch("milan", &managed(), &no).await.unwrap();
    forget(&context, &object).await.unwrap();
    assert!(api.get("milan").await.unwrap().spec.is_denied());
    forget(&context, &denied).await.unwrap();
    assert!(api.get_opt("milan").await.unwrap().is_none());
}

#[tokio::test]
async fn a_range_that_a_peer_takes_back_is_taken_out() {
    let context = context().await;
    let object = milan(&context).await;
    let api: Api<NetworkConfig> = Api::all(context.client.clone());
    let name = local_network_name(&id_of(&object));
    for range in [Some("10.99.0.0/16".to_owned()), None] {
        let status = NetworkConfigStatus {
            processed: range.is_some(),
            pod_cidr_nat: range.clone(),
            external_cidr_nat: range,
        };
        let spec = NetworkConfigSpec::default();
        write_network(&context, &object, Side::Local, spec, status.clone())
            .await
            .unwrap();
        assert_eq!(api.get(&name).await.unwrap().status, Some(status));
    }
}

#[tokio::test]
async fn an_offer_that_is_refused_names_no_node_any_more() {
    let context = context().await;
    let object = milan(&context).await;
    let offer = Offer {
        resource_quota: None,
        labels: None,
        images: None,
        prices: None,
        limit_range: None,
        timestamp: Time(context.now()),
        time_to_live: Time(context.now()),
    };
    let api: Api<Advertisement> = Api::all(context.client.clone());
    let name = advertisement_name(&id_of(&object));
    for (answer, is_named) in [(Acceptance::Accepted, true), (Acceptance::Refused, false)] {
        write_advertisement(&context, &object, offer.clone(), answer)
            .await
            .unwrap();
        let status = api.get(&name).await.unwrap().status.unwrap();
        assert_eq!(status.vnode_reference.is_some(), is_named, "{answer:?}");
    }
}
