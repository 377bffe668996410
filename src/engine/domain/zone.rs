//! A zone file that lists a cluster, for people who keep their zone by hand.

use std::{fmt::Write as _, net::IpAddr, str::FromStr};

use super::SERVICE_TYPES;
use crate::{
    api::identity::{ClusterId, ClusterName},
    engine::addresses::{AuthUrl, Host},
};

/// The time to live of the records, in seconds.
pub const TTL: u32 = 60;

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
pub struct Listed {
    /// Its id.
    pub cluster_id: ClusterId,
    /// Its name, possibly empty.
    pub name: ClusterName,
    /// Where its peer endpoint is.
    pub url: AuthUrl,
}

/// Indicates a cluster that cannot be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// Indicates a domain that is none.
    #[error("{0:?} is not the name of a DNS domain")]
    Domain(String),
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

/// Writes the zone of a domain that lists one cluster.
pub fn render(domain: &str, listed: &Listed, style: Style) -> String {
    let id = &listed.cluster_id;
    let port = listed.url.port();
    let (target, address) = match listed.url.host() {
        Host::Name(name) => (format!("{name}."), None),
        Host::Address(address) => (format!("{id}.host"), Some(address)),
    };
    let mut zone = format!(
        "; Lists the cluster {id}. In a zone that exists already, leave SOA and NS out.\n\
         $ORIGIN {domain}.\n\
         $TTL {TTL}\n\
         @ SOA localhost. hostmaster.{domain}. 1 3600 600 86400 {TTL}\n\
         @ NS localhost.\n"
    );
    match style {
        Style::Liqo => {
            line(&mut zone, &format!("@ PTR {id}"));
            line(&mut zone, &format!("{id} SRV 0 0 {port} {target}"));
        }
        Style::Rfc6763 => {
            line(&mut zone, "b._dns-sd._udp PTR @");
            for kind in SERVICE_TYPES {
                line(&mut zone, &format!("_services._dns-sd._udp PTR {kind}"));
                line(&mut zone, &format!("{kind} PTR {id}.{kind}"));
                line(&mut zone, &format!("{id}.{kind} SRV 0 0 {port} {target}"));
                let text = texts(listed).join(" ");
                line(&mut zone, &format!("{id}.{kind} TXT {text}"));
            }
        }
    }
    match address {
        Some(IpAddr::V4(address)) => line(&mut zone, &format!("{target} A {address}")),
        Some(IpAddr::V6(address)) => line(&mut zone, &format!("{target} AAAA {address}")),
        None => {}
    }
    zone
}

fn line(zone: &mut String, text: &str) {
    writeln!(zone, "{text}").expect("writing to a string cannot fail");
}

/// The strings of the TXT record, quoted (RFC 1035, section 5.1).
fn texts(listed: &Listed) -> Vec<String> {
    let mut pairs = vec![
        "v=1".to_owned(),
        format!("id={}", listed.cluster_id.as_str()),
    ];
    if !listed.name.as_str().is_empty() {
        pairs.push(format!("name={}", listed.name));
    }
    pairs.iter().map(|pair| quoted(pair)).collect()
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
