//! An identity in a file that may lie about: sealed by a passphrase.
//!
//! ```text
//! key    = PBKDF2-HMAC-SHA256(passphrase, salt, iterations)
//! sealed = AES-256-GCM(key, nonce, private key in PEM; everything else of the file is signed along)
//! ```

use std::num::NonZeroU32;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    pbkdf2,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::certificates::{self, Identity};
use crate::api::identity::{ClusterId, Fingerprint};

/// How often the passphrase is hashed (OWASP, Password Storage Cheat Sheet, PBKDF2-HMAC-SHA256).
const ITERATIONS: u32 = 600_000;
/// How often a file may ask for it, so that reading one always ends.
const MOST_ITERATIONS: u32 = 20_000_000;
/// The shortest passphrase. Whoever finds the file may guess as long as he likes.
pub const SHORTEST: usize = 12;
/// The version of the format.
const VERSION: u32 = 1;
/// What the file says it is.
const KIND: &str = "landbridge-identity";

/// Indicates that an identity cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates a passphrase that could be guessed.
    #[error("the passphrase is too short: it needs at least 12 characters")]
    TooShort,
    /// Indicates a text that is not a sealed identity.
    #[error("this is not a sealed identity: {0}")]
    Malformed(String),
    /// Indicates a file of a later program.
    #[error("this identity is sealed in version {0}, and only version 1 is understood")]
    Version(u32),
    /// Indicates the wrong passphrase, or a file that was changed.
    #[error("the passphrase is wrong, or the file was changed")]
    Wrong,
    /// Indicates that the system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// Indicates a key that cannot be used.
    #[error(transparent)]
    Key(#[from] certificates::Error),
}

/// The file. Whose identity it is may be read without the passphrase.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    kind: String,
    version: u32,
    #[serde(rename = "clusterID")]
    cluster_id: ClusterId,
    fingerprint: Fingerprint,
    iterations: u32,
    salt: String,
    nonce: String,
    sealed: String,
}

impl File {
    /// What is signed along: all that is not sealed.
    fn head(&self) -> Vec<u8> {
        let Self {
            kind,
            version,
            cluster_id,
            fingerprint,
            iterations,
            salt,
            nonce,
            sealed: _,
        } = self;
        let id = cluster_id.as_str();
        let fingerprint = fingerprint.as_str();
        format!("{kind}\n{version}\n{id}\n{fingerprint}\n{iterations}\n{salt}\n{nonce}")
            .into_bytes()
    }

    fn key(&self, passphrase: &str) -> Result<LessSafeKey, Error> {
        let iterations = NonZeroU32::new(self.iterations)
            .filter(|iterations| (ITERATIONS..=MOST_ITERATIONS).contains(&iterations.get()))
            .ok_or_else(|| {
                Error::Malformed("its number of iterations is out of range".to_owned())
            })?;
        let salt = decode("salt", &self.salt)?;
        let mut key = Zeroizing::new([0_u8; 32]);
        let (algorithm, secret) = (pbkdf2::PBKDF2_HMAC_SHA256, passphrase.as_bytes());
        pbkdf2::derive(algorithm, iterations, &salt, secret, key.as_mut_slice());
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice());
        Ok(LessSafeKey::new(key.map_err(|_| Error::Wrong)?))
    }

    fn nonce(&self) -> Result<Nonce, Error> {
        Nonce::try_assume_unique_for_key(&decode("nonce", &self.nonce)?)
            .map_err(|_| Error::Malformed("its nonce has the wrong length".to_owned()))
    }
}

