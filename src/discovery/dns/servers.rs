//! The name servers that are asked: those of the settings, else the machine's.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use hickory_proto::dnssec::TrustAnchors;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    system_conf::read_system_conf,
};
use rustls::{ClientConfig, RootCertStore};

/// How long one server has for one question, TCP after a truncated answer included.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most servers that are asked.
const LIMIT: usize = 8;
/// The port of DNS over TLS (RFC 7858).
const TLS_PORT: u16 = 853;
/// The port of DNS.
const PORT: u16 = 53;

/// Indicates that no name server can be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServersError {
    /// Indicates a text that names no server.
    #[error("{0:?} is not a name server: write an address, address:port or tls://address#name")]
    Syntax(String),
    /// Indicates that the machine knows no server.
    #[error("this machine names no name server ({0}): set dns.servers")]
    System(String),
    /// Indicates that the resolver did not start.
    #[error("the resolver cannot start: {0}")]
    Resolver(String),
}

/// A name server whose signatures are followed.
pub(super) struct Validator {
    /// Takes its word.
    pub(super) plain: TokioResolver,
    /// Follows signatures to the keys that are trusted.
    pub(super) following: TokioResolver,
}

/// Which name servers are asked.
#[derive(Clone, Default)]
pub struct Servers {
    named: Vec<Server>,
    /// The keys that signatures are followed to; that of the root when left out.
    anchors: Option<Arc<TrustAnchors>>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Servers").field(&self.named).finish()
    }
}

/// One name server of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    address: SocketAddr,
    /// The name in its certificate, when it is asked over TLS.
    tls: Option<String>,
}

/// Where a name server is, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    address: IpAddr,
    /// The name in its certificate, when it is asked over TLS.
    tls: Option<String>,
}

impl Place {
    fn of(server: &NameServerConfig) -> Self {
        let tls = server
            .connections
            .iter()
            .find_map(|connection| match &connection.protocol {
                ProtocolConfig::Tls { server_name } => Some(server_name.to_string()),
                ProtocolConfig::Udp | ProtocolConfig::Tcp => None,
            });
        let address = server.ip;
        Self { address, tls }
    }

    /// Says that there is no way to it. The library does not tell a closed port from a certificate
    /// that it does not accept.
    pub(super) fn unreachable(&self) -> String {
        match &self.tls {
            None => format!("the name server {self} cannot be reached"),
            Some(name) => format!(
                "the name server {self} cannot be reached over TLS: its certificate must be valid for {name} and of an authority that this machine trusts (SSL_CERT_FILE names another)"
            ),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(formatter)
    }
}

impl Servers {
    /// Reads the servers of the settings; the machine's are asked when there are none.
    pub fn parse(texts: &[String]) -> Result<Self, ServersError> {
        let named = texts.iter().map(|text| text.parse());
        Ok(Self {
            named: named.collect::<Result<_, _>>()?,
            anchors: None,
        })
    }

    /// Reads the address of one server that is asked without TLS.
    pub(in crate::discovery) fn address_of(text: &str) -> Result<SocketAddr, ServersError> {
        let server: Server = text.parse()?;
        match server.tls {
            None => Ok(server.address),
            Some(_) => Err(ServersError::Syntax(text.to_owned())),
        }
    }

    /// Starts a resolver for each server. The machine's servers are read anew each time, since a
    /// laptop meets others in every network.
    pub(super) fn resolvers(&self) -> Result<Vec<(Place, TokioResolver)>, ServersError> {
        self.configs()?
            .into_iter()
            .map(|server| Ok((Place::of(&server), start(server, None)?)))
            .collect()
    }

    /// Starts a resolver that follows signatures at each server.
    pub(super) fn validators(&self) -> Vec<Validator> {
        let anchors = self.anchors.clone().unwrap_or_default();
        let servers = self.configs().unwrap_or_default().into_iter();
        let started = servers.filter_map(|server| {
            Some(Validator {
                plain: start(server.clone(), None).ok()?,
                following: start(server, Some(Arc::clone(&anchors))).ok()?,
            })
        });
        started.collect()
    }

