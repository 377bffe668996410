//! Who connects to the peer endpoint only to stay, to dawdle or to break off: others are served.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::http::Request;
use landbridge::peer::client::Connector as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    crowd::crowd,
    eve::PORT,
    lab::Lab,
    rig::{Cluster, connector, credentials, nobody},
};

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many addresses the hostile machine has.
const ADDRESSES: u8 = 40;

#[test]
fn two_thousand_half_open_and_dawdling_connections_keep_no_peer_out() {
    let Some(lab) = Lab::new(&["rome", "milan", "eve"]) else {
        return;
    };
    let addresses: Vec<_> = (100..100 + ADDRESSES)
        .map(|last| Ipv4Addr::new(10, 77, 0, last))
        .collect();
    for address in &addresses {
        lab.ip(Some("eve"), &format!("address add {address}/24 dev eth0"));
    }
    lab.start("rome");
    let stop = CancellationToken::new();
    let (target, stopped) = (SocketAddr::from((lab.address("rome"), PORT)), stop.clone());
    let besiegers = lab.beside("eve", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = crowd(target, &addresses) => {}
            }
        });
    });
    // The crowd has every place of a stranger before the honest one comes.
    lab.until(PATIENCE, "rome is besieged", || {
        let sockets = lab.output(
            "rome",
            &["ss", "-Htn", "state", "established", "sport", "=", ":5870"],
        );
        (sockets.lines().count() >= 128).then_some(())
    });
    lab.start("milan");
    lab.until_peered_with("milan", "rome");
    lab.until_peered_with("rome", "milan");
    stop.cancel();
    besiegers.join().unwrap();
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_with_their_connection() {
    let rome = Cluster::start().await;
    let stream = nobody(rome.address, "h2").await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let mut opened = 0;
    for _ in 0..50_000 {
        let Ok(ready) = client.ready().await else {
            break;
        };
        client = ready;
        let request = Request::post("https://rome/identity").body(()).unwrap();
        let Ok((_, mut body)) = client.send_request(request, false) else {
            break;
        };
        body.send_reset(h2::Reason::CANCEL);
        opened += 1;
        tokio::task::yield_now().await;
    }
    assert!(opened < 50_000, "it was let go on");
    let ended = timeout(PATIENCE, ended).await.unwrap().unwrap();
    assert!(ended.is_err(), "the connection is ended: {ended:?}");
    assert_serves(&rome).await;
}

#[tokio::test]
async fn a_connection_has_few_streams_and_small_heads() {
    let rome = Cluster::start().await;
    let stream = nobody(rome.address, "h2").await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // The server's settings come with its first answer.
    let request = Request::get("https://rome/ids").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    assert_eq!(client.current_max_send_streams(), 32);
    let large = Request::get("https://rome/ids").header("x", "y".repeat(40_000));
    let answer = match client.send_request(large.body(()).unwrap(), true) {
        Ok((answer, _)) => answer.await.map(|answer| answer.status().as_u16()),
        Err(error) => Err(error),
    };
    assert!(matches!(answer, Err(_) | Ok(400..)), "{answer:?}");
    assert_serves(&rome).await;
}

/// A head that never ends (CVE-2024-27316): CONTINUATION after CONTINUATION, without END_HEADERS.
#[tokio::test]
async fn a_head_without_end_is_ended() {
    let rome = Cluster::start().await;
    let mut stream = nobody(rome.address, "h2").await;
    let frame = |kind: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
    };
    let start = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &frame(4, 0, &[]),
    ]
    .concat();
    stream.write_all(&start).await.unwrap();
    // A literal header field without indexing (RFC 7541, section 6.2.2): "x: yyy...".
    let field = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat().repeat(150);
    let mut sent = 0;
    let mut kind = 1;
    while sent < 1_000 && stream.write_all(&frame(kind, 1, &field)).await.is_ok() {
        kind = 9;
        sent += 1;
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection is ended");
    assert!(sent < 1_000, "{sent} frames were taken");
    assert_serves(&rome).await;
}

async fn assert_serves(rome: &Cluster) {
    let connection = connector(&credentials()).connect(&rome.target()).await;
    connection.unwrap().ids().await.unwrap();
}
