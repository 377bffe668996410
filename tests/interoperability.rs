//! Other implementations of DNS-SD see us on the LAN, and what they announce is found by us.
//!
//! Each is the real one: Avahi from Debian, python-zeroconf from PyPI, bonjour-service from npm. Where
//! one cannot be had its test says `skipped:`. The daemon that another program announces is a real
//! one with its own announcement switched off, so that it is found and proven only by that program.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a missing field is null, and the test fails"
)]

#[path = "lan/lab.rs"]
#[expect(dead_code, reason = "other tests use the rest of the lab")]
mod lab;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use lab::Lab;
use serde_json::Value;

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(40);
const SERVICE_TYPES: [&str; 2] = ["_liqo_auth._tcp", "_landbridge._tcp"];

#[test]
fn avahi_sees_us_and_is_seen() {
    if !lab::installed(&[
        "avahi-daemon",
        "avahi-browse",
        "avahi-publish",
        "dbus-daemon",
    ]) {
        return lab::skip("avahi-daemon, avahi-utils or dbus is not installed");
    }
    both_directions(&Stack {
        words: vec![path("avahi_peer.sh")],
        tools: None,
    });
}

#[test]
fn python_zeroconf_sees_us_and_is_seen() {
    let Some(tools) = install("zeroconf", |folder| {
        let made = run(Command::new("python3").args(["-m", "venv"]).arg(folder));
        let pip = folder.join("bin/pip");
        made && run(Command::new(pip).args([
            "install",
            "--quiet",
            "--retries=1",
            "zeroconf==0.154.0",
        ]))
    }) else {
        return lab::skip("python-zeroconf cannot be installed here");
    };
    both_directions(&Stack {
        words: vec![text(&tools.join("bin/python")), path("zeroconf_peer.py")],
        tools: None,
    });
}

#[test]
fn bonjour_service_for_node_sees_us_and_is_seen() {
    let Some(tools) = install("bonjour", |folder| {
        run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(folder)
            .arg("bonjour-service@1.4.4"))
    }) else {
        return lab::skip("bonjour-service for Node cannot be installed here");
    };
    both_directions(&Stack {
        words: vec!["node".to_owned(), path("bonjour_peer.cjs")],
        tools: Some(tools.join("node_modules")),
    });
}

/// Another implementation, as a program that can `browse` and `announce`.
struct Stack {
    words: Vec<String>,
    /// Where Node looks for packages.
    tools: Option<PathBuf>,
}

impl Stack {
    fn start(&self, lab: &Lab, machine: &str, arguments: &[&str]) -> Child {
        let packages = self.tools.as_deref().map(text).unwrap_or_default();
        let mut command = lab.command(machine, "env");
        command
            .arg(format!("NODE_PATH={packages}"))
            .args(&self.words)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.spawn().expect("the program runs")
    }
}

fn both_directions(stack: &Stack) {
    let Some(mut lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    // A machine on a real LAN has a default route, which some rely on.
    lab.ip(Some("milan"), "route add default via 10.77.0.1 dev eth0");
    lab.start("rome");
    sees_us(stack, &lab);
    lab.set("LANDBRIDGE_LAN_ENABLED", "false");
    lab.start("milan");
    is_seen(stack, &lab);
}

/// What rome announces, as the other implementation understands it.
fn sees_us(stack: &Stack, lab: &Lab) {
    let id = id_of(lab, "rome");
    let words: Vec<&str> = ["browse"].into_iter().chain(SERVICE_TYPES).collect();
    let browsing = stack.start(lab, "milan", &words);
    let Output { stdout, .. } = browsing.wait_with_output().expect("our child");
    let seen = String::from_utf8_lossy(&stdout).into_owned();
    let lines: Vec<Value> = seen
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    for service_type in SERVICE_TYPES {
        let service = lines
            .iter()
            .find(|line| line["type"] == service_type)
            .unwrap_or_else(|| panic!("{service_type} is not seen:\n{seen}\n{}", lab.story()));
        assert_eq!(service["instance"], id.as_str(), "{service}");
        assert_eq!(service["host"], format!("{id}.local"), "{service}");
        assert_eq!(service["port"], 5870, "{service}");
        let addresses = service["addresses"].as_array().expect("addresses");
        assert!(
            addresses.contains(&lab.address("rome").to_string().into()),
            "{service}"
        );
        for (key, value) in [("v", "1"), ("id", &id), ("name", "rome")] {
            assert_eq!(service["txt"][key], value, "{service}");
        }
        assert!(service["txt"]["boot"].is_string(), "{service}");
    }
}

/// Milan is silent; the other implementation announces it, under the type that Liqo uses.
fn is_seen(stack: &Stack, lab: &Lab) {
    let (id, address) = (id_of(lab, "milan"), lab.address("milan").to_string());
    assert_eq!(lab.peers("rome").len(), 0, "nobody has announced milan yet");
    let words = ["announce", SERVICE_TYPES[0], &id, "5870", &address];
    let mut announcing = stack.start(lab, "milan", &words);
    let url = format!("https://{address}:5870");
    let found = lab.until(PATIENCE, "rome has found milan and proven it", || {
        lab.peer("rome", "milan").filter(|object| {
            let lan = object["spec"]["discoveryType"] == "LAN";
            // Some announce their IPv6 address in a packet of its own, which may be the first.
            let best = object["spec"]["authUrl"] == url.as_str();
            lan && best && lab::condition(object, "IdentityVerified")
        })
    });
    assert_eq!(found["spec"]["clusterIdentity"]["clusterID"], id.as_str());
    drop(announcing.stdin.take());
    announcing.wait().expect("it ends with its input");
}

fn id_of(lab: &Lab, machine: &str) -> String {
    lab.until(PATIENCE, &format!("{machine} says who it is"), || {
        lab.status(machine)["clusterID"].as_str().map(str::to_owned)
    })
}

/// Installs a package once for all runs; returns its folder, or nothing where it cannot be had.
fn install(name: &str, installer: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let done = folder.join("installed");
    if !done.is_file() {
        fs::create_dir_all(&folder).expect("writable");
        if !installer(&folder) {
            return None;
        }
        fs::write(done, "").expect("writable");
    }
    Some(folder)
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn path(script: &str) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interoperability");
    text(&tests.join(script))
}

fn text(path: &Path) -> String {
    path.to_str()
        .expect("the checkout has a printable path")
        .to_owned()
}
