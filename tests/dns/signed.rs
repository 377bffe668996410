//! Signed zones: their status is told, and nothing else depends on it.

use std::{str::FromStr as _, sync::Arc, thread, time::Duration};

use hickory_proto::dnssec::TrustAnchors;
use landbridge::{
    discovery::dns::{Servers, look},
    engine::domain::Dnssec,
};

use crate::{
    bind::{Bind, Zone},
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

fn trusting(bind: &Bind, keys: &str) -> Servers {
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
