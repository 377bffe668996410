//! What stands in the cluster of a peer is taken back there, or remembered.

use super::{model::Model, *};

fn deleted_while_the_peer_is_silent() -> Model {
    let mut model = Model::peered();
    model.peer.answers = false;
    model.apply(&Step::Disconnect);
    model.delete();
    model
}

#[test]
fn a_deletion_waits_for_the_peer_until_its_deadline() {
    let mut model = deleted_while_the_peer_is_silent();
    run(&mut model);
    assert!(!model.gone, "the peer may still answer");
    model.now += WITHDRAWAL_DEADLINE;
    let taken = run(&mut model);
    assert!(model.gone && model.facts.tombstone, "{taken:?}");
}

#[test]
fn a_deletion_that_is_first_seen_after_its_deadline_tries_the_peer_once() {
    for (connected, answers) in [(false, true), (false, false), (true, false)] {
        let mut model = Model::peered();
        model.peer.answers = answers;
        if !connected {
            model.apply(&Step::Disconnect);
        }
        model.delete();
        model.now += WITHDRAWAL_DEADLINE;
        let taken = run(&mut model);
        assert!(model.gone, "{taken:?}");
        assert_eq!(model.facts.link.withdrawn, answers, "{taken:?}");
        assert_eq!(model.facts.tombstone, !answers, "{taken:?}");
    }
}

#[test]
fn what_is_owed_stays_remembered_while_the_object_outlives_its_end() {
    let mut model = deleted_while_the_peer_is_silent();
    model.now += WITHDRAWAL_DEADLINE;
    run(&mut model);
    // Somebody else holds on to it.
    model.gone = false;
    model.now += RESYNC;
    run(&mut model);
    assert!(model.facts.tombstone);
    model.peer.answers = true;
    model.now += RESYNC;
    let taken = run(&mut model);
    assert!(taken.contains(&"CloseSession".to_owned()), "{taken:?}");
    assert!(!model.facts.tombstone, "{taken:?}");
}

#[test]
fn an_owed_withdrawal_is_made_when_the_peer_is_back() {
    let mut model = Model::found();
    model.facts.tombstone = true;
    model.object.spec.join = false;
    let taken = run(&mut model);
    assert!(taken.contains(&"CloseSession".to_owned()), "{taken:?}");
    assert!(!model.facts.tombstone);
}

#[test]
fn what_was_asked_for_and_not_answered_is_taken_back() {
    let mut model = Model::found();
    model.peer.knows_secret = true;
    let opens = |step: &Step| matches!(step, Step::OpenSession(_));
    for _ in 0..12 {
        let plan = model.plan();
        model.object.status = Some(plan.status);
        model.recorded();
        let opening = plan.steps.iter().position(opens);
        for step in &plan.steps[..opening.unwrap_or(plan.steps.len())] {
            model.apply(step);
        }
        if opening.is_some() {
            break;
        }
    }
    model.apply(&Step::Disconnect);
    model.object.spec.join = false;
    let taken = run(&mut model);
    assert!(taken.contains(&"CloseSession".to_owned()), "{taken:?}");
}
