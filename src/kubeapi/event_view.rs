//! One stored event, two views: core/v1 as it is stored, and events.k8s.io/v1.

use serde_json::{Map, Value, json};

/// Field in core/v1, field in events.k8s.io/v1; fields of the same name are not listed.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Shows a stored event as events.k8s.io/v1.
pub(super) fn to_new(stored: Value) -> Value {
    rename(stored, "events.k8s.io/v1", |core, new| (core, new))
}

/// Makes an event of events.k8s.io/v1 into one to store.
pub(super) fn to_core(shown: Value) -> Value {
    rename(shown, "v1", |core, new| (new, core))
}

fn rename(
    mut event: Value,
    api_version: &str,
    direction: fn(&'static str, &'static str) -> (&'static str, &'static str),
) -> Value {
    if let Some(fields) = event.as_object_mut() {
        let renamed: Map<String, Value> = RENAMED
            .iter()
            .filter_map(|(core, new)| {
                let (from, to) = direction(core, new);
                Some((to.to_owned(), fields.remove(from)?))
            })
            .collect();
        fields.extend(renamed);
        fields.insert("apiVersion".to_owned(), json!(api_version));
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_way_there_and_back() {
        let new = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "ForeignCluster", "name": "rome"}, "note": "found",
            "reportingController": "landbridge", "reason": "PeerDiscovered", "series": {"count": 2}
        });
        let core = to_core(new.clone());
        assert_eq!(core["involvedObject"]["name"], "rome");
        assert_eq!(core["message"], "found");
        assert_eq!(core["apiVersion"], "v1");
        assert_eq!(to_new(core), new);
    }
}
