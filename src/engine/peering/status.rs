//! What to say about a peer: phase, conditions, and Liqo's fields.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{Resource, ResourceExt as _};

use super::{View, network, node};
use crate::{
    api::{
        ForeignClusterStatus,
        foreign_cluster::{
            AuthStatus, Incoming, Network, Outgoing, PeerEndpoint, Phase, ResourceLink,
        },
        labels::{condition, reason},
        peering_request::Acceptance,
        wire::Decision,
    },
    engine::{offer, policy::Trust},
};

/// The stage of the timeline that says that everything worked once.
pub const STAGE_PEERED: &str = "Peered";
/// The stage of the timeline that says that `spec.join` was true once.
pub const STAGE_JOIN_REQUESTED: &str = "JoinRequested";
/// The longest text from a peer that goes into a message.
const MESSAGE_LIMIT: usize = 256;

/// One condition before it is compared with the present one.
#[derive(Debug)]
struct Verdict {
    kind: &'static str,
    /// `None` is Unknown.
    holds: Option<bool>,
    reason: String,
    message: String,
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

/// Derives the whole status from the view.
pub(super) fn derive(view: &View<'_>) -> ForeignClusterStatus {
    let mut status = view.status.clone();
    let mut verdicts = vec![
        discovered(view),
        reachable(view),
        identity(view),
        trusted(view),
        outgoing_peered(view),
        incoming_peered(view),
        network_ready(view),
    ];
    let phase = phase(view, &verdicts);
    verdicts.push(ready(view, phase, &verdicts));
    status.phase = Some(phase);
    status.auth_status = auth_status(view);
    status.ttl = view
        .facts
        .neighbour
        .as_ref()
        .map(|one| one.ttl)
        .filter(|ttl| *ttl > 0)
        .or(status.ttl);
    status.fingerprint = view
        .connected
        .map(|one| one.fingerprint.to_string())
        .or(status.fingerprint);
    status.endpoints = endpoints(view);
    status.outgoing = outgoing(view);
    status.incoming = incoming(view);
    status.network = network_links(view);
    if view.connected.is_some() && !view.condition_holds(condition::ENDPOINT_REACHABLE) {
        status.last_seen = Some(Time(view.now));
    }
    timeline(view, phase, &verdicts, &mut status);
    status.conditions = verdicts.iter().map(|one| settle(view, one)).collect();
    status
}

/// Keeps the transition time while the truth of a condition is the same.
fn settle(view: &View<'_>, verdict: &Verdict) -> Condition {
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
    if view.is_own() {
        return verdict(
            condition::ENDPOINT_REACHABLE,
            false,
            reason::OWN_IDENTITY,
            "this is our own cluster id",
        );
    }
    if let Some(connected) = view.connected {
        if !view.is_alive() {
            let message = format!("{} is silent", connected.url);
            return verdict(
                condition::ENDPOINT_REACHABLE,
                false,
                reason::PEER_SILENT,
                message,
            );
        }
        let message = format!("{} answered", connected.url);
        return verdict(
            condition::ENDPOINT_REACHABLE,
            true,
            reason::ANSWERED,
            message,
        );
    }
    let failures = &view.facts.link.failures;
    if let Some((url, failure)) = view
        .dials()
        .iter()
        .find_map(|dial| failures.get_key_value(&dial.url))
    {
        let message = shown(&format!("{url}: {}", failure.message));
        return verdict(
            condition::ENDPOINT_REACHABLE,
            false,
            &failure.reason,
            message,
        );
    }
    present(view, condition::ENDPOINT_REACHABLE)
        .unwrap_or_else(|| unknown(condition::ENDPOINT_REACHABLE, "no endpoint was tried yet"))
}

fn identity(view: &View<'_>) -> Verdict {
    let mismatch = view
        .facts
        .link
        .failures
        .values()
        .find(|one| one.reason == reason::IDENTITY_MISMATCH);
    if let Some(connected) = view.connected {
        let message = format!("the endpoint holds the key {}", connected.fingerprint);
        return verdict(
            condition::IDENTITY_VERIFIED,
            true,
            reason::KEY_PROVEN,
            message,
        );
    }
    if let Some(failure) = mismatch {
        let message = shown(&failure.message);
        return verdict(
            condition::IDENTITY_VERIFIED,
            false,
            reason::IDENTITY_MISMATCH,
            message,
        );
    }
    present(view, condition::IDENTITY_VERIFIED).unwrap_or_else(|| {
        unknown(
            condition::IDENTITY_VERIFIED,
            "no endpoint has proven its key yet",
        )
    })
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
    match &view.trust {
        Trust::Accepted(why) => {
            let message = match why.as_str() {
                reason::FLEET_SECRET => "it knows the fleet secret",
                reason::EMPTY_TOKEN_ALLOWED => {
                    "accepted unseen, because authConfig.allowEmptyToken is true"
                }
                _ => "spec.trustMode is Trusted",
            };
            verdict(condition::TRUSTED, true, why, message)
        }
        Trust::Waiting => verdict(
            condition::TRUSTED,
            false,
            reason::APPROVAL_NEEDED,
            format!(
                "a person has to approve it: landbridge approve {}",
                view.object.name_any()
            ),
        ),
        Trust::Refused => verdict(
            condition::TRUSTED,
            false,
            reason::BLOCKED,
            "spec.incomingPeeringEnabled is No",
        ),
    }
}

fn outgoing_peered(view: &View<'_>) -> Verdict {
    let no = |reason: &str, message: &str| {
        verdict(condition::OUTGOING_PEERED, false, reason, shown(message))
    };
    if !view.wants_join() {
        let message = if view.owes_withdrawal() {
            "the peering is being taken down"
        } else {
            "spec.join is false"
        };
        let why = if view.owes_withdrawal() {
            reason::LEAVING
        } else {
            reason::NOT_JOINED
        };
        return no(why, message);
    }
    if !view.trust.is_accepted() {
        return no(
            reason::APPROVAL_NEEDED,
            "its identity is not accepted here yet",
        );
    }
    if let Some(answer) = view.pending_answer() {
        return match answer.decision {
            Decision::Refused | Decision::EmptyRefused => {
                no(reason::REFUSED_BY_PEER, &answer.message)
            }
            Decision::Waiting | Decision::Accepted => no(reason::WAITING_FOR_PEER, &answer.message),
        };
    }
    if view.consumes() {
        if view.is_alive() {
            return verdict(
                condition::OUTGOING_PEERED,
                true,
                reason::PEERED,
                "its offer is accepted",
            );
        }
        let message = "the session with the peer is silent; tunnel and intent stay";
        return verdict(
            condition::OUTGOING_PEERED,
            true,
            reason::PEER_SILENT,
            message,
        );
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
            let why = offer::defect(offered);
            let why = why.unwrap_or_else(|| {
                "more offers than maxAcceptableAdvertisement, or a person refused".to_owned()
            });
            no(reason::OFFER_REFUSED, &why)
        }
        _ => no(reason::OFFER_PENDING, "the offer waits for its answer"),
    }
}

