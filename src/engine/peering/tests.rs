//! What is planned in which situation, and that every plan comes to rest.

mod chance;
mod codes;
mod model;
mod places;
mod tunnels;
mod withdrawals;

use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{OwnerReference, Time},
};

use super::*;
use crate::{
    api::{
        ClusterName,
        cluster_config::AcceptPolicy,
        foreign_cluster::{AuthStatus, IncomingPeering, Phase},
        labels::{self, condition, reason},
        wire::Decision,
    },
    engine::domain,
};
use model::Model;

/// The name of a step.
fn name(step: &Step) -> String {
    let text = format!("{step:?}");
    let end = text.find(['(', ' ', '{']).unwrap_or(text.len());
    text[..end].to_owned()
}

/// Carries plans out until there is nothing to do, and returns the names of the steps taken.
fn run(model: &mut Model) -> Vec<String> {
    let mut taken = Vec::new();
    let mut before: Vec<Step> = Vec::new();
    for _ in 0..12 {
        let plan = model.plan();
        assert!(plan.check_again > model.now, "the next look is in the past");
        model.object.status = Some(plan.status.clone());
        model.recorded();
        if plan.steps.is_empty() {
            rests(model);
            return taken;
        }
        for step in &plan.steps {
            assert!(!before.contains(step), "planned again: {step:?}");
            taken.push(name(step));
            model.apply(step);
            if model.gone {
                return taken;
            }
        }
        before = plan.steps;
    }
    panic!("no rest after {taken:?}");
}

/// Once nothing is planned, nothing is planned the next time, and nothing new is said.
fn rests(model: &Model) {
    let plan = model.plan();
    assert_eq!(
        plan.steps,
        [],
        "a plan without steps is followed by one with steps"
    );
    assert_eq!(
        Some(plan.status),
        model.object.status,
        "the status does not settle"
    );
}

#[test]
fn a_member_of_the_fleet_is_peered_step_by_step() {
    let mut model = Model::found();
    model.peer.knows_secret = true;
    let expected = [
        "AddFinalizer",
        "Connect",
        "Identify",
        "SetTrust",
        "OpenSession",
        "WriteAdvertisement",
        "WriteLocalNetwork",
        "WriteRemoteNetwork",
        "WriteTunnel",
        "Tell",
        "WriteNode",
        "RenewLease",
    ];
    let taken = run(&mut model);
    let mut order: Vec<&str> = taken.iter().map(String::as_str).collect();
    order.dedup();
    for step in expected {
        assert!(order.contains(&step), "{step} is missing in {taken:?}");
    }
    assert_eq!(order[..4], expected[..4]);
}

#[test]
fn a_stranger_is_asked_and_nothing_else() {
    let mut model = Model::found();
    model.peer.decision = Decision::Waiting;
    assert_eq!(run(&mut model), ["AddFinalizer", "Connect", "Identify"]);
    assert!(model.facts.advertisement.is_none() && model.facts.tunnel.is_none());
}

