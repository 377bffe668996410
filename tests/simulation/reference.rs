//! What has to stand at rest. It follows from what people want on both sides, and from nothing that
//! happened on the way.

use kube::ResourceExt as _;
use landbridge::api::{
    ForeignCluster, PeeringRequest,
    foreign_cluster::{IncomingPeering, Phase, TrustMode},
};

use crate::world::World;

/// Compares all peerings with what people want, when nothing is in their way.
pub(crate) fn everything_is_as_wanted(world: &World) {
    for (at, of) in world.pairs() {
        let (here, there) = (world.view(at, of), world.view(of, at));
        let (Some(here), Some(there)) = (here, there) else {
            panic!("{at} and {of} do not see each other\n{}", world.describe());
        };
        let consumes = consumes(&here, &there);
        let serves = self::consumes(&there, &here);
        let peer = world.clusters[of].id();
        let cluster = &world.clusters[at];
        let about = |what: &str| format!("{what} at {at} of {of}\n{}", world.describe());
        assert_eq!(
            has_request(world, at, of),
            consumes,
            "{}",
            about("request abroad")
        );
        assert_eq!(
            cluster.node_of(peer).is_some(),
            consumes,
            "{}",
            about("virtual node")
        );
        let tunnel = cluster.tunnel_to(peer);
        assert_eq!(tunnel.is_some(), consumes || serves, "{}", about("tunnel"));
        let phase = here.status.as_ref().and_then(|status| status.phase);
        let expected = phase_of(&here, &there);
        assert_eq!(phase, Some(expected), "{}", about("phase"));
    }
}

/// Whether a cluster may consume what another one offers, and wants to.
fn consumes(here: &ForeignCluster, there: &ForeignCluster) -> bool {
    here.spec.join && is_trusted(here) && is_admitted(there) && !is_blocked(here)
}

fn phase_of(here: &ForeignCluster, there: &ForeignCluster) -> Phase {
    let joins = here.spec.join && !is_blocked(here);
    if is_blocked(here) {
        return Phase::Refused;
    }
    // Whether a person here accepts it does not matter to whom it has refused.
    if joins && is_blocked(there) {
        return Phase::Refused;
    }
    if joins {
        return if consumes(here, there) {
            Phase::Peered
        } else {
            Phase::Waiting
        };
    }
    if consumes(there, here) {
        Phase::Peered
    } else {
        Phase::Discovered
    }
}

fn is_trusted(object: &ForeignCluster) -> bool {
    object.spec.trust_mode == TrustMode::Trusted
}

fn is_admitted(object: &ForeignCluster) -> bool {
    let said_yes = object.spec.incoming_peering_enabled == IncomingPeering::Yes;
    !is_blocked(object) && (is_trusted(object) || said_yes)
}

fn is_blocked(object: &ForeignCluster) -> bool {
    object.spec.incoming_peering_enabled == IncomingPeering::No
}

fn has_request(world: &World, home: usize, foreign: usize) -> bool {
    let requests = world.clusters[foreign].disk.objects::<PeeringRequest>();
    let id = world.clusters[home].id();
    requests
        .iter()
        .any(|request| request.name_any() == id.as_str())
}
