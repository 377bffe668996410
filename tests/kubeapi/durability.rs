//! The built program, killed while it writes, and on a disk that is full.
//!
//! `LANDBRIDGE_LONG_TESTS=1` takes the full length: 200 kills.

use crate::rig;
use axum::http::Method;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What was acknowledged: name and revision, none for what was deleted.
type Acknowledged = Arc<Mutex<BTreeMap<String, Option<u64>>>>;

pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts the program, perhaps behind a command that prepares the ground.
    pub(crate) fn start(home: &Path, before: &[&str]) -> Self {
        let settings = json!({
            "cluster": {"name": "rome"}, "dataDir": home.join("data"),
            "peer": {"listen": "127.0.0.1:0"}, "tunnel": {"mode": "off"},
            "api": {"listen": "127.0.0.1:0"}, "dashboard": {"listen": "127.0.0.1:0"},
            "lan": {"enabled": false},
        });
        fs::write(home.join("landbridge.yaml"), settings.to_string()).unwrap();
        let _ = fs::remove_file(home.join("data/kubeconfig"));
        let program = env!("CARGO_BIN_EXE_landbridge");
        let config = home.join("landbridge.yaml");
        let words = before.iter().copied().chain([program, "run", "--config"]);
        let mut words = words.map(PathBuf::from).chain([config]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let log = fs::File::create(home.join("log")).unwrap();
        Self(command.stderr(log).spawn().unwrap())
    }

    /// A client, once the API answers.
    pub(crate) async fn client(&self, home: &Path) -> Client {
        let deadline = Instant::now() + Duration::from_mins(1);
        // What is mounted for the program alone is seen through its own root.
        let path = format!(
            "/proc/{}/root{}/data/kubeconfig",
            self.0.id(),
            home.display()
        );
        loop {
            if let Ok(kubeconfig) = Kubeconfig::read_from(&path) {
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                let mut config = config.unwrap();
                config.default_retry = false;
                let client = Client::try_from(config).unwrap();
                let ready = axum::http::Request::get("/readyz")
                    .body(Vec::new())
                    .unwrap();
                if client.request_text(ready).await.is_ok() {
                    return client;
                }
            }
            let log = fs::read_to_string(home.join("log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "the daemon does not start:\n{log}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("data")).unwrap();
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(home.path().join("data"), private).unwrap();
    home
}

/// Creates, changes and deletes objects until the server is gone.
async fn write(client: Client, round: usize, writer: usize, done: Acknowledged) {
    for number in 0.. {
        let name = format!("r{round}-w{writer}-{number}");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": name}});
        if !deed(&client, Method::POST, &name, &object, &done).await {
            return;
        }
        let changes = match number % 4 {
            0 => Method::PUT,
            1 => Method::DELETE,
            _ => continue,
        };
        if !deed(&client, changes, &name, &object, &done).await {
            return;
        }
    }
}

/// Does one thing; false when it was not acknowledged, and then nothing is known of the object.
async fn deed(
    client: &Client,
    method: Method,
    name: &str,
    object: &Value,
    done: &Acknowledged,
) -> bool {
    done.lock().unwrap().remove(name);
    let path = match method {
        Method::POST => MAPS.to_owned(),
        _ => format!("{MAPS}/{name}"),
    };
    let mut object = object.clone();
    object["data"]["method"] = json!(method.as_str());
    let deletes = method == Method::DELETE;
    let body = if deletes {
        Vec::new()
    } else {
        object.to_string().into_bytes()
    };
    let request = axum::http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    let Ok(answer) = client.request::<Value>(request).await else {
        return false;
    };
    let revision = answer["metadata"]["resourceVersion"].as_str();
    let left = revision.map(|revision| revision.parse().unwrap());
    assert_eq!(left.is_none(), deletes, "{answer}");
    done.lock().unwrap().insert(name.to_owned(), left);
    true
}

async fn check(client: &Client, done: &Acknowledged, last: &mut u64) {
    let list = rig::send(client, "GET", MAPS, &[], "").await.json();
    let revision: u64 = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        revision >= *last,
        "the revision fell from {last} to {revision}"
    );
    *last = revision;
    let found: BTreeMap<String, u64> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let text = |field: &str| item["metadata"][field].as_str().unwrap().to_owned();
            (text("name"), text("resourceVersion").parse().unwrap())
        })
        .collect();
    for (name, revision) in done.lock().unwrap().iter() {
        assert_eq!(
            found.get(name).copied(),
            *revision,
            "what was acknowledged of {name} is lost"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let long = env::var_os("LANDBRIDGE_LONG_TESTS").is_some();
    let rounds = if long { 200 } else { 4 };
    let home = home();
    let done = Acknowledged::default();
    let mut last = 0;
    for round in 0..rounds {
        let daemon = Daemon::start(home.path(), &[]);
        let client = daemon.client(home.path()).await;
        check(&client, &done, &mut last).await;
        let writers: Vec<_> = (0..8)
            .map(|writer| tokio::spawn(write(client.clone(), round, writer, Arc::clone(&done))))
            .collect();
        let deadline = Instant::now() + Duration::from_mins(1);
        while !done
            .lock()
            .unwrap()
            .keys()
            .any(|name| name.starts_with(&format!("r{round}-")))
        {
            assert!(Instant::now() < deadline, "nothing is acknowledged");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Another moment in every round; which one does not matter.
        let moment = 20 + (round as u64 * 37) % 180;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        daemon.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let daemon = Daemon::start(home.path(), &[]);
    check(&daemon.client(home.path()).await, &done, &mut last).await;
    daemon.kill();
    let store = fs::read_dir(home.path().join("data")).unwrap();
    let store = store
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "db"))
        .unwrap();
    let connection = rusqlite::Connection::open(store).unwrap();
    assert_eq!(integrity(&connection), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let home = home();
    let data = home.path().join("data");
    let mount = format!(
        "mount -t tmpfs -o size=2m,mode=700 tmpfs {} && exec \"$0\" \"$@\"",
        data.display()
    );
    let unshare = ["unshare", "--mount", "--map-root-user", "sh", "-c", &mount];
    let possible = Command::new("unshare")
        .args(["--mount", "--map-root-user", "true"])
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        println!("skipped: no mount namespace can be made here");
        return;
    }
    let daemon = Daemon::start(home.path(), &unshare);
    let client = daemon.client(home.path()).await;
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"k": "x".repeat(100_000)}});
    let mut stored = 0;
    let refusal = loop {
        object["metadata"]["name"] = json!(format!("large-{stored}"));
        let answer = rig::post(&client, MAPS, &object).await;
        if answer.status != 201 {
            break answer;
        }
        stored += 1;
        assert!(stored < 100, "the disk does not fill");
    };
    assert_eq!(refusal.status, 507, "{refusal:?}");
    assert_eq!(refusal.json()["kind"], "Status");
    let list = rig::send(&client, "GET", MAPS, &[], "").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), stored);
    let remount = format!("mount -o remount,size=64m {}", data.display());
    let process = daemon.0.id().to_string();
    let entered = Command::new("nsenter")
        .args([
            "--target", &process, "--mount", "--user", "sh", "-c", &remount,
        ])
        .status()
        .unwrap();
    assert!(entered.success(), "the disk cannot be made larger");
    let answer = rig::post(&client, MAPS, &object).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let list = rig::send(&client, "GET", MAPS, &[], "").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), stored + 1);
    let left = files_seen_by(&process, &data);
    daemon.kill();
    let connection = rusqlite::Connection::open(left.path().join("store.db")).unwrap();
    assert_eq!(integrity(&connection), "ok");
    let count = "select count(distinct key) from log where key like '%/large-%'";
    let kept: u32 = connection.query_row(count, [], |row| row.get(0)).unwrap();
    let kept = usize::try_from(kept).unwrap();
    assert_eq!(kept, stored + 1, "what was acknowledged is on the disk");
}

/// The files of a store as they are in the namespace in which only the daemon sees them.
fn files_seen_by(process: &str, data: &Path) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    let seen = format!("/proc/{process}/root{}", data.display());
    for entry in fs::read_dir(seen).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_name().to_string_lossy().starts_with("store.db") {
            fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
        }
    }
    left
}

fn integrity(connection: &rusqlite::Connection) -> String {
    connection
        .query_row("pragma integrity_check", [], |row| row.get(0))
        .unwrap()
}
