//! A life of a cluster, from its start to its crash: the real controllers on a simulated machine.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use kube::Client;
use landbridge::{
    api::{ClusterConfigSpec, ClusterName, foreign_cluster::DiscoveryType, labels},
    controllers::{
        Clock, Context, cluster_config,
        context::Parts,
        foreign_cluster,
        own_node::{self, Machine},
        peering_request,
        reception::FrontDesk,
        roster, suspicions, tokens, tunnel_endpoint,
    },
    engine::{
        addressing::{Ground, Surroundings, external_range},
        overlay::Observed,
        peering::{Own, OwnTunnel},
        sighting::Sighting,
    },
    kubeapi::{KubeApi, Options, store::Commit},
    peer::{auth::PeerEndpoint, certificates::Proven, trust::FleetSecret},
    tunnel::Driver,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    lan::{Lan, Plug, Socket},
    logbook::Logbook,
    world::{Cluster, LOOK, NAMES, SECRET, TTL, World},
};

/// What ends with a crash.
pub(crate) struct Life {
    pub api: KubeApi,
    context: Arc<Context>,
    pub token: CancellationToken,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    logbook: Logbook,
}

impl World {
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
        let surroundings = Surroundings {
            networks: BTreeSet::from(["192.168.1.0/24".parse().unwrap()]),
            ..Surroundings::default()
        };
        let fleet = || Arc::new(FleetSecret::new(SECRET).unwrap());
        Context::new(Parts {
            client,
            connector: Arc::new(Socket {
                lan: self.lan.clone(),
                host: index,
            }),
            own: own(cluster, index, self.lan.address(index), driver),
            service_cidr: "10.96.0.0/12".parse().unwrap(),
            surroundings: watch::channel(surroundings).1,
            fleet: watch::channel(cluster.setup.fleet.then(fleet)).1,
            web_pki: landbridge::peer::web_pki::WebPki::default(),
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
        let roster = roster::run(Arc::clone(&context), boot, None, found, stop.clone());
        life.run("roster", roster);
        let objects = foreign_cluster::run(Arc::clone(&context), stop.clone());
        life.run("foreign_cluster", objects);
        let suspects = suspicions::run(Arc::clone(&context), stop.clone());
        life.run("suspicions", suspects);
        let twin = context.twin();
        life.run("tokens", tokens::run(Arc::clone(&context), stop.clone()));
        life.run(
            "peering_request",
            peering_request::run(context, stop.clone()),
        );
        if cluster.setup.discovers {
            life.run(
                "announcement",
                announce(self.lan.clone(), index, twin, stop),
            );
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

    /// Starts clusters again whose life ended by itself.
    pub(crate) async fn revive(&mut self) {
        for index in 0..self.clusters.len() {
            let life = self.clusters[index].life.as_mut();
            if life.is_some_and(Life::has_ended) {
                self.crash(index).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.start(index).await;
            }
        }
    }
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
        if self.context.own.tunnel.is_some() {
            self.run("tunnel_endpoint", tunnels);
        }
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
async fn announce(
    lan: Lan,
    index: usize,
    twin: watch::Receiver<Option<String>>,
    stop: CancellationToken,
) {
    let mut pauses = [0, 1, 3, 9, 27].into_iter().map(Duration::from_secs);
    lan.query();
    loop {
        let pause = pauses.next().unwrap_or(TTL / 3);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => if twin.borrow().is_none() {
                lan.announce(index);
            },
        }
    }
}

fn own(cluster: &Cluster, index: usize, address: SocketAddr, driver: &dyn Driver) -> Own {
    let pod_cidr = "10.244.0.0/16".parse().unwrap();
    let ground = Ground {
        services: Some("10.96.0.0/12".parse().unwrap()),
        ..Ground::new(cluster.id().clone(), pod_cidr)
    };
    Own {
        cluster_id: cluster.id().clone(),
        fingerprint: cluster.identity.fingerprint().clone(),
        cluster_name: ClusterName::neutralise(NAMES[index]),
        auth_url: format!("https://{address}"),
        pod_cidr,
        external_cidr: external_range(&ground).unwrap(),
        tunnel: cluster.setup.tunnels.then(|| OwnTunnel {
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
        search_domain: None,
        vouchers: Vec::new(),
        interface: Some("eth0".to_owned()),
        ttl: TTL,
    }
}
