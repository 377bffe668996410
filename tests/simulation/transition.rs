//! What may happen in a history: a closed list, so that whoever adds to it must say what it does.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use crate::world::World;

/// Something that happens, among clusters named by their place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Transition {
    /// A person wants the resources of another cluster.
    Join(usize, usize),
    /// A person wants them no more.
    Leave(usize, usize),
    /// A person trusts another cluster.
    Approve(usize, usize),
    /// A person blocks another cluster.
    Block(usize, usize),
    /// A person unblocks another cluster.
    Unblock(usize, usize),
    /// A person deletes the ForeignCluster of another cluster.
    Delete(usize, usize),
    /// A cluster crashes and is back after so many tenths of a second.
    Restart(usize, u16),
    /// A cluster crashes and stays away.
    Crash(usize),
    /// A cluster stops in order and stays away.
    Stop(usize),
    /// A cluster that is away comes back.
    Start(usize),
    /// No packet passes between two clusters any more.
    Part(usize, usize),
    /// All packets pass again.
    Heal,
    /// Every connection of a cluster is cut.
    Cut(usize),
    /// A cluster gets another address.
    Move(usize),
    /// The announcement of a cluster is taken back, as it may be by somebody else.
    Goodbye(usize),
    /// So many of a hundred announcements are lost from now on.
    Lose(u8),
    /// So many tenths of a second pass.
    Advance(u16),
}

/// Any transition among three clusters.
pub(crate) fn any_transition() -> impl Strategy<Value = Transition> {
    let one = || 0_usize..3;
    let two = || (one(), 1_usize..3).prop_map(|(at, step)| (at, (at + step) % 3));
    prop_oneof![
        2 => two().prop_map(|(at, of)| Transition::Join(at, of)),
        3 => two().prop_map(|(at, of)| Transition::Leave(at, of)),
        2 => two().prop_map(|(at, of)| Transition::Approve(at, of)),
        1 => two().prop_map(|(at, of)| Transition::Block(at, of)),
        1 => two().prop_map(|(at, of)| Transition::Unblock(at, of)),
        2 => two().prop_map(|(at, of)| Transition::Delete(at, of)),
        2 => (one(), 0_u16..200).prop_map(|(at, time)| Transition::Restart(at, time)),
        1 => one().prop_map(Transition::Crash),
        1 => one().prop_map(Transition::Stop),
        1 => one().prop_map(Transition::Start),
        2 => two().prop_map(|(at, of)| Transition::Part(at, of)),
        1 => Just(Transition::Heal),
        1 => one().prop_map(Transition::Cut),
        1 => one().prop_map(Transition::Move),
        1 => one().prop_map(Transition::Goodbye),
        1 => (0_u8..90).prop_map(Transition::Lose),
        4 => prop_oneof![0_u16..20, 20_u16..300, 300_u16..2000].prop_map(Transition::Advance),
    ]
}

impl Transition {
    /// Lets it happen. What is not possible just now does not happen.
    pub(crate) async fn happen(self, world: &mut World) {
        match self {
            Self::Join(at, of) => drop(world.say(at, of, json!({"join": true})).await),
            Self::Leave(at, of) => drop(world.say(at, of, json!({"join": false})).await),
            Self::Approve(at, of) => {
                world.say(at, of, json!({"trustMode": "Trusted"})).await;
            }
            Self::Block(at, of) => {
                world
                    .say(at, of, json!({"incomingPeeringEnabled": "No"}))
                    .await;
            }
            Self::Unblock(at, of) => {
                world
                    .say(at, of, json!({"incomingPeeringEnabled": "Auto"}))
                    .await;
            }
            Self::Delete(at, of) => drop(world.delete(at, of).await),
            Self::Restart(at, time) => world.restart(at, tenths(time)).await,
            Self::Crash(at) => world.crash(at).await,
            Self::Stop(at) => world.stop(at).await,
            Self::Start(at) if !world.clusters[at].runs() => world.start(at).await,
            Self::Start(_) => {}
            Self::Part(one, other) => world.part(one, other),
            Self::Heal => world.heal(),
            Self::Cut(at) => world.lan.cut_wires(at),
            Self::Move(at) => world.move_away(at),
            Self::Goodbye(at) => world.lan.say_goodbye(at),
            Self::Lose(percent) => world.lan.lose(percent),
            Self::Advance(time) => world.sleep(tenths(time)).await,
        }
    }
}

fn tenths(number: u16) -> Duration {
    Duration::from_millis(100) * u32::from(number)
}
