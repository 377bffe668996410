//! Announcements that cannot be true, and what a handshake says about them: a machine with our own
//! identity, and a machine that uses the id of a cluster that we know without its key.
//!
//! An announcement can be forged, so nothing follows from it. What follows from the handshake is
//! that a cluster whose identity is on two machines stops announcing itself and joins nobody until
//! there is one again, and that a known cluster's object says who uses its id.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures::Stream;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, Error, enrolment,
    own_condition::{self, Verdict},
};
use crate::{
    api::{
        ClusterId,
        foreign_cluster::DiscoveryType,
        labels::{cluster_config as words, reason},
        wire::IdentityRequest,
    },
    peer::client::{ConnectError, Target},
};

/// How many announcements may wait for their handshake. More of them are forgotten: a true one
/// comes again.
const WAITING: usize = 64;
/// How many places are asked at once. A silent one must not hold up the others.
const AT_ONCE: usize = 8;
/// How often a machine with our identity is asked whether it still is there.
const CHECK: Duration = Duration::from_secs(10);
/// After how many unanswered checks it counts as gone.
const CHECKS: u32 = 3;
/// For how long an object says that its id was used without its key.
const MISUSE_TOLD: SignedDuration = SignedDuration::from_mins(15);
/// After what time an address is asked again for the same id.
const ASKED_AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// How many addresses that were asked, and ids that were misused, are remembered.
const REMEMBERED: usize = 256;

/// Where a machine is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The URL of its peer endpoint.
    pub(crate) url: String,
    /// Its address, with scope, where that is known.
    pub(crate) address: Option<SocketAddr>,
    /// Who says so, which decides what may be dialled.
    pub(crate) source: DiscoveryType,
}

/// What is suspected and what is known by handshake.
#[derive(Debug)]
pub(crate) struct Suspicions {
    own_boot: OnceLock<String>,
    twins: Mutex<BTreeMap<String, Twin>>,
    told: watch::Sender<Option<String>>,
    misused: Mutex<BTreeMap<ClusterId, (String, Timestamp)>>,
    queue: mpsc::Sender<Suspicion>,
    queued: Mutex<Option<mpsc::Receiver<Suspicion>>>,
}

#[derive(Debug)]
struct Twin {
    place: Place,
    unanswered: u32,
}

#[derive(Debug)]
struct Suspicion {
    id: ClusterId,
    place: Place,
}

impl Default for Suspicions {
    fn default() -> Self {
        let (queue, queued) = mpsc::channel(WAITING);
        Self {
            own_boot: OnceLock::new(),
            twins: Mutex::default(),
            told: watch::channel(None).0,
            misused: Mutex::default(),
            queue,
            queued: Mutex::new(Some(queued)),
        }
    }
}

impl Suspicions {
    /// Takes the name of this run of the program.
    pub(crate) fn set_boot(&self, boot: &str) {
        self.own_boot.get_or_init(|| boot.to_owned());
    }

    /// Returns the name of this run of the program, empty while nobody has said it.
    pub(crate) fn boot(&self) -> &str {
        self.own_boot.get().map_or("", String::as_str)
    }

    /// Asks for a handshake with a place where an id, ours or another, is said to be.
    pub(crate) fn suspect(&self, id: &ClusterId, place: Place) {
        let id = id.clone();
        drop(self.queue.try_send(Suspicion { id, place }));
    }

    /// Takes note that a machine in another run of the program has proven to hold our identity.
    pub(crate) fn found_twin(&self, place: Place) {
        let mut twins = self.twins();
        if twins.len() < REMEMBERED || twins.contains_key(&place.url) {
            let url = place.url.clone();
            let unanswered = 0;
            twins.insert(url, Twin { place, unanswered });
        }
        drop(twins);
        self.tell();
    }

    /// Returns where another machine holds our identity, if one does.
    pub(crate) fn twin(&self) -> Option<String> {
        self.told.borrow().clone()
    }

    /// Follows where another machine holds our identity.
    pub(crate) fn twins_told(&self) -> watch::Receiver<Option<String>> {
        self.told.subscribe()
    }

