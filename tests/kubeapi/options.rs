//! Options that make no sense: a refusal that names them, and nothing is done.

use crate::rig::{CLUSTERS, Server, cluster, post, send};
use kube::Client;
use serde_json::json;

async fn started() -> (Server, Client) {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    assert_eq!(post(&admin, CLUSTERS, &cluster("a")).await.status, 201);
    (server, admin)
}

async fn refused(
    admin: &Client,
    (method, path, body): (&str, &str, &str),
    (code, message): (u16, &str),
) {
    let media_type = if method == "PATCH" {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let headers = [("content-type", media_type)];
    let path = format!("{CLUSTERS}{path}");
    let answer = send(admin, method, &path, &headers, body).await;
    assert_eq!(answer.status, code, "{method} {path} {body}: {answer:?}");
    let said = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(said.contains(message), "{method} {path} {body}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_is_not_understood_deletes_nothing() {
    let (_server, admin) = started().await;
    let unsupported = r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sometimes": supported values: "Foreground", "Background", "Orphan", "nil""#;
    let both = "orphanDependents and deletionPropagation cannot be both set";
    let dry = r#"dryRun: Unsupported value: ["Some"]: supported values: "All""#;
    for (path, body, code, message) in [
        (
            "/a",
            r#"{"propagationPolicy":"Sometimes"}"#,
            422,
            unsupported,
        ),
        ("/a?propagationPolicy=Sometimes", "", 422, unsupported),
        ("?propagationPolicy=Sometimes", "", 422, unsupported),
        (
            "/a",
            r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#,
            422,
            both,
        ),
        (
            "/a?propagationPolicy=Orphan&orphanDependents=true",
            "",
            422,
            both,
        ),
        ("?dryRun=Some", "", 422, dry),
        ("/a", r#"{"dryRun":["Some"]}"#, 422, dry),
        (
            "/a",
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            400,
            "must be of type DeleteOptions",
        ),
        ("/a", "[]", 400, "must be of type DeleteOptions"),
    ] {
        refused(&admin, ("DELETE", path, body), (code, message)).await;
    }
    let path = format!("{CLUSTERS}/a");
    assert_eq!(send(&admin, "GET", &path, &[], "").await.status, 200);
    let options =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    let headers = [("content-type", "application/json")];
    let deleted = send(&admin, "DELETE", &path, &headers, options.to_string()).await;
    assert_eq!(deleted.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_to_be_strict_in_an_unknown_way_is_refused() {
    let (_server, admin) = started().await;
    let message = r#"fieldValidation: Unsupported value: "strict": supported values: "", "Ignore", "Strict", "Warn""#;
    let patch = ("PATCH", "/a?fieldValidation=strict", "{}");
    refused(&admin, patch, (422, message)).await;
    let create = cluster("b").to_string();
    let create = ("POST", "?fieldValidation=strict", create.as_str());
    refused(&admin, create, (422, message)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_not_understood_is_refused() {
    let (_server, admin) = started().await;
    let number = r#"strconv.ParseInt: parsing "x": invalid syntax"#;
    for (path, code, message) in [
        ("?limit=x", 400, number),
        ("?watch=true&timeoutSeconds=x", 400, number),
        (
            "?resourceVersion=1&resourceVersionMatch=About",
            422,
            r#"resourceVersionMatch: Unsupported value: "About": supported values: "Exact", "NotOlderThan", """#,
        ),
        (
            "?resourceVersion=0&resourceVersionMatch=Exact",
            422,
            r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#,
        ),
        (
            "?resourceVersion=1&resourceVersionMatch=Exact&continue=x",
            422,
            "resourceVersionMatch is forbidden when continue is provided",
        ),
        (
            "?sendInitialEvents=false",
            422,
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        (
            "/a?resourceVersion=999999",
            504,
            "Too large resource version: 999999",
        ),
        ("/a?resourceVersion=x", 500, r#"Invalid value: "x""#),
    ] {
        refused(&admin, ("GET", path, ""), (code, message)).await;
    }
}

/// A real server takes everything but false and 0 for yes, and of several values the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_without_a_value_is_on() {
    let (_server, admin) = started().await;
    for (query, streams) in [
        ("watch", true),
        ("watch=True", true),
        ("watch=FALSE", false),
        ("watch=0", false),
        ("watch=0&watch=1", false),
    ] {
        let path = format!("{CLUSTERS}?{query}&timeoutSeconds=1");
        let answer = send(&admin, "GET", &path, &[], "").await;
        assert_eq!(answer.json()["kind"] != "LbClusterList", streams, "{query}");
    }
}
