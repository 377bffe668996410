//! Peerings in which one side makes no tunnels, and where tunnels lead.

use super::{model::Model, *};

#[test]
fn a_tunnel_is_removed_once_and_as_long_as_only_we_hold_it() {
    let steps = |makes_tunnels: bool, is_deleted: bool, holder: &str| {
        let mut model = Model::peered();
        if makes_tunnels {
            // A tunnel to our own key is none.
            let own = model.facts.own.tunnel.as_mut();
            own.expect("it has a tunnel").public_key = "theirs".to_owned();
        } else {
            model.facts.own.tunnel = None;
        }
        let tunnel = model.facts.tunnel.as_mut().expect("it is peered");
        tunnel.metadata.finalizers = Some(vec![holder.to_owned()]);
        tunnel.metadata.deletion_timestamp = is_deleted.then_some(Time(model.now));
        let planned = model.plan().steps;
        planned.contains(&Step::RemoveTunnel)
    };
    let others = "example.com/hold";
    for (makes_tunnels, is_deleted, holder, expected) in [
        (true, false, labels::FINALIZER_TUNNEL, true),
        (true, true, labels::FINALIZER_TUNNEL, false),
        (false, false, labels::FINALIZER_TUNNEL, true),
        (false, true, labels::FINALIZER_TUNNEL, true),
        (false, true, others, false),
    ] {
        let removes = steps(makes_tunnels, is_deleted, holder);
        assert_eq!(removes, expected, "{makes_tunnels} {is_deleted} {holder}");
    }
}

#[test]
fn a_link_local_endpoint_keeps_its_interface() {
    let mut model = Model::peered();
    let connected = model.facts.link.connected.as_mut();
    connected.expect("it is peered").address = Some("[fe80::5%3]:5870".parse().unwrap());
    let steps = model.plan().steps;
    let endpoints = steps.iter().find_map(|step| {
        let Step::WriteTunnel(wish) = step else {
            return None;
        };
        wish.spec.backend_config.get("endpoints")
    });
    assert_eq!(endpoints.map(String::as_str), Some("[fe80::5%3]:5871"));
}

#[test]
fn a_range_that_is_needed_here_is_given_up_while_its_peer_is_away() {
    let mut model = Model::peered();
    model.facts.link = Link::default();
    model.facts.request = None;
    assert!(!model.plan().steps.contains(&Step::RemoveTunnel));
    let remote = model.facts.remote_network.as_ref();
    let status = remote
        .and_then(|it| it.status.as_ref())
        .expect("it is peered");
    let seen: Ipv4Net = status.pod_cidr_nat.as_ref().unwrap().parse().unwrap();
    model.facts.ground.networks.insert(seen);
    assert!(model.plan().steps.contains(&Step::RemoveTunnel));
}

#[test]
fn what_a_peer_says_of_its_network_steers_no_terminal() {
    let mut model = Model::peered();
    let session = model.facts.link.session.as_mut();
    let status = session.and_then(|it| it.request.status.as_mut());
    let said = status.and_then(|it| it.session.as_mut());
    let network = said.and_then(|it| it.network.as_mut());
    let network = network.expect("it is told");
    network.public_key = "\u{1b}[2Jkey\u{202e}".to_owned();
    network.external_cidr = "\u{7}10.2.0.0/24\u{200b}".to_owned();
    run(&mut model);
    let spec = model.facts.remote_network.expect("it is written").spec;
    assert_eq!(spec.external_cidr, "10.2.0.0/24");
    assert_eq!(spec.backend_config["publicKey"], "[2Jkey");
    let tunnel = model.facts.tunnel.expect("it is written").spec;
    assert_eq!(tunnel.backend_config["publicKey"], "[2Jkey");
}

