//! The updates themselves: what is asked for, on which condition, and what the server said.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_net::{
    NetError,
    client::Client,
    runtime::TokioRuntimeProvider,
    udp::UdpClientStream,
    xfer::{DnsHandle as _, FirstAnswer as _},
};
use hickory_proto::{
    op::{
        DnsRequest, DnsRequestOptions, Message, MessageType, OpCode, Query, ResponseCode,
        UpdateMessage as _,
    },
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR, SRV, TXT},
    },
};
use tokio::time::timeout;

use super::Key;
use crate::{
    api::identity::{ClusterId, ClusterName},
    discovery::record::Record as Claim,
    engine::{
        addresses::{AuthUrl, Host},
        domain::{SERVICE_TYPES, zone::TTL},
    },
};

/// How long the server has for one update.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is published of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its id, which is its instance name.
    pub cluster_id: ClusterId,
    /// Its name, possibly empty.
    pub name: ClusterName,
    /// The port of its peer endpoint.
    pub port: u16,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// A URL to name instead.
    pub advertise: Option<AuthUrl>,
}

/// Indicates an update that was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Indicates that the server does not know the key, or another secret under its name, or that
    /// the clocks are apart.
    #[error(
        "TSIG key rejected: name and secret must be those of the name server, and the clocks within five minutes"
    )]
    KeyRejected,
    /// Indicates a key that may not change these names.
    #[error(
        "the name server refuses the update: allow the key to change the zone (update-policy or allow-update)"
    )]
    Refused,
    /// Indicates that the server does not serve the zone.
    #[error("the name server does not serve the zone {0}")]
    NotItsZone(String),
    /// Indicates that our names are taken by somebody else.
    #[error("{0} is in use and not by this cluster: remove it from the zone")]
    InUse(String),
    /// Indicates another answer.
    #[error("the name server answers {0}")]
    Answer(String),
    /// Indicates no answer.
    #[error("the name server {0} does not answer")]
    Silent(SocketAddr),
    /// Indicates a name that would be too long.
    #[error("the names in the zone {0} would be too long")]
    TooLong(String),
}

/// Reads the name of a zone.
pub(super) fn zone_name(text: &str) -> Option<Name> {
    let mut name = Name::from_utf8(text).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then(|| name.to_lowercase())
}

/// Publishes in one zone.
#[derive(Debug, Clone)]
pub struct Publisher {
    zone: Name,
    server: SocketAddr,
    key: Key,
}

/// The names under which a cluster is listed.
struct Names {
    host: Name,
    /// Each service type with our instance.
    instances: Vec<(Name, Name)>,
}

impl Publisher {
    pub(super) fn new(zone: Name, server: SocketAddr, key: Key) -> Self {
        Self { zone, server, key }
    }

    /// Returns the zone.
    pub fn zone(&self) -> String {
        crate::discovery::dns::text(&self.zone)
    }

    /// Makes the zone say what the listing says: creates our records, or replaces them when they
    /// are ours. What we published earlier and is not true any more goes in the same step.
    pub async fn publish(&self, listing: &Listing) -> Result<(), UpdateError> {
        let names = self.names(listing)?;
        let mut replace = self.message();
        replace.add_pre_requisite(marker(&names.host, listing));
        clear(&mut replace, &names);
        self.add(&mut replace, listing, &names);
        match self.send(replace).await? {
            ResponseCode::NoError => return Ok(()),
            // The mark is not there: the first time, or somebody removed it.
            ResponseCode::NXRRSet | ResponseCode::NXDomain => {}
            other => return Err(self.refused(other)),
        }
        let mut create = self.message();
        for name in names.all() {
            create.add_pre_requisite(unused(name));
        }
        self.add(&mut create, listing, &names);
        match self.send(create).await? {
            ResponseCode::NoError => Ok(()),
            ResponseCode::YXDomain => {
                Err(UpdateError::InUse(crate::discovery::dns::text(&names.host)))
            }
            other => Err(self.refused(other)),
        }
    }

    /// Takes our records out of the zone, if they are ours.
    pub async fn withdraw(&self, listing: &Listing) -> Result<(), UpdateError> {
        let names = self.names(listing)?;
        let mut message = self.message();
        message.add_pre_requisite(marker(&names.host, listing));
        clear(&mut message, &names);
        match self.send(message).await? {
            ResponseCode::NoError | ResponseCode::NXRRSet | ResponseCode::NXDomain => Ok(()),
            other => Err(self.refused(other)),
        }
    }

    fn names(&self, listing: &Listing) -> Result<Names, UpdateError> {
        let below = |label: &str, base: &Name| {
            base.prepend_label(label)
                .map_err(|_| UpdateError::TooLong(self.zone()))
        };
        let id = listing.cluster_id.as_str();
        let host = below(id, &below("host", &self.zone)?)?;
        let mut instances = Vec::new();
        for kind in SERVICE_TYPES {
            let mut service = self.zone.clone();
            for label in kind.rsplit('.') {
                service = below(label, &service)?;
            }
            let instance = below(id, &service)?;
            instances.push((service, instance));
        }
        Ok(Names { host, instances })
    }

