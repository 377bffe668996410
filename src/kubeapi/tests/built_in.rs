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
