//! What a SearchDomain has found stands and falls with it, and a peering does not fall with a record.

use serde_json::{Value, json};

use crate::{
    bind::Zone,
    daemon::{asks, search_domain, serve},
    lab::Lab,
};

/// Records of a zone that lists machines of the lab in Liqo's style.
fn listing(lab: &Lab, machines: &[&str]) -> String {
    let lines = machines.iter().map(|name| {
        let address = lab.address(name);
        format!("@ PTR {name}\n{name} SRV 0 0 5870 gate.{name}\ngate.{name} A {address}\n")
    });
    lines.collect()
}

fn named(name: &str, domain: &str) -> Value {
    let mut object = search_domain(true);
    object["metadata"]["name"] = json!(name);
    object["spec"]["domain"] = json!(domain);
    object
}

fn peered(lab: &Lab, name: &str) -> Option<Value> {
    lab.get("rome", &["foreignclusters", name])
        .filter(|object| object["status"]["phase"] == "Peered")
}

/// How many clusters have a session with a machine.
fn sessions(lab: &Lab, machine: &str) -> Option<usize> {
    let requests = lab.get(machine, &["peeringrequests"])?;
    requests["items"].as_array().map(Vec::len)
}

#[test]
fn a_record_that_goes_away_does_not_end_a_peering() {
    let Some(lab) = Lab::new(&["rome", "milan", "dns"]) else {
        return;
    };
    let zone = |records: &str| Zone::new("clusters.test", records).hurried();
    let bind = serve(&lab, &[zone(&listing(&lab, &["milan"]))], "");
    lab.start("milan", &json!({}), false);
    lab.start("rome", &asks(&lab), false);
    lab.apply("rome", &search_domain(true));
    let before = lab.until("milan is peered", || peered(&lab, "milan"));
    let found = |count: u32| {
        lab.until("the domain was looked at again", || {
            let domain = lab.get("rome", &["searchdomains", "clusters"])?;
            (domain["status"]["found"] == count).then_some(())
        });
        lab.until("the advertisement is gone", || {
            let gone = lab.story().contains("Advertisement gone");
            (gone || count > 0).then_some(())
        });
        let object = peered(&lab, "milan").expect("milan stays peered");
        assert_eq!(object["metadata"]["uid"], before["metadata"]["uid"]);
        assert_eq!(object["spec"]["join"], true);
        assert_eq!(sessions(&lab, "milan"), Some(1));
    };
    drop(bind);
    let bind = serve(&lab, &[zone("")], "");
    found(0);
    // And without the zone.
    drop(bind);
    let bind = serve(&lab, &[], "");
    lab.until("the server refuses to answer", || {
        let domain = lab.get("rome", &["searchdomains", "clusters"])?;
        let answered = &domain["status"]["conditions"][0];
        (answered["reason"] == "Incomplete").then_some(())
    });
    let said = lab.landbridge("rome", &["status"]);
    assert!(
        said.starts_with("‼ SearchDomain clusters (clusters.test): the name server"),
        "{said}"
    );
    assert!(peered(&lab, "milan").is_some(), "{}", lab.story());
    drop(bind);
    let _bind = serve(&lab, &[zone(&listing(&lab, &["milan"]))], "");
    found(1);
}

#[test]
fn deleting_a_search_domain_takes_only_what_only_it_had_found() {
    let Some(lab) = Lab::new(&["rome", "milan", "turin", "dns"]) else {
        return;
    };
    let zones = [
        Zone::new("one.test", &listing(&lab, &["milan", "turin"])),
        Zone::new("two.test", &listing(&lab, &["turin"])),
    ];
    let _bind = serve(&lab, &zones, "");
    lab.start("milan", &json!({}), false);
    lab.start("turin", &json!({}), false);
    lab.start("rome", &asks(&lab), false);
    lab.apply("rome", &named("one", "one.test"));
    lab.until("milan is peered", || peered(&lab, "milan"));
    lab.until("turin is peered", || peered(&lab, "turin"));
    lab.apply("rome", &named("two", "two.test"));
    lab.until("turin belongs to both", || {
        let turin = peered(&lab, "turin")?;
        let owners = turin["metadata"]["ownerReferences"].as_array()?.len();
        (owners == 2).then_some(())
    });
    let deleted = lab.kubectl("rome", &["delete", "searchdomain", "one"]);
    assert!(deleted.status.success());
    lab.until("milan let rome go", || {
        (sessions(&lab, "milan") == Some(0)).then_some(())
    });
    lab.until("milan is forgotten", || {
        let list = lab.get("rome", &["foreignclusters"])?;
        (list["items"].as_array()?.len() == 1).then_some(())
    });
    let turin = lab.until("turin belongs to the other", || {
        peered(&lab, "turin").filter(|object| {
            object["metadata"]["labels"]["discovery.liqo.io/searchdomain"] == "two"
        })
    });
    assert_eq!(turin["spec"]["join"], true);
    assert_eq!(sessions(&lab, "turin"), Some(1));
}

#[test]
fn a_search_domain_that_is_public_only_refuses_private_addresses_and_says_so() {
    let Some(lab) = Lab::new(&["rome", "milan", "dns"]) else {
        return;
    };
    let _bind = serve(
        &lab,
        &[Zone::new("clusters.test", &listing(&lab, &["milan"]))],
        "",
    );
    lab.start("milan", &json!({}), false);
    lab.start("rome", &asks(&lab), false);
    let mut object = search_domain(true);
    object["spec"]["publicOnly"] = json!(true);
    lab.apply("rome", &object);
    let domain = lab.until("milan is refused", || {
        lab.get("rome", &["searchdomains", "clusters"])
            .filter(|domain| domain["status"]["refused"].is_array())
    });
    let why = domain["status"]["refused"][0]["reason"]
        .as_str()
        .unwrap_or_default();
    assert!(
        why.contains("private") && why.contains("publicOnly"),
        "{why}"
    );
    assert_eq!(domain["status"]["found"], 0);
    object["spec"]["publicOnly"] = json!(false);
    lab.apply("rome", &object);
    lab.until("milan is peered", || peered(&lab, "milan"));
}
