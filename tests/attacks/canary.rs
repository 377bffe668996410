//! Two clusters live a whole life at the highest log level, and afterwards nothing that anybody can
//! look at holds a secret of theirs, in whatever spelling.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use regex::bytes::Regex;

use crate::lab::{Lab, installed, program, skip};

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_mins(1);
const MACHINES: [&str; 2] = ["rome", "milan"];
/// The secret that the lab gives to its daemons.
const FLEET_SECRET: &str = "0123456789abcdef";

#[test]
fn no_log_object_packet_or_answer_holds_a_secret() {
    let Some(mut lab) = Lab::new(&MACHINES) else {
        return;
    };
    lab.set("LANDBRIDGE_LOG_LEVEL", "trace,mdns_sd=debug");
    let capture = Capture::start(&lab);
    lab.start_all();
    lab.until_peered();
    // A restart makes rome show what it is given here.
    let token = exchange_token(&lab);
    lab.terminate("rome");
    lab.start("rome");
    lab.until_peered();
    lab.landbridge("milan", &["leave", "rome"]);
    lab.until(PATIENCE, "milan has left", || {
        let object = lab.peer("milan", "rome")?;
        (object["status"]["outgoing"]["joined"] != true).then_some(())
    });
    lab.landbridge("milan", &["join", "rome"]);
    lab.until_peered();

    let mut seen = answers(&lab);
    let secrets: BTreeMap<String, Vec<u8>> =
        MACHINES.iter().flat_map(|it| secrets(&lab, it)).collect();
    let tokens = tokens(&lab, &token);
    seen.extend(files(&lab));
    seen.extend(capture.map(Capture::end));
    assert!(seen.len() > 40, "{:?}", seen.keys());
    assert!(secrets.len() >= 7, "{:?}", secrets.keys());
    let length = seen["rome's log"].len();
    assert!(length > 50_000, "the logs are talkative: {length} bytes");
    let (secrets, tokens) = (needles(&secrets), needles(&tokens));
    let mut told = 0;
    for (place, content) in &seen {
        assert_eq!(found(content, &secrets), None, "in {place}");
        let token = found(content, &tokens);
        // A person wants them in Secrets, and Secrets are in the store.
        if place.ends_with("/secrets") || place.contains("store.db") {
            told += usize::from(token.is_some());
        } else {
            assert_eq!(token, None, "in {place}");
        }
    }
    assert!(told >= 4, "tokens are recognised where they are: {told}");
}

/// Gives rome a token of milan, as two people do.
fn exchange_token(lab: &Lab) -> String {
    let token = lab.landbridge("milan", &["token", "create", "--expires", "1h"]);
    let mut store = lab.command("rome", &program());
    store.args(["token", "store", "milan", "--data-dir"]);
    store.arg(lab.data_dir("rome")).stdin(Stdio::piped());
    let mut child = store.stdout(Stdio::null()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(token.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    token.trim().to_owned()
}

/// The tokens, as their texts and as the bytes that those spell.
fn tokens(lab: &Lab, exchanged: &str) -> BTreeMap<String, Vec<u8>> {
    let mut all = vec![("the token".to_owned(), exchanged.to_owned())];
    for machine in MACHINES {
        let path = "/api/v1/namespaces/liqo/secrets/auth-token";
        let secret = lab.request(machine, "GET", path, &serde_json::Value::Null);
        let text = STANDARD.decode(secret["data"]["token"].as_str().unwrap());
        let text = String::from_utf8(text.unwrap()).unwrap();
        all.push((format!("{machine}'s auth-token"), text));
    }
    let mut needles = BTreeMap::new();
    for (name, text) in all {
        let pairs = text.as_bytes().chunks(2);
        let bytes = pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16));
        needles.insert(
            format!("the bytes of {name}"),
            bytes.map(Result::unwrap).collect(),
        );
        needles.insert(name, text.into_bytes());
    }
    needles
}

