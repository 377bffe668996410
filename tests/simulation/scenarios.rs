//! The stories that people tell of their clusters, each with its end.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use landbridge::api::{
    Advertisement, ClusterConfig, ForeignCluster, PeeringRequest,
    cluster_config::AcceptPolicy,
    foreign_cluster::{DiscoveryType, Phase, TrustMode},
};
use serde_json::json;

use crate::{
    account::summary,
    invariants,
    world::{Setup, TTL, World, history},
};

const SOON: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn three_clusters_find_each_other_and_peer() {
    history(1, vec![Setup::fleet(); 3], async |world: &mut World| {
        world.until("all peered", SOON, all_peered).await;
        for (at, of) in world.pairs() {
            assert!(is_ready(world, at, of), "{}", world.describe());
            let tunnel = world.clusters[at]
                .tunnel_to(world.clusters[of].id())
                .unwrap();
            let connection = tunnel.status.unwrap().connection.unwrap();
            assert_eq!(connection.status.as_deref(), Some("connected"));
        }
        world.sleep(MINUTE).await;
        assert!(all_peered(world), "{}", world.describe());
        invariants::hold(world).await;
    });
}

#[test]
fn strangers_wait_for_a_person() {
    history(2, vec![Setup::stranger(); 2], async |world: &mut World| {
        world
            .until("both wait", SOON, |world| all_are(world, Phase::Waiting))
            .await;
        world.sleep(MINUTE).await;
        assert!(all_are(world, Phase::Waiting), "{}", world.describe());
        for (at, of) in world.pairs() {
            invariants::nothing_is_there_of(world, at, of);
        }
        invariants::hold(world).await;
        for (at, of) in world.pairs() {
            assert!(world.say(at, of, json!({"trustMode": "Trusted"})).await);
        }
        world.until("both peered", SOON, all_peered).await;
        invariants::hold(world).await;
    });
}

#[test]
fn leaving_takes_everything_away_on_both_sides() {
    history(3, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.until("both peered", SOON, all_peered).await;
        assert!(world.say(0, 1, json!({"join": false})).await);
        world
            .until("one side left", SOON, |world| {
                let (rome, milan) = (&world.clusters[0], &world.clusters[1]);
                rome.node_of(milan.id()).is_none() && requests(world, 1).is_empty()
            })
            .await;
        assert_eq!(
            world.phase(1, 0),
            Some(Phase::Peered),
            "the other direction stays"
        );
        assert!(
            world.clusters[0]
                .tunnel_to(world.clusters[1].id())
                .is_some()
        );
        assert!(world.say(1, 0, json!({"join": false})).await);
        world
            .until("nothing is left", SOON, |world| {
                all_are(world, Phase::Discovered)
            })
            .await;
        for (at, of) in world.pairs() {
            invariants::nothing_is_there_of(world, at, of);
            let driver = world.fabric.look(&world.clusters[at].key);
            assert!(driver.peers.is_empty() && driver.routes.is_empty());
        }
        invariants::hold(world).await;
    });
}

#[test]
fn a_copy_of_an_object_waits_for_its_end() {
    history(36, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.allow("Tunnel down");
        world.until("both peered", SOON, all_peered).await;
        let found = world.view(0, 1).unwrap();
        let copy = ForeignCluster::new("a-copy", found.spec.clone());
        let api: Api<ForeignCluster> = Api::all(world.clusters[0].client());
        world.sleep(MINUTE).await;
        api.create(&PostParams::default(), &copy).await.unwrap();
        world.sleep(MINUTE).await;
        let phase = async |name: &str| api.get(name).await.unwrap().status.unwrap().phase;
        assert_eq!(phase(&found.name_any()).await, Some(Phase::Peered));
        assert_eq!(phase("a-copy").await, Some(Phase::Waiting));
        let parameters = DeleteParams::default();
        api.delete(&found.name_any(), &parameters).await.unwrap();
        world.sleep(MINUTE).await;
        assert_eq!(world.view(0, 1).unwrap().name_any(), "a-copy");
        assert!(all_peered(world), "{}", world.describe());
        invariants::hold(world).await;
    });
}

