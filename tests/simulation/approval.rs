//! What a person is told who has to decide, and what is left of a visit about which nobody decides.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use landbridge::api::{
    ForeignCluster,
    foreign_cluster::{Phase, TrustMode},
};
use serde_json::json;

use crate::{
    invariants, reference,
    world::{Setup, TTL, World, history},
};

const SOON: Duration = Duration::from_secs(10);
/// How long what a visit made is kept when nobody comes.
const VISIT: Duration = Duration::from_mins(10);

#[test]
fn a_join_from_one_side_tells_its_digits_on_both() {
    let setup = Setup {
        discovers: false,
        ..Setup::stranger()
    };
    history(31, vec![setup; 2], async |world: &mut World| {
        world.join_by_hand(0, 1).await;
        world
            .until("both show digits", SOON, |world| {
                let [here, there] = [code(world, 0, 1), code(world, 1, 0)];
                here.is_some() && here == there
            })
            .await;
        assert_eq!(
            world.phase(1, 0),
            Some(Phase::Discovered),
            "nothing is wanted there"
        );
        world.sleep(SOON).await;
        for (at, of) in world.pairs() {
            let digits = code(world, at, of).unwrap();
            let told = approvals_needed(world, at).await;
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains(&digits), "{told:?}");
        }
    });
}

#[test]
fn strangers_who_ask_each_other_are_told_the_digits_that_stand() {
    history(32, vec![Setup::stranger(); 2], async |world: &mut World| {
        world
            .until("both show digits", SOON, |world| {
                let [here, there] = [code(world, 0, 1), code(world, 1, 0)];
                here.is_some() && here == there
            })
            .await;
        world.sleep(SOON).await;
        for (at, of) in world.pairs() {
            let digits = code(world, at, of).unwrap();
            let told = approvals_needed(world, at).await;
            assert!(told.last().unwrap().contains(&digits), "{told:?}");
        }
    });
}

#[test]
fn a_copy_that_nobody_has_approved_ends_nothing() {
    history(37, vec![Setup::stranger(); 2], async |world: &mut World| {
        peer_by_hand(world).await;
        let found = world.view(0, 1).unwrap();
        let mut copy = ForeignCluster::new("a-copy", found.spec.clone());
        copy.spec.trust_mode = TrustMode::Untrusted;
        let api: Api<ForeignCluster> = Api::all(world.clusters[0].client());
        world.sleep(Duration::from_mins(1)).await;
        api.create(&PostParams::default(), &copy).await.unwrap();
        for _ in 0..60 {
            world.sleep(Duration::from_secs(1)).await;
            assert_eq!(world.phase(1, 0), Some(Phase::Peered));
            let present = api.get(&found.name_any()).await.unwrap();
            let phase = present.status.unwrap().phase;
            assert_eq!(phase, Some(Phase::Peered));
        }
        let copied = api.get("a-copy").await.unwrap();
        assert_eq!(copied.spec, copy.spec);
        assert_eq!(copied.status.unwrap().phase, Some(Phase::Waiting));
    });
}

#[test]
fn a_copy_takes_over_at_once_when_what_stood_for_its_cluster_is_deleted() {
    let mut setup = Setup::stranger();
    setup.policy.discovery_config.autojoin = false;
    history(40, vec![setup; 2], async |world: &mut World| {
        let found = |world: &World| are(world, Phase::Discovered);
        world.until("both found", SOON, found).await;
        world.sleep(SOON).await;
        let copy = ForeignCluster::new("a-copy", world.view(0, 1).unwrap().spec);
        let name = world.view(0, 1).unwrap().name_any();
        let api: Api<ForeignCluster> = Api::all(world.clusters[0].client());
        api.create(&PostParams::default(), &copy).await.unwrap();
        world.sleep(SOON).await;
        let copied = api.get("a-copy").await.unwrap();
        assert_eq!(copied.status.unwrap().phase, Some(Phase::Waiting));
        let parameters = DeleteParams::default();
        api.delete(&name, &parameters).await.unwrap();
        world.until("the copy is looked at", SOON, found).await;
        assert_eq!(world.view(0, 1).unwrap().name_any(), "a-copy");
    });
}