/// Every spelling of some secrets.
fn needles(secrets: &BTreeMap<String, Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    let spelt = |(secret, bytes): (&String, &Vec<u8>)| {
        let (secret, all) = (secret.clone(), spellings(bytes).into_iter());
        all.map(move |(spelling, needle)| (format!("{secret} as {spelling}"), needle))
    };
    secrets.iter().flat_map(spelt).collect()
}

#[test]
fn every_spelling_of_a_secret_is_recognised() {
    let secret: Vec<u8> = (100..132).collect();
    let hidden = [
        [b"x".as_slice(), &secret, b"y"].concat(),
        secret
            .iter()
            .flat_map(|byte| format!("{byte:02x}").into_bytes())
            .collect(),
        secret
            .iter()
            .flat_map(|byte| format!("{byte:02X}").into_bytes())
            .collect(),
        STANDARD.encode(&secret).into_bytes(),
        STANDARD
            .encode([b"a", secret.as_slice()].concat())
            .into_bytes(),
        STANDARD
            .encode([b"ab", secret.as_slice(), b"c"].concat())
            .into_bytes(),
        format!("{secret:?}").into_bytes(),
    ];
    for text in hidden {
        let needles: Vec<_> = spellings(&secret)
            .into_iter()
            .map(|(spelling, needle)| (spelling.to_owned(), needle))
            .collect();
        let found = found(&text, &needles);
        assert!(found.is_some(), "{}", String::from_utf8_lossy(&text));
    }
}

/// What the daemons answer: commands, and every object that their APIs list.
fn answers(lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    let mut seen = BTreeMap::new();
    for machine in MACHINES {
        for words in [
            vec!["status", "-o", "json"],
            vec!["get", "-o", "yaml"],
            vec!["config", "show", "--origin"],
        ] {
            let text = lab.landbridge(machine, &words);
            seen.insert(format!("{machine} {words:?}"), text.into_bytes());
        }
        for path in everything(lab, machine) {
            let list = lab.request(machine, "GET", &path, &serde_json::Value::Null);
            seen.insert(format!("{machine} {path}"), list.to_string().into_bytes());
        }
    }
    seen
}

/// What the daemons leave behind when they end: logs and stores.
fn files(lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    let mut seen = BTreeMap::new();
    for machine in MACHINES {
        lab.terminate(machine);
        let log = fs::read(lab.log(machine)).unwrap();
        seen.insert(format!("{machine}'s log"), log);
        for file in ["store.db", "store.db-wal"] {
            let content = fs::read(lab.data_dir(machine).join(file)).unwrap_or_default();
            seen.insert(format!("{machine}'s {file}"), content);
        }
    }
    seen
}

/// The paths under which the API lists all there is.
fn everything(lab: &Lab, machine: &str) -> Vec<String> {
    let get = |path: &str| lab.request(machine, "GET", path, &serde_json::Value::Null);
    let mut paths = Vec::new();
    let mut roots = vec!["/api/v1".to_owned()];
    for group in get("/apis")["groups"].as_array().into_iter().flatten() {
        let version = group["preferredVersion"]["groupVersion"].as_str();
        roots.extend(version.map(|version| format!("/apis/{version}")));
    }
    for root in roots {
        for resource in get(&root)["resources"].as_array().into_iter().flatten() {
            let verbs = resource["verbs"].as_array().into_iter().flatten();
            if verbs.clone().any(|verb| verb == "list") {
                let name = resource["name"].as_str().unwrap();
                paths.push(format!("{root}/{name}"));
            }
        }
    }
    paths
}

