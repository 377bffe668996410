//! The ways in and out, as people go them: with Liqo's own commands, with ours, on real machines.
#![expect(
    clippy::indexing_slicing,
    reason = "a missing field is null, and the test fails"
)]

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use landbridge::discovery::mdns::wire::Packet;
use serde_json::{Value, json};

use crate::{
    lab::{self, Lab},
    multicast::{listen, question, responses, say, socket},
};

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(40);

/// What Liqo's documents have a person run in the home cluster, with the name of a ForeignCluster
/// and the token on standard input.
const AUTHENTICATE: &str = r#"
set -e
liqoNamespace="${NAMESPACE:-liqo}"
fcName="$1"
clusterId=$(kubectl get foreignclusters "$fcName" \
  -o jsonpath="{.spec.clusterIdentity.clusterID}")
echo "Insert token:"
read -r token
secret_name="remote-token-$clusterId"
kubectl create secret generic "$secret_name" \
  -n "$liqoNamespace" \
  --from-literal=token="$token"
kubectl label secret "$secret_name" \
  -n "$liqoNamespace" \
  discovery.liqo.io/cluster-id="$clusterId" \
  discovery.liqo.io/auth-token=""
kubectl patch foreignclusters "$fcName" \
  --patch '{"status":{"authStatus":"Pending"}}' \
  --type 'merge'
"#;

#[test]
fn liqos_own_commands_lead_from_empty_refused_over_refused_to_accepted() {
    let Some(mut lab) = strangers() else {
        return;
    };
    if !has_kubectl() {
        lab::skip("there is no kubectl 1.29 or newer");
        return;
    }
    lab.set("LANDBRIDGE_TRUST_INCOMING", "token");
    lab.start_all();
    until_auth_status(&lab, "EmptyRefused");
    let id = "jsonpath={.spec.clusterIdentity.clusterID}";
    let id = kubectl(&lab, "rome", &["get", "foreignclusters", "milan", "-o", id]);

    let wrong = "0123456789abcdef".repeat(4);
    shell(&lab, "rome", AUTHENTICATE, &wrong);
    until_auth_status(&lab, "Refused");
    let listed = [
        "get",
        "secret",
        "-n",
        "liqo",
        "-l",
        "discovery.liqo.io/auth-token",
        "--show-labels",
    ];
    let listed = kubectl(&lab, "rome", &listed);
    assert!(
        listed.contains(&format!("discovery.liqo.io/cluster-id={id}")),
        "{listed}"
    );
    pending_asks_again(&lab);
    until_auth_status(&lab, "Refused");

    let token = token_of(&lab, "milan");
    let secret = format!("remote-token-{id}");
    kubectl(&lab, "rome", &["delete", "secret", "-n", "liqo", &secret]);
    shell(&lab, "rome", AUTHENTICATE, &token);
    until_auth_status(&lab, "Accepted");
    lab.until_peered();
    for (here, there) in lab.pairs() {
        assert_eq!(reason(&lab, here, there, "Trusted"), "Token", "{here}");
    }
    assert_untold(&lab, &token);
}

/// Patches the status as the documents do, and waits until milan is asked because of it.
fn pending_asks_again(lab: &Lab) {
    let before = attempts(lab);
    let pending = r#"{"status":{"authStatus":"Pending"}}"#;
    let patch = [
        "patch",
        "foreignclusters",
        "milan",
        "--patch",
        pending,
        "--type",
        "merge",
    ];
    kubectl(lab, "rome", &patch);
    lab.until(PATIENCE, "Pending asks again", || {
        (attempts(lab) > before).then_some(())
    });
}

/// Reads the token of a machine as the documents do.
fn token_of(lab: &Lab, machine: &str) -> String {
    let path = "jsonpath={.data.token}";
    let token = kubectl(
        lab,
        machine,
        &["get", "secret", "-n", "liqo", "auth-token", "-o", path],
    );
    String::from_utf8(STANDARD.decode(token).expect("base64")).expect("text")
}

