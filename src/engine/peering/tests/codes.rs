//! What a person is told of the approval code.

use super::{model::Model, *};

#[test]
fn a_person_is_told_when_codes_were_exchanged_too_often() {
    let mut model = Model::found();
    model.facts.visitor_code = Some("123456".to_owned());
    let calm = message(&model, condition::TRUSTED);
    assert!(calm.contains("show the code 123456"), "{calm}");
    assert!(!calm.contains("in between"), "{calm}");
    model.facts.codes_withheld = true;
    let alarmed = message(&model, condition::TRUSTED);
    assert!(alarmed.contains("show the code 123456"), "{alarmed}");
    assert!(
        alarmed.contains("compare the whole cluster ids"),
        "{alarmed}"
    );
}

#[test]
fn who_has_approved_and_waits_for_the_other_side_is_told_the_code_too() {
    let mut model = Model::found();
    model.object.spec.trust_mode = TrustMode::Trusted;
    model.peer.decision = Decision::Waiting;
    run(&mut model);
    let answer = model.facts.link.answer.as_mut().expect("it was asked");
    answer.code = Some("123456".to_owned());
    answer.message = "a person has to approve it here".to_owned();
    for kind in [condition::OUTGOING_PEERED, condition::READY] {
        let told = message(&model, kind);
        assert_eq!(
            told,
            "both sides show the code 123456: a person has to approve it here"
        );
    }
}

fn message(model: &Model, kind: &str) -> String {
    let mut conditions = model.plan().status.conditions.into_iter();
    let found = conditions.find(|one| one.type_ == kind);
    found.expect("it is always said").message
}
