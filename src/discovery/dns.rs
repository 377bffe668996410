//! Discovery in DNS domains: one look at a domain, by every configured name server, within bounds.
//!
//! ```text
//! domain --> lists (PTR) --> instances --> SRV + TXT --> targets --> A + AAAA --> Look
//! ```
//! Nothing is remembered here between two looks; that is the book's part in the engine.

mod anchors;
mod ask;
mod dnssec;
mod read;
mod recorded;
mod servers;
mod tlsa;

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use futures::{StreamExt as _, stream};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::TokioResolver;
use tokio::time::{Instant, timeout_at};

use crate::engine::domain::{
    BROWSE_DOMAINS, Claim, Entry, INSTANCES, Look, Problem, SERVICE_TYPES, Service,
};
pub use anchors::AnchorsError;
use ask::{Answer, Ask, Asker};
pub(in crate::discovery) use read::text;
pub use recorded::look_at_recorded;
pub use servers::{Servers, ServersError};

/// How many questions may be open at a time: a server holds 32 on one TCP connection.
const CONCURRENCY: usize = 24;
/// How many instances are followed at a time. Each asks at most two questions at once.
const INSTANCES_AT_A_TIME: usize = 24;
/// How long one look may take. What was not answered by then was not answered.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// Looks at a domain once. Never fails: what went wrong is part of the look.
pub async fn look(servers: &Servers, domain: &str) -> Look {
    look_within(servers, domain, LOOK_LIMIT).await
}

/// Looks at a domain once, and at the keys that its signed records vouch for.
pub async fn look_with_keys(servers: &Servers, domain: &str) -> Look {
    let (mut look, validator) = look_and_validate(servers, domain, LOOK_LIMIT).await;
    if let Some(validator) = validator {
        tlsa::add_keys(&validator, &mut look).await;
    }
    look
}

/// Looks at a domain once, and for no longer than this.
pub async fn look_within(servers: &Servers, domain: &str, limit: Duration) -> Look {
    look_and_validate(servers, domain, limit).await.0
}

/// Looks at a domain once. With it comes who could tell whether it is signed.
async fn look_and_validate(
    servers: &Servers,
    domain: &str,
    limit: Duration,
) -> (Look, Option<TokioResolver>) {
    let failed = |problem| Look {
        incomplete: Some(problem),
        ..Look::default()
    };
    let domain = match parse(domain) {
        Ok(domain) => domain,
        Err(problem) => return (failed(problem), None),
    };
    let deadline = Instant::now() + limit;
    let asker = match Asker::new(servers, CONCURRENCY, deadline) {
        Ok(asker) => asker,
        Err(error) => return (failed(Problem::Passing(error.to_string())), None),
    };
    let looker = Looker::new(asker);
    let status = timeout_at(deadline, dnssec::status(servers, &domain));
    let (mut look, status) = tokio::join!(looker.look(&domain), status);
    look.incomplete = look.incomplete.or_else(|| looker.asker.doubt());
    let (dnssec, validator) = status.unwrap_or_default();
    look.dnssec = dnssec;
    (look, validator)
}

/// Asks one question and returns the records.
pub(in crate::discovery) async fn lookup(
    servers: &Servers,
    name: &Name,
    kind: RecordType,
) -> Result<Vec<RData>, Problem> {
    let asker = Asker::new(servers, 1, Instant::now() + LOOK_LIMIT)
        .map_err(|error| Problem::Passing(error.to_string()))?;
    Ok(asker.ask(name, kind).await?.records)
}

fn parse(domain: &str) -> Result<Name, Problem> {
    let wrong = |why: &str| Problem::Lasting(format!("{domain:?} {why}"));
    let mut name = Name::from_utf8(domain).map_err(|_| wrong("is not the name of a domain"))?;
    name.set_fqdn(true);
    if name.is_root() {
        return Err(wrong("is not the name of a domain"));
    }
    if name.iter().next_back() == Some(b"local") {
        return Err(wrong("is looked up on the LAN, not in DNS"));
    }
    Ok(name.to_lowercase())
}

/// One look in the making.
struct Looker<A> {
    asker: A,
    ttl: Mutex<Option<Duration>>,
}

/// An instance that a list names.
struct Listed {
    name: Name,
    /// Whether the list is one of RFC 6763, so that there is a TXT record.
    described: bool,
}

impl<A: Ask> Looker<A> {
    fn new(asker: A) -> Self {
        let ttl = Mutex::new(None);
        Self { asker, ttl }
    }