#[test]
fn a_token_of_ours_lets_one_cluster_in_and_is_told_nowhere() {
    let Some(lab) = strangers() else {
        return;
    };
    lab.start_all();
    until_both_wait(&lab);
    let token = lab.landbridge(
        "milan",
        &["token", "create", "--expires", "1h", "--name", "invite"],
    );
    let store = ["token", "store", "milan"];
    let output = fed(
        lab.command("rome", env!("CARGO_BIN_EXE_landbridge"))
            .args(store)
            .arg("--data-dir")
            .arg(lab.data_dir("rome")),
        &token,
    );
    assert!(output.contains("token stored"), "{output}");
    lab.until_peered();
    for (here, there) in lab.pairs() {
        assert_eq!(reason(&lab, here, there, "Trusted"), "Token", "{here}");
    }
    let listed = lab.landbridge("milan", &["token", "list"]);
    let line = listed.lines().find(|line| line.starts_with("invite"));
    assert!(
        line.is_some_and(|line| line.contains("spent") && !line.ends_with('-')),
        "{listed}"
    );
    assert_untold(&lab, token.trim());
    lab.landbridge("milan", &["token", "revoke", "invite"]);
    assert!(
        !lab.landbridge("milan", &["token", "list"])
            .contains("invite")
    );
    lab.until_peered();
}

#[test]
fn who_is_denied_stays_refused_across_restart_and_rediscovery() {
    let Some(lab) = strangers() else {
        return;
    };
    lab.start_all();
    until_both_wait(&lab);
    let said = lab.landbridge("milan", &["deny", "rome"]);
    assert!(said.contains("landbridge approve rome"), "{said}");
    until_refused(&lab);
    let before = lab.peer("milan", "rome").expect("it stays");
    lab.kill("milan");
    lab.start("milan");
    until_refused(&lab);
    assert_eq!(lab.terminate("rome"), Some(0), "it says goodbye");
    lab.start("rome");
    until_refused(&lab);
    let after = lab.peer("milan", "rome").expect("it stays");
    assert_eq!(
        before["metadata"]["uid"], after["metadata"]["uid"],
        "the same object"
    );
    assert_eq!(after["spec"]["incomingPeeringEnabled"], "No");
    assert_eq!(
        lab.list("milan", "/apis/discovery.liqo.io/v1alpha1/peeringrequests"),
        [json!(null); 0]
    );
    lab.landbridge("milan", &["approve", "rome"]);
    lab.landbridge("rome", &["approve", "milan"]);
    lab.until_peered();
}

#[test]
fn who_is_blocked_loses_its_peering_and_gets_it_back_when_it_is_approved_and_joined() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start_all();
    lab.until_peered();
    lab.landbridge("milan", &["block", "rome"]);
    until_refused(&lab);
    let rome = lab.peer("milan", "rome").expect("it stays");
    assert_eq!(rome["spec"]["join"], false);
    assert_eq!(rome["spec"]["trustMode"], "Untrusted");
    lab.landbridge("milan", &["approve", "rome"]);
    lab.landbridge("milan", &["join", "rome"]);
    lab.until_peered();
}

