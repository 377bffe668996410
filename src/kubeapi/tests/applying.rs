//! Server-side apply: what it answers and what it leaves as it is.

use super::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Applies an object as this manager.
async fn apply(api: &KubeApi, path: &str, manager: &str, object: &Value) -> (u16, Value) {
    let path = format!("{path}?fieldManager={manager}");
    send(api, "PATCH", &path, object.clone()).await
}

/// A map with this in each of these many fields.
fn map(fields: usize, text: &str) -> Value {
    let data: serde_json::Map<String, Value> = (0..fields)
        .map(|number| (format!("k{number}"), json!(text)))
        .collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data})
}

#[tokio::test(start_paused = true)]
async fn of_many_conflicts_all_are_counted_and_some_told() {
    let api = open().await;
    let path = format!("{MAPS}/a");
    assert_eq!(apply(&api, &path, "one", &map(300, "x")).await.0, 201);
    let (code, told) = apply(&api, &path, "two", &map(300, "y")).await;
    assert_eq!(code, 409, "{told}");
    let causes = told["details"]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 100);
    let message = told["message"].as_str().unwrap();
    assert!(
        message
            .starts_with("Apply failed with 300 conflicts: conflicts with \"one\":\n- .data.k0\n"),
        "{message}"
    );
    assert!(message.ends_with("\n- ..."), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_sent_has_no_longer_name_than_others() {
    let api = open().await;
    let path = format!("{MAPS}/a");
    let (_, mut made) = apply(&api, &path, "one", &map(1, "x")).await;
    for (length, wanted) in [(128, 200), (129, 422)] {
        let name = "m".repeat(length);
        made["metadata"]["resourceVersion"] = Value::Null;
        made["metadata"]["managedFields"][0]["manager"] = json!(name);
        let (code, told) = send(&api, "PUT", &path, made.clone()).await;
        assert_eq!(code, wanted, "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_apply_without_effect_writes_nothing() {
    let moment = Arc::new(AtomicI64::new(0));
    let api = open_at(&moment).await;
    let metadata = json!({"creationTimestamp": null, "labels": {}, "annotations": {}});
    let objects = [
        (
            "api/v1/namespaces/default/configmaps/a",
            "v1",
            "ConfigMap",
            json!({"data": {"k": "v"}}),
        ),
        (
            "api/v1/namespaces/default/secrets/a",
            "v1",
            "Secret",
            json!({"stringData": {"k": "v"}}),
        ),
        (
            "api/v1/namespaces/default/pods/a",
            "v1",
            "Pod",
            json!({"spec": {"containers": []}, "status": {}}),
        ),
    ];
    for (path, version, kind, mut object) in objects {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"] = metadata.clone();
        let path = format!("/{path}");
        let (code, made) = apply(&api, &path, "one", &object).await;
        assert_eq!(code, 201, "{made}");
        moment.fetch_add(60, Ordering::Relaxed);
        let (code, again) = apply(&api, &path, "one", &object).await;
        assert_eq!((code, again), (200, made));
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_with_a_long_name_of_before_locks_nothing() {
    let api = open().await;
    let path = format!("{MAPS}/a");
    let (_, mut made) = apply(&api, &path, "one", &map(1, "x")).await;
    made["metadata"]["managedFields"][0]["manager"] = json!("m".repeat(200));
    let key = "/configmaps/default/a";
    let stored = api.server.store.get(key).unwrap();
    let write = store::Write {
        key: key.to_owned(),
        expected: store::Expectation::Revision(stored.revision),
        object: made,
        deletes: false,
    };
    assert!(api.server.store.write(write).await.is_ok());
    let more = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"other": "y"}});
    let (code, told) = apply(&api, &path, "two", &more).await;
    assert_eq!(code, 200, "{told}");
}
