//! `landbridge dns zone`: BIND accepts what it prints, and another cluster finds us by it.

use std::{fs, process::Command};

use serde_json::json;

use crate::{
    bind::Zone,
    daemon::{asks, search_domain, serve},
    lab::Lab,
};

#[test]
fn a_printed_zone_is_accepted_by_bind_and_leads_to_us() {
    let Some(lab) = Lab::new(&["rome", "milan", "dns"]) else {
        return;
    };
    lab.start("milan", &json!({}), false);
    let print = |style: &str| {
        let words = [
            "dns",
            "zone",
            "--domain",
            "Clusters.test.",
            "--style",
            style,
        ];
        lab.landbridge("milan", &words)
    };
    for style in ["rfc6763", "liqo"] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), print(style)).expect("writable");
        let check = Command::new("named-checkzone")
            .env("PATH", "/usr/bin:/usr/sbin")
            .arg("clusters.test")
            .arg(file.path())
            .output()
            .expect("named-checkzone runs");
        let said = String::from_utf8_lossy(&check.stdout);
        assert!(
            check.status.success() && said.ends_with("OK\n"),
            "{style}: {said}"
        );
    }
    for style in ["rfc6763", "liqo"] {
        let _bind = serve(&lab, &[Zone::verbatim("clusters.test", &print(style))], "");
        lab.start("rome", &asks(&lab), false);
        lab.apply("rome", &search_domain(true));
        lab.until("milan is found", || {
            let found = lab.get("rome", &["foreignclusters", "milan"])?;
            (found["status"]["phase"] == "Peered").then_some(())
        });
        lab.kubectl("rome", &["delete", "searchdomain", "clusters"]);
        lab.until("milan is forgotten", || {
            let list = lab.get("rome", &["foreignclusters"])?;
            list["items"].as_array()?.is_empty().then_some(())
        });
        lab.stop("rome");
    }
}
