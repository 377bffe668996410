//! Machines on a LAN: a namespace each, a bridge in one more, and the built program in them.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_in_result,
    reason = "a lab that cannot be used fails its test"
)]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::Write as _,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use axum::http::{Request, header};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The variable that names the program when it is not the one of this test.
const PROGRAM: &str = "LANDBRIDGE_PROGRAM";
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long peering may take before a run counts as broken.
const PEERING: Duration = Duration::from_secs(40);

/// Labs of this process, so that each has names of its own.
static LABS: AtomicU32 = AtomicU32::new(0);

/// A LAN with its machines. Everything goes away when it is dropped.
pub(crate) struct Lab {
    prefix: String,
    machines: Vec<String>,
    environment: BTreeMap<String, String>,
    is_fleet: bool,
    directory: TempDir,
    daemons: RefCell<BTreeMap<String, Child>>,
}

impl Lab {
    /// Builds machines with an `eth0` each on one bridge, or says why it cannot.
    pub(crate) fn new(machines: &[&str]) -> Option<Self> {
        if !geteuid().is_root() {
            skip("network namespaces need root");
            return None;
        }
        if !installed(&["ip", "nft", "ping"]) {
            skip("iproute2, nftables or iputils-ping is not installed");
            return None;
        }
        if File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .is_err()
        {
            skip("/dev/net/tun cannot be opened");
            return None;
        }
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            prefix: format!("lbc-{}-{number}-", std::process::id()),
            machines: machines.iter().map(|name| (*name).to_owned()).collect(),
            environment: BTreeMap::new(),
            is_fleet: true,
            directory: tempfile::tempdir().expect("a directory"),
            daemons: RefCell::default(),
        };
        fs::write(lab.secret(), "0123456789abcdef".repeat(4)).expect("writable");
        let private = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        fs::set_permissions(lab.secret(), private).expect("ours");
        lab.wire();
        Some(lab)
    }

    /// Sets an environment variable for daemons that start later.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Gives daemons that start later no secret in common.
    pub(crate) fn be_strangers(&mut self) {
        self.is_fleet = false;
    }

    /// Returns what all names of this lab begin with.
    pub(crate) fn prefix(&self) -> String {
        self.prefix.clone()
    }

    /// Returns each machine with each other machine.
    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        let all = self.machines.iter();
        all.flat_map(|here| {
            let others = self.machines.iter().filter(move |there| *there != here);
            others.map(move |there| (here.as_str(), there.as_str()))
        })
        .collect()
    }

    /// Returns the address of a machine on the LAN.
    pub(crate) fn address(&self, machine: &str) -> Ipv4Addr {
        let index = self
            .machines
            .iter()
            .position(|name| name == machine)
            .expect("a machine");
        Ipv4Addr::new(10, 77, 0, u8::try_from(index + 1).expect("few machines"))
    }

    /// Starts the daemons of all machines.
    pub(crate) fn start_all(&self) {
        for machine in &self.machines {
            self.start(machine);
        }
    }

    /// Starts the daemons of all machines but some.
    pub(crate) fn start_all_but(&self, others: &[&str]) {
        for machine in &self.machines {
            if !others.contains(&machine.as_str()) {
                self.start(machine);
            }
        }
    }

    /// Starts the daemon of a machine and waits until its API is ready.
    pub(crate) fn start(&self, machine: &str) {
        self.spawn(machine, &[]);
        self.until(PEERING, &format!("{machine} is ready"), || {
            self.try_request(machine, "GET", "/readyz", &Value::Null)
                .ok()
        });
    }

    /// Starts the daemon of a machine with these variables in its environment, and waits for nothing.
    pub(crate) fn spawn(&self, machine: &str, environment: &[(&str, &str)]) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(machine));
        let mut command = self.command(machine, &program());
        command
            .args(["run", "--name", machine, "--data-dir"])
            .arg(self.data_dir(machine))
            .env("LANDBRIDGE_LOG_LEVEL", "debug")
            .envs(&self.environment)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("writable"));
        if self.is_fleet {
            command.arg("--fleet-secret-file").arg(self.secret());
        }
        let child = command.spawn().expect("the program runs");
        self.daemons.borrow_mut().insert(machine.to_owned(), child);
    }

    /// Ends a daemon by SIGTERM and returns its exit code.
    pub(crate) fn terminate(&self, machine: &str) -> Option<i32> {
        let mut child = self.daemons.borrow_mut().remove(machine).expect("a daemon");
        signal(&child, Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().expect("our child") {
                return status.code();
            }
            thread::sleep(LOOK);
        }
        child.kill().expect("our child");
        child.wait().expect("our child");
        None
    }

    /// Ends a daemon without a warning.
    pub(crate) fn kill(&self, machine: &str) {
        let mut child = self.daemons.borrow_mut().remove(machine).expect("a daemon");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// Runs a verb against the daemon of a machine; it must be well.
    pub(crate) fn landbridge(&self, machine: &str, arguments: &[&str]) -> String {
        let output = self
            .command(machine, &program())
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data_dir(machine))
            .output()
            .expect("the program runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{machine} {arguments:?}: {error}\n{}",
            self.story()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns what `landbridge status` says on a machine.
    pub(crate) fn status(&self, machine: &str) -> Value {
        let text = self.landbridge(machine, &["status", "-o", "json"]);
        serde_json::from_str(&text).expect("JSON")
    }

    /// Lists the ForeignClusters of a machine.
    pub(crate) fn peers(&self, machine: &str) -> Vec<Value> {
        self.list(machine, "/apis/discovery.liqo.io/v1alpha1/foreignclusters")
    }

    /// Returns a ForeignCluster by its name, once it exists.
    pub(crate) fn peer(&self, machine: &str, name: &str) -> Option<Value> {
        let mut all = self.peers(machine).into_iter();
        all.find(|object| object["metadata"]["name"] == name)
    }

    /// Lists the objects at a path.
    pub(crate) fn list(&self, machine: &str, path: &str) -> Vec<Value> {
        let list = self.request(machine, "GET", path, &Value::Null);
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Asks the API of a machine; it must answer well.
    pub(crate) fn request(&self, machine: &str, method: &str, path: &str, body: &Value) -> Value {
        self.try_request(machine, method, path, body)
            .unwrap_or_else(|error| panic!("{machine}: {method} {path}: {error}\n{}", self.story()))
    }

    /// Asks the API of a machine, and returns its answer or why there is none.
    pub(crate) fn try_request(
        &self,
        machine: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Value, String> {
        let kubeconfig = self.data_dir(machine).join("kubeconfig");
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, kind)
            .body(body)
            .expect("a request");
        self.within(machine, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime")
                .block_on(ask(kubeconfig, request))
        })
    }

    /// Waits until every machine has found every other one and is peered with it in both directions.
    pub(crate) fn until_peered(&self) {
        let all: Vec<&str> = self.machines.iter().map(String::as_str).collect();
        self.until_peered_among(&all);
    }

    /// The same for some of the machines.
    pub(crate) fn until_peered_among(&self, machines: &[&str]) {
        let pairs = self.pairs().into_iter();
        let among = |machine| machines.contains(&machine);
        for (here, there) in pairs.filter(|(here, there)| among(*here) && among(*there)) {
            self.until_peered_with(here, there);
        }
    }

    /// Waits until one machine is peered with another one in both directions.
    pub(crate) fn until_peered_with(&self, here: &str, there: &str) {
        self.until(PEERING, &format!("{here} and {there} are peered"), || {
            let object = self.peer(here, there)?;
            let status = &object["status"];
            let both = [&status["outgoing"]["joined"], &status["incoming"]["joined"]];
            let joined = both.iter().all(|joined| **joined == true);
            let network = condition(&object, "NetworkReady");
            (status["phase"] == "Peered" && joined && network).then_some(())
        });
    }

    /// Returns the address of a peer's machine through the tunnel.
    pub(crate) fn tunnel_address(&self, here: &str, there: &str) -> Ipv4Addr {
        self.tunnel_address_now(here, there)
            .unwrap_or_else(|| panic!("{here} has no address for {there}\n{}", self.story()))
    }

    /// Returns the address of a peer's machine through the tunnel, if there is one.
    pub(crate) fn tunnel_address_now(&self, here: &str, there: &str) -> Option<Ipv4Addr> {
        let status = self.status(here);
        let peers = status["peers"].as_array()?;
        let peer = peers.iter().find(|peer| peer["name"] == there)?;
        peer["address"].as_str()?.parse().ok()
    }

    /// Sends an echo and tells whether it came back.
    pub(crate) fn ping(&self, machine: &str, address: Ipv4Addr) -> bool {
        let output = self.run(machine, &["ping", "-c1", "-W2", &address.to_string()]);
        output.status.success()
    }

    /// Tells whether a machine has an interface.
    pub(crate) fn has_interface(&self, machine: &str, name: &str) -> bool {
        self.run(machine, &["ip", "link", "show", "dev", name])
            .status
            .success()
    }

    /// Runs a program on a machine and returns what it wrote.
    pub(crate) fn output(&self, machine: &str, words: &[&str]) -> String {
        String::from_utf8_lossy(&self.run(machine, words).stdout).into_owned()
    }

    /// Runs a program on a machine.
    pub(crate) fn run(&self, machine: &str, words: &[&str]) -> Output {
        let (program, arguments) = words.split_first().expect("a program");
        let output = self.command(machine, program).args(arguments).output();
        output.unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Waits for something, and tells the whole story when it does not come.
    pub(crate) fn until<T>(
        &self,
        patience: Duration,
        what: &str,
        look: impl Fn() -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look() {
                return found;
            }
            let ended = self.ended();
            let over = Instant::now() >= deadline;
            assert!(
                !over && ended.is_none(),
                "not so: {what} {ended:?}\n{}",
                self.story()
            );
            thread::sleep(LOOK);
        }
    }

    /// Returns what the daemons say now and what they logged.
    pub(crate) fn story(&self) -> String {
        let mut text = String::new();
        for machine in &self.machines {
            let status = self
                .command(machine, &program())
                .args(["status", "--data-dir"])
                .arg(self.data_dir(machine))
                .output()
                .expect("the program runs");
            let log = fs::read_to_string(self.log(machine)).unwrap_or_default();
            text = format!(
                "{text}--- {machine}: status\n{}{}--- {machine}: log\n{log}",
                String::from_utf8_lossy(&status.stdout),
                String::from_utf8_lossy(&status.stderr)
            );
        }
        text
    }

    /// Runs `ip` on a machine, or on the bridge's side.
    pub(crate) fn ip(&self, machine: Option<&str>, command: &str) {
        let namespace = format!("{}{}", self.prefix, machine.unwrap_or("lan"));
        let output = Command::new("ip")
            .args(["-n", &namespace])
            .args(command.split_whitespace())
            .output()
            .expect("ip runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {command}: {error}");
    }

    /// Builds the LAN. The bridge has a namespace of its own, so that the host sees nothing.
    fn wire(&self) {
        namespace("add", &format!("{}lan", self.prefix));
        self.ip(None, "link add lan type bridge");
        self.ip(None, "link set lan up");
        for machine in &self.machines {
            let space = format!("{}{machine}", self.prefix);
            namespace("add", &space);
            self.ip(
                None,
                &format!("link add {machine} type veth peer name eth0 netns {space}"),
            );
            self.ip(None, &format!("link set {machine} master lan up"));
            let address = self.address(machine);
            self.ip(Some(machine), "link set lo up");
            self.ip(Some(machine), &format!("address add {address}/24 dev eth0"));
            self.ip(Some(machine), "link set eth0 up");
        }
    }

    /// Builds a second LAN, 10.78.0.0/24, of machines that have an `eth1` for it.
    pub(crate) fn second_lan(&self, machines: &[&str]) {
        self.ip(None, "link add lan-2 type bridge");
        self.ip(None, "link set lan-2 up");
        for machine in machines {
            let space = format!("{}{machine}", self.prefix);
            self.ip(
                None,
                &format!("link add {machine}-2 type veth peer name eth1 netns {space}"),
            );
            self.ip(None, &format!("link set {machine}-2 master lan-2 up"));
            let [.., host] = self.address(machine).octets();
            self.ip(
                Some(machine),
                &format!("address add 10.78.0.{host}/24 dev eth1"),
            );
            self.ip(Some(machine), "link set eth1 up");
        }
    }

    /// Returns a program that will run on a machine, with no settings of the host's.
    pub(crate) fn command(&self, machine: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args([
                "netns",
                "exec",
                &format!("{}{machine}", self.prefix),
                program,
            ])
            .env_clear()
            .env("HOME", self.directory.path())
            .env("PATH", search_path());
        command
    }

    /// Returns the process number of the daemon of a machine.
    pub(crate) fn process(&self, machine: &str) -> u32 {
        self.daemons.borrow().get(machine).expect("a daemon").id()
    }

    /// Does work in the network namespace of a machine and waits for its end.
    pub(crate) fn within<T: Send + 'static>(
        &self,
        machine: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.beside(machine, work)
            .join()
            .expect("the work ends well")
    }

    /// Does work in the network namespace of a machine, in a thread of its own.
    pub(crate) fn beside<T: Send + 'static>(
        &self,
        machine: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let path = format!("/run/netns/{}{machine}", self.prefix);
        thread::spawn(move || {
            let file = File::open(path).expect("the namespace");
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter");
            work()
        })
    }

    /// Tells of a daemon that ended by itself.
    fn ended(&self) -> Option<String> {
        self.daemons
            .borrow_mut()
            .iter_mut()
            .find_map(|(machine, child)| {
                let status = child.try_wait().expect("our child")?;
                Some(format!("(the daemon of {machine} ended: {status})"))
            })
    }

    /// Returns the data directory of a machine.
    pub(crate) fn data_dir(&self, machine: &str) -> PathBuf {
        self.directory.path().join(machine)
    }

    /// Returns the file that a machine logs to.
    pub(crate) fn log(&self, machine: &str) -> PathBuf {
        self.directory.path().join(format!("{machine}.log"))
    }

    fn secret(&self) -> PathBuf {
        self.directory.path().join("fleet-secret")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.daemons.get_mut().values_mut() {
            // A daemon that is gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
        for machine in self.machines.iter().map(String::as_str).chain(["lan"]) {
            namespace("del", &format!("{}{machine}", self.prefix));
        }
        if !thread::panicking() {
            for machine in &self.machines {
                let log = fs::read_to_string(self.log(machine)).unwrap_or_default();
                let line = log.lines().find(|line| line.contains("panicked"));
                assert_eq!(line, None, "in the log of {machine}");
            }
        }
    }
}

