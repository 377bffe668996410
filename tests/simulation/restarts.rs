//! A crash at every write: whatever was in memory is lost, and the end is the same.

use std::{collections::BTreeMap, time::Duration};

use landbridge::api::foreign_cluster::Phase;
use serde_json::{Value, json};

use crate::{
    account::summary,
    disk::Crash,
    invariants,
    world::{Setup, World, history},
};

/// How long a side may take to notice, to come back and to peer again.
const SETTLE: Duration = Duration::from_mins(1);
/// Every so many writes there is a crash, so that the run stays short; `SIMULATION_STRIDE=1` takes
/// every write.
const STRIDE: usize = 3;

#[test]
fn a_restart_at_every_write_converges_after_a_join_and_a_leave() {
    let (send, receive) = std::sync::mpsc::channel();
    history(
        100,
        vec![Setup::fleet(); 2],
        async move |world: &mut World| {
            send.send(join_and_leave(world, None).await).unwrap();
        },
    );
    let reference = receive.recv().unwrap();
    let stride = std::env::var("SIMULATION_STRIDE")
        .ok()
        .and_then(|text| text.parse().ok());
    let stride = stride.unwrap_or(STRIDE);
    assert!(
        reference.writes > 20,
        "a peering is more than {} writes",
        reference.writes
    );
    let crashes = (0..reference.writes).flat_map(|nth| [Crash::Before(nth), Crash::After(nth)]);
    for (seed, crash) in (101..).zip(crashes.step_by(stride)) {
        let reference = reference.ends.clone();
        history(
            seed,
            vec![Setup::fleet(); 2],
            async move |world: &mut World| {
                world.allow("Tunnel down");
                let run = join_and_leave(world, Some(crash)).await;
                for (end, expected) in run.ends.iter().zip(&reference) {
                    let is_same = end == expected;
                    assert!(
                        is_same,
                        "{crash:?}: {}\n{}",
                        differences(end, expected),
                        world.describe()
                    );
                }
                let is_due = world.clusters[0].disk.awaits_crash();
                assert!(!is_due, "{crash:?} never came");
                invariants::without_join_nothing_is_abroad(world);
            },
        );
    }
}

struct Run {
    /// How often the first cluster wrote.
    writes: usize,
    /// What stood on both sides, peered and after the leave.
    ends: Vec<BTreeMap<String, Value>>,
}

/// Starts with nothing known, waits for the peering, leaves on both sides.
async fn join_and_leave(world: &mut World, crash: Option<Crash>) -> Run {
    let began = world.clusters[0].disk.writes();
    if let Some(crash) = crash {
        world.clusters[0].disk.crash_at(crash);
    }
    world.sleep(SETTLE).await;
    let mut ends = vec![summary(world, 0), summary(world, 1)];
    for (at, of) in world.pairs() {
        assert!(
            world.say(at, of, json!({"join": false})).await,
            "{}",
            world.describe()
        );
    }
    world
        .until("left", SETTLE, |world| {
            let phases = [world.phase(0, 1), world.phase(1, 0)];
            phases == [Some(Phase::Discovered); 2]
        })
        .await;
    world.sleep(SETTLE).await;
    let writes = world.clusters[0].disk.history(began);
    let is_heartbeat = |key: &str| key.contains("/leases/");
    ends.extend([summary(world, 0), summary(world, 1)]);
    Run {
        writes: writes.len()
            - writes
                .iter()
                .rev()
                .take_while(|write| is_heartbeat(&write.key))
                .count(),
        ends,
    }
}

fn differences(end: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) -> String {
    let keys = end.keys().chain(expected.keys());
    let mut lines: Vec<String> = keys
        .filter(|key| end.get(*key) != expected.get(*key))
        .map(|key| {
            format!(
                "{key}: {:?} instead of {:?}",
                end.get(key),
                expected.get(key)
            )
        })
        .collect();
    lines.dedup();
    lines.join("\n")
}
