//! Dialling: which addresses, in what order, and the handshake.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use rustls::{CertificateError, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;

use super::{ConnectError, Connection, Connector, Target, transport};
use crate::{
    engine::addresses::{AuthUrl, Host, OwnNetworks, judge, normalise},
    peer::{
        certificates::{self, Proven},
        tls::{Credentials, EXPORTER_LABEL, client_config},
    },
};

/// How long each of resolving, connecting and the handshake may take.
const STEP_TIME: Duration = Duration::from_secs(2);
/// How many targets are dialled at once: all places of the eight candidates that are asked at the
/// same time, since those that are silent must not hold up the others.
const PROBES: usize = 8 * 16;
/// How long a target waits for its turn.
const TURN_TIME: Duration = Duration::from_secs(20);
/// How many addresses of one target are tried.
const ADDRESSES: usize = 8;
/// How far apart they are started (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Connects over TCP and TLS 1.3 with our credentials.
#[derive(Debug)]
pub struct TlsConnector {
    credentials: Arc<Credentials>,
    own: watch::Receiver<OwnNetworks>,
    probes: Semaphore,
}

impl TlsConnector {
    /// Makes a connector that dials what the address policy allows from the given networks.
    pub fn new(credentials: Arc<Credentials>, own: watch::Receiver<OwnNetworks>) -> Self {
        Self {
            credentials,
            own,
            probes: Semaphore::new(PROBES),
        }
    }

    async fn connect_to(&self, target: &Target) -> Result<Connection, ConnectError> {
        let url: AuthUrl = target
            .url
            .parse()
            .map_err(|error| refused(target.url.clone(), &error))?;
        let turn = timeout(TURN_TIME, self.probes.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(late(url.to_string(), "get its turn"));
        };
        let candidates = self.candidates(target, &url).await?;
        let mut tries: FuturesUnordered<_> = (0_u32..)
            .zip(candidates)
            .map(|(index, address)| {
                let url = &url;
                async move {
                    sleep(STAGGER * index).await;
                    self.try_address(address, url, target).await
                }
            })
            .collect();
        let mut worst: Option<ConnectError> = None;
        while let Some(tried) = tries.next().await {
            match tried {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    tracing::debug!(%error, "Address did not lead to the peer");
                    if worst
                        .as_ref()
                        .is_none_or(|worst| rank(&error) > rank(worst))
                    {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(worst.unwrap_or_else(|| ConnectError::Unreachable {
            address: url.to_string(),
            detail: "no address was found".to_owned(),
        }))
    }

    /// Returns the addresses that may be dialled; the host is resolved at most once.
    async fn candidates(
        &self,
        target: &Target,
        url: &AuthUrl,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let found = match url.host() {
            _ if !target.addresses.is_empty() => target.addresses.clone(),
            Host::Address(ip) => vec![SocketAddr::new(*ip, url.port())],
            Host::Name(name) => resolve(name, url).await?,
        };
        let own = self.own.borrow().clone();
        let mut refusal = None;
        let mut allowed = Vec::new();
        for address in found.into_iter().map(normalise) {
            match judge(address, target.source, &own) {
                Ok(()) if allowed.len() < ADDRESSES && !allowed.contains(&address) => {
                    allowed.push(address);
                }
                Ok(()) => {}
                Err(reason) => refusal = Some(refused(address.to_string(), &reason)),
            }
        }
        match refusal {
            Some(refusal) if allowed.is_empty() => Err(refusal),
            _ => Ok(allowed),
        }
    }

    async fn try_address(
        &self,
        address: SocketAddr,
        url: &AuthUrl,
        target: &Target,
    ) -> Result<Connection, ConnectError> {
        let place = address.to_string();
        let stream = timeout(STEP_TIME, TcpStream::connect(address))
            .await
            .map_err(|_| late(place.clone(), "accept a connection"))?
            .map_err(|error| unreachable(&place, &error))?;
        // Requests are small and somebody waits for each.
        stream
            .set_nodelay(true)
            .map_err(|error| unreachable(&place, &error))?;
        let (stream, proven) = self.handshake(stream, &place, url, target).await?;
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0_u8; 32], EXPORTER_LABEL, None)
            .map_err(|error| not_a_peer(&place, &error))?;
        let (http, closed) = transport::start(stream, &url.authority()).await?;
        Ok(Connection::new(proven, exporter, Some(address), http).closed_by(closed))
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        place: &str,
        url: &AuthUrl,
        target: &Target,
    ) -> Result<(TlsStream<TcpStream>, Proven), ConnectError> {
        let (config, finding) = client_config(&self.credentials, target.expect.clone())
            .map_err(|error| not_a_peer(place, &error))?;
        let name = match url.host() {
            Host::Address(ip) => ServerName::from(*ip),
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|error| refused(name.clone(), &error))?
            }
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let shaken = timeout(STEP_TIME, connector.connect(name, stream))
            .await
            .map_err(|_| late(place.to_owned(), "finish the TLS handshake"))?;
        let found = finding.get().cloned();
        match (shaken, found) {
            (Ok(stream), Some(proven)) => Ok((stream, proven)),
            (Ok(_), None) => Err(not_a_peer(place, &"it showed no certificate")),
            (Err(error), None) if is_bad_signature(&error) => {
                let claimed = finding.claimed().map(|claimed| claimed.cluster_id.clone());
                Err(
                    match claimed.filter(|claimed| target.expect.as_ref() == Some(claimed)) {
                        Some(claimed) => ConnectError::KeyNotHeld { claimed },
                        None => not_a_peer(place, &error),
                    },
                )
            }
            (Err(error), found) => Err(self.why(&error, found, place, target)),
        }
    }

