//! The fleet secret: one owner's clusters recognise each other without a person.
//!
//! ```text
//! proof = HMAC-SHA256(secret, label | role | home id | foreign id | TLS exporter)
//! ```
//! The roles differ, so a proof cannot be sent back as one's own; the exporter differs in every
//! session, so it cannot be used in another one (protocol, section 4).

use std::{fmt, fs, io, path::Path};

use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use zeroize::Zeroizing;

use crate::api::identity::ClusterId;

/// What the proof is for, so that the secret's other uses can never give the same bytes.
const LABEL: &[u8] = b"landbridge fleet proof v1";
/// The shortest text that can hold 128 bits: 22 characters of base64.
const SHORTEST: usize = 22;
/// The largest file that is read as a secret.
const SIZE_LIMIT: u64 = 4096;

/// Indicates that a fleet secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates that the file cannot be read.
    #[error("cannot read the fleet secret {path}: {source}")]
    Read {
        /// The path of the file.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Indicates a secret that could be guessed.
    #[error(
        "the fleet secret is too weak: it needs 128 bits, at least 22 random characters; make one \
         with landbridge fleet-secret"
    )]
    TooShort,
    /// Indicates that the system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// On which end of `POST /identity` a proof is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The cluster that asks.
    Home,
    /// The cluster that answers.
    Foreign,
}

impl Role {
    fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Home => b"home",
            Self::Foreign => b"foreign",
        }
    }
}

/// A secret that all clusters of one owner were given.
pub struct FleetSecret(Zeroizing<String>);

impl FleetSecret {
    /// Takes a secret as text; white space around it does not count.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let mut distinct: Vec<u8> = text.bytes().collect();
        distinct.sort_unstable();
        distinct.dedup();
        // Fewer than eight different characters are a pattern and not chance.
        if text.len() < SHORTEST || distinct.len() < 8 {
            return Err(Error::TooShort);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Reads the secret from a file: one of the user's, or one that Kubernetes mounted.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        use io::Read as _;
        let failed = |source| Error::Read {
            path: path.display().to_string(),
            source,
        };
        let mut text = Zeroizing::new(String::new());
        fs::File::open(path)
            .map_err(failed)?
            .take(SIZE_LIMIT)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Self::new(&text)
    }

    /// Makes a new secret of 256 bits.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        SystemRandom::new()
            .fill(bytes.as_mut_slice())
            .map_err(|_| Error::NoRandomness)?;
        Ok(Self(Zeroizing::new(to_hex(bytes.as_slice()))))
    }

    /// Returns the text, for the person who asked for it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Makes the proof of one role in one session: 64 hexadecimal digits.
    pub fn proof(
        &self,
        role: Role,
        home: &ClusterId,
        foreign: &ClusterId,
        exporter: &[u8; 32],
    ) -> String {
        to_hex(sign(self.0.as_bytes(), LABEL, role, (home, foreign), exporter).as_ref())
    }

    /// Tells whether a proof was made with the same secret in the given role and session. Takes the
    /// same time wherever the difference is.
    pub fn verify(
        &self,
        proof: &str,
        role: Role,
        home: &ClusterId,
        foreign: &ClusterId,
        exporter: &[u8; 32],
    ) -> bool {
        let key = self.0.as_bytes();
        check(key, LABEL, proof, role, (home, foreign), exporter)
    }
}

impl fmt::Debug for FleetSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FleetSecret(***)")
    }
}

/// Makes the proof that somebody holds a key, in one role of one session.
pub(super) fn sign(
    key: &[u8],
    label: &[u8],
    role: Role,
    clusters: (&ClusterId, &ClusterId),
    exporter: &[u8; 32],
) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, &message(label, role, clusters, exporter))
}

/// Tells whether a proof was made with a key, in constant time.
pub(super) fn check(
    key: &[u8],
    label: &[u8],
    proof: &str,
    role: Role,
    clusters: (&ClusterId, &ClusterId),
    exporter: &[u8; 32],
) -> bool {
    let Some(claimed) = from_hex(proof) else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::verify(&key, &message(label, role, clusters, exporter), &claimed).is_ok()
}

fn message(
    label: &[u8],
    role: Role,
    (home, foreign): (&ClusterId, &ClusterId),
    exporter: &[u8; 32],
) -> Vec<u8> {
    let mut message = Vec::with_capacity(192);
    // A NUL ends each part and is in none, so no two lists of parts give the same bytes.
    for part in [
        label,
        role.as_bytes(),
        home.as_str().as_bytes(),
        foreign.as_str().as_bytes(),
    ] {
        message.extend_from_slice(part);
        message.push(0);
    }
    message.extend_from_slice(exporter);
    message
}

/// Writes bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0_u8; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digits = text.get(index * 2..index * 2 + 2)?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> FleetSecret {
        FleetSecret::new(" 0123456789abcdef0123456789abcdef\n").unwrap()
    }

    fn ids() -> (ClusterId, ClusterId) {
        (ClusterId::from_spki(b"home"), ClusterId::from_spki(b"far"))
    }

    #[test]
    fn a_proof_holds_in_its_role_between_its_clusters_and_in_its_session_only() {
        let (home, foreign) = ids();
        let session = [7; 32];
        let proof = secret().proof(Role::Home, &home, &foreign, &session);
        assert_eq!(proof.len(), 64);
        let verify =
            |proof: &str, role, home: &ClusterId, foreign: &ClusterId, session: [u8; 32]| {
                secret().verify(proof, role, home, foreign, &session)
            };
        assert!(verify(&proof, Role::Home, &home, &foreign, session));
        assert!(verify(
            &proof.to_uppercase(),
            Role::Home,
            &home,
            &foreign,
            session
        ));
        assert!(!verify(&proof, Role::Foreign, &home, &foreign, session));
        assert!(!verify(&proof, Role::Home, &foreign, &home, session));
        assert!(!verify(&proof, Role::Home, &home, &home, session));
        assert!(!verify(&proof, Role::Home, &home, &foreign, [8; 32]));
        for wrong in ["", "00", &proof[1..], &"0".repeat(64), &"ä".repeat(32)] {
            assert!(
                !verify(wrong, Role::Home, &home, &foreign, session),
                "{wrong}"
            );
        }
        let other = FleetSecret::generate().unwrap();
        assert!(!other.verify(&proof, Role::Home, &home, &foreign, &session));
    }

    #[test]
    fn a_secret_that_could_be_guessed_is_refused() {
        for weak in [
            "",
            "short",
            "0123456789abcdef01234",
            &"a".repeat(64),
            &"ab".repeat(32),
        ] {
            assert!(
                matches!(FleetSecret::new(weak), Err(Error::TooShort)),
                "{weak}"
            );
        }
        let made = FleetSecret::generate().unwrap();
        assert!(FleetSecret::new(made.expose()).is_ok());
    }

    #[test]
    fn a_secret_is_read_from_a_file_and_never_printed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        let secret = FleetSecret::from_file(&path).unwrap();
        assert_eq!(secret.expose(), "0123456789abcdef0123456789abcdef");
        assert_eq!(format!("{secret:?}"), "FleetSecret(***)");
        let error = FleetSecret::from_file(&root.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }
}
