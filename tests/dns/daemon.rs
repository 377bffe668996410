//! The whole daemon: from a SearchDomain to a ForeignCluster and back.

use serde_json::{Value, json};

use crate::{
    bind::{Bind, Zone},
    lab::Lab,
};

/// A network of rome, milan and a name server on `dns`, whose zone lists milan in Liqo's style.
fn listed() -> Option<(Lab, Bind)> {
    let lab = Lab::new(&["rome", "milan", "dns"])?;
    let milan = lab.address("milan");
    let zone = format!("@ PTR milan\n@ PTR nothing\nmilan SRV 0 0 5870 host\nhost A {milan}\n");
    let bind = serve(&lab, &[Zone::new("clusters.test", &zone).hurried()], "");
    Some((lab, bind))
}

/// Starts a name server on the machine `dns`.
pub(crate) fn serve(lab: &Lab, zones: &[Zone], keys: &str) -> Bind {
    let address = format!("{}:53", lab.address("dns"));
    let namespace = lab.namespace("dns");
    Bind::start_at(
        address.parse().expect("an address"),
        zones,
        keys,
        &["ip", "netns", "exec", &namespace],
    )
    .expect("named is installed")
}

pub(crate) fn search_domain(autojoin: bool) -> Value {
    json!({
        "apiVersion": "discovery.liqo.io/v1alpha1",
        "kind": "SearchDomain",
        "metadata": {"name": "clusters"},
        "spec": {"domain": "clusters.test", "autojoin": autojoin},
    })
}

pub(crate) fn asks(lab: &Lab) -> Value {
    json!({"servers": [lab.address("dns")]})
}

fn milan(lab: &Lab) -> Option<Value> {
    lab.get("rome", &["foreignclusters", "milan"])
}

#[test]
fn a_search_domain_leads_to_a_peering_and_its_end_to_the_end_of_it() {
    let Some((lab, _bind)) = listed() else { return };
    lab.start("milan", &json!({}), false);
    lab.start("rome", &asks(&lab), false);
    lab.apply("rome", &search_domain(true));
    let object = lab.until("milan is peered", || {
        milan(&lab).filter(|object| object["status"]["phase"] == "Peered")
    });
    assert_eq!(object["spec"]["discoveryType"], "WAN");
    assert_eq!(object["spec"]["join"], true);
    let labels = &object["metadata"]["labels"];
    assert_eq!(labels["discovery.liqo.io/searchdomain"], "clusters");
    assert_eq!(
        object["metadata"]["ownerReferences"][0]["kind"],
        "SearchDomain"
    );

    let domain = lab
        .get("rome", &["searchdomains", "clusters"])
        .expect("it stands");
    let status = &domain["status"];
    assert_eq!(status["found"], 1, "{status}");
    assert_eq!(status["refused"][0]["instance"], "nothing.clusters.test");
    assert_eq!(status["refused"][0]["reason"], "it has no SRV record");
    assert_eq!(status["conditions"][0]["status"], "True", "{status}");
    assert!(status["lastLook"].is_string() && status["nextLook"].is_string());

    let deleted = lab.kubectl("rome", &["delete", "searchdomain", "clusters"]);
    assert!(deleted.status.success());
    lab.until("milan is forgotten", || {
        let gone = String::from_utf8_lossy(&lab.kubectl("rome", &["get", "fc", "milan"]).stderr)
            .contains("not found");
        gone.then_some(())
    });
    lab.until("milan let rome go", || {
        let requests = lab.get("milan", &["peeringrequests"])?;
        requests["items"].as_array()?.is_empty().then_some(())
    });
}

