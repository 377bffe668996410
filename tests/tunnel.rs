//! Real packets through real tunnels, between network namespaces of our own.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::async_yields_async,
    reason = "a rig that cannot be used fails its test"
)]

#[path = "tunnel/controller.rs"]
mod controller;
#[path = "tunnel/forward.rs"]
mod forward;
#[path = "tunnel/pair.rs"]
mod pair;

use std::{
    collections::BTreeMap, os::unix::process::CommandExt as _, process::Command, sync::Arc,
    time::Duration,
};

use controller::{Cluster, ready, spec_of};
use landbridge::{
    engine::overlay::{Link, Observed, Operation, Overlay, plan},
    tunnel::{Driver, PrivateKey, Userspace, userspace::Settings},
};
use pair::{OUTER, POD, Pair, SEEN_AS, net, pod_of, runtime, settle};
use tokio::net::UdpSocket;

#[test]
fn packets_cross_between_two_clusters_with_the_same_range() {
    let Some(pair) = Pair::connected("cross") else {
        return;
    };
    for (side, outer) in OUTER.iter().enumerate() {
        let other = pod_of(1 - side);
        let ping = pair.exec(side, &format!("ping -c 3 -i 0.1 -W 2 -I {POD} {other}"));
        assert!(ping.status.success(), "{ping:?}");
        // From the node itself, whose address means nothing to the other side.
        let ping = pair.exec(side, &format!("ping -c 1 -W 2 -I {outer} {other}"));
        assert!(ping.status.success(), "{ping:?}");
        let seen_as = pair.transfer(side);
        assert_eq!(
            seen_as,
            pod_of(side),
            "the source is mapped one to one, bytes arrive as they were sent"
        );
    }
    pair.close_and_check();
}

#[test]
fn packets_cross_without_bundles_too() {
    let Some(pair) = Pair::up("plain", false) else {
        return;
    };
    pair.connect();
    assert_eq!(pair.transfer(0), pod_of(0));
    pair.close_and_check();
}

#[test]
fn what_somebody_deletes_is_made_again() {
    let Some(pair) = Pair::connected("mend") else {
        return;
    };
    for damage in [
        "nft delete table inet landbridge",
        "nft flush chain inet landbridge incoming",
        "ip route del 10.71.0.0/16",
        "ip address flush dev landbridge0",
        "ip link set landbridge0 down",
        "ip link del landbridge0",
    ] {
        let done = pair.exec(0, damage);
        assert!(done.status.success(), "{damage}: {done:?}");
        let driver = Arc::clone(&pair.sides[0].driver);
        let wanted = pair.overlay(0);
        let mended = pair.sides[0].run(async move {
            let mut passes = 0;
            // A vanished TUN may be noticed a moment later.
            while !settle(&driver, &wanted).await || passes == 0 {
                passes += 1;
                assert!(passes < 50, "never settles");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            passes
        });
        assert!(mended >= 1);
        assert!(pair.echo(0).is_ok(), "after {damage}");
    }
    pair.close_and_check();
}

#[test]
fn the_rules_go_at_the_end_although_the_interface_went_before() {
    let Some(pair) = Pair::connected("rules") else {
        return;
    };
    for side in &pair.sides {
        let driver = Arc::clone(&side.driver);
        let removed = side.run(async move { driver.carry_out(Operation::RemoveInterface).await });
        removed.expect("the interface can be removed");
    }
    pair.close_and_check();
}

#[test]
fn a_destination_that_was_not_offered_is_dropped_with_rules_or_without() {
    let Some(pair) = Pair::connected("guard") else {
        return;
    };
    // The victim has a LAN; the attacker tells its own tunnel that all of it is behind the peer.
    pair.sh(1, "ip address add 10.99.0.1/24 dev lo");
    pair.sh(0, "ip route add 10.99.0.0/24 dev landbridge0");
    pair.sh(0, "ip address add 10.72.0.9/32 dev lo");
    pair.sh(1, "nft flush ruleset");
    let victim = pair.sides[1].run(async {
        let socket = UdpSocket::bind("10.99.0.1:7000").await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 16];
            socket.recv_from(&mut buffer).await.unwrap().1
        })
    });
    let attacker = Arc::clone(&pair.sides[0].driver);
    let key = pair.sides[1].driver.public_key();
    pair.sides[0].run(async move {
        let link = Link {
            cluster: "victim".parse().unwrap(),
            public_key: key,
            endpoint: None,
            allowed: net("10.0.0.0/8"),
            presented: net(SEEN_AS[0]),
        };
        attacker.carry_out(Operation::SetPeer(link)).await.unwrap();
        let socket = UdpSocket::bind("10.72.0.9:0").await.unwrap();
        for _ in 0..5 {
            socket.send_to(b"hello", "10.99.0.1:7000").await.unwrap();
        }
    });
    let (driver, wanted) = (Arc::clone(&pair.sides[1].driver), pair.overlay(1));
    pair.sides[1].run(async move { while !settle(&driver, &wanted).await {} });
    // Its question came after what the victim shall not hear.
    assert!(pair.echo(0).is_ok());
    assert!(!victim.is_finished());
    victim.abort();
    pair.close_and_check();
}

