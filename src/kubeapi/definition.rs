//! What a definition may not be, and which changes of one are refused.

use super::{
    bounds::COMPLAINTS,
    catalog::{Catalog, check_definition},
    cel::CelRules,
    path::Path,
    refusal::FieldError,
    tree::Tree,
};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Where the objects of a kind may be.
const SCOPES: [&str; 2] = ["Cluster", "Namespaced"];

/// What says where the objects of a definition are, and what they are.
const IMMUTABLE: &[&str] = &["scope", "names.kind", "group", "names.plural"];

/// Why a definition cannot be served, if so.
pub(super) fn mistake_of(object: &Value) -> Option<String> {
    match serde_json::from_value(object.clone()) {
        Ok(definition) => check_definition(&definition)
            .err()
            .map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// Checks a definition, perhaps against the one that it takes the place of. One that cannot be served, as
/// another version of this program could, may still be labelled and deleted.
pub(super) fn check(catalog: &Catalog, old: Option<&Value>, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = object.field("spec");
    if old.is_none_or(|old| old.field("spec") != spec)
        && let Some(why) = mistake_of(object)
    {
        let name = object.field("metadata").field("name");
        errors.push(FieldError::invalid("spec", name, why));
    }
    let group = spec.field("group");
    let built_in = catalog
        .resources()
        .any(|resource| resource.is_built_in() && *group == resource.group);
    if built_in {
        let why = "must not be a group of built-in kinds";
        errors.push(FieldError::invalid("spec.group", group, why));
    }
    check_versions(object, &mut errors);
    check_shape(spec, old.map(|old| old.field("spec")), &mut errors);
    check_rules(spec, old.map(|old| old.field("spec")), &mut errors);
    check_conversion(spec, old.map(|old| old.field("spec")), &mut errors);
    for path in IMMUTABLE {
        let pointer = format!("/spec/{}", path.replace('.', "/"));
        let at = |object: &Value| object.pointer(&pointer).cloned().unwrap_or_default();
        let (was, is) = (old.map(at), at(object));
        if was.is_some_and(|was| was != is) {
            let field = format!("spec.{path}");
            errors.push(FieldError::invalid(&field, &is, "field is immutable"));
        }
    }
    errors
}

/// Refuses what would be served in another way than it was meant. As everywhere, what is as it was is let be.
fn check_shape(spec: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let changed = |field: &str| old.is_none_or(|old| old.field(field) != spec.field(field));
    let scope = spec.field("scope");
    if changed("scope") && !SCOPES.iter().any(|known| scope == known) {
        let supported = SCOPES.map(|scope| format!("{scope:?}"));
        let scope = scope.to_string();
        errors.push(FieldError::unsupported("spec.scope", &scope, &supported));
    }
    if !changed("versions") {
        return;
    }
    let versions = spec.field("versions").as_array();
    let versions = versions.map_or(&[][..], Vec::as_slice);
    let names = versions.iter().map(|version| version.text("name"));
    let unique: BTreeSet<&str> = names.collect();
    if unique.len() < versions.len() {
        let why = "must contain unique version names";
        errors.push(FieldError::invalid("spec.versions", &json!(unique), why));
    }
    let known = old.map_or(&Value::Null, |old| old.field("versions"));
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        let schema = version.field("schema").field("openAPIV3Schema");
        let known = known.as_array().into_iter().flatten();
        let mut known = known.filter(|known| known.field("name") == version.field("name"));
        if known.any(|known| known.field("schema") == version.field("schema")) {
            continue;
        }
        if schema.is_null() {
            errors.push(FieldError::required(&path, "schemas are required"));
        }
        check_patterns(schema, &path, errors);
    }
}

/// Refuses patterns in a schema that no text could be held against.
fn check_patterns(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !schema.is_object() || errors.len() >= COMPLAINTS {
        return;
    }
    let pattern = schema.field("pattern");
    if let Some(Err(error)) = pattern.as_str().map(Regex::new) {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        let field = format!("{path}.pattern");
        errors.push(FieldError::invalid(&field, pattern, why));
    }
    let fields = schema.field("properties").as_object();
    for (name, field) in fields.into_iter().flatten() {
        check_patterns(field, &format!("{path}.properties[{name}]"), errors);
    }
    for keyword in ["items", "additionalProperties", "not"] {
        check_patterns(schema.field(keyword), &format!("{path}.{keyword}"), errors);
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let parts = schema.field(keyword).as_array().into_iter().flatten();
        for (index, part) in parts.enumerate() {
            check_patterns(part, &format!("{path}.{keyword}[{index}]"), errors);
        }
    }
}

/// Refuses a conversion that is left out here: clients would read fields of another version. What is as
/// it was is let be: not every version of this program refused it.
fn check_conversion(spec: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let same = |field: &str| old.is_some_and(|old| old.field(field) == spec.field(field));
    let strategy = spec.field("conversion").field("strategy");
    let versions = spec.field("versions").as_array().map_or(0, Vec::len);
    if *strategy == "Webhook" && versions > 1 && !(same("conversion") && same("versions")) {
        let why = "conversion by a webhook is not served here";
        let field = "spec.conversion.strategy";
        errors.push(FieldError::invalid(field, strategy, why));
    }
}

/// Refuses rules that could never be held against an old state. As above, what is as it was is let be.
fn check_rules(spec: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let versions = spec.field("versions");
    if old.is_some_and(|old| old.field("versions") == versions) {
        return;
    }
    let root = Path::Field(&Path::Root, "spec");
    let root = Path::Field(&root, "versions");
    for (index, version) in versions.as_array().into_iter().flatten().enumerate() {
        let path = Path::Item(&root, index);
        let path = Path::Field(&path, "schema");
        let path = Path::Field(&path, "openAPIV3Schema");
        let schema = version.field("schema").field("openAPIV3Schema");
        let rules = CelRules::of(schema);
        errors.extend(rules.into_iter().flat_map(|rules| rules.uncorrelated(path)));
    }
}

fn check_versions(object: &Value, errors: &mut Vec<FieldError>) {
    let versions = object.field("spec").field("versions").as_array();
    let versions = versions.map_or(&[][..], Vec::as_slice);
    let names: BTreeSet<&str> = versions
        .iter()
        .map(|version| version.text("name"))
        .collect();
    let stored = versions
        .iter()
        .filter(|version| version.field("storage") == true);
    if stored.count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &json!(names), why));
    }
    let listed = object.field("status").field("storedVersions").as_array();
    let listed = listed.into_iter().flatten().enumerate();
    let lost =
        listed.filter(|(_, version)| !version.as_str().is_some_and(|name| names.contains(name)));
    errors.extend(lost.take(COMPLAINTS).map(|(index, version)| {
        let field = format!("status.storedVersions[{index}]");
        FieldError::invalid(&field, version, "must appear in spec.versions")
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_that_is_not_served_may_stay_as_it_was() {
        let catalog = Catalog::new(std::iter::empty(), Catalog::components());
        let version = |name: &str, storage: bool| {
            json!({"name": name, "served": true, "storage": storage,
                "schema": {"openAPIV3Schema": {"type": "object"}}})
        };
        let old = json!({"metadata": {"name": "boats.sea.test"}, "spec": {
            "group": "sea.test", "scope": "Cluster", "names": {"kind": "Boat", "plural": "boats"},
            "conversion": {"strategy": "Webhook"}, "versions": [version("v1", true), version("v2", false)]}});
        assert_eq!(check(&catalog, None, &old).len(), 1);
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"k": "v"});
        assert!(check(&catalog, Some(&old), &new).is_empty());
        new["spec"]["versions"] = json!([version("v1", true), version("v3", false)]);
        assert_eq!(check(&catalog, Some(&old), &new).len(), 1);
    }

    #[test]
    fn a_rule_that_no_old_state_can_be_found_for_is_refused() {
        let catalog = Catalog::new(std::iter::empty(), Catalog::components());
        let definition = |kind: &str| {
            json!({"metadata": {"name": "boats.sea.test"}, "spec": {
            "group": "sea.test", "scope": "Cluster", "names": {"kind": "Boat", "plural": "boats"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"crew": {"type": "array", "x-kubernetes-list-type": kind,
                    "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object",
                        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}}}}]}})
        };
        assert!(check(&catalog, None, &definition("map")).is_empty());
        let atomic = definition("atomic");
        let errors = check(&catalog, None, &atomic);
        assert_eq!(errors.len(), 1);
        assert_eq!(
            errors[0].field,
            "spec.versions[0].schema.openAPIV3Schema.properties[crew].items.x-kubernetes-validations[0].rule"
        );
        assert!(check(&catalog, Some(&atomic), &atomic).is_empty());
    }
}
