//! Chains that prove a cluster, and every way in which a chain does not.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm};

use super::*;

fn now() -> Timestamp {
    "2026-11-21T04:00:00Z".parse().unwrap()
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

/// Makes a self-signed certificate and a leaf for `leaf_key` signed by it.
fn chain(identity: &KeyPair, leaf_key: &KeyPair) -> [CertificateDer<'static>; 2] {
    let parameters = CertificateParams::default();
    let issuer = Issuer::from_params(&parameters, identity);
    let leaf = CertificateParams::default()
        .signed_by(leaf_key, &issuer)
        .unwrap();
    let identity = parameters.self_signed(identity).unwrap();
    [leaf.der().clone(), identity.der().clone()]
}

#[test]
fn an_identity_reads_back_and_its_leaf_proves_it() {
    let identity = Identity::generate().unwrap();
    let again = Identity::from_pem(&identity.to_pem()).unwrap();
    assert_eq!(identity.cluster_id(), again.cluster_id());
    for identity in [&identity, &again] {
        let leaf = identity.leaf(now()).unwrap();
        let [end, rest @ ..] = leaf.chain.as_slice() else {
            panic!("the chain is empty");
        };
        let proven = verify_chain(end, rest).unwrap();
        assert_eq!(&proven.cluster_id, identity.cluster_id());
        assert_eq!(&proven.fingerprint, identity.fingerprint());
    }
}

#[test]
fn an_identity_prints_its_id_and_nothing_else() {
    let identity = Identity::generate().unwrap();
    let printed = format!("{identity:?}");
    assert!(printed.contains(identity.cluster_id().as_str()));
    let pem = identity.to_pem();
    let secret = pem.lines().nth(1).unwrap();
    assert!(
        !printed.contains(secret) && printed.len() < 100,
        "{printed}"
    );
}

#[test]
fn what_is_not_an_ed25519_key_is_no_identity() {
    let other = key(&PKCS_ECDSA_P256_SHA256).serialize_pem();
    for text in ["", "nonsense", &other] {
        assert!(matches!(Identity::from_pem(text), Err(Error::NotAKey)));
    }
}

#[test]
fn an_identity_survives_a_restart_in_its_file() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state/identity.pem");
    let first = Identity::load_or_create(&path).unwrap();
    let second = Identity::load_or_create(&path).unwrap();
    assert_eq!(first.cluster_id(), second.cluster_id());
    std::fs::write(&path, "spoilt").unwrap();
    assert!(matches!(
        Identity::load_or_create(&path),
        Err(Error::NotAKey)
    ));
}

#[test]
fn a_leaf_is_due_at_two_thirds_of_its_life_or_when_the_clock_went_back() {
    let leaf = Identity::generate().unwrap().leaf(now()).unwrap();
    let days = |days: i64| now() + jiff::SignedDuration::from_hours(24 * days);
    assert!(!leaf.is_due(now()));
    assert!(!leaf.is_due(days(19)));
    assert!(leaf.is_due(days(20)));
    assert!(leaf.is_due(days(-1)));
}

#[test]
fn wrong_clocks_do_not_make_an_identity_wrong() {
    let identity = Identity::generate().unwrap();
    let seconds = |time: Timestamp| u64::try_from(time.as_second()).unwrap();
    for made in [
        "1970-01-01T00:00:00Z",
        "2016-01-01T00:00:00Z",
        "9999-12-30T00:00:00Z",
    ] {
        let leaf = identity.leaf(made.parse().unwrap()).unwrap();
        assert!(
            verify_chain(&leaf.chain[0], &leaf.chain[1..]).is_ok(),
            "{made}"
        );
        assert!(
            !is_within_validity(&leaf.chain[0], seconds(now())),
            "{made}"
        );
    }
    let leaf = identity.leaf(now()).unwrap();
    assert!(is_within_validity(&leaf.chain[0], seconds(now())));
}

#[test]
fn a_chain_has_exactly_two_links_in_their_order() {
    let [leaf, identity] = chain(&key(&PKCS_ED25519), &key(&PKCS_ED25519));
    assert!(matches!(verify_chain(&leaf, &[]), Err(Error::Links(1))));
    assert!(matches!(verify_chain(&identity, &[]), Err(Error::Links(1))));
    let three = [identity.clone(), identity.clone()];
    assert!(matches!(verify_chain(&leaf, &three), Err(Error::Links(3))));
    let swapped = verify_chain(&identity, std::slice::from_ref(&leaf));
    assert!(matches!(swapped, Err(Error::Signature("identity"))));
    let same = verify_chain(&identity, std::slice::from_ref(&identity));
    assert!(matches!(same, Err(Error::LeafIsIdentity)));
}

#[test]
fn a_leaf_that_another_key_signed_proves_nothing() {
    let [leaf, _] = chain(&key(&PKCS_ED25519), &key(&PKCS_ED25519));
    let [_, stolen] = chain(&key(&PKCS_ED25519), &key(&PKCS_ED25519));
    let result = verify_chain(&leaf, &[stolen]);
    assert!(matches!(result, Err(Error::Signature("leaf"))));
}

#[test]
fn only_ed25519_is_an_identity_and_only_ed25519_or_p256_a_leaf() {
    let ed25519 = key(&PKCS_ED25519);
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let [leaf, identity] = chain(&key(algorithm), &ed25519);
        let result = verify_chain(&leaf, &[identity]);
        assert!(matches!(result, Err(Error::KeyKind("identity"))));
    }
    let [leaf, identity] = chain(&ed25519, &key(&PKCS_ECDSA_P256_SHA256));
    assert!(verify_chain(&leaf, &[identity]).is_ok());
    let [leaf, identity] = chain(&ed25519, &key(&PKCS_ECDSA_P384_SHA384));
    let result = verify_chain(&leaf, &[identity]);
    assert!(matches!(result, Err(Error::KeyKind("leaf"))));
}

#[test]
fn an_rsa_identity_is_refused() {
    // A self-signed RSA 2048 certificate of OpenSSL.
    let rsa = include_bytes!("rsa.der");
    let [leaf, _] = chain(&key(&PKCS_ED25519), &key(&PKCS_ED25519));
    let result = verify_chain(&leaf, &[CertificateDer::from(rsa.as_slice())]);
    assert!(matches!(result, Err(Error::KeyKind("identity"))));
}

#[test]
fn no_bytes_at_all_make_the_verifier_fail_otherwise_than_by_an_error() {
    let [leaf, identity] = chain(&key(&PKCS_ED25519), &key(&PKCS_ED25519));
    let rest = [identity];
    for length in 0..leaf.len() {
        assert!(verify_chain(&leaf[..length], &rest).is_err(), "{length}");
    }
    for index in 0..leaf.len() {
        let mut spoilt = leaf.to_vec();
        spoilt[index] ^= 1;
        assert!(verify_chain(&spoilt, &rest).is_err(), "{index}");
        let _ = (leaf_key(&spoilt), is_within_validity(&spoilt, 0));
    }
    let mut longer = leaf.to_vec();
    longer.push(0);
    assert!(verify_chain(&longer, &rest).is_err());
    assert!(verify_chain(&vec![0x30; 100_000], &rest).is_err());
}
