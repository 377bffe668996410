//! A few whole clusters on one LAN: started, crashed, stopped, looked at and told what a person wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use landbridge::{
    api::{
        ClusterConfigSpec, ClusterId, ClusterName, ForeignCluster, ForeignClusterSpec,
        TunnelEndpoint,
        foreign_cluster::{DiscoveryType, Phase},
        labels,
    },
    controllers::{
        Clock, Context, cluster_config,
        context::Parts,
        foreign_cluster,
        own_node::{self, Machine},
        peering_request,
        reception::FrontDesk,
        roster, tunnel_endpoint,
    },
    engine::{
        addressing::{Ground, external_range},
        overlay::{Observed, PublicKey},
        peering::{Own, OwnTunnel},
        sighting::Sighting,
    },
    kubeapi::{KubeApi, Options, store::Commit},
    peer::{
        auth::PeerEndpoint,
        certificates::{Identity, Proven},
        trust::FleetSecret,
    },
    tunnel::{Driver, memory::Fabric},
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    disk::Disk,
    invariants,
    lan::{Lan, Plug, Socket},
    logbook::Logbook,
};

/// The secret of a fleet.
pub(crate) const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// The time to live of an announcement.
pub(crate) const TTL: Duration = Duration::from_mins(2);
/// How often we look whether something has come about.
const LOOK: Duration = Duration::from_millis(100);
/// When a history begins.
const BEGINNING: i64 = 1_800_000_000;
/// The names of the clusters.
const NAMES: [&str; 3] = ["rome", "milan", "turin"];

/// What a cluster is set up with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Whether it knows the fleet secret.
    pub fleet: bool,
    /// Whether it announces itself and listens.
    pub discovers: bool,
    /// Its policy at first start.
    pub policy: ClusterConfigSpec,
}

impl Setup {
    /// A machine of a fleet.
    pub(crate) fn fleet() -> Self {
        Self {
            fleet: true,
            ..Self::stranger()
        }
    }

    /// A machine that nobody knows.
    pub(crate) fn stranger() -> Self {
        Self {
            fleet: false,
            discovers: true,
            policy: ClusterConfigSpec::default(),
        }
    }
}

/// Runs one history on a thread of its own, on paused time, and looks at what was logged.
pub(crate) fn history<F>(seed: u64, setups: Vec<Setup>, story: F)
where
    F: AsyncFnOnce(&mut World) + Send + 'static,
{
    let thread = std::thread::Builder::new().stack_size(16 << 20);
    let run = move || {
        fastrand::seed(seed);
        let logbook = Logbook::default();
        let _guard = logbook.listen();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new(seed, setups, logbook).await;
            story(&mut world).await;
            world.finish().await;
        });
    };
    if let Err(panic) = thread.spawn(run).unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// The clusters and what is between them.
pub(crate) struct World {
    pub clusters: Vec<Cluster>,
    pub lan: Lan,
    pub fabric: Fabric,
    pub logbook: Logbook,
    clock: Clock,
    moves: u8,
    words: u64,
    allowed: Vec<&'static str>,
}

/// One cluster: what survives, and the life it leads now.
pub(crate) struct Cluster {
    pub setup: Setup,
    pub disk: Disk,
    pub key: PublicKey,
    identity: Identity,
    life: Option<Life>,
}

struct Life {
    api: KubeApi,
    context: Arc<Context>,
    token: CancellationToken,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    logbook: Logbook,
}

impl Cluster {
    pub(crate) fn id(&self) -> &ClusterId {
        self.identity.cluster_id()
    }

    pub(crate) fn pem(&self) -> String {
        self.identity.to_pem().to_string()
    }

    pub(crate) fn runs(&self) -> bool {
        self.life.is_some()
    }

    /// The client of a person at this cluster.
    pub(crate) fn client(&self) -> Client {
        self.life.as_ref().expect("the cluster runs").api.client()
    }

    /// The ForeignClusters that claim an id.
    pub(crate) fn all_of(&self, id: &ClusterId) -> Vec<ForeignCluster> {
        let claims = |object: &ForeignCluster| {
            let identity = object.spec.cluster_identity.as_ref();
            identity.is_some_and(|identity| identity.cluster_id == id.as_str())
        };
        let objects = self.disk.objects::<ForeignCluster>();
        objects.into_iter().filter(claims).collect()
    }

