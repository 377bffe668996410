//! The task list: everything that runs, and the one shutdown.
//!
//! | task | ends when |
//! | --- | --- |
//! | API on loopback (embedded only) | everything else has ended |
//! | policy, fleet secret, networks, announcement, description, leaf certificates | shutdown |
//! | LAN discovery | shutdown, after its goodbye |
//! | LAN health | shutdown |
//! | SearchDomains | shutdown |
//! | publication | shutdown, after our records are withdrawn |
//! | roster, ForeignClusters, PeeringRequests, tokens, suspicions | shutdown |
//! | tunnels | shutdown, after interface, routes and rules are gone |
//! | peer endpoint | shutdown, after running requests |
//! | own node (embedded only) | shutdown |
//! | heartbeat (on a cluster only) | shutdown, after its Lease is gone |

use std::{collections::BTreeSet, fs, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use futures::FutureExt as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Target, announcement,
    build::{Assembly, assemble, tunnel_settings},
    clock,
    description::{self, Description},
    heartbeat,
    platform::Embedded,
    publication::Publication,
    secret_files,
};
use crate::{
    config::{Config, Loaded, Origin},
    controllers::{
        cluster_config, fleet, foreign_cluster, lan_health, own_node, peering_request, roster,
        search_domain, suspicions, tokens, tunnel_endpoint,
    },
    discovery::{
        mdns::{Mdns, MdnsHandle},
        publish::Standing,
        source::{Announcement, EventSink, Source as _},
    },
    kubeapi,
    peer::{listener, tls::Credentials},
};

/// How long the tasks may take to end. With the API's time after that, one second for the runtime and one for
/// the log the whole shutdown takes 10 s at most.
const FAREWELL: Duration = Duration::from_secs(6);
/// How long the embedded API may take to end after that.
const API_FAREWELL: Duration = Duration::from_secs(2);
/// How often the leaf certificate is looked at; it is renewed days before its end.
const ROTATION: Duration = Duration::from_hours(1);

/// Every task of the daemon, and what ends them.
#[derive(Default)]
struct Tasks {
    running: JoinSet<&'static str>,
    /// The names of those that have not ended.
    names: BTreeSet<&'static str>,
    stop: CancellationToken,
}

impl Tasks {
    fn start<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.names.insert(name);
        self.running
            .spawn(task(self.stop.clone()).map(move |()| name));
    }

    /// Waits for a signal that ends the daemon. A task that ends by itself before is a fault of ours, and ends
    /// the daemon so that whoever supervises it starts a new one.
    async fn until_signal(&mut self, signals: &mut Signals) -> Result<(), Error> {
        tokio::select! {
            () = signals.arrival() => Ok(()),
            Some(ended) = self.running.join_next() => {
                let what = ended.map_or_else(|error| error.to_string(), |name| {
                    self.names.remove(name);
                    format!("the task {name} ended")
                });
                tracing::error!(what, "A task did not last until the shutdown");
                Err(Error::Task(what))
            }
        }
    }

    /// Tells all tasks to end, and waits for them.
    async fn end(mut self) {
        self.stop.cancel();
        let ended = async {
            while let Some(ended) = self.running.join_next().await {
                self.names.retain(|name| ended.as_ref().ok() != Some(name));
            }
        };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            tracing::warn!(tasks = ?self.names, "Some tasks did not end in time");
        }
    }
}

