//! How fast a cluster is found, lost and found again on a LAN:
//! `cargo bench --bench discovery [-- --rounds N]`.
//!
//! Machines are network namespaces on one bridge, so it needs root. In each round rome has run for a
//! moment when milan starts; what rome logs, or what is heard on the wire, is compared with when it
//! was caused, by one clock. In the same run Avahi and python-zeroconf do the same where they are
//! installed: Avahi from Debian, python-zeroconf from PyPI. Beside these, five hundred announced
//! clusters are held at rest by each.
//!
//! Most of a round is waiting, so several LANs are there at the same time; what takes milliseconds
//! is measured while no other one is made to do anything.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::unreachable,
    reason = "a benchmark prints, and cannot go on without its rig"
)]

#[path = "rig/crowd.rs"]
mod crowd;
#[path = "rig/ear.rs"]
mod ear;
#[path = "rig/lan.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest")]
mod lan;
#[path = "rig/others.rs"]
mod others;
#[path = "../tests/support/process.rs"]
#[expect(dead_code, reason = "tests and benchmarks elsewhere use the rest")]
mod process;
#[path = "rig/table.rs"]
mod table;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use crowd::Crowd;
use ear::Ear;
use jiff::Timestamp;
use lan::{Lan, Machine};
use nix::sys::signal::Signal;
use others::{Follower, Other};
use table::{OURS, Table};

const ROUNDS: usize = 20;
/// How many LANs of our own, and of each other program, are there at the same time.
const LANES: (usize, usize) = (3, 2);
/// How long a machine runs before the next thing happens to it.
const MOMENT: Duration = Duration::from_millis(1500);
/// How long the cable of others is out.
const UNPLUGGED: Duration = Duration::from_secs(3);
/// What may take longer than this is waited for while others go on.
const SHORT: Duration = Duration::from_secs(3);
/// How long anything is waited for before it counts as never.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a silent death may take to be told.
const SILENCE: Duration = Duration::from_secs(30);

const ROME: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const MILAN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
const MOVED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 99));
/// The data of an address record with milan's new address (RFC 1035, section 3.4.1).
const MOVED_RECORD: [u8; 6] = [0, 4, 10, 77, 0, 99];

const PROCESS_RESOLVED: &str = "process starts -> resolved by the other, ms";
const PROVEN: &str = "process starts -> ForeignCluster, proven, ms";
const RESOLVED: &str = "announcement starts -> resolved by the other, ms";
const SECOND: &str = "second starter -> the first resolved, ms";
const GOODBYE: &str = "goodbye -> endpoint gone, ms";
const RESTARTED: &str = "restart -> Peered again, ms";
const DOWN_GONE: &str = "link down -> endpoint gone, ms";
const DOWN_STATE: &str = "link down -> the state says so, ms";
const UP_ANNOUNCED: &str = "link up -> announced again, ms";
const UP_PEERED: &str = "link up -> Peered again, ms";
const ADDRESS_ANNOUNCED: &str = "address change -> announced, ms";
const ADDRESS_KNOWN: &str = "address change -> new endpoint known, ms";
const KILLED_GONE: &str = "kill -9 -> endpoint gone, ms";
const KILLED_STATE: &str = "kill -9 -> the state says so, ms";
const CROWD_MEMORY: &str = "500 announced at rest: RSS, MiB";
const CROWD_SHARE: &str = "500 announced at rest: CPU, % of a core";
const CROWD_SENT: &str = "500 announced at rest: packets sent a minute";
const CROWD_RECEIVED: &str = "500 announced at rest: received a minute";
const ORDER: [&str; 18] = [
    PROCESS_RESOLVED,
    PROVEN,
    RESOLVED,
    SECOND,
    GOODBYE,
    RESTARTED,
    DOWN_GONE,
    DOWN_STATE,
    UP_ANNOUNCED,
    UP_PEERED,
    ADDRESS_ANNOUNCED,
    ADDRESS_KNOWN,
    KILLED_GONE,
    KILLED_STATE,
    CROWD_MEMORY,
    CROWD_SHARE,
    CROWD_SENT,
    CROWD_RECEIVED,
];

