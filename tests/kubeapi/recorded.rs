//! Recorded answers: how they are read, and what in them is not compared.

use regex::Regex;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::LazyLock,
};

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

/// What is compared of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Essence {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) warnings: Vec<String>,
    pub(crate) body: Value,
}

impl Essence {
    /// Reads an answer as `curl -i` wrote it.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.replace('\r', "");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let header = |wanted: &str| -> Vec<String> {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.to_owned())
                .collect()
        };
        Self {
            status: status.and_then(|status| status.parse().ok()).unwrap_or(0),
            content_type: header("content-type").concat(),
            warnings: header("warning"),
            body: without_leftover(essential(body)),
        }
    }
}

/// A body without what varies; causes in one order, since the real server has none.
pub(crate) fn essential(body: &str) -> Value {
    let mut text = body.to_owned();
    for (pattern, stand_in) in VARYING.iter() {
        text = pattern.replace_all(&text, *stand_in).into_owned();
    }
    let mut value =
        serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.trim().to_owned()));
    if let Some(causes) = value
        .pointer_mut("/details/causes")
        .and_then(Value::as_array_mut)
    {
        causes.sort_by_key(ToString::to_string);
        let texts: BTreeSet<String> = causes.iter().map(ToString::to_string).collect();
        if causes.len() > 1 {
            // The message lists the causes in their order.
            let texts: Vec<Value> = texts.into_iter().map(Value::String).collect();
            value["message"] = Value::Array(texts);
        }
    }
    value
}

/// When the answers were recorded an object of an earlier experiment was still there.
fn without_leftover(mut list: Value) -> Value {
    const LEFTOVER: &str = "fc-lb";
    for (items, name) in [
        ("items", "/metadata/name"),
        ("rows", "/object/metadata/name"),
    ] {
        if let Some(items) = list.get_mut(items).and_then(Value::as_array_mut) {
            items.retain(|item| item.pointer(name).is_none_or(|name| name != LEFTOVER));
        }
    }
    if let Some(count) = list.pointer_mut("/metadata/remainingItemCount") {
        *count = Value::from(count.as_u64().unwrap_or(0).saturating_sub(1));
    }
    list
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
