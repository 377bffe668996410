//! The TunnelEndpoint controller over the in-memory driver and the embedded API, on paused time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::http::Request;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, CustomResourceExt as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    client::Body,
};
use landbridge::{
    api::{
        identity::ClusterId,
        labels::FINALIZER_TUNNEL,
        tunnel_endpoint::{TunnelEndpoint, TunnelEndpointSpec},
    },
    controllers::tunnel_endpoint::{Connectivity, Settings, run},
    engine::overlay::{Observed, PublicKey},
    kubeapi::{Clock, KubeApi, Options},
    tunnel::{
        Driver,
        memory::{Fabric, MemoryDriver},
    },
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

#[tokio::test(start_paused = true)]
async fn two_sides_connect_and_then_write_nothing() {
    let (fabric, home, foreign) = two_clusters().await;
    home.wait_for("connected").await;
    foreign.wait_for("connected").await;
    let object = home.object().await;
    let status = object.status.unwrap();
    let connection = status.connection.unwrap();
    assert_eq!(connection.latency.as_deref(), Some("0.4 ms"));
    assert_eq!(connection.peer_configuration["allowedIPs"], "10.71.0.0/16");
    assert_eq!(connection.peer_configuration["port"], "5871");
    assert_eq!(status.tunnel_interface_name.as_deref(), Some("landbridge0"));
    assert_eq!(
        status.phase.as_deref(),
        Some("Ready"),
        "others' fields stay"
    );

    let revisions = (home.api.revision(), foreign.api.revision());
    fabric.set_latency(Duration::from_micros(700));
    sleep(Duration::from_hours(1)).await;
    assert_eq!((home.api.revision(), foreign.api.revision()), revisions);

    fabric.set_latency(Duration::from_millis(30));
    sleep(Duration::from_secs(10)).await;
    let connection = home.object().await.status.unwrap().connection.unwrap();
    assert_eq!(connection.latency.as_deref(), Some("30 ms"));
    let board = home.board.borrow().clone();
    let shown = &board[&"foreign".parse().unwrap()];
    assert!(shown.is_connected);
    assert_eq!(shown.address.to_string(), "10.71.0.1");
    assert_eq!(shown.round_trip, Some(Duration::from_millis(30)));
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_told_with_its_reason_and_a_heal_too() {
    let (fabric, home, _foreign) = two_clusters().await;
    home.wait_for("connected").await;
    fabric.cut(&key(1), &key(2));
    sleep(Duration::from_secs(25)).await;
    assert_eq!(home.status().await, "connecting");
    assert!(home.message().await.starts_with("handshake but no echo"));
    sleep(Duration::from_secs(200)).await;
    assert!(home.message().await.starts_with("no handshake with"));

    let revision = home.api.revision();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(home.api.revision(), revision, "a dead tunnel is no news");

    fabric.heal(&key(1), &key(2));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(home.status().await, "connected");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_removes_is_restored_within_ten_seconds() {
    let (fabric, home, _foreign) = two_clusters().await;
    home.wait_for("connected").await;
    let whole = fabric.look(&key(1));
    let damages: [fn(&mut Observed); 4] = [
        |observed| *observed = Observed::default(),
        |observed| observed.filter = None,
        |observed| observed.routes.clear(),
        |observed| observed.peers.clear(),
    ];
    for damage in damages {
        fabric.meddle(&key(1), damage);
        sleep(Duration::from_secs(10)).await;
        let now = fabric.look(&key(1));
        assert_eq!(now.filter, whole.filter);
        assert_eq!(now.routes, whole.routes);
        assert_eq!(now.interface, whole.interface);
        assert_eq!(now.peers.len(), 1);
        assert_eq!(home.status().await, "connected");
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_only_after_its_tunnel() {
    let (fabric, home, _foreign) = two_clusters().await;
    home.wait_for("connected").await;
    home.objects
        .delete("foreign", &DeleteParams::default())
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fabric.look(&key(1)), Observed::default());
    assert!(home.objects.get_opt("foreign").await.unwrap().is_none());
    assert!(home.board.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_object_can_go_where_no_tunnel_was_possible() {
    let (_fabric, home, _foreign) = two_clusters_with(|driver| {
        driver.set_unavailable(Some(("/dev/net/tun is missing", "load the module tun")));
    })
    .await;
    home.wait_for("error").await;
    let message = home.message().await;
    assert!(message.contains("/dev/net/tun is missing; load the module tun"));
    let revision = home.api.revision();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(home.api.revision(), revision);
    home.objects
        .delete("foreign", &DeleteParams::default())
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(home.objects.get_opt("foreign").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn who_is_put_out_goes_even_where_rules_are_refused() {
    let (fabric, home, _foreign) = two_clusters().await;
    let second = TunnelEndpointSpec {
        pod_cidr: "10.90.0.0/16".to_owned(),
        ..spec("second", 3)
    };
    let seen = json!({"phase": "Ready", "localNATPodCIDR": "None", "remoteNATPodCIDR": "None"});
    home.create(second, seen).await;
    home.wait_for("connected").await;
    home.driver.refuse_rules(true);
    for (name, left) in [("second", 1), ("foreign", 0)] {
        let deleted = home.objects.delete(name, &DeleteParams::default()).await;
        deleted.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(fabric.look(&key(1)).peers.len(), left);
        assert_eq!(fabric.look(&key(1)).routes.len(), left);
        assert!(home.objects.get_opt(name).await.unwrap().is_none());
        if left > 0 {
            assert!(home.message().await.contains("nft refused the rules"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_becomes_possible_is_made() {
    let (_fabric, home, _foreign) = two_clusters_with(|driver| {
        driver.set_unavailable(Some(("nft is missing", "install nftables")));
    })
    .await;
    home.wait_for("error").await;
    home.driver.set_unavailable(None);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(home.status().await, "connected");
}

#[tokio::test(start_paused = true)]
async fn a_peer_cannot_take_the_range_of_another() {
    let (fabric, home, _foreign) = two_clusters().await;
    home.wait_for("connected").await;
    let before = fabric.look(&key(1)).routes;
    sleep(Duration::from_secs(2)).await;
    let spec = TunnelEndpointSpec {
        pod_cidr: "10.71.3.0/24".to_owned(),
        ..spec("mallory", 3)
    };
    let seen = json!({"phase": "Ready", "localNATPodCIDR": "None", "remoteNATPodCIDR": "None"});
    home.create(spec, seen).await;
    sleep(Duration::from_secs(10)).await;
    let mallory = home.objects.get("mallory").await.unwrap();
    let connection = mallory.status.unwrap().connection.unwrap();
    assert_eq!(connection.status.as_deref(), Some("error"));
    assert!(connection.status_message.unwrap().contains("first owner"));
    assert_eq!(fabric.look(&key(1)).routes, before);
    assert_eq!(home.status().await, "connected");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_ranges_is_followed() {
    let (fabric, home, foreign) = two_clusters().await;
    home.wait_for("connected").await;
    home.set_status(json!({"remoteNATPodCIDR": "10.99.0.0/16"}))
        .await;
    foreign
        .set_status(json!({"localNATPodCIDR": "10.99.0.0/16"}))
        .await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(home.status().await, "connected");
    let routes: Vec<_> = fabric.look(&key(1)).routes.into_keys().collect();
    assert_eq!(routes, ["10.99.0.0/16".parse().unwrap()]);

    home.set_status(json!({"phase": null})).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(home.status().await, "connecting");
    assert_eq!(fabric.look(&key(1)), Observed::default());
}

#[tokio::test(start_paused = true)]
async fn stopping_cleans_the_machine_and_leaves_the_objects() {
    let (fabric, home, _foreign) = two_clusters().await;
    home.wait_for("connected").await;
    home.shutdown.cancel();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fabric.look(&key(1)), Observed::default());
    assert_eq!(home.status().await, "connected");
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_an_api_that_says_nothing() {
    let fabric = Fabric::default();
    let home = Cluster::start_behind(Arc::new(fabric.driver(key(1))), deaf_to_patches).await;
    home.create(spec("foreign", 2), ready("10.72.0.0/16", "10.71.0.0/16"))
        .await;
    sleep(Duration::from_secs(1)).await;
    assert_ne!(fabric.look(&key(1)), Observed::default());
    home.shutdown.cancel();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fabric.look(&key(1)), Observed::default());
}

#[tokio::test(start_paused = true)]
async fn an_api_that_says_nothing_holds_up_no_tunnel() {
    let fabric = Fabric::default();
    fabric.set_latency(Duration::from_micros(400));
    let home = Cluster::start_behind(Arc::new(fabric.driver(key(1))), deaf_to_patches).await;
    let foreign = Cluster::start(Arc::new(fabric.driver(key(2)))).await;
    introduce(&home, &foreign).await;
    foreign.wait_for("connected").await;
    for number in 3..43 {
        let seen_as = format!("10.{}.0.0/16", 100 + number);
        let silent = spec(&format!("silent-{number}"), number);
        home.create(silent, ready("10.72.0.0/16", &seen_as)).await;
    }
    sleep(Duration::from_mins(5)).await;
    let whole = fabric.look(&key(1)).filter;
    fabric.meddle(&key(1), |observed| observed.filter = None);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(fabric.look(&key(1)).filter, whole);
    let shown = home.board.borrow()[&"foreign".parse().unwrap()].clone();
    assert!(shown.is_connected, "{shown:?}");
    assert_eq!(shown.round_trip, Some(Duration::from_micros(400)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_many_endpoints_that_is_gone_is_not_looked_at_all_day_long() {
    let fabric = Fabric::default();
    let home = Cluster::start(Arc::new(fabric.driver(key(1)))).await;
    let endpoints = "192.168.1.2:5871,192.168.2.2:5871";
    let gone = spec_of("foreign", &key(2), endpoints);
    home.create(gone, ready("10.72.0.0/16", "10.71.0.0/16"))
        .await;
    sleep(Duration::from_mins(1)).await;
    let before = fabric.looks(&key(1));
    assert!(
        before > 15,
        "{before}: at first all endpoints are tried soon"
    );
    sleep(Duration::from_mins(10)).await;
    let looks = fabric.looks(&key(1)) - before;
    assert!((100..=125).contains(&looks), "{looks} looks in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn packets_fit_the_path_that_is_in_use() {
    let (fabric, home, _foreign) = two_clusters().await;
    home.wait_for("connected").await;
    let mtu = || fabric.look(&key(1)).interface.map(|it| it.mtu);
    assert_eq!(mtu(), Some(1420));
    let roamed = "[2001:db8::9]:5871".parse().unwrap();
    fabric.set_path(roamed, 1400);
    fabric.meddle(&key(1), |observed| {
        for peer in observed.peers.values_mut() {
            peer.endpoint = Some(roamed);
        }
    });
    sleep(Duration::from_secs(15)).await;
    assert_eq!(mtu(), Some(1320));
}

/// A client whose patches are never answered.
fn deaf_to_patches(client: Client) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            if request.method() == "PATCH" {
                std::future::pending::<()>().await;
            }
            client.send(request).await
        }
    });
    Client::new(service, "default")
}

/// An embedded API with the controller on it.
pub(super) struct Cluster<D> {
    pub api: KubeApi,
    pub objects: Api<TunnelEndpoint>,
    pub driver: Arc<D>,
    pub board: watch::Receiver<BTreeMap<ClusterId, Connectivity>>,
    pub shutdown: CancellationToken,
}

async fn two_clusters() -> (Fabric, Cluster<MemoryDriver>, Cluster<MemoryDriver>) {
    two_clusters_with(|_| {}).await
}

/// Two clusters of the same range, with a TunnelEndpoint for each other.
async fn two_clusters_with(
    prepare: impl Fn(&MemoryDriver),
) -> (Fabric, Cluster<MemoryDriver>, Cluster<MemoryDriver>) {
    let fabric = Fabric::default();
    fabric.set_latency(Duration::from_micros(400));
    let home = Cluster::start(Arc::new(fabric.driver(key(1)))).await;
    prepare(&home.driver);
    let foreign = Cluster::start(Arc::new(fabric.driver(key(2)))).await;
    introduce(&home, &foreign).await;
    (fabric, home, foreign)
}

/// Makes a TunnelEndpoint for each other on two clusters of the same range.
async fn introduce<D: Driver + 'static>(home: &Cluster<D>, foreign: &Cluster<D>) {
    home.create(spec("foreign", 2), ready("10.72.0.0/16", "10.71.0.0/16"))
        .await;
    foreign
        .create(spec("home", 1), ready("10.71.0.0/16", "10.72.0.0/16"))
        .await;
}

impl<D: Driver + 'static> Cluster<D> {
    pub(super) async fn start(driver: Arc<D>) -> Self {
        Self::start_behind(driver, |client| client).await
    }

    /// Starts the controller with a client that something stands before.
    async fn start_behind(driver: Arc<D>, wrap: impl FnOnce(Client) -> Client) -> Self {
        let started = Instant::now();
        let clock: Clock = Arc::new(move || {
            let elapsed = SignedDuration::try_from(started.elapsed()).unwrap();
            Timestamp::from_second(1_800_000_000).unwrap() + elapsed
        });
        let api = KubeApi::open(Options::in_memory(
            Arc::clone(&clock),
            vec![TunnelEndpoint::crd()],
        ))
        .await
        .unwrap();
        let settings = Settings::new("10.244.0.0/16".parse().unwrap());
        let board = settings.board.subscribe();
        let shutdown = CancellationToken::new();
        tokio::spawn(run(
            wrap(api.client()),
            Arc::clone(&driver) as Arc<dyn Driver>,
            settings,
            clock,
            shutdown.clone(),
        ));
        Self {
            objects: Api::all(api.client()),
            api,
            driver,
            board,
            shutdown,
        }
    }

    pub(super) async fn create(&self, spec: TunnelEndpointSpec, status: serde_json::Value) {
        let mut object = TunnelEndpoint::new(&spec.cluster_id.clone(), spec);
        object.metadata.finalizers = Some(vec![FINALIZER_TUNNEL.to_owned()]);
        let name = object.name_any();
        let created = self.objects.create(&PostParams::default(), &object).await;
        created.unwrap();
        let patch = Patch::Merge(json!({ "status": status }));
        let params = PatchParams::default();
        let patched = self.objects.patch_status(&name, &params, &patch).await;
        patched.unwrap();
    }

    async fn set_status(&self, status: serde_json::Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        let name = self.object().await.name_any();
        let params = PatchParams::default();
        let patched = self.objects.patch_status(&name, &params, &patch).await;
        patched.unwrap();
    }

    async fn object(&self) -> TunnelEndpoint {
        let list = self
            .objects
            .list(&kube::api::ListParams::default())
            .await
            .unwrap();
        let first = list.items.into_iter().find(|it| it.name_any() != "mallory");
        first.unwrap()
    }

    async fn status(&self) -> String {
        let status = self.object().await.status.unwrap_or_default();
        let connection = status.connection.unwrap_or_default();
        connection.status.unwrap_or_default()
    }

    async fn message(&self) -> String {
        let status = self.object().await.status.unwrap_or_default();
        let connection = status.connection.unwrap_or_default();
        connection.status_message.unwrap_or_default()
    }

    pub(super) async fn wait_for(&self, status: &str) {
        for _ in 0..200 {
            if self.status().await == status {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("{} {}", self.status().await, self.message().await);
    }
}

fn spec(cluster: &str, number: u8) -> TunnelEndpointSpec {
    spec_of(cluster, &key(number), "192.168.1.2:5871")
}

/// The status of a negotiated TunnelEndpoint.
pub(super) fn ready(local: &str, remote: &str) -> serde_json::Value {
    json!({
        "phase": "Ready",
        "localPodCIDR": "10.244.0.0/16",
        "localNATPodCIDR": local,
        "remoteNATPodCIDR": remote,
    })
}

/// A peer that uses the same range as everybody.
pub(super) fn spec_of(cluster: &str, key: &PublicKey, endpoints: &str) -> TunnelEndpointSpec {
    TunnelEndpointSpec {
        cluster_id: cluster.to_owned(),
        pod_cidr: "10.244.0.0/16".to_owned(),
        external_cidr: "10.200.0.0/24".to_owned(),
        endpoint_ip: String::new(),
        backend_type: "wireguard".to_owned(),
        backend_config: BTreeMap::from([
            ("publicKey".to_owned(), key.to_string()),
            ("port".to_owned(), "5871".to_owned()),
            ("endpoints".to_owned(), endpoints.to_owned()),
        ]),
    }
}

fn key(number: u8) -> PublicKey {
    PublicKey::new([number; 32])
}
