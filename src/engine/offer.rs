//! What we offer to a peer, and whether we accept what a peer offers.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, Pod, PodSpec, ResourceQuotaSpec},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};

use crate::api::{
    advertisement::Offer,
    cluster_config::{AcceptPolicy, IngoingConfig, LabelPolicy, LabelPolicyKind},
    labels,
    peering_request::Acceptance,
};

pub mod bounds;

use bounds::defect;

/// How long an offer holds at the most. It ends with the session that carries it, so this only
/// bounds how long a copy of it can be believed.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 30);
/// A change of this share of the offered amount is worth a message, in per cent.
const NOTEWORTHY_PERCENT: i128 = 5;

/// Amounts by resource name: CPU in milli, everything else in units or bytes.
pub type Amounts = BTreeMap<String, i128>;

/// Parses a Kubernetes quantity into thousandths, or `None` when it is not one.
///
/// See the [`Quantity`] grammar: a decimal number and a binary, decimal or exponent suffix.
pub fn parse_milli(quantity: &str) -> Option<i128> {
    let text = quantity.trim();
    let split = text
        .find(|character: char| !matches!(character, '0'..='9' | '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor: i128 = match suffix {
        "n" => return scale(number, 1).map(|thousandths| thousandths / 1_000_000_000),
        "u" => return scale(number, 1).map(|thousandths| thousandths / 1_000_000),
        "m" => return scale(number, 1).map(|thousandths| thousandths / 1_000),
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        exponent => 10_i128.checked_pow(
            exponent
                .strip_prefix(['e', 'E'])?
                .parse::<u32>()
                .ok()
                .filter(|power| *power <= 18)?,
        )?,
    };
    scale(number, factor)
}

/// Multiplies a decimal number by `factor` and by a thousand.
fn scale(number: &str, factor: i128) -> Option<i128> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = [whole, fraction]
        .iter()
        .all(|part| part.len() <= 18 && part.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_number || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let mut value: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    value = value.checked_mul(1_000)?.checked_mul(factor)?;
    if !fraction.is_empty() {
        let power = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let part: i128 = fraction.parse().ok()?;
        value += part.checked_mul(1_000)?.checked_mul(factor)? / power;
    }
    Some(if negative { -value } else { value })
}

/// Adds up what the ready physical nodes have left: allocatable minus the requests of the pods
/// that have not finished, never below zero.
pub fn free(nodes: &[Node], pods: &[Pod]) -> Amounts {
    let mut amounts = Amounts::new();
    let usable: Vec<&Node> = nodes.iter().filter(|node| is_usable(node)).collect();
    for node in &usable {
        let allocatable = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref());
        for (resource, quantity) in allocatable.into_iter().flatten() {
            if resource != "pods" {
                *amounts.entry(resource.clone()).or_default() += amount(resource, quantity);
            }
        }
    }
    let names: Vec<Option<&str>> = usable
        .iter()
        .map(|node| node.metadata.name.as_deref())
        .collect();
    for pod in pods.iter().filter(|pod| is_running_on(pod, &names)) {
        for (resource, quantity) in pod.spec.iter().flat_map(requested) {
            if let Some(left) = amounts.get_mut(resource) {
                *left = (*left - amount(resource, quantity)).max(0);
            }
        }
    }
    amounts
}

/// What a pod asks for while it runs: its containers, its sidecars, and what it costs by itself.
fn requested(spec: &PodSpec) -> impl Iterator<Item = (&String, &Quantity)> {
    let initial = spec.init_containers.iter().flatten();
    let sidecars = initial.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    let requests = containers.filter_map(|one| one.resources.as_ref()?.requests.as_ref());
    requests.chain(&spec.overhead).flatten()
}

fn is_running_on(pod: &Pod, nodes: &[Option<&str>]) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    node.is_some() && nodes.contains(&node) && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a node is one of our own that takes pods.
pub(crate) fn is_usable(node: &Node) -> bool {
    let is_virtual = node.metadata.labels.as_ref().is_some_and(|all| {
        all.get(labels::VIRTUAL_NODE_TYPE).map(String::as_str) == Some(labels::VIRTUAL_NODE)
    });
    let conditions = node
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref())
        .flatten();
    let ready = conditions
        .into_iter()
        .any(|one| one.type_ == "Ready" && one.status == "True");
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    ready && !is_virtual && !cordoned
}

fn amount(resource: &str, quantity: &Quantity) -> i128 {
    let milli = parse_milli(&quantity.0).unwrap_or(0).max(0);
    if resource == "cpu" {
        milli
    } else {
        milli / 1_000
    }
}