    /// Yields whenever our identity is on two machines, or on one again.
    pub(crate) fn changes(&self) -> impl Stream<Item = ()> + Send + 'static {
        super::context::changes(self.told.subscribe())
    }

    /// Takes note that an end used the id of a cluster without its key. The first one is told until
    /// it is forgotten, so that many of them write nothing.
    pub(crate) fn misused(&self, id: &ClusterId, message: String, now: Timestamp) {
        let mut misused = self.misuses();
        misused.retain(|_, (_, until)| now < *until);
        if misused.len() >= REMEMBERED && !misused.contains_key(id) {
            return;
        }
        let entry = misused.entry(id.clone()).or_insert((message, now));
        entry.1 = now + MISUSE_TOLD;
    }

    /// Returns who used the id of a cluster without its key lately, and until when that is told.
    pub(crate) fn misuse(&self, id: &ClusterId, now: Timestamp) -> Option<(String, Timestamp)> {
        let found = self.misuses().get(id).cloned();
        found.filter(|(_, until)| now < *until)
    }

    fn unanswered(&self, url: &str) {
        let mut twins = self.twins();
        if let Some(twin) = twins.get_mut(url) {
            twin.unanswered += 1;
            if twin.unanswered >= CHECKS {
                twins.remove(url);
            }
        }
        drop(twins);
        self.tell();
    }

    /// Names one of the twins, the same one for as long as it is there.
    fn tell(&self) {
        let twins = self.twins();
        self.told.send_if_modified(|told| {
            let stays = told.as_ref().is_some_and(|url| twins.contains_key(url));
            let next = twins.keys().next().cloned();
            let is_news = !stays && *told != next;
            if is_news {
                *told = next;
            }
            is_news
        });
    }

    fn twins(&self) -> MutexGuard<'_, BTreeMap<String, Twin>> {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn misuses(&self) -> MutexGuard<'_, BTreeMap<ClusterId, (String, Timestamp)>> {
        self.misused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether an error says that an end used an id without its key.
pub(crate) fn is_misuse(error: &ConnectError) -> bool {
    error.reason() == reason::IDENTITY_MISMATCH
}

/// Looks into suspicions until the shutdown.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let suspicions = &context.suspicions;
    let queued = suspicions.queued.lock();
    let Some(mut queued) = queued.unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    let mut told = suspicions.twins_told();
    let mut checks = tokio::time::interval(CHECK);
    let mut asked = BTreeMap::new();
    let mut asking = JoinSet::new();
    let mut is_recorded = record(&context, None, false).await;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Ok(()) = told.changed() => {
                let twin = told.borrow_and_update().clone();
                is_recorded = record(&context, twin, true).await;
            }
            _ = checks.tick() => {
                if !is_recorded {
                    is_recorded = record(&context, suspicions.twin(), false).await;
                }
                let places: Vec<Place> =
                    suspicions.twins().values().map(|twin| twin.place.clone()).collect();
                for place in places {
                    asking.spawn(look_for_twin(Arc::clone(&context), place));
                }
            }
            Some(_) = asking.join_next() => {}
            Some(Suspicion { id, place }) = queued.recv(), if asking.len() < AT_ONCE => {
                if id == context.own.cluster_id {
                    asking.spawn(look_for_twin(Arc::clone(&context), place));
                } else if is_to_be_asked(&mut asked, &id, &place, context.now()) {
                    asking.spawn(look_for_misuse(Arc::clone(&context), id, place));
                }
            }
        }
    }
}

/// Whether a place was not asked for an id lately; it is from now on.
fn is_to_be_asked(
    asked: &mut BTreeMap<(ClusterId, String), Timestamp>,
    id: &ClusterId,
    place: &Place,
    now: Timestamp,
) -> bool {
    asked.retain(|_, at| now < *at + ASKED_AGAIN);
    let key = (id.clone(), place.url.clone());
    let is_new = asked.len() < REMEMBERED && !asked.contains_key(&key);
    if is_new {
        asked.insert(key, now);
    }
    is_new
}

/// Asks a place for our own identity. Only another run of the program behind our key is a twin: an
/// end that hands our packets on to ourselves shows this one.
async fn look_for_twin(context: Arc<Context>, place: Place) {
    match ask_for_ourselves(&context, &place).await {
        Ok(boot) if !boot.is_empty() && boot != context.suspicions.boot() => {
            context.suspicions.found_twin(place);
        }
        Ok(_) => context.suspicions.unanswered(&place.url),
        Err(error) => {
            tracing::debug!(url = %place.url, %error, "Our own identity did not answer");
            context.suspicions.unanswered(&place.url);
        }
    }
}

async fn ask_for_ourselves(context: &Context, place: &Place) -> Result<String, ConnectError> {
    let own = &context.own;
    let connection = context
        .connector
        .connect(&target(place, &own.cluster_id))
        .await?;
    let features = connection.ids().await?.landbridge;
    let boot = features.map(|features| features.boot).unwrap_or_default();
    // It may not have heard of us, so it is told; what it answers changes nothing.
    let request = IdentityRequest {
        cluster_id: own.cluster_id.clone(),
        cluster_name: context.own_name(),
        auth_url: context.auth_url(),
        boot: context.suspicions.boot().to_owned(),
        token: None,
        token_proof: None,
        proof: None,
        commitment: None,
        nonce: None,
    };
    if let Err(error) = connection.identify(&request).await {
        tracing::debug!(%error, "A machine with our identity did not hear of us");
    }
    Ok(boot)
}

