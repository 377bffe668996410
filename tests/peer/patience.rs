//! How long the endpoint waits for who has come and says nothing.
//!
//! Connections are made in real time; then the clock is paused, and jumps to whatever ends the wait.

use std::{sync::atomic::Ordering, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use landbridge::{
    api::{Fingerprint, identity::ClusterId},
    peer::{auth::Session, certificates::Proven, client::Connector as _},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::Instant};
use tower::ServiceExt as _;

use crate::rig::{Cluster, connector, credentials, nobody};

#[tokio::test]
async fn a_handshake_that_does_not_come_is_waited_for_five_seconds() {
    let rome = Cluster::start().await;
    let mut silent = TcpStream::connect(rome.address).await.unwrap();
    let waited = seconds(silent.read_to_end(&mut Vec::new())).await;
    assert_eq!(waited, 5);
}

#[tokio::test]
async fn the_head_of_a_request_is_waited_for_five_seconds() {
    let rome = Cluster::start().await;
    let mut silent = nobody(rome.address, "http/1.1").await;
    let waited = seconds(silent.read_to_end(&mut Vec::new())).await;
    assert_eq!(waited, 5);
}

#[tokio::test]
async fn who_shows_no_certificate_stays_for_thirty_seconds() {
    let rome = Cluster::start().await;
    let stream = TokioIo::new(nobody(rome.address, "h2").await);
    let client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = client.handshake::<_, Body>(stream).await.unwrap();
    let waited = seconds(connection).await;
    assert_eq!(waited, 30);
    drop(sender);
}

#[tokio::test]
async fn who_waits_for_a_person_keeps_its_connection_and_so_its_digits() {
    let (rome, milan) = (Cluster::start().await, credentials());
    let connection = connector(&milan).connect(&rome.target()).await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_mins(40)).await;
    tokio::time::resume();
    connection.ids().await.expect("it is still there");
}

#[tokio::test]
async fn who_is_not_accepted_any_more_leaves_within_thirty_seconds() {
    let (rome, milan) = (Cluster::start().await, credentials());
    let id = milan.identity().cluster_id();
    rome.accept(id);
    let connection = connector(&milan).connect(&rome.target()).await.unwrap();
    connection.ids().await.unwrap();
    rome.desk.undecided.store(true, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(100)).await;
    tokio::time::resume();
    connection.ids().await.expect("nobody can say, so it stays");
    rome.desk.undecided.store(false, Ordering::SeqCst);
    rome.desk.accepted.lock().unwrap().remove(id);
    tokio::time::pause();
    let left = async {
        while !connection.is_closed() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let waited = Duration::from_secs(40);
    tokio::time::timeout(waited, left).await.expect("it leaves");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_ten_seconds() {
    let rome = Cluster::start().await;
    let id = ClusterId::from_spki(b"dawdler");
    rome.accept(&id);
    let http = rome.endpoint.in_session(Session {
        peer: Some(Proven {
            cluster_id: id,
            fingerprint: Fingerprint::from_spki(b"dawdler"),
        }),
        exporter: [0; 32],
        address: None,
    });
    for path in [
        "/identity",
        "/apis/discovery.liqo.io/v1alpha1/peeringrequests",
    ] {
        let nothing = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::post(path)
            .body(Body::from_stream(nothing))
            .unwrap();
        let http = http.clone();
        let answered = async {
            let answer = http.oneshot(request).await.unwrap();
            assert_eq!(answer.status(), 400, "{path}");
        };
        assert_eq!(seconds(answered).await, 10, "{path}");
    }
}

/// Does something on a paused clock and tells how long it took there, to the nearest second.
async fn seconds<T>(work: impl Future<Output = T>) -> u64 {
    tokio::time::pause();
    let start = Instant::now();
    work.await;
    let waited = start.elapsed() + Duration::from_millis(500);
    tokio::time::resume();
    waited.as_secs()
}
