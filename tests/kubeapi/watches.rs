//! 18 watches at once while objects change, against what was recorded.

use crate::{
    recorded::{self, Essence},
    rig::{self, CLUSTERS, Server, cluster},
};
use kube::Client;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn every_watch_tells_what_a_real_server_tells() {
    let moment = Arc::new(AtomicI64::new(jiff::Timestamp::now().as_second()));
    let now = Arc::clone(&moment);
    let server = Server::start_at(Arc::new(move || {
        jiff::Timestamp::from_second(now.load(Ordering::Relaxed)).unwrap()
    }))
    .await;
    let admin = server.client("admin", &[]).await;
    // Revision 1 was forgotten in the recorded server.
    moment.fetch_add(3_600, Ordering::Relaxed);
    let mut first = cluster("w1");
    first["metadata"]["labels"] = json!({"k": "v"});
    rig::post(&admin, CLUSTERS, &first).await;
    let list = rig::send(&admin, "GET", CLUSTERS, &[], "").await.json();
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watches = Vec::new();
    for watch in recorded::lines("watches.jsonl") {
        let text = |field: &str| watch.get(field).and_then(Value::as_str).unwrap_or_default();
        let path = text("path").replace("{revision}", revision);
        let accept = text("accept");
        let headers: &[(&str, &str)] = &[("accept", accept)];
        let headers = if accept.is_empty() { &[] } else { headers };
        let open = rig::open(&admin, "GET", &path, headers, "").await;
        watches.push((text("name").to_owned(), tokio::spawn(rig::read(open))));
    }
    change(&admin).await;
    let mut differences = BTreeMap::new();
    for (name, watch) in watches {
        let mut real = Essence::parse(&recorded::data(&format!("watches/{name}.txt")));
        let mut ours = Essence::of(&watch.await.unwrap());
        for essence in [&mut real, &mut ours] {
            timed_bookmarks_last(&mut essence.body);
        }
        if ours != real {
            let difference = format!("  real {real:#?}\n  ours {ours:#?}");
            differences.insert(name, difference);
        }
    }
    recorded::check(&differences, &BTreeMap::new());
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

/// Puts the bookmarks that a clock brings behind what happened, once each: the same server sends one
/// or two, before or after a change of the same moment.
fn timed_bookmarks_last(lines: &mut Vec<Value>) {
    let mut bookmarks: Vec<Value> = lines
        .extract_if(.., |line| {
            line["type"] == "BOOKMARK" && line["object"]["metadata"].get("annotations").is_none()
        })
        .collect();
    bookmarks.dedup();
    lines.append(&mut bookmarks);
}
