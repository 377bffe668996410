//! TLSA records in a signed domain let their cluster in where the SearchDomain says so, and nowhere
//! else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    str::FromStr as _,
    sync::Arc,
};

use hickory_proto::dnssec::TrustAnchors;
use landbridge::{api::Fingerprint, discovery::dns::look_with_keys, engine::domain::Dnssec};
use serde_json::{Value, json};

use crate::{
    bind::{Bind, Zone},
    daemon::{search_domain, serve},
    lab::Lab,
    lookup::servers,
    signed::{sign, trusting},
};

/// A zone of hosts at which TLSA records say this and that. The digests are all of one byte.
const ZONE: &str = "$TTL 30
@ SOA ns hostmaster 1 3600 600 86400 20
@ NS ns
ns A 127.0.0.1
@ PTR good
good SRV 0 0 5870 gate
gate A 10.0.0.1
_5870._tcp.gate TLSA 2 1 1 0101010101010101010101010101010101010101010101010101010101010101
_5870._tcp.gate TLSA 3 1 1 0202020202020202020202020202020202020202020202020202020202020202
_5870._tcp.gate TLSA 0 1 1 0303030303030303030303030303030303030303030303030303030303030303
_5870._tcp.gate TLSA 2 1 2 04040404040404040404040404040404040404040404040404040404040404040404040404040404040404040404040404040404040404040404040404040404
@ PTR alias
alias SRV 0 0 5870 behind
behind A 10.0.0.2
_5870._tcp.behind CNAME keys
keys TLSA 2 1 1 0505050505050505050505050505050505050505050505050505050505050505
@ PTR port
port SRV 0 0 5871 gate
@ PTR none
none SRV 0 0 5870 bare
bare A 10.0.0.3
@ PTR forged
forged SRV 0 0 5870 changed
changed A 10.0.0.4
_5870._tcp.changed TLSA 2 1 1 0606060606060606060606060606060606060606060606060606060606060606
@ PTR moved
moved SRV 0 0 5999 gate
@ PTR away
away SRV 0 0 5870 gate.plain.test.
";
/// A zone that is not signed.
const PLAIN: &str = "gate A 10.0.0.5
_5870._tcp.gate TLSA 2 1 1 0707070707070707070707070707070707070707070707070707070707070707
@ PTR plain
plain SRV 0 0 5870 gate
";

/// Returns the first byte of each key that each entry of a domain is vouched for with.
async fn keys(bind: &Bind, anchor: &str, domain: &str) -> BTreeMap<String, String> {
    let look = look_with_keys(&trusting(bind, anchor), domain).await;
    let entries = look.entries.iter().map(|entry| {
        let services = entry.services.as_ref().expect("answered");
        let keys: BTreeSet<&Fingerprint> = services.iter().flat_map(|one| &one.keys).collect();
        let first = keys.iter().map(|key| &key.digits()[..2]);
        let name = entry.instance.split('.').next().unwrap_or_default();
        (name.to_owned(), first.collect::<Vec<_>>().join(" "))
    });
    entries.collect()
}

#[tokio::test]
async fn only_keys_that_dnssec_proves_on_the_whole_way_are_read() {
    let Some((signed, anchor)) = sign("signed.test", ZONE) else {
        return;
    };
    // Somebody on the way writes another digest and another port.
    let tampered = signed
        .replacen("060606", "666666", 1)
        .replacen("0 0 5999 ", "0 0 5870 ", 1);
    assert_eq!(tampered.len(), signed.len());
    assert!(tampered.contains("666666") && !tampered.contains(" 5999 "));
    let zones = [
        Zone::verbatim("signed.test", &tampered),
        Zone::new("plain.test", PLAIN),
    ];
    let Some(bind) = Bind::start(&zones, "") else {
        return;
    };
    let table = [
        ("good", "01 02"),
        ("alias", "05"),
        ("port", ""),
        ("none", ""),
        ("forged", ""),
        ("moved", ""),
        ("away", ""),
    ];
    let expected = table.map(|(name, keys)| (name.to_owned(), keys.to_owned()));
    let found = keys(&bind, &anchor, "signed.test").await;
    assert_eq!(found, BTreeMap::from(expected));

    // A domain that is not signed, and one that is signed by somebody else.
    let found = keys(&bind, &anchor, "plain.test").await;
    assert_eq!(found["plain"], "");
    let (_, other) = sign("signed.test", ZONE).expect("as before");
    let found = keys(&bind, &other, "signed.test").await;
    assert!(
        found.len() == 7 && found.values().all(String::is_empty),
        "{found:?}"
    );
}

