//! The six digits that two people compare before they approve each other's clusters.
//!
//! ```text
//! home                                   foreign
//!   commit = SHA-256(label | nonce H) -->
//!                                     <-- nonce F
//!   nonce H                           -->  checks the commitment
//!
//! code = SHA-256(label | home id | home key | foreign id | foreign key
//!                      | nonce H | nonce F | TLS exporter) mod 10^6
//! ```
//! Home is bound to its nonce before it sees the other's, and foreign chooses before it sees home's,
//! so that somebody in between, who has two sessions with two exporters, has one guess in a million
//! to make both codes the same. The exporter ends before the certificate of home (RFC 8446, section
//! 7.1), so both keys are in the code by themselves.

use ring::{
    digest::{Context, SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};

use super::{
    certificates::Proven,
    trust::{Error, from_hex, to_hex},
};

/// What a commitment is for, so that no other hash of ours gives the same bytes.
const COMMIT_LABEL: &[u8] = b"landbridge approval commitment v1";
/// What a code is for.
const CODE_LABEL: &[u8] = b"landbridge approval code v1";
/// How many different codes there are.
const CODES: u64 = 1_000_000;

/// What one side throws in by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce([u8; 32]);

impl Nonce {
    /// Chooses a nonce.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// Reads a nonce as the wire carries it.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// Writes the nonce as the wire carries it: 64 hexadecimal digits.
    pub fn to_text(self) -> String {
        to_hex(&self.0)
    }

    /// Returns the commitment to this nonce: 64 hexadecimal digits.
    pub fn commitment(self) -> String {
        to_hex(digest(&SHA256, &[COMMIT_LABEL, &self.0].concat()).as_ref())
    }

    /// Tells whether a commitment was made to this nonce.
    pub fn keeps(self, commitment: &str) -> bool {
        // A commitment is public, so the time of the comparison tells nothing.
        self.commitment() == commitment
    }
}

/// Computes the code of one session from both clusters and what each threw in: six digits.
pub fn code(
    (home, home_nonce): (&Proven, Nonce),
    (foreign, foreign_nonce): (&Proven, Nonce),
    exporter: &[u8; 32],
) -> String {
    let mut context = Context::new(&SHA256);
    context.update(CODE_LABEL);
    for cluster in [home, foreign] {
        for text in [cluster.cluster_id.as_str(), cluster.fingerprint.as_str()] {
            // The texts differ in length, so each tells its own.
            context.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(text.as_bytes());
        }
    }
    context.update(&home_nonce.0);
    context.update(&foreign_nonce.0);
    context.update(exporter);
    let hash = context.finish();
    let number = hash
        .as_ref()
        .iter()
        .take(8)
        .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    format!("{:06}", number % CODES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClusterId, Fingerprint};

    #[test]
    fn only_the_nonce_that_was_committed_to_is_taken() {
        let (nonce, other) = (Nonce([1; 32]), Nonce([2; 32]));
        assert!(nonce.keeps(&nonce.commitment()));
        assert!(!other.keeps(&nonce.commitment()));
        assert!(!nonce.keeps(""));
        assert_eq!(Nonce::parse(&nonce.to_text()), Some(nonce));
        assert_eq!(Nonce::parse("zz"), None);
    }

    #[test]
    fn the_code_depends_on_everything_that_was_exchanged() {
        let cluster = |id: &[u8], key: &[u8]| Proven {
            cluster_id: ClusterId::from_spki(id),
            fingerprint: Fingerprint::from_spki(key),
        };
        let (home, foreign) = (cluster(b"rome", b"bronze"), cluster(b"milan", b"iron"));
        let (one, two) = (Nonce([1; 32]), Nonce([2; 32]));
        let base = code((&home, one), (&foreign, two), &[3; 32]);
        assert_eq!(base.len(), 6);
        assert!(base.bytes().all(|digit| digit.is_ascii_digit()));
        assert_eq!(base, code((&home, one), (&foreign, two), &[3; 32]));
        let (other_id, other_key) = (cluster(b"turin", b"bronze"), cluster(b"rome", b"tin"));
        for (home, foreign, exporter) in [
            ((&other_id, one), (&foreign, two), 3),
            ((&other_key, one), (&foreign, two), 3),
            ((&home, two), (&foreign, two), 3),
            ((&home, one), (&other_id, two), 3),
            ((&home, one), (&other_key, two), 3),
            ((&home, one), (&foreign, one), 3),
            ((&foreign, one), (&home, two), 3),
            ((&home, one), (&foreign, two), 4),
        ] {
            let other = code(home, foreign, &[exporter; 32]);
            assert_ne!(base, other, "{home:?} {foreign:?} {exporter}");
        }
    }
}
