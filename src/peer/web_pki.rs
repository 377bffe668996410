//! A certificate of the Web PKI beside the identity: how a cluster shows that it is known by a name of
//! DNS.
//!
//! ```text
//! signature = sign(certificate's key, 64 spaces | label | asked id | asking id | TLS exporter)
//! ```
//! The handshake stays with the identities. The certificate's key signs the very session that they
//! made, so a signature is worth nothing between others or at another time.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rustls::{
    RootCertStore, SignatureScheme,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    sign::CertifiedKey,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::api::{identity::ClusterId, wire::Attestation};

/// What a signature is for. The spaces keep it apart from all that TLS signs with the same key, as
/// TLS 1.3 does with its own (RFC 8446, section 4.4.3).
const LABEL: &[u8] = b"landbridge web pki attestation v1";
const PADDING: [u8; 64] = [b' '; 64];
/// The most certificates of a chain, and the most bytes of all of them.
const CHAIN_LIMIT: (usize, usize) = (6, 8 * 1024);
/// The largest signature: that of an RSA key of 8192 bits.
const SIGNATURE_LIMIT: usize = 1024;
/// The largest file that is read; the roots of a platform have about 250 KiB.
const SIZE_LIMIT: u64 = 1024 * 1024;
/// The signatures that are made and taken: those of TLS 1.3 (RFC 8446, section 4.2.3).
const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// Indicates files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates a file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Indicates a file in which there is no such thing.
    #[error("{} has no {wanted} in PEM", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// Indicates one of two files that go together.
    #[error("trust.webPki.certificateFile and trust.webPki.keyFile go together: set both")]
    Half,
    /// Indicates a chain that is too long to be sent.
    #[error(
        "the chain in {} is too long: at most 6 certificates and 8 KiB; leave the root out", .0.display()
    )]
    TooLong(PathBuf),
    /// Indicates a key that belongs to another certificate, or is of a kind that is not spoken.
    #[error("the key in {} does not fit the certificate: {reason}", path.display())]
    Key {
        /// The file with the key.
        path: PathBuf,
        /// What is wrong.
        reason: rustls::Error,
    },
    /// Indicates that there is no authority to believe.
    #[error("no certificate of an authority was found: {0}")]
    NoRoots(String),
    /// Indicates a signature that could not be made.
    #[error("the certificate's key cannot sign: {0}")]
    Signing(rustls::Error),
}

/// Why what a cluster has shown does not let it in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Indicates something that is no certificate and no signature.
    #[error("it is not well-formed, or too large")]
    Malformed,
    /// Indicates a certificate that is not valid here and now for the name.
    #[error("the certificate does not hold for {host}: {reason}")]
    Certificate {
        /// The name.
        host: String,
        /// What is wrong.
        reason: rustls::Error,
    },
    /// Indicates a signature that was not made with the certificate's key in this session.
    #[error("the signature is not one of the certificate's key in this session")]
    Signature,
    /// Indicates that we cannot tell.
    #[error("it cannot be verified: {0}")]
    Roots(String),
}

/// The two ends of a session, and what only they can derive from it.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// The cluster that shows its certificate.
    pub asked: &'a ClusterId,
    /// The cluster that wants to see it.
    pub asking: &'a ClusterId,
    /// The TLS exporter of the session.
    pub exporter: &'a [u8; 32],
}

/// Our certificate, if we have one, and the authorities that we believe. The files are read anew each
/// time, since certificates are renewed while we run.
#[derive(Debug, Clone, Default)]
pub struct WebPki {
    /// The files with our chain and its key.
    own: Option<(PathBuf, PathBuf)>,
    /// The file with the authorities; those of the platform when there is none.
    roots: Option<PathBuf>,
}

