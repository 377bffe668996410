//! One question to every name server that it takes.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    net::{DnsError, NetError},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::servers::{Place, Servers, ServersError};
use crate::engine::domain::{CNAME_DEPTH, Problem};

/// How often a server that is busy is asked again, and the first wait.
const BUSY: (u32, Duration) = (4, Duration::from_millis(20));

/// What a server said. No record is an answer too.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) records: Vec<RData>,
    /// For how long it holds.
    pub(super) ttl: Option<Duration>,
}

/// Whoever answers the questions of a look.
pub(super) trait Ask {
    /// Asks for the records of a name.
    fn ask(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> impl Future<Output = Result<Answer, Problem>> + Send;
}

/// Asks questions: first the server that answered last, then the others.
pub(super) struct Asker {
    servers: Vec<Server>,
    preferred: AtomicUsize,
    /// Whether one of them knew a name.
    heard: AtomicBool,
    gate: Semaphore,
    deadline: Instant,
}

/// One name server, and whether it has failed to answer in this look.
struct Server {
    place: Place,
    resolver: TokioResolver,
    silent: AtomicBool,
}

/// What came of asking one server.
pub(super) enum Reply {
    /// Records, or that there are none of this type.
    Said(Answer),
    /// The name does not exist here; another server may know it.
    Unknown(Answer),
    /// The answer is there and worthless.
    Wrong(String),
    /// There was no answer.
    Silent(String),
}

impl Asker {
    /// Prepares for questions that are all answered before the deadline, or not at all.
    pub(super) fn new(
        servers: &Servers,
        concurrency: usize,
        deadline: Instant,
    ) -> Result<Self, ServersError> {
        let servers = servers
            .resolvers()?
            .into_iter()
            .map(|(place, resolver)| Server {
                place,
                resolver,
                silent: AtomicBool::new(false),
            });
        Ok(Self {
            servers: servers.collect(),
            preferred: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            gate: Semaphore::new(concurrency),
            deadline,
        })
    }

    /// Why "not listed" may not be the truth: no server knew any name, and one that may know them was
    /// silent.
    pub(super) fn doubt(&self) -> Option<Problem> {
        let is_silent = |server: &&Server| server.silent.load(Ordering::Relaxed);
        let silent = self.servers.iter().find(is_silent)?;
        (!self.heard.load(Ordering::Relaxed)).then(|| {
            Problem::Passing(format!(
                "{} is silent, and no other name server knows the domain",
                silent.place
            ))
        })
    }

    async fn ask_all(&self, name: &Name, kind: RecordType) -> Result<Answer, Problem> {
        let _permit = self.gate.acquire().await;
        let count = self.servers.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut unknown = None;
        let mut problem = None;
        for index in (first..first + count).map(|index| index % count) {
            let Some(server) = self.servers.get(index) else {
                continue;
            };
            // A second opinion is not worth waiting for a server that is away.
            if unknown.is_some() && server.silent.load(Ordering::Relaxed) {
                continue;
            }
            match ask_one(server, name, kind).await {
                Reply::Said(answer) => {
                    self.heard.store(true, Ordering::Relaxed);
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Reply::Unknown(answer) => {
                    unknown.get_or_insert(answer);
                }
                Reply::Wrong(why) => {
                    problem.get_or_insert(Problem::Lasting(why));
                }
                Reply::Silent(why) => {
                    problem.get_or_insert(Problem::Passing(why));
                    server.silent.store(true, Ordering::Relaxed);
                    if index == first {
                        self.preferred.store((index + 1) % count, Ordering::Relaxed);
                    }
                }
            }
        }
        unknown.ok_or_else(|| {
            problem.unwrap_or_else(|| Problem::Passing("there is no name server".to_owned()))
        })
    }
}

impl Ask for Asker {
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, Problem> {
        let late = || Problem::Passing("the look took too long".to_owned());
        match timeout_at(self.deadline, self.ask_all(name, kind)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(late()),
        }
    }
}

async fn ask_one(server: &Server, name: &Name, kind: RecordType) -> Reply {
    let mut wait = BUSY.1;
    for _ in 0..BUSY.0 {
        match server.resolver.lookup(name.clone(), kind).await {
            Err(NetError::Busy) => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            Err(error) => return from_error(name, kind, error, &server.place),
            Ok(lookup) => return from_answers(name, kind, lookup.answers()),
        }
    }
    Reply::Silent(format!("the name server {} is busy", server.place))
}

/// Takes the records of the wanted type at the end of the chain of CNAME records.
pub(super) fn from_answers(name: &Name, kind: RecordType, answers: &[Record]) -> Reply {
    let mut owner = name.clone();
    let mut seen = BTreeSet::from([owner.clone()]);
    loop {
        let mut aliases = answers.iter().filter(|record| record.name == owner);
        let next = aliases.find_map(|record| {
            let RData::CNAME(alias) = &record.data else {
                return None;
            };
            Some(alias.0.clone())
        });
        let Some(next) = next else { break };
        if seen.len() > CNAME_DEPTH || !seen.insert(next.clone()) {
            return Reply::Wrong(format!(
                "{} is an alias that leads round in a circle or through more than {CNAME_DEPTH} others",
                super::read::text(name)
            ));
        }
        owner = next;
    }
    let fitting = answers
        .iter()
        .filter(|record| record.record_type() == kind && record.name == owner);
    let chain = answers.iter().filter(|record| seen.contains(&record.name));
    let ttl = chain.map(|record| record.ttl).min();
    Reply::Said(Answer {
        records: fitting.map(|record| record.data.clone()).collect(),
        ttl: ttl.map(|ttl| Duration::from_secs(ttl.into())),
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are many, and those without a name here are told alike"
)]
fn from_error(name: &Name, kind: RecordType, error: NetError, place: &Place) -> Reply {
    let shown = format!("{kind} {}", super::read::text(name));
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let answer = Answer {
                records: Vec::new(),
                ttl: none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())),
            };
            if none.response_code == ResponseCode::NXDomain {
                Reply::Unknown(answer)
            } else {
                Reply::Said(answer)
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Reply::Silent(format!("the name server {place} answers {code} to {shown}"))
        }
        NetError::Timeout => Reply::Silent(format!(
            "the name server {place} does not answer to {shown}"
        )),
        NetError::Truncated => Reply::Silent(format!("the answer to {shown} is cut off")),
        NetError::Io(_) | NetError::NoConnections => Reply::Silent(place.unreachable()),
        other => {
            tracing::debug!(question = shown, error = %other, "A name server's answer cannot be used");
            Reply::Silent(format!("the answer to {shown} cannot be read"))
        }
    }
}
