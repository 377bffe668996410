//! Packets that a machine forwards into the tunnel: those of its pods, and those of a stranger who
//! takes it for a router.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use tokio::{net::TcpSocket, time::timeout};

use super::pair::{POD, Pair, command, pod_of};

/// The stranger's machine, on which there is also a pod of side 0.
const STRANGER: &str = "198.51.100.2";
const REMOTE_POD: &str = "10.244.2.20";
/// That pod, as the other side sees it.
const SEEN_POD: Ipv4Addr = Ipv4Addr::new(10, 72, 2, 20);

#[test]
fn what_is_forwarded_into_the_tunnel_comes_from_a_pod() {
    let Some(pair) = Pair::connected("forward") else {
        return;
    };
    let neighbour = Neighbour::beside(&pair);
    let target = pod_of(1);
    let ping = neighbour.exec(&format!("ping -c 3 -i 0.2 -W 2 -I {REMOTE_POD} {target}"));
    assert!(ping.status.success(), "{ping:?}");
    let ping = neighbour.exec(&format!("ping -c 3 -i 0.2 -W 1 -I {STRANGER} {target}"));
    assert!(!ping.status.success(), "{ping:?}");
    let listing = pair.exec(0, "nft list chain inet landbridge forward");
    let listing = String::from_utf8_lossy(&listing.stdout);
    assert!(listing.contains("counter packets 3"), "{listing}");
    drop(neighbour);
    pair.close_and_check();
}

#[test]
fn a_masquerade_that_came_later_takes_nothing_from_the_tunnel() {
    let Some(pair) = Pair::connected("masquerade") else {
        return;
    };
    let neighbour = Neighbour::beside(&pair);
    for line in [
        "nft add table ip cni",
        "nft add chain ip cni leaving { type nat hook postrouting priority srcnat ; }",
        "nft add rule ip cni leaving ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade",
    ] {
        pair.sh(0, line);
    }
    let target = pod_of(1);
    let ping = neighbour.exec(&format!("ping -c 2 -i 0.2 -W 2 -I {REMOTE_POD} {target}"));
    assert!(ping.status.success(), "{ping:?}");
    pair.sh(0, "nft delete table ip cni");
    drop(neighbour);
    pair.close_and_check();
}

#[test]
fn segments_of_forwarded_connections_fit_the_tunnel() {
    let Some(pair) = Pair::connected("clamp") else {
        return;
    };
    let neighbour = Neighbour::beside(&pair);
    // Both ends believe in a path of 1500 bytes.
    pair.sh(
        1,
        "ip route change 10.72.0.0/16 dev landbridge0 src 10.244.0.1 proto 76 advmss 1460",
    );
    for (side, hook, way) in [
        (1, "prerouting priority -400", "iifname landbridge0"),
        (0, "postrouting priority 300", "oifname lan"),
    ] {
        pair.sh(side, "nft add table inet probe");
        pair.sh(
            side,
            &format!("nft add chain inet probe seen {{ type filter hook {hook} ; }}"),
        );
        pair.sh(
            side,
            &format!(
                "nft add rule inet probe seen {way} tcp dport 7000 tcp option maxseg size 1380 counter"
            ),
        );
    }
    neighbour.connect((pod_of(1), 7000).into());
    pair.sides[1].run(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((POD, 0).into()).unwrap();
        let attempt = socket.connect((SEEN_POD, 7000).into());
        let _ = timeout(Duration::from_secs(5), attempt).await;
    });
    for side in 0..2 {
        let listing = pair.exec(side, "nft list table inet probe");
        let listing = String::from_utf8_lossy(&listing.stdout);
        assert!(listing.contains("counter packets 1 "), "{side}: {listing}");
        pair.sh(side, "nft delete table inet probe");
    }
    drop(neighbour);
    pair.close_and_check();
}

/// A third machine, which reaches the second through the first.
struct Neighbour {
    namespace: String,
}

impl Neighbour {
    fn beside(pair: &Pair) -> Self {
        let router = pair.namespace(0);
        let namespace = format!("{router}-n");
        for line in [
            format!("ip netns add {namespace}"),
            format!("ip link add lan netns {router} type veth peer name lan netns {namespace}"),
            format!("ip -n {router} address add 198.51.100.1/24 dev lan"),
            format!("ip -n {router} link set lan up"),
            format!("ip -n {namespace} address add {STRANGER}/24 dev lan"),
            format!("ip -n {namespace} address add {REMOTE_POD}/32 dev lo"),
            format!("ip -n {namespace} link set lo up"),
            format!("ip -n {namespace} link set lan up"),
            format!("ip -n {namespace} route add 10.0.0.0/8 via 198.51.100.1 src {REMOTE_POD}"),
            format!("ip -n {router} route add {REMOTE_POD}/32 via {STRANGER}"),
            format!("ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1"),
        ] {
            let done = command(&line);
            assert!(done.status.success(), "{line}: {done:?}");
        }
        Self { namespace }
    }

    fn exec(&self, line: &str) -> std::process::Output {
        command(&format!("ip netns exec {} {line}", self.namespace))
    }

    /// Tries to connect, from the pod.
    fn connect(&self, target: SocketAddr) {
        let path = format!("/run/netns/{}", self.namespace);
        let attempt = std::thread::spawn(move || {
            let file = std::fs::File::open(path).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let _ = TcpStream::connect_timeout(&target, Duration::from_secs(5));
        });
        attempt.join().unwrap();
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        command(&format!("ip netns del {}", self.namespace));
    }
}
