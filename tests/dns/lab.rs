//! Machines on a network without multicast between them, with the built program in each.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bind::{installed, skip};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a state may take before the test counts as failed.
const PATIENCE: Duration = Duration::from_secs(40);

static LABS: AtomicU32 = AtomicU32::new(0);

/// A network with its machines. Everything goes away when it is dropped.
pub(crate) struct Lab {
    prefix: String,
    machines: Vec<String>,
    directory: TempDir,
    daemons: RefCell<BTreeMap<String, Child>>,
}

impl Lab {
    /// Builds the machines, or says why it cannot.
    pub(crate) fn new(machines: &[&str]) -> Option<Self> {
        if !geteuid().is_root() {
            skip("network namespaces need root");
            return None;
        }
        if !installed() {
            skip("named is not installed (Debian package bind9)");
            return None;
        }
        if !["ip", "kubectl"].iter().all(|program| exists(program)) {
            skip("iproute2 or kubectl is not installed");
            return None;
        }
        let lab = Self {
            prefix: format!(
                "lbd-{}-{}-",
                std::process::id(),
                LABS.fetch_add(1, Ordering::Relaxed)
            ),
            machines: machines.iter().map(|name| (*name).to_owned()).collect(),
            directory: tempfile::tempdir().expect("a directory"),
            daemons: RefCell::default(),
        };
        lab.write("secret", &"0123456789abcdef".repeat(4));
        lab.wire();
        Some(lab)
    }

    fn wire(&self) {
        let net = self.namespace("net");
        ip(&["netns", "add", &net]);
        ip(&["-n", &net, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &net, "link", "set", "br0", "up"]);
        for (index, machine) in self.machines.iter().enumerate() {
            let namespace = self.namespace(machine);
            let port = format!("p{index}");
            ip(&["netns", "add", &namespace]);
            ip(&[
                "-n", &net, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
                &namespace,
            ]);
            ip(&["-n", &net, "link", "set", &port, "master", "br0", "up"]);
            let address = format!("{}/24", self.address(machine));
            ip(&["-n", &namespace, "addr", "add", &address, "dev", "eth0"]);
            ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
            ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        }
    }

    /// Runs `ip` on a machine.
    pub(crate) fn ip(&self, machine: &str, words: &str) {
        let namespace = self.namespace(machine);
        let words: Vec<&str> = ["-n", &namespace]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        ip(&words);
    }

    /// Returns the name of a machine's namespace.
    pub(crate) fn namespace(&self, machine: &str) -> String {
        format!("{}{machine}", self.prefix)
    }

    /// Returns the address of a machine.
    pub(crate) fn address(&self, machine: &str) -> String {
        let index = self.machines.iter().position(|name| name == machine);
        format!("10.78.0.{}", index.expect("a machine") + 1)
    }