#[tokio::test]
async fn another_name_server_proves_what_the_first_does_not_answer() {
    let Some((signed, anchor)) = sign("signed.test", ZONE) else {
        return;
    };
    let Some(bind) = Bind::start(&[Zone::verbatim("signed.test", &signed)], "") else {
        return;
    };
    let anchors = TrustAnchors::from_str(&anchor).expect("DNSKEY records");
    let both = servers(&["127.0.0.1:9", &bind.address()]).with_trust_anchors(Arc::new(anchors));
    let look = look_with_keys(&both, "signed.test").await;
    assert_eq!(look.dnssec, Dnssec::Secure);
    let services = look.entries.iter().flat_map(|entry| &entry.services);
    assert!(services.flatten().any(|one| !one.keys.is_empty()));
}

/// The zone of what these machines print for it, without what a zone has once.
fn printed(lab: &Lab, machines: &[&str]) -> String {
    let head = "$TTL 5\n$ORIGIN clusters.test.\n@ SOA ns hostmaster 1 3600 600 86400 5\n@ NS ns\nns A 127.0.0.1\n";
    let mut zone = head.to_owned();
    for machine in machines {
        let printed = lab.landbridge(machine, &["dns", "zone", "--domain", "clusters.test"]);
        let once = |line: &&str| !line.starts_with(['$', ';']) && !line.contains(" NS ");
        for line in printed.lines().filter(once) {
            if !line.contains(" SOA ") {
                writeln!(zone, "{line}").expect("a string takes everything");
            }
        }
    }
    zone
}

/// The reason of condition Trusted, and the object.
pub(crate) fn trusted(lab: &Lab, machine: &str, name: &str) -> Option<(String, Value)> {
    let object = lab.get(machine, &["foreignclusters", name])?;
    let conditions = object["status"]["conditions"].as_array()?;
    let trusted = conditions.iter().find(|one| one["type"] == "Trusted")?;
    Some((trusted["reason"].as_str()?.to_owned(), object))
}

#[test]
fn clusters_of_a_signed_domain_peer_without_a_keystroke_where_that_is_wanted() {
    let Some(lab) = Lab::new(&["rome", "milan", "turin", "dns"]) else {
        return;
    };
    let machines = ["rome", "milan", "turin"];
    let anchors = lab.write("anchors", "");
    let dns = json!({"servers": [lab.address("dns")]});
    for machine in machines {
        lab.start_with(machine, &json!({"lan": {"enabled": false}, "dns": dns}));
    }
    let Some((signed, key)) = sign("clusters.test", &printed(&lab, &machines)) else {
        return;
    };
    lab.write("anchors", &key);
    let _bind = serve(&lab, &[Zone::verbatim("clusters.test", &signed)], "");
    let dns = json!({"servers": [lab.address("dns")], "trustAnchorsFile": anchors});
    for machine in machines {
        lab.stop(machine);
        lab.start_with(machine, &json!({"lan": {"enabled": false}, "dns": dns}));
        lab.apply(machine, &search_domain(true));
    }
    for (here, there) in [("rome", "milan"), ("milan", "rome"), ("rome", "turin")] {
        lab.until("a stranger waits for a person", || {
            let (reason, object) = trusted(&lab, here, there)?;
            let waits = object["status"]["phase"] == "Waiting";
            (waits && reason == "ApprovalNeeded").then_some(())
        });
    }
    lab.landbridge("rome", &["deny", "turin"]);
    for machine in machines {
        assert!(trust(&lab, machine, r#"["TLSA"]"#), "{}", lab.story());
    }
    for (here, there) in [("rome", "milan"), ("milan", "rome"), ("milan", "turin")] {
        let object = lab.until("it is peered by its key in the domain", || {
            let (reason, object) = trusted(&lab, here, there)?;
            let peered = object["status"]["phase"] == "Peered";
            (peered && reason == "TLSA").then_some(object)
        });
        let by = &object["metadata"]["annotations"]["discovery.liqo.io/trusted-by"];
        assert_eq!(by, "TLSA");
        assert_eq!(object["spec"]["trustMode"], "Trusted");
    }
    let (reason, object) = trusted(&lab, "rome", "turin").expect("it stands");
    assert_eq!(reason, "Blocked", "no record lifts what a person said");
    assert_eq!(object["spec"]["trustMode"], "Untrusted");
    assert!(!trust(&lab, "rome", r#"["Anybody"]"#));
    let words = ["explain", "searchdomain.spec.trustedBy"];
    let explained = lab.kubectl("rome", &words).stdout;
    let explained = String::from_utf8_lossy(&explained).into_owned();
    assert!(explained.contains("TLSA is a signed"), "{explained}");
}

/// Says on a machine by what the domain lets its clusters in, and returns whether that was taken.
pub(crate) fn trust(lab: &Lab, machine: &str, ways: &str) -> bool {
    let patch = format!(r#"{{"spec":{{"trustedBy":{ways}}}}}"#);
    let object = ["patch", "searchdomain", "clusters"];
    let words = [&object[..], &["--type=merge", "-p", &patch]].concat();
    lab.kubectl(machine, &words).status.success()
}
