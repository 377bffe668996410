//! Two machines with a tunnel between them: namespaces joined by a veth, and the real driver in each.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::async_yields_async,
    reason = "a rig that cannot be used fails its test"
)]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
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
    engine::overlay::{INTERFACE, Overlay, Peer, plan},
    tunnel::{
        Driver, Error, PrivateKey, Userspace,
        userspace::{Settings, preflight},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
};

pub(crate) const OUTER: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// Both clusters use it; each has this "pod" in it.
pub(crate) const RANGE: &str = "10.244.0.0/16";
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 10);
/// Under which range each of the two is seen by the other.
pub(crate) const SEEN_AS: [&str; 2] = ["10.72.0.0/16", "10.71.0.0/16"];

/// Two namespaces joined by a veth, with a driver in each.
pub(crate) struct Pair {
    pub(crate) sides: [Side; 2],
}

/// A namespace, and the thread in it on which everything of its driver runs.
pub(crate) struct Side {
    namespace: String,
    pub(crate) driver: Arc<Userspace>,
    handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pair {
    pub(crate) fn connected(name: &str) -> Option<Self> {
        let pair = Self::up(name, true)?;
        pair.connect();
        Some(pair)
    }

    pub(crate) fn up(name: &str, offload: bool) -> Option<Self> {
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
    pub(crate) fn connect(&self) {
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

    pub(crate) fn overlay(&self, side: usize) -> Overlay {
        let other = &self.sides[1 - side].driver;
        let endpoint = SocketAddr::new(OUTER[1 - side].parse().unwrap(), other.port());
        let peer = Peer {
            public_key: other.public_key(),
            endpoints: vec![endpoint],
            turn: 0,
            is_silent: false,
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

    pub(crate) fn echo(&self, side: usize) -> Result<Duration, Error> {
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
    pub(crate) fn transfer(&self, side: usize) -> Ipv4Addr {
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

    pub(crate) fn close_and_check(&self) {
        for side in 0..2 {
            let driver = Arc::clone(&self.sides[side].driver);
            self.sides[side]
                .run(async move { driver.close().await })
                .unwrap();
            self.assert_clean(side);
        }
    }

    pub(crate) fn assert_clean(&self, side: usize) {
        assert!(!self.exec(side, "ip link show landbridge0").status.success());
        let routes = self.exec(side, "ip route show proto 76");
        assert_eq!(String::from_utf8_lossy(&routes.stdout), "");
        let tables = self.exec(side, "nft list tables");
        assert_eq!(String::from_utf8_lossy(&tables.stdout), "");
    }

    pub(crate) fn wait_for(
        &self,
        side: usize,
        line: &str,
        is_there: impl Fn(&str) -> bool,
    ) -> String {
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

    pub(crate) fn exec(&self, side: usize, line: &str) -> Output {
        let namespace = &self.sides[side].namespace;
        command(&format!("ip netns exec {namespace} {line}"))
    }

    pub(crate) fn namespace(&self, side: usize) -> &str {
        &self.sides[side].namespace
    }

    pub(crate) fn sh(&self, side: usize, line: &str) {
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
    pub(crate) fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
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
pub(crate) async fn settle(driver: &Userspace, wanted: &Overlay) -> bool {
    let operations = plan(wanted, &driver.observe().await.unwrap());
    let is_settled = operations.is_empty();
    for operation in operations {
        let shown = format!("{operation:?}");
        let done = driver.carry_out(operation).await;
        assert!(done.is_ok(), "{shown}: {done:?}");
    }
    is_settled
}

pub(crate) fn pod_of(side: usize) -> Ipv4Addr {
    let range = u32::from(net(SEEN_AS[side]).network());
    Ipv4Addr::from(range | (u32::from(POD) & 0xffff))
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub(crate) fn command(line: &str) -> Output {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let missing = |error| panic!("{program}: {error}");
    Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(missing)
}

pub(crate) fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}