#[test]
fn a_copied_data_directory_holds_both_back_until_one_is_left() {
    let Some(lab) = Lab::new(&["rome", "milan", "copy"]) else {
        return;
    };
    lab.start("rome");
    lab.start("milan");
    lab.until(PATIENCE, "rome and milan are peered", || is_peered(&lab));
    assert_eq!(lab.terminate("rome"), Some(0));
    let (from, to) = (lab.data_dir("rome"), lab.data_dir("copy"));
    let copied = Command::new("cp").arg("-a").args([&from, &to]).status();
    assert!(copied.is_ok_and(|status| status.success()));
    lab.start("rome");
    lab.start("copy");
    for machine in ["rome", "copy"] {
        lab.until(
            PATIENCE,
            &format!("{machine} says that it is not alone"),
            || {
                let told = uniqueness(&lab, machine);
                (told["reason"] == "DuplicateIdentity").then_some(())
            },
        );
        lab.until(PATIENCE, &format!("{machine} has left milan"), || {
            let tunnels = lab.list(machine, "/apis/net.liqo.io/v1alpha1/tunnelendpoints");
            let waits = lab.peer(machine, "milan")?["status"]["phase"] == "Waiting";
            (tunnels.is_empty() && waits).then_some(())
        });
    }
    lab.kill("copy");
    lab.until(PATIENCE * 2, "rome and milan are peered again", || {
        is_peered(&lab)
    });
    assert_eq!(uniqueness(&lab, "rome")["status"], "True");
    fs::remove_file(to.join("identity.pem")).expect("it was copied");
    lab.start("copy");
    // What it is called is copied, too.
    lab.until(PATIENCE * 2, "the copy is a cluster of its own", || {
        let peered = |peer: &Value| peer["status"]["phase"] == "Peered";
        (lab.peers("copy").iter().filter(|peer| peered(peer)).count() == 2).then_some(())
    });
}

#[test]
fn a_copied_identity_is_taken_back_by_both_and_announced_by_neither() {
    let Some(lab) = Lab::new(&["rome", "copy", "ear"]) else {
        return;
    };
    lab.start("rome");
    assert_eq!(lab.terminate("rome"), Some(0));
    let (from, to) = (lab.data_dir("rome"), lab.data_dir("copy"));
    let copied = Command::new("cp").arg("-a").args([&from, &to]).status();
    assert!(copied.is_ok_and(|status| status.success()));
    let ears = ["rome", "copy"].map(|machine| {
        let ear = socket(&lab, "ear", lab.address("ear"));
        (ear, lab.address(machine))
    });
    lab.start("rome");
    lab.start("copy");
    let is_goodbye = |packet: &Packet| {
        !packet.answers.is_empty() && packet.answers.iter().all(|record| record.ttl == 0)
    };
    for (ear, machine) in &ears {
        lab.until(PATIENCE, &format!("{machine} says goodbye"), || {
            let heard = responses(&listen(ear, *machine, Duration::from_secs(1)));
            heard.iter().any(is_goodbye).then_some(())
        });
    }
    for (ear, machine) in &ears {
        // The second goodbye may be on its way.
        listen(ear, *machine, Duration::from_millis(500));
    }
    let (voice, _) = &ears[0];
    for service in ["_liqo_auth._tcp.local", "_landbridge._tcp.local"] {
        say(voice, &question(service));
    }
    for (ear, machine) in &ears {
        let heard = responses(&listen(ear, *machine, Duration::from_secs(3)));
        assert_eq!(heard, [], "{machine} is silent\n{}", lab.story());
    }
}

/// What a machine says about whether its identity is on it alone.
fn uniqueness(lab: &Lab, machine: &str) -> Value {
    let status = lab.status(machine);
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut conditions = conditions.into_iter();
    let found = conditions.find(|one| one["type"] == "IdentityUnique");
    found.unwrap_or(Value::Null)
}

fn is_peered(lab: &Lab) -> Option<()> {
    for (here, there) in [("rome", "milan"), ("milan", "rome")] {
        let phase = lab.peer(here, there)?["status"]["phase"].clone();
        if phase != "Peered" {
            return None;
        }
    }
    Some(())
}

pub(crate) fn strangers() -> Option<Lab> {
    let mut lab = Lab::new(&["rome", "milan"])?;
    lab.be_strangers();
    Some(lab)
}

pub(crate) fn until_both_wait(lab: &Lab) {
    for (here, there) in lab.pairs() {
        lab.until(PATIENCE, &format!("{here} waits for a person"), || {
            let object = lab.peer(here, there)?;
            (object["status"]["phase"] == "Waiting").then_some(())
        });
    }
}