fn main() {
    let Some(rounds) = rounds() else {
        eprintln!("usage: cargo bench --bench discovery [-- --rounds N], N from 1 on");
        std::process::exit(2);
    };
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let others = others::installed();
    let bench = Bench {
        rounds,
        started: Instant::now(),
        table: Mutex::default(),
        quiet: Mutex::default(),
        has_failed: AtomicBool::new(false),
    };
    bench.run(&others);
    println!("n = {rounds}, machines on one bridge; the ratio is to landbridge's median");
    println!("never: not within {PATIENCE:?}, after three times not waited for again");
    let table = bench.table.into_inner();
    table.unwrap_or_else(PoisonError::into_inner).print(&ORDER);
}

/// How many rounds are wanted; nothing if that cannot be understood. Cargo adds `--bench`.
fn rounds() -> Option<usize> {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    match (words.next().as_deref(), words.next(), words.next()) {
        (None, ..) => Some(ROUNDS),
        (Some("--rounds"), Some(number), None) => number.parse().ok().filter(|number| *number > 0),
        _ => None,
    }
}

/// A run of the benchmark.
struct Bench {
    rounds: usize,
    started: Instant,
    table: Mutex<Table>,
    /// Held by whoever measures milliseconds or makes processes start.
    quiet: Mutex<()>,
    has_failed: AtomicBool,
}

impl Bench {
    fn run(&self, others: &[Other]) {
        let next: Vec<AtomicUsize> = (0..=others.len()).map(|_| AtomicUsize::new(0)).collect();
        thread::scope(|scope| {
            for other in others.iter().map(Some).chain([None]) {
                scope.spawn(move || self.guarded(|| self.hold_a_crowd(other)));
            }
            for _ in 0..LANES.0 {
                scope.spawn(|| self.lane(OURS, &next[0], |_| self.landbridge()));
            }
            for (other, next) in others.iter().zip(&next[1..]) {
                for _ in 0..LANES.1 {
                    let round = |number| self.compare(other, number);
                    scope.spawn(move || self.lane(other.name, next, round));
                }
            }
        });
    }

    /// Does rounds until all are done.
    fn lane(&self, name: &str, next: &AtomicUsize, round: impl Fn(usize)) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.rounds || self.has_failed.load(Ordering::Relaxed) {
                return;
            }
            self.guarded(|| round(number));
            self.tell(&format!("{name}: round {} of {}", number + 1, self.rounds));
        }
    }

    /// Lets nobody begin anything new after a failure.
    fn guarded(&self, work: impl FnOnce()) {
        struct Alarm<'a>(&'a AtomicBool);
        impl Drop for Alarm<'_> {
            fn drop(&mut self) {
                self.0.fetch_or(thread::panicking(), Ordering::Relaxed);
            }
        }
        let _alarm = Alarm(&self.has_failed);
        work();
    }

    fn tell(&self, what: &str) {
        eprintln!("{:>4} s  {what}", self.started.elapsed().as_secs());
    }

    fn quiet(&self) -> MutexGuard<'_, ()> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, row: &'static str, column: &'static str, from: Timestamp, to: Option<Timestamp>) {
        // What a log has at the very moment of its cause can be a microsecond early.
        let milliseconds = to.map_or(f64::INFINITY, |to| {
            Duration::try_from(to - from)
                .unwrap_or_default()
                .as_secs_f64()
                * 1000.0
        });
        self.table().add(row, column, milliseconds);
    }

    /// Measures from a cause to its effect.
    fn time(
        &self,
        row: &'static str,
        column: &'static str,
        cause: impl FnOnce() -> Timestamp,
        effect: impl Fn(Timestamp, Duration) -> Option<Timestamp>,
    ) -> Timestamp {
        let quiet = self.quiet();
        let from = cause();
        if self.table().is_hopeless(row, column) {
            return from;
        }
        let mut to = effect(from, SHORT);
        drop(quiet);
        if to.is_none() {
            to = effect(from, PATIENCE.saturating_sub(SHORT));
        }
        self.add(row, column, from, to);
        from
    }
}