fn incoming_peered(view: &View<'_>) -> Verdict {
    if view.facts.request.is_none() {
        let message = "the peer has not asked for our resources";
        return verdict(
            condition::INCOMING_PEERED,
            false,
            reason::NOT_REQUESTED,
            message,
        );
    }
    match &view.admitted {
        Trust::Accepted(_) => verdict(
            condition::INCOMING_PEERED,
            true,
            reason::PEERED,
            "the peer may consume what we offer",
        ),
        Trust::Waiting => verdict(
            condition::INCOMING_PEERED,
            false,
            reason::APPROVAL_NEEDED,
            "a person has to approve it",
        ),
        Trust::Refused => verdict(
            condition::INCOMING_PEERED,
            false,
            reason::BLOCKED,
            "spec.incomingPeeringEnabled is No",
        ),
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
        Some("connected") => verdict(
            condition::NETWORK_READY,
            true,
            reason::TUNNEL_UP,
            "an echo comes back through the tunnel",
        ),
        Some("error") => no(reason::TUNNEL_UNAVAILABLE, message),
        Some(_) => no(reason::TUNNEL_DOWN, message),
        None => no(reason::TUNNEL_DOWN, "the tunnel is being set up"),
    }
}

/// The phase that follows from the verdicts.
fn phase(view: &View<'_>, verdicts: &[Verdict]) -> Phase {
    let holds = |kind: &str| {
        verdicts
            .iter()
            .any(|one| one.kind == kind && one.holds == Some(true))
    };
    let refused = verdicts
        .iter()
        .any(|one| one.reason == reason::REFUSED_BY_PEER);
    if view.deleting || view.owes_withdrawal() {
        return Phase::Leaving;
    }
    if view.blocked || view.is_own() || (view.wants_join() && refused) {
        return Phase::Refused;
    }
    let network = holds(condition::NETWORK_READY) || view.facts.own.tunnel.is_none();
    if view.wants_join() {
        return joined_phase(view, network, holds(condition::OUTGOING_PEERED));
    }
    if view.serves() {
        return match (network, view.status.timeline.contains_key(STAGE_PEERED)) {
            (true, _) => Phase::Peered,
            (false, true) => Phase::Degraded,
            (false, false) => Phase::Joining,
        };
    }
    if view.facts.request.is_some() {
        return Phase::Waiting;
    }
    let failed = verdicts
        .iter()
        .any(|one| one.kind == condition::ENDPOINT_REACHABLE && one.holds == Some(false));
    if failed {
        Phase::Unreachable
    } else {
        Phase::Discovered
    }
}

