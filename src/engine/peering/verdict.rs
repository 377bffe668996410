//! What is true of a peer and why: one verdict a condition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;

use super::{View, network, node};
use crate::{
    api::{
        cluster_config::AcceptPolicy,
        foreign_cluster::Phase,
        identity::is_printable,
        labels::{condition, reason},
        peering_request::Acceptance,
        tunnel_endpoint,
    },
    engine::{offer, policy::Trust},
};

/// The longest text from a peer that goes into a message.
const MESSAGE_LIMIT: usize = 256;
/// Why nothing is peered with ourselves.
const OWN: &str = "this is our own cluster id";
/// Why nothing is peered any more.
const DELETED: &str = "the object is being deleted";
/// Why a cluster is refused.
const DENIED: &str = "spec.incomingPeeringEnabled is No";

/// One condition before it is compared with the present one.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The type of the condition.
    pub(super) kind: &'static str,
    /// `None` is Unknown.
    pub(super) holds: Option<bool>,
    /// The reason of the condition.
    pub(super) reason: String,
    /// The reason for people.
    pub(super) message: String,
}

/// The verdicts of the path from discovered to usable, in its order.
pub(super) fn all(view: &View<'_>) -> Vec<Verdict> {
    let mut all = vec![
        discovered(view),
        reachable(view),
        identity(view),
        trusted(view),
        outgoing_peered(view),
        incoming_peered(view),
        network_ready(view),
    ];
    all.extend(misuse(view));
    all
}

/// Says who uses the peer's id without its key; the peer itself is not concerned.
fn misuse(view: &View<'_>) -> Option<Verdict> {
    let (message, _) = view.facts.misuse.as_ref()?;
    Some(verdict(
        condition::IDENTITY_MISMATCH,
        true,
        reason::IDENTITY_MISMATCH,
        shown(message),
    ))
}

/// Why nothing is done for an object beside the one that stands for the cluster.
fn duplicate(view: &View<'_>, kind: &'static str) -> Option<Verdict> {
    let other = view.facts.rival.as_ref()?;
    let message = format!("ForeignCluster {other} stands for the same cluster; delete one of them");
    Some(verdict(kind, false, reason::DUPLICATE, message))
}

/// Why nothing is peered while our identity is on two machines.
fn suspended(view: &View<'_>, kind: &'static str) -> Option<Verdict> {
    let url = view.facts.twin.as_ref()?;
    let message = format!("another machine holds our own identity: {url}");
    Some(verdict(
        kind,
        false,
        reason::DUPLICATE_IDENTITY,
        shown(&message),
    ))
}

/// Keeps the transition time while the truth of a condition is the same.
pub(super) fn settle(view: &View<'_>, verdict: &Verdict) -> Condition {
    let value = match verdict.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let present = view
        .status
        .conditions
        .iter()
        .find(|one| one.type_ == verdict.kind);
    let since = present
        .filter(|one| one.status == value)
        .map(|one| one.last_transition_time.clone());
    Condition {
        type_: verdict.kind.to_owned(),
        status: value.to_owned(),
        reason: verdict.reason.clone(),
        message: verdict.message.clone(),
        // Without a status subresource every write of the status is a new generation.
        observed_generation: None,
        last_transition_time: since.unwrap_or(Time(view.now)),
    }
}

fn discovered(view: &View<'_>) -> Verdict {
    let source = view.object.spec.discovery_type.as_str();
    if view.expired.is_some() {
        let message = "its advertisement has gone or expired";
        return verdict(condition::DISCOVERED, false, reason::EXPIRED, message);
    }
    verdict(
        condition::DISCOVERED,
        true,
        source,
        format!("found by {source}"),
    )
}