impl WebPki {
    /// Takes the files of the settings, where empty means none, and sees whether they can be used.
    pub fn new(certificate: &Path, key: &Path, roots: &Path) -> Result<Self, Error> {
        let given = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
        let own = match (given(certificate), given(key)) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) | (None, Some(_)) => return Err(Error::Half),
        };
        let files = Self {
            own,
            roots: given(roots),
        };
        if let Some((certificate, key)) = &files.own {
            certified(certificate, key)?;
        }
        if files.roots.is_some() {
            files.verifier()?;
        }
        Ok(files)
    }

    /// Shows our certificate in a session; nothing when we have none.
    pub fn attest(&self, ends: Ends<'_>) -> Result<Option<Attestation>, Error> {
        let Some((certificate, key)) = &self.own else {
            return Ok(None);
        };
        let certified = certified(certificate, key)?;
        let wrong_kind = || Error::Key {
            path: key.clone(),
            reason: rustls::Error::General("it is of a kind that TLS 1.3 has not".to_owned()),
        };
        let signer = certified
            .key
            .choose_scheme(&SCHEMES)
            .ok_or_else(wrong_kind)?;
        let signature = signer.sign(&message(ends)).map_err(Error::Signing)?;
        Ok(Some(Attestation {
            chain: certified
                .cert
                .iter()
                .map(|der| STANDARD.encode(der))
                .collect(),
            scheme: signer.scheme().into(),
            signature: STANDARD.encode(signature),
        }))
    }

    /// Verifies what a cluster has shown: a certificate for one of the hosts of an authority that we
    /// believe, valid now, whose key has signed this session.
    pub fn verify(
        &self,
        shown: &Attestation,
        hosts: &[String],
        ends: Ends<'_>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let (chain, signature) = decode(shown).ok_or(Refusal::Malformed)?;
        let (leaf, others) = chain.split_first().ok_or(Refusal::Malformed)?;
        let verifier = self
            .verifier()
            .map_err(|error| Refusal::Roots(error.to_string()))?;
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let mut refusal = Refusal::Malformed;
        for host in hosts {
            let Ok(name @ ServerName::DnsName(_)) = ServerName::try_from(host.as_str()) else {
                continue;
            };
            match verifier.verify_server_cert(leaf, others, &name, &[], now) {
                Ok(_) => return verify_signature(leaf, shown.scheme, &signature, &message(ends)),
                Err(reason) => {
                    refusal = Refusal::Certificate {
                        host: host.clone(),
                        reason,
                    };
                }
            }
        }
        Err(refusal)
    }

    fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut roots = RootCertStore::empty();
        let place = if let Some(path) = &self.roots {
            roots.add_parsable_certificates(certificates(path)?);
            path.display().to_string()
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            "the platform has none, trust.webPkiRootsFile names some".to_owned()
        };
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|_| Error::NoRoots(place))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The bytes that are signed. A NUL ends each part and is in none.
fn message(ends: Ends<'_>) -> Vec<u8> {
    let mut message = PADDING.to_vec();
    for part in [
        LABEL,
        ends.asked.as_str().as_bytes(),
        ends.asking.as_str().as_bytes(),
    ] {
        message.extend_from_slice(part);
        message.push(0);
    }
    message.extend_from_slice(ends.exporter);
    message
}

fn verify_signature(
    leaf: &CertificateDer<'_>,
    scheme: u16,
    signature: &[u8],
    message: &[u8],
) -> Result<(), Refusal> {
    let scheme = SignatureScheme::from(scheme);
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|_| Refusal::Malformed)?;
    let supported = provider().signature_verification_algorithms.mapping;
    let mut algorithms = supported
        .iter()
        .filter(|(known, _)| *known == scheme && SCHEMES.contains(known))
        .flat_map(|(_, algorithms)| algorithms.iter());
    let holds = algorithms.any(|algorithm| {
        leaf.verify_signature(*algorithm, message, signature)
            .is_ok()
    });
    if holds {
        Ok(())
    } else {
        Err(Refusal::Signature)
    }
}

/// Decodes what a cluster has shown, within bounds.
fn decode(shown: &Attestation) -> Option<(Vec<CertificateDer<'static>>, Vec<u8>)> {
    let (most, bytes) = CHAIN_LIMIT;
    if shown.chain.len() > most || shown.signature.len() > 2 * SIGNATURE_LIMIT {
        return None;
    }
    let mut chain = Vec::new();
    let mut room = bytes;
    for text in &shown.chain {
        let der = STANDARD.decode(text).ok()?;
        room = room.checked_sub(der.len())?;
        chain.push(CertificateDer::from(der));
    }
    Some((chain, STANDARD.decode(&shown.signature).ok()?))
}

/// Reads our chain and its key.
fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let chain = certificates(certificate)?;
    let bytes: usize = chain.iter().map(|der| der.len()).sum();
    if chain.len() > CHAIN_LIMIT.0 || bytes > CHAIN_LIMIT.1 {
        return Err(Error::TooLong(certificate.to_owned()));
    }
    let missing = |_| Error::Missing {
        path: key.to_owned(),
        wanted: "private key",
    };
    let mut der = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(missing)?;
    let unfit = |reason| Error::Key {
        path: key.to_owned(),
        reason,
    };
    let signing = ring::sign::any_supported_type(&der).map_err(unfit);
    der.zeroize();
    let certified = CertifiedKey::new(chain, signing?);
    certified.keys_match().map_err(unfit)?;
    Ok(certified)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let missing = || Error::Missing {
        path: path.to_owned(),
        wanted: "certificate",
    };
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(missing()),
    }
}

/// Reads a file of the operator's, who may keep it behind a link as certbot and Kubernetes do.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Zeroizing::new(Vec::new());
    fs::File::open(path)
        .map_err(failed)?
        .take(SIZE_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
