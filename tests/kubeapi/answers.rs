//! 102 requests whose answers by a kube-apiserver 1.36 were recorded.

use crate::{
    recorded::{self, Essence, essential},
    rig::{self, Server},
};
use kube::Client;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_as_by_a_real_server() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
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
            let list: Value = serde_json::from_str(&answer.0).unwrap_or_default();
            continuation = list["metadata"]["continue"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        let expected = Essence::parse(&recorded::data(&format!("answers/{name}.txt")));
        if answer.1 != expected {
            let difference = format!("  real {expected:?}\n  ours {:?}", answer.1);
            differences.insert(name.to_owned(), difference);
        }
    }
    recorded::check(
        &differences,
        &recorded::known_differences("differences.txt"),
    );
}

async fn ask(client: &Client, request: &Map<String, Value>, path: &str) -> (String, Essence) {
    let headers: Vec<(&str, &str)> = request
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect();
    let body = text(request, "body");
    let answer = rig::send(client, text(request, "method"), path, &headers, body).await;
    let header = |name: &str| -> Vec<String> {
        let values = answer.headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap_or_default().to_owned())
            .collect()
    };
    let essence = Essence {
        status: answer.status.as_u16(),
        content_type: header("content-type").concat(),
        warnings: header("warning"),
        body: essential(&answer.body),
    };
    (answer.body, essence)
}

fn text<'a>(request: &'a Map<String, Value>, field: &str) -> &'a str {
    request
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