/// Something that is done to a peering, with its name.
type Way = (&'static str, fn(&mut Model));

#[test]
fn what_ends_a_peering_takes_everything_away() {
    let ways: [Way; 4] = [
        ("leave", |model| model.object.spec.join = false),
        ("block", |model| {
            model.object.spec.incoming_peering_enabled = IncomingPeering::No;
        }),
        ("delete", Model::delete),
        ("distrust", |model| {
            model.object.spec.trust_mode = TrustMode::Untrusted;
            model.peer.knows_secret = false;
            model.facts.link.answer = None;
            model.peer.decision = Decision::Waiting;
        }),
    ];
    for (way, end) in ways {
        let mut model = Model::peered();
        end(&mut model);
        let taken = run(&mut model);
        assert!(
            taken.iter().any(|step| step == "CloseSession"),
            "{way}: {taken:?}"
        );
        assert!(model.is_empty(), "{way}: {taken:?}");
        assert!(
            !taken.iter().any(|step| step == "Entomb"),
            "{way}: {taken:?}"
        );
    }
}

#[test]
fn a_new_name_is_introduced_and_told_once() {
    let mut model = Model::peered();
    model.facts.own.cluster_name = ClusterName::neutralise("roma");
    assert_eq!(run(&mut model), ["Identify", "Tell"]);
    assert_eq!(run(&mut model), Vec::<String>::new());
}

#[test]
fn a_refusal_takes_away_what_the_peer_gave() {
    let mut model = Model::peered();
    model.peer.decision = Decision::Refused;
    model.apply(&Step::Disconnect);
    run(&mut model);
    assert!(model.is_empty());
    assert!(model.object.spec.join, "intent stays");
}

#[test]
fn a_refusal_is_told_before_what_a_person_here_could_do() {
    for (decision, status) in [
        (Decision::Refused, AuthStatus::Refused),
        (Decision::EmptyRefused, AuthStatus::EmptyRefused),
    ] {
        let mut model = Model::found();
        model.peer.decision = decision;
        run(&mut model);
        let said = model.object.status.as_ref().expect("a plan says something");
        assert_eq!(
            (said.auth_status, said.phase),
            (status, Some(Phase::Refused))
        );
    }
}

#[test]
fn why_a_wish_is_not_followed_is_told() {
    let ways: [Way; 4] = [
        (reason::NOT_JOINED, |model| model.object.spec.join = false),
        (reason::BLOCKED, |model| {
            model.object.spec.incoming_peering_enabled = IncomingPeering::No;
        }),
        (reason::OWN_IDENTITY, |model| {
            model.facts.own.cluster_id = "foreign".parse().unwrap();
        }),
        (reason::LEAVING, Model::delete),
    ];
    for (expected, change) in ways {
        let mut model = Model::found();
        change(&mut model);
        let said = model.plan().status.conditions;
        let outgoing = said
            .iter()
            .find(|one| one.type_ == condition::OUTGOING_PEERED);
        assert_eq!(outgoing.expect("it is always said").reason, expected);
    }
}

#[test]
fn what_let_a_peer_in_stands_in_condition_trusted() {
    type Setting = fn(&mut Model);
    let ways: [(&str, Setting); 8] = [
        (reason::PINNED, |model| {
            model.object.spec.trust_mode = TrustMode::Trusted;
        }),
        (reason::FLEET_SECRET, |model| {
            trusted_by(model, reason::FLEET_SECRET);
        }),
        (reason::TOKEN, |model| {
            trusted_by(model, reason::TOKEN);
        }),
        (reason::TLSA, |model| {
            trusted_by(model, reason::TLSA);
        }),
        (reason::WEB_PKI, |model| {
            trusted_by(model, reason::WEB_PKI);
        }),
        (reason::EMPTY_TOKEN_ALLOWED, |model| {
            model.facts.config.auth_config.allow_empty_token = true;
        }),
        (reason::APPROVAL_NEEDED, |_| {}),
        (reason::BLOCKED, |model| {
            trusted_by(model, reason::TOKEN);
            model.object.spec.incoming_peering_enabled = IncomingPeering::No;
        }),
    ];
    for (expected, set) in ways {
        let mut model = Model::found();
        set(&mut model);
        let status = model.plan().status;
        let mut conditions = status.conditions.iter();
        let trusted = conditions.find(|one| one.type_ == condition::TRUSTED);
        let trusted = trusted.expect("it is always said");
        let holds = !matches!(expected, reason::APPROVAL_NEEDED | reason::BLOCKED);
        assert_eq!(trusted.reason, expected);
        assert_eq!(
            trusted.status,
            if holds { "True" } else { "False" },
            "{expected}"
        );
        assert!(!trusted.message.is_empty());
    }
}

fn trusted_by(model: &mut Model, why: &str) {
    model.object.spec.trust_mode = TrustMode::Trusted;
    note(model, labels::TRUSTED_BY, why);
}

fn note(model: &mut Model, key: &str, value: &str) {
    let annotations = model.object.metadata.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), value.to_owned());
}

#[test]
fn a_peer_that_takes_its_consent_back_leaves_nothing_here() {
    let mut model = Model::peered();
    model.peer.decision = Decision::Waiting;
    model.facts.request = None;
    model.facts.link.session = None;
    model.facts.link.answer = None;
    let taken = run(&mut model);
    assert!(model.is_empty(), "{taken:?}");
    let said = model.object.status.as_ref();
    assert_eq!(said.and_then(|it| it.phase), Some(Phase::Waiting));
}

