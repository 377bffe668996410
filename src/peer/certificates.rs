//! The identity key of a cluster, the certificates made with it, and the proof of a stranger's.
//!
//! ```text
//! chain shown in the handshake (protocol, section 1)
//!   leaf      a key of its own, 30 days ---- signed by ----.
//!   identity  the Ed25519 key, self-signed <---------------'   clusterID = UUIDv8(SHA-256(SPKI))
//! ```

use std::{fmt, path::Path, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use x509_parser::{certificate::X509Certificate, oid_registry, prelude::FromDer as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::keyfile;
use crate::api::identity::{ClusterId, Fingerprint};

/// How long a leaf is valid.
pub const LEAF_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// How far the start of a leaf lies in the past, for listeners whose clock is behind.
const LEAF_BACKDATE: Duration = Duration::from_hours(1);
/// The largest certificate that is looked at; ours have about 500 bytes.
const CERTIFICATE_LIMIT: usize = 4096;
/// What every Ed25519 SubjectPublicKeyInfo in DER begins with (RFC 8410, section 4); the 32 bytes of
/// the key follow. Comparing whole bytes leaves a key exactly one encoding, and so one cluster id.
const ED25519_SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// What every uncompressed P-256 SubjectPublicKeyInfo in DER begins with (RFC 5480, section 2).
const P256_SPKI_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// What stands before the 64 bytes of every Ed25519 signature of a certificate (RFC 8410, section 6):
/// the algorithm, and the head of a bit string without unused bits.
const ED25519_SIGNATURE_PREFIX: [u8; 10] =
    [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];

/// Indicates that an identity could not be made, kept or proven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates that the identity key cannot be read or written.
    #[error(transparent)]
    KeyFile(#[from] keyfile::Error),
    /// Indicates a text that is not a private key in PEM.
    #[error("the identity key is not an Ed25519 private key in PEM (PKCS #8)")]
    NotAKey,
    /// Indicates that making a key or a certificate failed.
    #[error("cannot make {what}: {source}")]
    Making {
        /// What was to be made.
        what: &'static str,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// Indicates a chain that is not a leaf and its identity certificate.
    #[error("the certificate chain has {0} links instead of 2")]
    Links(usize),
    /// Indicates bytes that are not a certificate of ours.
    #[error("the {0} certificate is not well-formed")]
    Malformed(&'static str),
    /// Indicates a key of a kind that is not spoken.
    #[error("the {0} certificate has a key of a kind that is not accepted")]
    KeyKind(&'static str),
    /// Indicates a signature that the identity key did not make.
    #[error("the {0} certificate is not signed by the identity key")]
    Signature(&'static str),
    /// Indicates a leaf that shows the identity key itself.
    #[error("the leaf certificate has the identity key instead of one of its own")]
    LeafIsIdentity,
}

/// The identity key of a cluster and what follows from it.
pub struct Identity {
    key: KeyPair,
    cluster_id: ClusterId,
    fingerprint: Fingerprint,
}

impl Identity {
    /// Makes a new identity.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(making("an identity key"))?;
        Ok(Self::from_key(key))
    }

    /// Reads an identity from the private key in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_ED25519)
            .map_err(|_| Error::NotAKey)?;
        Ok(Self::from_key(key))
    }

    /// Reads the identity from a file, or makes one and writes it there when there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        if let Some(pem) = keyfile::read(path)? {
            return Self::from_pem(&pem);
        }
        let identity = Self::generate()?;
        keyfile::create(path, &identity.to_pem())?;
        Ok(identity)
    }

    fn from_key(key: KeyPair) -> Self {
        let spki = key.subject_public_key_info();
        Self {
            cluster_id: ClusterId::from_spki(&spki),
            fingerprint: Fingerprint::from_spki(&spki),
            key,
        }
    }

    /// Returns the private key in PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// Returns the cluster id that the key proves.
    pub fn cluster_id(&self) -> &ClusterId {
        &self.cluster_id
    }

    /// Returns the fingerprint of the key.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Makes a leaf with a key of its own, signed by the identity key, and its chain.
    pub fn leaf(&self, now: Timestamp) -> Result<Leaf, Error> {
        let identity_parameters = self.identity_parameters();
        let identity = identity_parameters
            .self_signed(&self.key)
            .map_err(making("the identity certificate"))?;
        let mut leaf_key =
            KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(making("a leaf key"))?;
        let mut parameters = named(&self.cluster_id);
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let start = seconds_since_epoch(now).saturating_sub(LEAF_BACKDATE);
        let end = seconds_since_epoch(now).saturating_add(LEAF_LIFETIME);
        parameters.not_before = epoch + start;
        parameters.not_after = epoch + end;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let issuer = Issuer::from_params(&identity_parameters, &self.key);
        let certificate = parameters
            .signed_by(&leaf_key, &issuer)
            .map_err(making("a leaf certificate"))?;
        let key = PrivatePkcs8KeyDer::from(leaf_key.serialize_der());
        leaf_key.zeroize();
        Ok(Leaf {
            chain: vec![certificate.der().clone(), identity.der().clone()],
            key,
            issued: now,
        })
    }

    fn identity_parameters(&self) -> CertificateParams {
        let mut parameters = named(&self.cluster_id);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // RFC 5280, section 4.1.2.5: the date that means "no well-defined expiration".
        parameters.not_after = rcgen::date_time_ymd(9999, 12, 31);
        parameters
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("cluster_id", &self.cluster_id)
            .finish_non_exhaustive()
    }
}

/// A leaf with its private key and the chain to show.
pub struct Leaf {
    /// The leaf and the identity certificate.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the leaf.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// When it was made.
    pub issued: Timestamp,
}

impl Leaf {
    /// Tells whether the leaf is to be replaced: two thirds of its life are over, or the clock went
    /// back to before it was made.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let age = now.duration_since(self.issued);
        age.is_negative() || age.unsigned_abs() >= LEAF_LIFETIME * 2 / 3
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Leaf")
            .field("issued", &self.issued)
            .finish_non_exhaustive()
    }
}

/// Who a chain speaks for, once the handshake has shown that the leaf's key is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The cluster id that follows from the identity key.
    pub cluster_id: ClusterId,
    /// The fingerprint of the identity key.
    pub fingerprint: Fingerprint,
}

