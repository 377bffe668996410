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

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_landbridge");
const ROUNDS: usize = 20;
/// How long a round may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(30);
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
    let rome = &machines[0];
    let (before, since) = (rome.cpu_ticks(), Instant::now());
    sleep(REST);
    let ticks = rome.cpu_ticks() - before;
    // 100 ticks a second is the kernel's USER_HZ on every platform that we build for.
    let share = f64::from(ticks) / since.elapsed().as_secs_f64();
    println!(
        "at rest with two peers: RSS {} kB, {share:.2} % of a core over {REST:?}",
        rome.resident_kilobytes()
    );
}

/// Machines on a bridge of their own.
struct Lan {
    prefix: String,
    machines: Vec<&'static str>,
    directory: TempDir,
}

impl Lan {
    fn new(machines: &[&'static str]) -> Self {
        let lan = Self {
            prefix: format!("lbb-{}-", std::process::id()),
            machines: machines.to_vec(),
            directory: tempfile::tempdir().unwrap(),
        };
        let secret = lan.directory.path().join("secret");
        fs::write(&secret, "0123456789abcdef".repeat(4)).unwrap();
        let switch = lan.name("switch");
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add bridge0 type bridge"));
        ip(&format!("-n {switch} link set bridge0 up"));
        for (index, machine) in machines.iter().enumerate() {
            let name = lan.name(machine);
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!(
                "-n {name} link add eth0 type veth peer name {machine} netns {switch}"
            ));
            ip(&format!("-n {switch} link set {machine} master bridge0 up"));
            ip(&format!(
                "-n {name} address add 10.77.0.{}/24 dev eth0",
                index + 1
            ));
            ip(&format!("-n {name} link set eth0 up"));
        }
        // Duplicate address detection holds back IPv6 for two seconds; it is not what is measured.
        sleep(Duration::from_secs(2));
        lan
    }

    fn name(&self, machine: &str) -> String {
        format!("{}{machine}", self.prefix)
    }

    fn start(&self, machine: &'static str) -> Machine {
        let path = |file: &str| self.directory.path().join(format!("{machine}.{file}"));
        let log = fs::File::create(path("log")).unwrap();
        let started = Timestamp::now();
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.name(machine),
                BINARY,
                "run",
                "--name",
                machine,
            ])
            .arg("--data-dir")
            .arg(path("data"))
            .arg("--fleet-secret-file")
            .arg(self.directory.path().join("secret"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Machine {
            child,
            started,
            log: path("log"),
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for machine in self.machines.iter().chain(&["switch"]) {
            ip(&format!("netns delete {}", self.name(machine)));
        }
    }
}

/// A running daemon.
struct Machine {
    child: Child,
    started: Timestamp,
    log: PathBuf,
}

impl Machine {
    /// Waits for a line of the log and returns its time.
    fn logged(&self, text: &str) -> Timestamp {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(&self.log).unwrap();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return line.split_whitespace().next().unwrap().parse().unwrap();
            }
            assert!(
                Instant::now() < deadline,
                "{text:?} did not come about:\n{log}"
            );
            sleep(Duration::from_millis(2));
        }
    }

    fn peered_with(&self, peers: usize) {
        let deadline = Instant::now() + PATIENCE;
        let lines = |log: &str| {
            log.lines()
                .filter(|line| line.contains("to=\"Peered\""))
                .count()
        };
        while lines(&fs::read_to_string(&self.log).unwrap()) < peers {
            assert!(
                Instant::now() < deadline,
                "not peered:\n{}",
                fs::read_to_string(&self.log).unwrap()
            );
            sleep(Duration::from_millis(100));
        }
    }

    /// `ip netns exec` becomes the daemon, so that its process is ours.
    fn process(&self) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string())
    }

    fn resident_kilobytes(&self) -> String {
        let status = fs::read_to_string(self.process().join("status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// User and system time of the process (proc(5), fields 14 and 15).
    fn cpu_ticks(&self) -> u32 {
        let stat = fs::read_to_string(self.process().join("stat")).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u32>().unwrap())
            .sum()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = kill(id, Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}
