//! What follows at once from an object and the facts: the questions that every part of a plan asks.

use jiff::{SignedDuration, Timestamp};
use kube::Resource as _;

use super::{
    Answer, Connected, Facts, GRACE, IDLE_VISIT, LONGEST_REFUSAL, LONGEST_RETRY, REAPPEARANCE,
    SILENCE, SILENCE_OF_THE_LOST, WITHDRAWAL_DEADLINE, after,
    status::{STAGE_JOIN_REQUESTED, STAGE_PEERED},
};
use crate::{
    api::{
        ClusterId, ForeignCluster, ForeignClusterStatus, SearchDomain,
        foreign_cluster::{AuthStatus, DiscoveryType, IncomingPeering, TrustMode},
        labels::{FINALIZER_PEERED, JOINED_BY, TRUSTED_BY, condition, reason},
        peering_request::{Acceptance, SessionNetwork},
        tunnel_endpoint,
        wire::Decision,
    },
    engine::{
        domain,
        policy::{self, Trust},
    },
};

/// An object and the facts about its peer at one moment, with what follows from them.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) object: &'a ForeignCluster,
    pub(crate) status: ForeignClusterStatus,
    pub(crate) facts: &'a Facts,
    pub(crate) now: Timestamp,
    /// The id that the object claims.
    pub(crate) cluster_id: Option<ClusterId>,
    /// Why what the object claims is no id, if it claims anything.
    pub(crate) invalid_id: Option<String>,
    /// The connection, when it is to the right cluster.
    pub(crate) connected: Option<&'a Connected>,
    /// Whether its identity is accepted, by what it has shown on the connection, too.
    pub(crate) trust: Trust,
    /// Whether it may consume what we offer, as it is told where it asks for that.
    pub(crate) admitted: Trust,
    pub(crate) deleting: bool,
    pub(crate) denied: bool,
    /// When the advertisement of the peer was lost, if it was.
    pub(crate) expired: Option<Timestamp>,
}

impl<'a> View<'a> {
    pub(crate) fn new(object: &'a ForeignCluster, facts: &'a Facts, now: Timestamp) -> Self {
        let status = object.status.clone().unwrap_or_default();
        let identity = object.spec.cluster_identity.as_ref();
        let claimed = identity
            .map(|identity| identity.cluster_id.as_str())
            .filter(|text| !text.is_empty())
            .map(str::parse::<ClusterId>)
            .transpose();
        let invalid_id = claimed.as_ref().err().map(ToString::to_string);
        let cluster_id = claimed.unwrap_or_default();
        let connected = facts.link.connected.as_ref().filter(|connected| {
            let is_right = cluster_id
                .as_ref()
                .is_none_or(|id| *id == connected.cluster_id);
            is_right && invalid_id.is_none()
        });
        let evidence = facts.link.answer.as_ref();
        let evidence = evidence.and_then(|answer| answer.evidence);
        let empty = facts.config.auth_config.allow_empty_token;
        let deleting = object.metadata.deletion_timestamp.is_some();
        let is_held_back = deleting || facts.twin.is_some();
        let mut view = Self {
            object,
            facts,
            now,
            cluster_id,
            invalid_id,
            connected,
            trust: policy::trust(&object.spec, recorded_trust(object), evidence, empty),
            admitted: policy::admit(&object.spec, empty, is_held_back),
            deleting,
            denied: object.spec.is_denied(),
            expired: None,
            status,
        };
        view.expired = view.lost_at();
        view
    }

    /// When discovery lost the peer, for an object that discovery made.
    fn lost_at(&self) -> Option<Timestamp> {
        if !self.is_discovered() {
            return None;
        }
        match &self.facts.neighbour {
            Some(neighbour) => neighbour.expired,
            None => Some(self.end_of_absence()).filter(|end| self.now >= *end),
        }
    }

    /// Until when a peer that was known before our start is not missed: as long as its source would
    /// keep it.
    pub(crate) fn end_of_absence(&self) -> Timestamp {
        let hold = SignedDuration::try_from(domain::HOLD).unwrap_or(REAPPEARANCE);
        let is_listed = self.object.spec.discovery_type == DiscoveryType::Wan;
        self.facts.started + if is_listed { hold } else { REAPPEARANCE }
    }

    /// Whether discovery made the object, so that discovery may take it back.
    pub(crate) fn is_discovered(&self) -> bool {
        matches!(
            self.object.spec.discovery_type,
            DiscoveryType::Lan | DiscoveryType::Wan
        )
    }

