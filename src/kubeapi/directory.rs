//! API discovery: which groups, versions and kinds there are, in the old form and the aggregated one.

use super::catalog::{Catalog, Resource, Role};
use crate::kubeapi::tree::Tree;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The content type of the aggregated form.
pub(super) const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Groups with their versions with their kinds.
type Groups<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a Arc<Resource>>>>;

fn groups(catalog: &Catalog) -> Groups<'_> {
    let mut groups = Groups::new();
    for resource in catalog.resources() {
        groups
            .entry(&resource.group)
            .or_default()
            .entry(&resource.version)
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
        .map(|(group, versions)| one_group(group, versions.keys().copied()))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// The answer to `/apis/GROUP`.
pub(super) fn group(catalog: &Catalog, name: &str) -> Option<Value> {
    let groups = groups(catalog);
    let versions = groups.get(name).filter(|_| !name.is_empty())?;
    let mut group = one_group(name, versions.keys().copied());
    group.set(&["kind"], json!("APIGroup"));
    group.set(&["apiVersion"], json!("v1"));
    Some(group)
}

fn one_group<'a>(name: &str, versions: impl Iterator<Item = &'a str>) -> Value {
    let versions: Vec<Value> = versions
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": versions.last(), "versions": versions})
}

/// The answer to `/apis/GROUP/VERSION` and `/api/v1`.
pub(super) fn kinds(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let groups = groups(catalog);
    let resources = groups.get(group)?.get(version)?;
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
                .rev()
                .map(|(version, resources)| {
                    let resources: Vec<Value> = resources
                        .into_iter()
                        .map(|resource| aggregated_entry(resource))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
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
