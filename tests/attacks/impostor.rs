//! A man in the middle on the LAN: he announces another's id, shows another's chain, or passes the
//! bytes on. Nothing of ours leaves, and what is peered stays so.

use std::{fs, net::SocketAddr, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    eve::{Eve, Loot, PORT, Trick},
    lab::{Lab, condition},
    rig::credentials,
};

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn an_announced_id_without_its_key_becomes_no_object() {
    let Some(lab) = Lab::new(&["milan", "eve"]) else {
        return;
    };
    lab.start("milan");
    let id = credentials().identity().cluster_id().to_string();
    let eve = Eve::start(&lab, Some(&id), Trick::OwnKey);
    until_dialled(&lab, &eve, 2);
    assert_nothing_left(&eve);
    assert_eq!(lab.peers("milan"), Vec::<Value>::new());
}

#[test]
fn a_man_in_the_middle_gets_nothing_and_what_is_peered_stays_so() {
    let Some(lab) = Lab::new(&["rome", "milan", "eve"]) else {
        return;
    };
    lab.start("rome");
    lab.start("milan");
    lab.until_peered_with("milan", "rome");
    lab.until_peered_with("rome", "milan");
    let before = lab.peer("milan", "rome").unwrap();
    let inside = lab.tunnel_address("milan", "rome");
    let id = before["spec"]["clusterIdentity"]["clusterID"]
        .as_str()
        .unwrap();
    let rome = SocketAddr::from((lab.address("rome"), PORT));
    let calm = interruptions(&lab);
    for trick in [Trick::OwnKey, Trick::StolenChain(rome)] {
        let eve = Eve::start(&lab, Some(id), trick);
        for _ in 0..20 {
            assert!(lab.ping("milan", inside), "{}", lab.story());
            let now = lab.peer("milan", "rome").unwrap();
            assert_same(&lab, &now, &before);
            assert_eq!(now["status"]["phase"], "Peered", "{}", lab.story());
            thread::sleep(Duration::from_millis(100));
        }
        assert_nothing_left(&eve);
    }
    lab.until(PATIENCE, "milan says that rome's id is misused", || {
        let object = lab.peer("milan", "rome")?;
        (condition(&object, "IdentityMismatch") && object["status"]["phase"] == "Peered")
            .then_some(())
    });
    assert_eq!(interruptions(&lab), calm, "{}", lab.story());
    // Now he has the LAN to himself: rome is dead, and its last words are still believed.
    lab.kill("rome");
    let eve = Eve::start(&lab, Some(id), Trick::OwnKey);
    until_dialled(&lab, &eve, 1);
    until_mismatch(&lab);
    assert_nothing_left(&eve);
    let object = lab.peer("milan", "rome").unwrap();
    assert!(!condition(&object, "IdentityVerified"));
    assert_same(&lab, &object, &before);
    drop(eve);
    lab.start("rome");
    lab.until_peered_with("milan", "rome");
    assert_same(&lab, &lab.peer("milan", "rome").unwrap(), &before);
}

#[test]
fn a_relay_sees_tls_and_cannot_take_its_place() {
    let Some(mut lab) = Lab::new(&["rome", "milan", "eve"]) else {
        return;
    };
    lab.set("LANDBRIDGE_LAN_ENABLED", "false");
    lab.start("rome");
    lab.start("milan");
    let rome = SocketAddr::from((lab.address("rome"), PORT));
    let eve = Eve::start(&lab, None, Trick::Relay(rome));
    let url = format!("https://{}:{PORT}", lab.address("eve"));
    let object = json!({
        "apiVersion": "discovery.liqo.io/v1alpha1",
        "kind": "ForeignCluster",
        "metadata": {"name": "rome"},
        "spec": {"authUrl": url, "join": true},
    });
    let path = "/apis/discovery.liqo.io/v1alpha1/foreignclusters";
    lab.request("milan", "POST", path, &object);
    let requests = "/apis/discovery.liqo.io/v1alpha1/peeringrequests";
    lab.until(PATIENCE, "rome hears from milan", || {
        (!lab.list("rome", requests).is_empty()).then_some(())
    });
    lab.kill("rome");
    let records = lab.until(PATIENCE, "the relay is cut", || {
        eve.loot().into_iter().find_map(|one| match one {
            Loot::Records(types) => Some(types),
            Loot::Nothing | Loot::Bytes(_) => None,
        })
    });
    drop(eve);
    // RFC 8446, section 5.1: one hello from each side is all that is in the clear.
    let in_the_clear: Vec<u8> = records.iter().copied().filter(|kind| *kind != 23).collect();
    assert_eq!(in_the_clear, [22, 20, 22, 20], "{records:?}");
    assert!(records.len() > 10, "{records:?}");

    // He knows everything that went over the wire; now he answers himself.
    let eve = Eve::start(&lab, None, Trick::OwnKey);
    until_dialled(&lab, &eve, 1);
    until_mismatch(&lab);
    assert_nothing_left(&eve);
}

fn until_dialled(lab: &Lab, eve: &Eve, times: usize) {
    lab.until(PATIENCE, "the man in the middle is dialled", || {
        (eve.loot().len() >= times).then_some(())
    });
}

fn until_mismatch(lab: &Lab) {
    lab.until(PATIENCE, "milan says that another key answered", || {
        let object = lab.peer("milan", "rome")?;
        let conditions = object["status"]["conditions"].as_array()?.iter();
        let mut all = conditions.filter(|one| one["type"] == "IdentityVerified");
        (all.next()?["reason"] == "IdentityMismatch").then_some(())
    });
}

/// How often milan has said that the peering suffers.
fn interruptions(lab: &Lab) -> usize {
    let log = fs::read_to_string(lab.log("milan")).unwrap();
    log.matches("to=\"Degraded\"").count()
}

fn assert_nothing_left(eve: &Eve) {
    let loot = eve.loot();
    assert!(loot.iter().all(|one| *one == Loot::Nothing), "{loot:?}");
}

fn assert_same(lab: &Lab, now: &Value, before: &Value) {
    assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"]);
    let eve = lab.address("eve").to_string();
    let url = now["spec"]["authUrl"].as_str().unwrap();
    assert!(!url.contains(&eve), "{url}\n{}", lab.story());
    for field in ["clusterIdentity", "join", "trustMode"] {
        assert_eq!(now["spec"][field], before["spec"][field], "{field}");
    }
}
