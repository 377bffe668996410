//! Any history ends as people want it, once nothing is in the way any more.

use std::time::Duration;

use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence},
};

use crate::{
    invariants, reference,
    transition::{Transition, any_transition},
    world::{Setup, World, history},
};

/// How long a fleet may take to get over everything.
const RECOVERY: Duration = Duration::from_mins(3);
/// How long a refused peer may take on top of it, since it asks again after 5 min only.
const REFUSAL: Duration = Duration::from_mins(5);
/// How long nothing may be written afterwards; the scenarios look longer.
const REST: Duration = Duration::from_mins(2);
/// How many histories a run takes; `PROPTEST_CASES` says otherwise.
const CASES: u32 = 6;

fn config() -> Config {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    Config {
        cases: cases.unwrap_or(CASES),
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/simulation/histories.regressions",
        ))),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_ends_as_people_want_it(
        seed in any::<u64>(),
        fleet in proptest::bool::weighted(0.7),
        transitions in proptest::collection::vec(any_transition(), 1..16),
    ) {
        let setup = if fleet { Setup::fleet() } else { Setup::stranger() };
        history(seed, vec![setup; 3], async move |world: &mut World| {
            run(world, &transitions).await;
        });
    }
}

async fn run(world: &mut World, transitions: &[Transition]) {
    world.allow("Tunnel down");
    world.allow("what it keeps for us is withdrawn when it is seen again");
    for transition in transitions {
        transition.happen(world).await;
        for cluster in &world.clusters {
            invariants::never_peers_with_oneself(cluster);
            invariants::one_object_per_cluster(cluster);
            invariants::no_two_tunnels_share_a_range(cluster);
        }
    }
    world.heal();
    world.lan.lose(0);
    for index in 0..world.clusters.len() {
        if !world.clusters[index].runs() {
            world.start(index).await;
        }
    }
    let was_blocked = transitions
        .iter()
        .any(|one| matches!(one, Transition::Block(..)));
    let refusal = if was_blocked { REFUSAL } else { Duration::ZERO };
    world.sleep(RECOVERY + refusal).await;
    reference::everything_is_as_wanted(world);
    invariants::hold_for(world, REST).await;
}
