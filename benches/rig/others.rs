//! Other implementations of DNS-SD that publish and browse beside us.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{lan::Lan, process::Process};

const SERVICE_TYPE: &str = "_landbridge._tcp";
/// How long an interpreter may take to get to work.
const PYTHON_STARTS: Duration = Duration::from_secs(20);
/// How long a daemon of Avahi needs before it can be talked to.
const AVAHI_STARTS: Duration = Duration::from_secs(2);
/// Avahi and its bus in a `/run` of their own.
const AVAHI: &str =
    "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/dbus /run/avahi-daemon
    [ /var/run -ef /run ] || mount --bind /run /var/run
    dbus-daemon --system --nofork --nopidfile 2>/dev/null &
    while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.1; done
    exec avahi-daemon --no-drop-root --no-rlimits >/dev/null 2>&1";

/// One implementation.
#[derive(Clone)]
pub(crate) struct Other {
    pub(crate) name: &'static str,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Avahi,
    /// With the Python that has it.
    Zeroconf(PathBuf),
}

/// Returns those that are installed; for the others it says so.
pub(crate) fn installed() -> Vec<Other> {
    let avahi = runs(Command::new("avahi-browse").arg("--version")).then_some(Kind::Avahi);
    let candidates = [
        ("avahi", avahi),
        ("python-zeroconf", python().map(Kind::Zeroconf)),
    ];
    let mut found = Vec::new();
    for (name, kind) in candidates {
        match kind {
            Some(kind) => found.push(Other { name, kind }),
            None => eprintln!("skipped: {name} is not installed"),
        }
    }
    found
}

/// The Python in the path if it has the library, or one of our own from PyPI.
fn python() -> Option<PathBuf> {
    let has_it = |python: &Path| runs(Command::new(python).args(["-c", "import zeroconf"]));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zeroconf");
    let own = folder.join("bin/python");
    for python in [Path::new("python3"), &own] {
        if has_it(python) {
            return Some(python.to_owned());
        }
    }
    let package = ["install", "--quiet", "--retries=1", "zeroconf==0.154.0"];
    let made = runs(Command::new("python3").args(["-m", "venv"]).arg(&folder))
        && runs(Command::new(folder.join("bin/pip")).args(package));
    (made && has_it(&own)).then_some(own)
}

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

impl Other {
    /// Starts to browse on a machine.
    pub(crate) fn follow(&self, lan: &Lan, machine: &str) -> Follower {
        let daemon = self.daemon(lan, machine);
        let mut command = match (&daemon, &self.kind) {
            (Some(daemon), _) => {
                daemon.enter(&["avahi-browse", "--resolve", "--parsable", SERVICE_TYPE])
            }
            (None, Kind::Zeroconf(python)) => {
                zeroconf(lan, machine, python, &["follow", SERVICE_TYPE])
            }
            (None, Kind::Avahi) => unreachable!("avahi has a daemon"),
        };
        let mut program = Group::start(&mut command);
        let lines = program.lines();
        let mut started = program.started;
        if daemon.is_none() {
            // The start of an interpreter does not count.
            (started, _) = lines.recv_timeout(PYTHON_STARTS).unwrap();
        }
        Follower {
            started,
            lines,
            program,
            daemon,
        }
    }

    /// Prepares to announce on a machine.
    pub(crate) fn announcer<'lan>(&self, lan: &'lan Lan, machine: &'static str) -> Announcer<'lan> {
        Announcer {
            lan,
            machine,
            kind: self.kind.clone(),
            daemon: self.daemon(lan, machine),
            program: None,
        }
    }

    fn daemon(&self, lan: &Lan, machine: &str) -> Option<Group> {
        (self.kind == Kind::Avahi).then(|| {
            let mut command = lan.command(machine, "unshare");
            let daemon = Group::start(command.args(["--mount", "sh", "-c", AVAHI]));
            sleep(AVAHI_STARTS);
            daemon
        })
    }
}

/// Somebody who browses.
pub(crate) struct Follower {
    /// When it began to ask.
    pub(crate) started: Timestamp,
    lines: Receiver<(Timestamp, String)>,
    program: Group,
    daemon: Option<Group>,
}

