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
        rdata::{
            A, AAAA, PTR, SRV, TLSA, TXT,
            tlsa::{CertUsage, Matching, Selector},
        },
    },
};
use tokio::time::timeout;

use super::Key;
use crate::{
    api::identity::{ClusterId, Fingerprint},
    discovery::dns::text,
    engine::domain::zone::{APEX, Data, Listing, Style, TTL, ZoneRecord},
};

mod janitor;

/// How long the server has for one update.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it has to say what stands in the zone.
const LOOK: Duration = Duration::from_secs(1);
/// How the text begins that says whose the names are.
const MARK: &str = "landbridge=";

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
pub(super) fn zone_name(zone: &str) -> Option<Name> {
    let mut name = Name::from_utf8(zone).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then(|| name.to_lowercase())
}

/// Publishes in one zone.
#[derive(Debug, Clone)]
pub struct Publisher {
    zone: Name,
    server: SocketAddr,
    key: Key,
    style: Style,
    machine: Option<String>,
}

/// What an update came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The zone says what was asked for.
    Made,
    /// The condition does not hold, so nothing was changed.
    NotAsRequired,
}

/// The names under which a cluster is listed, in whatever style.
struct Names {
    host: Name,
    /// The names that are its alone, the host's included.
    own: Vec<Name>,
    /// Its entries in lists that it shares with others.
    pointers: Vec<(Name, Name)>,
}

impl Publisher {
    pub(super) fn new(zone: Name, server: SocketAddr, key: Key, style: Style) -> Self {
        Self {
            zone,
            server,
            key,
            style,
            machine: None,
        }
    }

    /// Returns the zone.
    pub(super) fn zone_text(&self) -> String {
        text(&self.zone)
    }

    /// Lets the publisher find again what an earlier identity of the same machine has left.
    #[must_use]
    pub fn on_machine(mut self, mark: Option<String>) -> Self {
        self.machine = mark;
        self
    }

    /// Makes the zone say what the listing says: creates our records, or replaces them when they
    /// are ours. What we published earlier and is not true any more goes in the same step.
    pub async fn publish(&self, listing: &Listing) -> Result<(), UpdateError> {
        self.publish_records(listing).await?;
        if let Some(mark) = &self.machine
            && let Err(error) = janitor::sweep(self, listing, mark).await
        {
            let zone = text(&self.zone);
            tracing::debug!(zone, %error, "What an earlier identity may have left was not looked for");
        }
        Ok(())
    }

    async fn publish_records(&self, listing: &Listing) -> Result<(), UpdateError> {
        let names = self.present_names(listing).await?;
        // Without the mark it is the first time, or somebody removed it.
        if self.replace(listing, &names).await? == Outcome::Made {
            return Ok(());
        }
        let mut create = self.message();
        for name in &names.own {
            create.add_pre_requisite(unused(name));
        }
        self.add_all(&mut create, listing)?;
        // A creation whose answer got lost stands in its own way when it is sent again.
        if self.send(create).await? == Outcome::Made
            || self.replace(listing, &names).await? == Outcome::Made
        {
            return Ok(());
        }
        Err(UpdateError::InUse(text(&names.host)))
    }

    /// Makes the records say what the listing says where our mark stands.
    async fn replace(&self, listing: &Listing, names: &Names) -> Result<Outcome, UpdateError> {
        let mut replace = self.message();
        replace.add_pre_requisite(self.marker(&listing.cluster_id)?);
        clear(&mut replace, names);
        self.add_all(&mut replace, listing)?;
        self.send(replace).await
    }

    /// Takes our records out of the zone, if they are ours.
    pub async fn withdraw(&self, listing: &Listing) -> Result<(), UpdateError> {
        self.withdraw_records(listing).await?;
        if let Some(mark) = &self.machine
            && let Err(error) = janitor::forget(self, &listing.cluster_id, mark).await
        {
            tracing::debug!(%error, "The machine's own list in the zone was not updated");
        }
        Ok(())
    }

    async fn withdraw_records(&self, listing: &Listing) -> Result<(), UpdateError> {
        let mut message = self.message();
        message.add_pre_requisite(self.marker(&listing.cluster_id)?);
        clear(&mut message, &self.present_names(listing).await?);
        // Without the mark nothing of ours is there.
        self.send(message).await.map(drop)
    }

    /// Returns a name below the zone; absolute names stay as they are.
    fn name(&self, text: &str) -> Result<Name, UpdateError> {
        let too_long = || UpdateError::TooLong(self::text(&self.zone));
        if text == APEX {
            return Ok(self.zone.clone());
        }
        let name = Name::from_ascii(text).map_err(|_| too_long())?;
        if name.is_fqdn() {
            return Ok(name);
        }
        name.append_domain(&self.zone).map_err(|_| too_long())
    }

    fn names(&self, listing: &Listing) -> Result<Names, UpdateError> {
        let host = self.name(&listing.host())?;
        let mut names = Names {
            own: vec![host.clone()],
            host,
            pointers: Vec::new(),
        };
        for style in [Style::Rfc6763, Style::Liqo] {
            for record in listing.records(style) {
                let owner = self.name(&record.owner)?;
                match record.data {
                    Data::Pointer(to) => names.pointers.push((owner, self.name(&to)?)),
                    Data::Service(..) | Data::Text(_) | Data::Address(_) | Data::Key(_) => {
                        if !names.own.contains(&owner) {
                            names.own.push(owner);
                        }
                    }
                }
            }
        }
        Ok(names)
    }

