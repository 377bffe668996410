//! What a peer that we ask can learn by breaking off, and what is owed to one that refuses.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    body::Body,
    http::{Request, Response},
};
use tower::util::BoxCloneSyncService;

use super::*;
use crate::{
    api::{Fingerprint, ForeignClusterSpec},
    controllers::enrolment::context,
    engine::peering::network,
    peer::{body, certificates::Proven, trust::FleetSecret},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_off_learns_few_of_our_nonces() {
    let (context, learnt) = (context().await, Arc::new(AtomicUsize::new(0)));
    let eve = eve(&learnt);
    let mut broken_off = 0;
    for _ in 0..1000 {
        let answer = introduce(&context, &eve, None).await;
        broken_off += usize::from(answer.is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let learnt = learnt.load(Ordering::SeqCst);
    assert_eq!(learnt, broken_off, "afterwards we ask without digits");
    assert!((3..12).contains(&learnt), "{learnt} nonces");
}

#[tokio::test]
async fn a_withdrawal_that_is_refused_is_owed_still() {
    let context = context().await;
    let object = ForeignCluster::new("milan", ForeignClusterSpec::default());
    for (code, is_withdrawn) in [(403, false), (503, false), (404, true)] {
        let connection = Arc::new(answering(code));
        let connected = connected(&connection);
        context.links.adopt("milan", connected, connection);
        close_session(&context, &object).await;
        let withdrawn = context.links.facts("milan").withdrawn;
        assert_eq!(withdrawn, is_withdrawn, "{code}");
    }
}

#[tokio::test]
async fn a_peer_hears_that_it_is_seen_under_no_range_any_more() {
    let context = context().await;
    let object = ForeignCluster::new("milan", ForeignClusterSpec::default());
    let (heard, mut patches) = tokio::sync::mpsc::channel(1);
    let service = tower::service_fn(move |request: Request<Body>| {
        let heard = heard.clone();
        async move {
            let bytes = body::read(request.into_body(), 4096, Duration::from_secs(1)).await;
            let patch: serde_json::Value = body::parse(&bytes.unwrap()).unwrap();
            heard.try_send(patch).unwrap();
            Ok(Response::builder().status(503).body(Body::empty()).unwrap())
        }
    });
    let connection = Connection::new(proven(), [7; 32], None, BoxCloneSyncService::new(service));
    context
        .links
        .adopt("milan", connected(&connection), Arc::new(connection));
    let network = network::own_network(&context.own, None);
    let session = HomeSession {
        network: Some(network),
        ..HomeSession::default()
    };
    tell(&context, &object, &ClusterName::default(), &session).await;
    let patch = patches.recv().await.unwrap();
    let seen = patch.pointer("/spec/session/network/podCIDRNAT");
    assert_eq!(seen, Some(&json!(null)));
}

#[tokio::test]
async fn a_peer_is_believed_the_secret_that_it_proves_and_no_other() {
    let mut context = Arc::into_inner(context().await).unwrap();
    let secret = FleetSecret::new(SECRET).unwrap();
    context.fleet = tokio::sync::watch::channel(Some(Arc::new(secret))).1;
    let (own_id, peer_id) = (context.own.cluster_id.clone(), proven().cluster_id);
    let shown = |secret: &str, role, session| {
        let secret = FleetSecret::new(secret).unwrap();
        secret.proof(role, &own_id, &peer_id, &[session; 32])
    };
    let other = SECRET.replace('0', "1");
    for (proof, evidence) in [
        (shown(SECRET, Role::Foreign, 7), Some(Evidence::FleetSecret)),
        (shown(&other, Role::Foreign, 7), None),
        (shown(SECRET, Role::Home, 7), None),
        (shown(SECRET, Role::Foreign, 8), None),
        (String::new(), None),
    ] {
        let peer = deciding(json!({"decision": "Accepted", "proof": proof}));
        let answer = introduce(&context, &peer, None).await.unwrap();
        assert_eq!(answer.evidence, evidence, "{proof}");
    }
}

#[tokio::test]
async fn a_peer_is_believed_the_token_that_it_gave_us_and_no_other() {
    let context = context().await;
    let (own_id, peer) = (&context.own.cluster_id, deciding(json!(null)));
    let token = TokenHash::of(SECRET).unwrap();
    let other = TokenHash::of(&SECRET.replace('0', "1")).unwrap();
    let peer_id = &peer.proven.cluster_id;
    for (shown, role, session, known) in [
        (&token, Role::Foreign, 7, true),
        (&other, Role::Foreign, 7, false),
        (&token, Role::Home, 7, false),
        (&token, Role::Foreign, 8, false),
    ] {
        let proof = token::proof(shown, role, own_id, peer_id, &[session; 32]);
        let answer = json!({"decision": "Accepted", "tokenProof": proof});
        let answer: IdentityAnswer = serde_json::from_value(answer).unwrap();
        assert_eq!(knows_token(&context, &peer, &answer, &token), known);
    }
}

#[tokio::test]
async fn a_peer_that_is_busy_is_asked_later_on_the_same_connection() {
    let context = context().await;
    let object = ForeignCluster::new("milan", ForeignClusterSpec::default());
    let ask = async |peer: Connection| {
        let connection = Arc::new(peer);
        let present = context.links.facts("milan").answer;
        let connected = connected(&connection);
        context.links.adopt("milan", connected, connection);
        if let Some(answer) = present {
            context.links.answered("milan", answer);
        }
        identify(&context, &object).await;
        context.links.facts("milan")
    };
    let link = ask(answering(429)).await;
    assert!(link.connected.is_none(), "nothing is known of it yet");
    let link = ask(deciding(json!({"decision": "Accepted"}))).await;
    assert!(link.answer.is_some());
    context.links.recorded("milan");
    let link = ask(answering(429)).await;
    assert!(link.connected.is_some() && link.failures.is_empty());
    let answer = link.answer.unwrap();
    let after = answer.ask_again.duration_since(context.now());
    assert!(after >= SignedDuration::from_secs(1), "{after:?}");
    assert_eq!(
        (answer.decision, answer.recorded),
        (Decision::Accepted, false)
    );
}

/// A peer that decides so.
fn deciding(answer: serde_json::Value) -> Connection {
    let service = tower::service_fn(move |_: Request<Body>| {
        let answer = Body::from(answer.to_string());
        async move { Ok(Response::builder().status(201).body(answer).unwrap()) }
    });
    Connection::new(proven(), [7; 32], None, BoxCloneSyncService::new(service))
}

/// A peer that gives everything the same answer.
fn answering(code: u16) -> Connection {
    let service = tower::service_fn(move |_: Request<Body>| {
        let status = json!({"kind": "Status", "status": "Failure", "code": code});
        let answer = Response::builder().status(code);
        async move { Ok(answer.body(Body::from(status.to_string())).unwrap()) }
    });
    Connection::new(proven(), [7; 32], None, BoxCloneSyncService::new(service))
}

/// A peer that takes part in each exchange until it knows the code.
fn eve(learnt: &Arc<AtomicUsize>) -> Connection {
    let learnt = Arc::clone(learnt);
    let service = tower::service_fn(move |request: Request<Body>| {
        let learnt = Arc::clone(&learnt);
        async move {
            let bytes = body::read(request.into_body(), 4096, Duration::from_secs(1)).await;
            let asked: IdentityRequest = body::parse(&bytes.unwrap()).unwrap();
            if asked.nonce.is_some() {
                learnt.fetch_add(1, Ordering::SeqCst);
                return Ok(Response::builder().status(503).body(Body::empty()).unwrap());
            }
            let nonce = asked.commitment.map(|_| Nonce::generate().unwrap());
            let answer = json!({"decision": "Waiting", "nonce": nonce.map(Nonce::to_text)});
            let answer = Body::from(answer.to_string());
            Ok(Response::builder().status(202).body(answer).unwrap())
        }
    });
    Connection::new(proven(), [7; 32], None, BoxCloneSyncService::new(service))
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
        cluster_id: ClusterId::from_spki(b"eve"),
        fingerprint: Fingerprint::from_spki(b"eve"),
    }
}