/// Two daemons.
impl Bench {
    fn landbridge(&self) {
        let lan = Lan::new(&["rome", "milan"]);
        let ear = Ear::on(&lan, "rome", ROME);
        let quiet = self.quiet();
        let rome = lan.start("rome");
        rome.logged("Landbridge runs");
        drop(quiet);
        sleep(MOMENT);
        let milan = self.meet(&lan, &rome);
        sleep(MOMENT);
        let ended =
            |at: Timestamp, patience| rome.logged_within(patience, at, &["Advertisement gone"]);
        let from = self.time(GOODBYE, OURS, || milan.end(Signal::SIGTERM), ended);
        self.explain(GOODBYE, from, ended(from, Duration::ZERO), &rome);

        let quiet = self.quiet();
        let milan = lan.start("milan");
        let back = rome.logged_since(milan.started, &["to=\"Peered\""]);
        drop(quiet);
        self.add(RESTARTED, OURS, milan.started, Some(back));
        sleep(MOMENT);
        // A tunnel to somebody who was away may need a moment longer on a busy machine.
        rome.settled_within(SILENCE, "Peered");
        self.unplug(&lan, &rome, &ear);
        sleep(MOMENT);
        self.change_address(&lan, &rome, &ear);
        sleep(MOMENT);
        // Else it may be degraded already by what was done to it before.
        rome.settled_within(SILENCE, "Peered");

        let killed = milan.end(Signal::SIGKILL);
        self.die(&rome, killed, (KILLED_GONE, KILLED_STATE));
    }

    /// Milan starts, and both find each other.
    fn meet(&self, lan: &Lan, rome: &Machine) -> Machine {
        let quiet = self.quiet();
        let milan = lan.start("milan");
        let announces = milan.logged("Discovery on the LAN started");
        let seen = rome.logged("Advertisement seen");
        let found = rome.logged("Cluster found");
        let second = milan.logged("Advertisement seen");
        rome.logged("to=\"Peered\"");
        drop(quiet);
        self.add(PROCESS_RESOLVED, OURS, milan.started, Some(seen));
        self.add(PROVEN, OURS, milan.started, Some(found));
        self.add(RESOLVED, OURS, announces, Some(seen));
        self.add(SECOND, OURS, announces, Some(second));
        milan
    }

    /// The cable is out until everybody knows, and in again.
    fn unplug(&self, lan: &Lan, rome: &Machine, ear: &Ear) {
        let down = Timestamp::now();
        lan.ip("milan", "link set eth0 down");
        self.die(rome, down, (DOWN_GONE, DOWN_STATE));
        let plug = || {
            let at = Timestamp::now();
            lan.ip("milan", "link set eth0 up");
            at
        };
        let announced = |at, patience| ear.announced(at, &[MILAN], &[], patience);
        let plugged = self.time(UP_ANNOUNCED, OURS, plug, announced);
        let peered = rome.logged_within(SILENCE, plugged, &["to=\"Peered\""]);
        self.add(UP_PEERED, OURS, plugged, peered);
    }

    fn change_address(&self, lan: &Lan, rome: &Machine, ear: &Ear) {
        let announced = |at, patience| ear.announced(at, &[MILAN, MOVED], &MOVED_RECORD, patience);
        let moved = self.time(ADDRESS_ANNOUNCED, OURS, || move_milan(lan), announced);
        let words = ["Advertisement seen", "10.77.0.99:"];
        let known = rome.logged_within(PATIENCE, moved, &words);
        self.add(ADDRESS_KNOWN, OURS, moved, known);
    }

    /// Milan is silent from a time on.
    fn die(&self, rome: &Machine, at: Timestamp, (gone, state): (&'static str, &'static str)) {
        let vanished = rome.logged_within(SILENCE, at, &["Advertisement gone"]);
        self.add(gone, OURS, at, vanished);
        let degraded = rome.logged_within(SILENCE, at, &["to=\"Degraded\""]);
        self.add(state, OURS, at, degraded);
        self.explain(gone, at, vanished, rome);
        self.explain(state, at, degraded, rome);
    }

    /// Shows the log of a machine when something did not come about.
    fn explain(&self, row: &str, from: Timestamp, to: Option<Timestamp>, machine: &Machine) {
        if to.is_none() {
            let log = machine.log();
            self.tell(&format!("{row}: not since {from}; the log says:\n{log}"));
        }
    }
}

