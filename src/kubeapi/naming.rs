//! Names, uids and times of objects, and the rules for names and labels.

use super::{
    bounds::COMPLAINTS,
    catalog::{Names, Resource},
    managed,
    refusal::FieldError,
};
use crate::kubeapi::tree::Tree;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, fmt::Write};

const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Where the ends of names that are made come from.
pub(super) type Suffix = fn() -> String;

/// A prefix is cut so that the name is not longer than a label.
const LONGEST_PREFIX: usize = 58;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const LABEL_KEY: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const COMMON_FINALIZERS: &[&str] = &["orphan", "foregroundDeletion", "kubernetes"];

/// A new uid: a random UUID.
pub(super) fn uid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A time as objects have it, in whole seconds.
pub(super) fn time(now: jiff::Timestamp) -> Value {
    json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Whether an object is to be given a name.
pub(super) fn is_nameless(metadata: &Value) -> bool {
    metadata.text("name").is_empty() && !metadata.text("generateName").is_empty()
}

/// The end of a name that is made: five letters by chance.
pub(super) fn suffix() -> String {
    let letters = random::<5>().map(|byte| {
        let index = usize::from(byte) % SUFFIX_LETTERS.len();
        char::from(SUFFIX_LETTERS.get(index).copied().unwrap_or(b'x'))
    });
    letters.iter().collect()
}

/// Gives an object with a `generateName` its name.
pub(super) fn settle_name(metadata: &mut Map<String, Value>, suffix: Suffix) {
    let text = |field: &str| {
        metadata
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    if text("name").is_empty() && !text("generateName").is_empty() {
        let prefix = text("generateName").chars().take(LONGEST_PREFIX);
        let name: String = prefix.collect::<String>() + &suffix();
        metadata.insert("name".to_owned(), json!(name));
    }
}

fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has random bytes once it runs");
    bytes
}

/// Checks the name, the labels, the annotations, the finalizers, the owners and the managers of an object.
/// Finalizers, owners and managers that are as they were are let be: not every version of this program
/// checked them.
pub(super) fn check_metadata(
    metadata: &Value,
    old: Option<&Value>,
    resource: &Resource,
) -> Vec<FieldError> {
    let changed = |name: &str| {
        let now = metadata.field(name);
        let changed = old.is_none_or(|old| old.field(name) != now);
        if changed { now } else { &Value::Null }
    };
    let managers = old.map_or(&Value::Null, |old| old.field("managedFields"));
    let mistakes = check_name(metadata.text("name"), resource)
        .into_iter()
        .chain(check_labels(metadata.field("labels")))
        .chain(check_annotations(metadata.field("annotations")))
        .chain(check_finalizers(changed("finalizers")))
        .chain(check_owners(changed("ownerReferences")))
        .chain(managed::check_names(changed("managedFields"), managers));
    mistakes.take(COMPLAINTS).collect()
}

fn check_name(name: &str, resource: &Resource) -> Option<FieldError> {
    if name.is_empty() {
        let why = "name or generateName is required";
        return Some(FieldError::required("metadata.name", why));
    }
    let why = mistake_of(name, resource.rules.names)?;
    Some(FieldError::invalid("metadata.name", &json!(name), why))
}

fn check_labels(labels: &Value) -> impl Iterator<Item = FieldError> {
    let labels = labels.as_object().into_iter().flatten();
    labels.flat_map(|(key, value)| {
        let complain = |value: &Value, why| FieldError::invalid("metadata.labels", value, why);
        let key = (!is_qualified(key)).then(|| complain(&json!(key), LABEL_KEY));
        let is_wrong = !value.as_str().is_none_or(is_label_value);
        key.into_iter()
            .chain(is_wrong.then(|| complain(value, LABEL_VALUE)))
    })
}

fn check_annotations(annotations: &Value) -> impl Iterator<Item = FieldError> {
    let annotations = annotations.as_object().into_iter().flatten();
    annotations
        .filter(|(key, _)| !is_qualified(&key.to_lowercase()))
        .map(|(key, _)| FieldError::invalid("metadata.annotations", &json!(key), LABEL_KEY))
}

fn check_finalizers(finalizers: &Value) -> impl Iterator<Item = FieldError> {
    let finalizers = finalizers.as_array().into_iter().flatten();
    finalizers
        .filter(|finalizer| !finalizer.as_str().is_none_or(is_qualified))
        .map(|finalizer| FieldError::invalid("metadata.finalizers", finalizer, LABEL_KEY))
}

/// Checks that references to owners say who these are, and that one of them at most is in control. What
/// is missing in one, its schema tells.
fn check_owners(owners: &Value) -> impl Iterator<Item = FieldError> {
    let mut controller = None;
    let all = owners.as_array().into_iter().flatten();
    all.flat_map(move |owner| {
        let mut errors = Vec::new();
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            let value = owner.field(field);
            if *value == "" {
                let field = format!("metadata.ownerReferences.{field}");
                errors.push(FieldError::invalid(&field, value, why));
            }
        }
        if owner.field("controller") != true {
            return errors;
        }
        let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
        if let Some(first) = &controller {
            let why = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
            );
            errors.push(FieldError::invalid("metadata.ownerReferences", owners, why));
        }
        controller.get_or_insert(this);
        errors
    })
}