/// Takes the shared percentage of what is free; extended resources stay whole.
pub fn share(free: &Amounts, percentage: i32) -> BTreeMap<String, Quantity> {
    let percentage = i128::from(percentage.clamp(0, 100));
    free.iter()
        .map(|(resource, total)| (resource, total * percentage / 100))
        .filter(|(_, part)| *part > 0)
        .map(|(resource, part)| {
            let text = if resource == "cpu" {
                format!("{part}m")
            } else {
                part.to_string()
            };
            (resource.clone(), Quantity(text))
        })
        .collect()
}

/// Puts the labels of the nodes together as the policies say (Liqo's four policies).
pub fn shared_labels(nodes: &[Node], policies: &[LabelPolicy]) -> BTreeMap<String, String> {
    let usable: Vec<&Node> = nodes.iter().filter(|node| is_usable(node)).collect();
    let mut shared = BTreeMap::new();
    for LabelPolicy { key, policy } in policies {
        let is_true = |node: &&Node| {
            node.metadata
                .labels
                .as_ref()
                .and_then(|all| all.get(key))
                .map(String::as_str)
                == Some("true")
        };
        let (value, keep_false) = match policy {
            LabelPolicyKind::LabelPolicyAnyTrue => (usable.iter().any(is_true), true),
            LabelPolicyKind::LabelPolicyAllTrue => (usable.iter().all(is_true), true),
            LabelPolicyKind::LabelPolicyAnyTrueNoLabelIfFalse => {
                (usable.iter().any(is_true), false)
            }
            LabelPolicyKind::LabelPolicyAllTrueNoLabelIfFalse => {
                (usable.iter().all(is_true), false)
            }
        };
        if value || keep_false {
            shared.insert(key.clone(), value.to_string());
        }
    }
    shared
}

/// Makes an offer, or keeps the present one when nothing noteworthy has changed and it still has
/// half of its life before it.
pub fn make(
    hard: BTreeMap<String, Quantity>,
    shared_labels: BTreeMap<String, String>,
    present: Option<&Offer>,
    now: Timestamp,
) -> Option<Offer> {
    if hard.is_empty() {
        return None;
    }
    let made = Offer {
        resource_quota: Some(ResourceQuotaSpec {
            hard: Some(hard),
            ..ResourceQuotaSpec::default()
        }),
        labels: (!shared_labels.is_empty()).then_some(shared_labels),
        images: None,
        prices: None,
        limit_range: None,
        timestamp: Time(now),
        time_to_live: Time(now + LIFETIME),
    };
    match present {
        Some(present)
            if !is_noteworthy(present, &made) && present.time_to_live.0 > now + LIFETIME / 2 =>
        {
            Some(present.clone())
        }
        _ => Some(made),
    }
}

fn is_noteworthy(present: &Offer, made: &Offer) -> bool {
    let (before, after) = (hard(present), hard(made));
    if present.labels != made.labels || before.keys().ne(after.keys()) {
        return true;
    }
    before
        .iter()
        .zip(after.values())
        .any(|((resource, old), new)| {
            let (old, new) = (amount(resource, old), amount(resource, new));
            (old - new).abs() * 100 > old.max(1) * NOTEWORTHY_PERCENT
        })
}

fn hard(offer: &Offer) -> BTreeMap<String, Quantity> {
    offer
        .resource_quota
        .as_ref()
        .and_then(|quota| quota.hard.clone())
        .unwrap_or_default()
}