fn move_milan(lan: &Lan) -> Timestamp {
    let at = Timestamp::now();
    lan.ip("milan", "address del 10.77.0.2/24 dev eth0");
    lan.ip("milan", "address add 10.77.0.99/24 dev eth0");
    at
}

/// Another implementation, as far as it does the same.
impl Bench {
    fn compare(&self, other: &Other, number: usize) {
        let lan = Lan::new(&["rome", "milan", "turin"]);
        let ear = Ear::on(&lan, "rome", ROME);
        let quiet = self.quiet();
        let rome = other.follow(&lan, "rome");
        let mut milan = other.announcer(&lan, "milan");
        drop(quiet);
        sleep(MOMENT);
        let name = other.name;
        let instance = format!("goodbye-{number}");
        let gone = |instance: String| {
            let rome = &rome;
            move |at, patience| rome.heard('-', &instance, at, patience)
        };
        let resolved = |follower: &Follower, instance: &str, at, patience| {
            follower.heard('=', instance, at, patience)
        };
        let seen = |at, patience| resolved(&rome, &instance, at, patience);
        self.time(RESOLVED, name, || milan.announce(&instance), seen);
        sleep(MOMENT);
        self.time(GOODBYE, name, || milan.withdraw(), gone(instance.clone()));

        let instance = format!("killed-{number}");
        let quiet = self.quiet();
        let started = milan.announce(&instance);
        drop(quiet);
        resolved(&rome, &instance, started, PATIENCE);
        sleep(MOMENT);
        let quiet = self.quiet();
        let turin = other.follow(&lan, "turin");
        let second = resolved(&turin, &instance, turin.started, SHORT);
        drop(quiet);
        self.add(SECOND, name, turin.started, second);
        drop(turin);
        self.disturb(&lan, name, &ear);
        self.time(KILLED_GONE, name, || milan.kill(), gone(instance));
    }

    /// The cable is out for a while, then milan gets another address.
    fn disturb(&self, lan: &Lan, name: &'static str, ear: &Ear) {
        lan.ip("milan", "link set eth0 down");
        sleep(UNPLUGGED);
        let plug = || {
            let at = Timestamp::now();
            lan.ip("milan", "link set eth0 up");
            at
        };
        let announced = |at, patience| ear.announced(at, &[MILAN], &[], patience);
        self.time(UP_ANNOUNCED, name, plug, announced);
        sleep(MOMENT);
        let announced = |at, patience| ear.announced(at, &[MILAN, MOVED], &MOVED_RECORD, patience);
        self.time(ADDRESS_ANNOUNCED, name, || move_milan(lan), announced);
        sleep(MOMENT);
    }
}

/// Five hundred announced clusters.
impl Bench {
    /// Lets one program know all of them: another one, or ours.
    fn hold_a_crowd(&self, other: Option<&Other>) {
        let name = other.map_or(OURS, |other| other.name);
        let lan = Lan::new(&["rome", "crowd"]);
        let quiet = self.quiet();
        let used = if let Some(other) = other {
            let rome = other.follow(&lan, "rome");
            let _crowd = Crowd::on(&lan, "crowd");
            let found = rome.resolved(crowd::SIZE, SILENCE);
            drop(quiet);
            self.tell(&format!("{name}: {found} of {} resolved", crowd::SIZE));
            crowd::at_rest(&lan, "rome", &rome.processes())
        } else {
            let rome = lan.start("rome");
            rome.logged("Landbridge runs");
            let _crowd = Crowd::on(&lan, "crowd");
            let deadline = Instant::now() + SILENCE;
            while rome.advertisements_seen() < crowd::SIZE && Instant::now() < deadline {
                sleep(Duration::from_millis(100));
            }
            drop(quiet);
            let found = rome.advertisements_seen();
            self.tell(&format!("{name}: {found} of {} resolved", crowd::SIZE));
            crowd::at_rest(&lan, "rome", &[rome.process()])
        };
        let mut table = self.table();
        table.add(CROWD_MEMORY, name, used.mebibytes);
        table.add(CROWD_SHARE, name, used.share_of_a_core);
        table.add(CROWD_SENT, name, used.sent_a_minute);
        table.add(CROWD_RECEIVED, name, used.received_a_minute);
    }
}
