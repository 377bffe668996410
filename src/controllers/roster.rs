//! From sightings to ForeignClusters: every candidate is asked to prove its key before anything
//! follows from it.

mod evidence;
mod known;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use self::known::News;
use super::{
    Context, Error,
    context::chance,
    enrolment::{self, Newcomer},
    foreign_cluster::{self, SideBySide, reach},
    search_domain,
    suspicions::{Place, is_misuse, note_misuse},
};
use crate::{
    api::{
        ClusterId,
        foreign_cluster::{DiscoveryType, PeerEndpoint},
    },
    discovery::mdns::MdnsHandle,
    engine::{
        addresses::AuthUrl,
        peering::{Connected, Dial, Neighbour},
        roster::{Bounds, Candidate, Change, Endpoint, Key, Roster, Turns},
        sighting::Event,
    },
    peer::client::{ConnectError, Connection},
};

/// How many candidates are asked at the same time.
const PROBES: usize = 8;
/// How much later each further place is asked than the one before. What answers first becomes the
/// address of the cluster, so that a better one has time on a machine that is busy.
const HEAD_START: Duration = Duration::from_millis(500);
/// How long a place has to take the connection, prove its key and say who it is.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// The longest time without a look at the roster.
const IDLE: Duration = Duration::from_mins(1);

/// A candidate that was asked.
struct Asked {
    key: Key,
    /// What came of it: the place that has proven its key, or those where nobody or somebody else
    /// has.
    proofs: Vec<Proof>,
}

/// What came of asking at one place.
struct Proof {
    endpoint: SocketAddr,
    /// Who has answered.
    id: Option<ClusterId>,
}

impl Proof {
    /// Tells whether it is the answer of whoever was asked.
    fn is_of(&self, asked: &Key) -> bool {
        match (asked, &self.id) {
            (Key::Cluster(claimed), Some(id)) => claimed == id,
            (_, id) => id.is_some(),
        }
    }
}

/// Runs until the shutdown. `boot` is what our own announcements carry, `lan` can be asked to look
/// again.
pub async fn run(
    context: Arc<Context>,
    boot: String,
    lan: Option<MdnsHandle>,
    mut events: mpsc::Receiver<Event>,
    shutdown: CancellationToken,
) {
    context.suspicions.set_boot(&boot);
    let mut news = known::follow(context.client.clone());
    let mut suspects = context.links.suspected();
    let mut search = Search {
        roster: Roster::new(context.own.cluster_id.clone(), boot, Bounds::default()),
        turns: Turns::default(),
        known: BTreeSet::new(),
        lan,
        context,
    };
    let mut probes: JoinSet<Asked> = JoinSet::new();
    loop {
        search.follow_changes().await;
        while let Some(candidate) = search.next_candidate() {
            probes.spawn(ask(Arc::clone(&search.context), candidate));
        }
        let wait = search.wait();
        tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.recv() => match event {
                Some(event) => {
                    note(&event);
                    search.roster.handle_event(event, search.context.now());
                }
                None => return,
            },
            Some(Ok(asked)) = probes.join_next() => search.take_proof(&asked).await,
            Some(news) = news.next() => search.take_news(news),
            Some(peer) = next_suspect(&mut suspects) => search.verify(&peer),
            forgotten = search.context.neighbours.forgotten() => search.forget(&forgotten),
            () = tokio::time::sleep_until(Instant::now() + wait) => {
                search.roster.handle_timeout(search.context.now());
            }
        }
    }
}

/// Who is said to be out there, and whose turn it is to prove it.
struct Search {
    context: Arc<Context>,
    lan: Option<MdnsHandle>,
    roster: Roster,
    turns: Turns,
    /// The ids that there are objects for.
    known: BTreeSet<ClusterId>,
}

impl Search {
    async fn follow_changes(&mut self) {
        while let Some(change) = self.roster.poll_change() {
            match change {
                Change::Appeared(candidate) | Change::Changed(candidate) => {
                    self.turns.push(candidate);
                }
                Change::Expired(candidate) => {
                    self.turns.remove(&candidate.key);
                    if let Some(id) = &candidate.cluster_id {
                        expire(&self.context, id).await;
                    }
                }
                Change::Duplicate(candidate) => suspect_twin(&self.context, &candidate),
            }
        }
    }

    fn next_candidate(&mut self) -> Option<Candidate> {
        let is_free = self.turns.running() < PROBES;
        is_free.then(|| self.turns.pop(&self.known)).flatten()
    }

    fn wait(&self) -> Duration {
        let due = self.roster.poll_timeout();
        due.map_or(IDLE, |due| until(&self.context, due))
    }