#[test]
fn a_peer_that_changes_its_address_is_followed() {
    let Some(pair) = Pair::connected("roam") else {
        return;
    };
    pair.sh(0, "ip address del 192.0.2.1/24 dev outer");
    pair.sh(0, "ip address add 192.0.2.77/24 dev outer");
    assert!(pair.echo(0).is_ok());
    let driver = Arc::clone(&pair.sides[1].driver);
    let wanted = pair.overlay(1);
    let endpoint = pair.sides[1].run(async move {
        assert!(settle(&driver, &wanted).await, "the roamed endpoint stays");
        let observed = driver.observe().await.unwrap();
        observed.peers.values().next().unwrap().endpoint
    });
    assert_eq!(endpoint.unwrap().ip().to_string(), "192.0.2.77");
    assert!(pair.echo(1).is_ok());
    pair.close_and_check();
}

#[test]
fn the_controller_finds_the_endpoint_that_works_and_cleans_up() {
    let Some(pair) = Pair::up("control", true) else {
        return;
    };
    let sides = [0, 1].map(|side| {
        let (own, other) = (&pair.sides[side].driver, &pair.sides[1 - side].driver);
        // The first endpoint that each side is told is dead, and the second side is told no other:
        // it has to learn from the handshake.
        let endpoints = match side {
            0 => format!("192.0.2.99:1,{}:{}", OUTER[1], other.port()),
            _ => "192.0.2.98:1".to_owned(),
        };
        let spec = spec_of("peer", &other.public_key(), &endpoints);
        let own = Arc::clone(own);
        pair.sides[side].run(async move {
            let cluster = Cluster::start(own).await;
            let status = ready(SEEN_AS[side], SEEN_AS[1 - side]);
            cluster.create(spec, status).await;
            cluster
        })
    });
    for (side, cluster) in sides.into_iter().enumerate() {
        pair.sides[side].run(async move {
            cluster.wait_for("connected").await;
            cluster.shutdown.cancel();
        });
        pair.wait_for(side, "nft list tables", str::is_empty);
        pair.assert_clean(side);
    }
}

#[test]
fn what_a_crash_left_is_removed_at_the_next_start() {
    let Some(pair) = Pair::up("stale", true) else {
        return;
    };
    pair.sh(0, "ip tuntap add landbridge0 mode tun");
    pair.sh(0, "nft add table inet landbridge");
    pair.sides[0].run(async {
        let key = PrivateKey::generate().unwrap();
        Userspace::open(Settings::new(key, 0)).await.unwrap();
    });
    pair.assert_clean(0);
}

#[test]
fn a_second_daemon_in_one_place_says_so_and_breaks_nothing() {
    let Some(pair) = Pair::connected("twice") else {
        return;
    };
    let wanted = pair.overlay(0);
    let error = pair.sides[0].run(async move {
        let key = PrivateKey::generate().unwrap();
        let second = Userspace::open(Settings::new(key, 0)).await.unwrap();
        let nobody = Overlay {
            peers: BTreeMap::new(),
            ..wanted.clone()
        };
        assert!(
            settle(&second, &nobody).await,
            "there is nothing of its own"
        );
        let create = plan(&wanted, &Observed::default()).remove(0);
        second.carry_out(create).await.unwrap_err()
    });
    assert!(error.is_unavailable(), "{error}");
    pair.sh(0, "nft list table inet landbridge");
    assert!(pair.echo(0).is_ok());
    pair.close_and_check();
}

#[test]
fn a_port_that_was_taken_is_used_once_it_is_free() {
    let Some(pair) = Pair::up("port", true) else {
        return;
    };
    let (driver, wanted) = (Arc::clone(&pair.sides[0].driver), pair.overlay(0));
    pair.sides[0].run(async move {
        let _holder = UdpSocket::bind(("0.0.0.0", wanted.port)).await.unwrap();
        for pass in 0..3 {
            let mut refused = None;
            for operation in plan(&wanted, &driver.observe().await.unwrap()) {
                refused = driver.carry_out(operation).await.err();
                if refused.is_some() {
                    break;
                }
            }
            let refused = refused.map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains("listen on UDP port"), "{pass}: {refused}");
        }
    });
    pair.connect();
    pair.close_and_check();
}

#[test]
fn the_only_peer_may_come_with_another_key() {
    let Some(pair) = Pair::connected("rekey") else {
        return;
    };
    let (driver, wanted) = (Arc::clone(&pair.sides[0].driver), pair.overlay(0));
    let mut other = wanted.clone();
    for peer in other.peers.values_mut() {
        peer.public_key = PrivateKey::generate().unwrap().public_key();
    }
    pair.sides[0].run(async move {
        for overlay in [other, wanted] {
            settle(&driver, &overlay).await;
            assert!(settle(&driver, &overlay).await);
        }
    });
    assert!(pair.echo(0).is_ok());
    pair.close_and_check();
}

#[test]
fn without_rights_the_tunnel_says_what_is_missing() {
    const CHILD: &str = "LANDBRIDGE_TEST_WITHOUT_RIGHTS";
    if std::env::var_os(CHILD).is_some() {
        let runtime = runtime();
        runtime.block_on(async {
            let key = PrivateKey::generate().unwrap();
            let driver = Userspace::open(Settings::new(key, 0)).await.unwrap();
            assert_eq!(driver.observe().await.unwrap(), Observed::default());
            let create = Operation::CreateInterface {
                port: driver.port(),
                mtu: 1420,
            };
            let error = driver.carry_out(create).await.unwrap_err();
            assert!(error.is_unavailable(), "{error}");
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
            driver.close().await.unwrap();
        });
        println!("checked without rights");
        return;
    }
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: only root can give its rights away");
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "without_rights_the_tunnel_says_what_is_missing"])
        .arg("--nocapture")
        .env(CHILD, "1")
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output();
    match child {
        Ok(output) => {
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(printed.contains("checked without rights"), "{output:?}");
        }
        Err(error) => println!("skipped: nobody cannot run the test ({error})"),
    }
}
