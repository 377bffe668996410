//! What a role or a binding must say, and what goes without saying.

use super::RBAC;
use crate::kubeapi::{catalog::Resource, refusal::FieldError, tree::Tree};
use serde_json::{Value, json};

/// What the subject of a binding may be; those of a group are users and groups alone.
const SUBJECTS: [&str; 3] = ["ServiceAccount", "User", "Group"];

fn is_binding(resource: &Resource) -> bool {
    resource.group == RBAC && resource.plural.ends_with("bindings")
}

/// Names the group of the role and of the subjects of a binding that does not.
pub(in crate::kubeapi) fn name_groups(resource: &Resource, object: &mut Value) {
    if !is_binding(resource) {
        return;
    }
    let name = |reference: &mut Value| {
        if reference.is_object() && reference.text("apiGroup").is_empty() {
            reference.set(&["apiGroup"], json!(RBAC));
        }
    };
    object.get_mut("roleRef").into_iter().for_each(name);
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    let subjects = subjects.into_iter().flatten();
    subjects
        .filter(|subject| matches!(subject.text("kind"), "User" | "Group"))
        .for_each(name);
}

/// What is wrong with a role or a binding, but for what its schema says. What is as it was is let be: not
/// every version of this program checked it.
pub(in crate::kubeapi) fn misshapen(
    resource: &Resource,
    old: Option<&Value>,
    object: &Value,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let changed = |field: &str| {
        let now = object.field(field);
        let same = old.is_some_and(|old| old.field(field) == now);
        if same { &Value::Null } else { now }
    };
    if is_binding(resource) {
        check_role(changed("roleRef"), resource, &mut errors);
        let subjects = changed("subjects").as_array();
        for (index, subject) in subjects.into_iter().flatten().enumerate() {
            check_subject(subject, index, resource, &mut errors);
        }
    } else if resource.group == RBAC {
        let rules = changed("rules").as_array();
        for (index, rule) in rules.into_iter().flatten().enumerate() {
            check_rule(rule, index, resource, &mut errors);
        }
    }
    errors
}

fn check_role(role: &Value, resource: &Resource, errors: &mut Vec<FieldError>) {
    if !role.is_object() {
        return;
    }
    let kinds: &[&str] = if resource.namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    check_choice("roleRef.apiGroup", role.text("apiGroup"), &[RBAC], errors);
    check_choice("roleRef.kind", role.text("kind"), kinds, errors);
    if role.field("name") == "" {
        errors.push(FieldError::required("roleRef.name", ""));
    }
}

fn check_subject(subject: &Value, index: usize, resource: &Resource, errors: &mut Vec<FieldError>) {
    let at = |field: &str| format!("subjects[{index}].{field}");
    if subject.field("name") == "" {
        errors.push(FieldError::required(&at("name"), ""));
    }
    let kind = subject.text("kind");
    check_choice(&at("kind"), kind, &SUBJECTS, errors);
    let group = match kind {
        "ServiceAccount" => "",
        "User" | "Group" => RBAC,
        _ => return,
    };
    check_choice(&at("apiGroup"), subject.text("apiGroup"), &[group], errors);
    let nowhere = kind == "ServiceAccount" && subject.text("namespace").is_empty();
    if nowhere && !resource.namespaced {
        errors.push(FieldError::required(&at("namespace"), ""));
    }
}

fn check_rule(rule: &Value, index: usize, resource: &Resource, errors: &mut Vec<FieldError>) {
    let at = |field: &str| format!("rules[{index}].{field}");
    let says = |field: &str| {
        let list = rule.field(field).as_array();
        list.is_some_and(|list| !list.is_empty())
    };
    if !says("verbs") {
        let why = "verbs must contain at least one value";
        errors.push(FieldError::required(&at("verbs"), why));
    }
    if says("nonResourceURLs") {
        let mut wrong = |why: &str| {
            let urls = rule.field("nonResourceURLs");
            errors.push(FieldError::invalid(&at("nonResourceURLs"), urls, why));
        };
        if resource.namespaced {
            wrong("namespaced rules cannot apply to non-resource URLs");
        }
        if ["apiGroups", "resources", "resourceNames"]
            .into_iter()
            .any(says)
        {
            wrong("rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    for (field, what) in [("apiGroups", "api group"), ("resources", "resource")] {
        if !says(field) {
            let why = format!("resource rules must supply at least one {what}");
            errors.push(FieldError::required(&at(field), &why));
        }
    }
}

fn check_choice(field: &str, value: &str, choice: &[&str], errors: &mut Vec<FieldError>) {
    if !choice.contains(&value) {
        let choice: Vec<String> = choice.iter().map(|one| format!("{one:?}")).collect();
        let value = json!(value).to_string();
        errors.push(FieldError::unsupported(field, &value, &choice));
    }
}