#[test]
fn a_node_is_ready_while_its_peer_is_heard_on_the_session() {
    let mut model = Model::peered();
    model.now += LEASE_RENEWAL;
    model.facts.link.session = None;
    let plan = model.plan();
    let is_unready = |step: &Step| matches!(step, Step::WriteNode(wish) if !wish.ready);
    assert!(plan.steps.iter().any(is_unready), "{:?}", plan.steps);
    assert!(!plan.steps.contains(&Step::RenewLease));
}

#[test]
fn of_two_objects_of_one_cluster_one_does_nothing_and_says_so() {
    for begin in [Model::found as fn() -> Model, Model::peered] {
        let mut model = begin();
        model.facts = Facts {
            rival: Some("milan-1".to_owned()),
            link: model.facts.link,
            ..Model::found().facts
        };
        let taken = run(&mut model);
        assert!(taken.is_empty() || taken == ["Disconnect"], "{taken:?}");
        let said = model.object.status.as_ref().expect("it is always said");
        assert_eq!(said.phase, Some(Phase::Waiting));
        let mut conditions = said.conditions.iter();
        let ready = conditions.find(|one| one.type_ == condition::READY);
        assert_eq!(ready.expect("it is always said").reason, reason::DUPLICATE);
        model.delete();
        run(&mut model);
        assert!(model.gone);
    }
}

#[test]
fn silence_takes_nothing_away() {
    let mut model = Model::peered();
    model.now += SILENCE;
    model.peer.answers = false;
    let taken = run(&mut model);
    assert_eq!(taken, ["Disconnect", "WriteNode", "Connect"]);
    assert!(model.facts.tunnel.is_some() && model.facts.advertisement.is_some());
}

#[test]
fn silence_of_a_peer_that_is_not_announced_any_more_is_believed_sooner() {
    let mut model = Model::peered();
    model.object.spec.discovery_type = DiscoveryType::Lan;
    model.facts.neighbour = Some(Neighbour {
        expired: Some(model.now),
        ..Neighbour::default()
    });
    model.now += SILENCE_OF_THE_LOST;
    model.peer.answers = false;
    let taken = run(&mut model);
    assert_eq!(taken.first().map(String::as_str), Some("Disconnect"));
}

#[test]
fn only_what_discovery_made_and_nothing_holds_is_forgotten() {
    let mut model = Model::found();
    model.peer.answers = false;
    model.lose();
    run(&mut model);
    assert!(!model.gone, "it has its time");
    model.now += GRACE;
    assert_eq!(run(&mut model).last().map(String::as_str), Some("Forget"));
    for hold in [
        (|model| model.object.spec.discovery_type = DiscoveryType::Manual) as fn(&mut Model),
        |model| model.object.spec.incoming_peering_enabled = IncomingPeering::No,
        |model| model.object.spec.incoming_peering_enabled = IncomingPeering::Yes,
        |model| model.object.spec.trust_mode = TrustMode::Trusted,
        |model| trusted_by(model, reason::TOKEN),
        |model| model.object.metadata.annotations = None,
        |model| {
            model.object.spec.discovery_type = DiscoveryType::Wan;
            model.object.metadata.annotations = None;
        },
        |model| {
            model.peer.answers = false;
            model.object.spec.join = false;
            run(model);
            model.object.spec.join = true;
        },
        |model| {
            model.object.status = Some(model.plan().status);
            model.object.spec.join = false;
        },
    ] {
        let mut model = Model::found();
        hold(&mut model);
        model.peer.answers = false;
        model.lose();
        model.now += GRACE;
        run(&mut model);
        assert!(!model.gone);
    }
    for evidence in [reason::FLEET_SECRET, reason::TLSA, reason::WEB_PKI] {
        let mut model = Model::found();
        trusted_by(&mut model, evidence);
        model.peer.answers = false;
        model.lose();
        model.now += GRACE;
        run(&mut model);
        assert!(model.gone, "it shows that again: {evidence}");
    }
    // A switch that is off now was not off when policy decided.
    let mut model = Model::found();
    model.facts.config.discovery_config.autojoin = false;
    model.peer.answers = false;
    model.lose();
    model.now += GRACE;
    run(&mut model);
    assert!(model.gone);
}