#[test]
fn who_has_accepted_a_stranger_is_forgotten_when_it_dies() {
    history(38, vec![Setup::stranger(); 2], async |world: &mut World| {
        let wait = |world: &World| are(world, Phase::Waiting);
        world.until("both wait", SOON, wait).await;
        assert!(world.say(1, 0, json!({"trustMode": "Trusted"})).await);
        world.sleep(SOON).await;
        assert_eq!(world.phase(0, 1), Some(Phase::Waiting));
        world.crash(1).await;
        let goes = |world: &World| world.view(0, 1).is_none();
        world.until("it is forgotten", TTL * 2, goes).await;
    });
}

#[test]
fn both_show_one_code_after_a_deletion() {
    history(39, vec![Setup::stranger(); 2], async |world: &mut World| {
        let agree = |world: &World| {
            let [here, there] = [code(world, 0, 1), code(world, 1, 0)];
            here.is_some() && here == there
        };
        world.until("both show digits", SOON, agree).await;
        let ids = [world.clusters[0].id(), world.clusters[1].id()];
        let (higher, lower) = if ids[0] < ids[1] { (1, 0) } else { (0, 1) };
        assert!(world.delete(higher, lower).await);
        world.sleep(Duration::from_mins(1)).await;
        assert!(agree(world), "{}", world.describe());
    });
}

#[test]
fn what_a_person_takes_back_ends_at_the_other_side_too() {
    for (seed, deletes) in [(34, false), (35, true)] {
        let setups = vec![Setup::stranger(); 2];
        history(seed, setups, async move |world: &mut World| {
            world.allow("Tunnel down");
            peer_by_hand(world).await;
            if deletes {
                assert!(world.delete(1, 0).await);
            } else {
                assert!(world.say(1, 0, json!({"trustMode": "Untrusted"})).await);
            }
            world.sleep(Duration::from_mins(1)).await;
            reference::everything_is_as_wanted(world);
            invariants::hold(world).await;
        });
    }
}

/// Has a person approve each of two strangers.
async fn peer_by_hand(world: &mut World) {
    let wait = |world: &World| are(world, Phase::Waiting);
    world.until("both wait", SOON, wait).await;
    for (at, of) in world.pairs() {
        assert!(world.say(at, of, json!({"trustMode": "Trusted"})).await);
    }
    let peer = |world: &World| are(world, Phase::Peered);
    world.until("both peered", SOON, peer).await;
}

fn are(world: &World, phase: Phase) -> bool {
    let mut pairs = world.pairs().into_iter();
    pairs.all(|(at, of)| world.phase(at, of) == Some(phase))
}

fn code(world: &World, at: usize, of: usize) -> Option<String> {
    world.view(at, of)?.status?.approval_code
}

/// The notes of the events that call for a person, the oldest first.
async fn approvals_needed(world: &World, at: usize) -> Vec<String> {
    let api: Api<Event> = Api::all(world.clusters[at].client());
    let mut all = api.list(&ListParams::default()).await.unwrap().items;
    all.sort_by_key(|event| event.event_time.clone().map(|time| time.0));
    all.into_iter()
        .filter(|event| event.reason.as_deref() == Some("ApprovalNeeded"))
        .filter_map(|event| event.note)
        .collect()
}

#[test]
fn a_visitor_that_stays_away_is_forgotten() {
    let setup = Setup {
        discovers: false,
        ..Setup::stranger()
    };
    history(33, vec![setup; 2], async |world: &mut World| {
        world.join_by_hand(0, 1).await;
        let comes = |world: &World| world.view(1, 0).is_some();
        world.until("it comes", SOON, comes).await;
        // Asking again and again, it stays.
        world.sleep(VISIT * 2).await;
        assert!(comes(world));
        world.part(0, 1);
        let goes = |world: &World| world.view(1, 0).is_none();
        world.until("it is forgotten", VISIT * 2, goes).await;
        world.heal();
        world.until("it comes again", VISIT, comes).await;
    });
}