/// Warns of new finalizers that could be anybody's.
pub(super) fn finalizer_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    new_finalizers(object, old)
        .filter(|name| !name.contains('/') && !COMMON_FINALIZERS.contains(name))
        .take(COMPLAINTS)
        .map(|name| {
            format!("metadata.finalizers: \"{name}\": prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers")
        })
        .collect()
}

/// The finalizers of an object that its old state had not.
pub(super) fn new_finalizers<'a>(
    object: &'a Value,
    old: Option<&'a Value>,
) -> impl Iterator<Item = &'a str> {
    let known: BTreeSet<&str> = old.into_iter().flat_map(finalizers).collect();
    finalizers(object).filter(move |name| !known.contains(name))
}

fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    let finalizers = object.field("metadata").field("finalizers").as_array();
    finalizers.into_iter().flatten().filter_map(Value::as_str)
}

/// Why an object may not be called so.
fn mistake_of(name: &str, names: Names) -> Option<&'static str> {
    match names {
        Names::Label => (!is_label(name)).then_some(LABEL),
        Names::Subdomain => (!is_subdomain(name)).then_some(SUBDOMAIN),
        Names::Segment if name == "." => Some("may not be '.'"),
        Names::Segment if name == ".." => Some("may not be '..'"),
        Names::Segment if name.contains('/') => Some("may not contain '/'"),
        Names::Segment if name.contains('%') => Some("may not contain '%'"),
        Names::Segment => None,
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A part of a subdomain: a label of any length.
fn is_part(text: &str) -> bool {
    let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text.starts_with(inner)
        && text.ends_with(inner)
        && text.chars().all(|letter| inner(letter) || letter == '-')
}

fn is_label_value(text: &str) -> bool {
    let edge = |letter: char| letter.is_ascii_alphanumeric();
    text.is_empty()
        || (text.len() <= 63
            && text.starts_with(edge)
            && text.ends_with(edge)
            && text
                .chars()
                .all(|letter| edge(letter) || matches!(letter, '-' | '_' | '.')))
}

fn is_qualified(key: &str) -> bool {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(|prefix| is_subdomain(&prefix.to_lowercase()))
        && !name.is_empty()
        && is_label_value(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_a_random_uuid() {
        let uid = uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(uid.as_bytes()[14], b'4');
        assert_ne!(uid, super::uid());
    }

    #[test]
    fn a_generated_name_is_no_longer_than_a_label() {
        let mut object = json!({"generateName": "a".repeat(300)});
        settle_name(object.as_object_mut().unwrap(), suffix);
        let name = object.text("name");
        assert!(
            name.len() == 63 && name.starts_with(&"a".repeat(58)),
            "{name}"
        );
    }

    #[test]
    fn complaints_about_metadata_are_bounded() {
        let resource = &crate::kubeapi::builtin::resources()[0];
        let keys: Map<String, Value> = (0..1_000)
            .map(|number| (format!("!{number}"), json!("!")))
            .collect();
        let finalizers: Vec<&String> = keys.keys().collect();
        let owners = vec![json!({"controller": true}); 1_000];
        for (field, value) in [
            ("labels", json!(keys)),
            ("annotations", json!(keys)),
            ("finalizers", json!(finalizers)),
            ("ownerReferences", json!(owners)),
        ] {
            let errors = check_metadata(&json!({"name": "a", field: value}), None, resource).len();
            assert_eq!(errors, COMPLAINTS, "{field}");
        }
    }

    #[test]
    fn owners_and_finalizers_that_were_wrong_before_may_stay() {
        let resource = &crate::kubeapi::builtin::resources()[0];
        let old = json!({"name": "a", "finalizers": ["my finalizer"],
            "ownerReferences": [{"controller": true}, {"controller": true}]});
        let mut new = old.clone();
        new["labels"] = json!({"k": "v"});
        assert!(check_metadata(&new, Some(&old), resource).is_empty());
        new["finalizers"] = json!(["my finalizer", "another one"]);
        assert_eq!(check_metadata(&new, Some(&old), resource).len(), 2);
    }

    #[test]
    fn names_and_labels_follow_the_rules() {
        for good in ["rome", "a.b-c", "net-config-x2f9z", &"a".repeat(253)] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["Bad_Name", "-a", "a-", "a..b", "", &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
        assert!(is_qualified("discovery.liqo.io/cluster-id") && is_qualified("clusterID"));
        assert!(!is_qualified("a b") && !is_qualified("/x"));
        assert!(is_label_value("") && is_label_value("A_b.c") && !is_label_value("-x"));
    }
}
