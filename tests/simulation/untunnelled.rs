//! Clusters of which one makes no tunnels.

use std::time::Duration;

use kube::ResourceExt as _;
use landbridge::api::foreign_cluster::Phase;
use serde_json::json;

use crate::{
    invariants,
    world::{Setup, World, history},
};

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn a_peer_without_tunnels_is_peered_and_degraded() {
    let without = Setup {
        tunnels: false,
        ..Setup::fleet()
    };
    history(
        71,
        vec![without, Setup::fleet()],
        async |world: &mut World| {
            world.until("each says so", MINUTE, each_says_so).await;
            invariants::hold(world).await;
        },
    );
}

#[test]
fn tunnels_that_are_switched_off_after_a_peering_hold_nothing_back() {
    history(72, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.allow("Tunnel down");
        let milan = world.clusters[1].id().clone();
        world
            .until("a tunnel", MINUTE, |world| {
                world.clusters[0].tunnel_to(&milan).is_some()
            })
            .await;
        world.stop(0).await;
        world.clusters[0].setup.tunnels = false;
        world.start(0).await;
        world
            .until("no tunnel, and each says so", MINUTE, |world| {
                world.clusters[0].tunnel_to(&milan).is_none() && each_says_so(world)
            })
            .await;
        invariants::hold(world).await;
        let old = world.view(0, 1).unwrap().uid();
        assert!(world.delete(0, 1).await);
        world
            .until("gone or found anew", MINUTE, |world| {
                world.view(0, 1).is_none_or(|object| object.uid() != old)
            })
            .await;
    });
}

#[test]
fn a_cluster_that_only_serves_notices_the_death_of_its_peer() {
    let without = Setup {
        tunnels: false,
        ..Setup::fleet()
    };
    history(73, vec![without; 2], async |world: &mut World| {
        world
            .until("each says so", MINUTE, |world| {
                world.phase(0, 1) == Some(Phase::Peered)
            })
            .await;
        world.say(0, 1, json!({"join": false})).await;
        world.sleep(MINUTE).await;
        assert_eq!(world.phase(0, 1), Some(Phase::Peered));
        world.crash(1).await;
        world
            .until("it is missed", MINUTE, |world| {
                world.phase(0, 1) == Some(Phase::Degraded)
            })
            .await;
        world.start(1).await;
        world
            .until("it is back", MINUTE, |world| {
                world.phase(0, 1) == Some(Phase::Peered)
            })
            .await;
        invariants::hold(world).await;
    });
}

fn each_says_so(world: &World) -> bool {
    let phases = [world.phase(0, 1), world.phase(1, 0)];
    phases == [Some(Phase::Peered), Some(Phase::Degraded)]
}
