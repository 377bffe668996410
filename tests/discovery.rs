//! Discovery on the LAN with real packets: hosts are network namespaces on one bridge.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "what tests share stands outside of the test functions"
)]

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    process::Command,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use landbridge::{
    api::identity::{ClusterId, ClusterName},
    discovery::{
        Health,
        interfaces::InterfaceRules,
        mdns::{Mdns, MdnsHandle},
        source::{Announcement, EventSink, Source},
    },
    engine::{
        roster::{Bounds, Change, Roster},
        sighting::{Event, Sighting},
    },
};
use nix::sched::{CloneFlags, setns};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine; what is waited for ends the wait.
const PATIENCE: Duration = Duration::from_secs(30);

#[path = "discovery/forgery.rs"]
mod forgery;

const ROME: &str = "0f1e2d3c-4b5a-8697-8877-665544332211";
const MILAN: &str = "1f1e2d3c-4b5a-8697-8877-665544332211";

#[test]
fn two_clusters_see_each_other_until_one_says_goodbye() {
    in_namespaces("two_clusters_see_each_other_until_one_says_goodbye", || {
        let lan = Lan::new(2);
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        let milan = Host::start(&lan, 1, announcement(MILAN, "milan"));
        let seen = rome.sees(|sighting| has_address(sighting, 2));
        assert_eq!(seen.cluster_id, MILAN.parse().ok());
        assert_eq!(seen.name.as_str(), "milan");
        assert_eq!(seen.boot.as_deref(), Some("boot00milan"));
        assert_eq!(seen.interface.as_deref(), Some("eth0"));
        assert!(
            seen.endpoints
                .iter()
                .all(|endpoint| endpoint.port() == 5870)
        );
        milan.sees(|sighting| sighting.cluster_id == ROME.parse().ok());
        assert_eq!(
            *rome.handle.health().borrow(),
            Health::Working {
                interfaces: vec!["eth0".to_owned()]
            }
        );
        drop(milan);
        rome.misses(MILAN);
    });
}

#[test]
fn an_address_change_is_followed() {
    in_namespaces("an_address_change_is_followed", || {
        let lan = Lan::new(2);
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        let _milan = Host::start(&lan, 1, announcement(MILAN, "milan"));
        rome.sees(|sighting| has_address(sighting, 2));
        lan.ip(1, "addr del 10.77.0.2/24 dev eth0");
        lan.ip(1, "addr add 10.77.0.99/24 dev eth0");
        rome.sees(|sighting| has_address(sighting, 99) && !has_address(sighting, 2));
    });
}

#[test]
fn an_address_with_a_label_belongs_to_its_interface() {
    in_namespaces("an_address_with_a_label_belongs_to_its_interface", || {
        let lan = Lan::new(2);
        lan.ip(0, "addr add 10.79.0.1/24 label eth0:1 dev eth0");
        lan.ip(1, "addr del 10.77.0.2/24 dev eth0");
        lan.ip(1, "addr add 10.79.0.2/24 dev eth0");
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        let milan = Host::start(&lan, 1, announcement(MILAN, "milan"));
        for (host, last) in [(&rome, 2), (&milan, 1)] {
            let place = IpAddr::from([10, 79, 0, last]);
            host.sees(|sighting| sighting.endpoints.iter().any(|one| one.ip() == place));
        }
        rome.reaches(|health| {
            let interfaces = vec!["eth0".to_owned()];
            *health == Health::Working { interfaces }
        });
    });
}

#[test]
fn a_clone_of_ourselves_is_told_apart() {
    in_namespaces("a_clone_of_ourselves_is_told_apart", || {
        let lan = Lan::new(2);
        let original = Host::start(&lan, 0, announcement(ROME, "rome"));
        let _clone = Host::start(&lan, 1, announcement(ROME, "copy"));
        let seen = original.sees(|sighting| sighting.boot.as_deref() == Some("boot000copy"));
        let own_id = ROME.parse().expect("the test names a UUID");
        let mut roster = Roster::new(own_id, "boot000rome".to_owned(), Bounds::default());
        roster.handle_event(Event::Seen(seen), jiff::Timestamp::UNIX_EPOCH);
        assert!(matches!(roster.poll_change(), Some(Change::Duplicate(_))));
    });
}

