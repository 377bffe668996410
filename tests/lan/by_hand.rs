//! The ways in and out by kubectl alone, with what README has a person type.

use std::fs;

use serde_json::Value;

use crate::{
    PATIENCE,
    lab::{self, Lab},
    trust::{has_kubectl, kubectl, reason, strangers, until_both_wait, until_refused},
};

const TOKEN: &str = "5f2d9c0b7a1e4836d0c4b7f19e83a6520d1f6b8c3e7a94152b60d8f7c9e3a41b";

#[test]
fn approve_deny_and_block_are_patches() {
    let Some(lab) = lab_of_strangers() else {
        return;
    };
    for (here, there) in lab.pairs() {
        patch(&lab, here, "approve", there);
    }
    lab.until_peered();
    until_trusted_by(&lab, "Pinned");
    patch(&lab, "milan", "deny", "rome");
    until_refused(&lab);
    assert_eq!(reason(&lab, "milan", "rome", "Trusted"), "Blocked");
    patch(&lab, "milan", "approve", "rome");
    lab.until_peered();
    patch(&lab, "milan", "block", "rome");
    until_refused(&lab);
    let rome = lab.peer("milan", "rome").expect("it stays");
    assert_eq!(rome["spec"]["join"], false);
    assert_eq!(rome["spec"]["trustMode"], "Untrusted");
}

#[test]
fn a_token_of_ones_own_making_lets_its_bearer_in() {
    let Some(lab) = lab_of_strangers() else {
        return;
    };
    let text = format!("--from-literal=token={TOKEN}");
    secret(&lab, "milan", "by-hand", &[&text, "--from-literal=uses=1"]);
    label(
        &lab,
        "milan",
        "by-hand",
        &["discovery.liqo.io/incoming-token="],
    );
    let id = "jsonpath={.spec.clusterIdentity.clusterID}";
    let id = kubectl(&lab, "rome", &["get", "foreignclusters", "milan", "-o", id]);
    secret(&lab, "rome", "of-milan", &[&text]);
    let whose = format!("discovery.liqo.io/cluster-id={id}");
    label(
        &lab,
        "rome",
        "of-milan",
        &[&whose, "discovery.liqo.io/auth-token="],
    );
    lab.until_peered();
    until_trusted_by(&lab, "Token");
    let path = "/api/v1/namespaces/liqo/secrets/by-hand";
    let left = &lab.request("milan", "GET", path, &Value::Null)["data"]["uses"];
    assert_eq!(left, "MA==", "none is left");
}

#[test]
fn a_fleet_secret_is_a_secret_where_no_file_is_named() {
    let Some(lab) = lab_of_strangers() else {
        return;
    };
    let text = format!("--from-literal=secret={TOKEN}");
    for machine in ["rome", "milan"] {
        secret(&lab, machine, "landbridge-fleet", &[&text]);
    }
    lab.until_peered();
    until_trusted_by(&lab, "FleetSecret");
}

#[test]
fn who_is_accepted_unseen_is_said_to_be() {
    let Some(lab) = lab_of_strangers() else {
        return;
    };
    let open = r#"{"spec":{"authConfig":{"allowEmptyToken":true}}}"#;
    for machine in ["rome", "milan"] {
        let words = [
            "patch",
            "clusterconfigs",
            "liqo-configuration",
            "--type",
            "merge",
            "-p",
            open,
        ];
        kubectl(&lab, machine, &words);
    }
    lab.until_peered();
    until_trusted_by(&lab, "EmptyTokenAllowed");
}

/// Two clusters that wait for a person each, who has a kubectl.
fn lab_of_strangers() -> Option<Lab> {
    let lab = strangers()?;
    if !has_kubectl() {
        lab::skip("there is no kubectl 1.29 or newer");
        return None;
    }
    lab.start_all();
    until_both_wait(&lab);
    Some(lab)
}

/// Does with kubectl what README says that a verb does.
fn patch(lab: &Lab, machine: &str, verb: &str, name: &str) {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(readme).expect("the manual");
    let row = format!("| `landbridge {verb} NAME` | `'");
    let patch = readme
        .lines()
        .find_map(|line| line.strip_prefix(&row)?.strip_suffix("'` |"));
    let patch = patch.expect("a row of the table");
    let words = [
        "patch",
        "foreignclusters",
        name,
        "--type",
        "merge",
        "-p",
        patch,
    ];
    kubectl(lab, machine, &words);
}

fn secret(lab: &Lab, machine: &str, name: &str, literals: &[&str]) {
    let words = ["create", "secret", "generic", name, "-n", "liqo"];
    kubectl(lab, machine, &[&words, literals].concat());
}

fn label(lab: &Lab, machine: &str, name: &str, labels: &[&str]) {
    let words = ["label", "secret", name, "-n", "liqo"];
    kubectl(lab, machine, &[&words, labels].concat());
}

fn until_trusted_by(lab: &Lab, why: &str) {
    for (here, there) in lab.pairs() {
        lab.until(PATIENCE, &format!("{here} trusts by {why}"), || {
            (reason(lab, here, there, "Trusted") == why).then_some(())
        });
    }
}
