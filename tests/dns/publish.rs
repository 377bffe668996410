//! Signed updates: with the right key, with a wrong one, with one that may not, and by the daemon.

use std::{collections::BTreeMap, fs, path::PathBuf};

use landbridge::{
    api::ClusterName,
    discovery::{
        dns::look,
        publish::{Listing, Publisher, UpdateError},
    },
    engine::domain::Look,
};
use serde_json::json;

use crate::{
    bind::{Bind, Zone},
    daemon::{asks, search_domain, serve},
    lab::Lab,
    lookup::{found, servers},
};

/// The keys that the server knows; only `rome` may change the zone.
const KEYS: &str = "key \"rome\" { algorithm hmac-sha256; secret \"cm9tZS1yb21lLXJvbWUtcm9tZQ==\"; };\n\
                    key \"guest\" { algorithm hmac-sha256; secret \"Z3Vlc3QtZ3Vlc3QtZ3Vlc3Q=\"; };\n";
const ROME: &str = "hmac-sha256:rome:cm9tZS1yb21lLXJvbWUtcm9tZQ==";

fn zone(name: &str) -> Zone {
    Zone::new(name, "neighbour A 10.9.9.9").with("update-policy { grant rome zonesub ANY; };")
}

struct Desk {
    bind: Bind,
    directory: tempfile::TempDir,
}

impl Desk {
    fn open() -> Option<Self> {
        Some(Self {
            bind: Bind::start(&[zone("pub.test")], KEYS)?,
            directory: tempfile::tempdir().expect("a directory"),
        })
    }

    fn publisher(&self, key: &str) -> Publisher {
        self.publisher_in("pub.test", key)
    }

    fn publisher_in(&self, zone: &str, key: &str) -> Publisher {
        let path: PathBuf = self.directory.path().join("key");
        fs::write(&path, key).expect("writable");
        Publisher::from_settings(zone, &self.bind.address(), path)
            .expect("settings")
            .expect("a zone")
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
    let directory = tempfile::tempdir().expect("a directory");
    let desk = Desk { bind, directory };
    let publisher = desk.publisher(ROME);
    let listing = listing("rome", "10.0.0.1");
    let error = publisher.publish(&listing).await.expect_err("in use");
    assert_eq!(error, UpdateError::InUse("rome.host.pub.test".to_owned()));
    publisher.withdraw(&listing).await.expect("nothing of ours");
    assert!(desk.found().await.is_empty());
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
    assert!(!error.to_string().is_empty(), "{error}");
    assert!(desk.found().await.is_empty());
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
