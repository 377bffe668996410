//! Machines on a LAN for benchmarks: a namespace each, a bridge in one more, and daemons in them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::process::Process;

const BINARY: &str = env!("CARGO_BIN_EXE_landbridge");
/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Only what others say about the LAN is logged in detail; more would be a load of its own.
const LOG: &str = "info,landbridge::controllers::roster=debug";

/// What lets the janitor know that this process is there: it ends with us, however we end.
static JANITOR: OnceLock<Child> = OnceLock::new();
/// LANs of this process, so that each has names of its own.
static LANS: AtomicU32 = AtomicU32::new(0);

/// What all names of this process begin with.
fn prefix() -> String {
    format!("lbb-{}-", std::process::id())
}

/// Starts a shell that removes what is left of this process once it is gone, killed or not.
fn hire_janitor() {
    JANITOR.get_or_init(|| {
        let script = format!(
            "cat >/dev/null
            for space in $(ip netns list | grep -o '^{}[^ ]*'); do
              for process in $(ip netns pids $space); do kill -9 $process; done
              ip netns delete $space
            done",
            prefix()
        );
        Command::new("sh")
            .args(["-c", &script])
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    });
}

/// Machines on a bridge of their own.
pub(crate) struct Lan {
    prefix: String,
    machines: Vec<&'static str>,
    directory: TempDir,
}

impl Lan {
    pub(crate) fn new(machines: &[&'static str]) -> Self {
        hire_janitor();
        let lan = Self {
            prefix: format!("{}{}-", prefix(), LANS.fetch_add(1, Ordering::Relaxed)),
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

    /// Counts from now on which packets a machine sends to a port and receives on it.
    pub(crate) fn count_packets(&self, machine: &str, port: u16) {
        let chain = |hook: &str| {
            format!(
                "chain {hook} {{\ntype filter hook {hook} priority 0;\nudp dport {port} counter\n}}"
            )
        };
        let table = format!(
            "table inet count {{\n{}\n{}\n}}\n",
            chain("output"),
            chain("input")
        );
        let status = self.command(machine, "nft").arg(table).status().unwrap();
        assert!(status.success(), "nft counts packets");
    }

    /// Returns how many were counted: sent and received.
    pub(crate) fn packets(&self, machine: &str) -> (u32, u32) {
        let mut list = self.command(machine, "nft");
        let output = list
            .args(["list", "table", "inet", "count"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut counts = text.split("counter packets ").skip(1).map(|rest| {
            let number = rest.split(' ').next().unwrap();
            number.parse::<u32>().unwrap()
        });
        (counts.next().unwrap(), counts.next().unwrap())
    }

    /// Does work on a machine, in a thread of its own.
    pub(crate) fn beside<T: Send + 'static>(
        &self,
        machine: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let path = format!("/run/netns/{}", self.name(machine));
        thread::spawn(move || {
            setns(fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
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
            // What cannot be removed now is left to the janitor.
            let name = self.name(machine);
            let _ = Command::new("ip").args(["netns", "delete", &name]).status();
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
    #[expect(clippy::panic, reason = "a benchmark without its event has failed")]
    pub(crate) fn logged_since(&self, since: Timestamp, words: &[&str]) -> Timestamp {
        self.logged_within(PATIENCE, since, words)
            .unwrap_or_else(|| panic!("{words:?} did not come about:\n{}", self.log()))
    }

    /// The same, for so long at most.
    pub(crate) fn logged_within(
        &self,
        patience: Duration,
        since: Timestamp,
        words: &[&str],
    ) -> Option<Timestamp> {
        let deadline = Instant::now() + patience;
        loop {
            let found = self
                .log()
                .lines()
                .filter(|line| words.iter().all(|word| line.contains(word)))
                .filter_map(|line| line.split_whitespace().next()?.parse::<Timestamp>().ok())
                .find(|at| *at >= since);
            if found.is_some() || Instant::now() >= deadline {
                return found;
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the last phase that the log tells of is this one, for so long at most.
    pub(crate) fn settled_within(&self, patience: Duration, phase: &str) -> bool {
        let deadline = Instant::now() + patience;
        let last = || {
            let log = self.log();
            let line = log.lines().rev().find(|line| line.contains(" to=\""));
            line.is_some_and(|line| line.contains(&format!(" to=\"{phase}\"")))
        };
        while !last() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(Duration::from_millis(5));
        }
        true
    }

    /// Returns how many lines of the log have a word.
    pub(crate) fn lines_with(&self, word: &str) -> usize {
        let log = self.log();
        log.lines().filter(|line| line.contains(word)).count()
    }

    /// Returns how many different advertisements were seen on the LAN.
    pub(crate) fn advertisements_seen(&self) -> usize {
        let log = self.log();
        let seen = log
            .lines()
            .filter(|line| line.contains("Advertisement seen"));
        let names =
            seen.filter_map(|line| line.split(' ').find(|word| word.starts_with("instance=")));
        names.collect::<BTreeSet<_>>().len()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
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
        while self.lines_with("to=\"Peered\"") < peers {
            assert!(Instant::now() < deadline, "not peered:\n{}", self.log());
            sleep(Duration::from_millis(100));
        }
    }

    /// `ip netns exec` becomes the daemon, so that its process is ours.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
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
