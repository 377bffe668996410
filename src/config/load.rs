//! Puts defaults, file, environment and flags over each other and remembers who said what.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Config, Error,
    document::{self, Document},
    keys,
};

/// Keys that are served in a later version: a value other than the default is refused, so that
/// nobody believes that it works.
const NOT_YET: [&str; 4] = [
    "dns.servers",
    "dns.publish.zone",
    "dns.publish.server",
    "dns.publish.tsigKeyFile",
];

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

/// The settings while they are put together.
struct Layers {
    defaults: Value,
    merged: Value,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    fn new() -> Self {
        let defaults =
            serde_json::to_value(Config::default()).expect("the default settings are plain data");
        let origins = keys::leaves(&defaults)
            .into_iter()
            .map(|key| (key, Origin::Default))
            .collect();
        Self {
            merged: defaults.clone(),
            defaults,
            origins,
        }
    }

    fn add_document(&mut self, document: &Document) -> Result<(), Error> {
        self.known(&document.value, document, "")?;
        for key in self.origins.keys().cloned().collect::<Vec<_>>() {
            if keys::lookup(&document.value, &key).is_some() {
                let origin = Origin::File(document.place(&key));
                self.origins.insert(key, origin);
            }
        }
        // Lines inside clusterConfig, for messages about it.
        for key in document.lines.keys() {
            if key.starts_with("clusterConfig.") {
                let origin = Origin::File(document.place(key));
                self.origins.insert(key.clone(), origin);
            }
        }
        json_patch::merge(&mut self.merged, &document.value);
        Ok(())
    }

    /// Checks that a file's keys exist and that sections are sections.
    fn known(&self, value: &Value, document: &Document, path: &str) -> Result<(), Error> {
        let Value::Object(map) = value else {
            return Err(Error::Value {
                place: document.place(path),
                key: path.to_owned(),
                message: format!("{value} stands where keys are expected"),
            });
        };
        for (key, value) in map {
            let path = keys::join(path, key);
            match keys::lookup(&self.defaults, &path) {
                Some(Value::Object(section)) if !section.is_empty() => {
                    self.known(value, document, &path)?;
                }
                Some(_) => {}
                None => {
                    return Err(Error::UnknownKey {
                        place: document.place(&path),
                        nearest: keys::nearest(&path, self.all_keys().iter().map(String::as_str)),
                        key: path,
                    });
                }
            }
        }
        Ok(())
    }

    /// Lists sections and leaves.
    fn all_keys(&self) -> Vec<String> {
        let mut all = Vec::new();
        for leaf in keys::leaves(&self.defaults) {
            let dots = leaf.match_indices('.').map(|(index, _)| index);
            for end in dots.chain([leaf.len()]) {
                let key = leaf.get(..end).unwrap_or(&leaf).to_owned();
                if !all.contains(&key) {
                    all.push(key);
                }
            }
        }
        all
    }

    fn add_environment(&mut self, environment: &BTreeMap<String, String>) -> Result<(), Error> {
        for key in keys::leaves(&self.defaults) {
            let variable = keys::variable(&key);
            if let Some(text) = environment.get(&variable) {
                self.add_text(&key, text, Origin::Environment(variable))?;
            }
        }
        Ok(())
    }

    fn add_flags(&mut self, flags: &[Flag]) -> Result<(), Error> {
        for flag in flags {
            self.add_text(flag.key, &flag.value, Origin::Flag(flag.name))?;
        }
        Ok(())
    }

    /// Adds a value that came as text, read as the kind of value that the default is.
    fn add_text(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), Error> {
        let value = match keys::lookup(&self.defaults, key) {
            Some(Value::Array(_)) => text
                .split(',')
                .map(|item| Value::from(item.trim()))
                .filter(|item| item != "")
                .collect(),
            Some(Value::Object(_)) => document::parse(&origin.to_string(), text)?.value,
            Some(Value::Bool(_) | Value::Number(_)) => {
                serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::from(text))
            }
            Some(Value::Null | Value::String(_)) | None => Value::from(text),
        };
        json_patch::merge(&mut self.merged, &keys::nest(key, value));
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    /// Fills in what the machine decides when nobody else did.
    fn add_machine(&mut self, sources: &Sources) {
        let host = sources.host_name.split('.').next().unwrap_or_default();
        let name = if host.is_empty() { "landbridge" } else { host };
        let data_dir = sources.data_dir().display().to_string();
        for (key, value) in [("cluster.name", name), ("dataDir", data_dir.as_str())] {
            if keys::lookup(&self.merged, key) == Some(&Value::from("")) {
                json_patch::merge(&mut self.merged, &keys::nest(key, Value::from(value)));
                self.origins.insert(key.to_owned(), Origin::Machine);
            }
        }
    }

    fn finish(self) -> Result<Loaded, Error> {
        for key in NOT_YET {
            if keys::lookup(&self.merged, key) != keys::lookup(&self.defaults, key) {
                let message = "is not available in this version: leave it out".to_owned();
                return Err(self.refuse(key, message));
            }
        }
        let config: Config = serde_path_to_error::deserialize(&self.merged)
            .map_err(|error| self.refuse(&error.path().to_string(), error.inner().to_string()))?;
        let (pods, services) = (config.cluster.pod_cidr, config.cluster.service_cidr);
        if pods.contains(&services) || services.contains(&pods) {
            let message = format!("{pods} overlaps cluster.serviceCIDR {services}");
            return Err(self.refuse("cluster.podCIDR", message));
        }
        config
            .cluster_config_spec()
            .map_err(|error| self.with_place(error))?;
        Ok(Loaded {
            config,
            origins: self.origins,
        })
    }

    fn refuse(&self, key: &str, message: String) -> Error {
        Error::Value {
            place: self.place(key),
            key: key.to_owned(),
            message,
        }
    }

    /// Adds the place to an error about a part of `clusterConfig`.
    fn with_place(&self, error: Error) -> Error {
        match error {
            Error::UnknownKey { key, nearest, .. } => Error::UnknownKey {
                place: self.place(&key),
                key,
                nearest,
            },
            Error::Value { key, message, .. } => self.refuse(&key, message),
            other @ (Error::Read { .. } | Error::Syntax { .. }) => other,
        }
    }

    fn place(&self, key: &str) -> String {
        let mut path = key;
        loop {
            if let Some(origin) = self.origins.get(path) {
                return origin.to_string();
            }
            match path.rsplit_once('.') {
                Some((section, _)) => path = section,
                None => return Origin::Default.to_string(),
            }
        }
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
        ] {
            sources.environment.insert(name.into(), value.into());
        }
        let config = sources.load().expect("usable").config;
        assert!(!config.lan.enabled);
        assert_eq!(config.lan.interfaces.allow, ["eth0", "eth1"]);
        assert_eq!(config.cluster.name, "42");
        assert!(
            !config
                .cluster_config_spec()
                .expect("usable")
                .discovery_config
                .autojoin
        );
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
    const COMPLAINTS: [(&str, &str); 21] = [
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
            "tunnel: {mtu: 100}\n",
            "tunnel.mtu: 100 is not a packet size",
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
            "dns: {servers: [10.0.0.1]}\n",
            "dns.servers: is not available in this version",
        ),
        (
            "trust: {incoming: token}\n",
            "trust.incoming: token is not available in this version",
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