/// Runs the daemon until a signal ends it.
pub(super) async fn run(settings: &Loaded, target: Target) -> Result<(), Error> {
    let config = &settings.config;
    warn_of_ineffective(settings);
    secret_files::warn_of_readers(config);
    let mut signals = Signals::listen();
    let assembled = tokio::select! {
        assembled = assemble(settings, target) => assembled,
        () = signals.arrival() => return Ok(()),
    };
    let mut assembly = assembled?;
    // While the embedded API is a part of it.
    let description = assembly.description();
    let mut tasks = Tasks::default();
    let last = CancellationToken::new();
    let mut api = JoinSet::new();
    if let Some(embedded) = assembly.embedded.take() {
        start_own_node(&mut tasks, &assembly, config);
        let end = last.clone();
        api.spawn(async move {
            let Embedded {
                api,
                listener,
                credentials,
            } = embedded;
            kubeapi::loopback::serve(listener, api, &credentials, end).await
        });
    } else {
        let (client, clock) = (assembly.platform.client.clone(), clock::wall());
        tasks.start("heartbeat", |stop| heartbeat::run(client, clock, stop));
    }
    introduce(&assembly, description.clone()).await;
    let announced = start_discovery(&mut tasks, &assembly, config);
    let (standing, published) = watch::channel(Standing::default());
    if let Some(publication) = Publication::new(&assembly, announced) {
        tasks.start("publication", |stop| publication.run(standing, stop));
    }
    start_description(&mut tasks, &assembly, description, published);
    start_tunnel(&mut tasks, &assembly, config);
    start_controllers(&mut tasks, &assembly);
    start_services(&mut tasks, assembly);
    let outcome = tokio::select! {
        outcome = tasks.until_signal(&mut signals) => outcome,
        // By itself it ends only when it cannot serve.
        Some(ended) = api.join_next() => match ended {
            Ok(outcome) => outcome.map_err(Error::from),
            Err(error) => Err(Error::Task(error.to_string())),
        },
    };
    tracing::info!("Stopping");
    tasks.end().await;
    last.cancel();
    drop(tokio::time::timeout(API_FAREWELL, api.join_next()).await);
    outcome
}

/// Warns of what was set and does nothing.
fn warn_of_ineffective(settings: &Loaded) {
    for variable in &settings.unknown {
        tracing::warn!("{variable} is no setting: landbridge config show --origin lists them");
    }
    let dashboard = settings.origins.get("dashboard.listen");
    if let Some(origin) = dashboard.filter(|origin| **origin != Origin::Default) {
        tracing::warn!(%origin, "dashboard.listen does nothing: this version has no dashboard");
    }
}

/// Says in the log and to `landbridge status` who runs here.
async fn introduce(assembly: &Assembly, description: Description) {
    if let Err(error) = description::write(&assembly.platform.client, description).await {
        tracing::warn!(%error, "The daemon could not describe itself for landbridge status");
    }
    tracing::info!(
        name = %assembly.context.own_name(),
        id = %assembly.context.own.cluster_id,
        port = assembly.peer_port,
        "Landbridge runs"
    );
}

/// The sources of discovery, the roster that they report to, and what we announce, which is returned.
fn start_discovery(
    tasks: &mut Tasks,
    assembly: &Assembly,
    config: &Config,
) -> watch::Receiver<Announcement> {
    let (events, found) = EventSink::channel();
    let reachable = announcement::is_reachable(&config.peer);
    let (announce, announced) = watch::channel(announcement::under_policy(
        &assembly.context,
        &assembly.boot,
        assembly.peer_port,
        reachable,
    ));
    let lan = config.lan.enabled.then(|| {
        let (source, handle) = Mdns::new(assembly.rules.clone(), announced.clone());
        let events = events.clone();
        tasks.start("LAN discovery", |stop| Box::new(source).run(events, stop));
        handle
    });
    let client = assembly.platform.client.clone();
    let health = lan.as_ref().map(MdnsHandle::health);
    let clock = Arc::clone(&assembly.context.clock);
    tasks.start("LAN health", |stop| {
        lan_health::run(client, health, clock, stop)
    });
    let search = search_domain::Settings {
        servers: assembly.dns.servers.clone(),
        own: assembly.own_networks.clone(),
        events: events.clone(),
    };
    let context = Arc::clone(&assembly.context);
    tasks.start("SearchDomains", |stop| {
        search_domain::run(context, search, stop)
    });
    let context = Arc::clone(&assembly.context);
    let boot = assembly.boot.clone();
    tasks.start("roster", |stop| {
        roster::run(context, boot, lan, found, stop)
    });
    // The roster ends when nobody can report to it any more, so one sender stays here.
    let context = Arc::clone(&assembly.context);
    tasks.start("announcement", |stop| {
        announcement::follow_policy(context, reachable, announce, events, stop)
    });
    announced
}

/// What we say about ourselves, and how publishing goes.
fn start_description(
    tasks: &mut Tasks,
    assembly: &Assembly,
    description: Description,
    published: watch::Receiver<Standing>,
) {
    let (context, place) = (Arc::clone(&assembly.context), assembly.place.clone());
    let networks = assembly.own_networks.clone();
    tasks.start("description", |stop| {
        description::follow(context, place, networks, published, description, stop)
    });
}

