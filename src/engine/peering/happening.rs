//! What people are told has happened: the difference between two statuses, in events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        ForeignClusterStatus,
        foreign_cluster::Phase,
        labels::{condition, event, reason},
    },
    engine::peering::status::STAGE_JOIN_REQUESTED,
};

/// Something that happened to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// The reason of the event, a constant of [`event`].
    pub reason: &'static str,
    /// Whether a person should look.
    pub warning: bool,
    /// The text of the event.
    pub note: String,
}

/// Lists what happened between two statuses, `before` being absent for a new object.
pub fn happenings(
    before: Option<&ForeignClusterStatus>,
    after: &ForeignClusterStatus,
) -> Vec<Happening> {
    let mut list = Vec::new();
    let mut tell = |reason, warning, note: &str| {
        list.push(Happening {
            reason,
            warning,
            note: note.to_owned(),
        });
    };
    for kind in condition::ALL
        .into_iter()
        .chain([condition::IDENTITY_MISMATCH])
    {
        let old = before.and_then(|before| present(before, kind));
        let Some(new) = present(after, kind) else {
            continue;
        };
        let same = old.is_some_and(|old| old.status == new.status && old.reason == new.reason);
        if same {
            continue;
        }
        let held = old.is_some_and(|old| old.status == "True");
        if let Some((reason, warning)) = event_of(kind, held, new) {
            tell(reason, warning, &new.message);
        }
    }
    let asked = |status: &ForeignClusterStatus| status.timeline.contains_key(STAGE_JOIN_REQUESTED);
    if asked(after) && !before.is_some_and(asked) {
        tell(event::JOIN_REQUESTED, false, "spec.join is true");
    }
    if needs_approval(before, after) {
        tell(event::APPROVAL_NEEDED, true, &approval_note(after));
    }
    list
}

fn present<'a>(status: &'a ForeignClusterStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|one| one.type_ == kind)
}

/// Whether a person has something new to decide: by a code that was not there before, or without one.
fn needs_approval(before: Option<&ForeignClusterStatus>, after: &ForeignClusterStatus) -> bool {
    let code = |status: &ForeignClusterStatus| status.approval_code.clone();
    let waits = |status: &ForeignClusterStatus| status.phase == Some(Phase::Waiting);
    match code(after) {
        Some(code_now) => before.and_then(code) != Some(code_now),
        None => waits(after) && !before.is_some_and(waits),
    }
}

/// What a person has to do: here, or else at the peer.
fn approval_note(status: &ForeignClusterStatus) -> String {
    let told = |kind, why| present(status, kind).filter(|one| one.reason == why);
    told(condition::TRUSTED, reason::APPROVAL_NEEDED)
        .or_else(|| told(condition::OUTGOING_PEERED, reason::WAITING_FOR_PEER))
        .or_else(|| present(status, condition::READY))
        .map(|one| one.message.clone())
        .unwrap_or_default()
}

