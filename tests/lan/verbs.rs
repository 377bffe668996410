//! The verbs that look at a LAN without a daemon: `discover` and `check lan`.

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::Output,
};

use serde_json::Value;

use crate::{
    PATIENCE,
    lab::{Lab, installed, skip},
};

fn landbridge(lab: &Lab, machine: &str, words: &str) -> Output {
    let mut all = vec![env!("CARGO_BIN_EXE_landbridge")];
    all.extend(words.split(' '));
    lab.run(machine, &all)
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Looks until something is found: an answer may wait for a second after the one before.
fn discover(lab: &Lab, machine: &str) -> Vec<Value> {
    lab.until(PATIENCE, &format!("{machine} discovers"), || {
        let output = landbridge(lab, machine, "discover --timeout 2s -o json");
        json(&output)
            .as_array()
            .filter(|found| !found.is_empty())
            .cloned()
    })
}

#[test]
fn discover_finds_and_proves_without_a_daemon_and_beside_one() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    let nobody = landbridge(&lab, "rome", "discover --timeout 500ms");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(said(&nobody).contains("no cluster was found on the LAN within 500ms"));

    lab.start("milan");
    let id = lab.status("milan")["clusterID"].clone();
    for machine in ["rome", "milan"] {
        let found = discover(&lab, machine);
        let address = format!("{}:5870", lab.address("milan"));
        let first = found
            .iter()
            .find(|find| find["address"] == address.as_str());
        let first = first.unwrap_or_else(|| panic!("{machine}: {found:?}"));
        assert_eq!(first["id"], id);
        assert_eq!(first["name"], "milan");
        assert_eq!(first["source"], "LAN");
        assert_eq!(first["interface"], "eth0");
        assert_eq!(first["proven"], true, "{first}");
        assert!(first["latencyMilliseconds"].is_f64());
    }
    assert!(lab.peers("milan").is_empty(), "a look leaves no trace");
    let table = lab.until(PATIENCE, "the table has a row", || {
        let output = landbridge(&lab, "rome", "discover --lan");
        output.status.success().then(|| said(&output))
    });
    assert!(
        table.starts_with("NAME ") && table.contains(" LATENCY"),
        "{table}"
    );
}

#[test]
fn discover_says_who_did_not_prove_its_key_and_why() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start("milan");
    firewall(&lab, "milan", "input", "tcp dport 5870 reject");
    let found = discover(&lab, "rome");
    assert_eq!(found[0]["name"], "milan", "as it is announced");
    assert_eq!(found[0]["proven"], false);
    let why = found[0]["why"].as_str().unwrap_or_default();
    assert!(why.contains("cannot be reached"), "{why}");
    let output = landbridge(&lab, "rome", "discover");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no cluster has proven its key"));
}

#[test]
fn check_lan_tells_apart_what_works_what_is_alone_and_what_is_broken() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    let check = |part: &str, code: i32| {
        let output = landbridge(&lab, "rome", "check lan --timeout 1s");
        let text = said(&output);
        assert!(text.contains(part), "{part} is missing:\n{text}");
        assert_eq!(output.status.code(), Some(code), "{text}");
    };
    check(
        "‼ eth0: multicast goes out and comes back, and nobody else",
        0,
    );
    check("- lo: not used", 0);
    lab.start("milan");
    let milan = lab.address("milan").to_string();
    lab.until(PATIENCE, "milan is heard", || {
        let finding = json(&landbridge(&lab, "rome", "check lan --timeout 1s -o json"));
        let interfaces = finding["interfaces"].as_array()?.iter();
        let eth0 = interfaces.clone().find(|one| one["name"] == "eth0")?;
        let heard = eth0["heard"]
            .as_array()?
            .iter()
            .any(|ip| *ip == milan.as_str());
        (heard && eth0["state"] == "works").then_some(())
    });
    let beside = landbridge(&lab, "milan", "check lan --timeout 500ms");
    assert!(
        said(&beside).contains("√ landbridge (process "),
        "{}",
        said(&beside)
    );
    lab.kill("milan");
    let greedy = lab.within("rome", || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).expect("nobody has it")
    });
    check("× eth0: another program holds UDP port 5353", 1);
    drop(greedy);
    firewall(&lab, "rome", "input", "udp dport 5353 drop");
    check("× eth0: what is sent does not come back", 1);
    firewall(&lab, "rome", "output", "udp dport 5353 drop");
    check("× eth0: multicast cannot be sent", 1);
    lab.ip(Some("rome"), "link set eth0 down");
    check("- eth0: not used: it is down", 1);
}

#[test]
fn a_network_in_the_range_of_the_pods_is_told_and_not_taken_for_a_lan() {
    let Some(lab) = Lab::new(&["rome"]) else {
        return;
    };
    for line in [
        "link add pods type veth peer name ends",
        "link set pods addrgenmode none",
        "link set pods up",
        "link set ends up",
        "address add 10.244.7.1/24 dev pods",
    ] {
        lab.ip(Some("rome"), line);
    }
    let text = said(&landbridge(&lab, "rome", "check lan --timeout 500ms"));
    let part = "- pods: not used: its address is in the range of this cluster's own pods";
    assert!(text.contains(part), "{text}");
    lab.start("rome");
    let until_told = |count: usize| {
        lab.until(PATIENCE, "rome says so", || {
            let log = std::fs::read_to_string(lab.log("rome")).ok()?;
            (log.matches("overlaps the podCIDR").count() == count).then_some(())
        });
    };
    until_told(1);
    lab.ip(Some("rome"), "address add 10.244.8.1/24 dev pods");
    until_told(2);
}

#[test]
fn check_lan_names_another_stack_on_the_machine() {
    let Some(lab) = Lab::new(&["rome"]) else {
        return;
    };
    if !installed(&["avahi-daemon", "dbus-daemon"]) {
        return skip("avahi-daemon or dbus is not installed");
    }
    let script = format!(
        "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/dbus /run/avahi-daemon
         [ /var/run -ef /run ] || mount --bind /run /var/run
         dbus-daemon --system --nofork --nopidfile & bus=$!
         while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.1; done
         avahi-daemon --no-drop-root --no-rlimits >/dev/null 2>&1 & avahi=$!
         for try in 1 2 3 4 5 6 7 8 9 10; do
           said=$({} check lan --timeout 500ms)
           case $said in *avahi*) break;; esac
         done
         echo \"$said\"
         kill $avahi $bus",
        env!("CARGO_BIN_EXE_landbridge")
    );
    let output = lab.run("rome", &["unshare", "--mount", "sh", "-c", &script]);
    let text = said(&output);
    assert!(text.contains("‼ avahi-daemon (process "), "{text}");
    assert!(text.contains("disallow-other-stacks"), "{text}");
}

/// Puts one rule before a machine's other rules.
fn firewall(lab: &Lab, machine: &str, hook: &str, rule: &str) {
    assert!(Path::new("/usr/sbin/nft").exists() || installed(&["nft"]));
    let rules = format!(
        "table inet check_{hook} {{\n chain only {{\n  type filter hook {hook} priority 0;\n  {rule};\n }}\n}}\n"
    );
    let script = format!("printf '%s' '{rules}' | nft -f -");
    let output = lab.run(machine, &["sh", "-c", &script]);
    assert!(output.status.success(), "{}", said(&output));
}
