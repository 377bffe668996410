//! What stands in the clusters: for whoever reads a failure, and to compare two ends.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use crate::world::{NAMES, World};

impl World {
    /// Says how every peering stands, for whoever reads a failure.
    pub(crate) fn describe(&self) -> String {
        let mut lines = vec![format!("at {}", self.now())];
        for (cluster, name) in self.clusters.iter().zip(NAMES) {
            lines.push(format!("{name} {} runs: {}", cluster.id(), cluster.runs()));
            for (key, object) in cluster.disk.everything() {
                let metadata = &object["metadata"];
                if key.starts_with("discovery.liqo.io/foreignclusters") {
                    lines.push(describe(&object));
                } else if key.contains("liqo.io/") && !key.starts_with("apiext") {
                    lines.push(format!(
                        "  {key} deleted: {}",
                        metadata["deletionTimestamp"]
                    ));
                }
            }
        }
        lines.extend(self.logbook.complaints(&self.allowed));
        lines.join("\n")
    }
}

fn describe(object: &Value) -> String {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut text = format!(
        "  {} join {} {} {} {} phase {} deleted {} remote {}",
        object["metadata"]["name"],
        spec["join"],
        spec["trustMode"],
        spec["incomingPeeringEnabled"],
        spec["discoveryType"],
        status["phase"],
        object["metadata"]["deletionTimestamp"],
        status["outgoing"]["remote-peering-request-name"],
    );
    for one in status["conditions"].as_array().into_iter().flatten() {
        let (kind, value) = (&one["type"], &one["status"]);
        let (reason, message) = (&one["reason"], &one["message"]);
        write!(text, "\n      {kind} {value} {reason} {message}").unwrap();
    }
    text
}

/// What stands in a cluster at rest, in a form that does not depend on how it came about.
pub(crate) fn summary(world: &World, index: usize) -> BTreeMap<String, Value> {
    let mut ids = BTreeMap::new();
    for (cluster, name) in world.clusters.iter().zip(NAMES) {
        ids.insert(cluster.id().to_string(), name);
    }
    let blind = |text: &str| {
        let mut text = text.to_owned();
        for (id, name) in &ids {
            text = text.replace(id, name);
        }
        text
    };
    let everything = world.clusters[index].disk.everything();
    let kept = |key: &&String| {
        !key.contains("/events/")
            && !key.starts_with("/events")
            && !key.starts_with("apiextensions")
            && !key.contains("/leases/")
    };
    let mut summary = BTreeMap::new();
    for key in everything.keys().filter(kept) {
        let object = &everything[key];
        let mut said = json!({"finalizers": object["metadata"]["finalizers"], "deleted": object["metadata"]["deletionTimestamp"]});
        if key.starts_with("discovery.liqo.io/foreignclusters") {
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let conditions = conditions
                .iter()
                .map(|one| format!("{} {} {}", one["type"], one["status"], one["reason"]));
            said["conditions"] = json!(conditions.collect::<Vec<_>>());
            said["join"] = object["spec"]["join"].clone();
            said["trust"] = object["spec"]["trustMode"].clone();
            said["phase"] = object["status"]["phase"].clone();
            said["auth"] = object["status"]["authStatus"].clone();
            said["outgoing"] = object["status"]["outgoing"]["joined"].clone();
            said["incoming"] = object["status"]["incoming"]["joined"].clone();
            said["remote"] = json!(blind(
                &object["status"]["outgoing"]["remote-peering-request-name"].to_string()
            ));
        }
        summary.insert(blind(key), said);
    }
    summary
}