fn reachable(view: &View<'_>) -> Verdict {
    let kind = condition::ENDPOINT_REACHABLE;
    if let Some(verdict) = duplicate(view, kind) {
        return verdict;
    }
    if view.is_own() {
        return verdict(kind, false, reason::OWN_IDENTITY, OWN);
    }
    if view.invalid_id.is_some() {
        let message = "spec.clusterIdentity.clusterID is no id, so it is not dialled";
        return verdict(kind, false, reason::INVALID_ID, message);
    }
    if let Some(connected) = view.connected {
        let url = &connected.url;
        return if view.answers() {
            verdict(kind, true, reason::ANSWERED, format!("{url} answered"))
        } else {
            verdict(kind, false, reason::PEER_SILENT, format!("{url} is silent"))
        };
    }
    if !view.needs_contact() {
        // It is not tried any more, so that a failure of then says nothing of now, nor an answer once
        // it is not found any more.
        let kept =
            present(view, kind).filter(|one| one.holds != Some(false) && view.expired.is_none());
        return kept
            .unwrap_or_else(|| unknown(kind, "nothing is wanted of it, so it is not tried"));
    }
    let dials = view.dials();
    if dials.is_empty() {
        let message = "spec.authUrl is empty, and nothing else tells where it is";
        return verdict(kind, false, reason::NO_ENDPOINT, message);
    }
    let failures = &view.facts.link.failures;
    if let Some((url, failure)) = dials
        .iter()
        .find_map(|dial| failures.get_key_value(&dial.url))
    {
        let message = shown(&format!("{url}: {}", failure.message));
        return verdict(kind, false, &failure.reason, message);
    }
    present(view, kind).unwrap_or_else(|| unknown(kind, "no endpoint was tried yet"))
}

fn identity(view: &View<'_>) -> Verdict {
    let kind = condition::IDENTITY_VERIFIED;
    if let Some(why) = &view.invalid_id {
        return verdict(kind, false, reason::INVALID_ID, shown(why));
    }
    if let Some(connected) = view.connected {
        let message = format!("the endpoint holds the key {}", connected.fingerprint);
        return verdict(kind, true, reason::KEY_PROVEN, message);
    }
    let mut failures = view.facts.link.failures.values();
    if let Some(failure) = failures.find(|one| one.reason == reason::IDENTITY_MISMATCH) {
        let message = shown(&failure.message);
        return verdict(kind, false, reason::IDENTITY_MISMATCH, message);
    }
    if view.is_visitor() {
        let message = "it proved its key when it came to us";
        return verdict(kind, true, reason::KEY_PROVEN, message);
    }
    present(view, kind).unwrap_or_else(|| unknown(kind, "no endpoint has proven its key yet"))
}

/// The condition as it stands, where nothing new is known.
fn present(view: &View<'_>, kind: &'static str) -> Option<Verdict> {
    let one = view
        .status
        .conditions
        .iter()
        .find(|one| one.type_ == kind)?;
    Some(Verdict {
        kind,
        holds: match one.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        },
        reason: one.reason.clone(),
        message: one.message.clone(),
    })
}

fn trusted(view: &View<'_>) -> Verdict {
    let kind = condition::TRUSTED;
    match &view.trust {
        Trust::Accepted(why) => {
            let message = match why.as_str() {
                reason::FLEET_SECRET => "it knows the fleet secret",
                reason::TOKEN => "it knows the token that one side gave the other",
                reason::TLSA => "a signed TLSA record of its SearchDomain has its key",
                reason::WEB_PKI => "it has shown a certificate for its name in its SearchDomain",
                reason::EMPTY_TOKEN_ALLOWED => {
                    "accepted unseen, because authConfig.allowEmptyToken is true"
                }
                _ => "spec.trustMode is Trusted",
            };
            verdict(kind, true, why, message)
        }
        Trust::Waiting => verdict(kind, false, reason::APPROVAL_NEEDED, approval_needed(view)),
        Trust::Refused => verdict(kind, false, reason::BLOCKED, DENIED),
    }
}

/// What a person has to do, with the code to compare once there is one.
fn approval_needed(view: &View<'_>) -> String {
    let name = view.object.name_any();
    let when = view.approval_code().map_or_else(String::new, |code| {
        format!("when both sides show the code {code}, ")
    });
    let doubt = if view.facts.codes_withheld {
        "; so many codes were exchanged that somebody in between may be trying until two agree: \
         compare the whole cluster ids"
    } else {
        ""
    };
    format!("a person has to approve it: {when}landbridge approve {name}{doubt}")
}