/// Decides about an offer. `others` is the number of offers of other clusters that are accepted;
/// `present` is the answer that was given before, or that a person wrote. Only with the manual policy
/// is a refusal kept: else it would outlast the lack of room that it was given for.
pub fn accept(
    config: &IngoingConfig,
    others: usize,
    present: Acceptance,
    offer: &Offer,
) -> Acceptance {
    if defect(offer).is_some() {
        return Acceptance::Refused;
    }
    match config.accept_policy {
        AcceptPolicy::Manual => present,
        AcceptPolicy::AutoAcceptMax if present == Acceptance::Accepted => Acceptance::Accepted,
        AcceptPolicy::AutoAcceptMax => {
            let room = usize::try_from(config.max_acceptable_advertisement).unwrap_or(0);
            if others < room {
                Acceptance::Accepted
            } else {
                Acceptance::Refused
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ClusterConfigSpec;

    fn node(json: serde_json::Value) -> Node {
        serde_json::from_value(json).unwrap()
    }

    fn worker(name: &str, cpu: &str, memory: &str) -> Node {
        node(serde_json::json!({
            "metadata": {"name": name},
            "status": {
                "allocatable": {"cpu": cpu, "memory": memory, "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }))
    }

    fn offer(cpu: &str) -> Offer {
        let hard = BTreeMap::from([("cpu".to_owned(), Quantity(cpu.to_owned()))]);
        make(hard, BTreeMap::new(), None, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        let table = [
            ("1", Some(1_000)),
            ("250m", Some(250)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("2k", Some(2_000_000)),
            ("1e3", Some(1_000_000)),
            ("-1", Some(-1_000)),
            ("100n", Some(0)),
            ("1000u", Some(1)),
            ("1000000n", Some(1)),
            ("", None),
            ("abc", None),
            ("1Q", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_milli(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_free_leaves_out_virtual_nodes_and_what_pods_asked_for() {
        let mut remote = worker("liqo-x", "64", "64Gi");
        remote.metadata.labels = Some(BTreeMap::from([(
            labels::VIRTUAL_NODE_TYPE.into(),
            labels::VIRTUAL_NODE.into(),
        )]));
        let pod = |node: &str, phase: &str| -> Pod {
            serde_json::from_value(serde_json::json!({
                "spec": {"nodeName": node, "containers": [
                    {"name": "c", "resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}}}]},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        let pods = [
            pod("a", "Running"),
            pod("a", "Succeeded"),
            pod("liqo-x", "Running"),
        ];
        let amounts = free(
            &[worker("a", "2", "4Gi"), worker("b", "2", "4Gi"), remote],
            &pods,
        );
        assert_eq!(amounts["cpu"], 2_500);
        assert_eq!(amounts["memory"], 7 << 30);
        assert!(!amounts.contains_key("pods"));
    }

    #[test]
    fn what_runs_beside_the_containers_of_a_pod_is_not_free() {
        let requests = |cpu: &str| serde_json::json!({"requests": {"cpu": cpu}});
        let pod = serde_json::json!({
            "spec": {
                "nodeName": "a",
                "containers": [{"name": "c", "resources": requests("100m")}],
                "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "resources": requests("200m")},
                    {"name": "i", "resources": requests("50m")},
                ],
                "overhead": {"cpu": "300m"},
            },
        });
        let pod = serde_json::from_value(pod).unwrap();
        assert_eq!(free(&[worker("a", "1", "1Gi")], &[pod])["cpu"], 400);
    }

    #[test]
    fn the_share_is_the_percentage_of_what_is_free() {
        let shared = share(
            &Amounts::from([("cpu".into(), 4_000), ("memory".into(), 1_000)]),
            30,
        );
        assert_eq!(shared["cpu"].0, "1200m");
        assert_eq!(shared["memory"].0, "300");
        assert!(share(&Amounts::from([("cpu".into(), 4_000)]), 0).is_empty());
    }

    #[test]
    fn a_small_change_keeps_the_offer_as_it_is() {
        let present = offer("1000m");
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(1);
        let again = |cpu: &str| {
            let hard = BTreeMap::from([("cpu".to_owned(), Quantity(cpu.to_owned()))]);
            make(hard, BTreeMap::new(), Some(&present), now).unwrap()
        };
        assert_eq!(again("1040m"), present);
        assert_ne!(again("1100m"), present);
    }

    #[test]
    fn offers_are_accepted_up_to_the_maximum() {
        let mut config = ClusterConfigSpec::default()
            .advertisement_config
            .ingoing_config;
        config.max_acceptable_advertisement = 1;
        let decide = |others, present| accept(&config, others, present, &offer("1"));
        assert_eq!(decide(0, Acceptance::Undecided), Acceptance::Accepted);
        assert_eq!(decide(1, Acceptance::Undecided), Acceptance::Refused);
        assert_eq!(decide(1, Acceptance::Accepted), Acceptance::Accepted);
    }

    #[test]
    fn with_the_manual_policy_only_a_person_decides() {
        let mut config = ClusterConfigSpec::default()
            .advertisement_config
            .ingoing_config;
        config.accept_policy = AcceptPolicy::Manual;
        for answer in [
            Acceptance::Undecided,
            Acceptance::Accepted,
            Acceptance::Refused,
        ] {
            assert_eq!(accept(&config, 0, answer, &offer("1")), answer);
        }
    }

    #[test]
    fn negative_and_absurd_offers_are_refused_with_the_reason() {
        assert_eq!(defect(&offer("1")), None);
        assert!(defect(&offer("-1")).unwrap().contains("negative"));
        assert!(defect(&offer("9999P")).unwrap().contains("absurd"));
        for text in ["x", "5.-3", "-+5", "5.+3", "--5"] {
            let why = defect(&offer(text)).unwrap();
            assert!(why.contains("not a quantity"), "{text}: {why}");
        }
    }
}
