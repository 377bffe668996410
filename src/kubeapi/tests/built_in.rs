//! What some of the built-in kinds do and others do not.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_names_of_roles_may_have_colons() {
    let api = open().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = |name: &str| json!({"metadata": {"name": name}, "rules": []});
    for (name, code) in [("system:foo", 201), ("Foo", 201), ("a/b", 422), ("..", 422)] {
        let (found, told) = send(&api, "POST", roles, role(name)).await;
        assert_eq!(found, code, "{told}");
    }
    assert!(read(&api, &format!("{roles}/system:foo")).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn lists_of_built_in_kinds_may_name_a_thing_twice() {
    let api = open().await;
    let address = |address: &str| json!({"type": "InternalIP", "address": address});
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"});
    let node = json!({
        "metadata": {"name": "n", "finalizers": ["a.b/c", "a.b/c"], "ownerReferences": [owner, owner]},
        "status": {"addresses": [address("10.0.0.2"), address("fd00::2")]}});
    let (code, made) = send(&api, "POST", "/api/v1/nodes", node).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["status"]["addresses"][1]["address"], "fd00::2");
    let patch = json!({"status": {"addresses": [address("fd00::2"), address("10.0.0.2")]}});
    let (code, told) = send(&api, "PATCH", "/api/v1/nodes/n/status", patch).await;
    assert_eq!(code, 200, "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_say_so_is_not_unschedulable() {
    let api = open().await;
    for (name, spec) in [
        ("used", json!({})),
        ("unused", json!({"unschedulable": true})),
    ] {
        let node = json!({"metadata": {"name": name}, "spec": spec});
        assert_eq!(send(&api, "POST", "/api/v1/nodes", node).await.0, 201);
    }
    for (selector, wanted) in [
        ("%3Dfalse", "used"),
        ("%3Dtrue", "unused"),
        ("!%3Dtrue", "used"),
    ] {
        let path = format!("/api/v1/nodes?fieldSelector=spec.unschedulable{selector}");
        let list = read(&api, &path).await.unwrap();
        let names: Vec<_> = list["items"].as_array().unwrap().iter().collect();
        assert_eq!(names.len(), 1, "{selector}");
        assert_eq!(names[0]["metadata"]["name"], wanted, "{selector}");
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_that_typed_clients_cannot_read_are_refused() {
    let api = open().await;
    let pods = "/api/v1/namespaces/default/pods";
    for (probe, code) in [
        (json!({"httpGet": {"port": 1.5}}), 422),
        (json!({"httpGet": {"port": 5_000_000_000_u64}}), 422),
        (
            json!({"httpGet": {"port": 80}, "terminationGracePeriodSeconds": 10_000_000_000_000_000_000_u64}),
            422,
        ),
        (
            json!({"httpGet": {"port": 80}, "terminationGracePeriodSeconds": 30}),
            201,
        ),
        (json!({"httpGet": {"port": "http"}}), 201),
    ] {
        let container = json!({"name": "c", "livenessProbe": probe,
            "resources": {"requests": {"cpu": 0.5, "memory": 5_000_000_000_u64}}});
        let pod = json!({"metadata": {"generateName": "p-"}, "spec": {"containers": [container]}});
        let (found, told) = send(&api, "POST", pods, pod).await;
        assert_eq!(found, code, "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_waits_for_the_finalizers_of_others() {
    let api = open().await;
    let (spaces, team) = ("/api/v1/namespaces", "/api/v1/namespaces/team");
    let named = json!({"metadata": {"name": "team"}});
    send(&api, "POST", spaces, named.clone()).await;
    let mut held = named.clone();
    held["spec"]["finalizers"] = json!(["kubernetes", "lb.test/hold"]);
    let finalize = format!("{team}/finalize");
    assert_eq!(send(&api, "PUT", &finalize, held).await.0, 200);
    send(&api, "DELETE", team, Value::Null).await;
    let left = read(&api, team).await.unwrap();
    assert_eq!(left["spec"]["finalizers"], json!(["lb.test/hold"]));
    send(&api, "PUT", &finalize, named).await;
    assert_eq!(read(&api, team).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_namespaces_that_must_be_there_stay() {
    let api = open().await;
    for name in ["default", "kube-system", "liqo"] {
        let path = format!("/api/v1/namespaces/{name}");
        assert_eq!(
            send(&api, "DELETE", &path, Value::Null).await.0,
            403,
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_of_text_may_leave_its_data_empty() {
    let api = open().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "a"}, "data": null, "stringData": {"k": "word"}});
    let (code, made) = send(&api, "POST", secrets, secret).await;
    assert_eq!(
        (code, &made["data"], made.get("stringData")),
        (201, &json!({"k": "d29yZA=="}), None)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_immutable_stays_as_it_is() {
    let api = open().await;
    let sealed = "field is immutable when `immutable` is set";
    for (plural, field) in [
        ("configmaps", "data"),
        ("configmaps", "binaryData"),
        ("secrets", "data"),
    ] {
        let path = format!("/api/v1/namespaces/default/{plural}");
        let name = field.to_lowercase();
        let one = format!("{path}/{name}");
        let object = json!({"metadata": {"name": name}, field: {"k": "d29yZA=="}});
        send(&api, "POST", &path, object).await;
        for (patch, refused) in [
            (json!({field: {"k": "YQ=="}}), ""),
            (json!({"immutable": true, field: {"k": "Yg=="}}), ""),
            (json!({"metadata": {"labels": {"k": "v"}}}), ""),
            (json!({field: {"k": "YQ=="}}), field),
            (json!({field: null}), field),
            (json!({"immutable": false}), "immutable"),
            (json!({"immutable": null}), "immutable"),
        ] {
            let (code, told) = send(&api, "PATCH", &one, patch.clone()).await;
            let message = told["message"].as_str().unwrap_or_default();
            let wanted = format!("is invalid: {refused}: Forbidden: {sealed}");
            let right = if refused.is_empty() {
                code == 200
            } else {
                code == 422 && message.ends_with(&wanted)
            };
            assert!(right, "{plural} {patch}: {told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_keeps_its_type() {
    let api = open().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let mut secret = json!({"metadata": {"name": "a"}, "type": "lb.test/key"});
    send(&api, "POST", secrets, secret.clone()).await;
    let path = format!("{secrets}/a");
    // What says nothing is opaque, as on a real server.
    for kind in [json!("Opaque"), json!(""), Value::Null] {
        secret["type"] = kind;
        let (code, told) = send(&api, "PUT", &path, secret.clone()).await;
        let wanted = "type: Invalid value: \"Opaque\": field is immutable";
        let found = told["message"].as_str().unwrap_or_default();
        assert!(code == 422 && found.ends_with(wanted), "{told}");
    }
}

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";

const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

/// A rule for each of these many verbs, groups and resources.
fn wide(words: usize) -> Value {
    let words: Vec<String> = (0..words).map(|number| format!("w{number}")).collect();
    json!({"verbs": words, "apiGroups": words, "resources": words})
}

/// Lets bob make roles, and do what this rule says.
async fn employ_bob(api: &KubeApi, rule: Value) {
    let group = "rbac.authorization.k8s.io";
    let makes = json!({"verbs": ["create"], "apiGroups": [group], "resources": ["roles"]});
    let role = json!({"metadata": {"name": "bob"}, "rules": [makes, rule]});
    assert_eq!(send(api, "POST", CLUSTER_ROLES, role).await.0, 201);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let binding = json!({"metadata": {"name": "bob"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "bob"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "bob"}]});
    assert_eq!(send(api, "POST", bindings, binding).await.0, 201);
}

/// What bob is answered who makes a role of these rules.
async fn answer_to_bob(api: &KubeApi, rules: Value) -> (u16, Value) {
    let role = json!({"metadata": {"generateName": "r"}, "rules": rules});
    let request = Request::post(ROLES)
        .header("impersonate-user", "bob")
        .body(Body::from(role.to_string()));
    let answer = tower::Service::call(&mut api.clone(), request.unwrap()).await;
    let (parts, body) = answer.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (
        parts.status.as_u16(),
        serde_json::from_slice(&bytes).unwrap(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_role_that_gives_more_than_can_be_checked_is_refused() {
    let api = open().await;
    employ_bob(&api, wide(22)).await;
    let (code, told) = answer_to_bob(&api, json!([wide(20), wide(10)])).await;
    assert_eq!(code, 201, "{told}");
    for rules in [json!([wide(22)]), json!([wide(20), wide(20)])] {
        let (code, told) = answer_to_bob(&api, rules).await;
        let message = told["message"].as_str().unwrap();
        let wanted = "is attempting to grant more than 10000 deeds, which only those who may escalate or bind can";
        assert!(code == 403 && message.ends_with(wanted), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_secrets_of_a_service_account_are_merged_by_name() {
    let api = open().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/a";
    let named = |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": [{"name": name}]});
    for manager in ["one", "two"] {
        let path = format!("{path}?fieldManager={manager}");
        send(&api, "PATCH", &path, named(manager)).await;
    }
    let both = json!([{"name": "one"}, {"name": "two"}]);
    let account = read(&api, path).await.unwrap();
    assert_eq!(account["secrets"], both);
    let resources = crate::kubeapi::builtin::resources();
    let mut kinds = resources.iter();
    let accounts = kinds.find(|kind| kind.plural == "serviceaccounts").unwrap();
    let media_type = "application/strategic-merge-patch+json";
    let patch = named("two").to_string();
    let patch = crate::kubeapi::patch::Patch::parse(media_type, patch.as_bytes(), accounts);
    let (patch, _) = patch.unwrap();
    let patched = patch.apply(&named("one")).unwrap();
    assert_eq!(patched["secrets"], both);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_would_gather_the_rules_of_others_is_refused() {
    let api = open().await;
    let selector = json!({"matchLabels": {"k": "v"}});
    let role = json!({"metadata": {"name": "a"}, "rules": [],
        "aggregationRule": {"clusterRoleSelectors": [selector]}});
    let (code, told) = send(&api, "POST", CLUSTER_ROLES, role).await;
    let wanted = "aggregationRule: Forbidden: roles are not aggregated here";
    let found = told["message"].as_str().unwrap();
    assert!(code == 422 && found.ends_with(wanted), "{told}");
    let plain = json!({"metadata": {"name": "a"}, "rules": [], "aggregationRule": null});
    assert_eq!(send(&api, "POST", CLUSTER_ROLES, plain).await.0, 201);
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Creates a binding of these subjects to this role.
async fn bind(api: &KubeApi, kind: &str, role: Value, subjects: Value) -> (u16, Value) {
    let path = match kind {
        "RoleBinding" => format!("{RBAC}/namespaces/default/rolebindings"),
        _ => format!("{RBAC}/clusterrolebindings"),
    };
    let binding =
        json!({"metadata": {"generateName": "b-"}, "roleRef": role, "subjects": subjects});
    send(api, "POST", &path, binding).await
}

#[tokio::test(start_paused = true)]
async fn a_binding_need_not_say_of_which_group_its_role_and_subjects_are() {
    let api = open().await;
    let subjects = json!([{"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "default"}]);
    let role = json!({"kind": "ClusterRole", "name": "cluster-admin"});
    let (code, made) = bind(&api, "RoleBinding", role, subjects).await;
    assert_eq!(code, 201, "{made}");
    let group = "rbac.authorization.k8s.io";
    assert_eq!(made["roleRef"]["apiGroup"], group);
    let subjects = made["subjects"].as_array().unwrap().iter();
    let groups: Vec<_> = subjects.map(|subject| &subject["apiGroup"]).collect();
    assert_eq!(groups, [&json!(group), &json!(group), &Value::Null]);
}

#[tokio::test(start_paused = true)]
async fn roles_and_bindings_say_what_they_are_about() {
    let api = open().await;
    let role = || json!({"kind": "ClusterRole", "name": "cluster-admin"});
    let robot = json!([{"kind": "Robot", "name": "r"}]);
    let account = json!([{"kind": "ServiceAccount", "name": "s"}]);
    for (kind, role, subjects, wanted) in [
        (
            "RoleBinding",
            role(),
            robot,
            "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
        ),
        (
            "ClusterRoleBinding",
            role(),
            account,
            "subjects[0].namespace: Required value",
        ),
        (
            "ClusterRoleBinding",
            json!({"kind": "Role", "name": "r"}),
            json!([]),
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
        ),
    ] {
        let (code, told) = bind(&api, kind, role, subjects).await;
        assert_eq!(code, 422, "{told}");
        assert!(
            told["message"].as_str().unwrap().ends_with(wanted),
            "{told}"
        );
    }
    for (rule, wanted) in [
        (
            json!({"verbs": ["get"], "resources": ["pods"]}),
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""]}),
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ),
        (
            json!({"verbs": [], "nonResourceURLs": ["*"]}),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
    ] {
        let role = json!({"metadata": {"name": "r"}, "rules": [rule]});
        let (code, told) = send(&api, "POST", &format!("{RBAC}/clusterroles"), role).await;
        assert_eq!(code, 422, "{told}");
        assert!(
            told["message"].as_str().unwrap().ends_with(wanted),
            "{told}"
        );
    }
}
