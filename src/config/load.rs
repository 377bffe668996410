//! Where settings come from: flags, environment, file and machine, and which of them goes before which.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    Config, Error,
    document::{self, Document},
    layers::Layers,
    policy::{self, Overruled},
};
use crate::api::ClusterConfigSpec;

/// Where settings are looked for. [`Sources::of_process`] takes the process's own surroundings.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that the user named; it must exist.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// What was typed.
    pub flags: Vec<Flag>,
    /// Whether the process is root, which decides about default places.
    pub root: bool,
    /// The name of the machine.
    pub host_name: String,
}

/// A setting that was typed.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag, with its dashes.
    pub name: &'static str,
    /// The key that it sets, with its sections.
    pub key: &'static str,
    /// What was typed.
    pub value: String,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The machine: its host name, or the rule for directories.
    Machine,
    /// A file and its line.
    File(String),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Machine => formatter.write_str("machine"),
            Self::File(place) => formatter.write_str(place),
            Self::Environment(name) => formatter.write_str(name),
            Self::Flag(name) => formatter.write_str(name),
        }
    }
}

/// Settings, and where each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The origin of each key, by its dotted path.
    pub origins: BTreeMap<String, Origin>,
    /// Variables that look like settings and are none.
    pub unknown: Vec<String>,
}

impl Loaded {
    /// Lists what was given for the first start and is not what the ClusterConfig says.
    pub fn overruled(&self, present: &ClusterConfigSpec) -> Vec<Overruled> {
        policy::overruled(self, present)
    }
}

impl Sources {
    /// Takes the environment, user and host name of this process.
    pub fn of_process() -> Self {
        let host_name = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default();
        Self {
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            root: nix::unistd::geteuid().is_root(),
            host_name,
            ..Self::default()
        }
    }

    /// Loads the settings: a flag goes before the environment, that before the file, and the file
    /// before the default.
    pub fn load(&self) -> Result<Loaded, Error> {
        let mut layers = Layers::new();
        if let Some(document) = self.document()? {
            layers.add_document(&document)?;
        }
        layers.add_environment(&self.environment)?;
        layers.add_flags(&self.flags)?;
        layers.add_machine(self);
        layers.finish()
    }

    /// Returns the default place of state: `/var/lib/landbridge` as root, else the user's.
    pub fn data_dir(&self) -> PathBuf {
        if self.root {
            return PathBuf::from("/var/lib/landbridge");
        }
        self.user_dir("XDG_STATE_HOME", ".local/state")
    }

