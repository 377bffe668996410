//! Input that no honest client sends: a clear refusal, and nobody else notices.

use crate::rig::{self, CLUSTERS, Server, cluster, merge, post, raw, send};
use kube::Client;
use serde_json::{Value, json};
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

pub(crate) fn deep(depth: usize) -> String {
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
async fn a_json_patch_that_grows_without_end_is_refused() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    post(&admin, CLUSTERS, &cluster("a")).await;
    let before = send(&admin, "GET", CLUSTERS, &[], "").await.json();
    let begun = json!({"op": "add", "path": "/x", "value": {"a": {}}});
    let doubled: Vec<Value> = (0..30)
        .map(|n| json!({"op": "copy", "from": "/x", "path": format!("/x/{n}")}))
        .collect();
    let deeper: Vec<Value> = (0..20)
        .map(|n| {
            let path = "/a".repeat(2_usize.pow(n.min(12)));
            json!({"op": "copy", "from": "/x", "path": format!("/x{path}")})
        })
        .collect();
    let headers = [("content-type", "application/json-patch+json")];
    for (bomb, code) in [(doubled, 413), (deeper, 400)] {
        let patch = json!([std::slice::from_ref(&begun), bomb.as_slice()].concat());
        let path = format!("{CLUSTERS}/a");
        let answer = send(&admin, "PATCH", &path, &headers, patch.to_string()).await;
        assert_eq!(answer.status, code, "{answer:?}");
        assert_eq!(answer.json()["kind"], "Status");
    }
    let after = send(&admin, "GET", CLUSTERS, &[], "").await.json();
    assert_eq!(before["items"], after["items"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_nobody_could_read_is_refused() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.test"}, "spec": {"group": "sea.test", "scope": "Cluster",
            "names": {"kind": "Boat", "plural": "boats"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(post(&admin, definitions, &definition).await.status, 201);
    let boat = |depth: usize| {
        let hull = (0..depth).fold(json!("end"), |inner, _| json!({"a": inner}));
        json!({"apiVersion": "sea.test/v1", "kind": "Boat", "metadata": {"name": "deep"}, "hull": hull})
    };
    let boats = "/apis/sea.test/v1/boats";
    assert_eq!(post(&admin, boats, &boat(110)).await.status, 400);
    assert_eq!(post(&admin, boats, &boat(90)).await.status, 201);
    let mut large = cluster("large");
    large["spec"]["authUrl"] = json!("x".repeat(2_000_000));
    assert_eq!(post(&admin, CLUSTERS, &large).await.status, 413);
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
async fn an_object_that_only_its_managers_make_too_large_loses_them() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let data: serde_json::Map<String, Value> = (0..60_000)
        .map(|number| (format!("k{number}"), json!("")))
        .collect();
    let many = json!({"metadata": {"name": "many", "finalizers": ["x.test/held"]}, "data": data});
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(post(&admin, maps, &many).await.status, 201);
    let freed = json!({"metadata": {"finalizers": null}});
    let answer = merge(&admin, &format!("{maps}/many"), &freed).await;
    assert_eq!(answer.status, 200, "{}", answer.status);
    assert_eq!(answer.json()["data"].as_object().unwrap().len(), 60_000);
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
    assert_eq!(refused(&admin, YAML, yaml_bomb()).await, 400);
    assert_eq!(post(&admin, CLUSTERS, &cluster("after")).await.status, 201);
}

/// Nine times as much with each line.
pub(crate) fn yaml_bomb() -> String {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let items = [before.as_str(); 9].join(",");
        let line = format!("a{level}: &a{level} [{items}]\n");
        bomb.push_str(&line);
    }
    bomb + "kind: LbCluster\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stands_twice_is_refused_or_the_last_counts() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let twice = |count: usize| {
        let keys = r#""authUrl":"https://y","#.repeat(count);
        format!(
            r#"{{"apiVersion":"discovery.lb.test/v1alpha1","kind":"LbCluster","metadata":{{"name":"a"}},"spec":{{{keys}"authUrl":"https://x"}}}}"#
        )
    };
    let strict = format!("{CLUSTERS}?fieldValidation=Strict");
    let answer = send(&admin, "POST", &strict, &[JSON], twice(1)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains(r#"duplicate field \"spec.authUrl\""#));
    let answer = send(&admin, "POST", CLUSTERS, &[JSON], twice(100_000)).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["spec"]["authUrl"], "https://x");
    let warnings = answer.headers.get_all("warning").iter().count();
    assert!((1..100).contains(&warnings), "{warnings} warnings");
    let yaml = "apiVersion: discovery.lb.test/v1alpha1\nkind: LbCluster\nmetadata: {name: b}\nspec: {authUrl: a, authUrl: b}\n";
    assert_eq!(refused(&admin, YAML, yaml).await, 400);
    let patch = [("content-type", "application/merge-patch+json")];
    let path = format!("{CLUSTERS}/a");
    let body = r#"{"spec":{"join":false,"join":true}}"#;
    let answer = send(&admin, "PATCH", &path, &patch, body).await;
    assert_eq!(answer.json()["spec"]["join"], true, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_to_ask_is_cut_off_and_holds_up_nobody() {
    let server = Server::start().await;
    let someone = server.kubeconfig("bob", &[]);
    let mut slow = Vec::new();
    let beginnings: [(&[u8], &[u8]); 5] = [
        (b"http/1.1", b""),
        (b"http/1.1", b"GET /api/v1/namespaces HTTP/1.1\r\nX-Slow: "),
        (b"h2", b""),
        (b"h2", b"PRI * HTTP/2.0\r\n\r\nSM"),
        // The preface, empty settings, and a head that does not end.
        (
            b"h2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x82",
        ),
    ];
    for (protocol, beginning) in beginnings {
        for kubeconfig in [None, Some(someone.as_str())] {
            let mut stream = raw(&server, protocol, kubeconfig).await;
            stream.write_all(beginning).await.unwrap();
            slow.push(stream);
        }
    }
    let dripping = slow.remove(2);
    let (mut reader, mut writer) = tokio::io::split(dripping);
    let drip = tokio::spawn(async move {
        // A byte now and then does not make a head.
        while writer.write_all(b"x").await.is_ok() && writer.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let admin = server.client("admin", &[]).await;
    assert_eq!(post(&admin, CLUSTERS, &cluster("a")).await.status, 201);
    for (number, stream) in slow.iter_mut().enumerate() {
        let end = timeout(Duration::from_mins(1), stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "number {number} is still open");
    }
    let end = timeout(Duration::from_mins(1), reader.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "the one that drips is still open");
    drip.abort();
    assert_eq!(post(&admin, CLUSTERS, &cluster("b")).await.status, 201);
}

/// Asks for the health, and waits until all of the answer is there.
async fn is_healthy(stream: &mut rig::RawStream) -> bool {
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(request).await?;
        while !answer.ends_with(b"\r\n\r\nok") && stream.read_buf(&mut answer).await? > 0 {}
        std::io::Result::Ok(())
    };
    let exchanged = timeout(Duration::from_mins(1), exchange).await;
    exchanged.is_ok_and(|outcome| outcome.is_ok()) && answer.starts_with(b"HTTP/1.1 200 ")
}

#[tokio::test]
async fn a_connection_may_rest_for_a_minute_between_two_requests() {
    let server = Server::start().await;
    let someone = server.kubeconfig("bob", &[]);
    let mut stream = raw(&server, b"http/1.1", Some(&someone)).await;
    assert!(is_healthy(&mut stream).await);
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(1)).await;
    tokio::time::resume();
    assert!(is_healthy(&mut stream).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_by_the_hundred_keep_nobody_out() {
    let server = Server::start().await;
    let mut strangers = Vec::new();
    for _ in 0..300 {
        let mut stream = raw(&server, b"http/1.1", None).await;
        let health = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(health).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        strangers.push(stream);
    }
    let admin = server.client("admin", &[]).await;
    assert_eq!(post(&admin, CLUSTERS, &cluster("a")).await.status, 201);
    let mut oldest = strangers.swap_remove(0);
    let end = timeout(Duration::from_mins(1), oldest.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "the oldest stranger is still there");
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