impl Follower {
    /// Waits until an instance is resolved (`=`) or gone (`-`) from a time on, and returns when.
    pub(crate) fn heard(
        &self,
        mark: char,
        instance: &str,
        since: Timestamp,
        patience: Duration,
    ) -> Option<Timestamp> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (at, line) = self.lines.recv_timeout(left).ok()?;
            if at >= since && line.starts_with(mark) && line.contains(instance) {
                return Some(at);
            }
        }
    }

    /// Waits until so many instances are resolved; returns how many were.
    pub(crate) fn resolved(&self, wanted: usize, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        let mut found = BTreeSet::new();
        while found.len() < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((_, line)) = self.lines.recv_timeout(left) else {
                break;
            };
            // =;interface;IPv4;instance;... or = instance
            let instance = line.split([';', ' ']).find(|word| word.contains("-4b5a-"));
            found.extend(
                instance
                    .filter(|_| line.starts_with('='))
                    .map(str::to_owned),
            );
        }
        found.len()
    }

    /// The processes that this takes.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let groups = [Some(&self.program), self.daemon.as_ref()];
        let groups = groups.into_iter().flatten();
        groups.map(|group| Process(group.child.id())).collect()
    }
}

/// Somebody who can announce.
pub(crate) struct Announcer<'lan> {
    lan: &'lan Lan,
    machine: &'static str,
    kind: Kind,
    daemon: Option<Group>,
    program: Option<Group>,
}

impl Announcer<'_> {
    /// Announces an instance and returns when it began; the start of an interpreter does not count.
    pub(crate) fn announce(&mut self, instance: &str) -> Timestamp {
        let program = match (&self.daemon, &self.kind) {
            (Some(daemon), _) => {
                let publish = ["avahi-publish", "--service", instance];
                let words = [publish.as_slice(), &[SERVICE_TYPE, "5870", "v=1"]].concat();
                Group::start(&mut daemon.enter(&words))
            }
            (None, Kind::Zeroconf(python)) => {
                let words = ["announce", SERVICE_TYPE, instance, "5870", "10.77.0.2"];
                Group::start(&mut zeroconf(self.lan, self.machine, python, &words))
            }
            (None, Kind::Avahi) => unreachable!("avahi has a daemon"),
        };
        let program = self.program.insert(program);
        if self.daemon.is_some() {
            return program.started;
        }
        let (at, _) = program.lines().recv_timeout(PYTHON_STARTS).unwrap();
        at
    }

    /// Takes the announcement back and returns when.
    pub(crate) fn withdraw(&mut self) -> Timestamp {
        let mut program = self.program.take().unwrap();
        let at = Timestamp::now();
        drop(program.input.take());
        if self.daemon.is_some() {
            program.signal(Signal::SIGTERM);
        }
        program.child.wait().unwrap();
        at
    }

    /// Kills whoever announces and returns when.
    pub(crate) fn kill(&mut self) -> Timestamp {
        let at = Timestamp::now();
        self.daemon.take();
        self.program.take();
        at
    }
}

/// A program with its children, which are killed together.
struct Group {
    child: Child,
    input: Option<ChildStdin>,
    started: Timestamp,
}

impl Group {
    fn start(command: &mut Command) -> Self {
        let started = Timestamp::now();
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        Self {
            child,
            input,
            started,
        }
    }

    /// Returns the lines that it writes, each with the time at which it came.
    fn lines(&mut self) -> Receiver<(Timestamp, String)> {
        let (sender, receiver) = mpsc::channel();
        let output = BufReader::new(self.child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send((Timestamp::now(), line)).is_err() {
                    break;
                }
            }
        });
        receiver
    }

    /// Returns a program that will run in the namespaces of this one.
    fn enter(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--net", "--target", &self.child.id().to_string()])
            .args(words);
        command
    }

    fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        // Whoever has ended already is as good.
        let _ = killpg(group, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn zeroconf(lan: &Lan, machine: &str, python: &Path, words: &[&str]) -> Command {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interoperability/zeroconf_peer.py");
    let mut command = lan.command(machine, &python.to_string_lossy());
    command.arg(script).args(words);
    command
}
