//! Nobody grants rights that they do not have, unless a rule says that they may.

use super::{Deed, RBAC, Server, User};
use crate::kubeapi::{
    catalog::Resource,
    refusal::{FieldError, Refusal, Subject},
    tree::Tree,
};
use serde_json::Value;

/// How many deeds the rules of a grant may be about: each is held against every rule of its author, and
/// a small object can name billions.
const DEEDS: usize = 10_000;

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
        let Some(what) = objection(&granted, &self.rules_of(user, namespace)) else {
            return Ok(());
        };
        let why = format!(
            "user {:?} (groups={:?}) is attempting to grant {what}",
            user.name, user.groups
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

/// What of these rules nobody may give others who has only those.
fn objection(granted: &[Value], own: &[Value]) -> Option<String> {
    if granted.iter().map(deeds_of).fold(0, usize::saturating_add) > DEEDS {
        return Some(format!(
            "more than {DEEDS} deeds, which only those who may escalate or bind can"
        ));
    }
    let missing: Vec<String> = granted
        .iter()
        .filter(|rule| !is_covered(rule, own))
        .map(ToString::to_string)
        .collect();
    let missing = (!missing.is_empty()).then(|| missing.join("\n"))?;
    Some(format!("RBAC permissions not currently held:\n{missing}"))
}

/// What is wrong with a role that is to have the rules of others: nobody would ever give it them here.
/// What is as it was is let be: not every version of this program refused it.
pub(in crate::kubeapi) fn gathering_role(
    resource: &Resource,
    old: Option<&Value>,
    object: &Value,
) -> Option<FieldError> {
    let rule = object.field("aggregationRule");
    let same = old.is_some_and(|old| old.field("aggregationRule") == rule);
    let gathers = resource.group == RBAC && !rule.is_null() && !same;
    gathers.then(|| FieldError::forbidden("aggregationRule", "roles are not aggregated here"))
}

fn words<'a>(rule: &'a Value, field: &str) -> impl Iterator<Item = &'a str> + Clone {
    let list = rule.field(field).as_array().into_iter().flatten();
    list.filter_map(Value::as_str)
}

/// The names of the objects that a rule is about; an empty one for all of them.
fn names(rule: &Value) -> impl Iterator<Item = &str> + Clone {
    let all = words(rule, "resourceNames").next().is_none();
    words(rule, "resourceNames").chain(all.then_some(""))
}

/// How many deeds a rule is about.
fn deeds_of(rule: &Value) -> usize {
    let count = |field: &str| words(rule, field).count();
    let objects = [count("apiGroups"), count("resources"), names(rule).count()];
    let objects = objects.into_iter().fold(1, usize::saturating_mul);
    let all = objects.saturating_add(count("nonResourceURLs"));
    all.saturating_mul(count("verbs"))
}

/// Whether everything that a rule allows is allowed by one of these.
fn is_covered(rule: &Value, own: &[Value]) -> bool {
    let is_held = |deed: Deed<'_>| own.iter().any(|rule| deed.is_allowed_by(rule));
    let objects = |verb, group, resource| {
        names(rule).all(|name| {
            is_held(Deed::Objects {
                verb,
                group,
                resource,
                namespace: "",
                name,
            })
        })
    };
    words(rule, "verbs").all(|verb| {
        words(rule, "nonResourceURLs").all(|path| is_held(Deed::Path { verb, path }))
            && words(rule, "apiGroups").all(|group| {
                words(rule, "resources").all(|resource| objects(verb, group, resource))
            })
    })
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