    async fn look(&self, domain: &Name) -> Look {
        let mut look = Look::default();
        let mut seen = BTreeSet::new();
        let mut listed = Vec::new();
        for (described, outcome) in self.lists(domain).await {
            match outcome {
                Ok(names) => {
                    for name in names.into_iter().filter(|name| name != domain) {
                        if !seen.insert(text(&name)) {
                            continue;
                        }
                        if listed.len() == INSTANCES {
                            look.surplus += 1;
                            continue;
                        }
                        listed.push(Listed { name, described });
                    }
                }
                Err(problem) => {
                    look.incomplete.get_or_insert(problem);
                }
            }
        }
        look.entries = stream::iter(listed)
            .map(|listed| self.entry(listed))
            .buffered(INSTANCES_AT_A_TIME)
            .collect()
            .await;
        look.ttl = *self
            .ttl
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        look
    }

    /// Reads all lists of instances, those of RFC 6763 first.
    async fn lists(&self, domain: &Name) -> Vec<(bool, Result<Vec<Name>, Problem>)> {
        let (browse, plain) = tokio::join!(
            self.browse_domains(domain),
            self.names(domain.clone(), usize::MAX)
        );
        let mut bases = vec![domain.clone()];
        let mut lists = Vec::new();
        match browse {
            Ok(names) => bases.extend(names.into_iter().filter(|name| name != domain)),
            Err(problem) => lists.push((true, Err(problem))),
        }
        let asked: Vec<Name> = bases
            .iter()
            .flat_map(|base| SERVICE_TYPES.map(|kind| under(kind, base)))
            .flatten()
            .collect();
        let described: Vec<_> = stream::iter(asked)
            .map(|name| self.names(name, usize::MAX))
            .buffered(CONCURRENCY)
            .collect()
            .await;
        lists.extend(described.into_iter().map(|outcome| (true, outcome)));
        lists.push((false, plain));
        lists
    }

    async fn browse_domains(&self, domain: &Name) -> Result<Vec<Name>, Problem> {
        match under("b._dns-sd._udp", domain) {
            Some(name) => self.names(name, BROWSE_DOMAINS).await,
            None => Ok(Vec::new()),
        }
    }

    /// Asks for PTR records. They are sorted, so that the same ones are within a bound each time:
    /// servers rotate their answers.
    async fn names(&self, name: Name, most: usize) -> Result<Vec<Name>, Problem> {
        let records = self.ask(&name, RecordType::PTR).await?;
        let names = records.into_iter().filter_map(|data| {
            let RData::PTR(pointer) = data else {
                return None;
            };
            Some(pointer.0.to_lowercase())
        });
        let mut names: Vec<Name> = names.collect();
        names.sort_unstable();
        names.truncate(most);
        Ok(names)
    }

    async fn entry(&self, listed: Listed) -> Entry {
        let instance = text(&listed.name);
        if let Err(problem) = read::check_label(&listed.name) {
            return Entry {
                instance,
                claim: Err(problem),
                services: Ok(Vec::new()),
            };
        }
        let (services, claim) = tokio::join!(self.services(&listed.name), async {
            if !listed.described {
                return Ok(Claim::default());
            }
            let records = self.ask(&listed.name, RecordType::TXT).await?;
            read::claim(&records)
        });
        Entry {
            instance,
            claim,
            services,
        }
    }

    async fn services(&self, instance: &Name) -> Result<Vec<Service>, Problem> {
        let records = self.ask(instance, RecordType::SRV).await?;
        let mut services = Vec::new();
        for record in read::first_services(records) {
            let target = record.target.to_lowercase();
            let addresses = if target.is_root() {
                Ok(Vec::new())
            } else {
                self.addresses(&target).await
            };
            services.push(Service {
                priority: record.priority,
                weight: record.weight,
                port: record.port,
                target: text(&target),
                addresses,
                keys: BTreeSet::new(),
            });
        }
        Ok(services)
    }

    /// Asks for the addresses of a host, of either family. One family is enough.
    async fn addresses(&self, host: &Name) -> Result<Vec<std::net::IpAddr>, Problem> {
        let (v4, v6) = tokio::join!(
            self.ask(host, RecordType::A),
            self.ask(host, RecordType::AAAA)
        );
        let mut addresses = Vec::new();
        let mut problem = None;
        for outcome in [v4, v6] {
            match outcome {
                Ok(records) => addresses.extend(read::addresses(&records)),
                Err(error) => {
                    problem.get_or_insert(error);
                }
            }
        }
        match problem {
            Some(problem) if addresses.is_empty() => Err(problem),
            Some(_) | None => Ok(addresses),
        }
    }

    /// Asks a question and notes for how long its answer holds.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Vec<RData>, Problem> {
        let Answer { records, ttl } = self.asker.ask(name, kind).await?;
        if let Some(ttl) = ttl {
            let mut least = self
                .ttl
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            *least = Some(least.map_or(ttl, |least| least.min(ttl)));
        }
        Ok(records)
    }
}

/// Returns a name below another one, unless it would be too long.
fn under(labels: &str, base: &Name) -> Option<Name> {
    let name = Name::from_ascii(labels).ok()?;
    name.append_domain(base).ok()
}