/// What the peer says while a person there has to decide, with the code that is compared.
fn waits_there(view: &View<'_>, said: &str) -> String {
    match view.approval_code() {
        Some(code) => format!("both sides show the code {code}: {said}"),
        None => said.to_owned(),
    }
}

fn outgoing_peered(view: &View<'_>) -> Verdict {
    let kind = condition::OUTGOING_PEERED;
    let no = |reason: &str, message: &str| verdict(kind, false, reason, shown(message));
    let barred = duplicate(view, kind).or_else(|| suspended(view, kind));
    if let Some(verdict) = barred.filter(|_| view.object.spec.join) {
        return verdict;
    }
    if !view.wants_join() {
        return if view.owes_withdrawal() {
            no(reason::LEAVING, "the peering is being taken down")
        } else if !view.object.spec.join {
            no(reason::NOT_JOINED, "spec.join is false")
        } else if view.denied {
            no(reason::BLOCKED, DENIED)
        } else if view.is_own() {
            no(reason::OWN_IDENTITY, OWN)
        } else {
            no(reason::LEAVING, DELETED)
        };
    }
    // Whether a person here accepts it does not matter to whom it has refused.
    if let Some(answer) = view.pending_answer().filter(|_| view.is_refused_there()) {
        return no(reason::REFUSED_BY_PEER, &answer.message);
    }
    if !view.trust.is_accepted() {
        return no(
            reason::APPROVAL_NEEDED,
            "its identity is not accepted here yet",
        );
    }
    if let Some(answer) = view.pending_answer() {
        return no(
            reason::WAITING_FOR_PEER,
            &waits_there(view, &answer.message),
        );
    }
    if view.consumes() {
        if view.facts.node.is_none() {
            return no(reason::PENDING, "the virtual node is being made");
        }
        if view.session().is_some() {
            return verdict(kind, true, reason::PEERED, "its offer is accepted");
        }
        let message = "the session with the peer is silent; tunnel and intent stay";
        return verdict(kind, true, reason::PEER_SILENT, message);
    }
    offer_verdict(view)
}

fn offer_verdict(view: &View<'_>) -> Verdict {
    let no = |reason: &str, message: &str| {
        verdict(condition::OUTGOING_PEERED, false, reason, shown(message))
    };
    let Some(foreign) = node::foreign_session(view) else {
        return no(reason::PENDING, "no session stands yet");
    };
    let Some(offered) = &foreign.offer else {
        return if foreign.message.is_empty() {
            no(
                reason::AWAITING_OFFER,
                "the peer has not made its offer yet",
            )
        } else {
            no(reason::OFFER_WITHDRAWN, &foreign.message)
        };
    };
    let answer = view
        .facts
        .advertisement
        .as_ref()
        .and_then(|one| one.status.as_ref());
    match answer.map(|status| status.advertisement_status) {
        Some(Acceptance::Refused) => {
            let why = offer::bounds::defect(offered);
            let why = why.unwrap_or_else(|| {
                let policy = view
                    .facts
                    .config
                    .advertisement_config
                    .ingoing_config
                    .accept_policy;
                match policy {
                    AcceptPolicy::Manual => "a person refused",
                    AcceptPolicy::AutoAcceptMax => "more offers than maxAcceptableAdvertisement",
                }
                .to_owned()
            });
            no(reason::OFFER_REFUSED, &why)
        }
        _ => no(reason::OFFER_PENDING, "the offer waits for its answer"),
    }
}

