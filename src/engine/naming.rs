//! What the ForeignCluster of a discovered cluster is called.

use std::collections::BTreeMap;

use crate::api::identity::{ClusterId, ClusterName, begins_an_id};

/// The longest name, a DNS label (RFC 1123, section 2.1).
const LIMIT: usize = 63;

/// Returns the name for the object of a cluster, readable where its own name allows it.
///
/// `taken` holds the names in use and whose they are. A cluster keeps the name that it has; a name
/// that belongs to another cluster is told apart by the first digits of the id.
pub fn object_name(
    name: &ClusterName,
    id: &ClusterId,
    taken: &BTreeMap<String, ClusterId>,
) -> String {
    if let Some((own, _)) = taken.iter().find(|(_, owner)| *owner == id) {
        return own.clone();
    }
    let short = id.short().trim_end_matches('-');
    let label = label_of(name.as_str());
    // The id of a cluster stands for that cluster only, whatever another one calls itself.
    let first = if label.is_empty() || begins_an_id(&label) {
        format!("cluster-{short}")
    } else {
        label
    };
    let second = with_suffix(&first, short);
    [first, second]
        .into_iter()
        .find(|candidate| !taken.contains_key(candidate))
        .unwrap_or_else(|| id.to_string())
}

/// Makes a DNS-1123 label of a text: lower case, every other run of characters one dash.
fn label_of(text: &str) -> String {
    let mut label = String::new();
    for character in text.chars() {
        let lower = character.to_ascii_lowercase();
        if lower.is_ascii_lowercase() || lower.is_ascii_digit() {
            label.push(lower);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(LIMIT);
    label.trim_end_matches('-').to_owned()
}

fn with_suffix(label: &str, suffix: &str) -> String {
    let room = LIMIT.saturating_sub(suffix.len() + 1);
    let stem = label.get(..room.min(label.len())).unwrap_or_default();
    format!("{}-{suffix}", stem.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROME: &str = "0f1e2d3c-4b5a-8697-8877-665544332211";
    const OTHER: &str = "ffffffff-4b5a-8697-8877-665544332211";

    fn id(text: &str) -> ClusterId {
        text.parse().expect("the table holds valid ids")
    }

    fn named(name: &str, taken: &[(&str, &str)]) -> String {
        let taken = taken
            .iter()
            .map(|(name, owner)| ((*name).to_owned(), id(owner)))
            .collect();
        object_name(&ClusterName::neutralise(name), &id(ROME), &taken)
    }

    #[test]
    fn the_name_of_the_cluster_becomes_a_label() {
        for (name, expected) in [
            ("rome", "rome"),
            ("Rome", "rome"),
            ("  Rome's Lab  #2 ", "rome-s-lab-2"),
            ("--rome--", "rome"),
            ("Zürich", "z-rich"),
            ("", "cluster-0f1e2d"),
            ("日本", "cluster-0f1e2d"),
        ] {
            assert_eq!(named(name, &[]), expected, "{name:?}");
        }
    }

    #[test]
    fn a_name_that_another_cluster_has_gets_the_first_digits_of_the_id() {
        assert_eq!(named("rome", &[("rome", OTHER)]), "rome-0f1e2d");
        let long = "r".repeat(63);
        let expected = format!("{}-0f1e2d", "r".repeat(56));
        assert_eq!(named(&long, &[(&long, OTHER)]), expected);
    }

    #[test]
    fn a_name_that_stays_ambiguous_becomes_the_whole_id() {
        let taken = [("rome", OTHER), ("rome-0f1e2d", OTHER)];
        assert_eq!(named("rome", &taken), ROME);
    }

    #[test]
    fn the_id_of_another_cluster_is_no_name() {
        for name in [OTHER, "FFFFFFFF-4B5A", "ffffffff", "ffffff", ROME] {
            assert_eq!(named(name, &[]), "cluster-0f1e2d", "{name:?}");
        }
        for name in ["ada", "fffff", "ffffff-4b5a", "facade-1"] {
            assert_eq!(named(name, &[]), name);
        }
    }

    #[test]
    fn a_cluster_keeps_the_name_that_it_has() {
        assert_eq!(named("milan", &[("rome", ROME)]), "rome");
    }

    proptest! {
        #[test]
        fn every_name_is_a_dns_label(name in any::<String>(), taken in any::<bool>()) {
            let name = ClusterName::neutralise(&name);
            let mut names = BTreeMap::new();
            if taken {
                names.insert(object_name(&name, &id(ROME), &names), id(OTHER));
            }
            let object = object_name(&name, &id(ROME), &names);
            prop_assert!(!names.contains_key(&object));
            // The rules of an id are those of a DNS-1123 label.
            prop_assert!(object.parse::<ClusterId>().is_ok(), "{object:?}");
        }
    }
}