/// Tells whether a condition of an object is true.
pub(crate) fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        let wanted = json!({"type": kind, "status": "True"});
        all.iter()
            .any(|one| one["type"] == wanted["type"] && one["status"] == wanted["status"])
    })
}

/// The build that was named by `LANDBRIDGE_PROGRAM`, such as the release, or the one of this test.
pub(crate) fn program() -> String {
    env::var(PROGRAM).unwrap_or_else(|_| env!("CARGO_BIN_EXE_landbridge").to_owned())
}

/// Whether the program is a build whose speed is that of the product.
pub(crate) fn is_optimised() -> bool {
    !cfg!(debug_assertions) || env::var(PROGRAM).is_ok()
}

/// Says why a test does nothing here, past the test runner's capture.
pub(crate) fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Says a figure, past the test runner's capture.
pub(crate) fn note(figure: &str) {
    let _ = writeln!(std::io::stderr(), "{figure}");
}

/// Tells whether programs are installed.
pub(crate) fn installed(programs: &[&str]) -> bool {
    let path = search_path();
    programs.iter().all(|program| {
        path.split(':')
            .any(|folder| PathBuf::from(folder).join(program).is_file())
    })
}

fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

fn namespace(verb: &str, name: &str) {
    let status = Command::new("ip").args(["netns", verb, name]).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "ip netns {verb} {name}"
    );
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process number");
    kill(Pid::from_raw(pid), signal).expect("our child");
}

async fn ask(kubeconfig: PathBuf, request: Request<Vec<u8>>) -> Result<Value, String> {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).map_err(|error| error.to_string())?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| error.to_string())?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(5));
    let client = Client::try_from(config).map_err(|error| error.to_string())?;
    let text = client
        .request_text(request)
        .await
        .map_err(|error| error.to_string())?;
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