    /// The same, with the names that only what stands in the zone at present leads to: a run that ended
    /// without a farewell may have had another port.
    async fn present_names(&self, listing: &Listing) -> Result<Names, UpdateError> {
        let mut names = self.names(listing)?;
        let keys = timeout(LOOK, janitor::keys(self, &listing.cluster_id)).await;
        if let Ok(Ok(keys)) = keys {
            names.own.extend(keys);
        } else {
            let zone = text(&self.zone);
            tracing::debug!(zone, "What was published earlier was not looked for");
        }
        names.own.sort_unstable();
        names.own.dedup();
        Ok(names)
    }

    /// Adds all records of a cluster, and the mark that says whose they are.
    fn add_all(&self, message: &mut Message, listing: &Listing) -> Result<(), UpdateError> {
        for ZoneRecord { owner, data } in listing.records(self.style) {
            let data = match data {
                Data::Pointer(to) => RData::PTR(PTR(self.name(&to)?)),
                Data::Service(port, host) => RData::SRV(SRV::new(0, 0, port, self.name(&host)?)),
                Data::Text(texts) => RData::TXT(TXT::new(texts)),
                Data::Address(IpAddr::V4(v4)) => RData::A(A(v4)),
                Data::Address(IpAddr::V6(v6)) => RData::AAAA(AAAA(v6)),
                Data::Key(key) => RData::TLSA(tlsa(&key)),
            };
            message.add_update(Record::from_rdata(self.name(&owner)?, TTL, data));
        }
        let host = self.name(&listing.host())?;
        message.add_update(Record::from_rdata(host, TTL, mark(&listing.cluster_id)));
        Ok(())
    }

    /// The condition that the mark of a cluster stands at its host's name (RFC 2136, section 2.4.2).
    fn marker(&self, id: &ClusterId) -> Result<Record, UpdateError> {
        let host = self.name(&format!("{id}.host"))?;
        let mut record = Record::from_rdata(host, 0, mark(id));
        record.dns_class = DNSClass::IN;
        Ok(record)
    }

    fn message(&self) -> Message {
        let mut message = Message::new(number(), MessageType::Query, OpCode::Update);
        message.add_zone(Query::query(self.zone.clone(), RecordType::SOA));
        message
    }

    async fn send(&self, message: Message) -> Result<Outcome, UpdateError> {
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
            Ok(Ok(response)) => self.outcome(&response),
            Ok(Err(error)) => Err(from_error(&error)),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the codes are many, and those without a name here are told alike"
    )]
    fn outcome(&self, response: &Message) -> Result<Outcome, UpdateError> {
        use ResponseCode as Code;
        let signature = response.signature();
        let is_key_at_fault = signature.is_none_or(|it| it.data.error.is_some());
        match response.response_code {
            Code::NoError => Ok(Outcome::Made),
            Code::NXRRSet | Code::NXDomain | Code::YXRRSet | Code::YXDomain => {
                Ok(Outcome::NotAsRequired)
            }
            Code::Refused => Err(UpdateError::Refused),
            Code::NotZone => Err(UpdateError::NotItsZone(text(&self.zone))),
            // It is said of the zone and of the key (RFC 2136, section 3.1; RFC 8945, section 5.2).
            Code::NotAuth if !is_key_at_fault => Err(UpdateError::NotItsZone(text(&self.zone))),
            Code::NotAuth | Code::BADSIG | Code::BADKEY | Code::BADTIME => {
                Err(UpdateError::KeyRejected)
            }
            other => Err(UpdateError::Answer(other.to_string())),
        }
    }
}

/// An answer that is not signed as it should be comes from a server that did not take our key; the
/// library speaks of "truncated HMACs" then.
fn from_error(error: &NetError) -> UpdateError {
    let said = error.to_string();
    let about_key = ["TSIG", "tsig", "HMAC"]
        .iter()
        .any(|word| said.contains(word));
    if about_key {
        UpdateError::KeyRejected
    } else {
        UpdateError::Answer(said)
    }
}

/// Removes all that we may have published earlier.
fn clear(message: &mut Message, names: &Names) {
    for (list, entry) in &names.pointers {
        message.add_update(without(list, RData::PTR(PTR(entry.clone()))));
    }
    for name in &names.own {
        let mut all = Record::update0(name.clone(), 0, RecordType::ANY);
        all.dns_class = DNSClass::ANY;
        message.add_update(all);
    }
}

/// The removal of one record of several (RFC 2136, section 2.5.4).
fn without(owner: &Name, data: RData) -> Record {
    let mut record = Record::from_rdata(owner.clone(), 0, data);
    record.dns_class = DNSClass::NONE;
    record
}

/// The record that says whose the names are.
fn mark(id: &ClusterId) -> RData {
    RData::TXT(TXT::new(vec![format!("{MARK}{id}")]))
}

/// Says that what is shown at a port leads to a key.
fn tlsa(key: &Fingerprint) -> TLSA {
    let digest = key.to_digest();
    TLSA::new(CertUsage::DaneTa, Selector::Spki, Matching::Sha256, digest)
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
