//! What a SearchDomain says of its domain, and that it follows a domain that is changed.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    bind::Zone,
    daemon::{asks, search_domain, serve},
    lab::Lab,
};

/// Changes the domain and waits until the status gives the reason for how it was answered.
fn until_answered(lab: &Lab, domain: &str, reason: &str) -> Value {
    let mut object = search_domain(false);
    object["spec"]["domain"] = json!(domain);
    lab.apply("rome", &object);
    lab.until(&format!("{domain} is {reason}"), || {
        lab.get("rome", &["searchdomains", "clusters"])
            .filter(|object| object["status"]["conditions"][0]["reason"] == reason)
    })
}

#[test]
fn a_domain_that_is_none_or_too_large_is_told_and_a_changed_one_is_followed() {
    let Some(lab) = Lab::new(&["rome", "milan", "dns"]) else {
        return;
    };
    let milan = lab.address("milan");
    let one = format!("@ PTR milan\nmilan SRV 0 0 5870 host\nhost A {milan}\n");
    let mut many = String::new();
    for number in 0..1030 {
        writeln!(many, "@ PTR nothing-{number}").expect("a string takes everything");
    }
    let zones = [Zone::new("one.test", &one), Zone::new("many.test", &many)];
    let _bind = serve(&lab, &zones, "");
    lab.start("milan", &json!({}), false);
    lab.start("rome", &asks(&lab), false);
    let object = until_answered(&lab, "clusters.local", "InvalidDomain");
    let message = object["status"]["conditions"][0]["message"].as_str();
    assert!(
        message.is_some_and(|text| text.contains("clusters.local")),
        "{object}"
    );
    assert_eq!(object["status"]["conditions"][0]["status"], "False");
    let object = until_answered(&lab, "one.test", "Complete");
    assert_eq!(object["status"]["found"], 1, "{object}");
    lab.until("milan is found", || {
        lab.get("rome", &["foreignclusters", "milan"])
    });
    let object = until_answered(&lab, "many.test", "TooMany");
    let message = object["status"]["conditions"][0]["message"].as_str();
    assert!(
        message.is_some_and(|text| text.starts_with("6 entries")),
        "{object}"
    );
    lab.until("milan is forgotten with its domain", || {
        let list = lab.get("rome", &["foreignclusters"])?;
        list["items"].as_array()?.is_empty().then_some(())
    });
}

#[test]
fn the_target_of_the_lower_priority_goes_first() {
    let Some(lab) = Lab::new(&["rome", "milan", "dns"]) else {
        return;
    };
    lab.ip("milan", "address add 10.78.0.102/24 dev eth0");
    let far = lab.address("milan");
    let zone = format!(
        "@ PTR milan\nmilan SRV 20 0 5870 far\nmilan SRV 10 0 5870 near\n\
         far A {far}\nnear A 10.78.0.102\n"
    );
    let _bind = serve(&lab, &[Zone::new("clusters.test", &zone)], "");
    lab.start("milan", &json!({}), false);
    lab.start("rome", &asks(&lab), false);
    lab.apply("rome", &search_domain(false));
    let object = lab.until("milan is found", || {
        lab.get("rome", &["foreignclusters", "milan"])
            .filter(|object| object["status"]["endpoints"].is_array())
    });
    let endpoints = object["status"]["endpoints"].as_array();
    let urls = endpoints
        .into_iter()
        .flatten()
        .map(|one| one["url"].clone());
    let order = [
        json!("https://10.78.0.102:5870"),
        json!(format!("https://{far}:5870")),
    ];
    assert_eq!(urls.collect::<Vec<_>>(), order, "{object}");
}