#[test]
fn a_peer_that_claims_another_range_is_asked_anew_whether_it_is_free() {
    let mut model = Model::peered();
    let claim = |model: &mut Model, range: &str| {
        claims(model, range);
        let remote = model.facts.remote_network.as_ref();
        let status = remote.and_then(|it| it.status.clone());
        status.and_then(|it| it.pod_cidr_nat).expect("it is seen")
    };
    let name_server = "10.5.0.53/32".parse().unwrap();
    model.facts.ground.avoided.insert(name_server);
    assert_eq!(claim(&mut model, "10.99.0.0/16"), "None");
    assert_ne!(claim(&mut model, "10.5.0.0/16"), "None");
}

#[test]
fn what_was_agreed_on_is_taken_back_when_no_range_can_be_given_any_more() {
    let seen = |model: &Model| {
        let session = model.facts.link.session.as_ref();
        let said = session.and_then(|it| it.request.spec.session.as_ref());
        let network = said.and_then(|it| it.network.as_ref());
        network.expect("it is told").pod_cidr_nat.clone()
    };
    let mut model = Model::peered();
    assert!(seen(&model).is_some());
    claims(&mut model, "25.0.0.0/16");
    assert_eq!(seen(&model), None);
    assert!(model.facts.tunnel.is_none() && model.facts.remote_network.is_none());
    claims(&mut model, "10.99.0.0/16");
    assert!(model.facts.tunnel.is_some() && seen(&model).is_some());
}

/// The peer says that this is the range of its pods.
fn claims(model: &mut Model, range: &str) {
    let session = model.facts.link.session.as_mut();
    let status = session.and_then(|it| it.request.status.as_mut());
    let said = status.and_then(|it| it.session.as_mut());
    let network = said.and_then(|it| it.network.as_mut());
    network.expect("it is told").pod_cidr = range.to_owned();
    run(model);
}

#[test]
fn a_peer_that_comes_to_us_is_not_inside_of_its_own_range() {
    let mut model = Model::peered();
    model.object.spec.join = false;
    run(&mut model);
    let request = model.facts.request.as_mut();
    let session = request.and_then(|it| it.spec.session.as_mut());
    let network = session.and_then(|it| it.network.as_mut());
    let network = network.expect("it has asked");
    "10.50.0.0/16".clone_into(&mut network.pod_cidr);
    let claim = network.clone();
    let seen = |model: &mut Model, endpoint: &str| {
        let request = model.facts.request.as_mut();
        let session = request.and_then(|it| it.spec.session.as_mut());
        let endpoints = vec![endpoint.to_owned()];
        session.expect("it has asked").network = Some(SessionNetwork {
            endpoints,
            ..claim.clone()
        });
        run(model);
        let remote = model.facts.remote_network.as_ref();
        let status = remote.and_then(|it| it.status.clone());
        status.and_then(|it| it.pod_cidr_nat).expect("it is seen")
    };
    assert_eq!(seen(&mut model, "192.168.1.12:5871"), "None");
    let moved = seen(&mut model, "10.50.1.2:5871");
    assert_ne!(moved, "None");
    assert_eq!(seen(&mut model, "192.168.1.12:5871"), moved, "it stays");
}

#[test]
fn a_node_that_its_cluster_knows_nothing_of_is_not_written_again() {
    let mut model = Model::peered();
    model.peer.answers = false;
    model.facts.link = Link::default();
    model.now += SignedDuration::from_mins(1);
    run(&mut model);
    let ready = |model: &mut Model, value: &str| {
        let status = model.facts.node.as_mut().and_then(|it| it.status.as_mut());
        let conditions = status.and_then(|it| it.conditions.as_mut());
        let ready = conditions.and_then(|it| it.iter_mut().find(|one| one.type_ == "Ready"));
        value.clone_into(&mut ready.expect("it has a node").status);
        let steps = model.plan().steps;
        steps.iter().any(|step| matches!(step, Step::WriteNode(_)))
    };
    assert!(!ready(&mut model, "False"));
    assert!(!ready(&mut model, "Unknown"));
    assert!(ready(&mut model, "True"));
}