    /// The virtual node of a peer.
    pub(crate) fn node_of(&self, id: &ClusterId) -> Option<Node> {
        let name = format!("liqo-{id}");
        let nodes = self.disk.objects::<Node>();
        nodes.into_iter().find(|node| node.name_any() == name)
    }

    /// The tunnel to a peer.
    pub(crate) fn tunnel_to(&self, id: &ClusterId) -> Option<TunnelEndpoint> {
        let tunnels = self.disk.objects::<TunnelEndpoint>();
        tunnels
            .into_iter()
            .find(|it| it.spec.cluster_id == id.as_str())
    }
}

impl World {
    async fn new(seed: u64, setups: Vec<Setup>, logbook: Logbook) -> Self {
        let beginning = Instant::now();
        let start = Timestamp::from_second(BEGINNING).unwrap();
        let clock: Clock =
            Arc::new(move || start + SignedDuration::try_from(beginning.elapsed()).unwrap());
        let count = u8::try_from(setups.len()).unwrap();
        let addresses: Vec<SocketAddr> = (1..=count).map(|last| address(10 + last)).collect();
        let mut world = Self {
            clusters: Vec::new(),
            lan: Lan::new(seed, &addresses),
            fabric: Fabric::default(),
            logbook,
            clock,
            moves: 0,
            words: 0,
            allowed: Vec::new(),
        };
        world.fabric.set_latency(Duration::from_millis(1));
        for (number, setup) in (1..=count).zip(setups) {
            world.clusters.push(Cluster {
                setup,
                disk: Disk::default(),
                key: PublicKey::new([number; 32]),
                identity: Identity::generate().unwrap(),
                life: None,
            });
        }
        for index in 0..world.clusters.len() {
            world.start(index).await;
        }
        world
    }