    /// Writes a file for a machine and returns where it is.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("writable");
        let private = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        fs::set_permissions(&path, private).expect("ours");
        path
    }

    fn secret(&self) -> PathBuf {
        self.directory.path().join("secret")
    }

    fn data(&self, machine: &str) -> PathBuf {
        self.directory.path().join(format!("{machine}-data"))
    }

    fn log(&self, machine: &str) -> String {
        let path = self.directory.path().join(format!("{machine}.log"));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Starts the daemon of a machine with these settings of `dns` and `lan.enabled`, and waits
    /// until its API answers.
    pub(crate) fn start(&self, machine: &str, dns: &Value, lan: bool) {
        let trust = json!({"fleetSecretFile": self.secret()});
        let settings = json!({"lan": {"enabled": lan}, "dns": dns, "trust": trust});
        self.start_with(machine, &settings);
    }

    /// Starts the daemon of a machine with these settings besides those that every machine needs.
    pub(crate) fn start_with(&self, machine: &str, settings: &Value) {
        let mut settings = settings.clone();
        settings["cluster"]["name"] = json!(machine);
        settings["dataDir"] = json!(self.data(machine));
        settings["tunnel"]["mode"] = json!("off");
        let path = |kind: &str| self.directory.path().join(format!("{machine}.{kind}"));
        fs::write(path("yaml"), settings.to_string()).expect("writable");
        let log = File::create(path("log")).expect("writable");
        let child = self
            .command(machine, env!("CARGO_BIN_EXE_landbridge"))
            .args(["run", "--log-level", "debug", "--config"])
            .arg(path("yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program runs");
        self.daemons.borrow_mut().insert(machine.to_owned(), child);
        self.until("the API is ready", || {
            let version = self.kubectl(machine, &["get", "--raw", "/readyz"]);
            version.status.success().then_some(())
        });
    }

    /// Ends a daemon by SIGTERM and waits for its end.
    pub(crate) fn stop(&self, machine: &str) {
        if let Some(mut child) = self.daemons.borrow_mut().remove(machine) {
            terminate(&child);
            child.wait().expect("our child");
        }
    }

    /// Takes everything from a machine that its daemon has kept, its identity too.
    pub(crate) fn erase(&self, machine: &str) {
        fs::remove_dir_all(self.data(machine)).expect("the daemon had it");
    }

    fn command(&self, machine: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(machine), program]);
        command
    }

    /// Runs kubectl against a machine's daemon.
    pub(crate) fn kubectl(&self, machine: &str, words: &[&str]) -> Output {
        let mut command = self.command(machine, "kubectl");
        command.arg("--kubeconfig");
        command.arg(self.data(machine).join("kubeconfig"));
        command.args(words).output().expect("kubectl runs")
    }

    /// Runs the program on a machine, without a daemon.
    pub(crate) fn alone(&self, machine: &str, words: &[&str]) -> Output {
        let mut command = self.command(machine, env!("CARGO_BIN_EXE_landbridge"));
        command.args(words).output().expect("the program runs")
    }

    /// Runs a verb of the program against a machine's daemon; it must be well.
    pub(crate) fn landbridge(&self, machine: &str, words: &[&str]) -> String {
        let output = self
            .command(machine, env!("CARGO_BIN_EXE_landbridge"))
            .args(words)
            .arg("--data-dir")
            .arg(self.data(machine))
            .output()
            .expect("the program runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Applies an object.
    pub(crate) fn apply(&self, machine: &str, object: &Value) {
        let path = self.directory.path().join("object.json");
        fs::write(&path, object.to_string()).expect("writable");
        let path = path.to_string_lossy();
        let output = self.kubectl(machine, &["apply", "-f", &path]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
    }

    /// Reads objects of a kind, or one by name.
    pub(crate) fn get(&self, machine: &str, what: &[&str]) -> Option<Value> {
        let mut words = vec!["get", "-o", "json"];
        words.extend(what);
        let output = self.kubectl(machine, &words);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits for something, and tells the whole story when it does not come.
    pub(crate) fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "not: {what}\n{}", self.story());
            thread::sleep(LOOK);
        }
    }

    /// What every daemon has said.
    pub(crate) fn story(&self) -> String {
        let logs = self
            .machines
            .iter()
            .map(|machine| format!("--- {machine}\n{}", self.log(machine)));
        logs.collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (_, mut child) in self.daemons.take() {
            terminate(&child);
            child.wait().ok();
        }
        for machine in self.machines.iter().map(String::as_str).chain(["net"]) {
            let namespace = self.namespace(machine);
            Command::new("ip")
                .args(["netns", "del", &namespace])
                .status()
                .ok();
        }
    }
}

fn terminate(child: &Child) {
    let id = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(id), Signal::SIGTERM).ok();
}

fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("ip runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words:?}: {error}");
}

fn exists(program: &str) -> bool {
    ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .iter()
        .any(|folder| fs::exists(format!("{folder}/{program}")).unwrap_or_default())
}
