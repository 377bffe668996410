//! The task list: everything that runs, and the one shutdown.
//!
//! | task | ends when |
//! | --- | --- |
//! | API on loopback (embedded only) | everything else has ended |
//! | policy, networks, announcement, leaf rotation | shutdown |
//! | LAN discovery | shutdown, after its goodbye |
//! | search in DNS domains | shutdown |
//! | roster, ForeignClusters, PeeringRequests | shutdown |
//! | tunnels | shutdown, after interface, routes and rules are gone |
//! | peer endpoint | shutdown, after running requests |
//! | own node (embedded only) | shutdown |

use std::{sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Target,
    build::{Assembly, assemble},
    self_description,
};
use crate::{
    config::Config,
    controllers::{
        cluster_config, foreign_cluster, own_node, peering_request, roster, search_domain,
        tunnel_endpoint,
    },
    discovery::{
        mdns::Mdns,
        source::{EventSink, Source as _},
    },
    kubeapi,
    peer::listener,
};

/// How long the tasks may take to end; the whole shutdown stays below 10 s.
const FAREWELL: Duration = Duration::from_secs(7);
/// How often the leaf certificate is looked at; it is renewed days before its end.
const ROTATION: Duration = Duration::from_secs(3600);

/// Runs the daemon until a signal ends it.
pub(super) async fn run(config: Config, target: Target) -> Result<(), Error> {
    let mut assembly = assemble(&config, target).await?;
    let stop = CancellationToken::new();
    let last = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let description = assembly.description();
    let api = assembly.embedded.take().map(|embedded| {
        start_own_node(&mut tasks, &assembly, &config, &stop);
        let end = last.clone();
        tokio::spawn(async move {
            kubeapi::loopback::serve(embedded.listener, embedded.api, &embedded.credentials, end)
                .await
        })
    });
    let client = assembly.platform.client.clone();
    if let Err(error) = self_description::write(&client, description).await {
        tracing::warn!(%error, "The daemon could not describe itself for landbridge status");
    }
    tracing::info!(
        name = %assembly.context.own.cluster_name,
        id = %assembly.context.own.cluster_id,
        port = assembly.peer_port,
        "Landbridge runs"
    );
    start(&mut tasks, assembly, &config, &stop);
    wait_for_signal(&mut tasks).await;
    tracing::info!("Stopping");
    stop.cancel();
    let ended = tokio::time::timeout(FAREWELL, async {
        while tasks.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::warn!("Some tasks did not end in time");
    }
    last.cancel();
    if let Some(api) = api {
        drop(tokio::time::timeout(Duration::from_secs(2), api).await);
    }
    Ok(())
}

fn start(tasks: &mut JoinSet<()>, assembly: Assembly, config: &Config, stop: &CancellationToken) {
    let (events, found) = EventSink::channel();
    let (announcement, announced) =
        watch::channel(assembly.announcement(&assembly.context.policy()));
    if config.lan.enabled {
        let (source, _handle) = Mdns::new(assembly.rules.clone(), announced);
        tasks.spawn(Box::new(source).run(events.clone(), stop.clone()));
    }
    let search = search_domain::Settings {
        servers: assembly.name_servers.clone(),
        own: assembly.own_networks.clone(),
        events: events.clone(),
    };
    let shared = Arc::clone(&assembly.context);
    tasks.spawn(search_domain::run(shared, search, stop.clone()));
    if let Some(driver) = assembly.driver.clone() {
        let mut settings = tunnel_endpoint::Settings::new(assembly.context.own.pod_cidr);
        if let Some(tunnel) = &assembly.context.own.tunnel {
            settings.mtu = tunnel.mtu;
        }
        let client = assembly.platform.client.clone();
        let clock = Arc::clone(&assembly.context.clock);
        tasks.spawn(tunnel_endpoint::run(
            client,
            driver,
            settings,
            clock,
            stop.clone(),
        ));
    }
    let context = || Arc::clone(&assembly.context);
    let boot = assembly.boot.clone();
    tasks.spawn(roster::run(context(), boot, found, stop.clone()));
    tasks.spawn(foreign_cluster::run(context(), stop.clone()));
    tasks.spawn(peering_request::run(context(), stop.clone()));
    let Assembly {
        platform,
        policy,
        credentials,
        endpoint,
        listener,
        follower,
        ..
    } = keep_announcing(tasks, assembly, announcement, events, stop);
    tasks.spawn(follower.run(stop.clone()));
    tasks.spawn(cluster_config::run(
        platform.client.clone(),
        policy,
        stop.clone(),
    ));
    let rotation = Arc::clone(&credentials);
    let end = stop.clone();
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(ROTATION);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                _ = ticks.tick() => {
                    if let Err(error) = rotation.rotate(jiff::Timestamp::now()) {
                        tracing::error!(%error, "The leaf certificate could not be renewed");
                    }
                }
            }
        }
    });
    let end = stop.clone();
    tasks.spawn(async move {
        // The lock on the data directory is held as long as peers are served.
        let _platform = platform;
        if let Err(error) = listener::serve(listener, credentials, endpoint, end).await {
            tracing::error!(%error, "The peer endpoint cannot be served");
        }
    });
}

/// Follows the switches of the policy in what we announce.
fn keep_announcing(
    tasks: &mut JoinSet<()>,
    assembly: Assembly,
    announcement: watch::Sender<crate::discovery::source::Announcement>,
    events: EventSink,
    stop: &CancellationToken,
) -> Assembly {
    let mut policy = assembly.context.config.clone();
    let base = assembly.announcement(&assembly.context.policy());
    let end = stop.clone();
    tasks.spawn(async move {
        // Without a source of discovery the roster waits on this sender.
        let _events = events;
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                changed = policy.changed() => if changed.is_err() { return },
            }
            let switches = policy.borrow_and_update().discovery_config.clone();
            announcement.send_replace(crate::discovery::source::Announcement {
                advertise: switches.enable_advertisement,
                discover: switches.enable_discovery,
                ..base.clone()
            });
        }
    });
    assembly
}

fn start_own_node(
    tasks: &mut JoinSet<()>,
    assembly: &Assembly,
    config: &Config,
    stop: &CancellationToken,
) {
    let client = assembly.platform.client.clone();
    let clock = Arc::clone(&assembly.context.clock);
    let directory = config.data_dir.clone();
    let machine = Arc::new(move || own_node::machine::read(&directory));
    tasks.spawn(own_node::run(client, machine, clock, stop.clone()));
}

/// Waits for SIGTERM or SIGINT. A task that ends by itself before is a fault of ours, and ends the
/// daemon so that whoever supervises it starts a new one.
async fn wait_for_signal(tasks: &mut JoinSet<()>) {
    tokio::select! {
        () = arrival(SignalKind::terminate()) => {}
        () = arrival(SignalKind::interrupt()) => {}
        Some(ended) = tasks.join_next() => {
            if let Err(error) = ended {
                tracing::error!(%error, "A task failed");
            } else {
                tracing::error!("A task ended before the shutdown");
            }
        }
    }
}

/// Waits for a signal; for ever, when the system does not let us listen for it.
async fn arrival(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "A signal cannot be listened for");
            futures::future::pending().await
        }
    }
}