    /// Allows complaints with this text.
    pub(crate) fn allow(&mut self, text: &'static str) {
        self.allowed.push(text);
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Starts a cluster, again and again if its life ends before it has begun.
    pub(crate) async fn start(&mut self, index: usize) {
        while !self.try_start(index).await {}
    }

    async fn try_start(&mut self, index: usize) -> bool {
        let token = CancellationToken::new();
        let cluster = &self.clusters[index];
        let api = KubeApi::open(Options {
            backend: Box::new(cluster.disk.drive(token.clone())),
            commit: Commit::Inline,
            clock: Arc::clone(&self.clock),
            crds: landbridge::api::crds(),
        })
        .await
        .unwrap();
        let client = api.client();
        for namespace in [labels::NAMESPACE, labels::NODE_LEASE_NAMESPACE] {
            cluster_config::ensure_namespace(&client, namespace)
                .await
                .unwrap();
        }
        let spec = cluster_config::load(&client, &cluster.setup.policy).await;
        let (policy, config) = watch::channel(spec.unwrap());
        let driver: Arc<dyn Driver> = Arc::new(self.fabric.driver(cluster.key.clone()));
        let context = self.context(index, client.clone(), &*driver, config);
        let mut life = Life {
            api,
            context,
            token: token.clone(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            logbook: self.logbook.clone(),
        };
        self.plug_in(index, &mut life);
        let policy = cluster_config::run(client.clone(), policy, life.stop.clone());
        life.run("cluster_config", policy);
        life.run_machine(index, client, driver, &self.clock);
        let began = !token.is_cancelled();
        if began {
            self.clusters[index].life = Some(life);
        } else {
            self.lan.unplug(index);
        }
        began
    }

    fn context(
        &self,
        index: usize,
        client: Client,
        driver: &dyn Driver,
        config: watch::Receiver<ClusterConfigSpec>,
    ) -> Arc<Context> {
        let cluster = &self.clusters[index];
        let networks = BTreeSet::from(["192.168.1.0/24".parse().unwrap()]);
        let fleet = || FleetSecret::new(SECRET).unwrap();
        Context::new(Parts {
            client,
            connector: Arc::new(Socket {
                lan: self.lan.clone(),
                host: index,
            }),
            own: own(cluster, index, self.lan.address(index), driver),
            service_cidr: "10.96.0.0/12".parse().unwrap(),
            networks: watch::channel(networks).1,
            fleet: cluster.setup.fleet.then(fleet),
            config,
            clock: Arc::clone(&self.clock),
        })
    }

    /// Puts a cluster on the LAN and runs what depends on it.
    fn plug_in(&self, index: usize, life: &mut Life) {
        let cluster = &self.clusters[index];
        let boot = format!("{:016x}", fastrand::u64(..));
        let (events, found) = mpsc::channel(256);
        let (context, stop) = (Arc::clone(&life.context), life.stop.clone());
        let desk = Arc::new(FrontDesk::new(Arc::clone(&context)));
        let plug = Plug {
            endpoint: PeerEndpoint::new(desk, context.client.clone()),
            proven: Proven {
                cluster_id: cluster.id().clone(),
                fingerprint: cluster.identity.fingerprint().clone(),
            },
            life: life.token.clone(),
            events,
            sighting: sighting(cluster, index, self.lan.address(index), &boot),
        };
        self.lan.plug(index, plug);
        let roster = roster::run(Arc::clone(&context), boot, found, stop.clone());
        life.run("roster", roster);
        let objects = foreign_cluster::run(Arc::clone(&context), stop.clone());
        life.run("foreign_cluster", objects);
        life.run(
            "peering_request",
            peering_request::run(context, stop.clone()),
        );
        if cluster.setup.discovers {
            life.run("announcement", announce(self.lan.clone(), index, stop));
        }
        let (lan, token) = (self.lan.clone(), life.token.clone());
        life.tasks.spawn(async move {
            token.cancelled().await;
            lan.unplug(index);
        });
    }

    /// Ends a life without any warning. What is in the kernel goes with it.
    pub(crate) async fn crash(&mut self, index: usize) {
        if let Some(mut life) = self.clusters[index].life.take() {
            life.token.cancel();
            self.lan.unplug(index);
            life.tasks.abort_all();
            while let Some(ended) = life.tasks.join_next().await {
                check(ended);
            }
        }
        self.fabric.meddle(&self.clusters[index].key.clone(), |it| {
            *it = Observed::default();
        });
    }

    /// Stops a cluster in order, with its goodbye.
    pub(crate) async fn stop(&mut self, index: usize) {
        if let Some(life) = &self.clusters[index].life {
            self.lan.say_goodbye(index);
            life.stop.cancel();
            tokio::time::sleep(LOOK).await;
        }
        self.crash(index).await;
    }

    /// Crashes a cluster and starts it again after a while.
    pub(crate) async fn restart(&mut self, index: usize, pause: Duration) {
        self.crash(index).await;
        self.sleep(pause).await;
        self.start(index).await;
    }

    /// Lets time pass; clusters whose life ended by itself start again.
    pub(crate) async fn sleep(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::sleep_until(end.min(Instant::now() + LOOK)).await;
            self.revive().await;
        }
    }

    async fn revive(&mut self) {
        for index in 0..self.clusters.len() {
            let life = self.clusters[index].life.as_mut();
            if life.is_some_and(Life::has_ended) {
                self.crash(index).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.start(index).await;
            }
        }
    }

    /// Waits until something has come about.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        is_so: impl Fn(&Self) -> bool,
    ) {
        let end = Instant::now() + limit;
        while !is_so(self) {
            assert!(
                Instant::now() < end,
                "not so after {limit:?}: {what}\n{}",
                self.describe()
            );
            self.sleep(LOOK).await;
        }
    }

    /// Lets no packet pass between two clusters.
    pub(crate) fn part(&self, one: usize, other: usize) {
        self.lan.part(one, other);
        self.fabric
            .cut(&self.clusters[one].key, &self.clusters[other].key);
    }

    /// Lets packets pass between all clusters.
    pub(crate) fn heal(&self) {
        self.lan.heal();
        for one in &self.clusters {
            for other in &self.clusters {
                self.fabric.heal(&one.key, &other.key);
            }
        }
    }

    /// Gives a cluster another address, and announces it there.
    pub(crate) fn move_away(&mut self, index: usize) {
        self.moves += 1;
        let moved = address(50 + self.moves);
        self.lan.move_to(index, moved);
        self.lan.announce(index);
    }

    /// The one ForeignCluster of another cluster.
    pub(crate) fn view(&self, at: usize, of: usize) -> Option<ForeignCluster> {
        let mut found = self.clusters[at].all_of(self.clusters[of].id());
        assert!(found.len() < 2, "one ForeignCluster per cluster id");
        found.pop()
    }

    pub(crate) fn phase(&self, at: usize, of: usize) -> Option<Phase> {
        self.view(at, of)?.status?.phase
    }

