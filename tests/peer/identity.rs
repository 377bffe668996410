//! `/ids` and `/identity`: who is told what, and how a decision travels.

use std::{net::SocketAddr, sync::atomic::Ordering};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use landbridge::{
    api::{
        Fingerprint,
        identity::ClusterId,
        labels::reason,
        wire::{Decision, Token},
    },
    peer::{
        auth::Session,
        certificates::Proven,
        client::{ConnectError, Connector as _},
        trust::{FleetSecret, Role},
    },
};
use serde_json::json;
use tower::ServiceExt as _;

use crate::rig::{Cluster, SECRET, connector, request};

#[tokio::test]
async fn a_decision_arrives_as_it_was_made() {
    let (rome, milan) = (Cluster::start().await, Cluster::start().await);
    let connection = connector(&milan.credentials)
        .connect(&rome.target())
        .await
        .unwrap();
    for decision in [
        Decision::Waiting,
        Decision::Refused,
        Decision::EmptyRefused,
        Decision::Accepted,
    ] {
        *rome.desk.otherwise.lock().unwrap() = decision;
        let answer = connection.identify(&request(milan.id())).await.unwrap();
        assert_eq!(answer.decision, decision);
        assert_eq!(answer.message, "as decided");
    }
}

#[tokio::test]
async fn who_asks_in_the_name_of_another_is_refused_unheard() {
    let (rome, milan) = (Cluster::start().await, Cluster::start().await);
    rome.accept(&ClusterId::from_spki(b"somebody"));
    let connection = connector(&milan.credentials)
        .connect(&rome.target())
        .await
        .unwrap();
    let named = request(&ClusterId::from_spki(b"somebody"));
    let answer = connection.identify(&named).await.unwrap();
    assert_eq!(answer.decision, Decision::Refused);
    assert_eq!(rome.desk.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_fleet_secret_is_proven_by_both_and_only_in_this_session() {
    let (rome, milan) = (Cluster::start().await, Cluster::start().await);
    let fleet = FleetSecret::new(SECRET).unwrap();
    let dial = async || {
        let connector = connector(&milan.credentials);
        connector.connect(&rome.target()).await.unwrap()
    };
    let (connection, other) = (dial().await, dial().await);
    assert_ne!(connection.exporter, other.exporter);
    let proof = |role, exporter| fleet.proof(role, milan.id(), rome.id(), exporter);

    let mut asked = request(milan.id());
    for wrong in [
        proof(Role::Home, &other.exporter),
        proof(Role::Foreign, &connection.exporter),
        "0".repeat(64),
    ] {
        asked.proof = Some(wrong);
        let answer = connection.identify(&asked).await.unwrap();
        assert_eq!((answer.decision, answer.proof), (Decision::Waiting, None));
    }
    asked.proof = Some(proof(Role::Home, &connection.exporter));
    let answer = connection.identify(&asked).await.unwrap();
    assert_eq!(answer.decision, Decision::Accepted);
    let returned = answer.proof.unwrap();
    let session = &connection.exporter;
    assert!(fleet.verify(&returned, Role::Foreign, milan.id(), rome.id(), session));
    assert!(!fleet.verify(&returned, Role::Home, milan.id(), rome.id(), session));
}

#[tokio::test]
async fn a_token_can_be_guessed_five_times_and_then_not_for_a_while() {
    let (rome, milan) = (Cluster::start().await, Cluster::start().await);
    *rome.desk.otherwise.lock().unwrap() = Decision::Refused;
    let connection = connector(&milan.credentials)
        .connect(&rome.target())
        .await
        .unwrap();
    let mut guess = request(milan.id());
    guess.token = Some(Token("guess".to_owned()));
    let mut busy = 0;
    for _ in 0..20 {
        match connection.identify(&guess).await {
            Ok(answer) => assert_eq!(answer.decision, Decision::Refused),
            Err(ConnectError::Busy { .. }) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(busy, 15);
    assert_eq!(rome.desk.asked.load(Ordering::SeqCst), 5);
    guess.token = None;
    assert!(
        connection.identify(&guess).await.is_ok(),
        "asking is not guessing"
    );
}

#[tokio::test]
async fn a_source_asks_thirty_times_at_once_and_then_has_to_wait() {
    let (rome, eve) = (Cluster::start().await, ClusterId::from_spki(b"eve"));
    for path in ["/identity", "/ids?attestation=webpki"] {
        let mut busy = 0;
        for _ in 0..100 {
            busy += usize::from(ask(&rome, path, &eve, [192, 0, 2, 9]).await == 429);
        }
        assert!(busy >= 50, "{path}: {busy} of 100");
    }
    assert_eq!(ask(&rome, "/ids", &eve, [192, 0, 2, 9]).await, 200);
}

#[tokio::test]
async fn however_many_strangers_ask_an_accepted_peer_is_answered() {
    let rome = Cluster::start().await;
    let (eve, milan) = (ClusterId::from_spki(b"eve"), ClusterId::from_spki(b"milan"));
    rome.accept(&milan);
    let mut busy = 0;
    for index in 0..1000_u16 {
        let [high, low] = index.to_be_bytes();
        let code = ask(&rome, "/identity", &eve, [10, 0, high, low]).await;
        busy += usize::from(code == 429);
    }
    assert!(busy > 0, "all together are too many");
    for _ in 0..5 {
        let code = ask(&rome, "/identity", &milan, [10, 0, 0, 1]).await;
        assert_eq!(code, 201);
    }
}

#[tokio::test]
async fn a_peer_that_is_accepted_asks_only_so_often_too() {
    let (rome, milan) = (Cluster::start().await, ClusterId::from_spki(b"milan"));
    rome.accept(&milan);
    let mut busy = 0;
    for _ in 0..100 {
        busy += usize::from(ask(&rome, "/identity", &milan, [10, 0, 0, 1]).await == 429);
    }
    assert!(busy >= 50, "{busy} of 100");
}

#[tokio::test]
async fn a_stranger_at_the_gateway_is_looked_up_only_so_often() {
    let (rome, eve) = (Cluster::start().await, ClusterId::from_spki(b"eve"));
    let path = "/apis/discovery.liqo.io/v1alpha1/peeringrequests";
    for index in 0..300 {
        let code = ask(&rome, path, &eve, [192, 0, 2, 9]).await;
        assert!(code == 403 || code == 429, "{code}");
        assert!(index > 0 || code == 403, "the first one is answered");
    }
    let looked_up = rome.desk.looked_up.load(Ordering::SeqCst);
    assert!(looked_up <= 100, "{looked_up} times");
    rome.accept(&eve);
    assert_eq!(ask(&rome, path, &eve, [192, 0, 2, 9]).await, 200);
}

/// Asks as a proven cluster at an address, and returns the status.
async fn ask(rome: &Cluster, path: &str, id: &ClusterId, address: [u8; 4]) -> u16 {
    let session = Session {
        peer: Some(Proven {
            cluster_id: id.clone(),
            fingerprint: Fingerprint::from_spki(id.as_str().as_bytes()),
        }),
        exporter: [0; 32],
        address: Some(SocketAddr::from((address, 1000))),
    };
    let http = rome.endpoint.in_session(session);
    let asked = if path == "/identity" {
        let body = serde_json::to_vec(&request(id)).unwrap();
        Request::post(path).body(Body::from(body))
    } else {
        Request::get(path).body(Body::empty())
    };
    http.oneshot(asked.unwrap()).await.unwrap().status().into()
}

#[tokio::test]
async fn ids_that_are_not_the_proven_ones_are_a_lie() {
    let (rome, milan) = (Cluster::start().await, Cluster::start().await);
    let liar = landbridge::peer::client::Connection::new(
        Proven {
            cluster_id: milan.id().clone(),
            fingerprint: milan.credentials.identity().fingerprint().clone(),
        },
        [0; 32],
        None,
        rome.endpoint.in_session(session(None)),
    );
    let error = liar.ids().await.unwrap_err();
    assert_eq!(error.reason(), reason::IDENTITY_MISMATCH);
}

#[tokio::test]
async fn every_path_answers_with_the_status_of_the_table() {
    let rome = Cluster::start().await;
    let milan = ClusterId::from_spki(b"milan");
    let body = |id: &ClusterId| json!({"clusterID": id}).to_string();
    let deep = format!(
        r#"{{"clusterID":"{milan}","x":{}{}}}"#,
        "[".repeat(40),
        "]".repeat(40)
    );
    let pr = "/apis/discovery.liqo.io/v1alpha1/peeringrequests";
    let long = json!({"clusterID": milan, "token": "x".repeat(600)}).to_string();
    let url = json!({"clusterID": milan, "authUrl": "http://10.0.0.1"}).to_string();
    let table = [
        (false, "GET", "/ids", String::new(), 200),
        (true, "GET", "/ids", String::new(), 200),
        (false, "POST", "/identity", body(&milan), 403),
        (true, "POST", "/identity", body(&milan), 202),
        (
            true,
            "POST",
            "/identity",
            body(&ClusterId::from_spki(b"x")),
            403,
        ),
        (true, "POST", "/identity", "nonsense".to_owned(), 400),
        (true, "POST", "/identity", String::new(), 400),
        (true, "POST", "/identity", " ".repeat(70_000), 400),
        (true, "POST", "/identity", deep, 400),
        (true, "POST", "/identity", long, 400),
        (true, "POST", "/identity", url, 400),
        (false, "GET", pr, String::new(), 403),
        (true, "GET", pr, String::new(), 403),
        (true, "GET", "/apis", String::new(), 403),
        (true, "GET", "/api/v1/secrets", String::new(), 403),
        (true, "POST", "/ids", String::new(), 404),
        (true, "GET", "/identity", String::new(), 404),
        (true, "GET", "/", String::new(), 404),
        (true, "GET", "/metrics", String::new(), 404),
    ];
    for (certificate, method, path, body, expected) in table {
        let session = session(certificate.then(|| milan.clone()));
        // Liqo sends its JSON as text/plain.
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "text/plain")
            .body(Body::from(body.clone()))
            .unwrap();
        let response = rome.endpoint.in_session(session).oneshot(request).await;
        let status = response.unwrap().status();
        let body: String = body.chars().take(60).collect();
        assert_eq!(
            status.as_u16(),
            expected,
            "{certificate} {method} {path} {body}"
        );
    }
}

#[tokio::test]
async fn a_request_without_a_session_is_a_strangers() {
    let rome = Cluster::start().await;
    let request = Request::post("/identity").body(Body::empty()).unwrap();
    let response = rome.endpoint.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

fn session(peer: Option<ClusterId>) -> Session {
    Session {
        peer: peer.map(|cluster_id| Proven {
            fingerprint: Fingerprint::from_spki(cluster_id.as_str().as_bytes()),
            cluster_id,
        }),
        exporter: [0; 32],
        address: None,
    }
}