#[test]
fn rejoining_brings_it_back() {
    history(4, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.until("both peered", SOON, all_peered).await;
        let before = [summary(world, 0), summary(world, 1)];
        for join in [false, true] {
            for (at, of) in world.pairs() {
                assert!(world.say(at, of, json!({"join": join})).await);
            }
            if !join {
                world
                    .until("left", SOON, |world| all_are(world, Phase::Discovered))
                    .await;
            }
        }
        world.until("both peered again", SOON, all_peered).await;
        world.sleep(MINUTE).await;
        assert_eq!([summary(world, 0), summary(world, 1)], before);
        for _ in 0..20 {
            for join in [false, true] {
                assert!(world.say(0, 1, json!({"join": join})).await);
                world.sleep(Duration::from_millis(10)).await;
            }
        }
        world
            .until("peered after a hundred words", MINUTE, all_peered)
            .await;
        invariants::hold(world).await;
    });
}

#[test]
fn deleting_the_object_ends_in_nothing() {
    history(5, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.allow("Tunnel down");
        world.allow("The peer cannot be reached; what it keeps for us is withdrawn");
        world.until("both peered", SOON, all_peered).await;
        world.part(0, 1);
        assert!(world.delete(0, 1).await);
        world
            .until(
                "gone within its deadline",
                Duration::from_secs(70),
                |world| world.view(0, 1).is_none(),
            )
            .await;
        invariants::nothing_is_there_of(world, 0, 1);
        assert_eq!(tombstones(world), 1);
        assert_eq!(requests(world, 1).len(), 1, "the peer could not be told");
        world.sleep(3 * MINUTE).await;
        assert!(world.view(0, 1).is_none(), "nothing brings it back");
        world.heal();
        world
            .until("found again, and withdrawn", 3 * MINUTE, |world| {
                tombstones(world) == 0
            })
            .await;
        world.until("peered again", MINUTE, all_peered).await;
        invariants::hold(world).await;
    });
}

#[test]
fn deleting_the_object_of_a_peer_that_answers_is_quick() {
    history(6, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.until("both peered", SOON, all_peered).await;
        world.sleep(MINUTE).await;
        let old = world.view(0, 1).unwrap().uid();
        assert!(world.delete(0, 1).await);
        world
            .until("gone or found anew", SOON, |world| {
                world.view(0, 1).is_none_or(|object| object.uid() != old)
            })
            .await;
        assert_eq!(tombstones(world), 0);
        // It is still there, so that its next announcement or visit finds it anew.
        world.until("peered again", 3 * MINUTE, all_peered).await;
        invariants::hold(world).await;
    });
}

#[test]
fn a_deleted_object_that_nothing_was_asked_of_is_found_anew() {
    let mut setup = Setup::fleet();
    setup.policy.discovery_config.autojoin = false;
    history(17, vec![setup; 2], async |world: &mut World| {
        world
            .until("found", SOON, |world| all_are(world, Phase::Discovered))
            .await;
        world.sleep(MINUTE).await;
        assert!(world.delete(0, 1).await);
        world
            .until("found anew", MINUTE, |world| world.view(0, 1).is_some())
            .await;
        invariants::hold(world).await;
    });
}

#[test]
fn a_deletion_that_takes_its_time_is_no_refusal() {
    history(16, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.allow("Tunnel down");
        world.until("both peered", SOON, all_peered).await;
        let mut finalizers = world.view(0, 1).unwrap().finalizers().to_vec();
        finalizers.push("example.com/hold".to_owned());
        hold_back(world, finalizers).await;
        assert!(world.delete(0, 1).await);
        world.sleep(MINUTE).await;
        assert_ne!(
            world.phase(1, 0),
            Some(Phase::Refused),
            "{}",
            world.describe()
        );
        hold_back(world, Vec::new()).await;
        world.until("peered again", MINUTE, all_peered).await;
        invariants::hold(world).await;
    });
}

#[test]
fn a_vanished_peer_degrades_and_comes_back() {
    history(7, vec![Setup::fleet(); 3], async |world: &mut World| {
        world.allow("Tunnel down");
        world.until("all peered", SOON, all_peered).await;
        world.crash(1).await;
        let fast = Duration::from_secs(16);
        world
            .until("degraded", fast, |world| {
                world.phase(0, 1) == Some(Phase::Degraded)
            })
            .await;
        world
            .until("not ready", SOON, |world| !is_ready(world, 0, 1))
            .await;
        assert_eq!(
            world.phase(0, 2),
            Some(Phase::Peered),
            "others do not suffer"
        );
        world.sleep(10 * MINUTE).await;
        let object = world.view(0, 1).unwrap();
        assert!(object.spec.join, "intent stays");
        assert_eq!(world.phase(0, 1), Some(Phase::Degraded));
        assert!(
            world.clusters[0]
                .tunnel_to(world.clusters[1].id())
                .is_some(),
            "the tunnel stays"
        );
        invariants::nothing_is_written_at_rest(world).await;
        world.start(1).await;
        world.until("all peered again", SOON, all_peered).await;
        invariants::hold(world).await;
    });
}

