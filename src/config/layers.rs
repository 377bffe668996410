//! The settings while they are put together, layer over layer.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Config, Error, Flag, Loaded, Origin, Sources,
    document::{self, Document},
    keys,
};

/// Variables of ours that are no settings.
const OTHER_VARIABLES: [&str; 4] = [
    "LANDBRIDGE_CONFIG",
    "LANDBRIDGE_LOG_LEVEL",
    "LANDBRIDGE_LOG_FORMAT",
    "LANDBRIDGE_DEMO_INSIDE",
];

/// The settings while they are put together.
pub(super) struct Layers {
    defaults: Value,
    merged: Value,
    origins: BTreeMap<String, Origin>,
    unknown: Vec<String>,
}

impl Layers {
    pub(super) fn new() -> Self {
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
            unknown: Vec::new(),
        }
    }

    pub(super) fn add_document(&mut self, document: &Document) -> Result<(), Error> {
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

    pub(super) fn add_environment(
        &mut self,
        environment: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let mut known = OTHER_VARIABLES.map(str::to_owned).to_vec();
        for key in keys::leaves(&self.defaults) {
            let variable = keys::variable(&key);
            known.push(variable.clone());
            let text = environment.get(&variable);
            if let Some(text) = text.filter(|text| !is_port_of_service(&variable, text)) {
                self.add_text(&key, text, Origin::Environment(variable))?;
            }
        }
        let named = environment.iter().filter(|(name, text)| {
            name.starts_with(keys::PREFIX) && !known.contains(*name) && !is_of_service(name, text)
        });
        self.unknown = named.map(|(name, _)| name.clone()).collect();
        Ok(())
    }

    pub(super) fn add_flags(&mut self, flags: &[Flag]) -> Result<(), Error> {
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
        for leaf in keys::leaves(&value) {
            self.origins.insert(keys::join(key, &leaf), origin.clone());
        }
        self.origins.insert(key.to_owned(), origin);
        json_patch::merge(&mut self.merged, &keys::nest(key, value));
        Ok(())
    }

    /// Fills in what the machine decides when nobody else did.
    pub(super) fn add_machine(&mut self, sources: &Sources) {
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

    pub(super) fn finish(self) -> Result<Loaded, Error> {
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
            unknown: self.unknown,
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
        origin(&self.origins, key).to_string()
    }
}

/// Whether Kubernetes made a variable of a Service that is called landbridge
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
fn is_of_service(name: &str, text: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT_") || text.contains("://")
}

/// Whether a variable that is also a setting was made of a Service that is called landbridge-tunnel
/// or the like.
fn is_port_of_service(name: &str, text: &str) -> bool {
    name.ends_with("_PORT") && text.contains("://")
}

/// Returns the origin of a key, or of the nearest section around it.
pub(super) fn origin(origins: &BTreeMap<String, Origin>, key: &str) -> Origin {
    let mut path = key;
    loop {
        if let Some(origin) = origins.get(path) {
            return origin.clone();
        }
        match path.rsplit_once('.') {
            Some((section, _)) => path = section,
            None => return Origin::Default,
        }
    }
}
