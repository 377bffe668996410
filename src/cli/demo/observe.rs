//! Watches the objects of each cluster and tells what is new.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use kube::{Api, Client, ResourceExt as _, api::PostParams, config::Kubeconfig};
use tokio::{runtime, signal::unix, time::sleep};

use super::{lab::Member, name_server::DOMAIN, sandbox::within};
use crate::{
    api::{
        Advertisement, ForeignCluster, SearchDomain, SearchDomainSpec,
        foreign_cluster::{DiscoveryType, ForeignClusterStatus},
        labels::condition,
    },
    cli::{Failure, connection, get, peers, status},
};

/// How often a cluster is looked at. The API is in the same machine.
const LOOK: Duration = Duration::from_millis(50);

/// How many news may wait to be told; there are a few dozen in all.
const UNTOLD: usize = 64;

/// Something that happened in a cluster.
#[derive(Debug)]
pub(super) struct News {
    /// The cluster; empty when it happened to the demo.
    pub(super) cluster: String,
    /// What happened.
    pub(super) what: What,
}

/// What happened.
#[derive(Debug)]
pub(super) enum What {
    /// The cluster's API answers.
    Ready { text: String },
    /// The cluster is listed in the domain that it publishes itself in.
    Listed { text: String },
    /// A step on the way.
    Step { text: String },
    /// Everything between two clusters works, seen from one of them.
    Peered { peer: String, text: String },
    /// The user wants an end.
    Interrupted,
}

/// Starts to watch all clusters, and for Ctrl-C. Who has news waits while many are not told yet.
pub(super) fn start(members: &[Member]) -> Receiver<News> {
    let (sender, receiver) = sync_channel(UNTOLD);
    for member in members {
        let (member, sender) = (member.clone(), sender.clone());
        thread::spawn(move || {
            let namespace = member.name.clone();
            // A cluster that cannot be watched is told about when patience ends.
            let _ = within(&namespace, move || block_on(watch(&member, &sender)));
        });
    }
    thread::spawn(move || block_on(interrupted(&sender)));
    receiver
}

/// Asks the API of a cluster for the table that `kubectl get foreignclusters` shows.
pub(super) fn table(member: &Member) -> Result<String, Failure> {
    ask(member, async |client| {
        get::table(&client, None, false).await
    })
}

/// Returns what `landbridge status` says in a cluster.
pub(super) fn status(member: &Member) -> Result<String, Failure> {
    ask(member, async |client| {
        Ok(status::look(&client).await?.text())
    })
}

/// Returns where a cluster sees the machines of its peers, by their names.
pub(super) fn addresses(member: &Member) -> Result<BTreeMap<String, Ipv4Addr>, Failure> {
    ask(member, async |client| {
        let report = status::look(&client).await?;
        let seen = report.peers.into_iter();
        Ok(seen
            .filter_map(|peer| Some((peer.name, peer.address?)))
            .collect())
    })
}

fn ask<T: Send + 'static>(
    member: &Member,
    question: impl AsyncFnOnce(Client) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let asker = member.clone();
    within(&member.name, move || {
        block_on(async { question(client(&asker).await?).await })?
    })?
}

async fn client(member: &Member) -> Result<Client, Failure> {
    let kubeconfig = Kubeconfig::read_from(member.data_dir().join("kubeconfig"))
        .map_err(|error| Failure::Unreachable(format!("no kubeconfig yet: {error}")))?;
    connection::client(kubeconfig).await
}

fn block_on<F: Future>(work: F) -> Result<F::Output, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::NotSo(format!("cannot start the runtime: {error}")))?;
    Ok(runtime.block_on(work))
}

async fn interrupted(sender: &SyncSender<News>) {
    let signals = (
        unix::signal(unix::SignalKind::interrupt()),
        unix::signal(unix::SignalKind::terminate()),
    );
    if let (Ok(mut interrupt), Ok(mut terminate)) = signals {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let cluster = String::new();
        // Nobody listens any more when the demo is over.
        let _ = sender.send(News {
            cluster,
            what: What::Interrupted,
        });
    }
}

