//! The daemon on a cluster that is not its own: the same controllers behind a kubeconfig.
//!
//! The cluster is an API server on loopback that knows nothing of us; what is special about a real
//! one (other definitions, other clients) does not matter to the daemon.

#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "tests of attacks start daemons in other ways too")]
mod daemon;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use daemon::Daemon;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ConfigMap, Node, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use landbridge::{
    api::{ClusterConfig, ForeignCluster, ForeignClusterSpec, foreign_cluster::Phase},
    kubeapi::{
        KubeApi, Options,
        loopback::{self, Credentials},
    },
};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How long a state may take before the test counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_installs_its_definitions_and_keeps_its_key_in_the_cluster() {
    let cluster = Cluster::start().await;
    let daemon = Daemon::start("rome", Some(&cluster.kubeconfig()));
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "liqo");
    let secret = until("the identity", &daemon, async || {
        secrets.get_opt("landbridge-identity").await.ok().flatten()
    })
    .await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let served = definitions
        .list(&ListParams::default())
        .await
        .expect("a list");
    assert_eq!(served.items.len(), landbridge::api::crds().len());
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let nodes = nodes.list(&ListParams::default()).await.expect("a list");
    assert!(nodes.items.is_empty(), "a cluster has nodes of its own");

    assert!(!daemon.log().contains("has no effect"), "{}", daemon.log());

    drop(daemon);
    let daemon = Daemon::start("milan", Some(&cluster.kubeconfig()));
    until("the second start", &daemon, async || {
        daemon.log().contains("Landbridge runs").then_some(())
    })
    .await;
    let log = daemon.log();
    let complaint = "cluster.name has no effect: the ClusterConfig says otherwise";
    assert!(log.contains(complaint), "{log}");
    assert!(log.contains(r#"{"clusterName":"milan"}"#), "{log}");
    let again = secrets
        .get("landbridge-identity")
        .await
        .expect("the identity");
    assert_eq!(again.data, secret.data, "the identity outlives the daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_said_of_what_is_off_now_does_not_stay() {
    let cluster = Cluster::start().await;
    let daemon = Daemon::start("rome", Some(&cluster.kubeconfig()));
    until("the daemon", &daemon, async || {
        daemon.log().contains("Landbridge runs").then_some(())
    })
    .await;
    drop(daemon);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "liqo");
    let configs: Api<ClusterConfig> = Api::all(cluster.client.clone());
    let params = PatchParams::default();
    let zone = json!({"data": {"dnsZone": "a.test", "dnsProblem": "TSIG key rejected"}});
    let zone = Patch::Merge(zone);
    let patched = maps.patch("landbridge-status", &params, &zone);
    patched.await.expect("a ConfigMap");
    let blocked = json!({"type": "LanDiscovery", "status": "False", "reason": "MulticastBlocked",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let blocked = Patch::Merge(json!({"status": {"conditions": [blocked]}}));
    let patched = configs.patch_status("liqo-configuration", &params, &blocked);
    patched.await.expect("a ClusterConfig");

    let daemon = Daemon::start("rome", Some(&cluster.kubeconfig()));
    until("the end of both", &daemon, async || {
        let said = maps.get("landbridge-status").await.ok()?.data?;
        let config = configs.get("liqo-configuration").await.ok()?;
        let is_off = config.status?.conditions.first()?.reason == "SwitchedOff";
        (is_off && said["dnsZone"].is_empty() && said["dnsProblem"].is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_dead_is_3_though_its_cluster_answers() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.status().await, Some(3), "it never ran");
    let daemon = Daemon::start("rome", Some(&cluster.kubeconfig()));
    until("the daemon", &daemon, async || {
        (cluster.status().await == Some(0)).then_some(())
    })
    .await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "liqo");
    let lease = leases.get("landbridge").await.expect("a Lease");
    drop(daemon);
    assert_eq!(cluster.status().await, Some(3), "it has ended");

    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let left_over = Lease {
        metadata: ObjectMeta {
            name: lease.metadata.name,
            ..ObjectMeta::default()
        },
        spec: lease.spec.map(|spec| LeaseSpec {
            renew_time: Some(MicroTime(long_ago)),
            ..spec
        }),
    };
    let created = leases.create(&PostParams::default(), &left_over).await;
    created.expect("a Lease");
    assert_eq!(cluster.status().await, Some(3), "it was killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_an_api_of_its_own_needs_no_heartbeat() {
    let machine = Daemon::start("milan", None);
    let kubeconfig = machine.data().join("kubeconfig");
    until("the status", &machine, async || {
        (status(&kubeconfig).await == Some(0)).then_some(())
    })
    .await;
    let said = machine.landbridge(&["status", "-o", "json"]);
    assert!(
        said.contains(r#""apiServer": "https://127.0.0.1:"#),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_and_a_machine_without_one_peer_by_hand() {
    let cluster = Cluster::start().await;
    let daemon = Daemon::start("rome", Some(&cluster.kubeconfig()));
    peer_and_part(&cluster, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_manifest_gives_are_enough() {
    let cluster = Cluster::start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    for definition in landbridge::api::crds() {
        let created = definitions
            .create(&PostParams::default(), &definition)
            .await;
        created.expect("a definition");
    }
    let kubeconfig = cluster.account().await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Daemon::command(directory.path(), "rome", &[]);
    command.arg("--kubeconfig").arg(kubeconfig);
    command.env("LANDBRIDGE_LOG_LEVEL", "debug");
    let daemon = Daemon::spawn(directory, command);
    peer_and_part(&cluster, &daemon).await;
    let log = daemon.log();
    assert!(!log.contains("forbidden"), "{log}");
    drop(daemon);
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "liqo");
    let left = leases.get_opt("landbridge").await.expect("an answer");
    assert!(left.is_none(), "the heartbeat was withdrawn");
}

/// Has the daemon of a cluster peer with a machine that has none, and part again.
async fn peer_and_part(cluster: &Cluster, daemon: &Daemon) {
    let machine = Daemon::start("milan", None);
    let url = until("milan's endpoint", &machine, async || machine.endpoint()).await;
    let clusters: Api<ForeignCluster> = Api::all(cluster.client.clone());
    until("the definitions", daemon, async || {
        clusters.list(&ListParams::default()).await.ok()
    })
    .await;
    let spec = ForeignClusterSpec {
        auth_url: url,
        join: true,
        ..ForeignClusterSpec::default()
    };
    let object = ForeignCluster::new("milan", spec);
    clusters
        .create(&PostParams::default(), &object)
        .await
        .expect("the object is taken");
    let peered = until("the peering", daemon, async || {
        let object = clusters.get("milan").await.ok()?;
        (object.status.as_ref()?.phase == Some(Phase::Peered)).then_some(object)
    })
    .await;
    let id = peered.spec.cluster_identity.expect("filled in").cluster_id;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let node = nodes
        .get(&format!("liqo-{id}"))
        .await
        .expect("the virtual node");
    let capacity = node
        .status
        .and_then(|status| status.capacity)
        .expect("a capacity");
    assert!(
        capacity.contains_key("cpu") && capacity.contains_key("memory"),
        "{capacity:?}"
    );

    let leave = Patch::Merge(json!({"spec": {"join": false}}));
    clusters
        .patch("milan", &PatchParams::default(), &leave)
        .await
        .expect("the patch is taken");
    until("the end of the node", daemon, async || {
        nodes
            .get_opt(&format!("liqo-{id}"))
            .await
            .ok()?
            .is_none()
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_nodes_of_a_cluster_have_left_is_offered() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let node = Node {
        metadata: ObjectMeta {
            name: Some("worker".to_owned()),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    nodes
        .create(&PostParams::default(), &node)
        .await
        .expect("a node");
    let status = json!({"status": {
        "allocatable": {"cpu": "10", "memory": "1000"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    nodes
        .patch_status("worker", &PatchParams::default(), &Patch::Merge(status))
        .await
        .expect("its status");
    let daemon = Daemon::start("rome", Some(&cluster.kubeconfig()));
    let machine = Daemon::start("milan", None);
    let url = until("rome's endpoint", &daemon, async || daemon.endpoint()).await;
    until("milan's endpoint", &machine, async || machine.endpoint()).await;
    let added = machine.landbridge(&["add", &url, "--name", "rome", "--join"]);
    assert!(added.contains("rome"), "{added}");
    until("the offer", &machine, async || {
        let nodes = machine.landbridge(&["get", "-o", "json"]);
        nodes.contains("\"phase\": \"Peered\"").then_some(())
    })
    .await;
    let kubeconfig = machine.data().join("kubeconfig");
    let client = client_of(&kubeconfig).await;
    let remote: Api<Node> = Api::all(client);
    let list = remote
        .list(&ListParams::default().labels("liqo.io/type=virtual-node"))
        .await;
    let capacity = list
        .expect("a list")
        .items
        .remove(0)
        .status
        .and_then(|status| status.capacity);
    let capacity = capacity.expect("a capacity");
    assert_eq!(capacity.get("cpu").map(|cpu| cpu.0.as_str()), Some("3000m"));
    assert_eq!(
        capacity.get("memory").map(|memory| memory.0.as_str()),
        Some("300")
    );
}

/// An API server that stands for somebody's cluster.
struct Cluster {
    client: Client,
    url: String,
    directory: TempDir,
    stop: CancellationToken,
}

impl Cluster {
    async fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let directory = tempfile::tempdir().expect("a directory");
        let api = KubeApi::open(Options::in_memory(
            Arc::new(jiff::Timestamp::now),
            Vec::new(),
        ))
        .await
        .expect("an API");
        let credentials = Credentials::load_or_create(directory.path(), jiff::Timestamp::now());
        let credentials = credentials.expect("credentials");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let url = format!("https://{address}");
        fs::write(
            directory.path().join("cluster.yaml"),
            credentials.kubeconfig(&url),
        )
        .expect("writable");
        let (client, stop) = (api.client(), CancellationToken::new());
        let end = stop.clone();
        tokio::spawn(async move { loopback::serve(listener, api, &credentials, end).await });
        Self {
            client,
            url,
            directory,
            stop,
        }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("cluster.yaml")
    }

    /// Gives the account of the manifest its rights, and returns its kubeconfig.
    async fn account(&self) -> PathBuf {
        let text = fs::read_to_string("deploy/kubernetes/landbridge.yaml").expect("a manifest");
        let documents = text.split("\n---\n").map(|document| {
            let read: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
            read
        });
        for document in documents {
            let say = |path| document.pointer(path).and_then(serde_json::Value::as_str);
            let kind = say("/kind").expect("a kind").to_lowercase();
            let path = match (kind.as_str(), say("/metadata/namespace")) {
                // These are not served here, or there already.
                ("serviceaccount" | "deployment" | "namespace", _) => continue,
                (_, None) => format!("/apis/rbac.authorization.k8s.io/v1/{kind}s"),
                (_, Some(namespace)) => {
                    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{kind}s")
                }
            };
            let request = axum::http::Request::post(path).body(document.to_string().into_bytes());
            let created = self.client.request_text(request.expect("a request")).await;
            created.expect("it is taken");
        }
        let now = jiff::Timestamp::now();
        let credentials = Credentials::load_or_create(self.directory.path(), now);
        let account = "system:serviceaccount:liqo:landbridge";
        let issued = credentials
            .expect("credentials")
            .kubeconfig_for(account, &[], &self.url, now);
        let path = self.directory.path().join("account.yaml");
        fs::write(&path, issued.expect("a certificate")).expect("writable");
        path
    }

    /// Returns the exit code of `landbridge status`.
    async fn status(&self) -> Option<i32> {
        status(&self.kubeconfig()).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Returns the exit code of `landbridge status`.
async fn status(kubeconfig: &Path) -> Option<i32> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_landbridge"));
    command.arg("status").arg("--kubeconfig").arg(kubeconfig);
    let output = command.output().await;
    output.expect("the program runs").status.code()
}

async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.expect("usable")).expect("a client")
}

/// Looks until there is something, or fails with what the daemon said.
async fn until<T>(what: &str, daemon: &Daemon, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not come about:\n{}",
            daemon.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
