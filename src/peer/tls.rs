//! TLS 1.3 between clusters: what we show, and how what others show is verified.
//!
//! No name, date or authority is asked for. The key is the identity: the chain must lead to it, and
//! the signature of the handshake must be made with the leaf's key.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use jiff::Timestamp;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError,
    ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use super::certificates::{
    Error, Identity, Leaf, Proven, is_within_validity, leaf_key, verify_chain,
};
use crate::api::identity::ClusterId;

/// The label under which both ends derive the same 32 bytes from a session (RFC 8446, section 7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-landbridge-peer";

/// HTTP/2 first, HTTP/1.1 for whoever has nothing newer (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The signatures that a handshake may carry.
const SCHEMES: [SignatureScheme; 2] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
];

/// Our identity and the leaf in use, shared by the listener and every connection we make.
#[derive(Debug)]
pub struct Credentials {
    identity: Arc<Identity>,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    leaf: Leaf,
    certified: Arc<CertifiedKey>,
}

impl Credentials {
    /// Makes the first leaf of an identity.
    pub fn new(identity: Arc<Identity>, now: Timestamp) -> Result<Arc<Self>, Error> {
        let current = RwLock::new(Current::new(identity.leaf(now)?)?);
        Ok(Arc::new(Self { identity, current }))
    }

    /// Returns the identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Replaces the leaf when it is due, and tells whether it was. To be called once an hour or so.
    pub fn rotate(&self, now: Timestamp) -> Result<bool, Error> {
        let due = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .leaf
            .is_due(now);
        if due {
            let next = Current::new(self.identity.leaf(now)?)?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        }
        Ok(due)
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.certified)
    }
}

impl Current {
    fn new(leaf: Leaf) -> Result<Self, Error> {
        let key = rustls::crypto::ring::sign::any_eddsa_type(&leaf.key)
            .map_err(|_| Error::KeyKind("leaf"))?;
        let certified = Arc::new(CertifiedKey::new(leaf.chain.clone(), key));
        Ok(Self { leaf, certified })
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Makes the configuration of the listener. A client may stay without a certificate, but what it
/// shows must be proven.
pub fn server_config(credentials: &Arc<Credentials>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(ClientProof {
        provider: Arc::clone(&provider),
    });
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Credentials>::clone(credentials);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    // Every session proves itself anew: nothing to steal, nothing that outlives a decision.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Makes the configuration of one connection that we open.
///
/// The handshake fails before we show who we are when the other end is not `expect`, or is
/// ourselves and that was not expected; who it proved to be is then in the returned [`Finding`].
pub fn client_config(
    credentials: &Arc<Credentials>,
    expect: Option<ClusterId>,
) -> Result<(ClientConfig, Arc<Finding>), TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let finding = Arc::new(Finding::default());
    let verifier = Arc::new(ServerProof {
        provider: Arc::clone(&provider),
        own: credentials.identity.cluster_id().clone(),
        expect,
        finding: Arc::clone(&finding),
    });
    let resolver: Arc<dyn ResolvesClientCert> = Arc::<Credentials>::clone(credentials);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(resolver);
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok((config, finding))
}

/// Who the server proved to be in a handshake, also when it was not wanted and the handshake failed.
#[derive(Debug, Default)]
pub struct Finding {
    named: OnceLock<Proven>,
    proven: OnceLock<Proven>,
}

impl Finding {
    /// Returns who answered, once the signature of the handshake has shown it. Nobody can make us
    /// believe in a third cluster, or in a clone of ourselves, by showing a chain that is not theirs.
    pub fn get(&self) -> Option<&Proven> {
        self.proven.get()
    }

    /// Returns whose chain was shown, whether or not its key was proven to be held.
    pub fn claimed(&self) -> Option<&Proven> {
        self.named.get()
    }
}

#[derive(Debug)]
struct ServerProof {
    provider: Arc<CryptoProvider>,
    own: ClusterId,
    expect: Option<ClusterId>,
    finding: Arc<Finding>,
}

impl ServerProof {
    fn wants(&self, found: &ClusterId) -> bool {
        self.expect
            .as_ref()
            .map_or(*found != self.own, |expect| expect == found)
    }
}

impl ServerCertVerifier for ServerProof {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let proven = verify_chain(end_entity, intermediates).map_err(refused)?;
        if !is_within_validity(end_entity, now.as_secs()) {
            tracing::warn!(
                cluster = %proven.cluster_id,
                "Peer shows a certificate outside of its dates: a clock is wrong, here or there"
            );
        }
        match self.finding.named.set(proven) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let valid = verify_handshake(&self.provider, message, certificate, signature)?;
        let proven = self.finding.named.get().cloned();
        let wanted = proven
            .as_ref()
            .is_some_and(|proven| self.wants(&proven.cluster_id));
        if let Some(proven) = proven {
            self.finding.proven.get_or_init(|| proven);
        }
        if wanted {
            Ok(valid)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[derive(Debug)]
struct ClientProof {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientProof {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        verify_chain(end_entity, intermediates)
            .map(|_| ClientCertVerified::assertion())
            .map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_handshake(&self.provider, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

fn verify_handshake(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, TlsError> {
    if !SCHEMES.contains(&signature.scheme) {
        return Err(CertificateError::BadSignature.into());
    }
    let key = leaf_key(certificate).map_err(refused)?;
    verify_tls13_signature_with_raw_key(
        message,
        &key,
        signature,
        &provider.signature_verification_algorithms,
    )
}

fn only_tls13() -> TlsError {
    TlsError::General("only TLS 1.3 is spoken".to_owned())
}

fn refused(error: Error) -> TlsError {
    CertificateError::Other(rustls::OtherError(Arc::new(error))).into()
}