    /// Trusts these keys instead of that of the root.
    #[must_use]
    pub fn with_trust_anchors(mut self, anchors: Arc<TrustAnchors>) -> Self {
        self.anchors = Some(anchors);
        self
    }

    /// Tells whether other keys than that of the root are trusted.
    pub(super) fn has_anchors(&self) -> bool {
        self.anchors.is_some()
    }

    fn configs(&self) -> Result<Vec<NameServerConfig>, ServersError> {
        let mut servers: Vec<NameServerConfig> = if self.named.is_empty() {
            let system = read_system_conf()
                .map_err(|error: NetError| ServersError::System(error.to_string()))?;
            system.0.name_servers
        } else {
            self.named.iter().map(Server::config).collect()
        };
        if servers.is_empty() {
            return Err(ServersError::System("it lists none".to_owned()));
        }
        servers.truncate(LIMIT);
        Ok(servers)
    }
}

fn start(
    mut server: NameServerConfig,
    anchors: Option<Arc<TrustAnchors>>,
) -> Result<TokioResolver, ServersError> {
    // With several servers, another one may know a name that this one does not.
    server.trust_negative_responses = false;
    let failed = |error: &dyn fmt::Display| ServersError::Resolver(error.to_string());
    let is_tls = Place::of(&server).tls.is_some();
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = PATIENCE;
    options.attempts = 0;
    options.try_tcp_on_error = true;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    if let Some(anchors) = anchors {
        builder = builder.with_trust_anchor(anchors);
    }
    if !is_tls {
        builder = builder.with_tls_config(trusting_nobody().map_err(|error| failed(&error))?);
    }
    builder.build().map_err(|error| failed(&error))
}

/// What a server that is not asked over TLS needs of it: nothing, nor that this machine knows an
/// authority.
fn trusting_nobody() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    Ok(builder
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

impl Server {
    fn config(&self) -> NameServerConfig {
        let connections = match &self.tls {
            Some(name) => vec![ConnectionConfig::tls(name.as_str().into())],
            None => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
        };
        let connections = connections.into_iter().map(|mut connection| {
            connection.port = self.address.port();
            connection
        });
        NameServerConfig::new(self.address.ip(), false, connections.collect())
    }
}

impl FromStr for Server {
    type Err = ServersError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ServersError::Syntax(text.chars().take(80).collect());
        let (place, tls) = match text.strip_prefix("tls://") {
            Some(rest) => {
                let (place, name) = rest.split_once('#').unwrap_or((rest, ""));
                (place, Some(name))
            }
            None => (text, None),
        };
        let port = if tls.is_some() { TLS_PORT } else { PORT };
        let bare = place.trim_start_matches('[').trim_end_matches(']');
        let address = bare
            .parse::<IpAddr>()
            .map(|ip| SocketAddr::new(ip, port))
            .or_else(|_| place.parse())
            .map_err(|_| wrong())?;
        if address.port() == 0 {
            return Err(wrong());
        }
        let tls = tls.map(|name| match name {
            "" => address.ip().to_string(),
            name => name.to_owned(),
        });
        Ok(Self { address, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_or_without_port_or_tls() {
        let table = [
            ("10.0.0.1", "10.0.0.1:53", None),
            ("10.0.0.1:5300", "10.0.0.1:5300", None),
            ("2001:db8::1", "[2001:db8::1]:53", None),
            ("[2001:db8::1]", "[2001:db8::1]:53", None),
            ("[2001:db8::1]:5300", "[2001:db8::1]:5300", None),
            ("tls://10.0.0.1", "10.0.0.1:853", Some("10.0.0.1")),
            (
                "tls://10.0.0.1:8853#dns.example",
                "10.0.0.1:8853",
                Some("dns.example"),
            ),
        ];
        for (text, address, tls) in table {
            let server: Server = text.parse().expect(text);
            assert_eq!(server.address.to_string(), address, "{text}");
            assert_eq!(server.tls.as_deref(), tls, "{text}");
        }
    }

    #[test]
    fn anything_else_is_named_in_the_error() {
        for text in [
            "",
            "ns.example.com",
            "10.0.0.1:0",
            "tls://",
            "udp://10.0.0.1",
        ] {
            let error = Servers::parse(&[text.to_owned()]).expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
