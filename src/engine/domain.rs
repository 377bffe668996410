//! What a DNS domain says about clusters: which answers make a sighting, and which are refused.
//!
//! ```text
//! _landbridge._tcp.D  PTR --.
//! _liqo_auth._tcp.D   PTR --+--> instance --> SRV, TXT --> target --> A, AAAA
//! D (Liqo's zone)     PTR --'                    |
//!                                         Entry -+-> Verdict --> Book --> sightings, report
//! ```

mod book;
mod pick;
pub mod zone;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use book::{Book, HOLD, Outcome, Report};
pub use pick::in_order;

use crate::{
    api::{
        foreign_cluster::DiscoveryType,
        identity::{ClusterId, ClusterName, Fingerprint},
    },
    engine::addresses::{OwnNetworks, Refusal, judge},
};

/// The service types that are looked for and published: our own, a legal name (RFC 6335, section
/// 5.1), and the one that Liqo 0.2 to 0.10 uses.
pub const SERVICE_TYPES: [&str; 2] = ["_landbridge._tcp", "_liqo_auth._tcp"];
/// The most instances of one SearchDomain: as many as the roster holds, and about as many PTR
/// records as fit in one answer.
pub const INSTANCES: usize = 1024;
/// The most addresses or texts of one name that are read.
pub const ANSWERS: usize = 64;
/// The most targets of one instance.
pub const TARGETS: usize = 16;
/// The most keys of one target that are read: one is in use, and another one is its successor.
pub const KEYS: usize = 8;
/// The most browse domains of a domain (RFC 6763, section 11); they are not followed further.
pub const BROWSE_DOMAINS: usize = 16;
/// The longest chain of CNAME records.
pub const CNAME_DEPTH: usize = 8;
/// The most endpoints of one instance, as the roster reads them.
const ENDPOINTS: usize = 8;

/// Why a part of the answers is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The answer is there and cannot be used. What was known before is withdrawn.
    Lasting(String),
    /// There was no answer. What was known before still holds.
    Passing(String),
}

/// What an instance says about itself in its TXT record. Liqo's plain zone has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// The id that it claims.
    pub cluster_id: Option<ClusterId>,
    /// The name that it claims, possibly empty.
    pub name: ClusterName,
    /// The run of the program that published it.
    pub boot: Option<String>,
}

/// One SRV record with the addresses of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Lower goes first.
    pub priority: u16,
    /// How often it is chosen among those of its priority.
    pub weight: u16,
    /// The port of the peer endpoint.
    pub port: u16,
    /// The host; empty for the root, which means "not here" (RFC 2782).
    pub target: String,
    /// What the host's name leads to.
    pub addresses: Result<Vec<IpAddr>, Problem>,
    /// The keys in the host's TLSA records, where they were asked for and DNSSEC proves these and the
    /// SRV record.
    pub keys: BTreeSet<Fingerprint>,
}

/// One instance as the domain describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its full name, lower-case.
    pub instance: String,
    /// What it says about itself.
    pub claim: Result<Claim, Problem>,
    /// Where it says that it is.
    pub services: Result<Vec<Service>, Problem>,
}

/// Whether the answers of a domain are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dnssec {
    /// The signatures lead to a trust anchor.
    Secure,
    /// The domain is provably not signed.
    Insecure,
    /// The signatures are wrong.
    Bogus,
    /// It cannot be told, for example without a way to the root.
    #[default]
    Indeterminate,
}

impl Dnssec {
    /// Returns the word as objects carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secure => "Secure",
            Self::Insecure => "Insecure",
            Self::Bogus => "Bogus",
            Self::Indeterminate => "Indeterminate",
        }
    }
}

/// Everything that one look at a domain brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// The instances, those of RFC 6763 before those of Liqo's plain zone, each once.
    pub entries: Vec<Entry>,
    /// Why the list of instances is not complete, if it is not.
    pub incomplete: Option<Problem>,
    /// How many instances were beyond the bound.
    pub surplus: usize,
    /// The shortest time to live among all answers, negative ones included.
    pub ttl: Option<Duration>,
    /// Whether the domain is signed, as its SOA record shows.
    pub dnssec: Dnssec,
}

