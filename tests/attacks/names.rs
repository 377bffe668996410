//! A cluster whose names and messages are written for the terminal that shows them.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::StatusCode,
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use landbridge::peer::{
    client::Connector as _,
    tls::{Credentials, server_config},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    eve::{PORT, announce},
    lab::Lab,
    rig::{connector, credentials, target},
};

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(40);
/// Moves the cursor, colours, writes a title, rings, turns the direction of what follows.
const NAME: &str = "ev\u{1b}[2J\u{1b}]0;owned\u{7}e\r\n\u{202e}\u{2066}\u{61c}\u{200b}\u{2028}\u{e0041}\u{feff}\u{9b}31m";
const WORDS: &str =
    "\u{1b}[1A\u{1b}[2KINFO all is well\u{202e}\n2026-11-21 ERROR forged line\u{8}\u{0}";

#[test]
fn names_and_messages_steer_no_terminal() {
    let Some(lab) = Lab::new(&["milan", "eve"]) else {
        return;
    };
    lab.start("milan");
    let stop = CancellationToken::new();
    let (stopped, address) = (stop.clone(), lab.address("eve"));
    let milan = SocketAddr::from((lab.address("milan"), PORT));
    let liar = credentials();
    let id = liar.identity().cluster_id().to_string();
    let announced = id.clone();
    let eve = lab.beside("eve", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async move {
            let listener = TcpListener::bind((address, PORT)).await.unwrap();
            tokio::select! {
                () = stopped.cancelled() => {}
                () = announce(address, Some(announced)) => {}
                () = serve(listener, Arc::clone(&liar)) => {}
                () = visit(milan, liar) => {}
            }
        });
    });
    let object = lab.until(PATIENCE, "milan has asked the liar", || {
        let all = lab.peers("milan").into_iter();
        let mut all =
            all.filter(|object| object["spec"]["clusterIdentity"]["clusterID"] == id.as_str());
        all.next()
            .filter(|object| object["status"]["authStatus"] == "Refused")
    });
    let name = object["spec"]["clusterIdentity"]["clusterName"].as_str();
    assert!(
        name.is_some_and(|name| name.contains("owned")),
        "the name came through: {object}"
    );
    for (what, text) in shown(&lab) {
        assert!(!text.is_empty(), "{what}");
        let mut characters = text.chars().filter(|character| *character != '\n');
        let bad = characters.find(|character| deceives(*character));
        assert_eq!(bad, None, "in {what}: {text:?}");
        let mut lines = text.lines();
        let forged = lines.any(|line| line.starts_with("2026-11-21 ERROR forged"));
        assert!(!forged, "in {what}: {text}");
    }
    stop.cancel();
    eve.join().unwrap();
}

/// What a person looks at.
fn shown(lab: &Lab) -> [(&'static str, String); 6] {
    let all = |objects: Vec<Value>| objects.iter().map(ToString::to_string).collect();
    [
        ("log", fs::read_to_string(lab.log("milan")).unwrap()),
        ("status", lab.landbridge("milan", &["status"])),
        ("get", lab.landbridge("milan", &["get", "-o", "wide"])),
        ("yaml", lab.landbridge("milan", &["get", "-o", "yaml"])),
        ("objects", all(lab.peers("milan"))),
        ("events", all(lab.list("milan", "/api/v1/events"))),
    ]
}

fn deceives(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A cluster that proves its key, and lies about everything else.
async fn serve(listener: TcpListener, liar: Arc<Credentials>) {
    let id = liar.identity().cluster_id().to_string();
    let ids = json!({"clusterId": id, "clusterName": NAME, "guestNamespace": WORDS,
        "landbridge": {"protocol": 1, "version": WORDS, "features": [WORDS]}});
    let refusal = json!({"decision": "Refused", "message": WORDS, "proof": WORDS});
    let router: Router = Router::new()
        .route("/ids", get(async move || Json(ids)))
        .route(
            "/identity",
            post(async move || (StatusCode::FORBIDDEN, Json(refusal))),
        );
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&liar).unwrap()));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
    }
}

/// Asks a cluster to be accepted, under a name for terminals.
async fn visit(milan: SocketAddr, liar: Arc<Credentials>) {
    let body = json!({
        "clusterID": liar.identity().cluster_id(),
        "clusterName": NAME,
        "authUrl": format!("https://{WORDS}"),
        "message": WORDS,
    })
    .to_string();
    loop {
        let _ = ask(milan, &liar, &body).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn ask(milan: SocketAddr, liar: &Arc<Credentials>, body: &str) -> std::io::Result<()> {
    let (mut config, _) = landbridge::peer::tls::client_config(liar, None).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(milan).await?;
    let name = rustls::pki_types::ServerName::from(milan.ip());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await?;
    let head = format!(
        "POST /identity HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

#[tokio::test]
async fn a_peer_that_claims_another_id_than_it_proved_is_not_heard() {
    let liar = credentials();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = credentials();
    let claimed = other.identity().cluster_id().to_string();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&liar).unwrap()));
    let router: Router = Router::new().route(
        "/ids",
        get(async move || Json(json!({"clusterId": claimed, "clusterName": "rome"}))),
    );
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let service = TowerToHyperService::new(router);
        let builder = auto::Builder::new(TokioExecutor::new());
        let _ = builder
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
    let connection = connector(&credentials())
        .connect(&target(address))
        .await
        .unwrap();
    let error = connection.ids().await.unwrap_err();
    assert_eq!(error.reason(), "IdentityMismatch", "{error}");
}