/// Verifies a chain and returns whom it speaks for.
///
/// The dates are not looked at: at the edge clocks are wrong, and the key is the identity. See
/// [`is_within_validity`] for telling somebody.
pub fn verify_chain(leaf: &[u8], intermediates: &[CertificateDer<'_>]) -> Result<Proven, Error> {
    let [identity] = intermediates else {
        return Err(Error::Links(intermediates.len() + 1));
    };
    let (leaf_der, identity_der) = (leaf, identity);
    let leaf = parse(leaf_der, "leaf")?;
    let identity = parse(identity_der, "identity")?;
    let spki = identity.tbs_certificate.subject_pki.raw;
    let key = ed25519_key(spki).ok_or(Error::KeyKind("identity"))?;
    verify_signature(identity_der, &identity, key, "identity")?;
    verify_signature(leaf_der, &leaf, key, "leaf")?;
    let leaf_spki = leaf.tbs_certificate.subject_pki.raw;
    if leaf_spki == spki {
        return Err(Error::LeafIsIdentity);
    }
    if ed25519_key(leaf_spki).is_none() && !is_p256_key(leaf_spki) {
        return Err(Error::KeyKind("leaf"));
    }
    Ok(Proven {
        cluster_id: ClusterId::from_spki(spki),
        fingerprint: Fingerprint::from_spki(spki),
    })
}

/// Returns the public key of a leaf, for the verification of the handshake's signature.
///
/// The same parser reads the key here and in [`verify_chain`], so that no two readings of one
/// certificate can differ.
pub fn leaf_key(leaf: &[u8]) -> Result<SubjectPublicKeyInfoDer<'_>, Error> {
    Ok(SubjectPublicKeyInfoDer::from(
        parse(leaf, "leaf")?.tbs_certificate.subject_pki.raw,
    ))
}

/// Tells whether a leaf's dates include a moment, given in seconds since 1970.
pub fn is_within_validity(leaf: &[u8], now: u64) -> bool {
    let Ok(leaf) = parse(leaf, "leaf") else {
        return false;
    };
    let validity = &leaf.tbs_certificate.validity;
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp()
}

fn parse<'a>(der: &'a [u8], which: &'static str) -> Result<X509Certificate<'a>, Error> {
    if der.len() > CERTIFICATE_LIMIT {
        return Err(Error::Malformed(which));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::Malformed(which)),
    }
}

fn ed25519_key(spki: &[u8]) -> Option<&[u8]> {
    spki.strip_prefix(&ED25519_SPKI_PREFIX)
        .filter(|key| key.len() == 32)
}

fn is_p256_key(spki: &[u8]) -> bool {
    spki.strip_prefix(&P256_SPKI_PREFIX)
        .is_some_and(|point| point.len() == 64)
}

/// Verifies the signature of a certificate. What stands between the signed part and the 64 bytes is
/// compared as it is, so that one certificate has one encoding.
fn verify_signature(
    der: &[u8],
    certificate: &X509Certificate<'_>,
    key: &[u8],
    which: &'static str,
) -> Result<(), Error> {
    let algorithm = &certificate.tbs_certificate.signature.algorithm;
    if *algorithm != oid_registry::OID_SIG_ED25519 {
        return Err(Error::KeyKind(which));
    }
    let signed = certificate.tbs_certificate.as_ref();
    let (head, signature) = der
        .split_last_chunk::<64>()
        .ok_or(Error::Malformed(which))?;
    head.strip_suffix(&ED25519_SIGNATURE_PREFIX)
        .filter(|head| head.ends_with(signed))
        .ok_or(Error::Malformed(which))?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(signed, signature)
        .map_err(|_| Error::Signature(which))
}

fn named(cluster_id: &ClusterId) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, cluster_id.as_str());
    parameters.distinguished_name = name;
    parameters
}

fn seconds_since_epoch(now: Timestamp) -> Duration {
    // 9000 years keep a leaf's end inside of what a certificate can say.
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    Duration::from_secs(seconds.min(200_000_000_000))
}

fn making(what: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
    move |source| Error::Making { what, source }
}

#[cfg(test)]
mod tests;
