//! The clusters of the demo: a bridge, namespaces, and a daemon in each.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    name_server::{self, NameServer},
    sandbox::{ip, within},
};
use crate::cli::{Failure, args::Scenario, fleet_secret};

/// Names for up to eight clusters.
const NAMES: [&str; 8] = [
    "rome", "milan", "turin", "naples", "genoa", "venice", "bari", "palermo",
];
/// Where the clusters keep their state: on our own tmpfs, so that nothing stays.
pub(super) const STATE: &str = "/run/landbridge";
/// How long a daemon may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(10);
/// How many lines of a log are shown when something went wrong.
const LOG_LINES: usize = 15;

/// A cluster of the demo.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its name, which is also the name of its network namespace.
    pub(super) name: String,
    /// Its address on the LAN.
    pub(super) address: Ipv4Addr,
}

impl Member {
    /// Returns where its state is.
    pub(super) fn data_dir(&self) -> PathBuf {
        Path::new(STATE).join(&self.name)
    }

    fn log(&self) -> PathBuf {
        Path::new(STATE).join(format!("{}.log", self.name))
    }

    /// Returns the command line that looks at it from outside.
    pub(super) fn entrance(&self, pid: &str) -> String {
        let user = if nix::unistd::getuid().is_root() && !in_user_namespace() {
            ""
        } else {
            " --user --preserve-credentials"
        };
        format!(
            "nsenter --target {pid}{user} --mount --net=/proc/{pid}/root/run/netns/{name} kubectl --kubeconfig {dir}/kubeconfig get foreignclusters",
            name = self.name,
            dir = self.data_dir().display()
        )
    }
}

/// Tells whether this process is mapped to another user outside.
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut words = map.split_whitespace();
    (words.next(), words.next()) != (Some("0"), Some("0")) || words.next() == Some("1")
}

/// The network and the daemons.
#[derive(Debug)]
pub(super) struct Lab {
    members: Vec<Member>,
    daemons: Vec<(String, Child)>,
    name_server: Option<NameServer>,
}

impl Lab {
    /// Builds the network: a namespace with an `eth0` for each cluster, all on one bridge, or each on
    /// a network of its own.
    pub(super) fn build(clusters: u8, scenario: Scenario) -> Result<Self, Failure> {
        let members = NAMES.iter().zip(1..=clusters).map(|(name, number)| Member {
            name: (*name).to_owned(),
            address: match scenario {
                Scenario::Dns => Ipv4Addr::new(10, 77, number, 2),
                Scenario::Lan | Scenario::Manual => Ipv4Addr::new(10, 77, 0, number),
            },
        });
        let lab = Self {
            members: members.collect(),
            daemons: Vec::new(),
            name_server: None,
        };
        match scenario {
            Scenario::Dns => route(&lab.members)?,
            Scenario::Lan | Scenario::Manual => bridge(&lab.members)?,
        }
        Ok(lab)
    }