#[test]
fn a_silent_peer_degrades_and_comes_back() {
    history(8, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.allow("Tunnel down");
        world.until("both peered", SOON, all_peered).await;
        world.part(0, 1);
        world
            .until("degraded", Duration::from_secs(20), |world| {
                all_are(world, Phase::Degraded)
            })
            .await;
        world.sleep(5 * MINUTE).await;
        assert!(all_are(world, Phase::Degraded), "{}", world.describe());
        world.heal();
        world.until("peered again", MINUTE, all_peered).await;
        world.lan.cut_wires(0);
        world.sleep(Duration::from_secs(5)).await;
        assert!(all_peered(world), "a cut wire mends: {}", world.describe());
        invariants::hold(world).await;
    });
}

#[test]
fn an_expired_stranger_is_forgotten() {
    history(9, vec![Setup::stranger(); 3], async |world: &mut World| {
        world
            .until("all wait", SOON, |world| all_are(world, Phase::Waiting))
            .await;
        world.crash(2).await;
        world
            .until("forgotten after its time", TTL + MINUTE, |world| {
                world.view(0, 2).is_none() && world.view(1, 2).is_none()
            })
            .await;
        world.start(2).await;
        world
            .until("all wait again", SOON, |world| {
                all_are(world, Phase::Waiting)
            })
            .await;
        world.stop(2).await;
        world
            .until(
                "forgotten after its goodbye",
                Duration::from_secs(20),
                |world| world.view(0, 2).is_none() && world.view(1, 2).is_none(),
            )
            .await;
        invariants::hold(world).await;
    });
}

#[test]
fn a_new_address_is_followed() {
    history(10, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.until("both peered", SOON, all_peered).await;
        world.move_away(1);
        world
            .until("peered at the new place", MINUTE, |world| {
                let url = format!("https://{}", world.lan.address(1));
                let follows = world
                    .view(0, 1)
                    .is_some_and(|object| object.spec.auth_url == url);
                follows && all_peered(world) && is_ready(world, 0, 1) && is_ready(world, 1, 0)
            })
            .await;
        world.sleep(MINUTE).await;
        assert!(all_peered(world), "{}", world.describe());
        invariants::hold(world).await;
    });
}

#[test]
fn a_manual_cluster_is_filled_in_and_peers() {
    let setup = Setup {
        discovers: false,
        ..Setup::fleet()
    };
    history(11, vec![setup; 2], async |world: &mut World| {
        world.sleep(MINUTE).await;
        assert!(world.view(0, 1).is_none() && world.view(1, 0).is_none());
        world.join_by_hand(0, 1).await;
        world
            .until("peered", SOON, |world| {
                world.phase(0, 1) == Some(Phase::Peered)
            })
            .await;
        let object = world.view(0, 1).unwrap();
        assert_eq!(object.name_any(), "by-hand");
        assert_eq!(object.spec.discovery_type, DiscoveryType::Manual);
        assert_eq!(object.spec.trust_mode, TrustMode::Trusted);
        world
            .until("the other side too", SOON, |world| {
                world.phase(1, 0) == Some(Phase::Peered)
            })
            .await;
        let visitor = world.view(1, 0).unwrap();
        assert_eq!(visitor.spec.discovery_type, DiscoveryType::IncomingPeering);
        assert!(!visitor.spec.join, "who comes to us is not joined");
        invariants::hold(world).await;
        assert!(world.say(0, 1, json!({"join": false})).await);
        world
            .until("left", SOON, |world| requests(world, 1).is_empty())
            .await;
        invariants::hold(world).await;
    });
}

