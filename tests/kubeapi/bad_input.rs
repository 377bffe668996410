//! Input that no honest client sends: a clear refusal, and nobody else notices.

use crate::rig::{CLUSTERS, Server, cluster, post, send};
use kube::Client;
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const YAML: (&str, &str) = ("content-type", "application/yaml");

async fn refused(client: &Client, header: (&str, &str), body: impl Into<Vec<u8>>) -> u16 {
    let answer = send(client, "POST", CLUSTERS, &[header], body).await;
    assert_eq!(answer.json()["kind"], "Status", "{answer:?}");
    assert_eq!(answer.json()["code"], answer.status.as_u16());
    answer.status.as_u16()
}

fn deep(depth: usize) -> String {
    let spec = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    format!(
        r#"{{"apiVersion":"discovery.lb.test/v1alpha1","kind":"LbCluster","metadata":{{"name":"deep"}},"spec":{spec}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_a_million_levels_deep_is_refused() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    assert_eq!(refused(&admin, JSON, deep(1_000_000)).await, 400);
    assert_eq!(refused(&admin, YAML, deep(1_000_000)).await, 400);
    let path = format!("{CLUSTERS}/deep?fieldManager=m");
    for patch in [
        "application/apply-patch+yaml",
        "application/merge-patch+json",
        "application/json-patch+json",
    ] {
        let headers = [("content-type", patch)];
        let answer = send(&admin, "PATCH", &path, &headers, deep(1_000_000)).await;
        assert_eq!(answer.status, 400, "{patch}");
    }
    assert_eq!(post(&admin, CLUSTERS, &cluster("after")).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_ten_megabytes_is_refused() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let mut large = cluster("large");
    large["spec"]["authUrl"] = json!("x".repeat(10_000_000));
    assert_eq!(refused(&admin, JSON, large.to_string()).await, 413);
    assert_eq!(post(&admin, CLUSTERS, &cluster("after")).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_labels_are_kept_like_few() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let mut many = cluster("many");
    for number in 0..10_000 {
        many["metadata"]["labels"][format!("label-{number}")] = json!("x");
    }
    assert_eq!(post(&admin, CLUSTERS, &many).await.status, 201);
    let path = format!("{CLUSTERS}?labelSelector=label-9999%3Dx");
    let found = send(&admin, "GET", &path, &[], "").await.json();
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let wide = (0..4_000)
        .map(|number| format!("label-{number}"))
        .collect::<Vec<_>>();
    let path = format!("{CLUSTERS}?labelSelector={}", wide.join(","));
    let answer = send(&admin, "GET", &path, &[], "").await;
    assert!(
        [200, 414, 431].contains(&answer.status.as_u16()),
        "{}",
        answer.status
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_text_is_refused() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    assert_eq!(
        refused(&admin, JSON, b"{\"kind\": \"\xff\xfe\"}".to_vec()).await,
        400
    );
    assert_eq!(refused(&admin, YAML, b"kind: \xff\xfe".to_vec()).await, 400);
    for path in [
        "/%ff%fe",
        "/apis/%00/v1/x",
        "/api/v1/namespaces/%2e%2e/configmaps/a",
    ] {
        let answer = send(&admin, "GET", path, &[], "").await;
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yaml_bomb_does_not_go_off() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let items = [before.as_str(); 9].join(",");
        let line = format!("a{level}: &a{level} [{items}]\n");
        bomb.push_str(&line);
    }
    bomb += "kind: LbCluster\n";
    assert_eq!(refused(&admin, YAML, bomb).await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_half_open_connections_hold_up_nobody() {
    let server = Server::start().await;
    let address = server.url.trim_start_matches("https://").to_owned();
    let mut open = Vec::new();
    for _ in 0..2_000 {
        match TcpStream::connect(&address).await {
            Ok(stream) => open.push(stream),
            Err(error) => {
                println!(
                    "skipped: only {} connections can be opened: {error}",
                    open.len()
                );
                return;
            }
        }
    }
    let admin = server.client("admin", &[]).await;
    assert_eq!(post(&admin, CLUSTERS, &cluster("a")).await.status, 201);
    let whole = vec![0x16; 3];
    for stream in open.iter_mut().rev().take(100) {
        // The first bytes of a handshake that never goes on.
        stream.write_all(&whole).await.unwrap();
    }
    assert_eq!(post(&admin, CLUSTERS, &cluster("b")).await.status, 201);
    let mut first = open.swap_remove(0);
    let closed = timeout(Duration::from_mins(1), first.read(&mut [0])).await;
    assert!(closed.is_ok(), "the oldest connection is still open");
}