#[test]
fn the_switches_and_the_name_act_while_it_runs() {
    in_namespaces("the_switches_and_the_name_act_while_it_runs", || {
        let lan = Lan::new(2);
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        let milan = Host::start(&lan, 1, announcement(MILAN, "milan"));
        rome.sees(|sighting| sighting.name.as_str() == "milan");
        milan.announce(|announcement| announcement.name = ClusterName::neutralise("milano"));
        rome.sees(|sighting| sighting.name.as_str() == "milano");
        milan.announce(|announcement| announcement.advertise = false);
        rome.misses(MILAN);
        rome.announce(|announcement| announcement.discover = false);
        rome.announce(|announcement| announcement.advertise = false);
        rome.reaches(|health| *health == Health::SwitchedOff);
        milan.announce(|announcement| announcement.advertise = true);
        rome.announce(|announcement| announcement.discover = true);
        rome.sees(|sighting| sighting.name.as_str() == "milano");
    });
}

#[test]
fn a_host_that_vanished_is_found_out_by_verifying() {
    in_namespaces("a_host_that_vanished_is_found_out_by_verifying", || {
        let lan = Lan::new(2);
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        let _milan = Host::start(&lan, 1, announcement(MILAN, "milan"));
        rome.sees(|sighting| has_address(sighting, 2));
        lan.ip(1, "link set eth0 down");
        assert!(rome.handle.verify(MILAN));
        rome.misses(MILAN);
    });
}

#[test]
fn a_machine_without_a_network_waits_for_one() {
    in_namespaces("a_machine_without_a_network_waits_for_one", || {
        let lan = Lan::new(2);
        lan.ip(0, "link set eth0 down");
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        let milan = Host::start(&lan, 1, announcement(MILAN, "milan"));
        rome.reaches(|health| matches!(health, Health::NoInterface { .. }));
        lan.ip(0, "link set eth0 up");
        rome.reaches(|health| matches!(health, Health::Working { .. }));
        rome.sees(|sighting| has_address(sighting, 2));
        milan.sees(|sighting| has_address(sighting, 1));
    });
}

#[test]
fn a_port_that_is_taken_is_said_and_tried_again() {
    in_namespaces("a_port_that_is_taken_is_said_and_tried_again", || {
        let lan = Lan::new(1);
        let greedy = lan.inside(0, || {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).expect("the namespace is new")
        });
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        rome.reaches(|health| matches!(health, Health::PortTaken { .. }));
        drop(greedy);
        rome.reaches(|health| matches!(health, Health::Working { .. }));
    });
}

fn announcement(id: &str, name: &str) -> Announcement {
    Announcement {
        cluster_id: id.parse::<ClusterId>().expect("the test names a UUID"),
        name: ClusterName::neutralise(name),
        boot: format!("boot{name:0>7}"),
        port: 5870,
        ttl: Duration::from_mins(2),
        advertise: true,
        discover: true,
    }
}

fn has_address(sighting: &Sighting, last: u8) -> bool {
    let address = IpAddr::from([10, 77, 0, last]);
    sighting
        .endpoints
        .iter()
        .any(|endpoint| endpoint.ip() == address)
}

