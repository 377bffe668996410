//! How fast a cluster is found, lost and found again on a LAN: `cargo bench --bench discovery [-- ROUNDS]`.
//!
//! Machines are network namespaces on one bridge, so it needs root. In each round rome has run for a
//! moment when milan starts; what rome logs is compared with when it was caused, by one clock. In the
//! same round Avahi and python-zeroconf publish and browse on the same two machines, where they are
//! installed: Avahi from Debian, python-zeroconf for the `python3` that is in the path.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark prints, and cannot go on without its rig"
)]

#[path = "rig/lan.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest")]
mod lan;
#[path = "rig/others.rs"]
mod others;

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use jiff::Timestamp;
use lan::Lan;
use nix::sys::signal::Signal;
use others::Other;

const ROUNDS: usize = 20;
/// How long a machine runs before the next thing happens to it.
const MOMENT: Duration = Duration::from_millis(1500);
/// How long the cable is out.
const UNPLUGGED: Duration = Duration::from_secs(3);
/// What others may take to notice a silent death before nobody waits any longer.
const SILENCE: Duration = Duration::from_secs(15);

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let rounds = std::env::args()
        .find_map(|word| word.parse().ok())
        .unwrap_or(ROUNDS);
    let others = others::installed();
    let mut table = Table::default();
    for number in 0..rounds {
        landbridge(&mut table);
        for other in &others {
            compare(other, number, &mut table);
        }
    }
    println!("n = {rounds}, two machines on one bridge; ms, median / p99");
    table.print();
}

/// One round of two daemons.
fn landbridge(table: &mut Table) {
    let mut add = |row, from, to| table.add(row, "landbridge", from, Some(to));
    let lan = Lan::new(&["rome", "milan"]);
    let rome = lan.start("rome");
    rome.logged("Landbridge runs");
    sleep(MOMENT);
    let milan = lan.start("milan");
    let announces = milan.logged("Discovery on the LAN started");
    let seen = rome.logged("Advertisement seen");
    add(
        "process starts -> resolved by the other",
        milan.started,
        seen,
    );
    add(RESOLVED, announces, seen);
    let found = rome.logged("Cluster found");
    add(
        "process starts -> ForeignCluster, identity proven",
        milan.started,
        found,
    );
    let second = milan.logged("Advertisement seen");
    add("second starter -> the first resolved", announces, second);
    rome.logged("to=\"Peered\"");
    sleep(MOMENT);

    let goodbye = milan.end(Signal::SIGTERM);
    let withdrawn = rome.logged_since(goodbye, &["Advertisement withdrawn"]);
    add(GOODBYE, goodbye, withdrawn);

    let milan = lan.start("milan");
    let back = rome.logged_since(milan.started, &["to=\"Peered\""]);
    add("restart -> Peered again", milan.started, back);
    sleep(MOMENT);

    lan.ip("milan", "link set eth0 down");
    sleep(UNPLUGGED);
    let plugged = Timestamp::now();
    lan.ip("milan", "link set eth0 up");
    let heard = rome.logged_since(plugged, &["Advertisement seen"]);
    add("link up -> announcement heard", plugged, heard);
    sleep(MOMENT);

    let moved = Timestamp::now();
    lan.ip("milan", "address add 10.77.0.99/24 dev eth0");
    lan.ip("milan", "address del 10.77.0.2/24 dev eth0");
    let followed = rome.logged_since(moved, &["Advertisement seen", "10.77.0.99:"]);
    add("address change -> new endpoint known", moved, followed);
    sleep(MOMENT);

    let killed = milan.end(Signal::SIGKILL);
    let doubted = rome.logged_since(killed, &["Advertisement withdrawn"]);
    add(KILLED, killed, doubted);
    let degraded = rome.logged_since(killed, &["to=\"Degraded\""]);
    add("kill -9 -> the state says so", killed, degraded);
}

const RESOLVED: &str = "announcement starts -> resolved by the other";
const GOODBYE: &str = "goodbye -> endpoint gone";
const KILLED: &str = "kill -9 -> endpoint gone";

/// One round of another implementation, as far as it does the same.
fn compare(other: &Other, number: usize, table: &mut Table) {
    let lan = Lan::new(&["rome", "milan"]);
    let rome = other.follow(&lan, "rome");
    let mut milan = other.announcer(&lan, "milan");
    sleep(MOMENT);
    let instance = format!("goodbye-{number}");
    let started = milan.announce(&instance);
    let seen = rome.heard('=', &instance, SILENCE);
    table.add(RESOLVED, other.name, started, seen);
    sleep(MOMENT);
    let goodbye = milan.withdraw();
    let withdrawn = rome.heard('-', &instance, SILENCE);
    table.add(GOODBYE, other.name, goodbye, withdrawn);

    let instance = format!("killed-{number}");
    milan.announce(&instance);
    rome.heard('=', &instance, SILENCE);
    let killed = milan.kill();
    let gone = rome.heard('-', &instance, SILENCE);
    table.add(KILLED, other.name, killed, gone);
}

/// What was measured: for each row and each program the times, nothing for what did not come about.
#[derive(Default)]
struct Table {
    order: Vec<&'static str>,
    cells: BTreeMap<(&'static str, &'static str), Vec<Option<Duration>>>,
}

impl Table {
    fn add(
        &mut self,
        row: &'static str,
        column: &'static str,
        from: Timestamp,
        to: Option<Timestamp>,
    ) {
        if !self.order.contains(&row) {
            self.order.push(row);
        }
        // What a log has at the very moment of its cause can be a microsecond early.
        let taken = to.map(|to| Duration::try_from(to - from).unwrap_or_default());
        self.cells.entry((row, column)).or_default().push(taken);
    }

    fn print(&mut self) {
        let columns = ["landbridge", "avahi", "python-zeroconf"];
        let cell = |text: &str| format!("{text:>20}");
        println!("{:<52}{}", "", columns.map(cell).concat());
        for row in &self.order {
            let cells = columns.map(|column| match self.cells.get_mut(&(*row, column)) {
                Some(times) => cell(&summary(times)),
                None => cell("-"),
            });
            println!("{row:<52}{}", cells.concat());
        }
    }
}

fn summary(times: &mut [Option<Duration>]) -> String {
    times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
    let at = |share: usize| match times[(times.len() * share / 100).min(times.len() - 1)] {
        Some(time) => format!("{:.1}", time.as_secs_f64() * 1000.0),
        None => format!(">{}", SILENCE.as_millis()),
    };
    format!("{} / {}", at(50), at(99))
}