#[test]
fn autojoin_of_the_search_domain_decides_and_looking_again_writes_nothing() {
    let Some((lab, _bind)) = listed() else { return };
    lab.start("milan", &json!({}), false);
    lab.start("rome", &asks(&lab), false);
    lab.apply("rome", &search_domain(false));
    let object = lab.until("milan is discovered", || {
        milan(&lab).filter(|object| object["status"]["phase"] == "Discovered")
    });
    assert_eq!(object["spec"]["join"], false);
    let version = |what: [&str; 2]| {
        let object = lab.get("rome", &what).expect("it stands");
        object["metadata"]["resourceVersion"].clone()
    };
    let kinds = [["searchdomains", "clusters"], ["foreignclusters", "milan"]];
    let before = kinds.map(version);
    // The zone's time to live is 5 s: two looks later.
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert_eq!(kinds.map(version), before, "{}", lab.story());
    let noise = ["ERROR", "hickory"];
    assert!(
        noise.iter().all(|word| !lab.story().contains(word)),
        "{}",
        lab.story()
    );
}

#[test]
fn a_cluster_on_the_lan_and_in_a_domain_is_one_object_of_the_lan() {
    let Some(lab) = Lab::new(&["rome", "milan", "dns"]) else {
        return;
    };
    // The domain names another address of milan, which is not on the LAN.
    lab.ip("milan", "address add 10.79.0.2/32 dev lo");
    let way = format!("route add 10.79.0.2 via {}", lab.address("milan"));
    lab.ip("rome", &way);
    let records = "@ PTR milan\nmilan SRV 0 0 5870 host\nhost A 10.79.0.2\n";
    let _bind = serve(&lab, &[Zone::new("clusters.test", records).hurried()], "");
    lab.start("milan", &json!({}), true);
    lab.start("rome", &asks(&lab), false);
    lab.apply("rome", &search_domain(true));
    lab.until("milan is found by DNS", || {
        milan(&lab).filter(|object| object["spec"]["discoveryType"] == "WAN")
    });
    lab.stop("rome");
    lab.start("rome", &asks(&lab), true);
    let object = lab.until("milan is found by LAN", || {
        milan(&lab).filter(|object| object["spec"]["discoveryType"] == "LAN")
    });
    let labels = &object["metadata"]["labels"];
    assert_eq!(labels["discovery.liqo.io/searchdomain"], "clusters");
    assert!(object["metadata"]["ownerReferences"].is_null());
    let object = lab.until("it has the endpoints of both", || {
        milan(&lab).filter(|object| {
            let endpoints = object["status"]["endpoints"].as_array();
            let first = endpoints.and_then(|all| all.first()?["source"].as_str());
            let last = endpoints.and_then(|all| all.last()?["url"].as_str());
            first == Some("LAN") && last == Some("https://10.79.0.2:5870")
        })
    });
    assert_eq!(
        object["spec"]["discoveryType"], "LAN",
        "the LAN is preferred"
    );
    let all = lab.get("rome", &["foreignclusters"]).expect("a list");
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    lab.kubectl("rome", &["delete", "searchdomain", "clusters"]);
    lab.until("the label is gone", || {
        let labels = milan(&lab)?["metadata"]["labels"].clone();
        labels["discovery.liqo.io/searchdomain"]
            .is_null()
            .then_some(())
    });
    let object = milan(&lab).expect("milan is still on the LAN");
    assert!(object["metadata"]["deletionTimestamp"].is_null());
}

#[test]
fn a_cluster_that_is_installed_anew_is_found_under_its_new_id() {
    // One that was joined is missed, and of another one somebody deletes the old object.
    for autojoin in [true, false] {
        let Some((lab, _bind)) = listed() else { return };
        lab.start("milan", &json!({}), false);
        lab.start("rome", &asks(&lab), false);
        lab.apply("rome", &search_domain(autojoin));
        let phase = if autojoin { "Peered" } else { "Discovered" };
        let before = lab.until("milan is found", || {
            milan(&lab).filter(|object| object["status"]["phase"] == phase)
        });
        lab.stop("milan");
        lab.erase("milan");
        lab.start("milan", &json!({}), false);
        if !autojoin {
            lab.kubectl("rome", &["delete", "foreigncluster", "milan"]);
        }
        lab.until("it is found anew", || {
            let all = lab.get("rome", &["foreignclusters"])?;
            let mut all = all["items"].as_array()?.iter();
            let is_other = |object: &Value| {
                let id = |object: &Value| object["spec"]["clusterIdentity"]["clusterID"].clone();
                id(object) != id(&before)
            };
            all.any(is_other).then_some(())
        });
    }
}
