//! What to say about a peer: phase, conditions, timeline, and Liqo's fields.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    View, record,
    verdict::{self, Verdict},
};
use crate::api::{
    ForeignClusterStatus,
    foreign_cluster::{AuthStatus, Phase},
    labels::{condition, reason},
    wire::Decision,
};

/// The stage of the timeline that says that everything worked once.
pub const STAGE_PEERED: &str = "Peered";
/// The stage of the timeline that says that `spec.join` was true once.
pub const STAGE_JOIN_REQUESTED: &str = "JoinRequested";

/// Derives the whole status from the view.
pub(super) fn derive(view: &View<'_>) -> ForeignClusterStatus {
    let mut status = view.status.clone();
    let mut verdicts = verdict::all(view);
    let phase = phase(view, &verdicts);
    verdicts.push(verdict::ready(view, phase, &verdicts));
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
    status.endpoints = record::endpoints(view);
    status.approval_code = view.approval_code();
    status.outgoing = record::outgoing(view);
    status.incoming = record::incoming(view);
    status.network = record::network_links(view);
    if view.connected.is_some() && !view.condition_holds(condition::ENDPOINT_REACHABLE) {
        status.last_seen = Some(Time(view.now));
    }
    timeline(view, phase, &verdicts, &mut status);
    status.conditions = verdicts
        .iter()
        .map(|one| verdict::settle(view, one))
        .collect();
    status
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
    if view.denied || view.is_own() || (view.wants_join() && refused) {
        return Phase::Refused;
    }
    let is_held = view.is_suspended() && (view.object.spec.join || view.facts.request.is_some());
    if is_held || view.is_duplicate() {
        return Phase::Waiting;
    }
    let network = holds(condition::NETWORK_READY) || view.facts.own.tunnel.is_none();
    let tunnel_cannot = verdicts.iter().any(|one| {
        one.kind == condition::NETWORK_READY && one.reason == reason::TUNNEL_UNAVAILABLE
    });
    if view.wants_join() {
        let peered = holds(condition::OUTGOING_PEERED);
        return joined_phase(view, network, peered, tunnel_cannot);
    }
    if view.is_silent_visitor() {
        return Phase::Degraded;
    }
    if view.serves() {
        let was_peered = view.status.timeline.contains_key(STAGE_PEERED);
        return match (network, was_peered || tunnel_cannot) {
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
    let gone = view.expired.is_some() && view.connected.is_none();
    if failed || gone {
        Phase::Unreachable
    } else {
        Phase::Discovered
    }
}

fn joined_phase(view: &View<'_>, network: bool, peered: bool, tunnel_cannot: bool) -> Phase {
    let was_peered = view.status.timeline.contains_key(STAGE_PEERED);
    if peered && network && view.session().is_some() {
        return Phase::Peered;
    }
    if was_peered && view.may_consume() {
        return Phase::Degraded;
    }
    if peered && tunnel_cannot {
        return Phase::Degraded;
    }
    let waits_there = view
        .pending_answer()
        .is_some_and(|answer| answer.decision == Decision::Waiting);
    if view.connected.is_none() {
        let failed = !view.facts.link.failures.is_empty() || view.invalid_id.is_some();
        return if failed || view.dials().is_empty() {
            Phase::Unreachable
        } else {
            Phase::Joining
        };
    }
    let waits_here = !view.trust.is_accepted() && view.facts.link.answer.is_some();
    if waits_here || waits_there {
        Phase::Waiting
    } else {
        Phase::Joining
    }
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
    let stages = verdicts
        .iter()
        .filter(|one| one.holds == Some(true) && one.kind != condition::IDENTITY_MISMATCH);
    for one in stages {
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
