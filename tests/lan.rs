//! The built program in network namespaces: real packets, real interfaces, one daemon a machine.
#![expect(
    clippy::indexing_slicing,
    reason = "a missing field is null, and the test fails"
)]

#[path = "lan/by_hand.rs"]
mod by_hand;
#[path = "lan/forgery.rs"]
mod forgery;
#[path = "lan/health.rs"]
mod health;
#[path = "lan/lab.rs"]
mod lab;
#[path = "lan/multicast.rs"]
mod multicast;
#[path = "lan/paths.rs"]
mod paths;
#[path = "lan/policy.rs"]
mod policy;
#[path = "support/process.rs"]
#[expect(dead_code, reason = "tests and benchmarks elsewhere use the rest")]
mod process;
#[path = "lan/trust.rs"]
mod trust;
#[path = "lan/verbs.rs"]
mod verbs;
#[path = "lan/wire.rs"]
mod wire;

use std::{
    net::Ipv4Addr,
    process::{Command, Output},
    time::Duration,
};

use lab::Lab;
use serde_json::{Value, json};

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn two_clusters_find_each_other() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start_all();
    for (here, there) in lab.pairs() {
        let found = lab.until(PATIENCE, &format!("{here} has found {there}"), || {
            // Whoever is found first may be asked before it finds us.
            lab.peer(here, there).filter(|object| {
                let lan = object["spec"]["discoveryType"] == "LAN";
                lan && lab::condition(object, "IdentityVerified")
            })
        });
        let id = found["spec"]["clusterIdentity"]["clusterID"]
            .as_str()
            .expect("an id");
        assert_eq!(
            found["metadata"]["labels"]["discovery.liqo.io/cluster-id"],
            id
        );
        assert_eq!(
            Some(id),
            lab.status(there)["clusterID"].as_str(),
            "{there} says so itself"
        );
        let url = format!("https://{}:5870", lab.address(there));
        assert_eq!(found["spec"]["authUrl"], url.as_str());
        assert_eq!(lab.peers(here).len(), 1, "only {there} is out there");
    }
}

#[test]
fn ping_crosses_the_tunnel() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start_all();
    lab.until_peered();
    for (here, there) in lab.pairs() {
        let address = lab.tunnel_address(here, there);
        assert!(
            lab.ping(here, address),
            "{here} reaches {there} at {address}\n{}",
            lab.story()
        );
    }
}

#[test]
fn leave_takes_everything_away() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start_all();
    lab.until_peered();
    for (here, there) in lab.pairs() {
        lab.landbridge(here, &["leave", there]);
    }
    for (here, there) in lab.pairs() {
        until_nothing_is_left(&lab, here);
        let object = lab.peer(here, there).expect("the object stays");
        assert_eq!(object["spec"]["join"], false, "the user's word stays");
    }
}

#[test]
fn rejoin_brings_it_back() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start_all();
    lab.until_peered();
    for (here, there) in lab.pairs() {
        lab.landbridge(here, &["leave", there]);
    }
    for (here, _) in lab.pairs() {
        until_nothing_is_left(&lab, here);
    }
    for (here, there) in lab.pairs() {
        lab.landbridge(here, &["join", there]);
    }
    lab.until_peered();
    for (here, there) in lab.pairs() {
        let address = lab.tunnel_address(here, there);
        assert!(
            lab.ping(here, address),
            "{here} reaches {there} again\n{}",
            lab.story()
        );
    }
}

#[test]
fn restart_resumes() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start_all();
    lab.until_peered();
    let before = lab.peer("rome", "milan").expect("peered");
    assert_eq!(
        lab.terminate("rome"),
        Some(0),
        "a signal ends it well\n{}",
        lab.story()
    );
    assert!(
        !lab.has_interface("rome", "landbridge0"),
        "no interface stays"
    );
    lab.start("rome");
    resumed(&lab, &before);
    lab.kill("rome");
    lab.start("rome");
    resumed(&lab, &before);
}

fn resumed(lab: &Lab, before: &Value) {
    let address = lab.until(PATIENCE, "rome knows milan's address", || {
        lab.tunnel_address_now("rome", "milan")
    });
    lab.until(PATIENCE, "rome reaches milan again", || {
        lab.ping("rome", address).then_some(())
    });
    lab.until_peered();
    let after = lab.peer("rome", "milan").expect("peered");
    assert_eq!(
        after["metadata"]["uid"], before["metadata"]["uid"],
        "the same object"
    );
    assert_eq!(
        after["spec"], before["spec"],
        "nobody touched what is wanted"
    );
}