#[test]
fn a_blocked_peer_leaves_nothing_behind() {
    history(12, vec![Setup::fleet(); 2], async |world: &mut World| {
        world.until("both peered", SOON, all_peered).await;
        assert!(
            world
                .say(0, 1, json!({"incomingPeeringEnabled": "No"}))
                .await
        );
        world
            .until("refused", MINUTE, |world| {
                world.phase(0, 1) == Some(Phase::Refused)
                    && world.phase(1, 0) == Some(Phase::Refused)
            })
            .await;
        world.sleep(6 * MINUTE).await;
        assert_eq!(
            world.phase(1, 0),
            Some(Phase::Refused),
            "{}",
            world.describe()
        );
        invariants::nothing_is_there_of(world, 0, 1);
        invariants::nothing_is_there_of(world, 1, 0);
        invariants::hold(world).await;
        assert!(
            world
                .say(0, 1, json!({"incomingPeeringEnabled": "Auto"}))
                .await
        );
        world.until("peered again", 6 * MINUTE, all_peered).await;
        invariants::hold(world).await;
    });
}

#[test]
fn auto_accept_max_takes_no_more_offers_than_allowed() {
    let mut setup = Setup::fleet();
    let ingoing = &mut setup.policy.advertisement_config.ingoing_config;
    ingoing.max_acceptable_advertisement = 1;
    history(
        13,
        vec![setup, Setup::fleet(), Setup::fleet()],
        async |world: &mut World| {
            world.sleep(MINUTE).await;
            let answers = answers(world, 0);
            assert_eq!(answers, ["Accepted", "Refused"], "{}", world.describe());
            let nodes = world.clusters[0].disk.objects::<Node>();
            assert_eq!(nodes.len(), 2, "its own machine and one virtual node");
            invariants::hold(world).await;
        },
    );
}

#[test]
fn a_manual_accept_policy_waits_for_a_person() {
    let mut setup = Setup::fleet();
    setup
        .policy
        .advertisement_config
        .ingoing_config
        .accept_policy = AcceptPolicy::Manual;
    history(
        14,
        vec![setup, Setup::fleet()],
        async |world: &mut World| {
            world.sleep(MINUTE).await;
            assert_eq!(answers(world, 0), [""]);
            assert!(world.clusters[0].node_of(world.clusters[1].id()).is_none());
            invariants::hold(world).await;
            let api: Api<Advertisement> = Api::all(world.clusters[0].client());
            let name = format!("advertisement-{}", world.clusters[1].id());
            let patch = Patch::Merge(json!({"status": {"advertisementStatus": "Accepted"}}));
            api.patch_status(&name, &PatchParams::default(), &patch)
                .await
                .unwrap();
            world.until("peered", SOON, all_peered).await;
            let accepted = api.get(&name).await.unwrap().status.unwrap();
            assert!(accepted.vk_created && accepted.vnode_reference.is_some());
            invariants::hold(world).await;
        },
    );
}

#[test]
fn lost_announcements_and_late_ones_do_no_harm() {
    history(15, vec![Setup::fleet(); 3], async |world: &mut World| {
        world.lan.lose(60);
        world.until("all peered", 3 * MINUTE, all_peered).await;
        for round in 0..20 {
            world.lan.announce(round % 3);
            world.lan.say_goodbye(round % 3);
            world.lan.announce(round % 3);
        }
        world.lan.lose(0);
        world.sleep(5 * MINUTE).await;
        assert!(all_peered(world), "{}", world.describe());
        invariants::hold(world).await;
    });
}