fn incoming_peered(view: &View<'_>) -> Verdict {
    let kind = condition::INCOMING_PEERED;
    let no = |reason: &str, message: &str| verdict(kind, false, reason, message);
    if view.facts.request.is_none() {
        let message = "the peer has not asked for our resources";
        return no(reason::NOT_REQUESTED, message);
    }
    if let Some(verdict) = suspended(view, kind) {
        return verdict;
    }
    if view.deleting {
        return no(reason::LEAVING, DELETED);
    }
    match &view.admitted {
        Trust::Accepted(_) if view.is_silent_visitor() => no(
            reason::PEER_SILENT,
            "the peer looks after its request no more",
        ),
        Trust::Accepted(_) => {
            let message = "the peer may consume what we offer";
            verdict(kind, true, reason::PEERED, message)
        }
        Trust::Waiting => no(reason::APPROVAL_NEEDED, "a person has to approve it"),
        Trust::Refused => no(reason::BLOCKED, DENIED),
    }
}

fn network_ready(view: &View<'_>) -> Verdict {
    let no = |reason: &str, message: &str| {
        verdict(condition::NETWORK_READY, false, reason, shown(message))
    };
    if !view.wants_network() {
        return no(reason::TUNNEL_NOT_NEEDED, "no peering needs a tunnel");
    }
    if view.facts.own.tunnel.is_none() {
        return no(
            reason::TUNNEL_UNAVAILABLE,
            "tunnels are switched off here: tunnel.mode is off",
        );
    }
    if let Some(why) = network::conflict(view) {
        return no(reason::CIDR_CONFLICT, &why);
    }
    if view
        .peer_network()
        .is_some_and(|told| told.public_key.is_empty())
    {
        return no(reason::TUNNEL_UNAVAILABLE, "the peer has no tunnel");
    }
    let connection = view
        .facts
        .tunnel
        .as_ref()
        .and_then(|one| one.status.as_ref())
        .and_then(|status| status.connection.as_ref());
    let message = connection
        .and_then(|one| one.status_message.as_deref())
        .unwrap_or_default();
    match connection.and_then(|one| one.status.as_deref()) {
        Some(tunnel_endpoint::CONNECTED) => verdict(
            condition::NETWORK_READY,
            true,
            reason::TUNNEL_UP,
            "an echo comes back through the tunnel",
        ),
        Some(tunnel_endpoint::ERROR) => no(reason::TUNNEL_UNAVAILABLE, message),
        Some(_) => no(reason::TUNNEL_DOWN, message),
        None => no(reason::TUNNEL_DOWN, "the tunnel is being set up"),
    }
}

/// The first broken link of what was asked for.
pub(super) fn ready(view: &View<'_>, phase: Phase, verdicts: &[Verdict]) -> Verdict {
    if phase == Phase::Peered {
        return verdict(
            condition::READY,
            true,
            reason::PEERED,
            "everything that was asked for works",
        );
    }
    // Whom we only serve need not be reached, nor joined.
    let is_only_served = view.serves() && !view.wants_join() && !view.owes_withdrawal();
    let matters = |one: &&Verdict| match one.kind {
        condition::DISCOVERED => view.connected.is_none() && !view.wants_join(),
        condition::ENDPOINT_REACHABLE
        | condition::IDENTITY_VERIFIED
        | condition::OUTGOING_PEERED => !is_only_served,
        condition::INCOMING_PEERED => view.facts.request.is_some(),
        condition::NETWORK_READY => view.wants_network(),
        _ => true,
    };
    let broken = verdicts
        .iter()
        .filter(matters)
        .find(|one| one.holds != Some(true));
    let (why, message) = broken.map_or((phase.as_str(), String::new()), |one| {
        (one.reason.as_str(), one.message.clone())
    });
    verdict(condition::READY, false, why, message)
}

fn verdict(kind: &'static str, holds: bool, reason: &str, message: impl Into<String>) -> Verdict {
    Verdict {
        kind,
        holds: Some(holds),
        reason: reason.to_owned(),
        message: message.into(),
    }
}

fn unknown(kind: &'static str, message: &str) -> Verdict {
    Verdict {
        kind,
        holds: None,
        reason: reason::PENDING.to_owned(),
        message: message.to_owned(),
    }
}

/// A message that may carry a peer's words: bounded, and without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .filter(|character| is_printable(*character))
        .take(MESSAGE_LIMIT)
        .collect()
}