fn start_tunnel(tasks: &mut Tasks, assembly: &Assembly, config: &Config) {
    let Some(driver) = assembly.driver.clone() else {
        return;
    };
    let settings = tunnel_settings(config, &assembly.context.own);
    let client = assembly.platform.client.clone();
    let clock = Arc::clone(&assembly.context.clock);
    tasks.start("tunnels", |stop| {
        tunnel_endpoint::run(client, driver, settings, clock, stop)
    });
}

fn start_controllers(tasks: &mut Tasks, assembly: &Assembly) {
    let context = || Arc::clone(&assembly.context);
    tasks.start("ForeignClusters", |stop| {
        foreign_cluster::run(context(), stop)
    });
    tasks.start("PeeringRequests", |stop| {
        peering_request::run(context(), stop)
    });
    tasks.start("tokens", |stop| tokens::run(context(), stop));
    tasks.start("suspicions", |stop| suspicions::run(context(), stop));
}

/// Networks, policy, fleet secret, certificates and the peer endpoint.
fn start_services(tasks: &mut Tasks, assembly: Assembly) {
    let Assembly {
        platform,
        policy,
        fleet,
        credentials,
        endpoint,
        listener,
        follower,
        ..
    } = assembly;
    tasks.start("networks", |stop| follower.run(stop));
    let client = platform.client.clone();
    tasks.start("policy", |stop| cluster_config::run(client, policy, stop));
    if let Some(fleet) = fleet {
        let client = platform.client;
        tasks.start("fleet secret", |stop| fleet::run(client, fleet, stop));
    }
    let leaf = Arc::clone(&credentials);
    tasks.start("leaf certificates", |stop| keep_fresh(leaf, stop));
    tasks.start("peer endpoint", |stop| async move {
        if let Err(error) = listener::serve(listener, credentials, endpoint, stop).await {
            tracing::error!(%error, "The peer endpoint cannot be served");
        }
    });
}

/// Renews the leaf certificate in time.
async fn keep_fresh(credentials: Arc<Credentials>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(ROTATION);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => renew(&credentials),
        }
    }
}

fn renew(credentials: &Arc<Credentials>) {
    if let Err(error) = credentials.rotate(jiff::Timestamp::now()) {
        tracing::error!(%error, "The leaf certificate could not be renewed");
    }
}

fn start_own_node(tasks: &mut Tasks, assembly: &Assembly, config: &Config) {
    let client = assembly.platform.client.clone();
    let clock = Arc::clone(&assembly.context.clock);
    let directory = config.data_dir.clone();
    let machine = Arc::new(move || own_node::machine::read(&directory));
    tasks.start("own node", |stop| {
        own_node::run(client, machine, clock, stop)
    });
}

/// Whether a process ignores SIGHUP by its status (proc(5)), as it was started.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // What is not known stays as it is.
    mask.is_none_or(|mask| mask & 1 == 1)
}

/// The signals that end the daemon. What arrives before somebody waits is kept.
struct Signals(Vec<Signal>);

impl Signals {
    /// Listens for them. That a terminal is gone ends nothing where it is ignored, as under nohup.
    fn listen() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup = (!ignores_hangup(&status)).then(SignalKind::hangup);
        let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
        let listen = |kind| {
            signal(kind)
                .inspect_err(|error| tracing::warn!(%error, "A signal cannot be listened for"))
                .ok()
        };
        Self(kinds.into_iter().chain(hangup).filter_map(listen).collect())
    }

    /// Waits for one of them.
    async fn arrival(&mut self) {
        poll_fn(|context| {
            let mut signals = self.0.iter_mut();
            if signals.any(|signal| signal.poll_recv(context).is_ready()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_does_not_last_ends_the_daemon_with_an_error() {
        for broken in [false, true] {
            let mut tasks = Tasks::default();
            tasks.start("lasting", |stop| async move { stop.cancelled().await });
            tasks.start("short", move |_| async move {
                assert!(!broken, "on purpose");
            });
            let outcome = tasks.until_signal(&mut Signals(Vec::new())).await;
            assert!(matches!(outcome, Err(Error::Task(_))), "{outcome:?}");
            tasks.end().await;
        }
    }
}
