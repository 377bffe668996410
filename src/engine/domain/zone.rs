//! The records that list a cluster in a zone, and a zone file of them for people who keep their zone
//! by hand.

use std::{fmt::Write as _, net::IpAddr, str::FromStr};

use super::SERVICE_TYPES;
use crate::{
    api::identity::{ClusterId, ClusterName, Fingerprint},
    engine::addresses::{AuthUrl, Host},
};

/// The time to live of the records, in seconds.
pub const TTL: u32 = 60;
/// The owner of the records at the zone itself (RFC 1035, section 5.1).
pub const APEX: &str = "@";

/// How a domain lists its clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As Liqo 0.2 reads it: PTR records at the domain itself.
    Liqo,
    /// As DNS-SD asks (RFC 6763): service types, instances, TXT records.
    Rfc6763,
}

/// A cluster to be listed.
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
    /// A URL to name instead of port and addresses.
    pub advertise: Option<AuthUrl>,
    /// The fingerprint of its key, for the readers of a signed zone.
    pub key: Option<Fingerprint>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneRecord {
    /// Its name below the zone, or [`APEX`].
    pub owner: String,
    /// What it says.
    pub data: Data,
}

/// What a record says. Names without a final dot are below the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Another name.
    Pointer(String),
    /// Port and host, with priority and weight zero.
    Service(u16, String),
    /// Strings of at most 255 bytes.
    Text(Vec<String>),
    /// An address of either family.
    Address(IpAddr),
    /// The key that signs what the service at a port shows: DANE-TA, SPKI, SHA-256 (RFC 6698,
    /// section 2.1).
    Key(Fingerprint),
}

/// Indicates a cluster that cannot be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// Indicates a domain that is none.
    #[error("{0:?} is not the name of a DNS domain")]
    Domain(String),
    /// Indicates a daemon that does not say who it is.
    #[error("the daemon does not say who it is: {0}")]
    Identity(String),
    /// Indicates a peer endpoint that has no place in a zone.
    #[error("the peer endpoint {0:?} cannot be listed: {1}")]
    Url(String, crate::engine::addresses::UrlError),
}

/// Reads the URL of a peer endpoint.
pub fn url(text: &str) -> Result<AuthUrl, ZoneError> {
    AuthUrl::from_str(text).map_err(|error| ZoneError::Url(text.to_owned(), error))
}

/// Reads the name of a domain: lower-case, without a final dot.
pub fn domain(text: &str) -> Result<String, ZoneError> {
    match AuthUrl::from_str(&format!("https://{text}")).map(|url| url.host().clone()) {
        Ok(Host::Name(name)) => Ok(name),
        Ok(Host::Address(_)) | Err(_) => Err(ZoneError::Domain(text.to_owned())),
    }
}

impl Listing {
    /// Returns the records that list the cluster.
    pub fn records(&self, style: Style) -> Vec<ZoneRecord> {
        let mut records = Vec::new();
        let mut add = |owner: &str, data| {
            let owner = owner.to_owned();
            records.push(ZoneRecord { owner, data });
        };
        let (id, target) = (self.cluster_id.as_str(), self.target());
        let service = || Data::Service(self.port(), target.clone());
        match style {
            Style::Liqo => {
                add(APEX, Data::Pointer(id.to_owned()));
                add(id, service());
            }
            Style::Rfc6763 => {
                for kind in SERVICE_TYPES {
                    let instance = format!("{id}.{kind}");
                    add(kind, Data::Pointer(instance.clone()));
                    add(&instance, service());
                    add(&instance, Data::Text(self.texts()));
                }
            }
        }
        for address in self.addresses() {
            add(&target, Data::Address(address));
        }
        // At a name that is not ours alone somebody else may keep a record of this type.
        if let Some(key) = self.key.as_ref().filter(|_| target == self.host()) {
            add(&self.key_owner(), Data::Key(key.clone()));
        }
        records
    }

