//! 18 watches at once while objects change, against what was recorded.

use crate::{
    recorded::{self, essential},
    rig::{self, CLUSTERS, Server, cluster},
};
use kube::Client;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn every_watch_tells_what_a_real_server_tells() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let mut first = cluster("w1");
    first["metadata"]["labels"] = json!({"k": "v"});
    rig::post(&admin, CLUSTERS, &first).await;
    let list = rig::send(&admin, "GET", CLUSTERS, &[], "").await.json();
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut open = Vec::new();
    for watch in recorded::lines("watches.jsonl") {
        let text = |field: &str| watch.get(field).and_then(Value::as_str).unwrap_or_default();
        let (name, path) = (
            text("name").to_owned(),
            text("path").replace("{revision}", &revision),
        );
        let (client, accept) = (server.client("admin", &[]).await, text("accept").to_owned());
        open.push(tokio::spawn(async move {
            let headers: &[(&str, &str)] = &[("accept", &accept)];
            let headers = if accept.is_empty() { &[] } else { headers };
            (name, rig::send(&client, "GET", &path, headers, "").await)
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    change(&admin).await;
    let mut differences = BTreeMap::new();
    for watch in open {
        let (name, answer) = watch.await.unwrap();
        let expected = events(&recorded::data(&format!("watches/{name}.txt")));
        let found = events(&answer.body);
        if found != expected {
            let difference = format!("  real {expected:#?}\n  ours {found:#?}");
            differences.insert(name, difference);
        }
    }
    recorded::check(
        &differences,
        &recorded::known_differences("watch-differences.txt"),
    );
}

async fn change(admin: &Client) {
    let one = format!("{CLUSTERS}/w1");
    rig::merge(admin, &one, &json!({"spec": {"join": true}})).await;
    rig::merge(
        admin,
        &one,
        &json!({"metadata": {"labels": {"k": "other"}}}),
    )
    .await;
    rig::post(admin, CLUSTERS, &cluster("w2")).await;
    rig::merge(admin, &one, &json!({"metadata": {"labels": {"k": "v"}}})).await;
    for name in ["w2", "w1"] {
        rig::send(admin, "DELETE", &format!("{CLUSTERS}/{name}"), &[], "").await;
    }
}

/// The events of a watch; bookmarks in between come when the server likes.
fn events(body: &str) -> Vec<Value> {
    if body.trim_start().starts_with("{\n") {
        return vec![essential(body)];
    }
    body.lines()
        .map(essential)
        .filter(|event| {
            event["type"] != "BOOKMARK" || event.pointer("/object/metadata/annotations").is_some()
        })
        .collect()
}