#[test]
fn what_was_found_before_our_start_is_missed_when_its_source_would_not_keep_it() {
    let hold = SignedDuration::try_from(domain::HOLD).unwrap();
    for (source, absence) in [
        (DiscoveryType::Lan, REAPPEARANCE),
        (DiscoveryType::Wan, hold),
    ] {
        let mut model = Model::found();
        model.object.spec.discovery_type = source;
        model.facts.neighbour = None;
        model.peer.answers = false;
        model.now += absence - SignedDuration::from_secs(1);
        run(&mut model);
        let next = model.plan().check_again;
        assert!(next <= model.facts.started + absence, "{source:?}");
        model.now += GRACE;
        run(&mut model);
        assert!(!model.gone, "{source:?}");
        model.now += SignedDuration::from_secs(1);
        run(&mut model);
        assert!(model.gone, "{source:?}");
    }
}

#[test]
fn an_approval_is_not_for_what_let_a_cluster_in_before_it_was_blocked() {
    let mut model = Model::found();
    trusted_by(&mut model, reason::FLEET_SECRET);
    model.object.spec.incoming_peering_enabled = IncomingPeering::No;
    model.object.spec.trust_mode = TrustMode::Untrusted;
    run(&mut model);
    model.object.spec.incoming_peering_enabled = IncomingPeering::Auto;
    model.object.spec.trust_mode = TrustMode::Trusted;
    let said = model.plan().status.conditions;
    let trusted = said.iter().find(|one| one.type_ == condition::TRUSTED);
    assert_eq!(trusted.expect("it is always said").reason, reason::PINNED);
}

#[test]
fn a_refusal_does_not_go_with_its_search_domain() {
    let mut model = Model::found();
    let owner = |kind: &str| OwnerReference {
        kind: kind.to_owned(),
        ..OwnerReference::default()
    };
    model.object.spec.discovery_type = DiscoveryType::Wan;
    model.object.metadata.owner_references = Some(vec![owner("SearchDomain")]);
    let before = run(&mut model);
    assert!(!before.contains(&"Disown".to_owned()), "{before:?}");
    model.object.spec.incoming_peering_enabled = IncomingPeering::No;
    assert!(run(&mut model).contains(&"Disown".to_owned()));
    model.object.metadata.owner_references = Some(vec![owner("Place")]);
    assert_eq!(run(&mut model), Vec::<String>::new());
}

#[test]
fn a_failure_of_then_is_not_told_when_nothing_is_wanted_any_more() {
    let mut model = Model::found();
    run(&mut model);
    let failure = Failure {
        reason: reason::PEER_SILENT.to_owned(),
        message: "no".to_owned(),
    };
    let url = model.object.spec.auth_url.clone();
    model.object.metadata.finalizers = None;
    model.facts.request = None;
    model.facts.link = Link::default();
    model.facts.link.failures.insert(url, failure);
    for (join, phase, reachable) in [
        (true, Phase::Unreachable, "False"),
        (false, Phase::Discovered, "Unknown"),
    ] {
        model.object.spec.join = join;
        let status = model.plan().status;
        assert_eq!(status.phase, Some(phase));
        let mut conditions = status.conditions.iter();
        let condition = conditions.find(|one| one.type_ == condition::ENDPOINT_REACHABLE);
        assert_eq!(condition.map(|one| one.status.as_str()), Some(reachable));
        model.object.status = Some(status);
    }
}

#[test]
fn a_cluster_that_nobody_wants_is_not_there_when_it_is_not_found_any_more() {
    let mut model = Model::found();
    run(&mut model);
    model.object.spec.join = false;
    model.object.metadata.finalizers = None;
    run(&mut model);
    for (lost, phase, reachable) in [
        (false, Phase::Discovered, "True"),
        (true, Phase::Unreachable, "Unknown"),
    ] {
        if lost {
            model.lose();
            run(&mut model);
        }
        let status = model.object.status.clone().expect("a plan says something");
        assert_eq!(status.phase, Some(phase));
        let mut conditions = status.conditions.iter();
        let condition = conditions.find(|one| one.type_ == condition::ENDPOINT_REACHABLE);
        assert_eq!(condition.map(|one| one.status.as_str()), Some(reachable));
    }
}