/// The secrets of a machine, each as the bytes that must not be seen.
fn secrets(lab: &Lab, machine: &str) -> Vec<(String, Vec<u8>)> {
    let data = lab.data_dir(machine);
    let mut all = vec![(
        "the fleet secret".to_owned(),
        FLEET_SECRET.repeat(2).into_bytes(),
    )];
    for key in ["identity.pem", "api/credentials.pem"] {
        for (index, der) in private_keys(&data.join(key)).into_iter().enumerate() {
            // An octet string of 32 bytes is the secret part (RFC 5915, section 3; RFC 8410, section 7).
            let start = der.windows(2).position(|head| head == [4, 32]).unwrap() + 2;
            let secret = der[start..start + 32].to_vec();
            all.push((format!("{machine}'s {key} {index}"), secret));
            // The beginning of its text, for what is spelt twice, as in a kubeconfig.
            let text = STANDARD.encode(&der).as_bytes()[..60].to_vec();
            all.push((format!("{machine}'s {key} {index} as PEM"), text));
        }
    }
    let mut files = fs::read_dir(data).unwrap().map(|file| file.unwrap().path());
    let tunnel = files.find(|path| path.to_string_lossy().contains("/tunnel-"));
    let tunnel = tunnel.expect("a key of the tunnel");
    all.push((format!("{machine}'s tunnel key"), fs::read(tunnel).unwrap()));
    all
}

fn private_keys(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).unwrap();
    let sections = text.split("-----BEGIN ").skip(1);
    sections
        .filter(|section| section.starts_with("PRIVATE KEY"))
        .map(|section| {
            let body = section.split("-----").nth(1).unwrap();
            STANDARD
                .decode(body.split_whitespace().collect::<String>())
                .unwrap()
        })
        .collect()
}

/// How bytes may be written: as they are, in hexadecimal digits, in base64 at any offset, as a list
/// of numbers.
fn spellings(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut hex = String::new();
    for byte in bytes {
        write!(hex, "{byte:02x}").unwrap();
    }
    let mut all = vec![
        ("raw bytes", bytes.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("upper-case hex", hex.to_uppercase().into_bytes()),
        (
            "numbers",
            format!("{bytes:?}")
                .trim_matches(['[', ']'])
                .as_bytes()
                .to_vec(),
        ),
    ];
    for offset in 0..3 {
        // What is before and after shares characters with the first and the last bytes.
        let skipped = (3 - offset) % 3;
        let whole = (bytes.len() - skipped) / 3 * 3;
        let inner = &bytes[skipped..skipped + whole];
        all.push(("base64", STANDARD_NO_PAD.encode(inner).into_bytes()));
        all.push((
            "base64 for URLs",
            URL_SAFE_NO_PAD.encode(inner).into_bytes(),
        ));
    }
    all
}

/// Names the first needle that is in a content.
fn found<'a>(content: &[u8], needles: &'a [(String, Vec<u8>)]) -> Option<&'a str> {
    let escaped = needles.iter().map(|(_, needle)| {
        let mut pattern = String::new();
        for byte in needle {
            write!(pattern, "\\x{byte:02x}").unwrap();
        }
        pattern
    });
    let pattern = format!("(?-u){}", escaped.collect::<Vec<_>>().join("|"));
    let at = Regex::new(&pattern).unwrap().find(content)?;
    let mut all = needles.iter();
    let (name, _) = all.find(|(_, needle)| needle == at.as_bytes())?;
    Some(name)
}

/// What went over the LAN.
struct Capture {
    child: std::process::Child,
    file: std::path::PathBuf,
}

impl Capture {
    fn start(lab: &Lab) -> Option<Self> {
        if !installed(&["tcpdump"]) {
            skip("tcpdump is not installed, so nobody looks at the packets for secrets");
            return None;
        }
        let file = lab.data_dir("capture.pcap");
        let child = Command::new("ip")
            .args(["netns", "exec", &format!("{}lan", lab.prefix())])
            .args(["tcpdump", "-q", "-U", "-s0", "-i", "lan", "-w"])
            .arg(&file)
            .args(["-Z", "root"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        lab.until(PATIENCE, "the capture runs", || file.exists().then_some(()));
        Some(Self { child, file })
    }

    fn end(mut self) -> (String, Vec<u8>) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let packets = fs::read(&self.file).unwrap();
        assert!(packets.len() > 10_000, "something was captured");
        ("the LAN".to_owned(), packets)
    }
}
