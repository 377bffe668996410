//! The SearchDomains: one look after another at each, and what they found in their status.

pub(super) mod belonging;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, ResourceExt as _,
    api::Patch,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Context, Error, context::chance, gone_is_fine, managed, status::difference};
use crate::{
    api::{
        SearchDomain, SearchDomainSpec, SearchDomainStatus,
        labels::search_domain as words,
        search_domain::{RefusedEntry, TrustedBy},
    },
    discovery::{
        dns::{Servers, look, look_with_keys},
        source::EventSink,
    },
    engine::{
        addresses::OwnNetworks,
        domain::{Book, Ground, Look, Outcome, Problem, Report},
        sighting::Event,
    },
};

/// How often an event that found no room is tried again, and how long the roster has meanwhile.
const ROOM: (u32, Duration) = (50, Duration::from_millis(20));

/// How often a cluster that waits for a person is asked for a certificate at most.
const ASK_AGAIN: SignedDuration = SignedDuration::from_mins(5);

/// What the controller works with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name servers.
    pub servers: Servers,
    /// This machine's networks, to tell which addresses are not to be dialled.
    pub own: watch::Receiver<OwnNetworks>,
    /// Where finds go.
    pub events: EventSink,
}

/// Returns those of the named SearchDomains that exist, in the order of the names.
pub(super) async fn all(context: &Context, names: &[String]) -> Result<Vec<SearchDomain>, Error> {
    let api: Api<SearchDomain> = Api::all(context.client.clone());
    let mut found = Vec::new();
    for name in names {
        let present = api
            .get_opt(name)
            .await
            .map_err(Error::api("read a SearchDomain"))?;
        let stays = |object: &SearchDomain| object.metadata.deletion_timestamp.is_none();
        found.extend(present.filter(stays));
    }
    Ok(found)
}

/// Runs until the shutdown.
pub async fn run(context: Arc<Context>, settings: Settings, shutdown: CancellationToken) {
    let api: Api<SearchDomain> = Api::all(context.client.clone());
    let changes = watcher(api, watcher::Config::default()).default_backoff();
    let mut changes = Box::pin(changes.take_until(shutdown.clone().cancelled_owned()));
    let mut searches = Searches {
        context,
        settings,
        shutdown,
        running: BTreeMap::new(),
        listed: BTreeSet::new(),
    };
    while let Some(change) = changes.next().await {
        match change {
            Ok(change) => searches.handle(change).await,
            Err(error) => tracing::debug!(%error, "The watch on the SearchDomains ended"),
        }
    }
    for (_, search) in std::mem::take(&mut searches.running) {
        search.end().await;
    }
}

/// The SearchDomains that are looked at.
struct Searches {
    context: Arc<Context>,
    settings: Settings,
    shutdown: CancellationToken,
    running: BTreeMap<String, Search>,
    /// The names that the list under way has brought so far.
    listed: BTreeSet<String>,
}

/// One SearchDomain that is looked at, as its spec stands.
struct Search {
    spec: SearchDomainSpec,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Search {
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            let domain = self.spec.domain;
            tracing::error!(domain, %error, "The look at a SearchDomain has failed");
        }
    }
}

impl Searches {
    async fn handle(&mut self, change: watcher::Event<SearchDomain>) {
        match change {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => {
                self.listed.insert(object.name_any());
                self.apply(object).await;
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let names: Vec<String> = self.running.keys().cloned().collect();
                for name in names.iter().filter(|name| !listed.contains(*name)) {
                    self.forget(name).await;
                }
                self.release().await;
            }
            watcher::Event::Apply(object) => self.apply(object).await,
            watcher::Event::Delete(object) => {
                self.forget(&object.name_any()).await;
                self.release().await;
            }
        }
    }

    async fn apply(&mut self, object: SearchDomain) {
        let name = object.name_any();
        if self
            .running
            .get(&name)
            .is_some_and(|search| search.spec == object.spec && !search.task.is_finished())
        {
            return;
        }
        self.forget(&name).await;
        let stop = self.shutdown.child_token();
        let search = Searching {
            context: Arc::clone(&self.context),
            settings: self.settings.clone(),
            name: name.clone(),
            spec: object.spec.clone(),
            book: Book::new(name.clone()),
            asked: None,
        };
        let end = (stop.clone(), self.shutdown.clone());
        let task = tokio::spawn(search.run(end.0, end.1));
        let spec = object.spec;
        self.running.insert(name, Search { spec, stop, task });
    }

    async fn forget(&mut self, name: &str) {
        if let Some(search) = self.running.remove(name) {
            search.end().await;
        }
    }

    async fn release(&self) {
        let present = self.running.keys().cloned().collect();
        if let Err(error) = belonging::release(&self.context, &present).await {
            tracing::warn!(%error, "ForeignClusters keep the label of a SearchDomain that is gone");
        }
    }
}

/// The task of one SearchDomain.
struct Searching {
    context: Arc<Context>,
    settings: Settings,
    name: String,
    spec: SearchDomainSpec,
    book: Book,
    /// When who waits for a person was last asked for a certificate.
    asked: Option<Timestamp>,
}

