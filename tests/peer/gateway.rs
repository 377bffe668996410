//! The gateway through a connection: one object, half of it, for as long as the peer is accepted.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use futures::{StreamExt as _, TryStreamExt as _, future::join_all};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams},
    core::WatchEvent,
    runtime::watcher,
};
use landbridge::{
    api::{
        ForeignCluster, PeeringRequest,
        identity::ClusterId,
        labels,
        peering_request::{ForeignSession, PeeringRequestStatus},
    },
    peer::{
        auth::Session,
        certificates::Proven,
        client::{Connection, Connector as _},
    },
};
use serde_json::json;

use crate::rig::{Cluster, connector, credentials};

#[tokio::test]
async fn a_peer_creates_its_request_in_its_own_name_whatever_it_writes() {
    let (rome, milan) = (Cluster::start().await, credentials());
    let id = milan.identity().cluster_id();
    rome.accept(id);
    let connection = connector(&milan).connect(&rome.target()).await.unwrap();
    let api: Api<PeeringRequest> = Api::all(connection.kube_client());
    let created = api.create(&PostParams::default(), &wish("")).await.unwrap();
    assert_eq!(created.name_any(), id.as_str());
    assert_eq!(created.spec.cluster_identity.cluster_id, id.as_str());

    let stored = rome.stored(id).await.unwrap();
    assert_eq!(
        stored["metadata"]["labels"],
        json!({labels::CLUSTER_ID: id})
    );
    for dropped in ["finalizers", "ownerReferences", "annotations"] {
        assert_eq!(stored["metadata"].get(dropped), None, "{dropped}");
    }
    let managers = stored["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for entry in managers {
        assert_eq!(
            entry["manager"], "landbridge-gateway",
            "the API's own words"
        );
    }
    assert_eq!(stored.get("status"), None);
    let endpoints = &stored["spec"]["session"]["network"]["endpoints"];
    assert_eq!(endpoints, &json!(["127.0.0.1:5871", "10.0.0.2:5871"]));

    let again = api.create(&PostParams::default(), &wish("")).await;
    assert_eq!(code(again), Some(409));
}

#[tokio::test]
async fn a_peer_changes_its_spec_and_nothing_else() {
    let (rome, id, api) = accepted().await;
    api.create(&PostParams::default(), &wish("")).await.unwrap();
    let patch = json!({
        "spec": {"session": {"accepted": "Accepted"}, "clusterIdentity": {"clusterName": "milan"}},
        "status": {"session": {"message": "forged"}},
        "metadata": {"labels": {"forged": "yes"}, "finalizers": ["forged"]},
    });
    let change = Patch::Merge(&patch);
    let changed = api
        .patch(id.as_str(), &PatchParams::default(), &change)
        .await
        .unwrap();
    let session = changed.spec.session.as_ref().unwrap();
    assert_eq!(session.accepted.as_str(), "Accepted");
    assert_eq!(session.network.as_ref().unwrap().public_key, "key");
    let stored = rome.stored(&id).await.unwrap().to_string();
    assert!(!stored.contains("forged"), "{stored}");
    assert!(stored.contains("milan"), "{stored}");
    let other = Patch::Merge(json!({"spec": {"clusterIdentity": {"clusterID": "another"}}}));
    let refused = api
        .patch(id.as_str(), &PatchParams::default(), &other)
        .await;
    assert_eq!(code(refused), Some(403));
}

