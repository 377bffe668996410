//! How long peering takes, and what two peers cost at rest: `cargo bench --bench peering [-- ROUNDS]`.
//!
//! Machines are network namespaces on one bridge, so it needs root. In each round both machines are
//! new; the first has run for a moment when the second starts. Times are taken from the clocks of
//! the daemons' logs, which are one clock, and begin when the second daemon's process is made.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark prints, and cannot go on without its rig"
)]

#[path = "rig/lan.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest")]
mod lan;
#[path = "../tests/support/process.rs"]
#[expect(dead_code, reason = "tests and benchmarks elsewhere use the rest")]
mod process;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use lan::Lan;

const ROUNDS: usize = 20;
/// How long the machines rest before their use of memory and CPU is read, and over which.
const REST: Duration = Duration::from_secs(20);

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let rounds = std::env::args()
        .find_map(|word| word.parse().ok())
        .unwrap_or(ROUNDS);
    let mut table: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds {
        for (column, value) in table.iter_mut().zip(round()) {
            column.push(value);
        }
    }
    println!("n = {rounds}, two machines on one bridge, fleet secret, both new in each round");
    let rows = [
        "start -> API ready",
        "start -> ForeignCluster with proven identity at the other",
        "start -> first echo through the tunnel at the other",
        "start -> Peered at the other",
    ];
    for (name, column) in rows.iter().zip(&mut table) {
        column.sort();
        let at = |share: usize| column[(column.len() * share / 100).min(column.len() - 1)];
        let (min, median, p99) = (at(0), at(50), at(99));
        println!("{name:<60} min {min:>9.1?}  median {median:>9.1?}  p99 {p99:>9.1?}");
    }
    rest();
}

/// One round: how long the second machine takes to each stage.
fn round() -> [Duration; 4] {
    let lan = Lan::new(&["rome", "milan"]);
    let rome = lan.start("rome");
    rome.logged("Landbridge runs");
    sleep(Duration::from_millis(1500));
    let milan = lan.start("milan");
    let ready = milan.logged("Landbridge runs");
    let found = rome.logged("Cluster found");
    let tunnel = rome.logged("Tunnel connected");
    let peered = rome.logged("to=\"Peered\"");
    [ready, found, tunnel, peered].map(|at| Duration::try_from(at - milan.started).unwrap())
}

/// What a machine with two peers uses when nothing happens.
fn rest() {
    let lan = Lan::new(&["rome", "milan", "naples"]);
    let machines = ["rome", "milan", "naples"].map(|name| lan.start(name));
    for machine in &machines {
        machine.peered_with(2);
    }
    sleep(REST);
    let rome = machines[0].process();
    let (before, since) = (rome.processor_time(), Instant::now());
    sleep(REST);
    let used = rome.processor_time().saturating_sub(before);
    let share = 100.0 * used.as_secs_f64() / since.elapsed().as_secs_f64();
    println!(
        "at rest with two peers: RSS {} kB, {share:.2} % of a core over {REST:?}",
        rome.resident()
    );
}
