//! The proof of a token: shown without being told.
//!
//! ```text
//! proof = HMAC-SHA256(hash of the token, label | role | home id | foreign id | TLS exporter)
//! ```
//! As with the fleet secret, a proof is good in one role, between two clusters and in one session.
//! Whoever answers under a stolen name learns nothing that it could use elsewhere, and a cluster
//! that did not give the token out cannot answer with the other role's proof.

use ring::hmac;

use super::trust::{Role, check, sign, to_hex};
use crate::api::{identity::ClusterId, token::TokenHash};

/// What the proof is for, so that no other use of a token gives the same bytes.
const LABEL: &[u8] = b"landbridge token proof v1";

/// Makes the proof of one role in one session: 64 hexadecimal digits.
pub fn proof(
    token: &TokenHash,
    role: Role,
    home: &ClusterId,
    foreign: &ClusterId,
    exporter: &[u8; 32],
) -> String {
    to_hex(sign(token.as_bytes(), LABEL, role, (home, foreign), exporter).as_ref())
}

/// Tells whether a proof was made with a token in the given role and session. Takes the same time
/// wherever the difference is.
pub fn verify(
    token: &TokenHash,
    proof: &str,
    role: Role,
    home: &ClusterId,
    foreign: &ClusterId,
    exporter: &[u8; 32],
) -> bool {
    check(
        token.as_bytes(),
        LABEL,
        proof,
        role,
        (home, foreign),
        exporter,
    )
}

/// Tells whether two tokens are the same. Takes the same time wherever the difference is.
pub fn is_same(one: &TokenHash, other: &TokenHash) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, LABEL);
    let tag = hmac::sign(&key, one.as_bytes());
    hmac::verify(&key, other.as_bytes(), tag.as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_of_a_token_holds_in_its_role_between_its_clusters_and_in_its_session_only() {
        let (home, foreign) = (ClusterId::from_spki(b"home"), ClusterId::from_spki(b"far"));
        let token = TokenHash::of("0123456789abcdef0123456789abcdef").unwrap();
        let other = TokenHash::of("0123456789abcdef0123456789abcdee").unwrap();
        let shown = proof(&token, Role::Home, &home, &foreign, &[7; 32]);
        let holds = |token, role, home: &ClusterId, foreign: &ClusterId, session| {
            verify(token, &shown, role, home, foreign, &[session; 32])
        };
        assert!(holds(&token, Role::Home, &home, &foreign, 7));
        assert!(!holds(&other, Role::Home, &home, &foreign, 7));
        assert!(!holds(&token, Role::Foreign, &home, &foreign, 7));
        assert!(!holds(&token, Role::Home, &foreign, &home, 7));
        assert!(!holds(&token, Role::Home, &home, &foreign, 8));
        assert!(is_same(&token, &token) && !is_same(&token, &other));
    }
}