    async fn take_proof(&mut self, asked: &Asked) {
        let is_proven = asked.proofs.iter().any(|proof| proof.is_of(&asked.key));
        self.turns.done(&asked.key, is_proven);
        for Proof { endpoint, id } in &asked.proofs {
            let now = self.context.now();
            self.roster
                .handle_proof(&asked.key, *endpoint, id.as_ref(), chance(), now);
        }
        let proven = asked.proofs.iter().filter(|proof| proof.is_of(&asked.key));
        for id in proven.filter_map(|proof| proof.id.as_ref()) {
            if !self.roster.holds(id) {
                // It was taken back while it was asked, before anything was made of it.
                expire(&self.context, id).await;
            }
        }
    }

    fn take_news(&mut self, News { known, gone }: News) {
        for (name, trace) in gone {
            // It may be gone without a look of its controller.
            foreign_cluster::forget(
                &self.context,
                &name,
                trace.uid.as_deref(),
                trace.id.as_ref(),
            );
        }
        if known == self.known {
            return;
        }
        if let Some(lan) = &self.lan {
            lan.set_known(known.clone());
        }
        // What was made of a cluster may be gone without a word of ours.
        let gone: BTreeSet<ClusterId> = self.known.difference(&known).cloned().collect();
        for id in &gone {
            self.context.neighbours.forget_absent(id);
        }
        self.forget(&gone);
        self.roster.set_known(known.clone());
        self.known = known;
    }

    /// Has the announcements of a silent peer confirmed, or they are gone within two seconds.
    fn verify(&self, peer: &ClusterId) {
        let Some(lan) = &self.lan else {
            return;
        };
        for instance in self.roster.advertisements(peer) {
            tracing::debug!(instance, "Is a silent peer still announced?");
            lan.verify(&instance);
        }
    }

    fn forget(&mut self, forgotten: &BTreeSet<ClusterId>) {
        for id in forgotten {
            self.roster.handle_forgotten(id, self.context.now());
        }
    }
}

fn note(event: &Event) {
    match event {
        Event::Seen(sighting) => tracing::debug!(
            source = sighting.source.as_str(),
            instance = %sighting.instance,
            endpoints = ?sighting.endpoints,
            "Advertisement seen"
        ),
        Event::Gone { source, instance } => {
            tracing::debug!(source = source.as_str(), %instance, "Advertisement withdrawn");
        }
    }
}

fn until(context: &Context, due: jiff::Timestamp) -> Duration {
    Duration::try_from(due.duration_since(context.now()))
        .unwrap_or(Duration::ZERO)
        .min(IDLE)
}

async fn next_suspect(suspects: &mut Option<mpsc::Receiver<ClusterId>>) -> Option<ClusterId> {
    match suspects {
        Some(suspects) => suspects.recv().await,
        None => None,
    }
}

/// Our own id in another run of the program may be forged: only a handshake can tell.
fn suspect_twin(context: &Context, candidate: &Candidate) {
    for endpoint in &candidate.endpoints {
        tracing::debug!(address = %endpoint.address, "Our own id is announced by somebody else");
        context
            .suspicions
            .suspect(&context.own.cluster_id, place(endpoint));
    }
}

/// One endpoint has proven its key; the others of the same id may be somebody else's.
fn suspect_others(context: &Context, candidate: &Candidate, proven: SocketAddr) {
    let Some(id) = &candidate.cluster_id else {
        return;
    };
    for endpoint in &candidate.endpoints {
        if endpoint.address != proven {
            context.suspicions.suspect(id, place(endpoint));
        }
    }
}

fn place(endpoint: &Endpoint) -> Place {
    Place {
        url: url_of(endpoint.address),
        address: Some(endpoint.address),
        source: endpoint.source,
    }
}

async fn expire(context: &Context, id: &ClusterId) {
    if context.neighbours.get(id).is_none() {
        // It has never proven who it is, so nothing was made of it.
        return;
    }
    context.neighbours.expire(id, context.now());
    if let Ok(Some(object)) = enrolment::find(context, id).await {
        tracing::info!(cluster = %object.name_any(), "Advertisement gone");
        context.links.nudge(&object.name_any());
    }
}

async fn ask(context: Arc<Context>, candidate: Candidate) -> Asked {
    Asked {
        proofs: prove(&context, &candidate).await,
        key: candidate.key,
    }
}