    fn document(&self) -> Result<Option<Document>, Error> {
        let named = self.file.clone().or_else(|| {
            let named = self.environment.get("LANDBRIDGE_CONFIG");
            named.filter(|path| !path.is_empty()).map(PathBuf::from)
        });
        let must_exist = named.is_some();
        let path = named.unwrap_or_else(|| self.default_file());
        match fs::read_to_string(&path) {
            Ok(text) => document::parse(&path.display().to_string(), &text).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    fn default_file(&self) -> PathBuf {
        if self.root {
            return PathBuf::from("/etc/landbridge/landbridge.yaml");
        }
        self.user_dir("XDG_CONFIG_HOME", ".config")
            .join("landbridge.yaml")
    }

    /// Returns our directory in a base directory of the user (XDG Base Directory Specification).
    fn user_dir(&self, variable: &str, fallback: &str) -> PathBuf {
        let base = self.environment.get(variable).map(PathBuf::from);
        let home = || {
            let home = self.environment.get("HOME").map_or("/", String::as_str);
            Path::new(home).join(fallback)
        };
        base.filter(|base| base.is_absolute())
            .unwrap_or_else(home)
            .join("landbridge")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
        let (_directory, mut sources) =
            with_file("cluster: {name: file, podCIDR: 10.1.0.0/16}\ntunnel:\n  port: 1\n");
        sources
            .environment
            .insert("LANDBRIDGE_CLUSTER_NAME".into(), "environment".into());
        sources
            .environment
            .insert("LANDBRIDGE_TUNNEL_PORT".into(), "2".into());
        sources.flags.push(flag("--name", "cluster.name", "flag"));
        let loaded = sources.load().expect("usable");
        assert_eq!(loaded.config.cluster.name, "flag");
        assert_eq!(loaded.config.tunnel.port, 2);
        assert_eq!(loaded.config.cluster.pod_cidr.to_string(), "10.1.0.0/16");
        let origin = |key: &str| loaded.origins[key].to_string();
        assert_eq!(origin("cluster.name"), "--name");
        assert_eq!(origin("tunnel.port"), "LANDBRIDGE_TUNNEL_PORT");
        assert!(origin("cluster.podCIDR").ends_with("landbridge.yaml:1"));
        assert_eq!(origin("tunnel.mode"), "default");
        assert_eq!(origin("dataDir"), "machine");
    }

    #[test]
    fn the_machine_fills_in_name_and_directory() {
        let mut sources = Sources {
            host_name: "rome.example.com".into(),
            ..Sources::default()
        };
        sources
            .environment
            .insert("XDG_CONFIG_HOME".into(), "/nowhere".into());
        sources
            .environment
            .insert("HOME".into(), "/home/ada".into());
        let config = sources.load().expect("usable").config;
        assert_eq!(config.cluster.name, "rome");
        assert_eq!(
            config.data_dir,
            Path::new("/home/ada/.local/state/landbridge")
        );
        sources
            .environment
            .insert("XDG_STATE_HOME".into(), "/state".into());
        assert_eq!(sources.data_dir(), Path::new("/state/landbridge"));
        sources.root = true;
        assert_eq!(sources.data_dir(), Path::new("/var/lib/landbridge"));
    }

    #[test]
    fn environment_values_are_read_as_the_kind_that_the_key_has() {
        let (_directory, mut sources) = with_file("");
        for (name, value) in [
            ("LANDBRIDGE_LAN_ENABLED", "false"),
            ("LANDBRIDGE_LAN_INTERFACES_ALLOW", "eth0, eth1"),
            ("LANDBRIDGE_CLUSTER_NAME", "42"),
            (
                "LANDBRIDGE_CLUSTER_CONFIG",
                "{discoveryConfig: {autojoin: false}}",
            ),
            ("LANDBRIDGE_SERVICE_HOST", "10.96.0.7"),
            ("LANDBRIDGE_PORT", "tcp://10.96.0.7:5870"),
            ("LANDBRIDGE_PORT_5870_TCP_ADDR", "10.96.0.7"),
            ("LANDBRIDGE_TUNNEL_PORT", "udp://10.96.0.7:5871"),
            ("LANDBRIDGE_LOG_LEVEL", "info"),
            ("LANDBRIDGE_FLEET_SECRET_FILE", "/etc/secret"),
        ] {
            sources.environment.insert(name.into(), value.into());
        }
        let loaded = sources.load().expect("usable");
        assert_eq!(loaded.unknown, ["LANDBRIDGE_FLEET_SECRET_FILE"]);
        let config = loaded.config;
        assert!(!config.lan.enabled);
        assert_eq!(config.lan.interfaces.allow, ["eth0", "eth1"]);
        assert_eq!(config.cluster.name, "42");
        assert_eq!(config.tunnel.port, 5871);
        assert!(
            !config
                .cluster_config_spec()
                .expect("usable")
                .discovery_config
                .autojoin
        );
    }

    #[test]
    fn a_part_of_the_cluster_config_has_the_origin_of_who_said_it_last() {
        let file = "clusterConfig: {discoveryConfig: {autojoin: true, ttl: 60}}\n";
        let (_directory, mut sources) = with_file(file);
        let name = "LANDBRIDGE_CLUSTER_CONFIG".to_owned();
        let value = "{discoveryConfig: {autojoin: false}}".to_owned();
        sources.environment.insert(name.clone(), value);
        let loaded = sources.load().expect("usable");
        let origin =
            |key: &str| loaded.origins[&format!("clusterConfig.discoveryConfig.{key}")].clone();
        assert_eq!(origin("autojoin"), Origin::Environment(name));
        assert!(matches!(origin("ttl"), Origin::File(_)));
    }

    #[test]
    fn what_is_wrong_is_told_in_one_line_with_key_and_place() {
        for (text, complaint) in COMPLAINTS {
            let (_directory, sources) = with_file(text);
            let error = sources.load().expect_err(complaint).to_string();
            assert!(error.contains(complaint), "{error}\n  lacks {complaint}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let sources = Sources {
            file: Some("/nowhere/landbridge.yaml".into()),
            ..Sources::default()
        };
        let error = sources.load().expect_err("no such file").to_string();
        assert!(error.starts_with("cannot read the settings in /nowhere/landbridge.yaml: "));
    }

    fn flag(name: &'static str, key: &'static str, value: &str) -> Flag {
        Flag {
            name,
            key,
            value: value.to_owned(),
        }
    }

    fn with_file(text: &str) -> (tempfile::TempDir, Sources) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("landbridge.yaml");
        fs::write(&path, text).expect("writable");
        let sources = Sources {
            file: Some(path),
            host_name: "host".to_owned(),
            ..Sources::default()
        };
        (directory, sources)
    }

    /// A file, and what is said about it.
    const COMPLAINTS: [(&str, &str); 26] = [
        (
            "\ntunel: {mode: off}\n",
            "landbridge.yaml:2: unknown key tunel: did you mean tunnel?",
        ),
        (
            "cluster:\n  podCidr: 10.1.0.0/16\n",
            ":2: unknown key cluster.podCidr: did you mean cluster.podCIDR?",
        ),
        (
            "cluster: rome\n",
            ":1: cluster: \"rome\" stands where keys are expected",
        ),
        (
            "cluster: {podCIDR: 10.1.0.0}\n",
            ":1: cluster.podCIDR: \"10.1.0.0\" is not an IPv4 range: write it like",
        ),
        (
            "cluster: {podCIDR: 10.1.2.3/16}\n",
            "write the range 10.1.0.0/16",
        ),
        (
            "cluster: {podCIDR: 8.8.0.0/16}\n",
            "cluster.podCIDR: range 8.8.0.0/16 is not private",
        ),
        (
            "cluster: {podCIDR: 10.0.0.0/8, serviceCIDR: 172.16.0.0/16}\n",
            "cluster.podCIDR: range 10.0.0.0/8 must have a prefix length",
        ),
        (
            "cluster: {podCIDR: 10.100.0.0/16}\n",
            "overlaps cluster.serviceCIDR 10.96.0.0/12",
        ),
        (
            "cluster: {name: \"a\\nb\"}\n",
            "cluster.name: \"a\\nb\" is not a cluster name",
        ),
        (
            "cluster: {name: 42}\n",
            "cluster.name: 42 is not a name: put it in quotes",
        ),
        (
            "peer: {listen: \"5870\"}\n",
            "peer.listen: \"5870\" is not an address with a port",
        ),
        (
            "peer: {advertise: \"http://x\"}\n",
            "peer.advertise: \"http://x\" is not an https URL",
        ),
        (
            "peer: {advertise: \"https://rome:99999\"}\n",
            "peer.advertise: \"https://rome:99999\" is not an https URL: the port",
        ),
        (
            "peer: {advertise: \"https://rome:0\"}\n",
            "peer.advertise: \"https://rome:0\" is not an https URL: the port",
        ),
        (
            "api: {listen: \"0.0.0.0:5872\"}\n",
            "api.listen: 0.0.0.0:5872 is not a loopback address",
        ),
        (
            "tunnel: {mode: kernel}\n",
            "tunnel.mode: kernel is not available in this version",
        ),
        (
            "tunnel: {mode: fast}\n",
            "tunnel.mode: \"fast\" is unknown: use auto, userspace or off",
        ),
        (
            "tunnel: {port: 70000}\n",
            "tunnel.port: 70000 is not a port",
        ),
        (
            "tunnel: {mtu: 1279}\n",
            "tunnel.mtu: 1279 is not a packet size: use 1280 to 1420, or 0",
        ),
        (
            "tunnel: {mtu: 1421}\n",
            "tunnel.mtu: 1421 is not a packet size",
        ),
        (
            "tunnel: {mtu: 66956}\n",
            "tunnel.mtu: 66956 is not a packet size",
        ),
        (
            "lan: {enabled: yes}\n",
            "lan.enabled: \"yes\" is not true or false",
        ),
        (
            "lan: {interfaces: {allow: eth0}}\n",
            "lan.interfaces.allow: \"eth0\" is not a list of names",
        ),
        (
            "trust: {incoming: nobody}\n",
            "trust.incoming: \"nobody\" is unknown: use ask, token or open",
        ),
        (
            "clusterConfig:\n  discoveryConfig:\n    ttl: 5\n",
            "landbridge.yaml:3: clusterConfig.discoveryConfig.ttl: 5 is not within",
        ),
        (
            "clusterConfig: {discoveryConfig: {autoJoin: true}}\n",
            ":1: unknown key clusterConfig.discoveryConfig.autoJoin",
        ),
    ];
}
