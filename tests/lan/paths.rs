//! The ways to a peer: several LANs and interfaces at once, IPv6 alone, and what was known before.

use serde_json::{Value, json};

use crate::{
    PATIENCE,
    lab::{self, Lab},
    policy::switch,
};

/// Where a machine's peer is said to be: the URLs, each with its interface.
fn ways(object: &Value) -> Vec<(String, String)> {
    let endpoints = object["status"]["endpoints"].as_array();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    endpoints
        .into_iter()
        .flatten()
        .map(|one| (text(&one["url"]), text(&one["interface"])))
        .collect()
}

fn way(address: &str, interface: &str) -> (String, String) {
    (format!("https://{address}:5870"), interface.to_owned())
}

#[test]
fn a_machine_on_two_lans_finds_the_clusters_of_both() {
    let Some(lab) = Lab::new(&["rome", "milan", "turin"]) else {
        return;
    };
    lab.second_lan(&["rome", "turin"]);
    lab.ip(Some("turin"), "link set eth0 down");
    lab.start_all();
    for (there, way) in [
        ("milan", way("10.77.0.2", "eth0")),
        ("turin", way("10.78.0.3", "eth1")),
    ] {
        lab.until_peered_with("rome", there);
        let object = lab.peer("rome", there).expect("peered");
        assert!(ways(&object).contains(&way), "{object}");
    }
    for alone in ["milan", "turin"] {
        assert_eq!(lab.peers(alone).len(), 1, "only rome is next to {alone}");
    }
}

#[test]
fn the_way_to_a_peer_changes_and_the_peering_stays() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.second_lan(&["rome", "milan"]);
    lab.start_all();
    lab.until_peered();
    let both = [way("10.77.0.2", "eth0"), way("10.78.0.2", "eth1")];
    lab.until(PATIENCE, "rome knows both ways to milan", || {
        let known = ways(&lab.peer("rome", "milan")?);
        both.iter().all(|way| known.contains(way)).then_some(())
    });
    let tunnels = || lab.list("rome", "/apis/net.liqo.io/v1alpha1/tunnelendpoints");
    let before = tunnels()[0]["metadata"]["uid"].clone();
    let inside = lab.tunnel_address("rome", "milan");
    // Each LAN in turn loses milan, without a link of milan's own going down.
    for (index, port) in ["milan", "milan-2"].into_iter().enumerate() {
        lab.ip(None, &format!("link set {port} down"));
        let left = &both[1 - index];
        lab.until(PATIENCE, &format!("rome goes by {}", left.0), || {
            let object = lab.peer("rome", "milan")?;
            let only = ways(&object).iter().all(|way| way != &both[index]);
            let follows = object["spec"]["authUrl"] == left.0.as_str();
            let peered = object["status"]["phase"] == "Peered";
            let endpoints = object["status"]["endpoints"].as_array()?;
            let used = endpoints.iter().find(|one| one["score"] == 100)?;
            let best = used["url"] == left.0.as_str();
            (only && follows && peered && best).then_some(())
        });
        lab.until(PATIENCE, "rome reaches milan through the tunnel", || {
            lab.ping("rome", inside).then_some(())
        });
        lab.ip(None, &format!("link set {port} up"));
        lab.until(PATIENCE, "rome knows both ways again", || {
            let known = ways(&lab.peer("rome", "milan")?);
            both.iter().all(|way| known.contains(way)).then_some(())
        });
    }
    assert_eq!(tunnels()[0]["metadata"]["uid"], before, "the same tunnel");
}

#[test]
fn a_machine_says_where_it_is_after_its_address_has_changed() {
    let Some(lab) = Lab::new(&["rome"]) else {
        return;
    };
    lab.ip(Some("rome"), "address flush dev eth0");
    lab.start("rome");
    for address in ["10.77.0.8", "10.77.0.9"] {
        lab.ip(Some("rome"), "address flush dev eth0");
        lab.ip(Some("rome"), &format!("address add {address}/24 dev eth0"));
        let place = format!("https://{address}:5870");
        lab.until(PATIENCE, &format!("rome is at {address}"), || {
            (lab.status("rome")["peerEndpoint"] == place.as_str()).then_some(())
        });
    }
}

/// Two machines that have link-local addresses alone.
fn link_local() -> Option<Lab> {
    let lab = Lab::new(&["rome", "milan"])?;
    for machine in ["rome", "milan"] {
        let address = lab.address(machine);
        lab.ip(Some(machine), &format!("address del {address}/24 dev eth0"));
    }
    Some(lab)
}

#[test]
fn machines_with_ipv6_alone_find_each_other_by_link_local_addresses() {
    let Some(lab) = link_local() else {
        return;
    };
    lab.start_all();
    for (here, there) in lab.pairs() {
        lab.until(PATIENCE, &format!("{here} has found {there}"), || {
            let object = lab.peer(here, there)?;
            let known = ways(&object);
            let on_link = |(url, interface): &(String, String)| {
                url.starts_with("https://[fe80::") && interface == "eth0"
            };
            (object["spec"]["discoveryType"] == "LAN" && known.iter().any(on_link)).then_some(())
        });
    }
    lab.until_peered();
    let inside = lab.tunnel_address("rome", "milan");
    lab.until(PATIENCE, "rome reaches milan through the tunnel", || {
        lab.ping("rome", inside).then_some(())
    });
}

#[test]
fn a_peer_is_reached_where_it_was_before_anything_is_announced() {
    for lab in [Lab::new(&["rome", "milan"]), link_local()] {
        let Some(mut lab) = lab else {
            return;
        };
        lab.start_all();
        lab.until_peered();
        lab.terminate("rome");
        lab.set("LANDBRIDGE_LAN_ENABLED", "false");
        lab.start("rome");
        lab.until_peered_with("rome", "milan");
        let inside = lab.tunnel_address("rome", "milan");
        lab.until(PATIENCE, "rome reaches milan again", || {
            lab.ping("rome", inside).then_some(())
        });
    }
}

#[test]
fn a_manual_entry_that_shows_up_on_the_lan_stays_one_object() {
    let Some(mut lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    let silent = "{discoveryConfig: {enableAdvertisement: false}}";
    lab.set("LANDBRIDGE_CLUSTER_CONFIG", silent);
    lab.start_all();
    let (url, _) = way(&lab.address("milan").to_string(), "");
    lab.landbridge("rome", &["add", &url, "--name", "by-hand"]);
    let before = lab.until(PATIENCE, "rome knows who by-hand is", || {
        lab.peer("rome", "by-hand")
            .filter(|object| lab::condition(object, "IdentityVerified"))
    });
    switch(&lab, "milan", &json!({"enableAdvertisement": true}));
    let after = lab.until(PATIENCE, "rome has found by-hand on the LAN", || {
        let object = lab.peer("rome", "by-hand")?;
        let seen = ways(&object).contains(&way("10.77.0.2", "eth0"));
        seen.then_some(object)
    });
    assert_eq!(lab.peers("rome").len(), 1, "one object for one cluster");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    for word in ["authUrl", "discoveryType", "join"] {
        let (before, after) = (&before["spec"][word], &after["spec"][word]);
        assert_eq!(after, before, "a person's word stays");
    }
}
