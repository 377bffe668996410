//! A certificate for its name in a domain lets a cluster in where the SearchDomain says so, and nobody
//! who has none for a name of that domain.

use std::{fs, path::PathBuf, process::Command};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::{
    bind::Zone,
    daemon::{search_domain, serve},
    keys::{trust, trusted},
    lab::Lab,
};

/// Which machine is listed at which host, and the name in its certificate.
const LISTED: [(&str, &str, &str); 4] = [
    ("rome", "rome.clusters.test", "rome.clusters.test"),
    ("milan", "milan.clusters.test", "milan.clusters.test"),
    ("turin", "turin.clusters.test", "turin.elsewhere.test"),
    // Whoever answers in place of a domain can lead to a host of his own.
    ("eve", "eve.elsewhere.test", "eve.elsewhere.test"),
];

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Writes a certificate for a name and its key, and returns where they are.
    fn certify(&self, lab: &Lab, name: &str) -> (PathBuf, PathBuf) {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let write = |kind: &str, text: &str| lab.write(&format!("{name}.{kind}"), text);
        (
            write("pem", &certificate.pem()),
            write("key", &key.serialize_pem()),
        )
    }
}

/// The domain as it answers, and the one that only eve writes.
fn zones(lab: &Lab) -> [Zone; 2] {
    let at = |inside: bool| {
        let chosen = LISTED
            .iter()
            .filter(move |(_, host, _)| inside == host.ends_with(".clusters.test"));
        let lines =
            chosen.map(|(machine, host, _)| format!("{host}. A {}\n", lab.address(machine)));
        lines.collect::<String>()
    };
    let listed = LISTED
        .iter()
        .map(|(machine, host, _)| format!("@ PTR c-{machine}\nc-{machine} SRV 0 0 5870 {host}.\n"));
    let domain = listed.collect::<String>() + &at(true);
    [
        Zone::new("clusters.test", &domain).hurried(),
        Zone::new("elsewhere.test", &at(false)),
    ]
}

#[test]
fn clusters_with_a_certificate_for_their_name_peer_where_that_is_wanted() {
    let machines = LISTED.map(|(machine, ..)| machine);
    let all: Vec<&str> = machines.into_iter().chain(["dns"]).collect();
    let Some(lab) = Lab::new(&all) else { return };
    let _bind = serve(&lab, &zones(&lab), "");
    let authority = Authority::new();
    let roots = lab.write("roots", &authority.0.pem());
    let mut keys = Vec::new();
    for (machine, _, name) in LISTED {
        let (certificate, key) = authority.certify(&lab, name);
        keys.push(key.clone());
        let settings = json!({
            "webPki": {"certificateFile": certificate, "keyFile": key},
            "webPkiRootsFile": roots,
        });
        let dns = json!({"servers": [lab.address("dns")]});
        lab.start_with(
            machine,
            &json!({"lan": {"enabled": false}, "dns": dns, "trust": settings}),
        );
        lab.apply(machine, &search_domain(true));
    }
    let waiting = |here: &str, there: &str| {
        let (reason, object) = trusted(&lab, here, there)?;
        let waits = object["status"]["phase"] == "Waiting";
        (waits && reason == "ApprovalNeeded").then_some(())
    };
    for there in ["milan", "turin", "eve"] {
        lab.until("a stranger waits", || waiting("rome", there));
    }
    for machine in machines {
        assert!(trust(&lab, machine, r#"["TLSA","WebPKI"]"#));
    }
    let peered = |here: &str, there: &str| {
        let (reason, object) = trusted(&lab, here, there)?;
        let peered = object["status"]["phase"] == "Peered";
        (peered && reason == "WebPKI").then_some(object)
    };
    for (here, there) in [("rome", "milan"), ("milan", "rome")] {
        let object: Value = lab.until("it is peered by its name", || peered(here, there));
        let by = &object["metadata"]["annotations"]["discovery.liqo.io/trusted-by"];
        assert_eq!(by, "WebPKI");
    }
    lab.until("turin was asked and refused", || {
        let said = "the certificate does not hold for turin.clusters.test";
        lab.story().contains(said).then_some(())
    });
    for there in ["turin", "eve"] {
        assert_eq!(waiting("rome", there), Some(()), "{there}");
    }
    assert!(!lab.story().contains("for eve."), "eve is not even asked");
    nothing_is_signed_for_strangers(&lab);
    no_key_is_told(&lab, &keys);
}

/// Neither in what the daemons said, at length, nor in their objects.
fn no_key_is_told(lab: &Lab, keys: &[PathBuf]) {
    let objects = lab.landbridge("rome", &["get", "-o", "yaml"]);
    for key in keys {
        let text = fs::read_to_string(key).expect("readable");
        let secret = text.lines().nth(1).expect("a line of base64");
        assert!(secret.len() > 40 && !lab.story().contains(secret));
        assert!(!objects.contains(secret));
    }
}

/// Whoever has proven no identity is shown none, and costs no signature.
fn nothing_is_signed_for_strangers(lab: &Lab) {
    let url = format!(
        "https://{}:5870/ids?attestation=webpki",
        lab.address("milan")
    );
    let namespace = lab.namespace("rome");
    let asked = Command::new("ip")
        .args(["netns", "exec", &namespace, "curl", "-sk", "-m", "10", &url])
        .output()
        .expect("ip runs");
    let said = String::from_utf8_lossy(&asked.stdout);
    if said.is_empty() {
        crate::bind::skip("curl is not installed");
        return;
    }
    assert!(
        said.contains("clusterId") && !said.contains("attestation"),
        "{said}"
    );
}