#[test]
fn a_cluster_that_is_nowhere_is_told() {
    let mut model = Model::found();
    model.object.spec.discovery_type = DiscoveryType::Manual;
    model.object.spec.auth_url = String::new();
    model.facts.neighbour = None;
    let status = model.plan().status;
    assert_eq!(status.phase, Some(Phase::Unreachable));
    let mut conditions = status.conditions.iter();
    let condition = conditions.find(|one| one.type_ == condition::ENDPOINT_REACHABLE);
    assert_eq!(
        condition.map(|one| one.reason.as_str()),
        Some(reason::NO_ENDPOINT)
    );
}

#[test]
fn a_visit_that_nothing_followed_from_is_forgotten_when_it_is_idle() {
    let visited = || {
        let mut model = Model::found();
        model.object.spec.discovery_type = DiscoveryType::IncomingPeering;
        model.object.spec.join = false;
        model.object.spec.trust_mode = TrustMode::Untrusted;
        model.object.metadata.finalizers = None;
        model.object.metadata.creation_timestamp = Some(Time(model.now));
        model.facts.started = model.now;
        model.facts.neighbour = None;
        model.facts.link = Link::default();
        model.peer.answers = false;
        model
    };
    let mut model = visited();
    model.apply(&Step::AddFinalizer);
    model.now += IDLE_VISIT;
    run(&mut model);
    assert!(model.gone, "it was let in, and has left");
    let mut model = visited();
    run(&mut model);
    assert!(!model.gone, "it has its time");
    model.now += IDLE_VISIT;
    model.facts.visited = Some(model.now);
    run(&mut model);
    assert!(!model.gone, "it came again");
    model.now += IDLE_VISIT;
    assert_eq!(run(&mut model).last().map(String::as_str), Some("Forget"));
    for hold in [
        (|model| model.object.spec.join = true) as fn(&mut Model),
        |model| model.object.spec.trust_mode = TrustMode::Trusted,
        |model| model.object.spec.incoming_peering_enabled = IncomingPeering::Yes,
        |model| model.object.spec.incoming_peering_enabled = IncomingPeering::No,
    ] {
        let mut model = visited();
        hold(&mut model);
        model.now += IDLE_VISIT;
        run(&mut model);
        assert!(!model.gone);
    }
}

#[test]
fn a_peer_that_only_its_watch_tells_of_is_degraded_when_that_is_gone() {
    let mut model = Model::peered();
    model.facts.own.tunnel = None;
    model.object.spec.join = false;
    run(&mut model);
    let told = |model: &Model| {
        let plan = model.plan();
        let mut all = plan.status.conditions.into_iter();
        let ready = all.find(|one| one.type_ == condition::READY);
        let reason = ready.map(|one| one.reason).unwrap_or_default();
        (plan.status.phase, reason, plan.check_again)
    };
    model.facts.present = Some(model.now);
    let silent = model.now + SILENCE;
    let (phase, _, check_again) = told(&model);
    assert_eq!(phase, Some(Phase::Peered));
    assert!(check_again <= silent);
    model.now = silent;
    let (phase, why, _) = told(&model);
    assert_eq!((phase, &*why), (Some(Phase::Degraded), reason::PEER_SILENT));
    // After our start it takes its time to come back.
    model.facts.present = None;
    model.facts.started = model.now;
    assert_eq!(told(&model).0, Some(Phase::Peered));
    model.now += LONGEST_RETRY + SILENCE;
    assert_eq!(told(&model).0, Some(Phase::Degraded));
}

#[test]
fn a_peer_that_has_no_outer_address_any_more_is_written_once() {
    let mut model = Model::peered();
    let connected = model.facts.link.connected.as_mut().expect("it answers");
    connected.address = Some("[::1]:5870".parse().unwrap());
    model.facts.remote_network = None;
    run(&mut model);
    let tunnel = model.facts.tunnel.expect("it stands");
    let status = tunnel.status.expect("it is told");
    assert_eq!(status.remote_tunnel_public_ip.as_deref(), Some(""));
}