async fn hold_back(world: &World, finalizers: Vec<String>) {
    let api: Api<ForeignCluster> = Api::all(world.clusters[0].client());
    let name = world.view(0, 1).unwrap().name_any();
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    api.patch(&name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[test]
fn a_copied_identity_holds_both_back_until_one_is_left() {
    history(61, vec![Setup::fleet(); 3], async |world: &mut World| {
        world.allow("Another machine holds our identity");
        world.allow("Tunnel down");
        world.until("all peered", SOON, all_peered).await;
        world.crash(2).await;
        world.copy_identity(0, 2);
        world.start(2).await;
        world
            .until("both say so", MINUTE, |world| {
                [0, 2].iter().all(|at| !is_unique(world, *at))
            })
            .await;
        let milan = world.clusters[1].id().clone();
        world
            .until("both have left", MINUTE, |world| {
                let copies = [0, 2].map(|at| &world.clusters[at]);
                copies
                    .iter()
                    .all(|one| one.tunnel_to(&milan).is_none() && one.node_of(&milan).is_none())
            })
            .await;
        world.sleep(MINUTE).await;
        for at in [0, 2] {
            assert!(
                !is_unique(world, at),
                "it is not forgotten while both are there"
            );
            let cluster = &world.clusters[at];
            assert!(cluster.tunnel_to(&milan).is_none() && cluster.node_of(&milan).is_none());
            invariants::never_peers_with_oneself(cluster);
        }
        assert_eq!(world.phase(0, 1), Some(Phase::Waiting));
        world.crash(2).await;
        world
            .until("rome and milan are peered again", MINUTE * 2, |world| {
                let both = [world.phase(0, 1), world.phase(1, 0)];
                both.iter().all(|phase| *phase == Some(Phase::Peered)) && is_unique(world, 0)
            })
            .await;
    });
}

#[test]
fn an_id_that_is_announced_elsewhere_is_told_and_changes_nothing() {
    history(62, vec![Setup::fleet(); 3], async |world: &mut World| {
        world.until("all peered", SOON, all_peered).await;
        let before = world.view(0, 1).unwrap();
        let places = [world.lan.address(1), world.lan.address(2)];
        world.lan.announce_at(1, &places);
        world
            .until("it is told", SOON, |world| misuse(world, 0, 1).is_some())
            .await;
        let told = misuse(world, 0, 1).unwrap();
        assert!(told.contains(&world.lan.address(2).to_string()), "{told}");
        assert!(told.contains(world.clusters[2].id().as_str()), "{told}");
        for _ in 0..30 {
            world.sleep(Duration::from_secs(1)).await;
            assert!(all_peered(world), "{}", world.describe());
        }
        let after = world.view(0, 1).unwrap();
        assert_eq!((after.uid(), after.spec), (before.uid(), before.spec));
        world.sleep(MINUTE * 16).await;
        assert_eq!(misuse(world, 0, 1), None, "it is forgotten in the end");
        invariants::hold_for(world, MINUTE).await;
    });
}

/// What condition IdentityMismatch says, while it is there.
fn misuse(world: &World, at: usize, of: usize) -> Option<String> {
    let conditions = world.view(at, of)?.status?.conditions;
    let found = conditions
        .into_iter()
        .find(|one| one.type_ == "IdentityMismatch");
    found.map(|one| one.message)
}

/// Whether a cluster says that no other machine holds its identity.
fn is_unique(world: &World, at: usize) -> bool {
    let configs = world.clusters[at].disk.objects::<ClusterConfig>();
    let conditions = configs.into_iter().filter_map(|config| config.status);
    !conditions
        .flat_map(|status| status.conditions)
        .any(|one| one.type_ == "IdentityUnique" && one.status == "False")
}

fn all_are(world: &World, phase: Phase) -> bool {
    world
        .pairs()
        .into_iter()
        .all(|(at, of)| world.phase(at, of) == Some(phase))
}

fn all_peered(world: &World) -> bool {
    all_are(world, Phase::Peered)
        && world
            .pairs()
            .into_iter()
            .all(|(at, of)| is_ready(world, at, of))
}

/// Whether the virtual node of a peer is ready.
fn is_ready(world: &World, at: usize, of: usize) -> bool {
    let Some(node) = world.clusters[at].node_of(world.clusters[of].id()) else {
        return false;
    };
    let conditions = node
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let holds = |kind: &str, value: &str| {
        conditions
            .iter()
            .any(|one| one.type_ == kind && one.status == value)
    };
    holds("Ready", "True") && holds("NetworkUnavailable", "False")
}

fn requests(world: &World, at: usize) -> Vec<PeeringRequest> {
    world.clusters[at].disk.objects::<PeeringRequest>()
}

fn tombstones(world: &World) -> usize {
    let maps = world.clusters[0].disk.objects::<ConfigMap>();
    let map = maps
        .into_iter()
        .find(|map| map.name_any() == "landbridge-tombstones");
    map.and_then(|map| map.data).unwrap_or_default().len()
}

fn answers(world: &World, at: usize) -> Vec<&'static str> {
    let advertisements = world.clusters[at].disk.objects::<Advertisement>();
    let mut answers: Vec<_> = advertisements
        .into_iter()
        .map(|one| one.status.unwrap_or_default().advertisement_status.as_str())
        .collect();
    answers.sort_unstable();
    answers
}