async fn look_for_misuse(context: Arc<Context>, id: ClusterId, place: Place) {
    if let Err(error) = context.connector.connect(&target(&place, &id)).await
        && is_misuse(&error)
    {
        note_misuse(&context, &id, &place.url, &error).await;
    }
}

/// Takes note that an end used an id without its key, if we know the cluster of the id.
pub(crate) async fn note_misuse(
    context: &Context,
    id: &ClusterId,
    url: &str,
    error: &ConnectError,
) {
    if let Ok(Some(object)) = enrolment::find(context, id).await {
        let message = format!("{url}: {error}");
        context.suspicions.misused(id, message, context.now());
        context.links.nudge(&object.name_any());
    }
}

fn target(place: &Place, expect: &ClusterId) -> Target {
    Target {
        url: place.url.clone(),
        expect: Some(expect.clone()),
        addresses: place.address.into_iter().collect(),
        source: place.source,
    }
}

/// Says in the log, and in a condition of the ClusterConfig, whether our identity is on one machine
/// only. A condition that was never needed is never written. Returns whether the API took it.
async fn record(context: &Context, twin: Option<String>, is_news: bool) -> bool {
    if is_news {
        announce(twin.as_deref());
    }
    let written = write_condition(context, twin).await;
    if let Err(error) = &written {
        tracing::warn!(%error, "The ClusterConfig does not say whether our identity is unique");
    }
    written.is_ok()
}

fn announce(twin: Option<&str>) {
    if let Some(url) = twin {
        let text = "Another machine holds our identity: both join nobody until one is left";
        tracing::warn!(url, "{text}");
    } else {
        tracing::info!("Our identity is on one machine again");
    }
}

async fn write_condition(context: &Context, twin: Option<String>) -> Result<(), Error> {
    let verdict = match twin {
        Some(url) => Verdict {
            status: "False",
            reason: words::DUPLICATE_IDENTITY,
            message: format!(
                "{url} holds the same identity: was this machine's data directory copied? Keep it on one machine, and delete identity.pem on the other"
            ),
        },
        None if own_condition::is_there(&context.client, words::IDENTITY_UNIQUE).await? => {
            Verdict {
                status: "True",
                reason: words::UNIQUE,
                message: "no other machine holds this identity".to_owned(),
            }
        }
        None => return Ok(()),
    };
    own_condition::write(
        &context.client,
        words::IDENTITY_UNIQUE,
        &verdict,
        context.now(),
    )
    .await
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;

    use super::*;
    use crate::{
        controllers::enrolment::context,
        peer::client::{Connection, Connector},
    };

    /// Says nothing at these places, and takes note of who is asked elsewhere.
    struct Silent(&'static str, mpsc::Sender<String>);

    impl Connector for Silent {
        fn connect<'a>(
            &'a self,
            target: &'a Target,
        ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
            Box::pin(async move {
                if target.url.starts_with(self.0) {
                    std::future::pending::<()>().await;
                }
                drop(self.1.try_send(target.url.clone()));
                Err(ConnectError::OwnIdentity)
            })
        }
    }

    #[test]
    fn of_several_twins_one_that_is_there_is_named() {
        let suspicions = Suspicions::default();
        let found = |url: &str| {
            suspicions.found_twin(Place {
                url: url.to_owned(),
                address: None,
                source: DiscoveryType::Lan,
            });
        };
        let named = || suspicions.twin().unwrap_or_default();
        found("https://one");
        found("https://two");
        assert_eq!(named(), "https://one");
        for _ in 0..CHECKS {
            suspicions.unanswered("https://one");
        }
        assert_eq!(named(), "https://two");
        found("https://one");
        assert_eq!(named(), "https://two", "it is still there");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_place_holds_up_neither_other_places_nor_the_checks() {
        let (asked, mut heard) = mpsc::channel(8);
        let mut silent = Arc::into_inner(context().await).unwrap();
        silent.connector = Arc::new(Silent("https://silent", asked));
        let context = Arc::new(silent);
        let place = |url: &str| Place {
            url: url.to_owned(),
            address: None,
            source: DiscoveryType::Lan,
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(Arc::clone(&context), stop.clone()));
        let suspicions = &context.suspicions;
        let peer = ClusterId::from_spki(b"peer");
        suspicions.suspect(&peer, place("https://silent-1"));
        suspicions.suspect(&peer, place("https://other"));
        let heard = tokio::time::timeout(CHECK * 10, heard.recv());
        assert_eq!(heard.await.unwrap().as_deref(), Some("https://other"));
        suspicions.found_twin(place("https://twin"));
        for number in 2..20 {
            suspicions.suspect(&peer, place(&format!("https://silent-{number}")));
        }
        // The twin is gone all the same.
        let mut told = suspicions.twins_told();
        let gone = told.wait_for(Option::is_none);
        let gone = tokio::time::timeout(CHECK * 10, gone).await;
        gone.expect("it is noticed").unwrap();
        stop.cancel();
        running.await.unwrap();
    }
}