#[tokio::test]
async fn a_peer_sees_its_own_object_only() {
    let (rome, id, api) = accepted().await;
    let other = ClusterId::from_spki(b"other");
    rome.accept(&other);
    let others: Api<PeeringRequest> = Api::all(in_memory(&rome, &other).kube_client());
    others
        .create(&PostParams::default(), &wish(""))
        .await
        .unwrap();
    api.create(&PostParams::default(), &wish("")).await.unwrap();

    let seen = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(
        seen.iter()
            .map(kube::ResourceExt::name_any)
            .collect::<Vec<_>>(),
        [id.as_str()]
    );
    assert!(api.get(id.as_str()).await.is_ok());
    assert_eq!(code(api.get(other.as_str()).await), Some(403));
    let name = other.as_str();
    assert_eq!(
        code(api.delete(name, &DeleteParams::default()).await),
        Some(403)
    );
    assert_eq!(
        code(
            api.replace(id.as_str(), &PostParams::default(), &wish(""))
                .await
        ),
        Some(403)
    );
    assert_eq!(
        code(api.create(&PostParams::default(), &wish(name)).await),
        Some(403)
    );
    let fields = ListParams::default().fields(&format!("metadata.name={name}"));
    assert_eq!(code(api.list(&fields).await), Some(403));
    let clusters: Api<ForeignCluster> = Api::all(api.clone().into_client());
    assert_eq!(code(clusters.list(&ListParams::default()).await), Some(403));
    let large = PatchParams::default();
    let body = Patch::Merge(json!({"spec": {"namespace": "n".repeat(70_000)}}));
    assert_eq!(code(api.patch(id.as_str(), &large, &body).await), Some(413));

    api.delete(id.as_str(), &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(code(api.get(id.as_str()).await), Some(404));
    assert!(rome.stored(&other).await.is_some());
}

#[tokio::test]
async fn who_is_not_accepted_finds_the_gateway_closed() {
    let (rome, milan) = (Cluster::start().await, credentials());
    let connection = connector(&milan).connect(&rome.target()).await.unwrap();
    let api: Api<PeeringRequest> = Api::all(connection.kube_client());
    assert_eq!(
        code(api.create(&PostParams::default(), &wish("")).await),
        Some(403)
    );
    rome.accept(milan.identity().cluster_id());
    assert!(api.create(&PostParams::default(), &wish("")).await.is_ok());
}

#[tokio::test]
async fn who_is_not_accepted_any_more_may_take_its_own_object_back() {
    let (rome, id, api) = accepted().await;
    let (name, other) = (id.as_str(), ClusterId::from_spki(b"other"));
    api.create(&PostParams::default(), &wish("")).await.unwrap();
    rome.desk.accepted.lock().unwrap().clear();
    assert_eq!(code(api.get(name).await), Some(403));
    let parameters = DeleteParams::default();
    let another = api.delete(other.as_str(), &parameters).await;
    assert_eq!(code(another), Some(403));
    api.delete(name, &parameters).await.unwrap();
    assert_eq!(rome.stored(&id).await, None);
    assert_eq!(code(api.delete(name, &parameters).await), Some(404));
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.extend(code(api.delete(name, &parameters).await));
    }
    assert!(answers.contains(&429), "{answers:?}");
}

#[tokio::test]
async fn a_peer_that_nobody_can_decide_about_is_not_refused() {
    let (rome, id, api) = accepted().await;
    api.create(&PostParams::default(), &wish("")).await.unwrap();
    rome.desk.undecided.store(true, Ordering::SeqCst);
    assert_eq!(code(api.get(id.as_str()).await), Some(503));
    rome.desk.undecided.store(false, Ordering::SeqCst);
    assert_eq!(code(api.get(id.as_str()).await), None);
}

