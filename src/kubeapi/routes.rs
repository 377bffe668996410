//! Which thing a path is about.

use super::{
    catalog::{Catalog, Resource, Role},
    refusal::Refusal,
};
use axum::http::Uri;
use std::{collections::BTreeMap, sync::Arc};

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Route {
    Version,
    Health,
    /// `/api`: the versions of the core group.
    CoreVersions,
    /// `/apis`: the groups.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`: the kinds.
    Kinds(String, String),
    /// `/openapi/v3`.
    Documents,
    /// `/openapi/v3/PATH`.
    Document(String),
    /// Objects of a kind.
    Objects(Target),
}

/// Objects, or one object, or a part of one.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) resource: Arc<Resource>,
    /// Empty for all namespaces and for kinds without.
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    /// The old way to ask for a watch: `/watch/` in the path.
    pub(super) watch: bool,
}

/// Reads a path.
pub(super) fn route(path: &str, catalog: &Catalog) -> Result<Route, Refusal> {
    let segments: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect();
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["version"] => Ok(Route::Version),
        ["livez" | "readyz" | "healthz", ..] => Ok(Route::Health),
        ["api"] => Ok(Route::CoreVersions),
        ["apis"] => Ok(Route::Groups),
        ["apis", group] => Ok(Route::Group((*group).to_owned())),
        ["api", version] => Ok(Route::Kinds(String::new(), (*version).to_owned())),
        ["apis", group, version] => Ok(Route::Kinds((*group).to_owned(), (*version).to_owned())),
        // The second is where an old kubectl looks when it may not have the first.
        ["openapi", "v2"] | ["swagger-2.0.0.pb-v1"] => Err(Refusal::no_openapi_v2()),
        ["openapi", "v3"] => Ok(Route::Documents),
        ["openapi", "v3", rest @ ..] => Ok(Route::Document(rest.join("/"))),
        ["api", version, rest @ ..] => objects(catalog, "", version, rest),
        ["apis", group, version, rest @ ..] => objects(catalog, group, version, rest),
        _ => Err(Refusal::unknown_path()),
    }
}

fn objects(catalog: &Catalog, group: &str, version: &str, path: &[&str]) -> Result<Route, Refusal> {
    let (watch, path) = match path {
        ["watch", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (namespace, plural, rest) = match path {
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", "namespaces", path),
        ["namespaces", namespace, plural, ..] => {
            (*namespace, *plural, path.get(2..).unwrap_or(&[]))
        }
        [plural, ..] => ("", *plural, path),
        [] => return Err(Refusal::unknown_path()),
    };
    let resource = catalog
        .find(group, version, plural)
        .ok_or_else(Refusal::unknown_path)?;
    let (name, subresource) = match rest {
        [_] => (None, None),
        [_, name] => (Some(*name), None),
        [_, name, subresource] => (Some(*name), Some(*subresource)),
        _ => return Err(Refusal::unknown_path()),
    };
    let misplaced = if resource.namespaced {
        namespace.is_empty() && name.is_some()
    } else {
        !namespace.is_empty() && resource.role != Role::Namespace
    };
    if misplaced || watch && subresource.is_some() {
        return Err(Refusal::unknown_path());
    }
    Ok(Route::Objects(Target {
        resource: Arc::clone(resource),
        namespace: namespace.to_owned(),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
        watch,
    }))
}

fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The query of a request; what stands twice counts as it stands first.
#[derive(Debug, Clone, Default)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        let pairs = pairs.map(|query| query.0).unwrap_or_default();
        let mut first = BTreeMap::new();
        for (name, value) in pairs {
            first.entry(name).or_insert(value);
        }
        Self(first)
    }

    /// The value of a parameter; empty when it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A parameter that is there and does not say no.
    pub(super) fn flag(&self, name: &str) -> bool {
        let value = self.0.get(name);
        value.is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// Whether a parameter is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}
