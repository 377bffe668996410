//! The steps that talk to the peer: dial, identify, open and close the session, and the end.

use super::{Dial, LONGEST_RETRY, Step, View};
use crate::{
    api::{
        foreign_cluster::{ClusterIdentity, TrustMode},
        labels,
        peering_request::{Acceptance, HomeSession, PeeringRequestSpec},
        wire,
    },
    engine::peering::network,
};

/// Plans the contact with the peer.
pub(super) fn steps(view: &View<'_>, steps: &mut Vec<Step>) {
    if view.is_let_in_no_more() {
        steps.push(Step::SetTrust(view.object.spec.trust_mode, None));
    }
    if !view.object.spec.join && view.is_joined_by_policy() {
        steps.push(Step::ForgetPolicy);
    }
    // A refusal outlives the SearchDomain that found whom it is for.
    if view.denied && view.has_search_domain() {
        steps.push(Step::Disown);
    }
    if !view.deleting && !view.has_finalizer() && (view.wants_join() || view.serves()) {
        steps.push(Step::AddFinalizer);
    }
    if view.owes_withdrawal() {
        withdraw(view, steps);
    }
    if !view.needs_contact() {
        if view.facts.link.connected.is_some() {
            steps.push(Step::Disconnect);
        }
        return;
    }
    if view.facts.link.connected.is_some() && !view.answers() {
        steps.push(Step::Disconnect);
        return;
    }
    let Some(connected) = view.connected else {
        dial(view, view.dials(), steps);
        return;
    };
    if view.has_moved() && is_due(view) {
        // An advertisement is a hint: what stands is given up for a place that has proven itself.
        let mut elsewhere = view.dials();
        elsewhere.retain(|dial| dial.url != connected.url);
        dial(view, elsewhere, steps);
        return;
    }
    let nearer = view.nearer();
    if !nearer.is_empty() && is_due(view) {
        dial(view, nearer, steps);
        return;
    }
    if view.cluster_id.is_none() {
        let name = connected.cluster_name.clone();
        steps.push(Step::FillIdentity(connected.cluster_id.clone(), name));
        return;
    }
    settle_trust(view, steps);
    if view.wants_join() {
        converse(view, steps);
    }
}

fn dial(view: &View<'_>, dials: Vec<Dial>, steps: &mut Vec<Step>) {
    if is_due(view) {
        steps.push(Step::Connect {
            dials,
            expect: view.cluster_id.clone(),
        });
    }
}

fn is_due(view: &View<'_>) -> bool {
    let retry = view.facts.link.retry_at;
    retry.is_none_or(|moment| view.has_come(moment, LONGEST_RETRY))
}

fn settle_trust(view: &View<'_>, steps: &mut Vec<Step>) {
    let mode = view.object.spec.trust_mode;
    let answer = view.facts.link.answer.as_ref();
    let shown = answer.and_then(|answer| answer.evidence);
    if shown.is_some() && mode != TrustMode::Trusted && !view.denied {
        steps.push(Step::SetTrust(TrustMode::Trusted, shown));
    } else if mode == TrustMode::Unknown {
        steps.push(Step::SetTrust(TrustMode::Untrusted, None));
    }
}

fn converse(view: &View<'_>, steps: &mut Vec<Step>) {
    if view.should_ask() || view.is_renamed() {
        steps.push(Step::Identify);
        return;
    }
    if !view.is_accepted_there() || !view.may_consume() {
        return;
    }
    let Some(session) = &view.facts.link.session else {
        steps.push(Step::OpenSession(Box::new(request(view))));
        return;
    };
    let told = &session.request.spec;
    let (name, say) = (&view.facts.own.cluster_name, home_session(view));
    let is_named_so = told.cluster_identity.cluster_name.as_deref() == Some(name.as_str());
    let said = told.session.as_ref();
    if !is_named_so || said.is_none_or(|said| !network::says_the_same(said, &say)) {
        steps.push(Step::Tell(name.clone(), Box::new(say)));
    }
}

/// The PeeringRequest that opens a session.
fn request(view: &View<'_>) -> PeeringRequestSpec {
    let own = &view.facts.own;
    PeeringRequestSpec {
        cluster_identity: ClusterIdentity {
            cluster_id: own.cluster_id.to_string(),
            cluster_name: Some(own.cluster_name.to_string()),
        },
        namespace: labels::NAMESPACE.to_owned(),
        auth_url: own.auth_url.clone(),
        kube_config_ref: None,
        session: Some(home_session(view)),
    }
}

fn home_session(view: &View<'_>) -> HomeSession {
    let accepted = view
        .facts
        .advertisement
        .as_ref()
        .and_then(|one| one.status.as_ref())
        .map_or(Acceptance::Undecided, |status| status.advertisement_status);
    HomeSession {
        protocol: wire::PROTOCOL,
        network: Some(network::spoken(view)),
        accepted,
    }
}

/// Plans the withdrawal of what stands in the peer's cluster.
fn withdraw(view: &View<'_>, steps: &mut Vec<Step>) {
    if view.connected.is_some() {
        steps.push(Step::CloseSession);
        return;
    }
    if view.cluster_id.is_some() && !view.facts.tombstone && !view.awaits_withdrawal() {
        steps.push(Step::Entomb);
    }
}

/// Plans the end of an object: what the peer asked for goes, then the finalizer, then what
/// discovery has lost.
pub(super) fn farewell(view: &View<'_>, steps: &mut Vec<Step>) {
    if view.facts.request.is_some() && (view.deleting || view.denied) {
        steps.push(Step::DismissRequest);
    }
    if view.facts.tombstone && view.facts.link.withdrawn {
        steps.push(Step::Exhume);
    }
    let empty = view.facts.advertisement.is_none()
        && view.facts.node.is_none()
        && view.facts.local_network.is_none()
        && view.facts.remote_network.is_none()
        && view.facts.tunnel.is_none()
        && view.facts.request.is_none();
    if view.deleting && view.has_finalizer() && empty && !view.awaits_withdrawal() {
        steps.push(Step::RemoveFinalizer);
    }
    if view.is_forgettable() {
        steps.push(Step::Forget);
    }
}