#[test]
fn leaving_the_lan_expires_the_peer() {
    let Some(mut lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    let policy = "{discoveryConfig: {autojoin: false, autojoinUntrusted: false}}";
    lab.set("LANDBRIDGE_CLUSTER_CONFIG", policy);
    lab.start_all();
    for (here, there) in lab.pairs() {
        lab.until(PATIENCE, &format!("{here} has found {there}"), || {
            lab.peer(here, there)
        });
    }
    assert_eq!(
        lab.terminate("milan"),
        Some(0),
        "a signal ends it well\n{}",
        lab.story()
    );
    lab.until(
        PATIENCE,
        "rome has forgotten milan, who said goodbye",
        || lab.peers("rome").is_empty().then_some(()),
    );
    lab.start("milan");
    lab.until(PATIENCE, "rome has found milan again", || {
        lab.peer("rome", "milan")
    });
    lab.ip(Some("milan"), "link set eth0 down");
    // An announcement lives for two minutes (RFC 6762, section 10), and what expired a while longer.
    lab.until(
        PATIENCE * 4,
        "rome has forgotten milan, who vanished",
        || lab.peers("rome").is_empty().then_some(()),
    );
}

#[test]
fn a_new_address_is_followed() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start_all();
    lab.until_peered();
    let old = lab.address("milan");
    lab.ip(Some("milan"), &format!("address del {old}/24 dev eth0"));
    lab.ip(Some("milan"), "address add 10.77.0.99/24 dev eth0");
    lab.until(PATIENCE, "rome knows milan's new address", || {
        let object = lab.peer("rome", "milan")?;
        (object["spec"]["authUrl"] == "https://10.77.0.99:5870").then_some(())
    });
    let inside = lab.tunnel_address("rome", "milan");
    lab.until(PATIENCE, "rome reaches milan through the tunnel", || {
        lab.ping("rome", inside).then_some(())
    });
    lab.until_peered();
}