/// The event that a changed condition makes, and whether it is a warning.
fn event_of(kind: &str, held: bool, new: &Condition) -> Option<(&'static str, bool)> {
    let holds = new.status == "True";
    match (kind, holds, new.reason.as_str()) {
        (condition::DISCOVERED, true, _) if !held => Some((event::PEER_DISCOVERED, false)),
        (condition::DISCOVERED, false, _) => Some((event::PEER_LOST, false)),
        (condition::IDENTITY_VERIFIED, false, reason::IDENTITY_MISMATCH) => {
            Some((event::IDENTITY_MISMATCH, true))
        }
        (condition::IDENTITY_MISMATCH, true, _) => Some((event::IDENTITY_MISMATCH, true)),
        (condition::OUTGOING_PEERED, true, reason::PEERED) if !held => {
            Some((event::OFFER_ACCEPTED, false))
        }
        (condition::OUTGOING_PEERED, false, reason::OFFER_REFUSED) => {
            Some((event::OFFER_REFUSED, true))
        }
        (condition::OUTGOING_PEERED, false, reason::REFUSED_BY_PEER) => {
            Some((event::JOIN_REFUSED, true))
        }
        (condition::OUTGOING_PEERED, false, reason::NOT_JOINED | reason::LEAVING) if held => {
            Some((event::PEER_LEFT, false))
        }
        (condition::NETWORK_READY, true, _) => Some((event::TUNNEL_UP, false)),
        (condition::NETWORK_READY, false, reason::CIDR_CONFLICT) => {
            Some((event::CIDR_CONFLICT, true))
        }
        (condition::NETWORK_READY, false, reason::TUNNEL_NOT_NEEDED) if held => {
            Some((event::TUNNEL_DOWN, false))
        }
        (condition::NETWORK_READY, false, _) if held => Some((event::TUNNEL_DOWN, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn status(conditions: &[(&str, &str, &str)]) -> ForeignClusterStatus {
        let conditions = conditions.iter().map(|(kind, value, reason)| Condition {
            type_: (*kind).to_owned(),
            status: (*value).to_owned(),
            reason: (*reason).to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        });
        ForeignClusterStatus {
            conditions: conditions.collect(),
            ..ForeignClusterStatus::default()
        }
    }

    #[test]
    fn each_change_that_people_care_about_is_told_once() {
        use condition::{DISCOVERED, NETWORK_READY, OUTGOING_PEERED};
        let found = status(&[
            (DISCOVERED, "True", "LAN"),
            (NETWORK_READY, "False", "TunnelNotNeeded"),
        ]);
        let peered = status(&[
            (DISCOVERED, "True", "LAN"),
            (OUTGOING_PEERED, "True", "Peered"),
            (NETWORK_READY, "True", "TunnelUp"),
        ]);
        let down = status(&[
            (DISCOVERED, "False", "Expired"),
            (OUTGOING_PEERED, "True", "PeerSilent"),
            (NETWORK_READY, "False", "TunnelDown"),
        ]);
        let left = status(&[(OUTGOING_PEERED, "False", "NotJoined")]);
        let reasons = |before, after| -> Vec<&str> {
            happenings(before, after)
                .iter()
                .map(|one| one.reason)
                .collect()
        };
        assert_eq!(reasons(None, &found), ["PeerDiscovered"]);
        assert_eq!(
            reasons(Some(&found), &peered),
            ["OfferAccepted", "TunnelUp"]
        );
        assert_eq!(reasons(Some(&peered), &peered), [""; 0]);
        assert_eq!(reasons(Some(&peered), &down), ["PeerLost", "TunnelDown"]);
        assert_eq!(reasons(Some(&peered), &left), ["PeerLeft"]);
    }

    #[test]
    fn the_digits_are_told_when_they_are_there_and_when_they_change() {
        let coded = |phase, (kind, reason), code: Option<&str>| {
            let mut status = status(&[(kind, "False", reason)]);
            status.conditions[0].message = format!("compare {}", code.unwrap_or("nothing"));
            status.phase = Some(phase);
            status.approval_code = code.map(str::to_owned);
            status
        };
        let notes = |before, after| -> Vec<String> {
            happenings(before, after)
                .into_iter()
                .inspect(|one| assert_eq!(one.reason, event::APPROVAL_NEEDED))
                .map(|one| one.note)
                .collect()
        };
        let needed = (condition::TRUSTED, reason::APPROVAL_NEEDED);
        // A visitor that nobody here wants anything of is only Discovered.
        let visitor = coded(Phase::Discovered, needed, Some("111111"));
        assert_eq!(notes(None, &visitor), ["compare 111111"]);
        let wanted = coded(Phase::Waiting, needed, Some("111111"));
        assert_eq!(notes(Some(&visitor), &wanted), [""; 0]);
        let again = coded(Phase::Waiting, needed, Some("222222"));
        assert_eq!(notes(Some(&wanted), &again), ["compare 222222"]);
        let without = coded(Phase::Waiting, needed, None);
        assert_eq!(notes(Some(&again), &without), [""; 0]);
        assert_eq!(notes(None, &without), ["compare nothing"]);
        let there = (condition::OUTGOING_PEERED, reason::WAITING_FOR_PEER);
        let there = coded(Phase::Waiting, there, Some("333333"));
        assert_eq!(notes(None, &there), ["compare 333333"]);
    }
}
