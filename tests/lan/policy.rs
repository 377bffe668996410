//! The ClusterConfig acts while the daemon runs: what it is called, and whom it joins.

use serde_json::{Value, json};

use crate::{
    PATIENCE,
    lab::{self, Lab},
};

const CONFIG: &str = "/apis/config.liqo.io/v1alpha1/clusterconfigs/liqo-configuration";

/// Patches the section for discovery, as `kubectl patch` does.
pub(crate) fn switch(lab: &Lab, machine: &str, wish: &Value) {
    let wish = json!({"spec": {"discoveryConfig": wish}});
    lab.request(machine, "PATCH", CONFIG, &wish);
}

fn shown_name(object: &Value) -> &Value {
    &object["spec"]["clusterIdentity"]["clusterName"]
}

/// Waits until a machine and its peer say that it has another name; `object` is what the peer
/// calls its ForeignCluster.
fn until_called(lab: &Lab, (machine, peer): (&str, &str), object: &str, name: &str) {
    lab.until(PATIENCE, &format!("{machine} calls itself {name}"), || {
        let status = lab.status(machine);
        (status["clusterName"] == name).then_some(())
    });
    assert!(lab.landbridge(machine, &["status"]).contains(name));
    lab.until(PATIENCE, &format!("{peer} shows it as {name}"), || {
        (shown_name(&lab.peer(peer, object)?) == name).then_some(())
    });
}

#[test]
fn a_new_name_is_shown_everywhere_and_objects_keep_theirs() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start_all();
    lab.until_peered();
    let id = lab.status("milan")["clusterID"].clone();
    let before = lab.peer("rome", "milan").expect("peered");
    let requests = "/apis/discovery.liqo.io/v1alpha1/peeringrequests";
    // Without a name of its own the policy leaves it to the settings.
    for (wish, name) in [(json!("mailand"), "mailand"), (Value::Null, "milan")] {
        switch(&lab, "milan", &json!({"clusterName": wish}));
        until_called(&lab, ("milan", "rome"), "milan", name);
        lab.until(PATIENCE, "milan's request carries its name", || {
            let all = lab.list("rome", requests);
            let own = all.iter().find(|one| one["metadata"]["name"] == id)?;
            (shown_name(own) == name).then_some(())
        });
    }
    let after = lab
        .peer("rome", "milan")
        .expect("the object keeps its name");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["status"]["phase"], "Peered", "{}", lab.story());
}

#[test]
fn a_visitor_that_is_renamed_is_shown_by_its_new_name() {
    let Some(mut lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.set("LANDBRIDGE_LAN_ENABLED", "false");
    lab.start_all();
    let url = format!("https://{}:5870", lab.address("milan"));
    lab.landbridge("rome", &["add", &url, "--name", "milan", "--join"]);
    lab.until(PATIENCE, "milan knows rome by its visit", || {
        let object = lab.peer("milan", "rome")?;
        (object["status"]["incoming"]["joined"] == true).then_some(())
    });
    switch(&lab, "rome", &json!({"clusterName": "roma"}));
    until_called(&lab, ("rome", "milan"), "rome", "roma");
}

/// Starts a machine and returns what `rome` wants of it.
fn joins(lab: &Lab, machine: &str) -> bool {
    lab.start(machine);
    let object = lab.until(PATIENCE, &format!("rome has found {machine}"), || {
        lab.peer("rome", machine)
            .filter(|object| object["spec"]["discoveryType"] == "LAN")
            .filter(|object| lab::condition(object, "IdentityVerified"))
    });
    object["spec"]["join"] == true
}

#[test]
fn the_switches_of_the_join_act_on_whoever_comes_next_and_on_nobody_else() {
    let machines = ["rome", "milan", "turin", "genoa", "naples", "bari"];
    let Some(mut lab) = Lab::new(&machines) else {
        return;
    };
    lab.start("rome");
    switch(&lab, "rome", &json!({"autojoin": false}));
    assert!(!joins(&lab, "milan"), "autojoin is off");
    switch(&lab, "rome", &json!({"autojoin": true}));
    assert!(joins(&lab, "turin"), "autojoin is on again");
    switch(&lab, "rome", &json!({"autojoinUntrusted": false}));
    assert!(joins(&lab, "genoa"), "genoa knows the fleet secret");
    lab.be_strangers();
    assert!(!joins(&lab, "naples"), "strangers are not joined");
    switch(&lab, "rome", &json!({"autojoinUntrusted": true}));
    assert!(joins(&lab, "bari"), "strangers are joined again");
    for (machine, wanted) in machines[1..].iter().zip([false, true, true, false, true]) {
        let object = lab.peer("rome", machine).expect("it was found");
        assert_eq!(object["spec"]["join"], wanted, "{machine}: {object}");
    }
}