/// A running source in a namespace.
struct Host {
    announcement: watch::Sender<Announcement>,
    handle: MdnsHandle,
    events: mpsc::Receiver<Event>,
    shutdown: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Host {
    fn start(lan: &Lan, index: usize, announcement: Announcement) -> Self {
        let (announcement, follower) = watch::channel(announcement);
        let (source, handle) = Mdns::new(InterfaceRules::default(), follower);
        let shutdown = CancellationToken::new();
        let (sender, events) = mpsc::channel();
        let (namespace, token) = (lan.names[index].clone(), shutdown.clone());
        let thread = thread::spawn(move || {
            enter(&namespace);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be built");
            runtime.block_on(async {
                let (sink, mut finds) = EventSink::channel();
                tokio::spawn(async move {
                    while let Some(event) = finds.recv().await {
                        if sender.send(event).is_err() {
                            break;
                        }
                    }
                });
                Box::new(source).run(sink, token).await;
            });
        });
        Self {
            announcement,
            handle,
            events,
            shutdown,
            thread: Some(thread),
        }
    }

    fn announce(&self, change: impl FnOnce(&mut Announcement)) {
        self.announcement.send_modify(change);
    }

    /// Waits for a sighting.
    fn sees(&self, wanted: impl Fn(&Sighting) -> bool) -> Sighting {
        self.wait(|event| match event {
            Event::Seen(sighting) if wanted(&sighting) => Some(sighting),
            Event::Seen(_) | Event::Gone { .. } => None,
        })
    }

    /// Waits until an advertisement is gone.
    fn misses(&self, id: &str) {
        self.wait(|event| {
            matches!(event, Event::Gone { instance, .. } if instance == id).then_some(())
        });
    }

    fn wait<T>(&self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = std::collections::VecDeque::new();
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(rest) else {
                panic!("it was waited for in vain; heard first: {heard:#?}");
            };
            heard.push_back(event.clone());
            heard.truncate(20);
            if let Some(result) = wanted(event) {
                return result;
            }
        }
    }

    /// Waits for a state of health.
    fn reaches(&self, wanted: impl Fn(&Health) -> bool) {
        let health = self.handle.health();
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&health.borrow()) {
            assert!(Instant::now() < deadline, "it stays {:?}", *health.borrow());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Namespaces with an interface `eth0` each, at `10.77.0.1` and up, on one bridge.
struct Lan {
    switch: String,
    names: Vec<String>,
}

impl Lan {
    fn new(hosts: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("lbd-{}-{number}", std::process::id());
        let lan = Self {
            switch: format!("{prefix}-switch"),
            names: (0..hosts).map(|host| format!("{prefix}-{host}")).collect(),
        };
        let switch = &lan.switch;
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add bridge0 type bridge"));
        ip(&format!("-n {switch} link set bridge0 up"));
        for (index, name) in lan.names.iter().enumerate() {
            let port = format!("port{index}");
            ip(&format!("netns add {name}"));
            ip(&format!(
                "-n {switch} link add {port} type veth peer name eth0 netns {name}"
            ));
            ip(&format!("-n {switch} link set {port} master bridge0 up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!(
                "-n {name} addr add 10.77.0.{}/24 dev eth0",
                index + 1
            ));
            ip(&format!("-n {name} link set eth0 up"));
        }
        lan
    }

    fn ip(&self, host: usize, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.names[host]));
    }

    fn inside<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(&self.names[host]);
                    work()
                })
                .join()
                .expect("the work does not panic")
        })
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.switch]) {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("ip(8) is there: it was asked before");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {complaint}");
}

/// Moves this thread, and those that it starts, into a namespace.
fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).expect("the namespace was made");
    setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter its namespaces");
}

/// Runs a test where namespaces can be made: as root, or else once more inside a user namespace.
fn in_namespaces(test: &str, body: impl FnOnce()) {
    const NESTED: &str = "LANDBRIDGE_TEST_IN_USER_NAMESPACE";
    let runs = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !runs("ip", &["-V"]) {
        println!("skipped: ip(8) is not installed");
    } else if nix::unistd::geteuid().is_root() {
        if std::env::var_os(NESTED).is_some() {
            // `ip netns` keeps its names under /run, which belongs to another user out there.
            assert!(
                runs("mount", &["-t", "tmpfs", "tmpfs", "/run"]),
                "/run can be covered"
            );
        }
        let probe = format!("lbd-{}-probe-{test:.24}", std::process::id());
        if runs("ip", &["netns", "add", &probe]) {
            let _ = runs("ip", &["netns", "del", &probe]);
            body();
        } else {
            println!("skipped: network namespaces cannot be made here");
        }
    } else if runs("unshare", &["-Urmn", "true"]) {
        let program = std::env::current_exe().expect("a test knows its program");
        let status = Command::new("unshare")
            .arg("-Urmn")
            .arg(program)
            .args(["--exact", test, "--nocapture"])
            .env(NESTED, "1")
            .status()
            .expect("unshare was there just now");
        assert!(
            status.success(),
            "the test failed inside the user namespace"
        );
    } else {
        println!("skipped: neither root nor user namespaces");
    }
}