    /// Tells why a handshake failed: the wrong cluster proved itself, or nobody did.
    fn why(
        &self,
        error: &std::io::Error,
        found: Option<Proven>,
        place: &str,
        target: &Target,
    ) -> ConnectError {
        if let Some(found) = found {
            if found.cluster_id == *self.credentials.identity().cluster_id() {
                return ConnectError::OwnIdentity;
            }
            if let Some(expected) = &target.expect
                && *expected != found.cluster_id
            {
                return ConnectError::IdentityMismatch {
                    expected: expected.clone(),
                    found: found.cluster_id,
                };
            }
        }
        // rustls reports what it cannot understand or accept as invalid data.
        if let Some(reason) = refused_chain(error) {
            not_a_peer(place, reason)
        } else if error.kind() == std::io::ErrorKind::InvalidData {
            not_a_peer(place, error)
        } else {
            unreachable(place, error)
        }
    }
}

impl Connector for TlsConnector {
    fn connect<'a>(
        &'a self,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(self.connect_to(target))
    }
}

async fn resolve(name: &str, url: &AuthUrl) -> Result<Vec<SocketAddr>, ConnectError> {
    let place = url.to_string();
    let found = timeout(STEP_TIME, tokio::net::lookup_host((name, url.port())))
        .await
        .map_err(|_| late(place.clone(), "resolve"))?
        .map_err(|error| unreachable(&place, &error))?;
    Ok(found.collect())
}

/// Finds out why our own verifier did not take a chain.
fn refused_chain(error: &std::io::Error) -> Option<&certificates::Error> {
    let Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) =
        error.get_ref()?.downcast_ref::<rustls::Error>()
    else {
        return None;
    };
    other.0.downcast_ref()
}

/// Whether the signature of the handshake was not made with the key of the chain.
fn is_bad_signature(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(
        error,
        Some(rustls::Error::InvalidCertificate(
            CertificateError::BadSignature
        ))
    )
}

/// Ranks what several addresses said: the most telling answer is reported.
fn rank(error: &ConnectError) -> u8 {
    match error {
        ConnectError::Unreachable { .. } => 0,
        ConnectError::Timeout { .. } => 1,
        ConnectError::AddressRefused { .. } => 2,
        ConnectError::Busy { .. } => 3,
        ConnectError::NotAPeer { .. } => 4,
        ConnectError::OwnIdentity => 5,
        ConnectError::IdentityMismatch { .. } | ConnectError::KeyNotHeld { .. } => 6,
    }
}

fn refused(address: String, detail: &dyn std::fmt::Display) -> ConnectError {
    ConnectError::AddressRefused {
        address,
        detail: detail.to_string(),
    }
}

fn unreachable(address: &str, error: &std::io::Error) -> ConnectError {
    ConnectError::Unreachable {
        address: address.to_owned(),
        detail: error.to_string(),
    }
}

fn not_a_peer(address: &str, detail: &dyn std::fmt::Display) -> ConnectError {
    ConnectError::NotAPeer {
        address: address.to_owned(),
        detail: detail.to_string(),
    }
}

fn late(address: String, step: &'static str) -> ConnectError {
    ConnectError::Timeout { address, step }
}
