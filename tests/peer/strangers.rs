//! Ends that answer with anything but our language, and clients that only want to stay.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, http::Request, response::IntoResponse as _, routing::any};
use hyper_util::rt::TokioIo;
use landbridge::{
    api::labels::reason,
    peer::{
        client::{ConnectError, Connection, Connector as _},
        tls::server_config,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::rig::{Cluster, connector, credentials, nobody, target, was_connected};

#[tokio::test]
async fn what_speaks_no_tls_is_not_a_peer_or_not_reachable() {
    for (said, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n{}", reason::INVALID_ANSWER),
        ("\0\u{1}garbage\n\n\n\n\n\n\n\n", reason::INVALID_ANSWER),
        ("SSH-2.0-OpenSSH_9.2\r\n", reason::INVALID_ANSWER),
        ("", reason::UNREACHABLE),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let result = connector(&credentials()).connect(&target(address)).await;
        let error = result.unwrap_err();
        assert_eq!(error.reason(), expected, "{said:?}: {error}");
    }
}

#[tokio::test]
async fn a_closed_port_cannot_be_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let result = connector(&credentials()).connect(&target(address)).await;
    assert!(matches!(result, Err(ConnectError::Unreachable { .. })));
}

#[tokio::test]
async fn silence_is_waited_for_only_so_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let result = connector(&credentials()).connect(&target(address)).await;
    assert!(matches!(result, Err(ConnectError::Timeout { .. })));
}

#[tokio::test]
async fn a_proven_peer_that_answers_wrongly_is_not_a_peer() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("https://{}/ids", elsewhere.local_addr().unwrap());
    let answers: [(&str, axum::response::Response); 6] = [
        (
            "redirect",
            (axum::http::StatusCode::FOUND, [("location", location)]).into_response(),
        ),
        (
            "error",
            axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        ),
        ("html", "<html></html>".into_response()),
        ("large", "{".repeat(1 << 20).into_response()),
        ("deep", "[".repeat(10_000).into_response()),
        (
            "encoded",
            (
                [("content-encoding", "gzip")],
                [0x1f_u8, 0x8b, 8, 0].to_vec(),
            )
                .into_response(),
        ),
    ];
    for (name, answer) in answers {
        let connection = serve_http(answer).await;
        let error = connection.ids().await.unwrap_err();
        assert_eq!(error.reason(), reason::INVALID_ANSWER, "{name}: {error}");
    }
    assert!(!was_connected(elsewhere));
}

#[tokio::test]
async fn a_proven_peer_that_speaks_no_http_is_not_a_peer() {
    for version in ["http/1.1", "h2"] {
        let mut config = server_config(&credentials()).unwrap();
        config.alpn_protocols = vec![version.into()];
        let (listener, address) = bind().await;
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(stream).await.unwrap();
            let _ = stream.read(&mut [0; 512]).await;
            stream
                .write_all(b"this is neither of the languages\r\n\r\n")
                .await
                .unwrap();
            stream.flush().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let connector = connector(&credentials());
        let connection = connector.connect(&target(address)).await.unwrap();
        let error = connection.ids().await.unwrap_err();
        assert_eq!(error.reason(), reason::INVALID_ANSWER, "{version}: {error}");
    }
}

#[tokio::test]
async fn a_plain_https_client_reads_ids_over_http_1() {
    let rome = Cluster::start().await;
    let mut stream = nobody(rome.address, "http/1.1").await;
    stream
        .write_all(b"GET /ids HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#""guestNamespace":"liqo""#), "{answer}");
    let mut stream = nobody(rome.address, "http/1.1").await;
    stream
        .write_all(b"POST /identity HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 403"));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let rome = Cluster::start().await;
    let mut stream = nobody(rome.address, "http/1.1").await;
    let head = format!(
        "GET /ids HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(40_000)
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn one_address_has_few_places_until_it_is_accepted() {
    let rome = Cluster::start().await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(rome.address).await.unwrap());
    }
    let mut ninth = TcpStream::connect(rome.address).await.unwrap();
    let end = ninth.read(&mut [0; 1]).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    drop(silent);
    let own = credentials();
    while connector(&own).connect(&rome.target()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_accepted_peer_does_not_take_strangers_places() {
    let (rome, milan) = (Cluster::start().await, credentials());
    rome.accept(milan.identity().cluster_id());
    let mut connections = Vec::new();
    for _ in 0..20 {
        let connection = connector(&milan).connect(&rome.target()).await.unwrap();
        connection.ids().await.unwrap();
        connections.push(connection);
    }
}

#[tokio::test]
async fn an_accepted_peer_has_few_places_too() {
    let (rome, milan) = (Cluster::start().await, credentials());
    rome.accept(milan.identity().cluster_id());
    let mut connections = Vec::new();
    for _ in 0..100 {
        let connected = connector(&milan).connect(&rome.target()).await;
        let Ok(connection) = connected else { break };
        if connection.ids().await.is_err() {
            break;
        }
        connections.push(connection);
    }
    // Its own, and those of a stranger at its address.
    assert_eq!(connections.len(), 32 + 8);
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Connects to a peer that proves itself and then answers everything with one answer.
async fn serve_http(answer: axum::response::Response) -> Connection {
    let (listener, address) = bind().await;
    let config = server_config(&credentials()).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config))
            .accept(stream)
            .await
            .unwrap();
        let answer = Arc::new(std::sync::Mutex::new(Some(answer)));
        let router: Router = Router::new().fallback(any(async move |_: Request<Body>| {
            answer.lock().unwrap().take().unwrap()
        }));
        let service = hyper_util::service::TowerToHyperService::new(router);
        let builder =
            hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
        let _ = builder
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
    connector(&credentials())
        .connect(&target(address))
        .await
        .unwrap()
}
