//! Real packets through real tunnels, between network namespaces of our own.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::async_yields_async,
    reason = "a rig that cannot be used fails its test"
)]

#[path = "tunnel/controller.rs"]
mod controller;

use controller::{Cluster, ready, spec_of};

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use ipnet::Ipv4Net;
use landbridge::{
    engine::overlay::{INTERFACE, Link, Observed, Operation, Overlay, Peer, plan},
    tunnel::{
        Driver, Error, PrivateKey, Userspace,
        userspace::{Settings, preflight},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, UdpSocket},
};

const OUTER: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// Both clusters use it; each has this "pod" in it.
const RANGE: &str = "10.244.0.0/16";
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 10);
/// Under which range each of the two is seen by the other.
const SEEN_AS: [&str; 2] = ["10.72.0.0/16", "10.71.0.0/16"];

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
fn a_destination_that_was_not_offered_is_dropped() {
    let Some(pair) = Pair::connected("guard") else {
        return;
    };
    // The victim has a LAN; the attacker tells its own tunnel that all of it is behind the peer.
    pair.sh(1, "ip address add 10.99.0.1/24 dev lo");
    pair.sh(0, "ip route add 10.99.0.0/24 dev landbridge0");
    pair.sh(0, "ip address add 10.72.0.9/32 dev lo");
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
    let listing = pair.wait_for(1, "nft list chain inet landbridge guard", |listing| {
        listing.contains(" drop") && !listing.contains("counter packets 0 bytes 0 drop")
    });
    assert!(!victim.is_finished(), "{listing}");
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
        let create = plan(&wanted, &Observed::default()).remove(0);
        second.carry_out(create).await.unwrap_err()
    });
    assert!(error.is_unavailable(), "{error}");
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

/// Two namespaces joined by a veth, with a driver in each.
struct Pair {
    sides: [Side; 2],
}

