//! A candidate that has proven its key and cannot be written down.

use axum::{
    body::Body,
    http::{Request, Response},
};
use futures::future::BoxFuture;
use serde_json::json;
use tower::util::BoxCloneSyncService;

use super::*;
use crate::{
    api::{ClusterName, Fingerprint},
    controllers::enrolment::context,
    peer::{
        certificates::Proven,
        client::{Connector, Target},
    },
};

/// A cluster that answers wherever it is looked for.
struct Milan;

impl Connector for Milan {
    fn connect<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        let service = tower::service_fn(|_: Request<Body>| async {
            Ok(Response::new(Body::from(
                json!({"clusterId": milan()}).to_string(),
            )))
        });
        let proven = Proven {
            cluster_id: milan(),
            fingerprint: Fingerprint::from_spki(b"milan"),
        };
        let service = BoxCloneSyncService::new(service);
        Box::pin(async { Ok(Connection::new(proven, [0; 32], None, service)) })
    }
}

fn milan() -> ClusterId {
    ClusterId::from_spki(b"milan")
}

fn candidate() -> Candidate {
    Candidate {
        key: Key::Cluster(milan()),
        cluster_id: Some(milan()),
        name: ClusterName::default(),
        boot: None,
        endpoints: vec![Endpoint {
            address: SocketAddr::from(([10, 0, 0, 2], 5870)),
            source: DiscoveryType::Lan,
            interface: None,
            first_seen: jiff::Timestamp::UNIX_EPOCH,
        }],
        instances: Vec::new(),
        search_domains: Vec::new(),
        vouchers: Vec::new(),
        ttl: Duration::from_secs(90),
        proven: false,
    }
}

#[tokio::test]
async fn a_cluster_that_could_not_be_written_down_counts_as_one_that_has_not_answered() {
    let mut context = Arc::into_inner(context().await).unwrap();
    context.connector = Arc::new(Milan);
    let client = context.client.clone();
    let broken = tower::service_fn(|_: Request<kube::client::Body>| async {
        Err::<Response<kube::client::Body>, _>(kube::Error::Service("the disk is full".into()))
    });
    for (client, answered) in [
        (kube::Client::new(broken, "default"), None),
        (client, Some(milan())),
    ] {
        context.client = client;
        let shared = Arc::new(context);
        let proofs = prove(&shared, &candidate()).await;
        let ids: Vec<_> = proofs.into_iter().map(|proof| proof.id).collect();
        assert_eq!(ids, [answered]);
        context = Arc::into_inner(shared).unwrap();
    }
    let context = Arc::new(context);
    assert!(enrolment::find(&context, &milan()).await.unwrap().is_some());
}
