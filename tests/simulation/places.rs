//! Where a cluster is said to be, truly or not.

use std::{net::SocketAddr, time::Duration};

use landbridge::api::foreign_cluster::Phase;

use crate::world::{Setup, World, history};

/// A cluster that looks for others, and one that announces nothing by itself.
fn a_quiet_neighbour() -> Vec<Setup> {
    let quiet = Setup {
        discovers: false,
        ..Setup::stranger()
    };
    vec![Setup::stranger(), quiet]
}

async fn until_found(world: &mut World, limit: Duration) {
    world
        .until("it is found", limit, |world| {
            world.phase(0, 1) == Some(Phase::Waiting)
        })
        .await;
}

#[test]
fn places_that_are_silent_do_not_hold_up_the_one_that_answers() {
    for (silent, limit) in [(1, 1), (7, 4)] {
        history(70, a_quiet_neighbour(), async move |world: &mut World| {
            world.sleep(Duration::from_secs(1)).await;
            let mut places: Vec<SocketAddr> = (0..silent)
                .map(|number| SocketAddr::from(([192, 168, 1, 200 + number], 5870)))
                .collect();
            places.push(world.lan.address(1));
            world.lan.announce_at(1, &places);
            until_found(world, Duration::from_secs(limit)).await;
        });
    }
}

#[test]
fn a_place_that_is_silent_for_two_seconds_has_failed_and_is_tried_again() {
    history(71, a_quiet_neighbour(), async |world: &mut World| {
        world.sleep(Duration::from_secs(1)).await;
        let place = world.lan.address(1);
        world.lan.announce_at(1, &[place]);
        world.part(0, 1);
        world.sleep(Duration::from_millis(500)).await;
        world.heal();
        // Half a second to a whole one after the failure; the LAN itself would give up after three.
        until_found(world, Duration::from_millis(2800)).await;
    });
}

#[test]
fn a_cluster_that_is_taken_back_while_it_is_asked_is_forgotten() {
    history(72, a_quiet_neighbour(), async |world: &mut World| {
        world.sleep(Duration::from_secs(1)).await;
        let silent = SocketAddr::from(([192, 168, 1, 200], 5870));
        world.lan.announce_at(1, &[silent, world.lan.address(1)]);
        world.sleep(Duration::from_millis(100)).await;
        world.lan.say_goodbye(1);
        until_found(world, Duration::from_secs(1)).await;
        world.crash(1).await;
        world
            .until("it is forgotten", Duration::from_mins(1), |world| {
                world.view(0, 1).is_none()
            })
            .await;
    });
}
