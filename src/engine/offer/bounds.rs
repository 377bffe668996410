//! What of a peer's offer is believed: how much it may name, and which labels its node may carry.

use std::collections::BTreeMap;

use super::{hard, parse_milli};
use crate::api::advertisement::Offer;

/// How many resources an offer may name, and prices, images and limits.
const RESOURCE_LIMIT: usize = 64;
/// How many labels an offer may carry.
const LABEL_LIMIT: usize = 32;
/// More of anything than any cluster has: 2^60 units or bytes.
const ABSURD: i128 = 1 << 60;
/// Domains of label keys that mean something to the scheduler or to us; only the cluster that a node
/// is in may say these. Places are what an offer is allowed to tell.
const RESERVED_DOMAINS: [&str; 3] = ["kubernetes.io", "k8s.io", "liqo.io"];
const PLACES: &str = "topology.kubernetes.io";

/// Says why an offer cannot be meant, if it cannot: an empty, negative or absurd amount, or more
/// words than an offer needs.
pub fn defect(offer: &Offer) -> Option<String> {
    let hard = hard(offer);
    if hard.is_empty() {
        return Some("the offer is empty".to_owned());
    }
    let counts = [
        ("resources", hard.len(), RESOURCE_LIMIT),
        (
            "labels",
            offer.labels.as_ref().map_or(0, BTreeMap::len),
            LABEL_LIMIT,
        ),
        (
            "prices",
            offer.prices.as_ref().map_or(0, BTreeMap::len),
            RESOURCE_LIMIT,
        ),
        (
            "images",
            offer.images.as_ref().map_or(0, Vec::len),
            RESOURCE_LIMIT,
        ),
        (
            "limits",
            offer.limit_range.as_ref().map_or(0, |it| it.limits.len()),
            RESOURCE_LIMIT,
        ),
    ];
    for (what, count, limit) in counts {
        if count > limit {
            return Some(format!(
                "the offer names {count} {what}, at most {limit} are accepted"
            ));
        }
    }
    if hard.keys().any(|resource| !is_qualified(resource)) {
        return Some("the offer names a resource that cannot be one".to_owned());
    }
    hard.iter()
        .find_map(|(resource, quantity)| match parse_milli(&quantity.0) {
            None => Some(format!("the offered {resource} is not a quantity")),
            Some(milli) if milli < 0 => Some(format!("the offered {resource} is negative")),
            Some(milli) if milli / 1_000 > ABSURD => {
                Some(format!("the offered {resource} is absurd"))
            }
            Some(_) => None,
        })
}

/// Returns the labels of an offer that its virtual node may carry: well-formed ones that claim
/// nothing that only this cluster may say.
pub fn node_labels(offer: &Offer) -> BTreeMap<String, String> {
    let labels = offer.labels.iter().flatten();
    labels
        .filter(|(key, value)| is_qualified(key) && is_value(value) && !is_reserved(key))
        .take(LABEL_LIMIT)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn is_reserved(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return false;
    };
    let of = |reserved: &&str| {
        let rest = domain.strip_suffix(*reserved);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    domain != PLACES && RESERVED_DOMAINS.iter().any(of)
}

/// Whether a text is a qualified name: an optional DNS subdomain and a slash, then at most 63
/// characters (Kubernetes, "Labels and Selectors").
fn is_qualified(text: &str) -> bool {
    let (domain, name) = match text.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, text),
    };
    let is_domain = |domain: &str| {
        domain.len() <= 253
            && domain.split('.').all(|label| {
                is_word(label, |byte| byte == b'-')
                    && !label.bytes().any(|byte| byte.is_ascii_uppercase())
            })
    };
    is_value(name) && !name.is_empty() && domain.is_none_or(is_domain)
}

/// Whether a text is the value of a label (Kubernetes, "Labels and Selectors").
fn is_value(text: &str) -> bool {
    text.is_empty()
        || (text.len() <= 63 && is_word(text, |byte| matches!(byte, b'-' | b'_' | b'.')))
}

/// Whether a text is letters and digits, with some other characters between.
fn is_word(text: &str, between: impl Fn(u8) -> bool) -> bool {
    let outer = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    outer(text.bytes().next())
        && outer(text.bytes().next_back())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || between(byte))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;
    use crate::engine::offer::make;

    fn offer(labels: &[(&str, &str)]) -> Offer {
        let hard = BTreeMap::from([("cpu".to_owned(), Quantity("1".to_owned()))]);
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        make(hard, labels, None, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn a_node_carries_no_label_that_only_its_cluster_may_say() {
        let offer = offer(&[
            ("gpu", "true"),
            ("example.com/zone", "a"),
            ("topology.kubernetes.io/region", "north"),
            ("node-role.kubernetes.io/control-plane", ""),
            ("node-restriction.kubernetes.io/pci", "true"),
            ("kubernetes.io/hostname", "victim"),
            ("app.k8s.io/x", "y"),
            ("liqo.io/type", "x"),
            ("notkubernetes.io/x", "y"),
            ("bad key", "y"),
            ("bad/key/x", "y"),
            ("-bad", "y"),
            ("bad-value", "\u{1b}[31m"),
            ("long", &"x".repeat(64)),
        ]);
        let kept = node_labels(&offer);
        let keys: Vec<&str> = kept.keys().map(String::as_str).collect();
        let expected = [
            "example.com/zone",
            "gpu",
            "notkubernetes.io/x",
            "topology.kubernetes.io/region",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn an_offer_of_too_many_words_is_refused() {
        let labels: Vec<String> = (0..33).map(|index| format!("label-{index}")).collect();
        let pairs: Vec<(&str, &str)> = labels.iter().map(|key| (key.as_str(), "")).collect();
        assert_eq!(defect(&offer(&pairs[..32])), None);
        let why = defect(&offer(&pairs)).unwrap();
        assert!(why.contains("33 labels"), "{why}");
        let mut bad = offer(&[]);
        let hard = BTreeMap::from([("c\u{1b}pu".to_owned(), Quantity("1".to_owned()))]);
        bad.resource_quota.as_mut().unwrap().hard = Some(hard);
        let why = defect(&bad).unwrap();
        assert!(!why.contains('\u{1b}'), "{why}");
    }
}
