//! A few whole clusters on one LAN: started, crashed, stopped, looked at and told what a person wants.

use std::{
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
        ClusterConfigSpec, ClusterId, ForeignCluster, ForeignClusterSpec, TunnelEndpoint,
        foreign_cluster::Phase,
    },
    controllers::Clock,
    engine::overlay::PublicKey,
    peer::certificates::Identity,
    tunnel::memory::Fabric,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{disk::Disk, invariants, lan::Lan, life::Life, logbook::Logbook};

/// The secret of a fleet.
pub(crate) const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// The time to live of an announcement.
pub(crate) const TTL: Duration = Duration::from_mins(2);
/// How often we look whether something has come about.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// When a history begins.
const BEGINNING: i64 = 1_800_000_000;
/// The names of the clusters.
pub(crate) const NAMES: [&str; 3] = ["rome", "milan", "turin"];

/// What a cluster is set up with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Whether it knows the fleet secret.
    pub fleet: bool,
    /// Whether it announces itself and listens.
    pub discovers: bool,
    /// Whether it makes tunnels.
    pub tunnels: bool,
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
            tunnels: true,
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
    pub clock: Clock,
    moves: u8,
    words: u64,
    pub allowed: Vec<&'static str>,
}

/// One cluster: what survives, and the life it leads now.
pub(crate) struct Cluster {
    pub setup: Setup,
    pub disk: Disk,
    pub key: PublicKey,
    pub identity: Identity,
    pub life: Option<Life>,
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

    /// Lets time pass; clusters whose life ended by itself start again.
    pub(crate) async fn sleep(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::sleep_until(end.min(Instant::now() + LOOK)).await;
            self.revive().await;
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

    /// Gives a cluster that does not run the key of another one, as a copied data directory does.
    pub(crate) fn copy_identity(&mut self, from: usize, to: usize) {
        let pem = self.clusters[from].pem();
        self.clusters[to].identity = Identity::from_pem(&pem).unwrap();
        self.clusters[to].disk = Disk::default();
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

    /// Writes where another cluster is and that it shall be joined, as a person does who knows.
    pub(crate) async fn join_by_hand(&mut self, at: usize, of: usize) {
        let api: Api<ForeignCluster> = Api::all(self.clusters[at].client());
        let spec = ForeignClusterSpec {
            auth_url: format!("https://{}", self.lan.address(of)),
            join: true,
            ..ForeignClusterSpec::default()
        };
        let object = ForeignCluster::new("by-hand", spec);
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
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 168, 1, last), 5870))
}
