//! Watches: what they tell, from where, and when they end.

use super::*;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_happens_after_its_revision() {
    let api = open().await;
    let clusters = clusters(&api);
    let revision = api.revision().to_string();
    clusters
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"spec": {"join": true}}));
    clusters
        .patch("rome", &PatchParams::default(), &patch)
        .await
        .unwrap();
    clusters
        .delete("rome", &DeleteParams::default())
        .await
        .unwrap();
    let events = clusters
        .watch(&WatchParams::default().timeout(5), &revision)
        .await
        .unwrap();
    let words: Vec<String> = events
        .map_ok(|event| word(&event))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(words[..3], ["ADDED rome", "MODIFIED rome", "DELETED rome"]);
    assert!(words[3].starts_with("BOOKMARK"));
}

#[tokio::test(start_paused = true)]
async fn a_selector_turns_changes_into_coming_and_going() {
    let api = open().await;
    let clusters = clusters(&api);
    let revision = api.revision().to_string();
    clusters
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
    for label in [json!("b"), json!("c"), Value::Null] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"a": label}}}));
        clusters
            .patch("rome", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    let mut wanted = WatchParams::default().labels("a=b").timeout(5);
    wanted.bookmarks = false;
    let events = clusters.watch(&wanted, &revision).await.unwrap();
    let words: Vec<String> = events
        .map_ok(|event| word(&event))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(words, ["ADDED rome", "DELETED rome"]);
}

#[tokio::test(start_paused = true)]
async fn both_ways_to_watch_of_kube_work() {
    let api = open().await;
    let clusters = clusters(&api);
    clusters
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let events = watcher(clusters.clone(), config);
        let seen: Vec<_> = events.take(3).try_collect().await.unwrap();
        assert!(matches!(seen[0], watcher::Event::Init));
        assert!(
            matches!(&seen[1], watcher::Event::InitApply(object) if object.name_any() == "rome")
        );
        assert!(matches!(seen[2], watcher::Event::InitDone));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_too_old_is_told_so() {
    let moment = Arc::new(AtomicI64::new(0));
    let api = open_at(&moment).await;
    let clusters = clusters(&api);
    clusters
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
    moment.store(3_600, Ordering::Relaxed);
    clusters
        .create(&PostParams::default(), &cluster("milan"))
        .await
        .unwrap();
    let mut events = clusters
        .watch(&WatchParams::default(), "1")
        .await
        .unwrap()
        .boxed();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first, WatchEvent::Error(status) if status.code == 410));
}

#[tokio::test(start_paused = true)]
async fn an_idle_watch_tells_its_revision() {
    let api = open().await;
    let clusters = clusters(&api);
    let watched = clusters
        .watch(&WatchParams::default().timeout(70), "0")
        .await
        .unwrap();
    let mut events = watched.boxed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let other: Api<ConfigMap> = Api::default_namespaced(api.client());
    other
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    let words =
        [events.next().await, events.next().await].map(|event| word(&event.unwrap().unwrap()));
    assert_eq!(
        words,
        [
            format!("BOOKMARK {}", api.revision()),
            format!("BOOKMARK {}", api.revision())
        ]
    );
    assert!(events.next().await.is_none());
}

/// A store that lost the beginning of its log.
struct Forgetful(store::Memory, u64);

impl store::Backend for Forgetful {
    fn load(&mut self) -> Result<store::Loaded, crate::kubeapi::Error> {
        let mut loaded = self.0.load()?;
        loaded.compacted = self.1;
        loaded.log.retain(|change| change.revision > self.1);
        Ok(loaded)
    }

    fn commit(
        &mut self,
        batch: &[store::Change],
        forget: u64,
    ) -> Result<(), crate::kubeapi::Error> {
        self.0.commit(batch, forget)
    }
}

/// What a line of a watch says, in short.
fn told_by(line: &Value) -> String {
    let object = &line["object"];
    let name = object["metadata"]["name"].as_str().map(str::to_owned);
    let what = name.unwrap_or_else(|| object["code"].to_string());
    format!("{} {what}", line["type"].as_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_resumed_watch_tells_nothing_of_what_was_not_selected_before_the_log_began() {
    let memory = store::Memory::default();
    let first = KubeApi::open(options(memory.clone())).await.unwrap();
    let path = "/apis/lb.test/v1alpha1/clusters";
    for name in ["a", "b", "c"] {
        let object = serde_json::to_value(cluster(name)).unwrap();
        assert_eq!(send(&first, "POST", path, object).await.0, 201);
    }
    let old = first.revision();
    for name in ["a", "b"] {
        let patch = json!({"spec": {"join": true}});
        send(&first, "PATCH", &format!("{path}/{name}"), patch).await;
    }
    send(&first, "DELETE", &format!("{path}/c"), Value::Null).await;
    drop(first);
    let options = Options {
        backend: Box::new(Forgetful(memory.clone(), old)),
        ..options(memory)
    };
    let api = KubeApi::open(options).await.unwrap();
    for (wanted, told) in [
        ("fieldSelector=metadata.name=a", vec!["MODIFIED a"]),
        ("fieldSelector=metadata.name=c", vec!["DELETED c"]),
        (
            "fieldSelector=metadata.name!=a",
            vec!["MODIFIED b", "DELETED c"],
        ),
        // Whether it had the label then is not known.
        ("labelSelector=k=v", vec!["ERROR 410"]),
        ("", vec!["MODIFIED a", "MODIFIED b", "DELETED c"]),
    ] {
        let path = format!("{path}?watch=1&timeoutSeconds=1&resourceVersion={old}&{wanted}");
        let words: Vec<String> = lines(&api, &path).await.iter().map(told_by).collect();
        assert_eq!(words, told, "{wanted}");
    }
}
