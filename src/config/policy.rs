//! The spec that the ClusterConfig object is first made with.

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::{Config, Error, Incoming, Loaded, Origin, keys, layers, values};
use crate::api::{ClusterConfig, ClusterConfigSpec, labels};

/// The section of the settings that is a part of the spec.
const SECTION: &str = "clusterConfig";

/// The settings outside of that section that make a part of the spec, and which.
const FIRST: [(&str, &[&str]); 4] = [
    ("cluster.name", &["discoveryConfig.clusterName"]),
    ("cluster.podCIDR", &["liqonetConfig.podCIDR"]),
    ("cluster.serviceCIDR", &["liqonetConfig.serviceCIDR"]),
    (
        "trust.incoming",
        &["authConfig.allowEmptyToken", "authConfig.requireToken"],
    ),
];

/// Builds the spec, or says which key of the section cannot be used.
pub(super) fn spec(config: &Config) -> Result<ClusterConfigSpec, Error> {
    let given = Value::Object(config.cluster_config.clone());
    known(&given, &schema(), "")?;
    let cluster = &config.cluster;
    let (name, pods, services) = (&cluster.name, cluster.pod_cidr, cluster.service_cidr);
    let incoming = config.trust.incoming;
    // Each part of the spec, the setting that it belongs to, and what both say.
    let owned = [
        (
            "discoveryConfig.clusterName",
            "cluster.name",
            json!(name),
            json!(name),
        ),
        (
            "liqonetConfig.podCIDR",
            "cluster.podCIDR",
            json!(pods),
            json!(pods),
        ),
        (
            "liqonetConfig.serviceCIDR",
            "cluster.serviceCIDR",
            json!(services),
            json!(services),
        ),
        (
            "authConfig.allowEmptyToken",
            "trust.incoming",
            json!(incoming),
            json!(incoming == Incoming::Open),
        ),
        (
            "authConfig.requireToken",
            "trust.incoming",
            json!(incoming),
            json!(incoming == Incoming::Token),
        ),
    ];
    let mut spec = default_spec();
    for (path, owner, said, value) in owned {
        if let Some(other) = keys::lookup(&given, path).filter(|other| **other != value) {
            let message = format!("{other} contradicts {owner} {said}: set {owner} only");
            return Err(refuse(path, message));
        }
        json_patch::merge(&mut spec, &keys::nest(path, value));
    }
    json_patch::merge(&mut spec, &given);
    let spec: ClusterConfigSpec = serde_path_to_error::deserialize(spec)
        .map_err(|error| refuse(&error.path().to_string(), error.inner().to_string()))?;
    check(&spec)?;
    Ok(spec)
}

/// A setting that somebody gave and that the ClusterConfig, which rules once it exists, has otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overruled {
    /// The key with its sections.
    pub key: String,
    /// Where the value was given.
    pub origin: Origin,
    /// What makes the ClusterConfig say the same.
    pub mend: String,
}

/// Lists what was given for the first start and is not what the ClusterConfig says.
pub(super) fn overruled(loaded: &Loaded, present: &ClusterConfigSpec) -> Vec<Overruled> {
    let json = |spec: &ClusterConfigSpec| serde_json::to_value(spec).unwrap_or_default();
    let (wanted, present) = (
        spec(&loaded.config).map(|wanted| json(&wanted)),
        json(present),
    );
    let Ok(wanted) = wanted else {
        return Vec::new();
    };
    let given = Value::Object(loaded.config.cluster_config.clone());
    let section = keys::leaves(&given)
        .into_iter()
        .filter(|path| !path.is_empty());
    let section = section.map(|path| (keys::join(SECTION, &path), vec![path]));
    let named = FIRST.map(|(key, paths)| {
        let paths = paths.iter().map(|path| (*path).to_owned());
        (key.to_owned(), paths.collect())
    });
    let mut found = Vec::new();
    for (key, paths) in named.into_iter().chain(section) {
        let origin = layers::origin(&loaded.origins, &key);
        let is_same = |path: &String| keys::lookup(&wanted, path) == keys::lookup(&present, path);
        if matches!(origin, Origin::Default | Origin::Machine) || paths.iter().all(is_same) {
            continue;
        }
        let mut patch = json!({});
        for path in &paths {
            let value = keys::lookup(&wanted, path).cloned().unwrap_or_default();
            json_patch::merge(&mut patch, &keys::nest(&keys::join("spec", path), value));
        }
        let mend = mend(&patch);
        found.push(Overruled { key, origin, mend });
    }
    found
}

