//! A network that does not let us is said to people, and everything else goes on.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::Duration,
};

use crate::{
    PATIENCE,
    lab::{self, Lab},
};

const CONFIG: &str = "/apis/config.liqo.io/v1alpha1/clusterconfigs/liqo-configuration";

/// Waits until the ClusterConfig and `landbridge status` say how discovery does.
fn until_said(lab: &Lab, machine: &str, reason: &str) {
    lab.until(PATIENCE, &format!("{machine} says {reason}"), || {
        let config = lab.request(machine, "GET", CONFIG, &serde_json::Value::Null);
        let conditions = config["status"]["conditions"].as_array()?.clone();
        let condition = conditions
            .iter()
            .find(|one| one["type"] == "LanDiscovery")?;
        let works = if reason == "Working" { "True" } else { "False" };
        (condition["reason"] == reason && condition["status"] == works).then_some(())
    });
    let status = lab.landbridge(machine, &["status"]);
    let told = status.contains(&format!("LanDiscovery is {reason}: "));
    assert_eq!(told, reason != "Working", "{status}");
}

#[test]
fn what_the_network_does_not_let_us_do_is_said() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    let greedy = lab.within("rome", || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).expect("the namespace is new")
    });
    lab.start("rome");
    until_said(&lab, "rome", "PortTaken");
    drop(greedy);
    until_said(&lab, "rome", "Working");
    lab.ip(Some("rome"), "link set eth0 multicast off");
    until_said(&lab, "rome", "NoMulticast");
    lab.ip(Some("rome"), "link set eth0 multicast on");
    until_said(&lab, "rome", "Working");
    for hook in ["input", "output"] {
        let rules = format!(
            "table inet closed {{\nchain c {{\ntype filter hook {hook} priority 0\n\
             udp dport 5353 drop\n}}\n}}\n"
        );
        let loaded = lab.run("rome", &["nft", &rules]);
        assert!(loaded.status.success(), "{loaded:?}");
        until_said(&lab, "rome", "MulticastBlocked");
        lab.output("rome", &["nft", "delete", "table", "inet", "closed"]);
        until_said(&lab, "rome", "Working");
    }
    for command in [
        "link add eth1 type veth peer name eth2",
        "address add 10.78.0.1/24 dev eth1",
        "link set eth2 up",
        "link set eth1 up",
    ] {
        lab.ip(Some("rome"), command);
    }
    let rules = "table inet closed {\nchain c {\ntype filter hook input priority 0\n\
         iifname eth1 udp dport 5353 drop\n}\n}\n";
    let loaded = lab.run("rome", &["nft", rules]);
    assert!(loaded.status.success(), "{loaded:?}");
    until_said(&lab, "rome", "MulticastPartlyBlocked");
    lab.output("rome", &["nft", "delete", "table", "inet", "closed"]);
    until_said(&lab, "rome", "Working");
    lab.ip(Some("rome"), "link del eth1");
    lab.ip(Some("rome"), "link set eth0 down");
    until_said(&lab, "rome", "NoInterface");
    lab.ip(Some("rome"), "link set eth0 up");
    until_said(&lab, "rome", "Working");
    lab.start("milan");
    lab.until_peered();
}

/// How many files a process has open, and how many threads.
fn held(process: u32) -> (usize, usize) {
    let count = |folder: &str| {
        let path = format!("/proc/{process}/{folder}");
        fs::read_dir(path).expect("it runs").count()
    };
    (count("fd"), count("task"))
}

#[test]
fn an_interface_that_comes_and_goes_leaves_nothing_behind() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    let long = std::env::var_os("LANDBRIDGE_LONG_TESTS").is_some();
    let times = if long { 1000 } else { 100 };
    lab.start("rome");
    until_said(&lab, "rome", "Working");
    // As many threads as it will ever need are there after a request or two.
    let before = held(lab.process("rome"));
    for _ in 0..times {
        for command in [
            "link add eth1 type veth peer name eth2",
            "address add 10.78.0.1/24 dev eth1",
            "link set eth2 up",
            "link set eth1 up",
            "link del eth1",
        ] {
            lab.ip(Some("rome"), command);
        }
        lab.ip(Some("rome"), "link set eth0 down");
        thread::sleep(Duration::from_millis(30));
        lab.ip(Some("rome"), "link set eth0 up");
    }
    until_said(&lab, "rome", "Working");
    lab.start("milan");
    lab.until(PATIENCE, "rome has found milan", || {
        lab.peer("rome", "milan")
            .filter(|object| lab::condition(object, "IdentityVerified"))
    });
    lab.terminate("milan");
    let bound = (before.0 + 12, before.1 + 12);
    let after = lab.until(PATIENCE, "rome holds what it held before", || {
        let after = held(lab.process("rome"));
        (after.0 <= bound.0 && after.1 <= bound.1).then_some(after)
    });
    lab::note(&format!(
        "{times} times: {before:?} files and threads before, {after:?} after"
    ));
}
