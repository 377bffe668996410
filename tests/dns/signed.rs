//! Signed zones: their status is told, and what is found in them is found all the same.

use std::{fs, path::Path, process::Command, str::FromStr as _, sync::Arc, thread, time::Duration};

use hickory_proto::dnssec::TrustAnchors;
use landbridge::{
    discovery::dns::{Servers, look},
    engine::domain::Dnssec,
};

use crate::{
    bind::{Bind, Zone, skip},
    lookup::{found, servers},
};

fn signed() -> Option<Bind> {
    let zone = Zone::new(
        "signed.test",
        "@ PTR rome\nrome SRV 0 0 5870 gate\ngate A 10.0.0.1",
    );
    let bind = Bind::start(
        &[zone.with("dnssec-policy default; inline-signing yes;")],
        "",
    )?;
    for _ in 0..100 {
        if bind.zone_keys("signed.test").contains("DNSKEY") {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Some(bind)
}

pub(crate) fn trusting(bind: &Bind, keys: &str) -> Servers {
    let anchors = TrustAnchors::from_str(keys).expect("DNSKEY records");
    servers(&[&bind.address()]).with_trust_anchors(Arc::new(anchors))
}

#[tokio::test]
async fn a_signed_domain_is_secure_with_its_key_and_bogus_with_another() {
    let Some(bind) = signed() else { return };
    let own = trusting(&bind, &bind.zone_keys("signed.test"));
    // The signatures follow the keys within a moment.
    let mut status = Dnssec::Indeterminate;
    for _ in 0..40 {
        status = look(&own, "signed.test").await.dnssec;
        if status == Dnssec::Secure {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status, Dnssec::Secure);
    let other = signed().expect("named is installed");
    let wrong = look(
        &trusting(&bind, &other.zone_keys("signed.test")),
        "signed.test",
    )
    .await;
    assert_eq!(wrong.dnssec, Dnssec::Bogus);
    assert_eq!(found(&wrong).len(), 1, "a hint all the same");
}

/// Signs the file of a zone, and returns it with the key that signs it.
pub(crate) fn sign(name: &str, zone: &str) -> Option<(String, String)> {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |program: &str, words: &[&str]| {
        let output = Command::new(program)
            .env("PATH", "/usr/bin:/usr/sbin")
            .args(words)
            .current_dir(directory.path())
            .output()
            .ok()?;
        output.status.success().then_some(())
    };
    fs::write(directory.path().join("zone"), zone).expect("writable");
    let signed = run("dnssec-keygen", &["-q", "-a", "ED25519", "-f", "KSK", name])
        .and_then(|()| run("dnssec-signzone", &["-S", "-z", "-o", name, "zone"]));
    if signed.is_none() {
        skip("dnssec-keygen or dnssec-signzone is not installed (Debian package bind9-utils)");
        return None;
    }
    let signed = fs::read_to_string(directory.path().join("zone.signed")).expect("readable");
    Some((signed, key_in(directory.path())))
}

/// A server with a zone signed by hand, and its key. What comes after the signing is not covered.
fn signed_by_hand(tamper: impl Fn(&str) -> String) -> Option<(Bind, String)> {
    let zone = "$TTL 30\n@ SOA ns hostmaster 1 3600 600 86400 20\n@ NS ns\nns A 127.0.0.1\n\
                @ PTR rome\nrome SRV 0 0 5870 gate\ngate A 10.0.0.1\n";
    let (signed, key) = sign("signed.test", zone)?;
    let bind = Bind::start(&[Zone::verbatim("signed.test", &tamper(&signed))], "")?;
    Some((bind, key))
}

/// Returns the one public key in a directory, as a DNSKEY record.
fn key_in(directory: &Path) -> String {
    let files = fs::read_dir(directory).expect("readable");
    let mut keys = files
        .map(|file| file.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "key"));
    let text = fs::read_to_string(keys.next().expect("a key")).expect("readable");
    let record = text.lines().find(|line| !line.starts_with(';'));
    format!("{}\n", record.expect("a record"))
}

#[tokio::test]
async fn a_record_that_was_changed_after_it_was_signed_is_bogus() {
    for (word, status) in [
        ("hostmaster", Dnssec::Secure),
        ("someoneelse", Dnssec::Bogus),
    ] {
        let tamper = |zone: &str| zone.replace("hostmaster", word);
        let Some((bind, key)) = signed_by_hand(tamper) else {
            return;
        };
        let looked = look(&trusting(&bind, &key), "signed.test").await;
        assert_eq!(looked.dnssec, status, "{word}");
        assert_eq!(found(&looked).len(), 1, "a hint all the same");
    }
}

#[tokio::test]
async fn without_a_way_to_the_root_it_cannot_be_told() {
    let zone = Zone::new(
        "plain.test",
        "@ PTR rome\nrome SRV 0 0 5870 gate\ngate A 10.0.0.1",
    );
    let Some(bind) = Bind::start(&[zone], "") else {
        return;
    };
    let look = look(&servers(&[&bind.address()]), "plain.test").await;
    assert_eq!(look.dnssec, Dnssec::Indeterminate);
    assert_eq!(found(&look).len(), 1);
}