    fn message(&self) -> Message {
        let mut message = Message::new(number(), MessageType::Query, OpCode::Update);
        message.add_zone(Query::query(self.zone.clone(), RecordType::SOA));
        message
    }

    fn add(&self, message: &mut Message, listing: &Listing, names: &Names) {
        let mut add = |name: &Name, data: RData| {
            message.add_update(Record::from_rdata(name.clone(), TTL, data));
        };
        let (target, port) = match &listing.advertise {
            None => (names.host.clone(), listing.port),
            Some(url) => match url.host() {
                Host::Name(name) => (zone_name(name).unwrap_or_default(), url.port()),
                Host::Address(_) => (names.host.clone(), url.port()),
            },
        };
        let claim = Claim {
            cluster_id: Some(listing.cluster_id.clone()),
            name: listing.name.clone(),
            boot: None,
        };
        let pairs = claim.pairs().into_iter();
        let strings: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        for (service, instance) in &names.instances {
            add(service, RData::PTR(PTR(instance.clone())));
            add(instance, RData::SRV(SRV::new(0, 0, port, target.clone())));
            add(instance, RData::TXT(TXT::new(strings.clone())));
        }
        add(&names.host, mark(listing));
        let named = listing.advertise.as_ref().map(AuthUrl::host);
        let addresses = match named {
            None => listing.addresses.clone(),
            Some(Host::Address(address)) => vec![*address],
            Some(Host::Name(_)) => Vec::new(),
        };
        for address in addresses {
            let data = match address {
                IpAddr::V4(v4) => RData::A(A(v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
            };
            add(&names.host, data);
        }
    }

    async fn send(&self, message: Message) -> Result<ResponseCode, UpdateError> {
        let stream = UdpClientStream::builder(self.server, TokioRuntimeProvider::default())
            .with_signer(Some(self.key.signer()))
            .build();
        let (client, background) = Client::<TokioRuntimeProvider>::from_sender(stream);
        let background = tokio::spawn(background);
        let request = DnsRequest::new(message, DnsRequestOptions::default());
        let answer = timeout(PATIENCE, client.send(request).first_answer()).await;
        background.abort();
        match answer {
            Err(_) | Ok(Err(NetError::Timeout | NetError::Io(_))) => {
                Err(UpdateError::Silent(self.server))
            }
            Ok(Ok(response)) => Ok(response.response_code),
            Ok(Err(error)) => Err(from_error(&error)),
        }
    }

    fn refused(&self, code: ResponseCode) -> UpdateError {
        match code {
            ResponseCode::Refused => UpdateError::Refused,
            ResponseCode::NotZone => UpdateError::NotItsZone(self.zone()),
            ResponseCode::NotAuth
            | ResponseCode::BADSIG
            | ResponseCode::BADKEY
            | ResponseCode::BADTIME => UpdateError::KeyRejected,
            other => UpdateError::Answer(other.to_string()),
        }
    }
}

impl Names {
    fn all(&self) -> impl Iterator<Item = &Name> {
        let instances = self.instances.iter().map(|(_, instance)| instance);
        instances.chain([&self.host])
    }
}

/// An answer that is not signed as it should be comes from a server that did not take our key; the
/// library speaks of "truncated HMACs" then.
fn from_error(error: &NetError) -> UpdateError {
    let text = error.to_string();
    let about_key = ["TSIG", "tsig", "HMAC"]
        .iter()
        .any(|word| text.contains(word));
    if about_key {
        UpdateError::KeyRejected
    } else {
        UpdateError::Answer(text)
    }
}

/// Removes all that we may have published earlier.
fn clear(message: &mut Message, names: &Names) {
    for (service, instance) in &names.instances {
        let mut pointer = Record::from_rdata(service.clone(), 0, RData::PTR(PTR(instance.clone())));
        pointer.dns_class = DNSClass::NONE;
        message.add_update(pointer);
    }
    for name in names.all() {
        let mut all = Record::update0(name.clone(), 0, RecordType::ANY);
        all.dns_class = DNSClass::ANY;
        message.add_update(all);
    }
}

/// The record that says whose the names are.
fn mark(listing: &Listing) -> RData {
    RData::TXT(TXT::new(vec![format!("landbridge={}", listing.cluster_id)]))
}

/// The condition that the mark stands at our host's name (RFC 2136, section 2.4.2).
fn marker(host: &Name, listing: &Listing) -> Record {
    let mut record = Record::from_rdata(host.clone(), 0, mark(listing));
    record.dns_class = DNSClass::IN;
    record
}

/// The condition that a name is not in use (RFC 2136, section 2.4.5).
fn unused(name: &Name) -> Record {
    let mut record = Record::update0(name.clone(), 0, RecordType::ANY);
    record.dns_class = DNSClass::NONE;
    record
}

/// A message's number, by chance.
fn number() -> u16 {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 2];
    // Without chance the number is guessable; the signature protects the update all the same.
    ring::rand::SystemRandom::new().fill(&mut bytes).ok();
    u16::from_be_bytes(bytes)
}
