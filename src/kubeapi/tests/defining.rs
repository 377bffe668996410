//! Definitions: what a change of one does to its objects, and which changes are refused.

use super::*;

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

const BOATS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/boats.sea.test";

fn version(name: &str, served: bool, storage: bool) -> Value {
    json!({"name": name, "served": served, "storage": storage, "schema": {"openAPIV3Schema":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
}

fn boats(versions: &[Value]) -> Value {
    json!({"metadata": {"name": "boats.sea.test"}, "spec": {"group": "sea.test",
        "scope": "Cluster", "names": {"kind": "Boat", "plural": "boats"}, "versions": versions}})
}

/// Gives the definition these versions.
async fn give(api: &KubeApi, versions: &[Value]) -> (u16, Value) {
    let patch = json!({"spec": {"versions": versions}});
    send(api, "PATCH", BOATS, patch).await
}

/// Says which versions there may be objects of.
async fn store_only(api: &KubeApi, versions: &[&str]) -> (u16, Value) {
    let path = format!("{BOATS}/status");
    let patch = json!({"status": {"storedVersions": versions}});
    send(api, "PATCH", &path, patch).await
}

fn complaint(answer: &(u16, Value)) -> &str {
    assert_eq!(answer.0, 422, "{answer:?}");
    answer.1["message"].as_str().unwrap()
}

/// An API with a boat of a version that is not served any more.
async fn open_with_old_boat() -> KubeApi {
    let api = open().await;
    let old = version("v1alpha1", true, true);
    send(&api, "POST", PATH, boats(&[old])).await;
    let boat =
        json!({"apiVersion": "sea.test/v1alpha1", "kind": "Boat", "metadata": {"name": "a"}});
    let (code, _) = send(&api, "POST", "/apis/sea.test/v1alpha1/boats", boat).await;
    assert_eq!(code, 201);
    let old = version("v1alpha1", false, false);
    let (code, told) = give(&api, &[version("v1", true, true), old]).await;
    assert_eq!(code, 200, "{told}");
    api
}

const OLD_BOAT: &str = "/apis/sea.test/v1/boats/a";

#[tokio::test(start_paused = true)]
async fn an_object_of_an_old_version_is_one_of_the_new() {
    let api = open_with_old_boat().await;
    let shown = read(&api, OLD_BOAT).await.unwrap();
    assert_eq!(shown["apiVersion"], "sea.test/v1");
    assert_eq!(store_only(&api, &["v1"]).await.0, 200);
    assert_eq!(give(&api, &[version("v1", true, true)]).await.0, 200);
    let list = read(&api, "/apis/sea.test/v1/boats").await.unwrap();
    assert_eq!(list["items"], json!([shown]));
    let patch = json!({"metadata": {"labels": {"k": "v"}}});
    let (code, told) = send(&api, "PATCH", OLD_BOAT, patch).await;
    assert_eq!(code, 200, "{told}");
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Makes a map that keeps the old boat, which it names by a version, until it goes itself.
async fn moor(api: &KubeApi, version: &str) {
    let boat = read(api, OLD_BOAT).await.unwrap();
    let owner = json!({"apiVersion": format!("sea.test/{version}"), "kind": "Boat",
        "blockOwnerDeletion": true, "name": "a", "uid": boat["metadata"]["uid"]});
    let metadata = json!({"name": "m", "finalizers": ["a.b/c"], "ownerReferences": [owner]});
    let (code, _) = send(api, "POST", MAPS, json!({"metadata": metadata})).await;
    assert_eq!(code, 201);
}

#[tokio::test(start_paused = true)]
async fn an_owner_named_by_an_old_version_waits_no_longer_than_it_must() {
    let api = open_with_old_boat().await;
    moor(&api, "v1alpha1").await;
    let path = format!("{OLD_BOAT}?propagationPolicy=Foreground");
    send(&api, "DELETE", &path, Value::Null).await;
    assert!(read(&api, OLD_BOAT).await.is_some());
    let freed = json!({"metadata": {"finalizers": null}});
    send(&api, "PATCH", &format!("{MAPS}/m"), freed).await;
    assert_eq!(read(&api, OLD_BOAT).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_definition_goes_with_the_last_object_of_an_old_version() {
    let api = open_with_old_boat().await;
    moor(&api, "v1").await;
    let path = format!("{OLD_BOAT}?propagationPolicy=Foreground");
    send(&api, "DELETE", &path, Value::Null).await;
    send(&api, "DELETE", BOATS, Value::Null).await;
    assert!(read(&api, BOATS).await.is_some());
    let freed = json!({"metadata": {"finalizers": null}});
    send(&api, "PATCH", &format!("{MAPS}/m"), freed).await;
    assert_eq!(read(&api, BOATS).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_places_the_objects_of_a_definition_cannot_be_changed() {
    let api = open().await;
    send(&api, "POST", PATH, boats(&[version("v1", true, true)])).await;
    for (field, value, shown) in [
        ("scope", json!({"scope": "Namespaced"}), "Namespaced"),
        ("names.kind", json!({"names": {"kind": "Ship"}}), "Ship"),
        ("group", json!({"group": "lake.test"}), "lake.test"),
        (
            "names.plural",
            json!({"names": {"plural": "ships"}}),
            "ships",
        ),
    ] {
        let answer = send(&api, "PATCH", BOATS, json!({"spec": value})).await;
        let wanted = format!("spec.{field}: Invalid value: \"{shown}\": field is immutable");
        let found = complaint(&answer);
        assert!(found.contains(&wanted), "{found}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_definition_stores_one_version_and_lists_all_that_there_may_be() {
    let api = open().await;
    let one = "spec.versions: Invalid value";
    for stored in [false, true] {
        let versions = [version("v1", true, stored), version("v2", true, stored)];
        let answer = send(&api, "POST", PATH, boats(&versions)).await;
        let found = complaint(&answer);
        let wanted = "must have exactly one version marked as storage version";
        assert!(found.contains(one) && found.contains(wanted), "{found}");
    }
    drop(api);
    let api = open_with_old_boat().await;
    let answer = give(&api, &[version("v1", true, true)]).await;
    let wanted =
        "status.storedVersions[0]: Invalid value: \"v1alpha1\": must appear in spec.versions";
    assert!(complaint(&answer).ends_with(wanted), "{answer:?}");
    let (_, kept) = store_only(&api, &["v1alpha1"]).await;
    assert_eq!(kept["status"]["storedVersions"], json!(["v1alpha1", "v1"]));
    let (_, migrated) = store_only(&api, &["v1"]).await;
    assert_eq!(migrated["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(give(&api, &[version("v1", true, true)]).await.0, 200);
}

/// Opens the API with a definition of a kind of its own, lets somebody do something to that, and opens it
/// again.
async fn open_after(deeds: impl AsyncFn(&KubeApi)) -> KubeApi {
    let memory = store::Memory::default();
    let api = KubeApi::open(options(memory.clone())).await.unwrap();
    deeds(&api).await;
    drop(api);
    KubeApi::open(options(memory)).await.unwrap()
}

const OWN: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/clusters.lb.test";

#[tokio::test(start_paused = true)]
async fn a_version_that_the_program_does_not_know_is_kept_and_not_served() {
    let old = json!({"apiVersion": "lb.test/v1beta1", "kind": "Cluster", "metadata": {"name": "rome"},
        "spec": {"authUrl": "https://x"}});
    let api = open_after(async |api| {
        let versions = [
            version("v1alpha1", true, false),
            version("v1beta1", true, true),
        ];
        let patch = json!({"spec": {"versions": versions}});
        assert_eq!(send(api, "PATCH", OWN, patch).await.0, 200);
        let clusters = "/apis/lb.test/v1beta1/clusters";
        assert_eq!(send(api, "POST", clusters, old.clone()).await.0, 201);
    })
    .await;
    let own = read(&api, OWN).await.unwrap();
    let versions = own["spec"]["versions"].as_array().unwrap();
    let told: Vec<_> = versions
        .iter()
        .map(|version| (&version["name"], &version["served"], &version["storage"]))
        .collect();
    let (yes, no) = (&json!(true), &json!(false));
    assert_eq!(
        told,
        [(&json!("v1alpha1"), yes, yes), (&json!("v1beta1"), no, no)]
    );
    let rome = read(&api, "/apis/lb.test/v1alpha1/clusters/rome")
        .await
        .unwrap();
    assert_eq!(rome["spec"]["authUrl"], "https://x");
}

#[tokio::test(start_paused = true)]
async fn a_definition_in_the_place_of_one_of_the_program_does_not_keep_it_from_starting() {
    let api = open_after(async |api| {
        send(api, "DELETE", OWN, Value::Null).await;
        let mut other = serde_json::to_value(definition()).unwrap();
        other["spec"]["scope"] = json!("Namespaced");
        assert_eq!(send(api, "POST", PATH, other).await.0, 201);
    })
    .await;
    let other = read(&api, OWN).await.unwrap();
    assert_eq!(other["spec"]["scope"], "Namespaced");
    send(&api, "DELETE", OWN, Value::Null).await;
    assert_eq!(read(&api, OWN).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_start_brings_the_definitions_of_the_program_up_to_date() {
    let api = open_after(async |api| {
        let patch = json!({"spec": {"names": {"shortNames": ["other"]}}});
        assert_eq!(send(api, "PATCH", OWN, patch).await.0, 200);
    })
    .await;
    let own = read(&api, OWN).await.unwrap();
    assert_eq!(own["spec"]["names"]["shortNames"], json!(["cl"]));
}

#[tokio::test(start_paused = true)]
async fn a_group_of_built_in_kinds_takes_no_definition() {
    let api = open().await;
    let mut leases = boats(&[version("v9", true, true)]);
    leases["metadata"]["name"] = json!("leases.coordination.k8s.io");
    leases["spec"]["group"] = json!("coordination.k8s.io");
    leases["spec"]["names"] = json!({"kind": "Lease", "plural": "leases"});
    let answer = send(&api, "POST", PATH, leases).await;
    assert!(complaint(&answer).contains("spec.group"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_definition_of_several_versions_that_a_webhook_converts_is_refused() {
    let api = open().await;
    let mut converted = boats(&[version("v1", true, true), version("v2", true, false)]);
    converted["spec"]["conversion"] = json!({"strategy": "Webhook"});
    let answer = send(&api, "POST", PATH, converted.clone()).await;
    let wanted = "spec.conversion.strategy: Invalid value: \"Webhook\": conversion by a webhook is not served here";
    assert!(complaint(&answer).ends_with(wanted), "{answer:?}");
    converted["spec"]["versions"] = json!([version("v1", true, true)]);
    let (code, told) = send(&api, "POST", PATH, converted).await;
    assert_eq!(code, 201, "{told}");
}

/// Breaks a rule of the definition of boats behind the back of the API, which takes none that is broken.
async fn break_boats(api: &KubeApi) {
    let key = "apiextensions.k8s.io/customresourcedefinitions//boats.sea.test";
    let stored = api.server.store.get(key).unwrap();
    let mut object = stored.value();
    object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "self.("}]);
    let write = store::Write {
        key: key.to_owned(),
        expected: store::Expectation::Revision(stored.revision),
        object,
        deletes: false,
    };
    assert!(api.server.store.write(write).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_cannot_be_served_says_so_and_keeps_its_objects() {
    let api = open_after(async |api| {
        send(api, "POST", PATH, boats(&[version("v1", true, true)])).await;
        for (name, finalizers) in [("free", json!([])), ("held", json!(["a.b/c"]))] {
            let boat = json!({"apiVersion": "sea.test/v1", "kind": "Boat",
                "metadata": {"name": name, "finalizers": finalizers}});
            assert_eq!(
                send(api, "POST", "/apis/sea.test/v1/boats", boat).await.0,
                201
            );
        }
        break_boats(api).await;
    })
    .await;
    let established = async || {
        let definition = read(&api, BOATS).await.unwrap();
        definition["status"]["conditions"][1].clone()
    };
    let condition = established().await;
    assert_eq!(condition["type"], "Established");
    assert_eq!(condition["status"], "False", "{condition}");
    let labels = json!({"metadata": {"labels": {"k": "v"}}});
    let (code, told) = send(&api, "PATCH", BOATS, labels).await;
    assert_eq!(code, 200, "{told}");
    assert_eq!(established().await, condition);
    send(&api, "DELETE", BOATS, Value::Null).await;
    assert!(read(&api, BOATS).await.is_some());
    let there = |name: &str| {
        let key = format!("sea.test/boats//{name}");
        api.server.store.get(&key).is_some()
    };
    assert!(!there("free") && there("held"));
    let (code, told) = give(&api, &[version("v1", true, true)]).await;
    assert_eq!(code, 200, "{told}");
    assert_eq!(established().await["status"], "True");
    let freed = json!({"metadata": {"finalizers": null}});
    send(&api, "PATCH", "/apis/sea.test/v1/boats/held", freed).await;
    assert!(!there("held"));
    assert_eq!(read(&api, BOATS).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_rule_of_very_many_operators_is_refused() {
    let api = open().await;
    let mut sums = boats(&[version("v1", true, true)]);
    let rule = format!("{}1 == 1", "1+".repeat(100_000));
    sums["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": rule}]);
    let answer = send(&api, "POST", &format!("{PATH}?dryRun=All"), sums).await;
    assert!(complaint(&answer).contains("operators"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rule_goes_through_no_list_that_is_very_long() {
    let api = open().await;
    let mut counted = boats(&[version("v1", true, true)]);
    counted["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object",
        "properties": {"l": {"type": "array", "items": {"type": "integer"}}},
        "x-kubernetes-validations": [{"rule": "!has(self.l) || self.l.map(x, x).size() >= 0"}]});
    assert_eq!(send(&api, "POST", PATH, counted).await.0, 201);
    let boat = |name: &str, length: usize| {
        json!({"apiVersion": "sea.test/v1", "kind": "Boat", "metadata": {"name": name},
            "l": (0..length).collect::<Vec<_>>()})
    };
    let (code, told) = send(&api, "POST", "/apis/sea.test/v1/boats", boat("a", 500)).await;
    assert_eq!(code, 201, "{told}");
    let begin = std::time::Instant::now();
    let answer = send(&api, "POST", "/apis/sea.test/v1/boats", boat("b", 150_000)).await;
    assert!(complaint(&answer).contains("cost budget"), "{answer:?}");
    assert!(begin.elapsed().as_secs() < 10);
}

/// A version whose boats have these fields, all of them texts.
fn version_with(fields: &[&str]) -> Value {
    let mut version = version("v1", true, true);
    let fields = fields.iter();
    let fields: serde_json::Map<_, _> = fields
        .map(|field| ((*field).to_owned(), json!({"type": "string"})))
        .collect();
    version["schema"]["openAPIV3Schema"] = json!({"type": "object",
        "properties": {"spec": {"type": "object", "properties": fields}}});
    version
}

#[tokio::test(start_paused = true)]
async fn what_a_schema_dropped_does_not_lock_an_object() {
    let api = open().await;
    send(&api, "POST", PATH, boats(&[version_with(&["a", "old"])])).await;
    let boat = json!({"apiVersion": "sea.test/v1", "kind": "Boat", "metadata": {"name": "a"},
        "spec": {"a": "1", "old": "2"}});
    let boats = "/apis/sea.test/v1/boats";
    assert_eq!(send(&api, "POST", boats, boat).await.0, 201);
    assert_eq!(give(&api, &[version_with(&["a"])]).await.0, 200);
    let strict = format!("{boats}/a?fieldValidation=Strict");
    let labels = json!({"metadata": {"labels": {"k": "v"}}});
    let unknown = json!({"spec": {"other": "3"}});
    let (code, told) = send(&api, "PATCH", &strict, unknown).await;
    assert_eq!(code, 400, "{told}");
    let (code, told) = send(&api, "PATCH", &strict, labels).await;
    assert_eq!(code, 200, "{told}");
    assert_eq!(told["spec"], json!({"a": "1"}));
}

#[tokio::test(start_paused = true)]
async fn a_definition_says_whole_things() {
    let api = open().await;
    let mut scope = boats(&[version("v1", true, true)]);
    scope["spec"]["scope"] = json!("namespaced");
    let mut bare = version("v1", true, true);
    bare.as_object_mut().unwrap().remove("schema");
    let twice = [version("v1", true, true), version("v1", true, false)];
    let mut pattern = version_with(&["a"]);
    let fields = &mut pattern["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    fields["a"]["pattern"] = json!("(");
    for (definition, wanted) in [
        (
            scope,
            "spec.scope: Unsupported value: \"namespaced\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            boats(&[bare]),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (boats(&twice), "must contain unique version names"),
        (
            boats(&[pattern]),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[a].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: ",
        ),
    ] {
        let answer = send(&api, "POST", PATH, definition).await;
        let found = complaint(&answer);
        assert!(found.contains(wanted), "{found}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_schema_may_bound_the_names_of_its_objects() {
    let api = open().await;
    let mut named = version("v1", true, true);
    named["schema"]["openAPIV3Schema"]["properties"] = json!({"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}}});
    assert_eq!(send(&api, "POST", PATH, boats(&[named])).await.0, 201);
    let boat = |name: &str| json!({"apiVersion": "sea.test/v1", "kind": "Boat", "metadata": {"name": name}});
    let boats = "/apis/sea.test/v1/boats";
    assert_eq!(send(&api, "POST", boats, boat("abc")).await.0, 201);
    let answer = send(&api, "POST", boats, boat("abcd")).await;
    let wanted = "metadata.name in body should be at most 3 chars long";
    assert!(complaint(&answer).contains(wanted), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_takes_with_it_what_cannot_be_served() {
    let boats_in = "/apis/sea.test/v1/namespaces/team/boats";
    let api = open_after(async |api| {
        let mut definition = boats(&[version("v1", true, true)]);
        definition["spec"]["scope"] = json!("Namespaced");
        send(api, "POST", PATH, definition).await;
        let team = json!({"metadata": {"name": "team"}});
        send(api, "POST", "/api/v1/namespaces", team).await;
        let boat = json!({"apiVersion": "sea.test/v1", "kind": "Boat", "metadata": {"name": "a"}});
        assert_eq!(send(api, "POST", boats_in, boat).await.0, 201);
        break_boats(api).await;
    })
    .await;
    let team = "/api/v1/namespaces/team";
    send(&api, "DELETE", team, Value::Null).await;
    assert_eq!(read(&api, team).await, None);
    assert!(api.server.store.get("sea.test/boats/team/a").is_none());
}