#[tokio::test]
async fn a_watcher_over_tls_sees_what_the_other_half_says() {
    let (rome, milan) = (Cluster::start().await, credentials());
    let id = milan.identity().cluster_id();
    rome.accept(id);
    let connection = connector(&milan).connect(&rome.target()).await.unwrap();
    let api: Api<PeeringRequest> = Api::all(connection.kube_client());
    api.create(&PostParams::default(), &wish("")).await.unwrap();
    let config = watcher::Config::default().fields(&format!("metadata.name={id}"));
    let mut events = watcher(api, config).boxed();
    while !matches!(
        events.try_next().await.unwrap(),
        Some(watcher::Event::InitDone)
    ) {}
    let local: Api<PeeringRequest> = Api::all(rome.objects.client());
    // The watch may begin after the first of these changes, but not after all of them.
    let said = async {
        loop {
            let status = PeeringRequestStatus {
                session: Some(ForeignSession {
                    message: "welcome".to_owned(),
                    ..ForeignSession::default()
                }),
                ..PeeringRequestStatus::default()
            };
            let patch = Patch::Merge(json!({"status": status}));
            local
                .patch(id.as_str(), &PatchParams::default(), &patch)
                .await
                .unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let heard = async {
        loop {
            if let Some(watcher::Event::Apply(object)) = events.try_next().await.unwrap() {
                return object;
            }
        }
    };
    let object = tokio::select! { object = heard => object, () = said => unreachable!() };
    assert_eq!(object.status.unwrap().session.unwrap().message, "welcome");
}

#[tokio::test(start_paused = true)]
async fn a_watch_beats_while_nothing_happens_and_ends_with_the_acceptance() {
    let (rome, id, api) = accepted().await;
    let created = api.create(&PostParams::default(), &wish("")).await.unwrap();
    let revision = created.resource_version().unwrap();
    let mut events = api
        .watch(&WatchParams::default(), "0")
        .await
        .unwrap()
        .boxed();
    let first = events.try_next().await.unwrap();
    assert!(matches!(first, Some(WatchEvent::Added(_))), "{first:?}");
    for _ in 0..10 {
        match events.try_next().await.unwrap() {
            Some(WatchEvent::Bookmark(mark)) => {
                assert_eq!(mark.metadata.resource_version, revision);
            }
            other => panic!("{other:?}"),
        }
    }
    rome.desk.accepted.lock().unwrap().remove(&id);
    assert!(events.try_next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_ends_with_an_error() {
    let rome = Cluster::start().await;
    let silent = tower::service_fn(|_| async {
        let body = axum::body::Body::from_stream(futures::stream::pending::<
            Result<&str, std::io::Error>,
        >());
        Ok(axum::http::Response::new(body))
    });
    let http = tower::util::BoxCloneSyncService::new(silent);
    let connection = Connection::new(proven(rome.id()), [0; 32], None, http);
    let api: Api<PeeringRequest> = Api::all(connection.kube_client());
    let mut events = api
        .watch(&WatchParams::default(), "1")
        .await
        .unwrap()
        .boxed();
    assert!(events.try_next().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_writes_without_end_is_slowed_down() {
    let (_rome, id, api) = accepted().await;
    api.create(&PostParams::default(), &wish("")).await.unwrap();
    let mut refused = 0;
    for index in 0..200 {
        let patch = Patch::Merge(json!({"spec": {"namespace": index.to_string()}}));
        if code(
            api.patch(id.as_str(), &PatchParams::default(), &patch)
                .await,
        ) == Some(429)
        {
            refused += 1;
        }
    }
    assert!(refused >= 100, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_at_the_same_time_are_made_or_told_to_be_in_conflict() {
    let (_rome, id, api) = accepted().await;
    api.create(&PostParams::default(), &wish("")).await.unwrap();
    let changes = (0..40).map(|index| {
        let (api, id) = (api.clone(), id.clone());
        tokio::spawn(async move {
            let patch = Patch::Merge(json!({"spec": {"namespace": format!("n{index}")}}));
            api.patch(id.as_str(), &PatchParams::default(), &patch)
                .await
        })
    });
    let answers = join_all(changes).await;
    let codes: BTreeSet<_> = answers.into_iter().map(|one| code(one.unwrap())).collect();
    assert!(codes.contains(&None), "{codes:?}");
    assert!(
        codes.iter().flatten().all(|code| *code == 409),
        "nothing was wrong with any of them: {codes:?}"
    );
}

async fn accepted() -> (Cluster, ClusterId, Api<PeeringRequest>) {
    let rome = Cluster::start().await;
    let id = ClusterId::from_spki(b"milan");
    rome.accept(&id);
    let api = Api::all(in_memory(&rome, &id).kube_client());
    (rome, id, api)
}

fn in_memory(rome: &Cluster, peer: &ClusterId) -> Connection {
    let session = Session {
        peer: Some(proven(peer)),
        exporter: [0; 32],
        address: None,
    };
    let http = rome.endpoint.in_session(session);
    Connection::new(proven(rome.id()), [0; 32], None, http)
}

fn proven(id: &ClusterId) -> Proven {
    Proven {
        cluster_id: id.clone(),
        fingerprint: landbridge::api::Fingerprint::from_spki(id.as_str().as_bytes()),
    }
}

/// What a peer would like to have stored.
fn wish(name: &str) -> PeeringRequest {
    serde_json::from_value(json!({
        "apiVersion": "discovery.liqo.io/v1alpha1",
        "kind": "PeeringRequest",
        "metadata": {
            "name": if name.is_empty() { None } else { Some(name) },
            "labels": {"forged": "yes"},
            "annotations": {"forged": "yes"},
            "finalizers": ["forged"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}],
            "managedFields": [{"manager": "forged"}],
        },
        "spec": {
            "clusterIdentity": {"clusterID": "", "clusterName": "milan"},
            "namespace": "liqo",
            "authUrl": "https://10.0.0.2:5870",
            "kubeConfigRef": {"name": "forged"},
            "session": {"protocol": 1, "network": {
                "podCIDR": "10.244.0.0/16", "externalCIDR": "", "publicKey": "key",
                "port": 5871, "mtu": 1420, "endpoints": ["10.0.0.2:5871"],
            }},
        },
        "status": {"session": {"message": "forged"}},
    }))
    .unwrap()
}

fn code<T>(result: Result<T, kube::Error>) -> Option<u16> {
    match result {
        Err(kube::Error::Api(status)) => Some(status.code),
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    }
}
