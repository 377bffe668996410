//! The keys that exist, their environment variables, and the one that was probably meant.

use serde_json::Value;

/// Puts a key behind its section.
pub(super) fn join(section: &str, key: &str) -> String {
    match (section, key) {
        ("", only) | (only, "") => only.to_owned(),
        (section, key) => format!("{section}.{key}"),
    }
}

/// Lists the dotted paths of all leaves. An empty mapping is a leaf.
pub(super) fn leaves(value: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &str, found: &mut Vec<String>) {
        match value.as_object().filter(|map| !map.is_empty()) {
            Some(map) => {
                for (key, value) in map {
                    walk(value, &join(path, key), found);
                }
            }
            None => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

/// Returns the value at a dotted path.
pub(super) fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

/// Wraps a value so that it stands at a dotted path.
pub(super) fn nest(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(
        value,
        |value, key| serde_json::json!({ key.to_owned(): value }),
    )
}

/// How our environment variables begin.
pub(super) const PREFIX: &str = "LANDBRIDGE_";

/// Returns the environment variable of a key: `cluster.podCIDR` is `LANDBRIDGE_CLUSTER_POD_CIDR`.
pub(super) fn variable(path: &str) -> String {
    let mut name = PREFIX.to_owned();
    let mut lower = false;
    for character in path.chars() {
        if character.is_ascii_uppercase() && lower {
            name.push('_');
        }
        lower = character.is_ascii_lowercase();
        name.push(match character {
            '.' => '_',
            other => other.to_ascii_uppercase(),
        });
    }
    name
}

/// Returns the known key that is most like an unknown one, a key of the same section if it is as like.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .min_by_key(|candidate| {
            let (section, last) = candidate.rsplit_once('.').unwrap_or(("", candidate));
            let (unknown_section, unknown_last) = unknown.rsplit_once('.').unwrap_or(("", unknown));
            distance(unknown_last, last) * 2 + distance(unknown_section, section).min(5)
        })
        .unwrap_or_default()
        .to_owned()
}

/// Counts the single-letter edits between two words (Levenshtein), whatever their case.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&right) {
            let edited = (diagonal + usize::from(letter != *other))
                .min(before + 1)
                .min(*cell + 1);
            diagonal = std::mem::replace(cell, edited);
            before = edited;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_by_edits() {
        for (left, right, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("podCIDR", "podcidr", 0),
            ("listn", "listen", 1),
        ] {
            assert_eq!(distance(left, right), edits, "{left} {right}");
            assert_eq!(distance(right, left), edits, "{right} {left}");
        }
    }

    #[test]
    fn the_meant_key_is_found_in_its_section_or_in_another() {
        let known = [
            "cluster.name",
            "cluster.podCIDR",
            "peer.listen",
            "api.listen",
            "tunnel",
            "lan",
        ];
        for (unknown, meant) in [
            ("tunel", "tunnel"),
            ("cluster.podCidr", "cluster.podCIDR"),
            ("podCIDR", "cluster.podCIDR"),
            ("api.listn", "api.listen"),
            ("name", "cluster.name"),
        ] {
            assert_eq!(nearest(unknown, known.into_iter()), meant, "{unknown}");
        }
    }

    #[test]
    fn variables_are_named_after_the_path() {
        assert_eq!(variable("dataDir"), "LANDBRIDGE_DATA_DIR");
        assert_eq!(variable("cluster.podCIDR"), "LANDBRIDGE_CLUSTER_POD_CIDR");
        assert_eq!(
            variable("dns.publish.tsigKeyFile"),
            "LANDBRIDGE_DNS_PUBLISH_TSIG_KEY_FILE"
        );
    }
}