impl Searching {
    /// Looks until it is stopped, and then takes back what it has told, unless everything stops.
    async fn run(mut self, stop: CancellationToken, shutdown: CancellationToken) {
        loop {
            let look = tokio::select! {
                () = stop.cancelled() => break,
                look = self.look() => look,
            };
            let wait = self.take(&look).await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        if !shutdown.is_cancelled() {
            let events = self.book.close();
            self.tell(events).await;
        }
    }

    async fn look(&self) -> Look {
        let (servers, domain) = (&self.settings.servers, &self.spec.domain);
        if self.spec.trusted_by.contains(&TrustedBy::Tlsa) {
            look_with_keys(servers, domain).await
        } else {
            look(servers, domain).await
        }
    }

    /// Does what follows from a look, and returns how long to wait for the next one.
    async fn take(&mut self, look: &Look) -> Duration {
        let Outcome {
            events,
            report,
            wait,
        } = {
            let own = self.settings.own.borrow().clone();
            let ground = Ground {
                own_id: &self.context.own.cluster_id,
                own: &own,
                public_only: self.spec.public_only.unwrap_or_default(),
                seed: seed(&self.context),
            };
            self.book.handle_look(look, &ground, chance())
        };
        tracing::debug!(
            domain = self.spec.domain,
            found = report.found,
            refused = report.refused.len(),
            ?wait,
            "Looked at a domain"
        );
        self.tell(events).await;
        self.ask_again().await;
        if let Err(error) = self.record(&report, wait).await {
            tracing::warn!(search_domain = self.name, %error, "The status could not be written");
        }
        wait
    }

    /// Has those who wait for a person asked anew for a certificate, which they may have by now.
    async fn ask_again(&mut self) {
        let now = self.context.now();
        let recent = self.asked.is_some_and(|asked| now < asked + ASK_AGAIN);
        if recent || !self.spec.trusted_by.contains(&TrustedBy::WebPki) {
            return;
        }
        self.asked = Some(now);
        for id in belonging::undecided(&self.context, &self.name).await {
            self.context.neighbours.look_again(id);
        }
    }

    /// Tells the roster, which may have its hands full with a large domain for a moment.
    async fn tell(&self, events: Vec<Event>) {
        for event in events {
            for _ in 0..ROOM.0 {
                if self.settings.events.send(event.clone()) {
                    break;
                }
                tokio::time::sleep(ROOM.1).await;
            }
        }
    }

    /// Writes the status when something other than the times has changed.
    async fn record(&self, report: &Report, wait: Duration) -> Result<(), Error> {
        let api: Api<SearchDomain> = Api::all(self.context.client.clone());
        let read = api.get_opt(&self.name).await;
        let Some(present) = read.map_err(Error::api("read a SearchDomain"))? else {
            return Ok(());
        };
        let old = present.status.clone().unwrap_or_default();
        let new = status(&old, report, wait, self.context.now());
        let still = SearchDomainStatus {
            last_look: old.last_look.clone(),
            next_look: old.next_look.clone(),
            ..new.clone()
        };
        if still == old && present.status.is_some() {
            return Ok(());
        }
        tell_a_person(&self.name, &old, &new);
        let old = serde_json::to_value(present.status.as_ref())?;
        let Some(change) = difference(&old, &serde_json::to_value(&new)?) else {
            return Ok(());
        };
        let patch = Patch::Merge(json!({ "status": change }));
        gone_is_fine(api.patch(&self.name, &managed(), &patch).await)
            .map_err(Error::api("write the status of a SearchDomain"))
    }
}

fn tell_a_person(name: &str, old: &SearchDomainStatus, new: &SearchDomainStatus) {
    let answered = new.conditions.first();
    if old.found != new.found {
        tracing::info!(
            search_domain = name,
            found = new.found.unwrap_or_default(),
            "Domain looked at"
        );
    }
    let before = old.conditions.first().map(|one| one.reason.as_str());
    if let Some(answered) = answered
        && answered.status != "True"
        && before != Some(answered.reason.as_str())
    {
        tracing::warn!(
            search_domain = name,
            reason = answered.reason,
            message = answered.message,
            "Not everything in the domain could be read"
        );
    }
}

/// The same for the life of the program, other in every cluster.
fn seed(context: &Context) -> u64 {
    let id = context.own.cluster_id.as_str().as_bytes();
    let first = id.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

fn status(
    old: &SearchDomainStatus,
    report: &Report,
    wait: Duration,
    now: Timestamp,
) -> SearchDomainStatus {
    let refused = report
        .refused
        .iter()
        .map(|(instance, reason)| RefusedEntry {
            instance: instance.clone(),
            reason: reason.clone(),
        });
    let ahead = SignedDuration::try_from(wait).unwrap_or_default();
    SearchDomainStatus {
        last_look: Some(Time(now)),
        next_look: now.checked_add(ahead).ok().map(Time),
        found: u32::try_from(report.found).ok(),
        refused: refused.collect(),
        dnssec: Some(report.dnssec.as_str().to_owned()),
        conditions: vec![answered(old, report, now)],
    }
}

fn answered(old: &SearchDomainStatus, report: &Report, now: Timestamp) -> Condition {
    let (status, reason, message) = match &report.problem {
        Some(Problem::Lasting(why)) => ("False", words::INVALID_DOMAIN, why.clone()),
        Some(Problem::Passing(why)) => ("False", words::INCOMPLETE, why.clone()),
        None if report.surplus > 0 => {
            let message = format!(
                "{} entries are beyond the limit: shard the domain by browse domains",
                report.surplus
            );
            ("False", words::TOO_MANY, message)
        }
        None => ("True", words::COMPLETE, String::new()),
    };
    let before = old
        .conditions
        .iter()
        .find(|one| one.type_ == words::ANSWERED);
    let since = before.filter(|one| one.status == status);
    Condition {
        type_: words::ANSWERED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since
            .map_or_else(|| Time(now), |one| one.last_transition_time.clone()),
        // Without a status subresource every write of ours is a new generation.
        observed_generation: None,
    }
}