fn joined_phase(view: &View<'_>, network: bool, peered: bool) -> Phase {
    let was_peered = view.status.timeline.contains_key(STAGE_PEERED);
    if peered && network && view.is_alive() {
        return Phase::Peered;
    }
    if was_peered && view.may_consume() {
        return Phase::Degraded;
    }
    let tunnel_cannot = view.tunnel_status() == Some("error");
    if peered && tunnel_cannot {
        return Phase::Degraded;
    }
    let waits_there = view
        .pending_answer()
        .is_some_and(|answer| answer.decision == Decision::Waiting);
    if view.connected.is_none() {
        return if view.facts.link.failures.is_empty() {
            Phase::Joining
        } else {
            Phase::Unreachable
        };
    }
    let waits_here = !view.trust.is_accepted() && view.facts.link.answer.is_some();
    if waits_here || waits_there {
        Phase::Waiting
    } else {
        Phase::Joining
    }
}

/// The first broken link of what was asked for.
fn ready(view: &View<'_>, phase: Phase, verdicts: &[Verdict]) -> Verdict {
    if phase == Phase::Peered {
        return verdict(
            condition::READY,
            true,
            reason::PEERED,
            "everything that was asked for works",
        );
    }
    let matters = |one: &&Verdict| match one.kind {
        condition::DISCOVERED => view.connected.is_none() && !view.wants_join(),
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

/// Where the authorisation stands. A user's Pending stays until the peer has answered again.
fn auth_status(view: &View<'_>) -> AuthStatus {
    let Some(answer) = &view.facts.link.answer else {
        return view.status.auth_status;
    };
    if view.should_ask() && answer.recorded {
        return view.status.auth_status;
    }
    match answer.decision {
        Decision::Accepted => AuthStatus::Accepted,
        Decision::Waiting => AuthStatus::Pending,
        Decision::Refused => AuthStatus::Refused,
        Decision::EmptyRefused => AuthStatus::EmptyRefused,
    }
}

fn endpoints(view: &View<'_>) -> Vec<PeerEndpoint> {
    let known = match &view.facts.neighbour {
        Some(neighbour) => neighbour.endpoints.clone(),
        None => view.status.endpoints.clone(),
    };
    let error = |url: &str| {
        view.facts
            .link
            .failures
            .get(url)
            .map(|failure| shown(&failure.message))
    };
    let mut endpoints: Vec<PeerEndpoint> = known
        .into_iter()
        .map(|endpoint| PeerEndpoint {
            last_error: error(&endpoint.url),
            ..endpoint
        })
        .collect();
    let url = &view.object.spec.auth_url;
    let listed = endpoints.iter().any(|endpoint| endpoint.url == *url);
    if !listed && !url.is_empty() && !view.is_discovered() {
        endpoints.push(PeerEndpoint {
            url: url.clone(),
            source: view.object.spec.discovery_type.as_str().to_owned(),
            last_error: error(url),
            ..PeerEndpoint::default()
        });
    }
    endpoints
}

fn outgoing(view: &View<'_>) -> Option<Outgoing> {
    let stands = view.facts.link.session.is_some();
    let remembered = view
        .status
        .outgoing
        .as_ref()
        .and_then(|one| one.remote_peering_request_name.clone())
        .filter(|_| !view.facts.link.withdrawn);
    let name = if stands {
        Some(view.facts.own.cluster_id.to_string())
    } else {
        remembered
    };
    let advertisement = view.facts.advertisement.as_ref();
    let answer = advertisement.and_then(|one| one.status.as_ref());
    if name.is_none() && advertisement.is_none() && view.status.outgoing.is_none() {
        return None;
    }
    Some(Outgoing {
        joined: view.consumes() && view.wants_join(),
        remote_peering_request_name: name,
        advertisement: advertisement.map(reference),
        available_identity: view.is_accepted_there().then_some(true),
        identity_ref: None,
        advertisement_status: answer.map(|one| one.advertisement_status.as_str().to_owned()),
    })
}

fn incoming(view: &View<'_>) -> Option<Incoming> {
    let request = view.facts.request.as_ref();
    if request.is_none() && view.status.incoming.is_none() {
        return None;
    }
    let accepted = request
        .and_then(|one| one.spec.session.as_ref())
        .map(|session| session.accepted);
    Some(Incoming {
        joined: view.serves(),
        peering_request: request.map(reference),
        available_identity: request.map(|_| view.admitted.is_accepted()),
        identity_ref: None,
        advertisement_status: accepted.map(|one| one.as_str().to_owned()),
    })
}

fn network_links(view: &View<'_>) -> Option<Network> {
    let facts = view.facts;
    let link = |reference: Option<ObjectReference>| ResourceLink {
        available: reference.is_some(),
        reference,
    };
    let nothing =
        facts.local_network.is_none() && facts.remote_network.is_none() && facts.tunnel.is_none();
    if nothing && view.status.network.is_none() {
        return None;
    }
    let latency = facts
        .tunnel
        .as_ref()
        .and_then(|one| one.status.as_ref()?.connection.as_ref()?.latency.clone());
    Some(Network {
        local_network_config: link(facts.local_network.as_ref().map(reference)),
        remote_network_config: link(facts.remote_network.as_ref().map(reference)),
        tunnel_endpoint: link(facts.tunnel.as_ref().map(reference)),
        rtt: latency.filter(|_| view.is_tunnel_connected()),
    })
}

/// A reference to one of our objects.
fn reference<K>(object: &K) -> ObjectReference
where
    K: Resource<DynamicType = ()>,
{
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        uid: object.meta().uid.clone(),
        ..ObjectReference::default()
    }
}

/// Notes when each stage was first reached. A new peering starts a new timeline.
fn timeline(
    view: &View<'_>,
    phase: Phase,
    verdicts: &[Verdict],
    status: &mut ForeignClusterStatus,
) {
    let mut reach = |stage: &str, now: Timestamp| {
        status.timeline.entry(stage.to_owned()).or_insert(Time(now));
    };
    for one in verdicts.iter().filter(|one| one.holds == Some(true)) {
        reach(one.kind, view.now);
    }
    if view.object.spec.join {
        reach(STAGE_JOIN_REQUESTED, view.now);
    }
    if phase == Phase::Peered {
        reach(STAGE_PEERED, view.now);
    }
    if !view.wants_join() && !view.serves() {
        for stage in [
            condition::OUTGOING_PEERED,
            condition::INCOMING_PEERED,
            condition::NETWORK_READY,
            STAGE_PEERED,
        ] {
            status.timeline.remove(stage);
        }
    }
}

/// A message that may carry a peer's words: bounded, and without control characters.
fn shown(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(MESSAGE_LIMIT)
        .collect()
}
