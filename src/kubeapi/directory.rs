//! API discovery: which groups, versions and kinds there are, in the old form and the aggregated one.

use super::catalog::{Catalog, Resource, Role};
use crate::kubeapi::tree::Tree;
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// The content type of the aggregated form.
pub(super) const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Groups with their versions, the preferred one first, with their kinds.
type Groups<'a> = BTreeMap<&'a str, BTreeMap<Reverse<Precedence<'a>>, Vec<&'a Arc<Resource>>>>;

/// What version of a group comes before another one: general ones before betas before alphas before
/// other words, then the higher numbers ("version priority" of the CustomResourceDefinition).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence<'a> {
    stability: u8,
    numbers: (u32, u32),
    /// Words that are no versions of Kubernetes come in the order of the alphabet.
    word: Reverse<&'a str>,
}

impl<'a> Precedence<'a> {
    fn of(word: &'a str) -> Self {
        let (stability, numbers) = Self::read(word).unwrap_or_default();
        Self {
            stability,
            numbers,
            word: Reverse(word),
        }
    }

    fn read(word: &str) -> Option<(u8, (u32, u32))> {
        let rest = word.strip_prefix('v')?;
        let number = |text: &str| text.parse::<u32>().ok();
        for (name, stability) in [("alpha", 1), ("beta", 2)] {
            if let Some((major, minor)) = rest.split_once(name) {
                return Some((stability, (number(major)?, number(minor)?)));
            }
        }
        Some((3, (number(rest)?, 0)))
    }

    fn word(self) -> &'a str {
        self.word.0
    }
}

fn groups(catalog: &Catalog) -> Groups<'_> {
    let mut groups = Groups::new();
    for resource in catalog.resources() {
        groups
            .entry(&resource.group)
            .or_default()
            .entry(Reverse(Precedence::of(&resource.version)))
            .or_default()
            .push(resource);
    }
    groups
}

/// The answer to `/api` in the old form.
pub(super) fn core_versions() -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    })
}

/// The answer to `/apis` in the old form.
pub(super) fn group_list(catalog: &Catalog) -> Value {
    let groups: Vec<Value> = groups(catalog)
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| one_group(group, versions.keys()))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// The answer to `/apis/GROUP`.
pub(super) fn group(catalog: &Catalog, name: &str) -> Option<Value> {
    let groups = groups(catalog);
    let versions = groups.get(name).filter(|_| !name.is_empty())?;
    let mut group = one_group(name, versions.keys());
    group.set(&["kind"], json!("APIGroup"));
    group.set(&["apiVersion"], json!("v1"));
    Some(group)
}

fn one_group<'a>(name: &str, versions: impl Iterator<Item = &'a Reverse<Precedence<'a>>>) -> Value {
    let versions: Vec<Value> = versions
        .map(|Reverse(version)| version.word())
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// The answer to `/apis/GROUP/VERSION` and `/api/v1`.
pub(super) fn kinds(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let groups = groups(catalog);
    let resources = groups.get(group)?.get(&Reverse(Precedence::of(version)))?;
    let listed: Vec<Value> = resources
        .iter()
        .flat_map(|resource| entries(resource))
        .collect();
    let name = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": name,
        "resources": listed,
    }))
}

fn entries(resource: &Resource) -> Vec<Value> {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs.names(),
    });
    if !resource.short_names.is_empty() {
        entry.set(&["shortNames"], json!(resource.short_names));
    }
    if !resource.categories.is_empty() {
        entry.set(&["categories"], json!(resource.categories));
    }
    let parts = subresources(resource).map(|(part, verbs)| {
        json!({
            "name": format!("{}/{part}", resource.plural),
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": verbs,
        })
    });
    std::iter::once(entry).chain(parts).collect()
}

fn subresources(
    resource: &Resource,
) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let status: &[&str] = &["get", "patch", "update"];
    let finalize: &[&str] = &["update"];
    [
        (resource.role == Role::Namespace).then_some(("finalize", finalize)),
        resource.rules.status.then_some(("status", status)),
    ]
    .into_iter()
    .flatten()
}

/// The aggregated answer to `/api` (`core`) or `/apis`.
pub(super) fn aggregated(catalog: &Catalog, core: bool) -> Value {
    let items: Vec<Value> = groups(catalog)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|(Reverse(version), resources)| {
                    let resources: Vec<Value> = resources
                        .into_iter()
                        .map(|resource| aggregated_entry(resource))
                        .collect();
                    json!({"version": version.word(), "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core {
                json!({})
            } else {
                json!({"name": group})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_entry(resource: &Resource) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs.names(),
    });
    if !resource.short_names.is_empty() {
        entry.set(&["shortNames"], json!(resource.short_names));
    }
    if !resource.categories.is_empty() {
        entry.set(&["categories"], json!(resource.categories));
    }
    let parts: Vec<Value> = subresources(resource)
        .map(|(part, verbs)| json!({"subresource": part, "responseKind": kind, "verbs": verbs}))
        .collect();
    if !parts.is_empty() {
        entry.set(&["subresources"], Value::Array(parts));
    }
    entry
}

/// The answer to `/version`.
pub(super) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": concat!("v1.33.0+landbridge.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_in_the_order_of_kubernetes() {
        let mut words = [
            "foo1",
            "v10",
            "v11alpha2",
            "v11beta2",
            "v12alpha1",
            "v1",
            "v3beta1",
            "v2",
            "foo10",
            "v10beta3",
        ];
        words.sort_by_key(|word| Reverse(Precedence::of(word)));
        // The example of the Kubernetes documentation, section "version priority".
        assert_eq!(
            words,
            [
                "v10",
                "v2",
                "v1",
                "v11beta2",
                "v10beta3",
                "v3beta1",
                "v12alpha1",
                "v11alpha2",
                "foo1",
                "foo10"
            ]
        );
    }
}