    /// Whether the object stands for ourselves.
    pub(crate) fn is_own(&self) -> bool {
        self.cluster_id.as_ref() == Some(&self.facts.own.cluster_id)
    }

    /// Whether another object stands for the same cluster, so that nothing is done for this one.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.facts.rival.is_some()
    }

    /// Whether our identity is on two machines, so that neither may use it.
    pub(crate) fn is_suspended(&self) -> bool {
        self.facts.twin.is_some()
    }

    /// Whether the peer's resources are wanted, and may be asked for.
    pub(crate) fn wants_join(&self) -> bool {
        let may = !self.deleting && !self.denied && !self.is_own() && !self.is_suspended();
        self.object.spec.join && may && !self.is_duplicate()
    }

    /// Whether a session with the peer may stand: wanted, its identity accepted here, and ours there
    /// for all that is known.
    pub(crate) fn may_consume(&self) -> bool {
        self.wants_join()
            && self.trust.is_accepted()
            && self.cluster_id.is_some()
            && !self.is_turned_away()
    }

    /// Whether the peer has answered anything but yes, so that nothing of it is of use here.
    fn is_turned_away(&self) -> bool {
        let answer = self.facts.link.answer.as_ref();
        answer.is_some_and(|answer| answer.decision != Decision::Accepted)
    }

    /// Whether the peer has refused us.
    pub(crate) fn is_refused_there(&self) -> bool {
        let answer = self.facts.link.answer.as_ref();
        answer.is_some_and(|answer| {
            matches!(answer.decision, Decision::Refused | Decision::EmptyRefused)
        })
    }

    /// Whether the peer may consume what we offer, and asked for it.
    pub(crate) fn serves(&self) -> bool {
        self.facts.request.is_some() && self.admitted.is_accepted()
    }

    /// When a peer counts as silent of which nothing but its watch of its request at our door tells whether
    /// it is there: we join it not, and make no tunnels. After our start it takes its time to come back.
    pub(crate) fn silent_from(&self) -> Option<Timestamp> {
        let only_visits = !self.wants_join() && self.facts.own.tunnel.is_none();
        let silent_from = match self.facts.present {
            Some(last) => after(last, SILENCE),
            None => after(self.facts.started, LONGEST_RETRY + SILENCE),
        };
        (self.serves() && only_visits).then_some(silent_from)
    }

    /// Whether such a peer is silent.
    pub(crate) fn is_silent_visitor(&self) -> bool {
        self.silent_from().is_some_and(|from| self.now >= from)
    }

    /// Whether our PeeringRequest may still stand in the peer's cluster though it should not.
    pub(crate) fn owes_withdrawal(&self) -> bool {
        let remembered = self
            .status
            .outgoing
            .as_ref()
            .is_some_and(|outgoing| outgoing.remote_peering_request_name.is_some());
        let stands = self.facts.link.session.is_some()
            || ((remembered || self.facts.tombstone) && !self.facts.link.withdrawn);
        stands && !self.may_consume() && !self.is_duplicate()
    }

    /// When a deletion stops waiting for the peer.
    pub(crate) fn withdrawal_deadline(&self) -> Option<Timestamp> {
        let deleted = self.object.metadata.deletion_timestamp.as_ref()?;
        self.owes_withdrawal()
            .then_some(after(deleted.0, WITHDRAWAL_DEADLINE))
    }

    /// Whether the end of the object waits for a withdrawal: until the deadline of a deletion, and
    /// until this run of the daemon has tried the peer once.
    pub(crate) fn awaits_withdrawal(&self) -> bool {
        let deadline = self.withdrawal_deadline();
        let untried = self.connected.is_some() || self.facts.link.retry_at.is_none();
        self.owes_withdrawal()
            && (deadline.is_none_or(|deadline| self.now < deadline)
                || (untried && self.needs_contact()))
    }

    /// Whether the peer must be talked to.
    pub(crate) fn needs_contact(&self) -> bool {
        let may = !self.deleting && !self.denied && !self.is_suspended();
        let unknown = may && !self.is_proven();
        let may_dial = !self.is_own() && !self.is_duplicate() && self.invalid_id.is_none();
        may_dial && (self.wants_join() || self.owes_withdrawal() || unknown)
    }

    /// Whether the key behind the id was proven, now or earlier. A visitor is only recorded after
    /// its own handshake has proven it.
    pub(crate) fn is_proven(&self) -> bool {
        let proven = self.connected.is_some()
            || self.condition_holds(condition::IDENTITY_VERIFIED)
            || self.is_visitor();
        self.cluster_id.is_some() && proven
    }

    /// Whether the object was made because the cluster came to us.
    pub(crate) fn is_visitor(&self) -> bool {
        self.object.spec.discovery_type == DiscoveryType::IncomingPeering
    }

    /// Whether a condition of the present status holds.
    pub(crate) fn condition_holds(&self, kind: &str) -> bool {
        self.status
            .conditions
            .iter()
            .any(|one| one.type_ == kind && one.status == "True")
    }

    /// Whether the connection stands and, if there is a session on it, it was heard lately.
    pub(crate) fn answers(&self) -> bool {
        let heard = self
            .facts
            .link
            .session
            .as_ref()
            .is_none_or(|session| self.now < session.heard + self.patience());
        self.connected.is_some() && heard
    }

    /// How long a session may be silent.
    pub(crate) fn patience(&self) -> SignedDuration {
        if self.expired.is_some() {
            SILENCE_OF_THE_LOST
        } else {
            SILENCE
        }
    }

    /// Whether the session carries news: it stands and is heard.
    pub(crate) fn session(&self) -> Option<&'a super::Session> {
        self.facts.link.session.as_ref().filter(|_| self.answers())
    }

    /// Whether a moment has come that was put off for so long at the most. A clock that was set back
    /// would otherwise put it off again.
    pub(crate) fn has_come(&self, moment: Timestamp, longest: SignedDuration) -> bool {
        self.now >= moment || moment > self.now + longest
    }

    /// The peer's answer, while it is not yet a yes.
    pub(crate) fn pending_answer(&self) -> Option<&'a Answer> {
        let answer = self.facts.link.answer.as_ref()?;
        (self.wants_join() && answer.decision != Decision::Accepted).then_some(answer)
    }

    /// When the peer is asked again, while its answer or ours is not yet a yes.
    pub(crate) fn asks_again(&self) -> Option<Timestamp> {
        let answer = self.facts.link.answer.as_ref()?;
        let waits = answer.decision != Decision::Accepted || !self.trust.is_accepted();
        (self.wants_join() && waits).then_some(answer.ask_again)
    }

    /// Whether to ask the peer to accept us.
    pub(crate) fn should_ask(&self) -> bool {
        let Some(answer) = &self.facts.link.answer else {
            return true;
        };
        let is_time = self.has_come(answer.ask_again, LONGEST_REFUSAL);
        match answer.decision {
            // Without a session nothing else tells that the peer is there, and what it shows may change.
            Decision::Accepted => !self.trust.is_accepted() && is_time,
            Decision::Waiting => is_time,
            Decision::Refused | Decision::EmptyRefused => {
                let asked_by_user =
                    answer.recorded && self.status.auth_status == AuthStatus::Pending;
                asked_by_user || is_time
            }
        }
    }

    /// Whether the peer knows us by a name that we do not have any more.
    pub(crate) fn is_renamed(&self) -> bool {
        let answer = self.facts.link.answer.as_ref();
        answer.is_some_and(|answer| answer.introduced != self.facts.own.cluster_name)
    }

    /// Whether the peer accepted us.
    pub(crate) fn is_accepted_there(&self) -> bool {
        self.facts
            .link
            .answer
            .as_ref()
            .is_some_and(|answer| answer.decision == Decision::Accepted)
    }

    /// The peer's network, from whichever session tells it.
    pub(crate) fn peer_network(&self) -> Option<&'a SessionNetwork> {
        let (outgoing, incoming) = (
            self.facts.answered().filter(|_| self.may_consume()),
            self.facts.asked().filter(|_| self.serves()),
        );
        // The one that already says how the peer sees us is the later word.
        match (outgoing, incoming) {
            (Some(told), _) if told.pod_cidr_nat.is_some() => Some(told),
            (told, other) => other
                .filter(|other| other.pod_cidr_nat.is_some())
                .or(told)
                .or(other),
        }
    }

    /// Whether the network to the peer is wanted at all.
    pub(crate) fn wants_network(&self) -> bool {
        let consumes = self.may_consume()
            && (self.facts.link.session.is_some() || self.facts.remote_network.is_some());
        consumes || self.serves()
    }

    /// Whether the peer's offer stands here and is accepted.
    pub(crate) fn consumes(&self) -> bool {
        self.may_consume()
            && self
                .facts
                .advertisement
                .as_ref()
                .and_then(|one| one.status.as_ref())
                .is_some_and(|status| status.advertisement_status == Acceptance::Accepted)
    }

    /// How the connection through the tunnel does, in Liqo's words.
    pub(crate) fn tunnel_status(&self) -> Option<&'a str> {
        let tunnel = self.facts.tunnel.as_ref()?;
        tunnel
            .status
            .as_ref()?
            .connection
            .as_ref()?
            .status
            .as_deref()
    }

    /// Whether an echo came back through the tunnel lately.
    pub(crate) fn is_tunnel_connected(&self) -> bool {
        self.tunnel_status() == Some(tunnel_endpoint::CONNECTED)
    }

    /// Whether discovery lost the peer long enough ago, and nothing holds on to it.
    pub(crate) fn is_forgettable(&self) -> bool {
        let held = self.facts.request.is_some()
            || self.facts.advertisement.is_some()
            || self.facts.tunnel.is_some()
            || self.connected.is_some()
            || self.owes_withdrawal()
            || self.is_duplicate()
            || self.is_decided()
            || self.status.timeline.contains_key(STAGE_PEERED);
        let lost = self.expired.map(|expired| expired + GRACE);
        let over = lost.or_else(|| self.end_of_visit());
        let old = over.is_some_and(|over| self.now >= over);
        old && !held && !self.deleting && !self.denied
    }

    /// Whether something was decided about the peer that it would not get again by being found again:
    /// what a person said, or a token.
    fn is_decided(&self) -> bool {
        let spec = &self.object.spec;
        let trusted = spec.trust_mode == TrustMode::Trusted;
        let let_in = trusted
            && !matches!(
                recorded_trust(self.object),
                Some(reason::FLEET_SECRET | reason::TLSA | reason::WEB_PKI)
            );
        let left = !spec.join && self.status.timeline.contains_key(STAGE_JOIN_REQUESTED);
        let joined = spec.join && !self.is_joined_by_policy();
        let_in || left || joined || spec.incoming_peering_enabled == IncomingPeering::Yes
    }

    /// Whether it stands on the object that policy wanted the join, now or before it was left.
    pub(crate) fn is_joined_by_policy(&self) -> bool {
        let annotations = self.object.metadata.annotations.as_ref();
        annotations.is_some_and(|all| all.contains_key(JOINED_BY))
    }

    /// When the object of a visitor has had its time: nobody has decided anything about it, and it
    /// has not come again.
    pub(crate) fn end_of_visit(&self) -> Option<Timestamp> {
        let wanted = self.object.spec.join || self.denied;
        if !self.is_visitor() || wanted || self.is_decided() {
            return None;
        }
        let made = self.object.metadata.creation_timestamp.as_ref()?.0;
        let came = self.facts.visited.unwrap_or(self.facts.started);
        Some(after(made.max(came), IDLE_VISIT))
    }

    /// The six digits to compare, while a person has to decide here or there.
    ///
    /// Where each side has asked the other there are two codes; both show the one of the session in
    /// which the lower id is home.
    pub(crate) fn approval_code(&self) -> Option<String> {
        let waits_here = self.trust == Trust::Waiting;
        let waits_there = self
            .pending_answer()
            .is_some_and(|answer| answer.decision == Decision::Waiting);
        if !waits_here && !waits_there {
            return None;
        }
        let home = self
            .facts
            .link
            .answer
            .as_ref()
            .and_then(|answer| answer.code.clone());
        let foreign = self.facts.visitor_code.clone();
        if Some(&self.facts.own.cluster_id) < self.cluster_id.as_ref() {
            home.or(foreign)
        } else {
            foreign.or(home)
        }
    }

    /// Whether it stands on the object by what the peer was let in, though it is not any more. A
    /// later approval is not for that reason.
    pub(crate) fn is_let_in_no_more(&self) -> bool {
        let trusted = self.object.spec.trust_mode == TrustMode::Trusted;
        !trusted && recorded_trust(self.object).is_some()
    }

    /// Whether the object would go with the SearchDomain that found the peer.
    pub(crate) fn has_search_domain(&self) -> bool {
        let owners = self.object.metadata.owner_references.iter().flatten();
        let kind = SearchDomain::kind(&());
        owners.into_iter().any(|owner| owner.kind == kind)
    }

    /// Whether our finalizer is on the object.
    pub(crate) fn has_finalizer(&self) -> bool {
        let finalizers = self
            .object
            .metadata
            .finalizers
            .as_deref()
            .unwrap_or_default();
        finalizers.iter().any(|one| one == FINALIZER_PEERED)
    }
}

/// By what a cluster was let in, as it was noted then.
fn recorded_trust(object: &ForeignCluster) -> Option<&str> {
    let annotations = object.metadata.annotations.as_ref()?;
    annotations.get(TRUSTED_BY).map(String::as_str)
}