#[test]
fn an_id_that_is_none_is_never_dialled_and_said_so() {
    let identity = |model: &mut Model, id: &str| {
        model.object.spec.discovery_type = DiscoveryType::Manual;
        model.object.spec.trust_mode = TrustMode::Trusted;
        let identity = model.object.spec.cluster_identity.as_mut();
        id.clone_into(&mut identity.expect("it was found").cluster_id);
    };
    for id in ["Foreign", "foreign ", "foreign/1"] {
        let mut model = Model::found();
        identity(&mut model, id);
        assert_eq!(run(&mut model), ["AddFinalizer"], "{id}");
        let conditions = model.object.status.as_ref().map(|said| &said.conditions);
        let verified = conditions
            .into_iter()
            .flatten()
            .find(|one| one.type_ == condition::IDENTITY_VERIFIED)
            .expect("it is always said");
        assert_eq!(verified.status, "False", "{id}");
        assert_eq!(verified.reason, reason::INVALID_ID, "{id}");
        assert!(verified.message.contains(id), "{}", verified.message);
        model.delete();
        run(&mut model);
        assert!(model.gone, "{id}");
    }
    let mut model = Model::found();
    identity(&mut model, "");
    let taken = run(&mut model);
    assert!(taken.contains(&"FillIdentity".to_owned()), "{taken:?}");
}

#[test]
fn only_a_person_keeps_a_good_offer_refused() {
    let mut model = Model::peered();
    let config = &mut model.facts.config.advertisement_config.ingoing_config;
    config.accept_policy = AcceptPolicy::Manual;
    for (cpu, answer) in [("-1", Acceptance::Refused), ("1", Acceptance::Undecided)] {
        let session = model.facts.link.session.as_mut().expect("it stands");
        let said = session.request.status.as_mut();
        let said = said.and_then(|it| it.session.as_mut()?.offer.as_mut());
        let hard = BTreeMap::from([("cpu".to_owned(), Quantity(cpu.to_owned()))]);
        let quota = said.and_then(|it| it.resource_quota.as_mut());
        quota.expect("it is offered").hard = Some(hard);
        run(&mut model);
        let given = model.facts.advertisement.as_ref();
        let given = given.and_then(|it| it.status.as_ref());
        assert_eq!(
            given.map(|it| it.advertisement_status),
            Some(answer),
            "{cpu}"
        );
    }
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_off() {
    let set_back = |model: &mut Model| {
        model.now -= SignedDuration::from_hours(1);
        run(model)
    };
    let mut model = Model::found();
    model.peer.answers = false;
    run(&mut model);
    model.peer.answers = true;
    let taken = set_back(&mut model);
    assert!(taken.contains(&"Connect".to_owned()), "{taken:?}");
    for decision in [Decision::Waiting, Decision::Refused] {
        let mut model = Model::found();
        model.peer.decision = decision;
        run(&mut model);
        assert_eq!(set_back(&mut model), ["Identify"], "{decision:?}");
    }
    assert_eq!(set_back(&mut Model::peered()), ["RenewLease"]);
}

#[test]
fn a_node_whose_amounts_the_api_writes_in_another_way_rests() {
    for (written, steps) in [("2000m", vec![]), ("2001m", vec!["WriteNode"])] {
        let mut model = Model::peered();
        let status = model.facts.node.as_mut().and_then(|it| it.status.as_mut());
        let capacity = status.and_then(|it| it.capacity.as_mut());
        let cpu = ("cpu".to_owned(), Quantity(written.to_owned()));
        capacity.expect("it has a capacity").extend([cpu]);
        assert_eq!(run(&mut model), steps, "{written}");
    }
}

#[test]
fn a_moment_that_is_no_moment_any_more_is_survived() {
    let mut model = Model::peered();
    model.facts.lease_renewed = Some(Timestamp::MAX);
    assert_eq!(run(&mut model), ["RenewLease"]);
    let mut model = Model::peered();
    model.object.metadata.creation_timestamp = Some(Time(Timestamp::MAX));
    model.object.spec.discovery_type = DiscoveryType::IncomingPeering;
    model.object.spec.join = false;
    run(&mut model);
    model.object.metadata.deletion_timestamp = Some(Time(Timestamp::MAX));
    run(&mut model);
}
