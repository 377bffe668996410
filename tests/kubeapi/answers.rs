//! 102 requests whose answers by a kube-apiserver 1.36 were recorded.

use crate::{
    recorded::{self, Essence},
    rig::{self, Answer, CLUSTERS, Server},
};
use kube::Client;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_as_by_a_real_server() {
    // All in one second, as when they were recorded: managers are listed by time.
    let moment = jiff::Timestamp::now();
    let server = Server::start_at(Arc::new(move || moment)).await;
    let admin = server.client("admin", &[]).await;
    leave_something_behind(&admin).await;
    let users = BTreeMap::from([
        ("admin", admin),
        ("bob", server.client("bob", &[]).await),
        ("mallory", server.stranger(Some("wrong")).await),
        ("anonymous", server.stranger(None).await),
    ]);
    let mut continuation = String::new();
    let mut differences = BTreeMap::new();
    for request in recorded::lines("requests.jsonl") {
        let name = text(&request, "name");
        let path = text(&request, "path").replace("{continue}", &continuation);
        let answer = ask(&users[text(&request, "user")], &request, &path).await;
        if name == "list-limit1" {
            let list = answer.json();
            continuation = text_of(&list["metadata"]["continue"]);
        }
        let (ours, real) = (
            Essence::of(&answer),
            Essence::parse(&recorded::data(&format!("answers/{name}.txt"))),
        );
        if ours != real {
            let difference = format!("  real {real:?}\n  ours {ours:?}");
            differences.insert(name.to_owned(), difference);
        }
    }
    recorded::check(
        &differences,
        &recorded::known_differences("differences.txt"),
    );
}

/// An object of an earlier experiment that was there when the answers were recorded: it waits
/// for a dependent that nobody deletes.
async fn leave_something_behind(admin: &Client) {
    let object = json!({"apiVersion": "discovery.lb.test/v1alpha1", "kind": "LbCluster",
        "metadata": {"name": "fc-lb", "annotations": {"kubectl.kubernetes.io/last-applied-configuration":
            "{\"apiVersion\":\"discovery.lb.test/v1alpha1\",\"kind\":\"LbCluster\",\"metadata\":{\"annotations\":{},\"name\":\"fc-lb\"},\"spec\":{\"authUrl\":\"https://192.168.1.10:30443\",\"join\":true}}\n"}},
        "spec": {"authUrl": "https://192.168.1.10:30443", "join": true}});
    let path = format!("{CLUSTERS}?fieldManager=kubectl-client-side-apply");
    let made = rig::post(admin, &path, &object).await.json();
    let path = format!("{CLUSTERS}/fc-lb/status?fieldManager=kubectl-patch");
    let status =
        json!({"status": {"authStatus": "Pending", "incoming": {"joined": true}, "ttl": 3}});
    rig::merge(admin, &path, &status).await;
    let dependent = json!({"metadata": {"name": "fc-lb", "finalizers": ["lb.test/hold"],
        "ownerReferences": [{"apiVersion": "discovery.lb.test/v1alpha1", "kind": "LbCluster", "name": "fc-lb",
            "uid": made["metadata"]["uid"], "blockOwnerDeletion": true}]}});
    rig::post(admin, "/api/v1/namespaces/default/configmaps", &dependent).await;
    let path = format!("{CLUSTERS}/fc-lb?propagationPolicy=Foreground");
    let held = rig::send(admin, "DELETE", &path, &[], "").await.json();
    assert_eq!(
        held["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
}

async fn ask(client: &Client, request: &Map<String, Value>, path: &str) -> Answer {
    let headers: Vec<(&str, &str)> = request
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect();
    let body = text(request, "body");
    rig::send(client, text(request, "method"), path, &headers, body).await
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn text<'a>(request: &'a Map<String, Value>, field: &str) -> &'a str {
    request
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
