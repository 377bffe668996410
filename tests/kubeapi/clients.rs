//! Programs that people run against a Kubernetes API, against this one.

use crate::rig::{self, Server};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Event as CoreEvent, Node, ObjectReference},
    events::v1::Event as NewEvent,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        Controller, WatchStreamExt,
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
        finalizer::{self, finalizer},
        watcher,
    },
};
use kube_lease_manager::LeaseManagerBuilder;
use serde_json::json;
use std::{fs, pin::pin, process::Command, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};

const PATIENCE: Duration = Duration::from_secs(30);

const FINALIZER: &str = "lb.test/clean";

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": "v"}})).unwrap()
}

async fn maps() -> (Server, Client, Api<ConfigMap>) {
    let server = Server::start().await;
    let client = server.client("admin", &[]).await;
    let api = Api::namespaced(client.clone(), "default");
    (server, client, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_everything_in_both_list_modes() {
    let (_server, _, api) = maps().await;
    for number in 0..3 {
        let fresh = map(&format!("old-{number}"));
        api.create(&PostParams::default(), &fresh).await.unwrap();
    }
    let modes = [
        watcher::Config::default(),
        watcher::Config::default().page_size(1),
        watcher::Config::default().streaming_lists(),
    ];
    for (mode, config) in modes.into_iter().enumerate() {
        let mut seen = pin!(watcher(api.clone(), config).applied_objects());
        let mut names = Vec::new();
        for _ in 0..3 {
            let next = timeout(PATIENCE, seen.try_next()).await.unwrap();
            names.push(next.unwrap().unwrap().name_any());
        }
        names.sort();
        assert_eq!(names, ["old-0", "old-1", "old-2"]);
        let fresh = format!("new-{mode}");
        api.create(&PostParams::default(), &map(&fresh))
            .await
            .unwrap();
        let next = timeout(PATIENCE, seen.try_next()).await.unwrap();
        assert_eq!(next.unwrap().unwrap().name_any(), fresh);
        api.delete(&fresh, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_nobody_reads_is_ended_and_its_watcher_recovers() {
    let (_server, client, api) = maps().await;
    let path = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0";
    let unread = rig::open(&client, "GET", path, &[], "").await;
    let mut seen = pin!(watcher(api.clone(), watcher::Config::default()).applied_objects());
    let first = map("first");
    api.create(&PostParams::default(), &first).await.unwrap();
    let next = timeout(PATIENCE, seen.try_next()).await.unwrap();
    assert_eq!(next.unwrap().unwrap().name_any(), "first");
    // More than the buffers between us can hold; neither of the two reads meanwhile.
    let total = 2_500;
    let large = "x".repeat(20_000);
    let writes = futures::stream::iter(0..total).map(|number| {
        let mut fresh = map(&format!("large-{number}"));
        fresh.data = Some([("k".to_owned(), large.clone())].into());
        let api = api.clone();
        async move { api.create(&PostParams::default(), &fresh).await }
    });
    let written: Result<Vec<_>, _> = writes.buffer_unordered(64).try_collect().await;
    assert_eq!(written.unwrap().len(), total);
    let told = timeout(PATIENCE, rig::read(unread)).await.unwrap();
    let lines = told.body.lines().count();
    assert!(lines < total, "it was not ended: {lines} lines");
    let mut names = std::collections::BTreeSet::new();
    while names.len() < total {
        // The watcher tells what ended its watch, and lists again.
        if let Ok(next) = timeout(PATIENCE, seen.next()).await.unwrap().unwrap() {
            let name = next.name_any();
            names.extend(name.starts_with("large-").then_some(name));
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it does not work")]
struct Failure;

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_with_a_finalizer_cleans_up_before_the_end() {
    let (_server, _, api) = maps().await;
    let (told, mut steps) = mpsc::channel(64);
    let context = Arc::new((api.clone(), told));
    let reconcile = |object: Arc<ConfigMap>,
                     context: Arc<(Api<ConfigMap>, mpsc::Sender<String>)>| async move {
        finalizer(&context.0, FINALIZER, object, |event| async {
            let (word, object) = match event {
                finalizer::Event::Apply(object) => ("apply", object),
                finalizer::Event::Cleanup(object) => ("cleanup", object),
            };
            let step = format!("{word} {}", object.name_any());
            context.1.send(step).await.map_err(|_| Failure)?;
            Ok::<_, Failure>(Action::await_change())
        })
        .await
        .map_err(|_| Failure)
    };
    let controller = Controller::new(api.clone(), watcher::Config::default())
        .run(
            reconcile,
            |_, _: &Failure, _| Action::requeue(Duration::from_secs(1)),
            context,
        )
        .for_each(|_| async {});
    let running = tokio::spawn(controller);
    api.create(&PostParams::default(), &map("a")).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, steps.recv()).await.unwrap().unwrap(),
        "apply a"
    );
    let held = api.get("a").await.unwrap();
    assert_eq!(held.finalizers(), [FINALIZER]);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    loop {
        let step = timeout(PATIENCE, steps.recv()).await.unwrap().unwrap();
        if step == "cleanup a" {
            break;
        }
    }
    let uid = held.uid().unwrap();
    let gone = kube::runtime::wait::await_condition(
        api.clone(),
        "a",
        kube::runtime::conditions::is_deleted(&uid),
    );
    timeout(PATIENCE, gone).await.unwrap().unwrap();
    running.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_writes_one_event_that_counts() {
    let (_server, client, api) = maps().await;
    let about = api.create(&PostParams::default(), &map("a")).await.unwrap();
    let reporter = Reporter {
        controller: "landbridge".to_owned(),
        instance: None,
    };
    let recorder = Recorder::new(client.clone(), reporter);
    let reference = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("ConfigMap".to_owned()),
        name: about.metadata.name.clone(),
        namespace: about.metadata.namespace.clone(),
        uid: about.uid(),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Normal,
        reason: "Found".to_owned(),
        note: Some("it is there".to_owned()),
        action: "Look".to_owned(),
        secondary: None,
    };
    for _ in 0..2 {
        recorder.publish(&event, &reference).await.unwrap();
    }
    let new: Api<NewEvent> = Api::namespaced(client.clone(), "default");
    let found = new.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].series.as_ref().unwrap().count, 2);
    let core: Api<CoreEvent> = Api::namespaced(client, "default");
    let about = ListParams::default().fields("involvedObject.name=a");
    let found = core.list(&about).await.unwrap().items;
    assert_eq!(found[0].message.as_deref(), Some("it is there"));
    assert_eq!(found[0].reporting_component.as_deref(), Some("landbridge"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_lease_managers_one_leads_and_the_other_follows_on() {
    let (server, first, _) = maps().await;
    let second = server.client("admin", &[]).await;
    let manager = async |client: Client, identity: &str| {
        let builder = LeaseManagerBuilder::new(client, "leader")
            .with_namespace("default")
            .with_identity(identity)
            .with_duration(3)
            .with_grace(1);
        builder.build().await.unwrap()
    };
    let one = manager(first, "one").await;
    let two = manager(second, "two").await;
    assert!(timeout(PATIENCE, one.changed()).await.unwrap().unwrap());
    let waiting = tokio::spawn(async move { two.changed().await.unwrap() });
    one.release().await.unwrap();
    assert!(timeout(PATIENCE, waiting).await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_strategic_patches_and_has_a_status() {
    let (_server, client, _) = maps().await;
    let nodes: Api<Node> = Api::all(client);
    let node = serde_json::from_value(json!({"metadata": {"name": "liqo-1"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let taint = |key: &str| json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}});
    let condition =
        |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True"}]}});
    let params = PatchParams::default();
    for kind in ["Ready", "NetworkReady"] {
        let patch = Patch::Strategic(condition(kind));
        nodes.patch_status("liqo-1", &params, &patch).await.unwrap();
    }
    let patch = Patch::Strategic(taint("a"));
    nodes.patch("liqo-1", &params, &patch).await.unwrap();
    let node = nodes.get("liqo-1").await.unwrap();
    assert_eq!(node.status.unwrap().conditions.unwrap().len(), 2);
    assert_eq!(node.spec.unwrap().taints.unwrap()[0].key, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works() {
    let home = tempfile::tempdir().unwrap();
    let venv = home.path().join("venv");
    let made = Command::new("python3")
        .arg("-m")
        .arg("venv")
        .arg(&venv)
        .output();
    let installed = made.is_ok_and(|output| output.status.success())
        && Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--retries", "1", "kubernetes"])
            .output()
            .is_ok_and(|output| output.status.success());
    if !installed {
        println!("skipped: the Python client cannot be installed here");
        return;
    }
    let server = Server::start().await;
    let kubeconfig = home.path().join("kubeconfig");
    fs::write(&kubeconfig, server.kubeconfig("admin", &[])).unwrap();
    let program = home.path().join("client.py");
    fs::write(&program, rig::PYTHON).unwrap();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(venv.join("bin/python"))
            .arg(program)
            .arg(kubeconfig)
            .output()
    });
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.ends_with("done\n"),
        "{output:?}"
    );
}
