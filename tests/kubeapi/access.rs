//! Users: certificates issued for others, roles and bindings, reviews.

use crate::rig::{CLUSTERS, Server, cluster, merge, post, send};
use kube::Client;
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn role(kind: &str, name: &str, rules: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "rules": rules})
}

fn binding(kind: &str, name: &str, role: &str, subject: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
        "subjects": [subject]})
}

/// The subject that bob is.
fn as_bob() -> Value {
    json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"})
}

/// Lets bob do in the whole cluster what these rules say.
async fn grant(admin: &Client, name: &str, rules: &Value) {
    let role = role("ClusterRole", name, rules);
    post(admin, &format!("{RBAC}/clusterroles"), &role).await;
    let bound = binding("ClusterRoleBinding", name, "ClusterRole", &as_bob());
    post(admin, &format!("{RBAC}/clusterrolebindings"), &bound).await;
}

async fn code(client: &Client, method: &str, path: &str) -> u16 {
    send(client, method, path, &[], "").await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_what_a_cluster_role_allows() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let bob = server.client("bob", &["dev"]).await;
    assert_eq!(code(&bob, "GET", CLUSTERS).await, 403);
    let rules = json!([{"verbs": ["get", "list"], "apiGroups": ["discovery.lb.test"], "resources": ["lbclusters"]}]);
    post(
        &admin,
        &format!("{RBAC}/clusterroles"),
        &role("ClusterRole", "reader", &rules),
    )
    .await;
    let group = json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"});
    let bound = binding("ClusterRoleBinding", "reader", "ClusterRole", &group);
    let answer = post(&admin, &format!("{RBAC}/clusterrolebindings"), &bound).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(code(&bob, "GET", CLUSTERS).await, 200);
    assert_eq!(post(&bob, CLUSTERS, &cluster("a")).await.status, 403);
    assert_eq!(code(&bob, "DELETE", CLUSTERS).await, 403);
    assert_eq!(
        code(&bob, "GET", &format!("{CLUSTERS}?watch=1&timeoutSeconds=1")).await,
        403
    );
    code(
        &admin,
        "DELETE",
        &format!("{RBAC}/clusterrolebindings/reader"),
    )
    .await;
    assert_eq!(code(&bob, "GET", CLUSTERS).await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_reaches_no_further_than_its_namespace() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let bob = server.client("bob", &[]).await;
    let roles = format!("{RBAC}/namespaces/liqo/roles");
    let rules = json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]},
        {"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"]}]);
    post(&admin, &roles, &role("Role", "maps", &rules)).await;
    let bound = binding("RoleBinding", "maps", "Role", &as_bob());
    post(
        &admin,
        &format!("{RBAC}/namespaces/liqo/rolebindings"),
        &bound,
    )
    .await;
    assert_eq!(
        code(&bob, "GET", "/api/v1/namespaces/liqo/configmaps").await,
        200
    );
    assert_eq!(
        code(&bob, "GET", "/api/v1/namespaces/default/configmaps").await,
        403
    );
    assert_eq!(code(&bob, "GET", "/api/v1/configmaps").await, 403);
    let wider = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
    let refused = post(&bob, &roles, &role("Role", "wider", &wider)).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.body.contains("not currently held"), "{refused:?}");
    let same = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]}]);
    assert_eq!(
        post(&bob, &roles, &role("Role", "same", &same))
            .await
            .status,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn users_can_ask_who_they_are_and_what_they_may() {
    let server = Server::start().await;
    let bob = server.client("bob", &["dev", "ops"]).await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let who = post(&bob, path, &review).await.json();
    assert_eq!(
        who["status"]["userInfo"],
        json!({"username": "bob", "groups": ["dev", "ops", "system:authenticated"]})
    );
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let mut review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "liqo"}}});
    assert_eq!(
        post(&bob, path, &review).await.json()["status"]["allowed"],
        false
    );
    review["spec"] = json!({"nonResourceAttributes": {"verb": "get", "path": "/version"}});
    assert_eq!(
        post(&bob, path, &review).await.json()["status"]["allowed"],
        true
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_may_look_at_the_version_and_the_health_only() {
    let server = Server::start().await;
    let nobody = server.stranger(None).await;
    for path in ["/version", "/version/", "/livez", "/readyz"] {
        assert_eq!(code(&nobody, "GET", path).await, 200, "{path}");
    }
    for path in [
        "/api",
        "/apis",
        "/openapi/v3",
        "/api/v1/namespaces",
        "/nosuch",
    ] {
        assert_eq!(code(&nobody, "GET", path).await, 403, "{path}");
    }
    let liar = send(
        &server.stranger(Some("x")).await,
        "GET",
        "/version",
        &[],
        "",
    )
    .await;
    assert_eq!(liar.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_one_object_covers_lists_and_watches_of_it_alone() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let bob = server.client("bob", &[]).await;
    for name in ["a", "b"] {
        post(&admin, CLUSTERS, &cluster(name)).await;
    }
    let rules = json!([{"verbs": ["*"], "apiGroups": ["discovery.lb.test"],
        "resources": ["lbclusters"], "resourceNames": ["a"]}]);
    grant(&admin, "one", &rules).await;
    let list = |query: &str| format!("{CLUSTERS}?{query}");
    let one = list("fieldSelector=metadata.name%3Da");
    let found = send(&bob, "GET", &one, &[], "").await;
    assert_eq!(found.status, 200, "{found:?}");
    let items = found.json()["items"].as_array().unwrap().len();
    assert_eq!(items, 1);
    let watch = format!("{one}&watch=1&timeoutSeconds=1");
    assert_eq!(code(&bob, "GET", &watch).await, 200);
    let other = post(&bob, &one, &cluster("c")).await;
    assert_eq!(other.status, 403, "a selector names nothing to create");
    assert_eq!(code(&bob, "DELETE", &one).await, 403);
    for query in [
        "",
        "fieldSelector=metadata.name%3Db",
        "fieldSelector=metadata.name!%3Da",
    ] {
        assert_eq!(code(&bob, "GET", &list(query)).await, 403, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_as_somebody_else_gives_their_rights_to_whoever_may() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let bob = server.client("bob", &[]).await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let json = ("content-type", "application/json");
    let (user, group) = (("impersonate-user", "eve"), ("impersonate-group", "ops"));
    let who = send(
        &admin,
        "POST",
        path,
        &[json, user, group],
        review.to_string(),
    )
    .await;
    assert_eq!(
        who.json()["status"]["userInfo"],
        json!({"username": "eve", "groups": ["ops", "system:authenticated"]})
    );
    assert_eq!(send(&admin, "GET", CLUSTERS, &[], "").await.status, 200);
    let refused = send(&admin, "GET", CLUSTERS, &[user], "").await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.body.contains("User \\\"eve\\\" cannot list"),
        "{refused:?}"
    );
    let masters = ("impersonate-group", "system:masters");
    for headers in [&[user][..], &[user, masters]] {
        let refused = send(&bob, "GET", "/version", headers, "").await;
        assert_eq!(refused.status, 403, "{headers:?}");
        assert!(
            refused.body.contains("cannot impersonate resource"),
            "{refused:?}"
        );
    }
    let rules = json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"],
        "resourceNames": ["eve"]}]);
    grant(&admin, "eve", &rules).await;
    assert_eq!(send(&bob, "GET", "/version", &[user], "").await.status, 200);
    let refused = send(&bob, "GET", "/version", &[user, masters], "").await;
    assert_eq!(refused.status, 403, "a group is more than the user");
    let other = ("impersonate-uid", "1");
    assert_eq!(
        send(&admin, "GET", "/version", &[user, other], "")
            .await
            .status,
        400
    );
    assert_eq!(
        send(&admin, "GET", "/version", &[group], "").await.status,
        500
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_a_part_of_objects_watches_none_of_them_whole() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let bob = server.client("bob", &[]).await;
    let rules =
        json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/status", "*/finalizers"]}]);
    grant(&admin, "parts", &rules).await;
    let secrets = "/api/v1/watch/namespaces/default/secrets/x";
    for part in ["status", "finalizers"] {
        let path = format!("{secrets}/{part}?timeoutSeconds=1");
        assert_eq!(code(&bob, "GET", &path).await, 404, "{part}");
    }
    assert_eq!(code(&bob, "GET", secrets).await, 403);
    assert_eq!(
        code(&admin, "POST", "/api/v1/watch/namespaces/default/secrets").await,
        405
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_bound_to_a_role_that_is_still_to_come_or_another() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let bob = server.client("bob", &[]).await;
    let rules = json!([{"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["clusterrolebindings"]}]);
    let bindings = format!("{RBAC}/clusterrolebindings");
    grant(&admin, "binder", &rules).await;
    let empty = role("ClusterRole", "empty", &json!([]));
    post(&admin, &format!("{RBAC}/clusterroles"), &empty).await;
    let future = binding("ClusterRoleBinding", "future", "ClusterRole", &as_bob());
    let refused = post(&bob, &bindings, &future).await;
    assert_eq!(refused.status, 404, "{refused:?}");
    assert!(
        refused.body.contains("\\\"future\\\" not found"),
        "{refused:?}"
    );
    let empty = binding("ClusterRoleBinding", "empty", "ClusterRole", &as_bob());
    assert_eq!(post(&bob, &bindings, &empty).await.status, 201);
    let other = json!({"roleRef": {"name": "binder"}});
    let refused = merge(&bob, &format!("{bindings}/empty"), &other).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(
        refused.body.contains("cannot change roleRef"),
        "{refused:?}"
    );
}