/// Tells what is new in a cluster until nobody listens.
async fn watch(member: &Member, sender: &SyncSender<News>) {
    let tell = |what| {
        let cluster = member.name.clone();
        sender.send(News { cluster, what }).is_ok()
    };
    let client = loop {
        let ready = match client(member).await {
            Ok(client) => status::look(&client).await.ok().map(|_| client),
            Err(_) => None,
        };
        match ready {
            Some(client) => break client,
            None => sleep(LOOK).await,
        }
    };
    let text = format!("ready at {}", member.address);
    let mut listening = tell(What::Ready { text });
    let mut told = BTreeSet::new();
    let mut listed = false;
    while listening {
        if !listed && let Some(zone) = listed_in(&client).await {
            listed = true;
            let text = format!("published itself in the DNS domain {zone}");
            listening = tell(What::Listed { text });
        }
        for cluster in peers::list(&client).await.unwrap_or_default() {
            for (kind, what) in steps(&client, &cluster).await {
                // A cluster that came to us first may be found on the LAN later.
                let source = (kind == condition::DISCOVERED).then_some(cluster.spec.discovery_type);
                if told.insert((cluster.name_any(), kind, source)) {
                    listening = tell(what);
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// Returns the domain that a cluster is listed in, if it is to be and is.
async fn listed_in(client: &Client) -> Option<String> {
    let report = status::look(client).await.ok()?;
    report.listed_in().map(str::to_owned)
}

/// Lets a cluster look in the domain, as a person would, and says how.
pub(super) fn search(member: &Member) -> Result<String, Failure> {
    ask(member, async |client| {
        let spec = SearchDomainSpec {
            domain: DOMAIN.to_owned(),
            autojoin: true,
            public_only: None,
            trusted_by: Vec::new(),
        };
        let object = SearchDomain::new("clusters", spec);
        let api: Api<SearchDomain> = Api::all(client);
        let created = api.create(&PostParams::default(), &object).await;
        created.map_err(|error| connection::explain(&error))?;
        Ok(format!(
            "$ kubectl apply -f searchdomain.yaml    # spec: {{domain: {DOMAIN}, autojoin: true}}"
        ))
    })
}

/// Returns the steps that a cluster has behind it, in order.
async fn steps(client: &Client, cluster: &ForeignCluster) -> Vec<(&'static str, What)> {
    let name = cluster.name_any();
    let Some(status) = &cluster.status else {
        return Vec::new();
    };
    let mut steps = Vec::new();
    for kind in [
        condition::DISCOVERED,
        condition::IDENTITY_VERIFIED,
        condition::TRUSTED,
        condition::OUTGOING_PEERED,
        condition::NETWORK_READY,
    ] {
        if !holds(status, kind) {
            continue;
        }
        let text = match kind {
            condition::DISCOVERED => found(cluster),
            condition::IDENTITY_VERIFIED => {
                format!("{name} proved that it holds the key of its id")
            }
            condition::TRUSTED => format!("{name} is trusted: {}", message(status, kind)),
            condition::OUTGOING_PEERED => format!("{name} offers {}", offer(client, cluster).await),
            _ => format!("tunnel to {name} is up{}", rtt(status)),
        };
        steps.push((kind, What::Step { text }));
    }
    if holds(status, condition::OUTGOING_PEERED) && holds(status, condition::NETWORK_READY) {
        let text = format!("{name} is peered");
        steps.push((condition::READY, What::Peered { peer: name, text }));
    }
    steps
}

fn holds(status: &ForeignClusterStatus, kind: &str) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}

fn message<'a>(status: &'a ForeignClusterStatus, kind: &str) -> &'a str {
    let mut conditions = status.conditions.iter();
    match conditions.find(|condition| condition.type_ == kind) {
        Some(condition) if condition.message.is_empty() => &condition.reason,
        Some(condition) => &condition.message,
        None => "",
    }
}

fn found(cluster: &ForeignCluster) -> String {
    let name = cluster.name_any();
    let url = &cluster.spec.auth_url;
    match cluster.spec.discovery_type {
        DiscoveryType::Lan => format!("found {name} on the LAN at {url}"),
        DiscoveryType::Wan => format!("found {name} in DNS at {url}"),
        DiscoveryType::Manual => format!("was told of {name} at {url}"),
        DiscoveryType::IncomingPeering => format!("heard from {name}"),
    }
}

/// Says what a cluster offers, in short.
async fn offer(client: &Client, cluster: &ForeignCluster) -> String {
    let api: Api<Advertisement> = Api::all(client.clone());
    let id = peers::id(cluster).unwrap_or_default();
    let offer = api.get(&format!("advertisement-{id}")).await;
    let quota = offer.ok().and_then(|offer| offer.spec.offer.resource_quota);
    let hard = quota.and_then(|quota| quota.hard).unwrap_or_default();
    let parts: Vec<String> = ["cpu", "memory"]
        .iter()
        .filter_map(|kind| Some(format!("{} {kind}", readable(&hard.get(*kind)?.0))))
        .collect();
    if parts.is_empty() {
        "its resources".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Shortens a quantity that is plain bytes.
fn readable(quantity: &str) -> String {
    const GIB: u64 = 1 << 30;
    match quantity.parse::<u64>() {
        Ok(bytes) if bytes >= GIB => format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB),
        Ok(_) | Err(_) => quantity.to_owned(),
    }
}

fn rtt(status: &ForeignClusterStatus) -> String {
    let network = status.network.as_ref();
    let rtt = network.and_then(|network| network.rtt.as_ref());
    rtt.map(|rtt| format!(", {rtt}")).unwrap_or_default()
}