/// The command that patches the ClusterConfig. A shell ends its quotes at an apostrophe.
fn mend(patch: &Value) -> String {
    let patch = patch.to_string().replace('\'', "\\u0027");
    let name = labels::CLUSTER_CONFIG;
    format!("kubectl patch clusterconfig {name} --type merge -p '{patch}'")
}

fn refuse(path: &str, message: String) -> Error {
    Error::Value {
        place: String::new(),
        key: keys::join(SECTION, path),
        message,
    }
}

fn default_spec() -> Value {
    serde_json::to_value(ClusterConfigSpec::default()).expect("the default spec is plain data")
}

/// Returns the schema of the spec, generated from the type like the shipped definition.
fn schema() -> Value {
    let definition =
        serde_json::to_value(ClusterConfig::crd()).expect("a definition is plain data");
    definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .cloned()
        .unwrap_or_default()
}

/// Checks that every given key is in the schema, which names also the optional ones.
fn known(given: &Value, schema: &Value, path: &str) -> Result<(), Error> {
    let (Some(given), Some(properties)) = (
        given.as_object(),
        schema.get("properties").and_then(Value::as_object),
    ) else {
        return Ok(());
    };
    for (key, value) in given {
        let path = keys::join(path, key);
        match properties.get(key) {
            Some(schema) => known(value, schema, &path)?,
            None => {
                return Err(Error::UnknownKey {
                    place: String::new(),
                    nearest: keys::nearest(key, properties.keys().map(String::as_str)),
                    key: keys::join(SECTION, &path),
                });
            }
        }
    }
    Ok(())
}

