//! How a real server behaves when objects are written, where no recorded answer shows it.

use crate::rig::{self, CLUSTERS, Server, cluster, merge, post, send};
use kube::Client;
use serde_json::{Value, json};

const JSON_PATCH: (&str, &str) = ("content-type", "application/json-patch+json");

const APPLY: (&str, &str) = ("content-type", "application/apply-patch+yaml");

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

async fn started() -> (Server, Client) {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    (server, admin)
}

async fn read(client: &Client, path: &str) -> Value {
    send(client, "GET", path, &[], "").await.json()
}

async fn put(client: &Client, path: &str, object: &Value) -> rig::Answer {
    let headers = [("content-type", "application/json")];
    send(client, "PUT", path, &headers, object.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_content_type_is_json() {
    let (_server, admin) = started().await;
    let made = send(&admin, "POST", CLUSTERS, &[], cluster("a").to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let fresh = made.json();
    let changed = send(
        &admin,
        "PUT",
        &format!("{CLUSTERS}/a"),
        &[],
        fresh.to_string(),
    )
    .await;
    assert_eq!(changed.status, 200, "{changed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_answers_and_changes_nothing() {
    let (_server, admin) = started().await;
    let standing = post(&admin, CLUSTERS, &cluster("a")).await.json();
    let one = format!("{CLUSTERS}/a");
    let before = read(&admin, CLUSTERS).await;
    let created = post(&admin, &format!("{CLUSTERS}?dryRun=All"), &cluster("fresh")).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.json()["metadata"].get("resourceVersion"), None);
    let dry = format!("{one}?dryRun=All");
    let mut joined = standing.clone();
    joined["spec"]["join"] = json!(true);
    assert_eq!(
        put(&admin, &dry, &joined).await.json()["spec"]["join"],
        true
    );
    let patched = merge(&admin, &dry, &json!({"spec": {"join": true}})).await;
    assert_eq!(patched.json()["spec"]["join"], true);
    let body = json!({"apiVersion": "discovery.lb.test/v1alpha1", "kind": "LbCluster",
        "metadata": {"name": "b"}, "spec": {"authUrl": "x"}});
    let path = format!("{CLUSTERS}/b?dryRun=All&fieldManager=m");
    let applied = send(&admin, "PATCH", &path, &[APPLY], body.to_string()).await;
    assert_eq!(applied.status, 201);
    assert_eq!(send(&admin, "DELETE", &dry, &[], "").await.status, 200);
    let all = format!("{CLUSTERS}?dryRun=All");
    assert_eq!(send(&admin, "DELETE", &all, &[], "").await.status, 200);
    assert_eq!(read(&admin, CLUSTERS).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_replaced_only_by_who_knows_its_revision() {
    let (_server, admin) = started().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}});
    let made = post(&admin, leases, &lease).await.json();
    let one = format!("{leases}/a");
    let refused = put(&admin, &one, &lease).await;
    assert_eq!(refused.status, 422);
    let why = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with(why), "{message}");
    assert_eq!(put(&admin, &one, &made).await.status, 200);
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    post(&admin, maps, &map).await;
    let replaced = put(&admin, &format!("{maps}/a"), &map).await;
    assert_eq!(replaced.status, 200, "{replaced:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_effect_is_told_to_nobody() {
    let (_server, admin) = started().await;
    let made = post(&admin, CLUSTERS, &cluster("a")).await.json();
    let one = format!("{CLUSTERS}/a");
    let revision = made["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(put(&admin, &one, &made).await.json(), made);
    let same = json!({"spec": {"join": false}});
    assert_eq!(merge(&admin, &one, &same).await.json(), made);
    let test = r#"[{"op":"test","path":"/spec/join","value":false}]"#;
    let tested = send(&admin, "PATCH", &one, &[JSON_PATCH], test).await;
    assert_eq!(tested.json(), made);
    merge(&admin, &one, &json!({"spec": {"join": true}})).await;
    let path = format!("{CLUSTERS}?watch=1&timeoutSeconds=1&resourceVersion={revision}");
    let told = send(&admin, "GET", &path, &[], "").await.body;
    let told: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["object"]["spec"]["join"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_in_a_merge_patch_removes_and_defaults_come_back() {
    let (_server, admin) = started().await;
    let mut object = cluster("a");
    object["metadata"]["labels"] = json!({"k": "v", "l": "w"});
    object["spec"]["join"] = json!(true);
    post(&admin, CLUSTERS, &object).await;
    let patch = json!({"metadata": {"labels": {"k": null}}, "spec": {"join": null}});
    let patched = merge(&admin, &format!("{CLUSTERS}/a"), &patch).await.json();
    assert_eq!(patched["metadata"]["labels"], json!({"l": "w"}));
    assert_eq!(patched["spec"]["join"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_patch_is_carried_out_whole_or_not_at_all() {
    let (_server, admin) = started().await;
    let made = post(&admin, CLUSTERS, &cluster("a")).await.json();
    let one = format!("{CLUSTERS}/a");
    let patch = async |body: &str| send(&admin, "PATCH", &one, &[JSON_PATCH], body).await;
    let failing = r#"[{"op":"replace","path":"/spec/join","value":true},{"op":"test","path":"/spec/join","value":false}]"#;
    let refused = patch(failing).await;
    assert_eq!(refused.status, 422);
    let status = refused.json();
    assert_eq!(
        status["message"],
        "the server rejected our request due to an error in our request"
    );
    assert_eq!(
        (&status["details"], &status["reason"]),
        (&json!({}), &json!("Invalid"))
    );
    assert_eq!(read(&admin, &one).await, made);
    let absent = r#"[{"op":"test","path":"/metadata/finalizers","value":null},{"op":"add","path":"/metadata/finalizers","value":["a.b/c"]}]"#;
    let held = patch(absent).await;
    assert_eq!(held.status, 200);
    assert_eq!(held.json()["metadata"]["finalizers"], json!(["a.b/c"]));
    let old = format!(
        r#"[{{"op":"replace","path":"/metadata/resourceVersion","value":{}}}]"#,
        made["metadata"]["resourceVersion"]
    );
    assert_eq!(patch(&old).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_without_a_status_subresource_has_no_such_path() {
    let (_server, admin) = started().await;
    let clusters = "/apis/discovery.liqo.io/v1alpha1/foreignclusters";
    let object = json!({"apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster",
        "metadata": {"name": "a"}, "spec": {"authUrl": "https://10.0.0.2:5870"}, "status": {"authStatus": "Pending"}});
    let made = post(&admin, clusters, &object).await;
    assert_eq!(made.json()["status"]["authStatus"], "Pending", "{made:?}");
    let status = format!("{clusters}/a/status");
    for (method, header) in [
        ("GET", None),
        (
            "PATCH",
            Some(("content-type", "application/merge-patch+json")),
        ),
        ("PUT", Some(("content-type", "application/json"))),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let answer = send(&admin, method, &status, &headers, "{}").await;
        assert_eq!(answer.status, 404, "{method}");
        assert_eq!(answer.json()["reason"], "NotFound", "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changes_of_the_wish_make_a_new_generation() {
    let (_server, admin) = started().await;
    let mut object = cluster("a");
    object["metadata"]["finalizers"] = json!(["a.b/c"]);
    post(&admin, CLUSTERS, &object).await;
    let one = format!("{CLUSTERS}/a");
    let generation = async |path: &str, patch: Value| {
        merge(&admin, path, &patch).await.json()["metadata"]["generation"].clone()
    };
    assert_eq!(
        generation(&one, json!({"metadata": {"labels": {"k": "v"}}})).await,
        1
    );
    let status = format!("{one}/status");
    assert_eq!(generation(&status, json!({"status": {"ttl": 3}})).await, 1);
    assert_eq!(generation(&one, json!({"status": {"ttl": 4}})).await, 1);
    assert_eq!(generation(&one, json!({"spec": {"join": true}})).await, 2);
    let marked = send(&admin, "DELETE", &one, &[], "").await.json();
    assert_eq!(marked["metadata"]["generation"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_ends_takes_nothing_new() {
    let (_server, admin) = started().await;
    let spaces = "/api/v1/namespaces";
    let made = post(&admin, spaces, &json!({"metadata": {"name": "team"}})).await;
    let made = made.json();
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["status"]["phase"], "Active");
    let maps = format!("{spaces}/team/configmaps");
    let held = json!({"metadata": {"name": "held", "finalizers": ["a.b/c"]}});
    post(&admin, &maps, &held).await;
    let marked = send(&admin, "DELETE", &format!("{spaces}/team"), &[], "").await;
    assert_eq!(marked.json()["status"]["phase"], "Terminating");
    let refused = post(&admin, &maps, &json!({"metadata": {"name": "late"}})).await;
    assert_eq!(refused.status, 403);
    let status = refused.json();
    assert_eq!(
        status["message"],
        "configmaps \"late\" is forbidden: unable to create new content in namespace team because it is being terminated"
    );
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "NamespaceTerminating", "message": "namespace team is being terminated", "field": "metadata.namespace"}])
    );
    let patch = json!({"metadata": {"finalizers": null}});
    merge(&admin, &format!("{maps}/held"), &patch).await;
    let gone = send(&admin, "GET", &format!("{spaces}/team"), &[], "").await;
    assert_eq!(gone.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_deleted_by_its_labels() {
    let (_server, admin) = started().await;
    for (name, site) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut object = cluster(name);
        object["metadata"]["labels"] = json!({"site": site});
        post(&admin, CLUSTERS, &object).await;
    }
    let path = format!("{CLUSTERS}?labelSelector=site%3Dx");
    let deleted = send(&admin, "DELETE", &path, &[], "").await.json();
    let names = |list: &Value| -> Vec<Value> {
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["metadata"]["name"].clone())
            .collect()
    };
    assert_eq!(deleted["kind"], "LbClusterList");
    assert_eq!(names(&deleted), ["a", "b"]);
    assert_eq!(names(&read(&admin, CLUSTERS).await), ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_says_when_its_kind_is_served() {
    let (_server, admin) = started().await;
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ships.sea.test"}, "spec": {"group": "sea.test", "scope": "Namespaced",
            "names": {"kind": "Ship", "plural": "ships"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let made = post(&admin, DEFINITIONS, &definition).await.json();
    let conditions = made["status"]["conditions"].as_array().unwrap();
    for wanted in ["NamesAccepted", "Established"] {
        let found = conditions.iter().find(|found| found["type"] == wanted);
        assert_eq!(found.unwrap()["status"], "True", "{made}");
    }
    assert_eq!(made["status"]["acceptedNames"]["singular"], "ship");
    let ships = "/apis/sea.test/v1/namespaces/default/ships";
    let ship = json!({"apiVersion": "sea.test/v1", "kind": "Ship", "metadata": {"name": "a"}});
    assert_eq!(post(&admin, ships, &ship).await.status, 201);
    let map = json!({"metadata": {"name": "cargo", "ownerReferences": [{"apiVersion": "sea.test/v1", "kind": "Ship",
        "name": "a", "uid": read(&admin, &format!("{ships}/a")).await["metadata"]["uid"]}]}});
    let maps = "/api/v1/namespaces/default/configmaps";
    post(&admin, maps, &map).await;
    let path = format!("{DEFINITIONS}/ships.sea.test");
    send(&admin, "DELETE", &path, &[], "").await;
    assert_eq!(send(&admin, "GET", ships, &[], "").await.status, 404);
    let cargo = send(&admin, "GET", &format!("{maps}/cargo"), &[], "").await;
    assert_eq!(
        cargo.status, 404,
        "the dependent of an object of the kind is left"
    );
}

fn boats(versions: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.test"},
        "spec": {"group": "sea.test", "scope": "Cluster",
            "names": {"kind": "Boat", "plural": "boats"}, "versions": versions}})
}

fn boat_version(name: &str, stored: bool) -> Value {
    json!({"name": name, "served": true, "storage": stored, "schema": {"openAPIV3Schema":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_versions_the_most_stable_one_is_preferred() {
    let (_server, admin) = started().await;
    let before = json!([boat_version("v1beta1", true)]);
    let made = post(&admin, DEFINITIONS, &boats(&before)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let object =
        json!({"apiVersion": "sea.test/v1beta1", "kind": "Boat", "metadata": {"name": "a"}});
    post(&admin, "/apis/sea.test/v1beta1/boats", &object).await;
    let mut definition = made.json();
    definition["spec"]["versions"] =
        json!([boat_version("v1", true), boat_version("v1beta1", false)]);
    let one = format!("{DEFINITIONS}/boats.sea.test");
    let changed = put(&admin, &one, &definition).await.json();
    assert_eq!(
        changed["status"]["storedVersions"],
        json!(["v1beta1", "v1"])
    );
    let group = read(&admin, "/apis/sea.test").await;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"][1]["version"], "v1beta1");
    let accept = (
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    );
    let groups = send(&admin, "GET", "/apis", &[accept], "").await.json();
    let groups = groups["items"].as_array().unwrap();
    let group = groups
        .iter()
        .find(|group| group["metadata"]["name"] == "sea.test")
        .unwrap();
    assert_eq!(group["versions"][0]["version"], "v1");
    for version in ["v1", "v1beta1"] {
        let object = read(&admin, &format!("/apis/sea.test/{version}/boats/a")).await;
        assert_eq!(object["apiVersion"], format!("sea.test/{version}"));
        assert_eq!(object["metadata"]["name"], "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_waits_for_the_finalizers_of_its_objects() {
    let (_server, admin) = started().await;
    post(
        &admin,
        DEFINITIONS,
        &boats(&json!([boat_version("v1", true)])),
    )
    .await;
    let path = "/apis/sea.test/v1/boats";
    let mut object =
        json!({"apiVersion": "sea.test/v1", "kind": "Boat", "metadata": {"name": "free"}});
    post(&admin, path, &object).await;
    object["metadata"] = json!({"name": "held", "finalizers": ["sea.test/anchor"]});
    post(&admin, path, &object).await;
    let definition = format!("{DEFINITIONS}/boats.sea.test");
    let waiting = send(&admin, "DELETE", &definition, &[], "").await.json();
    assert_eq!(
        waiting["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    let left = read(&admin, path).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1, "{left}");
    assert!(left["items"][0]["metadata"]["deletionTimestamp"].is_string());
    object["metadata"] = json!({"name": "late"});
    assert_eq!(post(&admin, path, &object).await.status, 405);
    let freed = json!({"metadata": {"finalizers": null}});
    merge(&admin, &format!("{path}/held"), &freed).await;
    assert_eq!(send(&admin, "GET", &definition, &[], "").await.status, 404);
    assert_eq!(send(&admin, "GET", path, &[], "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_service_accounts_are_kept_and_secrets_take_text() {
    let (_server, admin) = started().await;
    let in_default = |plural: &str| format!("/api/v1/namespaces/default/{plural}");
    let account = json!({"metadata": {"name": "a"}});
    let made = post(&admin, &in_default("serviceaccounts"), &account).await;
    assert_eq!(made.status, 201, "{made:?}");
    let secret = json!({"metadata": {"name": "a"}, "stringData": {"token": "word"}});
    let made = post(&admin, &in_default("secrets"), &secret).await.json();
    assert_eq!(made["data"], json!({"token": "d29yZA=="}));
    assert_eq!(
        (made.get("stringData"), &made["type"]),
        (None, &json!("Opaque"))
    );
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers":
        [{"name": "one", "image": "x"}, {"name": "two", "image": "x"}]}});
    let made = post(&admin, &in_default("pods"), &pod).await;
    assert_eq!(made.status, 201, "{made:?}");
    let one = format!("{}/a", in_default("pods"));
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let patch = json!({"spec": {"containers": [{"name": "two", "image": "y"}]}});
    let patched = send(&admin, "PATCH", &one, &headers, patch.to_string())
        .await
        .json();
    let images = |pod: &Value| -> Vec<String> {
        let containers = pod["spec"]["containers"].as_array().unwrap();
        let image = |container: &Value| container["image"].as_str().unwrap().to_owned();
        containers.iter().map(image).collect()
    };
    assert_eq!(images(&patched), ["x", "y"], "{patched}");
    let status = json!({"status": {"phase": "Running"}});
    let told = merge(&admin, &format!("{one}/status"), &status)
        .await
        .json();
    assert_eq!(told["status"]["phase"], "Running");
    assert_eq!(read(&admin, &one).await["status"]["phase"], "Running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_takes_nothing_but_text_and_base64() {
    let (_server, admin) = started().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for wrong in [
        json!({"stringData": {"pin": 1234}}),
        json!({"data": {"pin": "%%%"}}),
    ] {
        let mut secret = json!({"metadata": {"name": "a"}});
        secret
            .as_object_mut()
            .unwrap()
            .extend(wrong.as_object().unwrap().clone());
        let refused = post(&admin, secrets, &secret).await;
        assert_eq!(refused.status, 422, "{refused:?}");
        assert!(refused.body.contains("pin"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_kinds_have_the_verbs_of_a_real_server() {
    let (_server, admin) = started().await;
    let code = async |method: &str, path: &str, body: &Value| {
        let headers = [("content-type", "application/json")];
        send(&admin, method, path, &headers, body.to_string())
            .await
            .status
            .as_u16()
    };
    let evil = json!({"metadata": {"name": "evil"}});
    assert_eq!(code("POST", "/api/v1/namespaces/default", &evil).await, 405);
    assert_eq!(
        code("POST", "/api/v1/namespaces/default/configmaps/evil", &evil).await,
        405
    );
    let options = json!({});
    assert_eq!(code("DELETE", "/api/v1/namespaces", &options).await, 405);
    assert_eq!(code("DELETE", "/api/v1/configmaps", &options).await, 405);
    assert_eq!(
        code("DELETE", "/api/v1/namespaces/default/configmaps", &options).await,
        200
    );
    assert_eq!(
        code("POST", &format!("{CLUSTERS}/a"), &cluster("b")).await,
        400
    );
    assert_eq!(
        code("POST", &format!("{CLUSTERS}/a"), &cluster("a")).await,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_becomes_stricter_does_not_lock_what_is_there() {
    let (_server, admin) = started().await;
    let schema = |length: u64| {
        json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"name": {"type": "string", "maxLength": length}, "crew": {"type": "integer"}}}}})
    };
    let versions = |length: u64| {
        let mut version = boat_version("v1", true);
        version["schema"]["openAPIV3Schema"] = schema(length);
        json!([version])
    };
    post(&admin, DEFINITIONS, &boats(&versions(100))).await;
    let path = "/apis/sea.test/v1/boats";
    let boat = json!({"apiVersion": "sea.test/v1", "kind": "Boat", "spec": {"name": "a long name"},
        "metadata": {"name": "a", "finalizers": ["sea.test/held"]}});
    let made = post(&admin, path, &boat).await;
    assert_eq!(made.status, 201, "{made:?}");
    let stricter = json!({"spec": {"versions": versions(3)}});
    let definition = format!("{DEFINITIONS}/boats.sea.test");
    assert_eq!(merge(&admin, &definition, &stricter).await.status, 200);
    for (patch, status) in [
        (json!({"spec": {"crew": 3}}), 200),
        (json!({"spec": {"name": "a longer name"}}), 422),
        (json!({"metadata": {"finalizers": null}}), 200),
    ] {
        let answer = merge(&admin, &format!("{path}/a"), &patch).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}