/// Seals an identity. Each call gives another text.
pub fn seal(identity: &Identity, passphrase: &str) -> Result<String, Error> {
    if passphrase.chars().count() < SHORTEST {
        return Err(Error::TooShort);
    }
    let (mut salt, mut nonce) = ([0_u8; 16], [0_u8; NONCE_LEN]);
    let random = SystemRandom::new();
    random.fill(&mut salt).map_err(|_| Error::NoRandomness)?;
    random.fill(&mut nonce).map_err(|_| Error::NoRandomness)?;
    let mut file = File {
        kind: KIND.to_owned(),
        version: VERSION,
        cluster_id: identity.cluster_id().clone(),
        fingerprint: identity.fingerprint().clone(),
        iterations: ITERATIONS,
        salt: STANDARD.encode(salt),
        nonce: STANDARD.encode(nonce),
        sealed: String::new(),
    };
    let pem = identity.to_pem();
    // Sealing makes it longer, and what it outgrew would not be zeroed.
    let mut text = Zeroizing::new(Vec::with_capacity(pem.len() + AES_256_GCM.tag_len()));
    text.extend_from_slice(pem.as_bytes());
    file.key(passphrase)?
        .seal_in_place_append_tag(file.nonce()?, Aad::from(file.head()), &mut *text)
        .map_err(|_| Error::Wrong)?;
    file.sealed = STANDARD.encode(&*text);
    serde_json::to_string_pretty(&file)
        .map(|text| text + "\n")
        .map_err(|error| Error::Malformed(error.to_string()))
}

/// Opens a sealed identity.
pub fn open(text: &str, passphrase: &str) -> Result<Identity, Error> {
    let read = serde_json::from_str::<serde_json::Value>(text);
    let read = read.map_err(|error| Error::Malformed(error.to_string()))?;
    let is_ours = read.get("kind").is_some_and(|kind| kind == KIND);
    let version = read.get("version").and_then(serde_json::Value::as_u64);
    match version.and_then(|version| u32::try_from(version).ok()) {
        Some(VERSION) if is_ours => {}
        Some(other) if is_ours => return Err(Error::Version(other)),
        Some(_) | None => return Err(Error::Malformed(format!("its kind is not {KIND}"))),
    }
    let file: File =
        serde_json::from_value(read).map_err(|error| Error::Malformed(error.to_string()))?;
    let mut content = Zeroizing::new(decode("content", &file.sealed)?);
    let opened = file
        .key(passphrase)?
        .open_in_place(file.nonce()?, Aad::from(file.head()), &mut content)
        .map_err(|_| Error::Wrong)?;
    let pem = std::str::from_utf8(opened).map_err(|_| Error::Wrong)?;
    let identity = Identity::from_pem(pem)?;
    if *identity.cluster_id() != file.cluster_id {
        return Err(Error::Wrong);
    }
    Ok(identity)
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, Error> {
    STANDARD
        .decode(text)
        .map_err(|_| Error::Malformed(format!("its {what} is not base64")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSPHRASE: &str = "correct horse battery";

    #[test]
    fn an_identity_comes_back_with_its_passphrase_only() {
        let identity = Identity::generate().unwrap();
        let sealed = seal(&identity, PASSPHRASE).unwrap();
        assert!(sealed.contains(identity.cluster_id().as_str()));
        assert!(!sealed.contains("PRIVATE"));
        let opened = open(&sealed, PASSPHRASE).unwrap();
        assert_eq!(*opened.to_pem(), *identity.to_pem());
        assert!(matches!(
            open(&sealed, "correct horse batterz"),
            Err(Error::Wrong)
        ));
        assert!(matches!(seal(&identity, "too short"), Err(Error::TooShort)));
    }

    #[test]
    fn nothing_of_the_file_can_be_changed() {
        let identity = Identity::generate().unwrap();
        let sealed = seal(&identity, PASSPHRASE).unwrap();
        let other = ClusterId::from_spki(b"other");
        let id = identity.cluster_id().as_str();
        for changed in [
            sealed.replace(id, other.as_str()),
            sealed.replace("600000", "600001"),
        ] {
            assert!(
                matches!(open(&changed, PASSPHRASE), Err(Error::Wrong)),
                "{changed}"
            );
        }
        for changed in [
            sealed.replace("600000", "1"),
            sealed.replace("600000", "4000000000"),
            sealed.replace("landbridge-identity", "something-else"),
            "[".repeat(100_000),
            String::new(),
        ] {
            assert!(matches!(
                open(&changed, PASSPHRASE),
                Err(Error::Malformed(_))
            ));
        }
        let later = sealed.replace("\"version\": 1", "\"version\": 2");
        assert!(matches!(open(&later, PASSPHRASE), Err(Error::Version(2))));
    }
}
