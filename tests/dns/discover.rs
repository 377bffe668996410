//! `landbridge discover --domain`, also over DNS over TLS.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::{
    bind::{Bind, Zone, free_port},
    daemon::serve,
    lab::Lab,
};

/// Writes settings with these name servers.
fn settings(directory: &Path, servers: &Value) -> PathBuf {
    let path = directory.join("settings.yaml");
    let settings = json!({"dns": {"servers": servers}});
    fs::write(&path, settings.to_string()).expect("writable");
    path
}

fn rows(output: &Output) -> Vec<Value> {
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[test]
fn a_look_at_a_domain_says_who_proves_itself_and_what_leads_nowhere() {
    let Some(lab) = Lab::new(&["rome", "milan", "dns"]) else {
        return;
    };
    let (milan, nobody) = (lab.address("milan"), lab.address("rome"));
    let zone = format!(
        "@ PTR milan\n@ PTR nothing\n@ PTR away\n\
         milan SRV 0 0 5870 host\nhost A {milan}\n\
         away SRV 0 0 5870 empty\nempty A {nobody}\n"
    );
    let _bind = serve(&lab, &[Zone::new("clusters.test", &zone)], "");
    lab.start("milan", &json!({}), false);
    let directory = tempfile::tempdir().expect("a directory");
    let settings = settings(directory.path(), &json!([lab.address("dns")]));
    let settings = settings.to_string_lossy();
    let look = |more: &[&str]| {
        let mut words = vec![
            "discover",
            "--domain",
            "clusters.test",
            "--config",
            &settings,
        ];
        words.extend(more);
        lab.alone("rome", &words)
    };
    let output = look(&["-o", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let rows = rows(&output);
    let row = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("{name} is missing in {rows:?}"))
    };
    assert_eq!(row("milan")["proven"], true);
    assert_eq!(row("milan")["domain"], "clusters.test");
    assert!(row("milan")["latencyMilliseconds"].is_f64());
    assert_eq!(row("nothing.clusters.test")["why"], "it has no SRV record");
    assert_eq!(row("away.clusters.test")["proven"], false);
    assert_eq!(rows.len(), 3);
    let table = String::from_utf8_lossy(&look(&[]).stdout).into_owned();
    assert_eq!(table.lines().count(), 4, "{table}");
    let list = lab.get("milan", &["foreignclusters"]).expect("a list");
    assert_eq!(list["items"], json!([]), "a look leaves no trace");
}

/// A certificate authority and the files of a server that it vouches for.
struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    fn for_name(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(parameters, key);
        let server_key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new([name.to_owned()]).expect("a name");
        let server = server
            .signed_by(&server_key, &issuer)
            .expect("a certificate");
        for (file, text) in [
            ("ca.pem", certificate.pem()),
            ("server.pem", server.pem()),
            ("server.key", server_key.serialize_pem()),
        ] {
            fs::write(directory.path().join(file), text).expect("writable");
        }
        Self { directory }
    }

    fn path(&self, file: &str) -> String {
        self.directory
            .path()
            .join(file)
            .to_string_lossy()
            .into_owned()
    }

    /// The statement by which BIND listens with these files.
    fn statement(&self) -> String {
        format!(
            "tls test {{ cert-file {:?}; key-file {:?}; }};",
            self.path("server.pem"),
            self.path("server.key")
        )
    }

    /// Looks in the domain over TLS, trusting this authority.
    fn look(&self, server: &str) -> Output {
        let settings = settings(self.directory.path(), &json!([server]));
        look(&settings, &self.path("ca.pem"))
    }
}

/// Looks in the domain, trusting the authorities in a file.
fn look(settings: &Path, authorities: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_landbridge"))
        .args(["discover", "--domain", "private.test", "-o", "json"])
        .arg("--config")
        .arg(settings)
        .env("SSL_CERT_FILE", authorities)
        .env_remove("SSL_CERT_DIR")
        .output()
        .expect("the program runs")
}

/// A zone with an entry that leads nowhere, so that nothing is dialled: its reason shows that it was
/// read.
const NOWHERE: &str = "@ PTR rome\nrome SRV 0 0 5870 gate\ngate A 127.0.0.9";

#[test]
fn plain_dns_needs_no_authority() {
    let zone = Zone::new("private.test", NOWHERE);
    let Some(bind) = Bind::start_at(free_port(), &[zone], "", &[]) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let settings = settings(directory.path(), &json!([bind.address()]));
    let output = look(&settings, "/dev/null");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(rows(&output).len(), 1, "{error}");
}

#[test]
fn dns_over_tls_needs_the_right_name_and_a_known_authority() {
    let authority = Authority::for_name("dns.private.test");
    let zone = Zone::new("private.test", NOWHERE);
    let Some(bind) = Bind::start_at(free_port(), &[zone], &authority.statement(), &[]) else {
        return;
    };
    let server = format!("tls://{}#dns.private.test", bind.address());
    let rows = rows(&authority.look(&server));
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["why"], "127.0.0.9:5870: the address is loopback");
    let stranger = Authority::for_name("dns.private.test");
    let wrong_name = format!("tls://{}#other.private.test", bind.address());
    for (who, server) in [(&stranger, &server), (&authority, &wrong_name)] {
        let output = who.look(server);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("certificate"), "{error}");
    }
}
