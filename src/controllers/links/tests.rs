//! A peer that changes its half of the session without pause.

use axum::{
    body::Body,
    http::{Request, Response},
};
use futures::StreamExt as _;
use serde_json::json;
use tower::util::BoxCloneSyncService;

use super::*;
use crate::{
    api::{ClusterName, Fingerprint, peering_request::PeeringRequestSpec},
    peer::certificates::Proven,
};

#[tokio::test(start_paused = true)]
async fn the_changes_of_a_peer_are_taken_ten_a_second_after_the_first_fifty() {
    let id = ClusterId::from_spki(b"own");
    let links = Links::default();
    let connection = Arc::new(hasty_peer(&id));
    links.adopt("milan", connected(&connection), connection);
    let request = PeeringRequest::new(id.as_str(), PeeringRequestSpec::default());
    links.watch("milan", &id, request, Arc::new(jiff::Timestamp::now));
    let mut before = 0;
    for (seconds, least, most) in [(1, 55, 65), (10, 95, 105), (60, 595, 605)] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let session = links.facts("milan").session.unwrap();
        let revision = session.request.metadata.resource_version.unwrap();
        let now: u32 = revision.parse().unwrap();
        let taken = now - before;
        assert!((least..=most).contains(&taken), "{taken} in {seconds} s");
        before = now;
    }
}

/// A peer that has ten thousand changes ready at once.
fn hasty_peer(id: &ClusterId) -> Connection {
    let lines: Vec<String> = (1..=10_000)
        .map(|revision| {
            let object = json!({
                "apiVersion": "discovery.liqo.io/v1alpha1",
                "kind": "PeeringRequest",
                "metadata": {"name": id, "resourceVersion": revision.to_string()},
                "spec": PeeringRequestSpec::default(),
            });
            format!("{}\n", json!({"type": "MODIFIED", "object": object}))
        })
        .collect();
    let service = tower::service_fn(move |_: Request<Body>| {
        let chunks = lines.clone().into_iter().map(Ok::<_, std::io::Error>);
        let chunks = futures::stream::iter(chunks);
        let body = Body::from_stream(chunks.chain(futures::stream::pending()));
        async move { Ok(Response::new(body)) }
    });
    Connection::new(proven(), [0; 32], None, BoxCloneSyncService::new(service))
}

fn connected(connection: &Connection) -> Connected {
    Connected {
        url: String::new(),
        address: None,
        cluster_id: connection.proven.cluster_id.clone(),
        cluster_name: ClusterName::default(),
        fingerprint: connection.proven.fingerprint.clone(),
    }
}

fn proven() -> Proven {
    Proven {
        cluster_id: ClusterId::from_spki(b"peer"),
        fingerprint: Fingerprint::from_spki(b"peer"),
    }
}
