//! A look around without a daemon: who is on the LAN or in a domain, and who of them proves its key.
//! Nothing is written, and nothing is sent to others but the handshake and `GET /ids`.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::timeout_at,
};

use super::{
    Error,
    build::{networks, servers},
};
use crate::{
    api::{ClusterId, ClusterName, foreign_cluster::DiscoveryType},
    config::Config,
    discovery::{
        dns::{Servers, look_within},
        interfaces::InterfaceRules,
        lan_check, lan_look,
    },
    engine::{
        addresses::{AuthUrl, OwnNetworks},
        domain::{Ground, Problem, Verdict, verdict},
        sighting::Sighting,
    },
    peer::{
        certificates::Identity,
        client::{Connector as _, Target, TlsConnector},
        tls::Credentials,
    },
};

pub use crate::discovery::lan_check::{Finding, Interface, Stack, Verdict as LanVerdict};

/// How many endpoints are asked to prove themselves at a time.
const PROBES: usize = 8;
/// How long proofs may go on after the look.
const GRACE: Duration = Duration::from_secs(2);
/// The most endpoints that are told.
const LIMIT: usize = 4096;

/// Where to look, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Whether to look on the LAN.
    pub lan: bool,
    /// The domains to look in.
    pub domains: Vec<String>,
    /// How long to look.
    pub timeout: Duration,
}

/// An endpoint that somebody announces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Find {
    /// Its name: the one that it proved or else the one that it announces.
    pub name: String,
    /// Its id: the one that it proved or else the one that it announces.
    pub cluster_id: Option<ClusterId>,
    /// How it was found.
    pub source: &'static str,
    /// The interface that it was heard on, or the domain that lists it.
    pub place: String,
    /// Where it is; nothing for an entry that leads nowhere.
    pub address: Option<SocketAddr>,
    /// How long it took to prove its key; nothing when it did not.
    pub proven_in: Option<Duration>,
    /// Why it did not.
    pub why: String,
}

/// What a look has brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// The endpoints, in order.
    pub finds: Vec<Find>,
    /// What a person should know besides.
    pub remarks: Vec<String>,
}

/// What is to be asked for a proof.
struct Hint {
    name: ClusterName,
    instance: String,
    cluster_id: Option<ClusterId>,
    source: DiscoveryType,
    place: String,
    endpoints: Vec<SocketAddr>,
    /// Why there is no endpoint.
    why: String,
}

/// Checks whether multicast works on the interfaces that the settings allow.
///
/// # Errors
///
/// When the interfaces cannot be listed.
pub async fn check_lan(config: &Config, wait: Duration) -> std::io::Result<Finding> {
    let (rules, ..) = networks(config, config.cluster.pod_cidr, config.cluster.service_cidr);
    lan_check::check(&rules, wait).await
}

/// Looks around.
///
/// # Errors
///
/// When the settings cannot be used.
pub async fn survey(config: &Config, question: &Question) -> Result<Survey, Error> {
    let (rules, _, networks) =
        networks(config, config.cluster.pod_cidr, config.cluster.service_cidr);
    // The daemon of this machine is of interest too.
    let own = OwnNetworks {
        addresses: Vec::new(),
        ..networks.own.borrow().clone()
    };
    let identity = Arc::new(Identity::generate()?);
    let own_id = identity.cluster_id().clone();
    let credentials = Credentials::new(identity, jiff::Timestamp::now())?;
    let (_sender, known) = watch::channel(own.clone());
    let prober = Prober {
        connector: Arc::new(TlsConnector::new(credentials, known)),
        gate: Arc::new(Semaphore::new(PROBES)),
        deadline: tokio::time::Instant::now() + question.timeout + GRACE,
    };
    let servers = servers(config)?;
    let (hints, hinted) = mpsc::channel(PROBES);
    let lan = async {
        if !question.lan {
            return Vec::new();
        }
        look_on_lan(&rules, question.timeout, &hints).await
    };
    let ground = Ground {
        own_id: &own_id,
        own: &own,
        public_only: false,
        seed: 0,
    };
    let domains = question
        .domains
        .iter()
        .map(|domain| look_in_domain(&servers, domain, question.timeout, &ground, &hints));
    let domains = futures::future::join_all(domains);
    let proving = tokio::spawn(prober.run(hinted));
    let (mut remarks, others) = tokio::join!(lan, domains);
    remarks.extend(others.concat());
    // Without somebody to hint, the prober comes to its end.
    drop(hints);
    let finds = proving.await.unwrap_or_default();
    Ok(Survey { finds, remarks })
}