/// Waits until milan refuses rome, and rome knows it.
pub(crate) fn until_refused(lab: &Lab) {
    for (here, there) in lab.pairs() {
        lab.until(PATIENCE, &format!("{here} says Refused"), || {
            let object = lab.peer(here, there)?;
            (object["status"]["phase"] == "Refused").then_some(())
        });
    }
    lab.until(PATIENCE, "rome was told so", || {
        let object = lab.peer("rome", "milan")?;
        (object["status"]["authStatus"] == "Refused").then_some(())
    });
}

/// Waits until rome's authorisation at milan stands so, as Liqo's documents have it looked up.
fn until_auth_status(lab: &Lab, wanted: &str) {
    let path = "jsonpath={.status.authStatus}";
    let look = [
        "get",
        "foreignclusters.discovery.liqo.io",
        "milan",
        "-o",
        path,
    ];
    lab.until(PATIENCE, &format!("authStatus is {wanted}"), || {
        lab.peer("rome", "milan")?;
        (kubectl(lab, "rome", &look) == wanted).then_some(())
    });
}

/// How often rome has asked milan.
fn attempts(lab: &Lab) -> usize {
    let log = fs::read_to_string(lab.log("rome")).expect("a log");
    log.lines()
        .filter(|line| line.contains("step=Identify"))
        .count()
}

pub(crate) fn reason(lab: &Lab, here: &str, there: &str, kind: &str) -> String {
    let object = lab.peer(here, there).expect("it stays");
    let conditions = object["status"]["conditions"].as_array().cloned();
    let mut conditions = conditions.unwrap_or_default().into_iter();
    let found = conditions
        .find(|one| one["type"] == kind)
        .unwrap_or(Value::Null);
    found["reason"].as_str().unwrap_or_default().to_owned()
}

/// A token stands in no log, object or event.
fn assert_untold(lab: &Lab, token: &str) {
    let raw: Vec<u8> = token
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let forms = [
        token.to_owned(),
        STANDARD.encode(token),
        STANDARD.encode(raw),
    ];
    for (here, there) in lab.pairs() {
        let mut told = vec![fs::read_to_string(lab.log(here)).expect("a log")];
        told.extend(lab.peer(here, there).map(|object| object.to_string()));
        told.extend(
            lab.list(here, "/apis/events.k8s.io/v1/events")
                .iter()
                .map(Value::to_string),
        );
        told.extend(
            lab.list(here, "/api/v1/configmaps")
                .iter()
                .map(Value::to_string),
        );
        for form in &forms {
            assert!(
                !told.iter().any(|text| text.contains(form)),
                "{here} tells the token"
            );
        }
    }
}

pub(crate) fn has_kubectl() -> bool {
    let output = Command::new("kubectl")
        .args(["version", "--client", "-o", "json"])
        .output();
    let version = output
        .ok()
        .and_then(|output| serde_json::from_slice::<Value>(&output.stdout).ok());
    let minor = version.and_then(|version| {
        let minor = version["clientVersion"]["minor"]
            .as_str()?
            .trim_end_matches('+')
            .to_owned();
        minor.parse::<u32>().ok()
    });
    minor.is_some_and(|minor| minor >= 29)
}

pub(crate) fn kubectl(lab: &Lab, machine: &str, arguments: &[&str]) -> String {
    let mut command = lab.command(machine, "kubectl");
    fed(
        command
            .args(arguments)
            .env("KUBECONFIG", lab.data_dir(machine).join("kubeconfig")),
        "",
    )
}

fn shell(lab: &Lab, machine: &str, script: &str, input: &str) {
    let mut command = lab.command(machine, "bash");
    let command = command.args(["-c", script, "authenticate.sh", "milan"]);
    fed(
        command.env("KUBECONFIG", lab.data_dir(machine).join("kubeconfig")),
        &format!("{input}\n"),
    );
}

/// Runs a program with this on its standard input; it must be well.
fn fed(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