/// Checks the ranges that the schema gives, so that a mistake is told before the daemon starts.
fn check(spec: &ClusterConfigSpec) -> Result<(), Error> {
    let advertisement = &spec.advertisement_config;
    let discovery = &spec.discovery_config;
    let numbers = [
        (
            "advertisementConfig.outgoingConfig.resourceSharingPercentage",
            i64::from(advertisement.outgoing_config.resource_sharing_percentage),
            0..=100,
        ),
        (
            "advertisementConfig.ingoingConfig.maxAcceptableAdvertisement",
            i64::from(advertisement.ingoing_config.max_acceptable_advertisement),
            0..=1_000_000,
        ),
        (
            "discoveryConfig.ttl",
            i64::from(discovery.ttl),
            30..=i64::from(i32::MAX),
        ),
        (
            "discoveryConfig.port",
            i64::from(discovery.port),
            1..=65_355,
        ),
    ];
    for (path, number, usable) in numbers {
        if !usable.contains(&number) {
            let (low, high) = (usable.start(), usable.end());
            return Err(refuse(
                path,
                format!("{number} is not within {low} to {high}"),
            ));
        }
    }
    let network = &spec.liqonet_config;
    for (path, ranges) in [
        ("liqonetConfig.reservedSubnets", &network.reserved_subnets),
        ("liqonetConfig.additionalPools", &network.additional_pools),
    ] {
        for range in ranges {
            values::check_range(range).map_err(|message| refuse(path, message))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(section: Value) -> Result<ClusterConfigSpec, Error> {
        let mut config = Config::default();
        config.cluster.name = "rome".to_owned();
        if let Value::Object(section) = section {
            config.cluster_config = section;
        }
        spec(&config)
    }

    #[test]
    fn a_part_of_the_spec_goes_over_the_defaults() {
        let spec = with(json!({
            "discoveryConfig": {"autojoin": false},
            "advertisementConfig": {"outgoingConfig": {"resourceSharingPercentage": 50}},
        }))
        .expect("usable");
        assert!(!spec.discovery_config.autojoin);
        assert!(spec.discovery_config.autojoin_untrusted);
        assert_eq!(spec.discovery_config.cluster_name.as_deref(), Some("rome"));
        assert_eq!(
            spec.advertisement_config
                .outgoing_config
                .resource_sharing_percentage,
            50
        );
        assert_eq!(spec.liqonet_config.pod_cidr, "10.244.0.0/16");
    }

    #[test]
    fn an_open_door_is_the_empty_token_of_liqo() {
        let mut config = Config::default();
        assert!(!spec(&config).expect("usable").auth_config.allow_empty_token);
        config.trust.incoming = Incoming::Open;
        assert!(spec(&config).expect("usable").auth_config.allow_empty_token);
    }

    #[test]
    fn what_was_given_and_is_not_what_the_object_says_is_told_with_its_mend() {
        let mut loaded = Loaded {
            config: Config::default(),
            origins: [
                ("trust.incoming", 1),
                ("cluster.podCIDR", 2),
                ("clusterConfig", 3),
            ]
            .map(|(key, line)| (key.to_owned(), Origin::File(format!("f:{line}"))))
            .into(),
            unknown: Vec::new(),
        };
        "ada's".clone_into(&mut loaded.config.cluster.name);
        let flag = Origin::Flag("--name");
        loaded.origins.insert("cluster.name".to_owned(), flag);
        let same = spec(&loaded.config).expect("usable");
        assert_eq!(overruled(&loaded, &same), []);
        let mut present = same;
        present.auth_config.allow_empty_token = true;
        present.discovery_config.cluster_name = Some("rome".to_owned());
        present.liqonet_config.service_cidr = "10.9.0.0/16".to_owned();
        present.discovery_config.autojoin = false;
        loaded.config.cluster_config = json!({"discoveryConfig": {"autojoin": true, "ttl": 90}})
            .as_object()
            .cloned()
            .expect("a mapping");
        let told = overruled(&loaded, &present);
        let told: Vec<String> = told
            .iter()
            .map(|one| format!("{} {} {}", one.key, one.origin, one.mend))
            .collect();
        let patch = "kubectl patch clusterconfig liqo-configuration --type merge -p";
        assert_eq!(
            told,
            [
                format!(
                    "cluster.name --name {patch} '{{\"spec\":{{\"discoveryConfig\":{{\"clusterName\":\"ada\\u0027s\"}}}}}}'"
                ),
                format!(
                    "trust.incoming f:1 {patch} '{{\"spec\":{{\"authConfig\":{{\"allowEmptyToken\":false,\"requireToken\":false}}}}}}'"
                ),
                format!(
                    "clusterConfig.discoveryConfig.autojoin f:3 {patch} '{{\"spec\":{{\"discoveryConfig\":{{\"autojoin\":true}}}}}}'"
                ),
            ],
            "the range of the services is a default"
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (section, complaint) in [
            (
                json!({"discoveryConfig": {"autoJoin": true}}),
                "unknown key clusterConfig.discoveryConfig.autoJoin: did you mean autojoin?",
            ),
            (
                json!({"discoveryConfig": {"ttl": 5}}),
                "clusterConfig.discoveryConfig.ttl: 5 is not within 30",
            ),
            (
                json!({"discoveryConfig": {"autojoin": "perhaps"}}),
                "clusterConfig.discoveryConfig.autojoin: invalid type",
            ),
            (
                json!({"liqonetConfig": {"podCIDR": "10.1.0.0/16"}}),
                "contradicts cluster.podCIDR \"10.244.0.0/16\"",
            ),
            (
                json!({"authConfig": {"allowEmptyToken": true}}),
                "contradicts trust.incoming \"ask\": set trust.incoming only",
            ),
            (
                json!({"liqonetConfig": {"reservedSubnets": ["10.1.0.0"]}}),
                "clusterConfig.liqonetConfig.reservedSubnets: \"10.1.0.0\" is not an IPv4 range",
            ),
        ] {
            let message = with(section).expect_err(complaint).to_string();
            assert!(message.contains(complaint), "{message}");
        }
    }
}