    /// Returns the name of the record that has the key (RFC 6698, section 3).
    fn key_owner(&self) -> String {
        format!("_{}._tcp.{}", self.port(), self.target())
    }

    /// Returns the name of the host below the zone, whether it has addresses or not.
    pub fn host(&self) -> String {
        format!("{}.host", self.cluster_id)
    }

    /// Returns the port of the peer endpoint.
    pub fn port(&self) -> u16 {
        self.advertise.as_ref().map_or(self.port, AuthUrl::port)
    }

    /// Returns the name that SRV records point to.
    pub fn target(&self) -> String {
        match self.advertise.as_ref().map(AuthUrl::host) {
            Some(Host::Name(name)) => format!("{name}."),
            Some(Host::Address(_)) | None => self.host(),
        }
    }

    /// Returns the addresses of our host's name: none when another name is pointed to.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self.advertise.as_ref().map(AuthUrl::host) {
            Some(Host::Name(_)) => Vec::new(),
            Some(Host::Address(address)) => vec![*address],
            None => self.addresses.clone(),
        }
    }

    /// The strings of the TXT record.
    fn texts(&self) -> Vec<String> {
        let mut pairs = vec!["v=1".to_owned(), format!("id={}", self.cluster_id)];
        if !self.name.as_str().is_empty() {
            pairs.push(format!("name={}", self.name));
        }
        pairs
    }
}

/// Writes the zone of a domain that lists one cluster.
pub fn render(domain: &str, listing: &Listing, style: Style) -> String {
    let id = &listing.cluster_id;
    let mut zone = format!(
        "; Lists the cluster {id}. In a zone that exists already, leave SOA and NS out.\n\
         $ORIGIN {domain}.\n\
         $TTL {TTL}\n\
         @ SOA localhost. hostmaster.{domain}. 1 3600 600 86400 {TTL}\n\
         @ NS localhost.\n"
    );
    if style == Style::Rfc6763 {
        line(&mut zone, "b._dns-sd._udp PTR @");
        for kind in SERVICE_TYPES {
            line(&mut zone, &format!("_services._dns-sd._udp PTR {kind}"));
        }
    }
    for ZoneRecord { owner, data } in listing.records(style) {
        let (kind, value) = (data.kind(), data.presentation());
        line(&mut zone, &format!("{owner} {kind} {value}"));
    }
    if let Some(key) = listing
        .key
        .as_ref()
        .filter(|_| listing.target() != listing.host())
    {
        let owner = listing.key_owner();
        let is_here = owner.ends_with(&format!(".{domain}."));
        let mark = if is_here {
            ""
        } else {
            "; in the zone of that name: "
        };
        let value = Data::Key(key.clone()).presentation();
        line(&mut zone, &format!("{mark}{owner} TLSA {value}"));
    }
    zone
}

fn line(zone: &mut String, text: &str) {
    writeln!(zone, "{text}").expect("writing to a string cannot fail");
}

impl Data {
    /// Returns the name of its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pointer(_) => "PTR",
            Self::Service(..) => "SRV",
            Self::Text(_) => "TXT",
            Self::Address(IpAddr::V4(_)) => "A",
            Self::Address(IpAddr::V6(_)) => "AAAA",
            Self::Key(_) => "TLSA",
        }
    }

    /// Writes it as zone files do (RFC 1035, section 5.1).
    pub fn presentation(&self) -> String {
        match self {
            Self::Pointer(name) => name.clone(),
            Self::Service(port, host) => format!("0 0 {port} {host}"),
            Self::Text(texts) => {
                let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                quoted.join(" ")
            }
            Self::Address(address) => address.to_string(),
            Self::Key(key) => format!("2 1 1 {}", key.digits()),
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                quoted.push('\\');
                quoted.push(char::from(byte));
            }
            b' '..=b'~' => quoted.push(char::from(byte)),
            other => write!(quoted, "\\{other:03}").expect("writing to a string cannot fail"),
        }
    }
    quoted.push('"');
    quoted
}
