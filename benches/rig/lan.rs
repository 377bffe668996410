//! Machines on a LAN for benchmarks: a namespace each, a bridge in one more, and daemons in them.

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
/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Only what others say about the LAN is logged in detail; more would be a load of its own.
const LOG: &str = "info,landbridge::controllers::roster=debug";

/// Machines on a bridge of their own.
pub(crate) struct Lan {
    prefix: String,
    machines: Vec<&'static str>,
    directory: TempDir,
}

impl Lan {
    pub(crate) fn new(machines: &[&'static str]) -> Self {
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

    /// Runs `ip` on a machine.
    pub(crate) fn ip(&self, machine: &str, words: &str) {
        ip(&format!("-n {} {words}", self.name(machine)));
    }

    /// Returns a program that will run on a machine.
    pub(crate) fn command(&self, machine: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(machine), program]);
        command
    }

    /// Starts the daemon of a machine, with what it stored before if it ran before.
    pub(crate) fn start(&self, machine: &'static str) -> Machine {
        let path = |file: &str| self.directory.path().join(format!("{machine}.{file}"));
        let log = fs::File::create(path("log")).unwrap();
        let started = Timestamp::now();
        let child = self
            .command(machine, BINARY)
            .args(["run", "--name", machine, "--log-level", LOG, "--data-dir"])
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
pub(crate) struct Machine {
    child: Child,
    pub(crate) started: Timestamp,
    log: PathBuf,
}

impl Machine {
    /// Waits for a line of the log and returns its time.
    pub(crate) fn logged(&self, text: &str) -> Timestamp {
        self.logged_since(Timestamp::MIN, &[text])
    }

    /// Waits for a line of the log from a time on that has all these words, and returns its time.
    pub(crate) fn logged_since(&self, since: Timestamp, words: &[&str]) -> Timestamp {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(&self.log).unwrap();
            let found = log
                .lines()
                .filter(|line| words.iter().all(|word| line.contains(word)))
                .filter_map(|line| line.split_whitespace().next()?.parse::<Timestamp>().ok())
                .find(|at| *at >= since);
            if let Some(at) = found {
                return at;
            }
            assert!(
                Instant::now() < deadline,
                "{words:?} did not come about:\n{log}"
            );
            sleep(Duration::from_millis(2));
        }
    }

    /// Ends the daemon by a signal and returns when that was sent.
    pub(crate) fn end(mut self, signal: Signal) -> Timestamp {
        let at = Timestamp::now();
        kill(self.pid(), signal).unwrap();
        self.child.wait().unwrap();
        at
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn peered_with(&self, peers: usize) {
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

    pub(crate) fn resident_kilobytes(&self) -> String {
        let status = fs::read_to_string(self.process().join("status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// User and system time of the process (proc(5), fields 14 and 15).
    pub(crate) fn cpu_ticks(&self) -> u32 {
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
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(self.pid(), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// Runs `ip`.
pub(crate) fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}
