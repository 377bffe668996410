//! Signed updates: with the right key, with a wrong one, with one that may not, and by the daemon.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use landbridge::{
    api::{ClusterName, Fingerprint},
    discovery::{
        dns::{look, look_with_keys},
        publish::{Destination, Listing, Publisher, UpdateError},
    },
    engine::domain::{Dnssec, Look, zone::Style},
};
use serde_json::json;

use crate::{
    bind::{Bind, Zone},
    daemon::{asks, search_domain, serve},
    lab::Lab,
    lookup::{found, servers},
    signed::trusting,
};

/// The keys that the server knows; only `rome` may change the zone.
const KEYS: &str = "key \"rome\" { algorithm hmac-sha256; secret \"cm9tZS1yb21lLXJvbWUtcm9tZQ==\"; };\n\
                    key \"guest\" { algorithm hmac-sha256; secret \"Z3Vlc3QtZ3Vlc3QtZ3Vlc3Q=\"; };\n";
const ROME: &str = "hmac-sha256:rome:cm9tZS1yb21lLXJvbWUtcm9tZQ==";

fn zone(name: &str) -> Zone {
    Zone::new(name, "neighbour A 10.9.9.9").with("update-policy { grant rome zonesub ANY; };")
}

struct Desk {
    /// Where updates are sent to.
    server: String,
    bind: Bind,
    directory: tempfile::TempDir,
}

impl Desk {
    fn open() -> Option<Self> {
        Some(Self::before(Bind::start(&[zone("pub.test")], KEYS)?))
    }

