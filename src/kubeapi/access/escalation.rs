//! Nobody grants rights that they do not have, unless a rule says that they may.

use super::{Deed, RBAC, Server, User};
use crate::kubeapi::{
    catalog::Resource,
    refusal::{FieldError, Refusal, Subject},
    tree::Tree,
};
use serde_json::Value;

impl Server {
    /// Refuses a role or binding that would give more than its author has.
    pub(in crate::kubeapi) fn check_grant(
        &self,
        user: &User,
        resource: &Resource,
        namespace: &str,
        object: &Value,
    ) -> Result<(), Refusal> {
        if resource.group != RBAC || user.is_master() {
            return Ok(());
        }
        let binds = resource.plural.ends_with("bindings");
        let name = object.field("metadata").text("name");
        let (verb, granted, role, kind) = if binds {
            let reference = object.field("roleRef");
            let kind = if reference.text("kind") == "Role" {
                "roles"
            } else {
                "clusterroles"
            };
            let rules = self.rules_in(reference, namespace);
            ("bind", rules, reference.text("name"), kind)
        } else {
            let rules = object.field("rules").as_array().cloned();
            (
                "escalate",
                Some(rules.unwrap_or_default()),
                name,
                resource.plural.as_str(),
            )
        };
        let may = Deed::Objects {
            verb,
            group: RBAC,
            resource: kind,
            namespace,
            name: role,
        };
        if self.allows(user, may) {
            return Ok(());
        }
        let granted = granted.ok_or_else(|| {
            Refusal::not_found(Subject {
                group: RBAC,
                kind,
                name: role,
            })
        })?;
        let own = self.rules_of(user, namespace);
        let missing: Vec<String> = granted
            .iter()
            .filter(|rule| !is_covered(rule, &own))
            .map(ToString::to_string)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            user.groups,
            missing.join("\n")
        );
        Err(Refusal::forbidden(resource.subject(name), &why))
    }
}

/// What is wrong with a change of the role that a binding gives: it would give others all that its
/// subjects were let have by somebody else.
pub(in crate::kubeapi) fn moved_role(
    resource: &Resource,
    old: &Value,
    object: &Value,
) -> Option<FieldError> {
    let binds = resource.group == RBAC && resource.plural.ends_with("bindings");
    let reference = object.field("roleRef");
    (binds && old.field("roleRef") != reference)
        .then(|| FieldError::invalid("roleRef", reference, "cannot change roleRef"))
}

/// Whether everything that a rule allows is allowed by one of these.
fn is_covered(rule: &Value, own: &[Value]) -> bool {
    let words = |field: &str| -> Vec<&str> {
        let list = rule.field(field).as_array().into_iter().flatten();
        list.filter_map(Value::as_str).collect()
    };
    let names = words("resourceNames");
    let names = if names.is_empty() { vec![""] } else { names };
    let mut deeds = Vec::new();
    for verb in words("verbs") {
        for path in words("nonResourceURLs") {
            deeds.push(Deed::Path { verb, path });
        }
        for group in words("apiGroups") {
            for resource in words("resources") {
                deeds.extend(names.iter().map(|name| Deed::Objects {
                    verb,
                    group,
                    resource,
                    namespace: "",
                    name,
                }));
            }
        }
    }
    deeds
        .iter()
        .all(|deed| own.iter().any(|rule| deed.is_allowed_by(rule)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_is_covered_by_one_that_is_as_wide() {
        let own = [json!({"verbs": ["get", "list"], "apiGroups": ["g"], "resources": ["*"]})];
        let covered = json!({"verbs": ["get"], "apiGroups": ["g"], "resources": ["things"]});
        assert!(is_covered(&covered, &own));
        for wider in [
            json!({"verbs": ["*"], "apiGroups": ["g"], "resources": ["things"]}),
            json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["things"]}),
        ] {
            assert!(!is_covered(&wider, &own), "{wider}");
        }
    }
}