    /// All ordered pairs of clusters.
    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.clusters.len();
        let all = (0..count).flat_map(|at| (0..count).map(move |of| (at, of)));
        all.filter(|(at, of)| at != of).collect()
    }

    /// Writes what a person wants of another cluster. Someone who gets no answer tries again.
    pub(crate) async fn say(&mut self, at: usize, of: usize, spec: Value) -> bool {
        self.words += 1;
        let word = json!({"metadata": {"annotations": {invariants::WORD: self.words.to_string()}}, "spec": spec});
        loop {
            self.revive().await;
            let Some(object) = self.view(at, of) else {
                return false;
            };
            if !self.clusters[at].runs() {
                return false;
            }
            let api: Api<ForeignCluster> = Api::all(self.clusters[at].client());
            let patch = Patch::Merge(&word);
            let said = api
                .patch(&object.name_any(), &PatchParams::default(), &patch)
                .await;
            match said {
                Err(kube::Error::Api(status)) if status.code == 404 => return false,
                _ if self.died(at) => {}
                said => {
                    said.unwrap();
                    return true;
                }
            }
        }
    }

    /// Deletes the ForeignCluster of another cluster, as a person does.
    pub(crate) async fn delete(&mut self, at: usize, of: usize) -> bool {
        let Some(object) = self.view(at, of).filter(|_| self.clusters[at].runs()) else {
            return false;
        };
        let api: Api<ForeignCluster> = Api::all(self.clusters[at].client());
        let deleted = api
            .delete(&object.name_any(), &DeleteParams::default())
            .await;
        deleted.is_ok()
    }

    /// Writes a ForeignCluster by hand.
    pub(crate) async fn write(&mut self, at: usize, name: &str, spec: ForeignClusterSpec) {
        let api: Api<ForeignCluster> = Api::all(self.clusters[at].client());
        let object = ForeignCluster::new(name, spec);
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    fn died(&self, index: usize) -> bool {
        let life = self.clusters[index].life.as_ref();
        life.is_none_or(|life| life.token.is_cancelled())
    }

    async fn finish(&mut self) {
        self.revive().await;
        for index in 0..self.clusters.len() {
            self.crash(index).await;
        }
        let complaints = self.logbook.complaints(&self.allowed);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }

    /// Says how every peering stands, for whoever reads a failure.
    pub(crate) fn describe(&self) -> String {
        let mut lines = vec![format!("at {}", self.now())];
        for (cluster, name) in self.clusters.iter().zip(NAMES) {
            lines.push(format!("{name} {} runs: {}", cluster.id(), cluster.runs()));
            for (key, object) in cluster.disk.everything() {
                let metadata = &object["metadata"];
                if key.starts_with("discovery.liqo.io/foreignclusters") {
                    lines.push(describe(&object));
                } else if key.contains("liqo.io/") && !key.starts_with("apiext") {
                    lines.push(format!(
                        "  {key} deleted: {}",
                        metadata["deletionTimestamp"]
                    ));
                }
            }
        }
        lines.extend(self.logbook.complaints(&self.allowed));
        lines.join("\n")
    }
}

fn describe(object: &Value) -> String {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut text = format!(
        "  {} join {} {} {} {} phase {} deleted {} remote {}",
        object["metadata"]["name"],
        spec["join"],
        spec["trustMode"],
        spec["incomingPeeringEnabled"],
        spec["discoveryType"],
        status["phase"],
        object["metadata"]["deletionTimestamp"],
        status["outgoing"]["remote-peering-request-name"],
    );
    for one in status["conditions"].as_array().into_iter().flatten() {
        let (kind, value) = (&one["type"], &one["status"]);
        let (reason, message) = (&one["reason"], &one["message"]);
        write!(text, "\n      {kind} {value} {reason} {message}").unwrap();
    }
    text
}

