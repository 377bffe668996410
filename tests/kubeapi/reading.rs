//! How a real server behaves when objects, kinds and documents are read, where no recorded answer shows it.

use crate::rig::{Answer, CLUSTERS, Server, cluster, post, send};
use kube::Client;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

async fn started() -> (Server, Client) {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    (server, admin)
}

async fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(client, "GET", path, headers, "").await
}

fn header(answer: &Answer, name: &str) -> String {
    let value = answer.headers.get(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

fn names(list: &Value) -> Vec<Value> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_moment() {
    let (_server, admin) = started().await;
    for name in ["a", "b", "c"] {
        post(&admin, CLUSTERS, &cluster(name)).await;
    }
    let first = get(&admin, &format!("{CLUSTERS}?limit=1"), &[])
        .await
        .json();
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    send(&admin, "DELETE", &format!("{CLUSTERS}/b"), &[], "").await;
    post(&admin, CLUSTERS, &cluster("bb")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let path = format!("{CLUSTERS}?limit=5&continue={token}");
    let rest = get(&admin, &path, &[]).await.json();
    assert_eq!(names(&rest), ["b", "c"]);
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    assert_eq!(
        names(&get(&admin, CLUSTERS, &[]).await.json()),
        ["a", "bb", "c"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_gone_for_lists_pages_and_watches() {
    let moment = Arc::new(AtomicI64::new(0));
    let now = Arc::clone(&moment);
    let clock = move || jiff::Timestamp::from_second(now.load(Ordering::Relaxed)).unwrap();
    let server = Server::start_at(Arc::new(clock)).await;
    let admin = server.client("admin", &[]).await;
    for name in ["a", "b"] {
        post(&admin, CLUSTERS, &cluster(name)).await;
    }
    let first = get(&admin, &format!("{CLUSTERS}?limit=1"), &[])
        .await
        .json();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    moment.fetch_add(3_600, Ordering::Relaxed);
    for name in ["c", "d"] {
        post(&admin, CLUSTERS, &cluster(name)).await;
        moment.fetch_add(3_600, Ordering::Relaxed);
    }
    let exact = format!("{CLUSTERS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    for (path, why) in [
        (
            exact,
            "The resourceVersion for the provided list is too old.",
        ),
        (
            format!("{CLUSTERS}?limit=1&continue={token}"),
            "The provided continue parameter is too old",
        ),
    ] {
        let answer = get(&admin, &path, &[]).await;
        assert_eq!(answer.status, 410, "{path}");
        assert_eq!(answer.json()["reason"], "Expired");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(why), "{message}");
    }
    let path = format!("{CLUSTERS}?watch=1&resourceVersion={revision}");
    let watch = get(&admin, &path, &[]).await;
    assert_eq!(watch.status, 200);
    assert_eq!(watch.json()["type"], "ERROR");
    assert_eq!(watch.json()["object"]["code"], 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_exact_or_at_least_as_new_as_asked() {
    let (_server, admin) = started().await;
    let first = post(&admin, CLUSTERS, &cluster("a")).await.json();
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    post(&admin, CLUSTERS, &cluster("b")).await;
    let exact = format!("{CLUSTERS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    let list = get(&admin, &exact, &[]).await.json();
    assert_eq!(names(&list), ["a"]);
    assert_eq!(list["metadata"]["resourceVersion"], revision);
    let newer = format!("{CLUSTERS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&get(&admin, &newer, &[]).await.json()), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_refused_and_heads_have_no_body() {
    let (_server, admin) = started().await;
    post(&admin, CLUSTERS, &cluster("a")).await;
    let one = format!("{CLUSTERS}/a");
    let head = send(&admin, "HEAD", &one, &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
    assert_eq!(header(&head, "content-type"), "application/json");
    for path in [CLUSTERS, &one, "/apis"] {
        let options = send(&admin, "OPTIONS", path, &[], "").await;
        assert_eq!(options.status, 405, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_is_aggregated_for_who_asks_and_tagged() {
    let (_server, admin) = started().await;
    let asks = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    for path in ["/api?timeout=32s", "/apis?timeout=32s"] {
        let fresh = get(&admin, path, &[("accept", asks)]).await;
        assert_eq!(header(&fresh, "content-type"), AGGREGATED);
        assert_eq!(header(&fresh, "vary"), "Accept");
        assert_eq!(header(&fresh, "cache-control"), "public");
        assert_eq!(fresh.json()["kind"], "APIGroupDiscoveryList");
        let tag = header(&fresh, "etag");
        assert_eq!(tag.trim_matches('"').len(), 128, "{tag}");
        let known = [("accept", asks), ("if-none-match", tag.as_str())];
        let again = get(&admin, path, &known).await;
        assert_eq!((again.status.as_u16(), again.body.as_str()), (304, ""));
    }
    let groups = get(&admin, "/apis", &[("accept", asks)]).await.json();
    let group = groups["items"].as_array().unwrap().iter();
    let ours = group
        .clone()
        .find(|item| item["metadata"]["name"] == "discovery.lb.test");
    assert_eq!(
        ours.unwrap()["versions"],
        json!([{"version": "v1alpha1", "freshness": "Current", "resources": [{
            "resource": "lbclusters", "singularResource": "lbcluster", "scope": "Cluster", "shortNames": ["lbc"], "categories": ["all"],
            "responseKind": {"group": "discovery.lb.test", "version": "v1alpha1", "kind": "LbCluster"},
            "verbs": ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
            "subresources": [{"subresource": "status", "verbs": ["get", "patch", "update"],
                "responseKind": {"group": "discovery.lb.test", "version": "v1alpha1", "kind": "LbCluster"}}]}]}])
    );
    let old = get(&admin, "/apis", &[("accept", "application/json")]).await;
    assert_eq!(header(&old, "content-type"), "application/json");
    assert_eq!(old.json()["kind"], "APIGroupList");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_directory_is_there_with_and_without_a_slash() {
    let (_server, admin) = started().await;
    for (path, kind) in [
        ("/api/", "APIVersions"),
        ("/apis/", "APIGroupList"),
        ("/apis/discovery.lb.test", "APIGroup"),
        ("/apis/discovery.lb.test/v1alpha1/", "APIResourceList"),
        ("/api/v1", "APIResourceList"),
    ] {
        assert_eq!(get(&admin, path, &[]).await.json()["kind"], kind, "{path}");
    }
    assert_eq!(get(&admin, "/version/", &[]).await.json()["major"], "1");
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(get(&admin, path, &[]).await.body, "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_found_by_their_hash() {
    let (_server, admin) = started().await;
    let index = get(&admin, "/openapi/v3", &[]).await;
    let address = index.json()["paths"]["apis/discovery.lb.test/v1alpha1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let (path, hash) = address.split_once("?hash=").unwrap();
    assert_eq!(path, "/openapi/v3/apis/discovery.lb.test/v1alpha1");
    assert_eq!(hash.len(), 128);
    let document = get(&admin, &address, &[]).await;
    let tag = header(&document, "etag");
    assert_eq!(tag.trim_matches('"'), hash);
    let again = get(&admin, &address, &[("if-none-match", &tag)]).await;
    assert_eq!(again.status, 304);
    let document = document.json();
    let kinds = document["components"]["schemas"].as_object().unwrap();
    let described = kinds
        .values()
        .find(|schema| schema["x-kubernetes-group-version-kind"][0]["kind"] == "LbCluster");
    assert!(described.is_some());
    let creation = document.pointer("/paths/~1apis~1discovery.lb.test~1v1alpha1~1lbclusters/post");
    assert_eq!(creation.unwrap()["x-kubernetes-action"], "post");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_by_what_it_is_about_in_both_groups() {
    let (_server, admin) = started().await;
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    for name in ["rome", "milan"] {
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name},
            "eventTime": "2026-11-21T00:00:00.000000Z", "type": "Normal", "action": "Look", "reason": "Found", "note": "it is there",
            "reportingController": "landbridge", "reportingInstance": "a",
            "regarding": {"kind": "ForeignCluster", "name": name, "uid": format!("uid-{name}")}});
        assert_eq!(post(&admin, new, &event).await.status, 201);
    }
    let old = "/api/v1/events?fieldSelector=involvedObject.name%3Drome,involvedObject.kind%3DForeignCluster,involvedObject.uid%3Duid-rome";
    let found = get(&admin, old, &[]).await.json();
    assert_eq!(names(&found), ["rome"]);
    assert_eq!(found["items"][0]["message"], "it is there");
    assert_eq!(found["items"][0]["reportingComponent"], "landbridge");
    let found = get(
        &admin,
        &format!("{new}?fieldSelector=regarding.name%3Dmilan"),
        &[],
    )
    .await;
    assert_eq!(names(&found.json()), ["milan"]);
    assert_eq!(found.json()["items"][0]["note"], "it is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_kinds_have_the_columns_that_kubectl_prints() {
    let (_server, admin) = started().await;
    let table = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    for (path, columns) in [
        ("/api/v1/namespaces", &["Name", "Status", "Age"][..]),
        (
            "/api/v1/nodes",
            &["Name", "Status", "Roles", "Age", "Version"],
        ),
        ("/api/v1/events", &["Last Seen", "Type", "Reason", "Object"]),
        (
            "/apis/coordination.k8s.io/v1/leases",
            &["Name", "Holder", "Age"],
        ),
    ] {
        let answer = get(&admin, path, &table).await.json();
        let found: Vec<&str> = answer["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        let shown: Vec<&&str> = columns
            .iter()
            .filter(|wanted| found.contains(wanted))
            .collect();
        assert_eq!(shown.len(), columns.len(), "{path}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_nobody_offers_is_not_acceptable() {
    let (_server, admin) = started().await;
    for accept in [
        "text/html",
        "application/xml,text/csv",
        "application/json;as=Chart",
    ] {
        let answer = get(&admin, CLUSTERS, &[("accept", accept)]).await;
        assert_eq!(answer.status, 406, "{accept}");
    }
    for accept in [
        "text/html, application/json",
        "*/*;q=0.1",
        "application/vnd.kubernetes.protobuf,application/json",
    ] {
        let answer = get(&admin, CLUSTERS, &[("accept", accept)]).await;
        assert_eq!(answer.status, 200, "{accept}");
    }
}