#[test]
fn manual_foreign_cluster_peers() {
    let Some(mut lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.set("LANDBRIDGE_LAN_ENABLED", "false");
    lab.start_all();
    let example = include_str!("../examples/manual/foreign-cluster-auth-url.yaml");
    let yaml = example
        .replace("<ADDRESS>", &lab.address("milan").to_string())
        .replace("<PORT>", "5870");
    let object: Value = serde_saphyr::from_str(&yaml).expect("the example is YAML");
    let path = "/apis/discovery.liqo.io/v1alpha1/foreignclusters";
    lab.request("rome", "POST", path, &object);
    let found = lab.until(PATIENCE, "rome knows who my-cluster is", || {
        lab.peer("rome", "my-cluster")
            .filter(|object| lab::condition(object, "IdentityVerified"))
    });
    let milan = lab.status("milan")["clusterID"].clone();
    assert_eq!(found["spec"]["clusterIdentity"]["clusterID"], milan);
    assert_eq!(found["spec"]["join"], false, "nobody asked for more");
    let wish = json!({"spec": {"join": true}});
    lab.request("rome", "PATCH", &format!("{path}/my-cluster"), &wish);
    let address: Ipv4Addr = lab.until(PATIENCE, "rome has a tunnel to my-cluster", || {
        lab.tunnel_address_now("rome", "my-cluster")
    });
    lab.until(PATIENCE, "rome reaches my-cluster", || {
        lab.ping("rome", address).then_some(())
    });
    let incoming = lab.until(PATIENCE, "milan knows rome", || lab.peer("milan", "rome"));
    assert_eq!(incoming["spec"]["discoveryType"], "IncomingPeering");
    assert_eq!(
        incoming["spec"]["join"], false,
        "milan was not asked to consume"
    );
}

/// Waits until a cluster has neither tunnel nor virtual node nor route nor translation.
fn until_nothing_is_left(lab: &Lab, here: &str) {
    lab.until(
        PATIENCE,
        &format!("{here} has nothing left of the peering"),
        || {
            let tunnels = lab.list(here, "/apis/net.liqo.io/v1alpha1/tunnelendpoints");
            let networks = lab.list(here, "/apis/net.liqo.io/v1alpha1/networkconfigs");
            let offers = lab.list(here, "/apis/sharing.liqo.io/v1alpha1/advertisements");
            let requests = lab.list(here, "/apis/discovery.liqo.io/v1alpha1/peeringrequests");
            let nodes = lab.list(here, "/api/v1/nodes").into_iter().filter(|node| {
                let name = node["metadata"]["name"].as_str().unwrap_or_default();
                name.starts_with("liqo-")
            });
            let objects = [tunnels, networks, offers, requests, nodes.collect()].concat();
            let routes = lab.output(here, &["ip", "route", "show", "dev", "landbridge0"]);
            let remapped = routes.lines().any(|route| !route.starts_with("10.244."));
            let rules = lab.output(here, &["nft", "list", "ruleset"]);
            let translated = rules.contains("dnat") || rules.contains("snat");
            (objects.is_empty() && !remapped && !translated).then_some(())
        },
    );
}

#[test]
fn strangers_peer_when_a_person_on_each_side_approves() {
    let Some(mut lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.be_strangers();
    lab.start_all();
    for (here, there) in lab.pairs() {
        lab.until(PATIENCE, &format!("{here} waits for a person"), || {
            let object = lab.peer(here, there)?;
            let proven = lab::condition(&object, "IdentityVerified");
            let waits = object["status"]["phase"] == "Waiting";
            (proven && waits).then_some(())
        });
    }
    let tunnels = "/apis/net.liqo.io/v1alpha1/tunnelendpoints";
    assert!(
        lab.list("rome", tunnels).is_empty(),
        "no tunnel to a stranger"
    );
    let code = |here, there| {
        lab.peer(here, there)?["status"]["approvalCode"]
            .as_str()
            .map(str::to_owned)
    };
    let digits = lab.until(PATIENCE, "both show the same six digits", || {
        let (one, other) = (code("rome", "milan")?, code("milan", "rome")?);
        (one == other).then_some(one)
    });
    assert!(
        digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_digit()),
        "{digits}"
    );
    for (here, there) in lab.pairs() {
        until_digits_are_told(&lab, here, there);
    }
    for (here, there) in lab.pairs() {
        lab.landbridge(here, &["approve", there]);
    }
    lab.until_peered();
    assert_eq!(code("rome", "milan"), None, "a code has had its day");
    let address = lab.tunnel_address("rome", "milan");
    assert!(
        lab.ping("rome", address),
        "rome reaches milan\n{}",
        lab.story()
    );
}

/// Waits until the status, `landbridge status` and an event have the same digits. They may change
/// once more, when the second of the two has asked.
fn until_digits_are_told(lab: &Lab, here: &str, there: &str) {
    let what = format!("{here} is told the digits of {there}");
    lab.until(PATIENCE, &what, || {
        let object = lab.peer(here, there)?;
        let digits = object["status"]["approvalCode"].as_str()?;
        let events = lab.list(here, "/apis/events.k8s.io/v1/events");
        let mut needed = events.iter().filter(|event| {
            event["reason"] == "ApprovalNeeded" && event["regarding"]["name"] == there
        });
        let tells = |event: &Value| {
            let note = event["note"].as_str();
            note.is_some_and(|note| note.contains(digits))
        };
        let shown = lab.landbridge(here, &["status"]);
        (needed.any(tells) && shown.contains(digits)).then_some(())
    });
}

#[test]
fn the_demo_pings_through_its_tunnels_and_shows_the_table() {
    if Lab::new(&[]).is_none() {
        return;
    }
    for scenario in ["lan", "manual", "dns"] {
        if scenario == "dns" && !lab::installed(&["named"]) {
            lab::skip("named is not installed (Debian package bind9)");
            continue;
        }
        let output = demo_of_a_machine_without_tunnels(scenario);
        let shown = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{scenario}: {shown}\n{error}"
        );
        let pings = shown
            .matches("through the tunnel: 3 of 3 came back")
            .count();
        assert_eq!(pings, 2, "{scenario}: {shown}");
        assert!(
            shown.contains("AUTHENTICATION STATUS"),
            "{scenario}: {shown}"
        );
        let found = shown.matches(" in DNS at https://10.77.").count();
        assert_eq!(found > 0, scenario == "dns", "{scenario}: {shown}");
    }
}

/// Runs the demo where the settings of the machine, in its file and in the environment, allow none of it.
fn demo_of_a_machine_without_tunnels(scenario: &str) -> Output {
    let script = "mount -t tmpfs none /mnt && cp -a /etc/. /mnt && mkdir -p /mnt/landbridge \
        && echo 'tunnel: {mode: off}' >/mnt/landbridge/landbridge.yaml \
        && mount --bind /mnt /etc && exec \"$@\"";
    Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([env!("CARGO_BIN_EXE_landbridge"), "demo", "--scenario"])
        .arg(scenario)
        .env("LANDBRIDGE_TUNNEL_MODE", "off")
        .output()
        .expect("the program runs")
}

#[test]
fn the_lab_cleans_up_after_itself() {
    let Some(lab) = Lab::new(&["rome"]) else {
        return;
    };
    let prefix = lab.prefix();
    let spaces = || {
        let output = Command::new("ip")
            .args(["netns", "list"])
            .output()
            .expect("ip runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(spaces().contains(&prefix));
    drop(lab);
    assert!(!spaces().contains(&prefix));
}
