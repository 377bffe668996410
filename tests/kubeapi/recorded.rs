//! Recorded answers: how they are read, and what in them is not compared.

use crate::rig::Answer;
use regex::Regex;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

/// What differs from one run of the same server to the next, and what stands for it.
static VARYING: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "UID",
        ),
        (r"20\d\d-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (
            r#""(resourceVersion)": ?"\d+""#,
            r#""resourceVersion":"RV""#,
        ),
        (r"(resourceVersion): .\d+.", "resourceVersion: RV"),
        ("gen-[a-z0-9]{5}", "gen-XXXXX"),
        ("eyJ[A-Za-z0-9_=-]+", "CONT"),
        (r"current: \d+", "current: N"),
        (r"in record \(\d+", "in record (N"),
        (r"version: 1 \(\d+\)", "version: 1 (N)"),
    ]
    .into_iter()
    .map(|(pattern, stand_in)| (Regex::new(pattern).unwrap(), stand_in))
    .collect()
});

/// The headers that are compared; the others are of the connection, or of a part of a cluster that is not here.
const HEADERS: [&str; 6] = [
    "cache-control",
    "content-type",
    "etag",
    "retry-after",
    "warning",
    "x-content-type-options",
];

/// What is compared of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Essence {
    pub(crate) status: u16,
    pub(crate) headers: Vec<String>,
    /// Whether the body is JSON laid out in lines.
    pub(crate) laid_out: bool,
    /// The body; each line of a watch apart.
    pub(crate) body: Vec<Value>,
}

impl Essence {
    /// Reads an answer as `curl -i` wrote it.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.replace('\r', "");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let (first, head) = head.split_once('\n').unwrap_or((head, ""));
        let status = first.split(' ').nth(1);
        let headers = head.lines().filter_map(|line| line.split_once(": "));
        Self {
            status: status.and_then(|status| status.parse().ok()).unwrap_or(0),
            headers: compared(headers),
            laid_out: body.starts_with("{\n"),
            body: essential(body),
        }
    }

    /// Takes what is compared from an answer of ours.
    pub(crate) fn of(answer: &Answer) -> Self {
        let headers = answer.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        Self {
            status: answer.status.as_u16(),
            headers: compared(headers),
            laid_out: answer.body.starts_with("{\n"),
            // So the recordings are read.
            body: essential(&answer.body.replace('\r', "")),
        }
    }
}

fn compared<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .map(|(name, value)| (name.to_lowercase(), value))
        .filter(|(name, _)| HEADERS.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.sort();
    lines
}

/// A body without what varies.
fn essential(body: &str) -> Vec<Value> {
    let mut text = body.to_owned();
    for (pattern, stand_in) in VARYING.iter() {
        text = pattern.replace_all(&text, *stand_in).into_owned();
    }
    if let Ok(whole) = serde_json::from_str(&text) {
        return vec![whole];
    }
    let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    lines.unwrap_or_else(|_| vec![Value::String(text.trim().to_owned())])
}

/// A file of the test data.
pub(crate) fn data(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/kubeapi/data")
        .join(path);
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The objects of a file with one JSON object in each line.
pub(crate) fn lines(path: &str) -> Vec<Map<String, Value>> {
    data(path)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The answers that may differ, with the reason.
pub(crate) fn known_differences(path: &str) -> BTreeMap<String, String> {
    data(path)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(": "))
        .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
        .collect()
}

/// Fails unless exactly the known answers differ.
pub(crate) fn check(found: &BTreeMap<String, String>, known: &BTreeMap<String, String>) {
    let unknown: Vec<String> = found
        .iter()
        .filter(|(name, _)| !known.contains_key(*name))
        .map(|(name, difference)| format!("{name}:\n{difference}"))
        .collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    for name in known.keys() {
        assert!(
            found.contains_key(name),
            "{name} does not differ any more: take it off the list"
        );
    }
}