    fn before(bind: Bind) -> Self {
        Self {
            server: bind.address(),
            bind,
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    fn publisher(&self, key: &str) -> Publisher {
        self.publisher_in("pub.test", key)
    }

    fn publisher_in(&self, zone: &str, key: &str) -> Publisher {
        self.publisher_of(zone, key, Style::Rfc6763)
    }

    /// A publisher on a machine without a mark.
    fn publisher_of(&self, zone: &str, key: &str, style: Style) -> Publisher {
        let path: PathBuf = self.directory.path().join("key");
        fs::write(&path, key).expect("writable");
        let destination = Destination::from_settings(zone, &self.server, path, style);
        match destination.expect("settings") {
            Some(Destination::Server(publisher)) => publisher.on_machine(None),
            other => unreachable!("there is a server: {other:?}"),
        }
    }

    async fn look(&self) -> Look {
        look(&servers(&[&self.bind.address()]), "pub.test").await
    }

    async fn found(&self) -> BTreeMap<String, Vec<String>> {
        found(&self.look().await)
    }
}

fn listing(id: &str, address: &str) -> Listing {
    Listing {
        cluster_id: id.parse().expect("an id"),
        name: ClusterName::neutralise("Rome"),
        port: 5870,
        addresses: vec![address.parse().expect("an address")],
        advertise: None,
        key: None,
    }
}

#[tokio::test]
async fn records_are_created_refreshed_and_withdrawn() {
    let Some(desk) = Desk::open() else { return };
    let publisher = desk.publisher(ROME);
    publisher
        .publish(&listing("rome", "10.0.0.1"))
        .await
        .expect("created");
    let names = [
        "rome._landbridge._tcp.pub.test",
        "rome._liqo_auth._tcp.pub.test",
    ];
    let first = desk.found().await;
    assert_eq!(first.keys().map(String::as_str).collect::<Vec<_>>(), names);
    assert_eq!(first[names[0]], ["10.0.0.1:5870"]);
    let claim = desk.look().await.entries[0].claim.clone().expect("a claim");
    assert_eq!(claim.cluster_id, "rome".parse().ok());
    assert_eq!(claim.name.as_str(), "Rome");

    publisher
        .publish(&listing("rome", "10.0.0.2"))
        .await
        .expect("replaced");
    assert_eq!(desk.found().await[names[0]], ["10.0.0.2:5870"]);
    publisher
        .publish(&listing("milan", "10.0.0.3"))
        .await
        .expect("beside");
    assert_eq!(desk.found().await.len(), 4);
    publisher
        .withdraw(&listing("rome", "10.0.0.2"))
        .await
        .expect("withdrawn");
    let left = desk.found().await;
    assert_eq!(left.len(), 2);
    assert!(left.keys().all(|name| name.starts_with("milan.")));
    publisher
        .withdraw(&listing("rome", "10.0.0.2"))
        .await
        .expect("again");
}

#[tokio::test]
async fn the_key_is_published_and_withdrawn_with_the_records() {
    let zone = zone("pub.test").with(
        "update-policy { grant rome zonesub ANY; }; dnssec-policy default; inline-signing yes;",
    );
    let Some(bind) = Bind::start(&[zone], KEYS) else {
        return;
    };
    let desk = Desk::before(bind);
    let key = Fingerprint::from_spki(b"rome");
    let listing = Listing {
        key: Some(key.clone()),
        ..listing("rome", "10.0.0.1")
    };
    let publisher = desk.publisher(ROME);
    publisher.publish(&listing).await.expect("created");
    let keys = async || {
        let servers = trusting(&desk.bind, &desk.bind.zone_keys("pub.test"));
        let look = look_with_keys(&servers, "pub.test").await;
        let services = look
            .entries
            .iter()
            .filter_map(|one| one.services.clone().ok());
        let keys = services.flatten().map(|one| one.keys.len());
        (look.dnssec, keys.collect::<Vec<_>>())
    };
    let mut found = (Dnssec::Indeterminate, Vec::new());
    for _ in 0..100 {
        found = keys().await;
        if found.1 == [1, 1] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(found, (Dnssec::Secure, vec![1, 1]));
    publisher.publish(&listing).await.expect("replaced");
    publisher.withdraw(&listing).await.expect("withdrawn");
    // With a record of ours left behind, the names would not be free.
    publisher.publish(&listing).await.expect("created anew");
}

#[tokio::test]
async fn an_earlier_port_is_cleared_and_free_again() {
    let Some(desk) = Desk::open() else { return };
    let publisher = desk.publisher(ROME);
    let at = |port| Listing {
        port,
        key: Some(Fingerprint::from_spki(b"rome")),
        ..listing("rome", "10.0.0.1")
    };
    // A run that was killed is followed by one at another port, or by the withdrawal of one.
    for ports in [&[5870, 5871][..], &[5870]] {
        for port in ports {
            publisher.publish(&at(*port)).await.expect("published");
        }
        publisher.withdraw(&at(5871)).await.expect("withdrawn");
        publisher.publish(&at(5870)).await.expect("free again");
        let found = desk.found().await;
        assert_eq!(found["rome._landbridge._tcp.pub.test"], ["10.0.0.1:5870"]);
        publisher.withdraw(&at(5870)).await.expect("withdrawn");
    }
}

#[tokio::test]
async fn a_name_that_gives_the_endpoint_is_published_as_the_target() {
    let Some(desk) = Desk::open() else { return };
    let listing = Listing {
        advertise: "https://neighbour.pub.test:8443".parse().ok(),
        ..listing("rome", "10.0.0.1")
    };
    desk.publisher(ROME)
        .publish(&listing)
        .await
        .expect("created");
    let found = desk.found().await;
    assert_eq!(found["rome._landbridge._tcp.pub.test"], ["10.9.9.9:8443"]);
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_never_touched() {
    let zone = zone("pub.test");
    let records = "rome.host A 10.7.7.7\nrome.host TXT \"somebody else\"\n";
    let Some(bind) = Bind::start(&[zone.and(records)], KEYS) else {
        return;
    };
    let desk = Desk::before(bind);
    let publisher = desk.publisher(ROME);
    let listing = listing("rome", "10.0.0.1");
    let error = publisher.publish(&listing).await.expect_err("in use");
    assert_eq!(error, UpdateError::InUse("rome.host.pub.test".to_owned()));
    publisher.withdraw(&listing).await.expect("nothing of ours");
    assert!(desk.found().await.is_empty());
}

#[tokio::test]
async fn a_zone_in_liqos_style_is_published_and_changes_its_style_in_place() {
    let Some(desk) = Desk::open() else { return };
    let listing = listing("rome", "10.0.0.1");
    let liqo = desk.publisher_of("pub.test", ROME, Style::Liqo);
    liqo.publish(&listing).await.expect("created");
    let found = desk.found().await;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["rome.pub.test"]);
    assert_eq!(found["rome.pub.test"], ["10.0.0.1:5870"]);
    desk.publisher(ROME)
        .publish(&listing)
        .await
        .expect("replaced");
    let found = desk.found().await;
    assert_eq!(found.len(), 2);
    assert!(found.keys().all(|name| name.starts_with("rome._")));
    liqo.withdraw(&listing).await.expect("withdrawn");
    assert!(desk.found().await.is_empty());
}

#[tokio::test]
async fn what_an_earlier_identity_of_the_machine_left_is_removed() {
    let Some(desk) = Desk::open() else { return };
    let on = |machine: &str| desk.publisher(ROME).on_machine(Some(machine.to_owned()));
    // Each was killed, so that its records stay.
    for (id, machine, address) in [
        ("earlier", "m1", "10.0.0.1"),
        ("copy-of-the-machine", "m1", "10.0.0.9"),
        ("other-site-with-our-address", "m2", "10.0.0.1"),
    ] {
        let published = on(machine).publish(&listing(id, address)).await;
        published.expect("created");
    }
    on("m1")
        .publish(&listing("now", "10.0.0.1"))
        .await
        .expect("created");
    let ids = |found: BTreeMap<String, Vec<String>>| -> Vec<String> {
        let own = found.into_keys().filter(|name| name.contains("_liqo_auth"));
        own.filter_map(|name| Some(name.split('.').next()?.to_owned()))
            .collect()
    };
    let left = ["copy-of-the-machine", "now", "other-site-with-our-address"];
    assert_eq!(ids(desk.found().await), left);
    // A listing whose records somebody removed is forgotten, and nothing is left in the end.
    for (id, machine, address) in [
        ("copy-of-the-machine", "m1", "10.0.0.9"),
        ("other-site-with-our-address", "m2", "10.0.0.1"),
        ("now", "m1", "10.0.0.1"),
    ] {
        let withdrawn = on(machine).withdraw(&listing(id, address)).await;
        withdrawn.expect("withdrawn");
    }
    assert!(desk.found().await.is_empty());
    let log = desk.bind.log();
    let last = log
        .lines()
        .rfind(|line| line.contains("m1.machine.pub.test"));
    assert!(last.is_some_and(|line| line.contains("deleting")), "{log}");
}

#[test]
fn a_rejected_key_is_told_by_status_and_mended_without_a_restart() {
    let Some(lab) = Lab::new(&["rome", "dns"]) else {
        return;
    };
    let bind = serve(&lab, &[zone("clusters.test")], "");
    let key = tempfile::NamedTempFile::new().expect("a file");
    fs::write(key.path(), ROME).expect("writable");
    let publish = json!({
        "publish": {"zone": "clusters.test", "server": bind.address(), "tsigKeyFile": key.path()},
    });
    lab.start("rome", &publish, false);
    let told = |part: &str| {
        lab.until(part, || {
            let status = lab.landbridge("rome", &["status"]);
            status.contains(part).then_some(())
        });
    };
    told("‼ this cluster is not listed in the DNS domain clusters.test: TSIG key rejected");
    drop(bind);
    let _bind = serve(&lab, &[zone("clusters.test")], KEYS);
    told("√ all is well");
}

/// As much of the definition of ExternalDNS as matters here.
fn dns_endpoint_definition() -> serde_json::Value {
    let targets = json!({"type": "array", "items": {"type": "string"}});
    let endpoint = json!({"type": "object", "properties": {
        "dnsName": {"type": "string"}, "recordType": {"type": "string"},
        "recordTTL": {"type": "integer", "format": "int64"}, "targets": targets}});
    let spec = json!({"type": "object", "properties": {
        "endpoints": {"type": "array", "items": endpoint}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "dnsendpoints.externaldns.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/external-dns/pull/2007"}},
        "spec": {"group": "externaldns.k8s.io", "scope": "Namespaced",
            "names": {"kind": "DNSEndpoint", "listKind": "DNSEndpointList",
                "plural": "dnsendpoints", "singular": "dnsendpoint"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]},
    })
}

#[test]
fn without_a_server_the_zone_is_left_to_the_external_dns_of_the_cluster() {
    let Some(lab) = Lab::new(&["rome"]) else {
        return;
    };
    lab.start(
        "rome",
        &json!({"publish": {"zone": "clusters.test"}}),
        false,
    );
    lab.until("status tells what is missing", || {
        let status = lab.landbridge("rome", &["status"]);
        status
            .contains("the cluster has no kind DNSEndpoint")
            .then_some(())
    });
    lab.apply("rome", &dns_endpoint_definition());
    let object = lab.until("the object is written", || {
        lab.get("rome", &["-n", "liqo", "dnsendpoints", "landbridge"])
    });
    let endpoints = object["spec"]["endpoints"].as_array().expect("a list");
    let host = endpoints
        .iter()
        .find(|endpoint| endpoint["recordType"] == "A");
    let targets = host.map(|endpoint| endpoint["targets"].clone());
    assert_eq!(targets, Some(json!([lab.address("rome")])));
    let listed = endpoints
        .iter()
        .find(|endpoint| endpoint["recordType"] == "PTR");
    let listed = listed.map(|endpoint| endpoint["dnsName"].clone());
    assert_eq!(listed, Some(json!("_landbridge._tcp.clusters.test")));
    lab.until("all is well", || {
        let status = lab.landbridge("rome", &["status"]);
        status.contains("√ all is well").then_some(())
    });
}

#[tokio::test]
async fn each_refusal_says_what_is_wrong() {
    let Some(desk) = Desk::open() else { return };
    let listing = listing("rome", "10.0.0.1");
    let table = [
        (
            "hmac-sha256:rome:d3Jvbmctd3Jvbmctd3Jvbmc=",
            "TSIG key rejected",
        ),
        (
            "hmac-sha256:nobody:bm9ib2R5LW5vYm9keS1ub2JvZHk=",
            "TSIG key rejected",
        ),
        (
            "hmac-sha512:rome:cm9tZS1yb21lLXJvbWUtcm9tZQ==",
            "TSIG key rejected",
        ),
        (
            "hmac-sha256:guest:Z3Vlc3QtZ3Vlc3QtZ3Vlc3Q=",
            "the name server refuses the update",
        ),
    ];
    for (key, part) in table {
        let error = desk.publisher(key).publish(&listing).await.expect_err(key);
        assert!(error.to_string().contains(part), "{key}: {error}");
    }
    let elsewhere = desk.publisher_in("other.test", ROME);
    let error = elsewhere.publish(&listing).await.expect_err("no such zone");
    assert_eq!(error, UpdateError::NotItsZone("other.test".to_owned()));
    assert!(desk.found().await.is_empty());
}

/// A way to a server on which the first answer that an update was made gets lost.
fn lossy_way(server: &str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let server: SocketAddr = server.parse().expect("an address");
    std::thread::spawn(move || {
        let (mut buffer, mut is_lost) = ([0; 4096], false);
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let way = UdpSocket::bind("127.0.0.1:0").expect("a port");
            way.set_read_timeout(Some(Duration::from_secs(5))).ok();
            way.send_to(&buffer[..length], server).expect("sent");
            let Ok(length) = way.recv(&mut buffer) else {
                continue;
            };
            // An answer (bit 15) to an update (operation 5) without an error (RFC 2136, section 2.2).
            let (is_answer, is_error) = (buffer[2] & 0xf8 == 0xa8, buffer[3] & 0x0f != 0);
            if is_answer && !is_error && !std::mem::replace(&mut is_lost, true) {
                continue;
            }
            socket.send_to(&buffer[..length], client).expect("sent");
        }
    });
    address
}

#[tokio::test]
async fn an_answer_that_gets_lost_does_not_make_our_own_names_those_of_others() {
    let Some(mut desk) = Desk::open() else { return };
    desk.server = lossy_way(&desk.server).to_string();
    let publisher = desk.publisher(ROME);
    let published = publisher.publish(&listing("rome", "10.0.0.1")).await;
    published.expect("created");
    assert_eq!(desk.found().await.len(), 2);
}

#[test]
fn a_daemon_publishes_itself_and_is_found_until_it_leaves() {
    let Some(lab) = Lab::new(&["rome", "milan", "dns"]) else {
        return;
    };
    let bind = serve(&lab, &[zone("clusters.test")], KEYS);
    let key = tempfile::NamedTempFile::new().expect("a file");
    fs::write(key.path(), ROME).expect("writable");
    let publish = json!({
        "servers": [lab.address("dns")],
        "publish": {"zone": "clusters.test", "server": bind.address(), "tsigKeyFile": key.path()},
    });
    lab.start("milan", &publish, false);
    lab.until("milan is published", || {
        lab.story().contains("Zone updated").then_some(())
    });
    lab.start("rome", &asks(&lab), false);
    lab.apply("rome", &search_domain(true));
    lab.until("milan is peered", || {
        lab.get("rome", &["foreignclusters", "milan"])
            .filter(|object| object["status"]["phase"] == "Peered")
    });
    lab.stop("milan");
    let log = bind.log();
    let deleted = log.lines().filter(|line| line.contains("deleting")).count();
    assert!(deleted > 0, "nothing was withdrawn:\n{log}");
}