impl Life {
    fn run(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (token, stop) = (self.token.clone(), self.stop.clone());
        let logbook = self.logbook.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = task => if !stop.is_cancelled() {
                    logbook.complain(format!("{name} ended before the shutdown"));
                },
            }
        });
    }

    fn run_machine(
        &mut self,
        index: usize,
        client: Client,
        driver: Arc<dyn Driver>,
        clock: &Clock,
    ) {
        let machine = Machine {
            hostname: NAMES[index].to_owned(),
            cpu_milli: 4_000,
            memory_bytes: 8 << 30,
            storage_bytes: 100 << 30,
        };
        let read: own_node::ReadMachine = Arc::new(move || machine.clone());
        let stop = || self.stop.clone();
        let node = own_node::run(client.clone(), read, Arc::clone(clock), stop());
        let settings = tunnel_endpoint::Settings::new(self.context.own.pod_cidr);
        let tunnels = tunnel_endpoint::run(client, driver, settings, Arc::clone(clock), stop());
        self.run("own_node", node);
        self.run("tunnel_endpoint", tunnels);
    }

    fn has_ended(&mut self) -> bool {
        while let Some(ended) = self.tasks.try_join_next() {
            check(ended);
        }
        self.token.is_cancelled()
    }
}

/// A panic anywhere is a failure.
fn check(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Announces at once and then at growing distances, as the daemon does, and again before the end
/// of each announcement's life, as those who listen ask for it.
async fn announce(lan: Lan, index: usize, stop: CancellationToken) {
    let mut pauses = [0, 1, 3, 9, 27].into_iter().map(Duration::from_secs);
    lan.query();
    loop {
        let pause = pauses.next().unwrap_or(TTL / 3);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => lan.announce(index),
        }
    }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 168, 1, last), 5870))
}

fn own(cluster: &Cluster, index: usize, address: SocketAddr, driver: &dyn Driver) -> Own {
    let pod_cidr = "10.244.0.0/16".parse().unwrap();
    let ground = Ground {
        services: Some("10.96.0.0/12".parse().unwrap()),
        ..Ground::new(cluster.id().clone(), pod_cidr)
    };
    Own {
        cluster_id: cluster.id().clone(),
        cluster_name: ClusterName::neutralise(NAMES[index]),
        auth_url: format!("https://{address}"),
        pod_cidr,
        external_cidr: external_range(&ground).unwrap(),
        tunnel: Some(OwnTunnel {
            public_key: driver.public_key().to_string(),
            port: driver.port(),
            mtu: 1420,
        }),
    }
}

fn sighting(cluster: &Cluster, index: usize, address: SocketAddr, boot: &str) -> Sighting {
    Sighting {
        source: DiscoveryType::Lan,
        instance: cluster.id().to_string(),
        cluster_id: Some(cluster.id().clone()),
        name: ClusterName::neutralise(NAMES[index]),
        boot: Some(boot.to_owned()),
        endpoints: vec![address],
        interface: Some("eth0".to_owned()),
        ttl: TTL,
    }
}

/// What stands in a cluster at rest, in a form that does not depend on how it came about.
pub(crate) fn summary(world: &World, index: usize) -> BTreeMap<String, Value> {
    let mut ids = BTreeMap::new();
    for (cluster, name) in world.clusters.iter().zip(NAMES) {
        ids.insert(cluster.id().to_string(), name);
    }
    let blind = |text: &str| {
        let mut text = text.to_owned();
        for (id, name) in &ids {
            text = text.replace(id, name);
        }
        text
    };
    let everything = world.clusters[index].disk.everything();
    let kept = |key: &&String| {
        !key.contains("/events/")
            && !key.starts_with("/events")
            && !key.starts_with("apiextensions")
            && !key.contains("/leases/")
    };
    let mut summary = BTreeMap::new();
    for key in everything.keys().filter(kept) {
        let object = &everything[key];
        let mut said = json!({"finalizers": object["metadata"]["finalizers"], "deleted": object["metadata"]["deletionTimestamp"]});
        if key.starts_with("discovery.liqo.io/foreignclusters") {
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let conditions = conditions
                .iter()
                .map(|one| format!("{} {} {}", one["type"], one["status"], one["reason"]));
            said["conditions"] = json!(conditions.collect::<Vec<_>>());
            said["join"] = object["spec"]["join"].clone();
            said["trust"] = object["spec"]["trustMode"].clone();
            said["phase"] = object["status"]["phase"].clone();
            said["auth"] = object["status"]["authStatus"].clone();
            said["outgoing"] = object["status"]["outgoing"]["joined"].clone();
            said["incoming"] = object["status"]["incoming"]["joined"].clone();
            said["remote"] = json!(blind(
                &object["status"]["outgoing"]["remote-peering-request-name"].to_string()
            ));
        }
        summary.insert(blind(key), said);
    }
    summary
}
