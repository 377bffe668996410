//! Certificates of an authority of the tests' own: which let in, and which do not.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

struct Files {
    directory: tempfile::TempDir,
    authority: Authority,
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority("known");
        fs::write(directory.path().join("roots"), authority.pem()).unwrap();
        Self {
            directory,
            authority,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a certificate for `rome.example.com`, changed in some way, and reads it all.
    fn certified(&self, by: &Authority, change: impl Fn(&mut CertificateParams)) -> WebPki {
        let mut params = CertificateParams::new(vec!["rome.example.com".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        fs::write(self.path("certificate"), certificate.pem()).unwrap();
        fs::write(self.path("key"), key.serialize_pem()).unwrap();
        let file = |name| self.path(name);
        WebPki::new(&file("certificate"), &file("key"), &file("roots")).unwrap()
    }
}

fn id(name: &str) -> ClusterId {
    name.parse().unwrap()
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// What rome shows to milan, and what milan makes of it.
#[expect(clippy::unwrap_in_result, reason = "what is judged is another failure")]
fn judge(files: &WebPki, host: &str) -> Result<(), Refusal> {
    let (asked, asking) = (id("rome"), id("milan"));
    let ends = Ends {
        asked: &asked,
        asking: &asking,
        exporter: &[7; 32],
    };
    let shown = files.attest(ends).unwrap().unwrap();
    files.verify(&shown, &[host.to_owned()], ends, now())
}

#[test]
fn a_certificate_holds_for_its_name_at_its_time_by_a_known_authority() {
    let files = Files::new();
    let good = files.certified(&files.authority, |_| {});
    assert_eq!(judge(&good, "rome.example.com"), Ok(()));
    for wrong in [
        "milan.example.com",
        "example.com",
        "10.0.0.1",
        "not a name",
        "",
    ] {
        assert!(judge(&good, wrong).is_err(), "{wrong}");
    }
    let expired = files.certified(&files.authority, |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let refusal = judge(&expired, "rome.example.com").unwrap_err();
    assert!(refusal.to_string().contains("xpired"), "{refusal}");
    let early = files.certified(&files.authority, |params| {
        params.not_before = date_time_ymd(4000, 1, 1);
    });
    assert!(judge(&early, "rome.example.com").is_err());
    let stranger = files.certified(&authority("unknown"), |_| {});
    let refusal = judge(&stranger, "rome.example.com").unwrap_err();
    assert!(refusal.to_string().contains("UnknownIssuer"), "{refusal}");
}

#[test]
fn a_signature_is_worth_nothing_between_others_or_in_another_session() {
    let files = Files::new();
    let pki = files.certified(&files.authority, |_| {});
    let (rome, milan, eve) = (id("rome"), id("milan"), id("eve"));
    let ends = Ends {
        asked: &rome,
        asking: &milan,
        exporter: &[7; 32],
    };
    let shown = pki.attest(ends).unwrap().unwrap();
    let hosts = ["rome.example.com".to_owned()];
    let verify = |shown: &Attestation, ends| pki.verify(shown, &hosts, ends, now());
    assert_eq!(verify(&shown, ends), Ok(()));
    let others = [
        Ends {
            asked: &eve,
            ..ends
        },
        Ends {
            asking: &eve,
            ..ends
        },
        Ends {
            exporter: &[8; 32],
            ..ends
        },
        Ends {
            asked: &milan,
            asking: &rome,
            ..ends
        },
    ];
    for ends in others {
        assert_eq!(verify(&shown, ends), Err(Refusal::Signature), "{ends:?}");
    }
    // Another certificate for the name does not take the signature over.
    let other = files.certified(&files.authority, |_| {});
    let theirs = other.attest(ends).unwrap().unwrap();
    let mixed = Attestation {
        chain: theirs.chain,
        ..shown.clone()
    };
    assert_eq!(verify(&mixed, ends), Err(Refusal::Signature));
    // ECDSA with SHA-1, which only TLS 1.2 has, and a number that nothing has.
    for scheme in [0x0203, 0xffff] {
        let mixed = Attestation {
            scheme,
            ..shown.clone()
        };
        assert_eq!(verify(&mixed, ends), Err(Refusal::Signature));
    }
}

#[test]
fn what_is_not_well_formed_or_too_large_is_refused() {
    let files = Files::new();
    let pki = files.certified(&files.authority, |_| {});
    let (rome, milan) = (id("rome"), id("milan"));
    let ends = Ends {
        asked: &rome,
        asking: &milan,
        exporter: &[7; 32],
    };
    let shown = pki.attest(ends).unwrap().unwrap();
    let chain = |chain: Vec<String>| Attestation {
        chain,
        ..shown.clone()
    };
    let signature = |signature: String| Attestation {
        signature,
        ..shown.clone()
    };
    let table = [
        chain(Vec::new()),
        chain(vec!["?".to_owned()]),
        chain(vec![STANDARD.encode([0; 64])]),
        chain(vec![STANDARD.encode(vec![0; 9000])]),
        chain(vec![shown.chain[0].clone(); 7]),
        signature("?".to_owned()),
        signature("A".repeat(4096)),
        signature(String::new()),
    ];
    let hosts = ["rome.example.com".to_owned()];
    for shown in table {
        assert!(
            pki.verify(&shown, &hosts, ends, now()).is_err(),
            "{shown:?}"
        );
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let files = Files::new();
    files.certified(&files.authority, |_| {});
    let file = |name| files.path(name);
    let none = PathBuf::new();
    fs::write(file("empty"), "").unwrap();
    let other = KeyPair::generate().unwrap().serialize_pem();
    fs::write(file("other"), other).unwrap();
    fs::write(file("long"), files.authority.pem().repeat(7)).unwrap();
    let table = [
        (file("certificate"), none.clone(), none.clone(), "keyFile"),
        (none.clone(), file("key"), none.clone(), "certificateFile"),
        (file("gone"), file("key"), none.clone(), "gone"),
        (file("certificate"), file("gone"), none.clone(), "gone"),
        (file("empty"), file("key"), none.clone(), "no certificate"),
        (
            file("certificate"),
            file("empty"),
            none.clone(),
            "private key",
        ),
        (
            file("certificate"),
            file("other"),
            none.clone(),
            "does not fit",
        ),
        (
            file("long"),
            file("key"),
            none.clone(),
            "leave the root out",
        ),
        (none.clone(), none.clone(), file("empty"), "no certificate"),
        (none.clone(), none.clone(), file("gone"), "gone"),
    ];
    for (certificate, key, roots, expected) in table {
        let error = WebPki::new(&certificate, &key, &roots).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let nothing = WebPki::new(&none, &none, &none).unwrap();
    let (rome, milan) = (id("rome"), id("milan"));
    let ends = Ends {
        asked: &rome,
        asking: &milan,
        exporter: &[7; 32],
    };
    assert!(nothing.attest(ends).unwrap().is_none());
}