    /// Returns the clusters.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Starts a daemon in each namespace. All share a fleet secret, as one owner's machines would.
    pub(super) fn start(&mut self, scenario: Scenario) -> Result<(), Failure> {
        let secret = Path::new(STATE).join("fleet-secret");
        fs::create_dir_all(STATE)
            .map_err(|error| Failure::NotSo(format!("cannot write {STATE}: {error}")))?;
        fleet_secret::write(&secret)?;
        if scenario == Scenario::Dns {
            self.name_server = Some(NameServer::start()?);
        }
        for member in &self.members {
            let mut command = landbridge(member);
            command
                .args(["run", "--name", &member.name, "--log-level", "info"])
                .arg("--fleet-secret-file")
                .arg(&secret)
                .arg("--data-dir")
                .arg(member.data_dir())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log_file(member)?);
            match scenario {
                Scenario::Lan => {}
                Scenario::Manual => {
                    command.env("LANDBRIDGE_LAN_ENABLED", "false");
                }
                Scenario::Dns => {
                    command.envs(name_server::settings());
                }
            }
            let child = within(&member.name, move || command.spawn())?.map_err(|error| {
                Failure::NotSo(format!("the daemon cannot be started: {error}"))
            })?;
            self.daemons.push((member.name.clone(), child));
        }
        Ok(())
    }

    /// Adds a cluster to another by hand and returns the command that did it.
    pub(super) fn introduce(member: &Member, peer: &Member) -> Result<String, Failure> {
        let url = format!("https://{}:5870", peer.address);
        let mut command = landbridge(member);
        command
            .args(["add", &url, "--name", &peer.name, "--join", "--data-dir"])
            .arg(member.data_dir());
        let output = within(&member.name, move || command.output())?
            .map_err(|error| Failure::NotSo(format!("landbridge add cannot be run: {error}")))?;
        if output.status.success() {
            return Ok(format!(
                "$ landbridge add {url} --name {} --join",
                peer.name
            ));
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(Failure::NotSo(format!(
            "landbridge add {url} failed: {}",
            complaint.trim()
        )))
    }

    /// Tells of a daemon that ended by itself.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.daemons.iter_mut().find_map(|(name, child)| {
            let status = child.try_wait().ok().flatten()?;
            Some(format!("the daemon of {name} ended: {status}"))
        })
    }

    /// Returns the ends of all logs.
    pub(super) fn logs(&self) -> String {
        let mut text = String::new();
        for member in &self.members {
            let log = fs::read_to_string(member.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..);
            text = format!("{text}--- {}: log\n", member.name);
            for line in tail.unwrap_or_default() {
                text = format!("{text}{line}\n");
            }
        }
        text.trim_end().to_owned()
    }

    /// Ends the daemons: all are asked first, then each is waited for.
    pub(super) fn stop(&mut self) {
        for (_, child) in &self.daemons {
            if let Ok(pid) = i32::try_from(child.id()) {
                // A daemon that is gone already needs no signal.
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        let deadline = Instant::now() + GOODBYE;
        for (_, child) in &mut self.daemons {
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() >= deadline {
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        self.daemons.clear();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Puts all clusters on one bridge.
fn bridge(members: &[Member]) -> Result<(), Failure> {
    let mut commands = "link set lo up\nlink add lan type bridge\nlink set lan up\n".to_owned();
    for Member { name, .. } in members {
        commands = format!(
            "{commands}netns add {name}\nlink add {name} type veth peer name eth0 netns {name}\nlink set {name} master lan up\n"
        );
    }
    ip(None, &commands)?;
    for Member { name, address } in members {
        let inside =
            format!("link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n");
        ip(Some(name), &inside)?;
    }
    Ok(())
}

/// Gives each cluster a network of its own and makes us the router between them.
fn route(members: &[Member]) -> Result<(), Failure> {
    let mut commands = format!(
        "link set lo up\naddress add {}/32 dev lo\n",
        name_server::ADDRESS
    );
    for Member { name, address } in members {
        let router = router_of(*address);
        commands = format!(
            "{commands}netns add {name}\nlink add {name} type veth peer name eth0 netns {name}\naddress add {router}/24 dev {name}\nlink set {name} up\n"
        );
    }
    ip(None, &commands)?;
    for Member { name, address } in members {
        let router = router_of(*address);
        let inside = format!(
            "link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {router}\n"
        );
        ip(Some(name), &inside)?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(|error| {
        Failure::NotSo(format!(
            "the networks cannot be joined by a router here: /proc/sys/net/ipv4/ip_forward: {error}"
        ))
    })
}

fn router_of(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 1)
}

/// Runs this program as somebody on the cluster's machine would: with no settings of ours.
fn landbridge(member: &Member) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .env_clear()
        .env("HOME", member.data_dir())
        .env("LANDBRIDGE_CONFIG", "/dev/null");
    for name in ["PATH", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn log_file(member: &Member) -> Result<File, Failure> {
    File::create(member.log()).map_err(|error| {
        let path = member.log();
        Failure::NotSo(format!("cannot write {}: {error}", path.display()))
    })
}