/// Looks on the LAN and returns what was in the way.
async fn look_on_lan(
    rules: &InterfaceRules,
    limit: Duration,
    hints: &mpsc::Sender<Hint>,
) -> Vec<String> {
    let (sender, mut sightings) = mpsc::channel::<Sighting>(PROBES);
    let pass_on = async {
        while let Some(sighting) = sightings.recv().await {
            let hint = Hint {
                name: sighting.name,
                instance: sighting.instance,
                cluster_id: sighting.cluster_id,
                source: sighting.source,
                place: sighting.interface.unwrap_or_default(),
                endpoints: sighting.endpoints,
                why: String::new(),
            };
            if hints.send(hint).await.is_err() {
                break;
            }
        }
    };
    let (looked, ()) = tokio::join!(lan_look::look(rules, limit, sender), pass_on);
    looked
        .err()
        .map(|error| error.to_string())
        .into_iter()
        .collect()
}

/// Looks in a domain and returns what was in the way.
async fn look_in_domain(
    servers: &Servers,
    domain: &str,
    limit: Duration,
    ground: &Ground<'_>,
    hints: &mpsc::Sender<Hint>,
) -> Vec<String> {
    let look = look_within(servers, domain, limit).await;
    for entry in &look.entries {
        let (claim, endpoints, why) = match verdict(entry, ground) {
            Verdict::Found(claim, endpoints) => (claim, endpoints, String::new()),
            Verdict::Refused(why) | Verdict::Unclear(why) => {
                (entry.claim.clone().unwrap_or_default(), Vec::new(), why)
            }
            Verdict::Ourselves => continue,
        };
        let hint = Hint {
            name: claim.name,
            instance: entry.instance.clone(),
            cluster_id: claim.cluster_id,
            source: DiscoveryType::Wan,
            place: domain.to_owned(),
            endpoints,
            why,
        };
        if hints.send(hint).await.is_err() {
            break;
        }
    }
    let mut remarks = Vec::new();
    if let Some(Problem::Lasting(why) | Problem::Passing(why)) = look.incomplete {
        remarks.push(format!("{domain}: {why}"));
    }
    if look.surplus > 0 {
        let surplus = look.surplus;
        remarks.push(format!("{domain}: {surplus} entries are beyond the limit"));
    }
    remarks
}

/// Asks endpoints to prove their keys.
struct Prober {
    connector: Arc<TlsConnector>,
    gate: Arc<Semaphore>,
    /// When the last proof has to be there.
    deadline: tokio::time::Instant,
}

impl Prober {
    /// Asks each endpoint once, until no more hints come.
    async fn run(self, mut hints: mpsc::Receiver<Hint>) -> Vec<Find> {
        let mut asked = BTreeSet::new();
        let mut finds = BTreeSet::new();
        let mut probes = JoinSet::new();
        while let Some(hint) = hints.recv().await {
            if hint.endpoints.is_empty() && !hint.why.is_empty() {
                finds.insert(hint.find(None, None));
            }
            for endpoint in &hint.endpoints {
                let place = (hint.place.clone(), *endpoint, hint.cluster_id.clone());
                if asked.len() < LIMIT && asked.insert(place) {
                    let silent = Find {
                        why: "it did not answer in time".to_owned(),
                        ..hint.find(Some(*endpoint), None)
                    };
                    let probe = self.prove(silent, hint.source);
                    probes.spawn(probe);
                }
            }
        }
        while let Some(Ok(find)) = probes.join_next().await {
            finds.insert(find);
        }
        finds.into_iter().collect()
    }

    /// Dials one endpoint; what is not proven in time stays as it is.
    fn prove(
        &self,
        silent: Find,
        source: DiscoveryType,
    ) -> impl Future<Output = Find> + Send + 'static {
        let (connector, gate) = (Arc::clone(&self.connector), Arc::clone(&self.gate));
        let deadline = self.deadline;
        async move {
            let Ok(Ok(_permit)) = timeout_at(deadline, gate.acquire_owned()).await else {
                return silent;
            };
            let Some(address) = silent.address else {
                return silent;
            };
            let target = Target {
                url: AuthUrl::from_address(address).to_string(),
                expect: silent.cluster_id.clone(),
                addresses: vec![address],
                source,
            };
            let begun = Instant::now();
            let asked = timeout_at(deadline, async {
                let connection = connector.connect(&target).await?;
                let took = begun.elapsed();
                let name = connection.ids().await?.cluster_name;
                Ok::<_, crate::peer::client::ConnectError>((connection, took, name))
            });
            match asked.await {
                Err(_) => silent,
                Ok(Err(error)) => Find {
                    why: error.to_string(),
                    ..silent
                },
                Ok(Ok((connection, took, name))) => Find {
                    name: name.to_string(),
                    cluster_id: Some(connection.proven.cluster_id),
                    proven_in: Some(took),
                    why: String::new(),
                    ..silent
                },
            }
        }
    }
}

impl Hint {
    fn find(&self, address: Option<SocketAddr>, proven_in: Option<Duration>) -> Find {
        let announced = self.name.to_string();
        Find {
            name: if announced.is_empty() {
                self.instance.clone()
            } else {
                announced
            },
            cluster_id: self.cluster_id.clone(),
            source: self.source.as_str(),
            place: self.place.clone(),
            address,
            proven_in,
            why: self.why.clone(),
        }
    }
}
