//! Answers that are small on the wire and large in memory, or never end: from a server that has
//! proven its key, and from a client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Request, Response},
};
use kube::{
    Api,
    api::{ListParams, WatchParams},
};
use landbridge::{
    api::{PeeringRequest, identity::ClusterId},
    peer::{auth::Session, certificates::Proven, client::Connection},
};
use tower::{ServiceExt as _, util::BoxCloneSyncService};

use crate::rig::Cluster;

/// How much of a bomb may be taken before it is refused.
const TASTE: usize = 2 << 20;
/// How long a refusal may take, on a busy machine and without optimisation too.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a peer answers to everything.
#[derive(Clone, Copy, Debug)]
enum Bomb {
    /// Ten gigabytes that say that they are compressed.
    Compressed,
    /// Ten gigabytes that do not.
    Long,
    /// A million brackets.
    Deep,
    /// A line of a watch that never ends.
    Line,
}

const BOMBS: [Bomb; 4] = [Bomb::Compressed, Bomb::Long, Bomb::Deep, Bomb::Line];

#[tokio::test]
async fn what_a_proven_peer_answers_without_measure_is_refused_early() {
    for bomb in BOMBS {
        let taken = Arc::new(AtomicUsize::new(0));
        let connection = peer(bomb, &taken);
        let refused = tokio::time::timeout(PATIENCE, connection.ids())
            .await
            .unwrap();
        assert!(refused.is_err(), "{bomb:?}");
        let api: Api<PeeringRequest> = Api::all(connection.kube_client());
        let list = tokio::time::timeout(PATIENCE, api.list(&ListParams::default())).await;
        assert!(list.unwrap().is_err(), "{bomb:?}");
        let watch = async {
            let mut events = Box::pin(api.watch(&WatchParams::default(), "1").await?);
            futures::TryStreamExt::try_next(&mut events).await
        };
        let event = tokio::time::timeout(PATIENCE, watch).await.unwrap();
        assert!(!matches!(event, Ok(Some(_))), "{bomb:?}: {event:?}");
        let taken = taken.load(Ordering::SeqCst);
        assert!(taken < TASTE, "{bomb:?}: {taken} bytes were taken");
    }
}

#[tokio::test]
async fn what_a_client_asks_without_measure_is_refused_early() {
    let rome = Cluster::start().await;
    let peer = ClusterId::from_spki(b"bomber");
    rome.accept(&peer);
    let session = Session {
        peer: Some(proven(&peer)),
        exporter: [0; 32],
        address: None,
    };
    let http = rome.endpoint.in_session(session);
    for path in [
        "/identity",
        "/apis/discovery.liqo.io/v1alpha1/peeringrequests",
    ] {
        for bomb in BOMBS {
            let taken = Arc::new(AtomicUsize::new(0));
            let request = Request::post(path)
                .header("content-type", "application/json")
                .header("content-encoding", "gzip")
                .body(body(bomb, &taken))
                .unwrap();
            let answer = tokio::time::timeout(PATIENCE, http.clone().oneshot(request)).await;
            let status = answer.unwrap().unwrap().status().as_u16();
            assert!([400, 413].contains(&status), "{bomb:?} at {path}: {status}");
            let taken = taken.load(Ordering::SeqCst);
            assert!(
                taken < TASTE,
                "{bomb:?} at {path}: {taken} bytes were taken"
            );
        }
    }
    assert_eq!(rome.desk.asked.load(Ordering::SeqCst), 0);
}

/// A connection to somebody who has proven a key and answers with a bomb.
fn peer(bomb: Bomb, taken: &Arc<AtomicUsize>) -> Connection {
    let taken = Arc::clone(taken);
    let service = tower::service_fn(move |_: Request<Body>| {
        let mut response = Response::new(body(bomb, &taken));
        let headers = response.headers_mut();
        headers.insert("content-type", "application/json".parse().unwrap());
        if matches!(bomb, Bomb::Compressed) {
            headers.insert("content-encoding", "gzip".parse().unwrap());
        }
        async move { Ok(response) }
    });
    let id = ClusterId::from_spki(b"bomber");
    Connection::new(
        proven(&id),
        [0; 32],
        None,
        BoxCloneSyncService::new(service),
    )
}

fn body(bomb: Bomb, taken: &Arc<AtomicUsize>) -> Body {
    let chunk = match bomb {
        Bomb::Compressed => Bytes::from(vec![0; 16 * 1024]),
        Bomb::Deep => Bytes::from("[".repeat(16 * 1024)),
        Bomb::Long => Bytes::from(" ".repeat(16 * 1024)),
        Bomb::Line => Bytes::from(format!("{{\"type\":\"{}", "A".repeat(16 * 1024))),
    };
    let count: usize = if matches!(bomb, Bomb::Deep) {
        64
    } else {
        640 * 1024
    };
    let taken = Arc::clone(taken);
    Body::from_stream(futures::stream::iter((0..count).map(move |_| {
        taken.fetch_add(chunk.len(), Ordering::SeqCst);
        Ok::<_, std::io::Error>(chunk.clone())
    })))
}

fn proven(id: &ClusterId) -> Proven {
    Proven {
        cluster_id: id.clone(),
        fingerprint: landbridge::api::Fingerprint::from_spki(id.as_str().as_bytes()),
    }
}
