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
    links.watch("milan", &id, request, Arc::new(Timestamp::now));
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

#[tokio::test(start_paused = true)]
async fn a_session_that_the_peer_ends_at_once_does_not_begin_again_at_once() {
    let id = ClusterId::from_spki(b"own");
    let links = Links::default();
    let connection = Arc::new(saying(vec![line("DELETED", &id, 2)]));
    links.adopt("milan", connected(&connection), connection);
    let mut sessions = 0;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_mins(1) {
        let request = PeeringRequest::new(id.as_str(), PeeringRequestSpec::default());
        links.watch("milan", &id, request, Arc::new(Timestamp::now));
        sessions += 1;
        while links.facts("milan").session.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert!((30..=60).contains(&sessions), "{sessions} in a minute");
}

#[tokio::test(start_paused = true)]
async fn sessions_that_break_as_they_begin_are_begun_ever_more_rarely() {
    let id = ClusterId::from_spki(b"own");
    let links = Links::default();
    let begun = tokio::time::Instant::now();
    let clock: Clock = Arc::new(move || {
        let passed = jiff::SignedDuration::try_from(begun.elapsed()).unwrap();
        Timestamp::UNIX_EPOCH + passed
    });
    let mut sessions = 0;
    while begun.elapsed() < Duration::from_mins(5) {
        let connection = Arc::new(saying(vec!["no event\n".to_owned()]));
        links.adopt("milan", connected(&connection), connection);
        let request = PeeringRequest::new(id.as_str(), PeeringRequestSpec::default());
        links.watch("milan", &id, request, Arc::clone(&clock));
        sessions += 1;
        while links.facts("milan").session.is_some()
            || links.facts("milan").retry_at.is_some_and(|at| at > clock())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert!((8..=60).contains(&sessions), "{sessions} in five minutes");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_over_cuts_nothing() {
    let id = ClusterId::from_spki(b"own");
    let links = Links::default();
    let (present, past) = [vec![], vec!["no event\n".to_owned()]].map(saying).into();
    let present = Arc::new(present);
    links.adopt("milan", connected(&present), present);
    let request = PeeringRequest::new(id.as_str(), PeeringRequestSpec::default());
    let clock: Clock = Arc::new(Timestamp::now);
    links.watch("milan", &id, request.clone(), Arc::clone(&clock));
    let watch = Watch {
        name: "milan".to_owned(),
        own_id: id,
        api: Api::all(past.kube_client()),
        connection: Arc::new(past),
        entries: Arc::clone(&links.entries),
        nudges: links.nudges.clone(),
        suspects: links.suspects.clone(),
        clock,
        opened: tokio::time::Instant::now(),
    };
    tokio::spawn(watch.run(request)).await.unwrap();
    let link = links.facts("milan");
    assert!(link.connected.is_some() && link.session.is_some());
}

/// A peer that has ten thousand changes ready at once.
fn hasty_peer(id: &ClusterId) -> Connection {
    saying(
        (1..=10_000)
            .map(|revision| line("MODIFIED", id, revision))
            .collect(),
    )
}

fn line(event: &str, id: &ClusterId, revision: u32) -> String {
    let object = json!({
        "apiVersion": "discovery.liqo.io/v1alpha1",
        "kind": "PeeringRequest",
        "metadata": {"name": id, "resourceVersion": revision.to_string()},
        "spec": PeeringRequestSpec::default(),
    });
    format!("{}\n", json!({"type": event, "object": object}))
}

/// A peer that has these lines ready on each watch.
fn saying(lines: Vec<String>) -> Connection {
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