/// A namespace, and the thread in it on which everything of its driver runs.
struct Side {
    namespace: String,
    driver: Arc<Userspace>,
    handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pair {
    fn connected(name: &str) -> Option<Self> {
        let pair = Self::up(name, true)?;
        pair.connect();
        Some(pair)
    }

    fn up(name: &str, offload: bool) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if let Err(error) = preflight() {
            println!("skipped: {error}");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("lbt-{}-{number}-{name}", std::process::id());
        let names = ["a", "b"].map(|side| format!("{prefix}-{side}"));
        for namespace in &names {
            let made = command(&format!("ip netns add {namespace}"));
            if !made.status.success() {
                println!("skipped: network namespaces cannot be made here");
                return None;
            }
        }
        let [a, b] = &names;
        let veth = format!(
            "ip link add outer netns {a} mtu 1500 type veth peer name outer netns {b} mtu 1500"
        );
        assert!(command(&veth).status.success(), "{veth}");
        for (namespace, address) in names.iter().zip(OUTER) {
            for line in [
                format!("ip -n {namespace} link set lo up"),
                format!("ip -n {namespace} address add {address}/24 dev outer"),
                format!("ip -n {namespace} link set outer up"),
                format!("ip -n {namespace} address add {POD}/32 dev lo"),
            ] {
                assert!(command(&line).status.success(), "{line}");
            }
        }
        Some(Self {
            sides: names.map(|namespace| Side::start(namespace, offload)),
        })
    }

    /// Carries the wanted overlays out and waits until an echo comes back.
    fn connect(&self) {
        for side in 0..2 {
            let (driver, wanted) = (Arc::clone(&self.sides[side].driver), self.overlay(side));
            let settled = self.sides[side].run(async move {
                settle(&driver, &wanted).await;
                settle(&driver, &wanted).await
            });
            assert!(settled, "a second plan has nothing to do");
        }
        for side in 0..2 {
            let round_trip = self.echo(side).expect("an echo comes back");
            println!("echo {round_trip:?}");
        }
    }

    fn overlay(&self, side: usize) -> Overlay {
        let other = &self.sides[1 - side].driver;
        let endpoint = SocketAddr::new(OUTER[1 - side].parse().unwrap(), other.port());
        let peer = Peer {
            public_key: other.public_key(),
            endpoints: vec![endpoint],
            turn: 0,
            remote: net(SEEN_AS[1 - side]),
            local_nat: Some(net(SEEN_AS[side])),
        };
        Overlay {
            interface: INTERFACE.to_owned(),
            local: net(RANGE),
            mtu: 1420,
            port: self.sides[side].driver.port(),
            peers: BTreeMap::from([("peer".parse().unwrap(), peer)]),
        }
    }

    fn echo(&self, side: usize) -> Result<Duration, Error> {
        let driver = Arc::clone(&self.sides[side].driver);
        let target = self.overlay(side).peers.values().next().unwrap().target();
        self.sides[side].run(async move {
            let mut answer = driver.probe(target).await;
            for _ in 0..8 {
                if answer.is_ok() {
                    break;
                }
                answer = driver.probe(target).await;
            }
            answer
        })
    }

    /// Sends some megabytes from one side's pod to the other's and back; returns the source that
    /// the other side saw.
    fn transfer(&self, side: usize) -> Ipv4Addr {
        let listener = self.sides[1 - side].run(async move {
            let listener = TcpListener::bind((POD, 7000)).await.unwrap();
            tokio::spawn(async move {
                let (mut stream, from) = listener.accept().await.unwrap();
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
                from.ip()
            })
        });
        let target = SocketAddr::from((pod_of(1 - side), 7000));
        self.sides[side].run(async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((POD, 0).into()).unwrap();
            let stream = tokio::time::timeout(Duration::from_secs(20), socket.connect(target));
            let (mut read, mut write) = stream.await.unwrap().unwrap().into_split();
            let bytes: Vec<u8> = (0..4_000_000_u32).map(|it| (it % 251) as u8).collect();
            let sent = bytes.clone();
            let writer = tokio::spawn(async move {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut back = Vec::new();
            tokio::time::timeout(Duration::from_mins(1), read.read_to_end(&mut back))
                .await
                .unwrap()
                .unwrap();
            writer.await.unwrap();
            assert!(back == bytes, "{} bytes came back", back.len());
        });
        let from = self.sides[1 - side].run(async move { listener.await.unwrap() });
        let std::net::IpAddr::V4(from) = from else {
            panic!("{from}");
        };
        from
    }

    fn close_and_check(&self) {
        for side in 0..2 {
            let driver = Arc::clone(&self.sides[side].driver);
            self.sides[side]
                .run(async move { driver.close().await })
                .unwrap();
            self.assert_clean(side);
        }
    }

    fn assert_clean(&self, side: usize) {
        assert!(!self.exec(side, "ip link show landbridge0").status.success());
        let routes = self.exec(side, "ip route show proto 76");
        assert_eq!(String::from_utf8_lossy(&routes.stdout), "");
        let tables = self.exec(side, "nft list tables");
        assert_eq!(String::from_utf8_lossy(&tables.stdout), "");
    }

    fn wait_for(&self, side: usize, line: &str, is_there: impl Fn(&str) -> bool) -> String {
        for _ in 0..100 {
            let output = self.exec(side, line);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if is_there(&text) {
                return text;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let output = self.exec(side, line);
        panic!("{}", String::from_utf8_lossy(&output.stdout));
    }

    fn exec(&self, side: usize, line: &str) -> Output {
        let namespace = &self.sides[side].namespace;
        command(&format!("ip netns exec {namespace} {line}"))
    }

    fn sh(&self, side: usize, line: &str) {
        let output = self.exec(side, line);
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

impl Side {
    fn start(namespace: String, offload: bool) -> Self {
        let (ready, started) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let path = format!("/run/netns/{namespace}");
        let thread = std::thread::spawn(move || {
            let file = std::fs::File::open(path).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = runtime();
            runtime.block_on(async {
                let key = PrivateKey::generate().unwrap();
                let mut settings = Settings::new(key, 0);
                settings.offload = offload;
                let driver = Arc::new(Userspace::open(settings).await.unwrap());
                let handle = tokio::runtime::Handle::current();
                ready.send((driver, handle)).unwrap();
                let _ = stopped.await;
            });
        });
        let (driver, handle) = started.recv().expect("the side starts");
        Self {
            namespace,
            driver,
            handle,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Runs something on the thread that is in the namespace.
    fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        let (send, receive) = mpsc::channel();
        self.handle.spawn(async move {
            let _ = send.send(task.await);
        });
        receive.recv().expect("the task ends well")
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        command(&format!("ip netns del {}", self.namespace));
    }
}

/// Carries out what is left to do; returns whether that was nothing.
async fn settle(driver: &Userspace, wanted: &Overlay) -> bool {
    let operations = plan(wanted, &driver.observe().await.unwrap());
    let is_settled = operations.is_empty();
    for operation in operations {
        let shown = format!("{operation:?}");
        let done = driver.carry_out(operation).await;
        assert!(done.is_ok(), "{shown}: {done:?}");
    }
    is_settled
}

fn pod_of(side: usize) -> Ipv4Addr {
    let range = u32::from(net(SEEN_AS[side]).network());
    Ipv4Addr::from(range | (u32::from(POD) & 0xffff))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn command(line: &str) -> Output {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let missing = |error| panic!("{program}: {error}");
    Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(missing)
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}