/// Asks one candidate who it is, at all its endpoints, and enrols it when one proves its key.
async fn prove(context: &Arc<Context>, candidate: &Candidate) -> Vec<Proof> {
    let tries = candidate.endpoints.iter().map(|endpoint| async move {
        let reached = probe(context, candidate, endpoint).await;
        (endpoint, reached)
    });
    let mut tries = SideBySide::new(HEAD_START, tries);
    let mut failed = Vec::new();
    while let Some((endpoint, reached)) = tries.next().await {
        let proof = |id| Proof {
            endpoint: endpoint.address,
            id,
        };
        match reached {
            Ok((connected, connection)) => {
                drop(tries);
                let id = connected.cluster_id.clone();
                let found = (connected, connection);
                let is_recorded = record(context, candidate, endpoint.source, found).await;
                suspect_others(context, candidate, endpoint.address);
                // One that was not is asked again, and makes room like those that prove nothing.
                return vec![proof(is_recorded.then_some(id))];
            }
            Err(ConnectError::OwnIdentity) => {
                return vec![proof(Some(context.own.cluster_id.clone()))];
            }
            Err(error) => {
                let url = url_of(endpoint.address);
                tracing::debug!(url, %error, "Candidate did not prove itself");
                if let Some(id) = candidate.cluster_id.as_ref().filter(|_| is_misuse(&error)) {
                    note_misuse(context, id, &url, &error).await;
                }
                failed.push(proof(error.found().cloned()));
            }
        }
    }
    failed
}

/// Asks a candidate who it is, at one of its endpoints.
async fn probe(
    context: &Context,
    candidate: &Candidate,
    endpoint: &Endpoint,
) -> Result<(Connected, Connection), ConnectError> {
    let dial = Dial {
        url: url_of(endpoint.address),
        address: Some(endpoint.address),
        source: endpoint.source,
    };
    let reached = reach(context, &dial, candidate.cluster_id.clone());
    timeout(PROBE_TIME, reached).await.unwrap_or_else(|_| {
        Err(ConnectError::Timeout {
            address: endpoint.address.to_string(),
            step: "say who it is",
        })
    })
}

/// Records a candidate that has proven its key, and tells whether that was done.
async fn record(
    context: &Arc<Context>,
    candidate: &Candidate,
    source: DiscoveryType,
    found: (Connected, Connection),
) -> bool {
    let id = found.0.cluster_id.clone();
    match admit(context, candidate, source, found).await {
        Ok(is_recorded) => is_recorded,
        Err(error @ Error::Crowded) => {
            tracing::debug!(%id, %error, "A cluster that was found is not recorded");
            context.neighbours.forget(&id);
            false
        }
        Err(error) => {
            tracing::warn!(%id, %error, "A cluster that was found could not be recorded");
            false
        }
    }
}

/// Makes the object of a candidate that has proven its key, and keeps the connection for what follows;
/// false when nobody wants it found any more.
async fn admit(
    context: &Arc<Context>,
    candidate: &Candidate,
    source: DiscoveryType,
    (connected, connection): (Connected, Connection),
) -> Result<bool, Error> {
    let id = connected.cluster_id.clone();
    let search_domains = search_domain::all(context, &candidate.search_domains).await?;
    if source == DiscoveryType::Wan && search_domains.is_empty() {
        // Whoever wanted it found has deleted the SearchDomain meanwhile.
        return Ok(false);
    }
    context
        .neighbours
        .set(id.clone(), neighbour(candidate, source));
    let evidence = evidence::shown(context, candidate, &search_domains, &connection).await?;
    let newcomer = Newcomer {
        cluster_id: id,
        cluster_name: connected.cluster_name.clone(),
        auth_url: connected.url.clone(),
        source,
        search_domains,
        evidence,
    };
    let object = enrolment::enrol(context, &newcomer).await?;
    let name = object.name_any();
    if context
        .links
        .connection(&name)
        .is_none_or(|present| present.is_closed())
    {
        context.links.adopt(&name, connected, Arc::new(connection));
    }
    context.links.try_now(&name);
    Ok(true)
}

fn neighbour(candidate: &Candidate, source: DiscoveryType) -> Neighbour {
    let endpoints = candidate.endpoints.iter().map(|endpoint| PeerEndpoint {
        url: url_of(endpoint.address),
        source: endpoint.source.as_str().to_owned(),
        interface: endpoint.interface.clone(),
        last_seen: Some(Time(endpoint.first_seen)),
        score: None,
        last_error: None,
    });
    Neighbour {
        endpoints: endpoints.collect(),
        addresses: candidate
            .endpoints
            .iter()
            .map(|endpoint| (url_of(endpoint.address), endpoint.address))
            .collect(),
        ttl: u32::try_from(candidate.ttl.as_secs()).unwrap_or(u32::MAX),
        expired: None,
        source,
    }
}

fn url_of(address: SocketAddr) -> String {
    AuthUrl::from_address(address).to_string()
}

#[cfg(test)]
mod tests;