/// What a verdict depends on besides the answers.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// Our own id: nobody peers with itself.
    pub own_id: &'a ClusterId,
    /// Our own networks.
    pub own: &'a OwnNetworks,
    /// Whether addresses of private networks are refused.
    pub public_only: bool,
    /// What decides among targets of equal priority. The same for the life of the program, so that
    /// the order does not change between two looks.
    pub seed: u64,
}

/// What follows from an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A cluster is said to be at these endpoints.
    Found(Claim, Vec<SocketAddr>),
    /// The entry is our own.
    Ourselves,
    /// The entry cannot be used.
    Refused(String),
    /// There was no answer to a part of it.
    Unclear(String),
}

/// Decides what an entry is worth.
pub fn verdict(entry: &Entry, ground: &Ground<'_>) -> Verdict {
    let claim = match &entry.claim {
        Ok(claim) => claim.clone(),
        Err(problem) => return problem.clone().into(),
    };
    if claim.cluster_id.as_ref() == Some(ground.own_id) {
        return Verdict::Ourselves;
    }
    let services = match &entry.services {
        Ok(services) => services,
        Err(problem) => return problem.clone().into(),
    };
    let mut endpoints = Vec::new();
    let mut obstacle = Obstacle::default();
    for service in in_order(services, seed_of(&entry.instance, ground.seed)) {
        match &service.addresses {
            _ if service.target.is_empty() => {
                obstacle.refuse("its SRV record says that it is not here".to_owned());
            }
            Ok(addresses) if addresses.is_empty() => {
                obstacle.refuse(format!("its target {} has no address", service.target));
            }
            Ok(addresses) => {
                for address in sorted(addresses) {
                    let address = SocketAddr::new(address, service.port);
                    match examine(address, ground) {
                        Ok(()) if !endpoints.contains(&address) => endpoints.push(address),
                        Ok(()) => {}
                        Err(why) => obstacle.object(address, why),
                    }
                }
            }
            Err(Problem::Lasting(why)) => obstacle.refuse(why.clone()),
            Err(Problem::Passing(why)) => obstacle.unclear = Some(why.clone()),
        }
    }
    endpoints.truncate(ENDPOINTS);
    if endpoints.is_empty() {
        return obstacle.verdict();
    }
    Verdict::Found(claim, endpoints)
}

impl From<Problem> for Verdict {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Lasting(why) => Self::Refused(why),
            Problem::Passing(why) => Self::Unclear(why),
        }
    }
}

/// Why an entry has no endpoint.
#[derive(Debug, Default)]
struct Obstacle {
    ourselves: bool,
    unclear: Option<String>,
    refused: Option<String>,
}

impl Obstacle {
    fn refuse(&mut self, why: String) {
        self.refused.get_or_insert(why);
    }

    fn object(&mut self, address: SocketAddr, why: Objection) {
        if why == Objection::Address(Refusal::OwnAddress) {
            self.ourselves = true;
        } else {
            self.refuse(format!("{address}: {why}"));
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self {
                unclear: Some(why), ..
            } => Verdict::Unclear(why),
            Self {
                refused: Some(why), ..
            } => Verdict::Refused(why),
            Self {
                ourselves: true, ..
            } => Verdict::Ourselves,
            Self { .. } => Verdict::Refused("it has no SRV record".to_owned()),
        }
    }
}

/// Why an address of a domain is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Objection {
    #[error(transparent)]
    Address(#[from] Refusal),
    #[error("the address is private and the SearchDomain says publicOnly")]
    Private,
}

fn examine(address: SocketAddr, ground: &Ground<'_>) -> Result<(), Objection> {
    judge(address, DiscoveryType::Wan, ground.own)?;
    if ground.public_only && is_private(address.ip()) {
        return Err(Objection::Private);
    }
    Ok(())
}

/// Private (RFC 1918), shared (RFC 6598) and unique local (RFC 4193) addresses.
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// Servers rotate their answers; a change of order alone is no news.
fn sorted(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// Mixes a name into a seed (FNV-1a), so that not all instances are decided alike.
fn seed_of(instance: &str, seed: u64) -> u64 {
    instance.bytes().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
