//! Every plan comes to rest, also in situations that no history leads to.

use proptest::prelude::*;

use super::{model::Peer, *};
use crate::api::ForeignClusterSpec;

/// What people want, in any combination.
fn any_spec() -> impl Strategy<Value = ForeignClusterSpec> {
    let trust = prop_oneof![
        Just(TrustMode::Unknown),
        Just(TrustMode::Trusted),
        Just(TrustMode::Untrusted)
    ];
    let incoming = prop_oneof![
        3 => Just(IncomingPeering::Auto),
        1 => Just(IncomingPeering::Yes),
        1 => Just(IncomingPeering::No),
    ];
    let source = prop_oneof![
        Just(DiscoveryType::Lan),
        Just(DiscoveryType::Wan),
        Just(DiscoveryType::Manual),
        Just(DiscoveryType::IncomingPeering),
    ];
    let fields = (any::<bool>(), trust, incoming, source);
    fields.prop_map(
        |(join, trust_mode, incoming_peering_enabled, discovery_type)| ForeignClusterSpec {
            join,
            discovery_type,
            trust_mode,
            incoming_peering_enabled,
            ..Model::found().object.spec
        },
    )
}

/// Any peer.
fn any_peer() -> impl Strategy<Value = Peer> {
    let decision = prop_oneof![
        4 => Just(Decision::Accepted),
        1 => Just(Decision::Waiting),
        1 => Just(Decision::Refused),
        1 => Just(Decision::EmptyRefused),
    ];
    let fields = (any::<bool>(), any::<bool>(), any::<bool>(), decision);
    fields.prop_map(|(answers, knows_secret, offers, decision)| Peer {
        answers,
        knows_secret,
        offers,
        decision,
    })
}

/// Any situation, also such as no history leads to.
fn any_model() -> impl Strategy<Value = Model> {
    let flags = any::<[bool; 5]>();
    let times = (proptest::option::of(0_i64..100), 0_i64..200);
    let fields = (any_spec(), any_peer(), flags, times);
    fields.prop_map(|(spec, peer, flags, (deleted, passed))| {
        let [peered, requested, tombstone, lost, unidentified] = flags;
        let mut model = if peered {
            Model::peered()
        } else {
            Model::found()
        };
        model.object.spec = spec;
        if unidentified && !peered {
            model.object.spec.cluster_identity = None;
        }
        model.peer = peer;
        model.facts.tombstone = tombstone;
        if requested {
            model.visit();
        }
        if lost {
            model.lose();
        }
        if let Some(ago) = deleted {
            model.delete();
            model.now += SignedDuration::from_secs(ago);
        }
        model.now += SignedDuration::from_secs(passed);
        model
    })
}

proptest! {
    #[test]
    fn every_plan_comes_to_rest(model in any_model()) {
        let mut model = model;
        run(&mut model);
        if model.gone {
            return Ok(());
        }
        // Time passes, and it comes to rest again.
        let plan = model.plan();
        model.now = plan.check_again;
        run(&mut model);
        // A deletion ends, whatever the peer does.
        if model.object.metadata.deletion_timestamp.is_none() {
            model.delete();
        }
        model.now += WITHDRAWAL_DEADLINE;
        run(&mut model);
        prop_assert!(model.gone, "the deletion does not end");
    }
}
