//! Who may do what: users from client certificates, rights from the RBAC objects of the store.

mod escalation;
mod impersonation;
mod shape;

pub(super) use escalation::{gathering_role, moved_role};
pub(super) use shape::{misshapen, name_groups};

use super::{Server, catalog::Resource, refusal::Refusal, routes::Target, tree::Tree};
use serde_json::Value;

/// The group whose members may do everything.
pub(super) const MASTERS: &str = "system:masters";

const AUTHENTICATED: &str = "system:authenticated";
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// The API group of roles and bindings.
pub(super) const RBAC: &str = "rbac.authorization.k8s.io";

/// Paths that are open to everybody, so that a probe can ask them.
const PUBLIC: &[&str] = &["/version", "/livez", "/readyz", "/healthz"];

/// Paths that everybody who is known may read: what is served here.
const DISCOVERY: &[&str] = &["/api", "/apis", "/openapi"];

/// Who sends a request. A request of the daemon itself carries none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

impl User {
    /// The daemon itself.
    pub(super) fn daemon() -> Self {
        Self {
            name: "landbridge".to_owned(),
            groups: vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()],
        }
    }

    /// Somebody without credentials.
    pub(super) fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
        }
    }

    /// The user that a client certificate names: common name and organisations, as in Kubernetes.
    pub(super) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?;
        let mut groups: Vec<String> = subject
            .iter_organization()
            .filter_map(|group| group.as_str().ok())
            .map(str::to_owned)
            .collect();
        groups.push(AUTHENTICATED.to_owned());
        Some(Self {
            name: name.to_owned(),
            groups,
        })
    }

    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|known| known == group)
    }

    /// Whether nothing is forbidden to this user.
    pub(super) fn is_master(&self) -> bool {
        self.is_in(MASTERS)
    }
}

/// Something that somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed<'a> {
    /// With objects.
    Objects {
        verb: &'a str,
        group: &'a str,
        /// The plural, with `/subresource` if it is about one.
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    /// With a path that leads to no objects.
    Path { verb: &'a str, path: &'a str },
}

impl Deed<'_> {
    /// Whether a rule of a role allows this.
    fn is_allowed_by(&self, rule: &Value) -> bool {
        let says = |field: &str, fits: &dyn Fn(&str) -> bool| {
            let list = rule.field(field).as_array().into_iter().flatten();
            list.filter_map(Value::as_str).any(fits)
        };
        match *self {
            Self::Objects {
                verb,
                group,
                resource,
                name,
                ..
            } => {
                let subresource = resource.split_once('/').map(|(_, part)| part);
                let names = rule.field("resourceNames").as_array();
                says("verbs", &|word| word == "*" || word == verb)
                    && says("apiGroups", &|word| word == "*" || word == group)
                    && says("resources", &|word| {
                        let any = word.strip_prefix("*/");
                        word == "*" || word == resource || any.is_some() && any == subresource
                    })
                    && (names.is_none_or(Vec::is_empty)
                        || says("resourceNames", &|word| word == name && !name.is_empty()))
            }
            Self::Path { verb, path } => {
                says("verbs", &|word| word == "*" || word == verb)
                    && says("nonResourceURLs", &|word| {
                        let start = word.strip_suffix('*');
                        word == path || start.is_some_and(|start| path.starts_with(start))
                    })
            }
        }
    }
}

/// Whether a path is one of these or below one.
fn is_below(path: &str, roots: &[&str]) -> bool {
    roots.iter().any(|root| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

impl Server {
    /// Refuses what this user may not do.
    pub(super) fn authorize(&self, user: &User, deed: Deed<'_>) -> Result<(), Refusal> {
        if self.allows(user, deed) {
            return Ok(());
        }
        let who = format!("User \"{}\" cannot", user.name);
        match deed {
            Deed::Path { verb, path } => {
                let why = format!("{who} {verb} path \"{path}\"");
                Err(Refusal::forbidden_path(&why))
            }
            Deed::Objects {
                verb,
                group,
                resource,
                namespace,
                name,
            } => {
                let place = if namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace \"{namespace}\"")
                };
                let why = format!(
                    "{who} {verb} resource \"{resource}\" in API group \"{group}\" {place}"
                );
                let subject = super::refusal::Subject {
                    group,
                    kind: resource.split('/').next().unwrap_or_default(),
                    name,
                };
                Err(Refusal::forbidden(subject, &why))
            }
        }
    }

    /// Whether this user may do this.
    pub(super) fn allows(&self, user: &User, deed: Deed<'_>) -> bool {
        if user.is_master() {
            return true;
        }
        let granted = match deed {
            Deed::Path { verb, path } => {
                let reads = matches!(verb, "get" | "head");
                reads && is_below(path, PUBLIC)
                    || reads && user.is_in(AUTHENTICATED) && is_below(path, DISCOVERY)
            }
            Deed::Objects {
                verb,
                group,
                resource,
                ..
            } => {
                let asks = matches!(group, "authentication.k8s.io" | "authorization.k8s.io")
                    && resource.starts_with("selfsubject");
                verb == "create" && asks && user.is_in(AUTHENTICATED)
            }
        };
        let namespace = match deed {
            Deed::Objects { namespace, .. } => namespace,
            Deed::Path { .. } => "",
        };
        granted
            || self
                .rules_of(user, namespace)
                .iter()
                .any(|rule| deed.is_allowed_by(rule))
    }

    /// The rules that apply to a user: cluster-wide ones and those of a namespace.
    pub(super) fn rules_of(&self, user: &User, namespace: &str) -> Vec<Value> {
        let mut rules = Vec::new();
        let mut scopes = vec![("clusterrolebindings", "")];
        if !namespace.is_empty() {
            scopes.push(("rolebindings", namespace));
        }
        for (plural, namespace) in scopes {
            let prefix = format!("{RBAC}/{plural}/{namespace}/");
            for (_, stored) in self.store.list(&prefix, None).0 {
                let binding = stored.tree();
                let subjects = binding.field("subjects").as_array();
                if subjects
                    .into_iter()
                    .flatten()
                    .any(|one| is_subject(user, one))
                {
                    let granted = self.rules_in(binding.field("roleRef"), namespace);
                    rules.extend(granted.into_iter().flatten());
                }
            }
        }
        rules
    }

    /// The rules of the role that a binding refers to, if there is such a role.
    pub(super) fn rules_in(&self, reference: &Value, namespace: &str) -> Option<Vec<Value>> {
        let (plural, namespace) = match reference.text("kind") {
            "ClusterRole" => ("clusterroles", ""),
            "Role" => ("roles", namespace),
            _ => return None,
        };
        let key = format!("{RBAC}/{plural}/{namespace}/{}", reference.text("name"));
        let role = self.store.get(&key)?.tree();
        Some(role.field("rules").as_array().cloned().unwrap_or_default())
    }
}

fn is_subject(user: &User, subject: &Value) -> bool {
    let name = subject.text("name");
    match subject.text("kind") {
        "User" => name == user.name,
        "Group" => user.is_in(name),
        "ServiceAccount" => {
            let namespace = subject.text("namespace");
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

/// The resource of a target as rules name it.
pub(super) fn resource_name(resource: &Resource, target: &Target) -> String {
    match &target.subresource {
        Some(part) => format!("{}/{part}", resource.plural),
        None => resource.plural.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deed<'a>(verb: &'a str, resource: &'a str, name: &'a str) -> Deed<'a> {
        Deed::Objects {
            verb,
            group: "g",
            resource,
            namespace: "",
            name,
        }
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let rule =
            json!({"verbs": ["get"], "apiGroups": ["g"], "resources": ["things", "*/status"]});
        assert!(deed("get", "things", "a").is_allowed_by(&rule));
        assert!(deed("get", "others/status", "a").is_allowed_by(&rule));
        for no in [
            deed("list", "things", ""),
            deed("get", "others", "a"),
            deed("get", "things/scale", "a"),
        ] {
            assert!(!no.is_allowed_by(&rule), "{no:?}");
        }
    }

    #[test]
    fn a_rule_for_named_objects_allows_no_list() {
        let rule =
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]});
        assert!(deed("get", "things", "a").is_allowed_by(&rule));
        assert!(!deed("get", "things", "b").is_allowed_by(&rule));
        assert!(!deed("list", "things", "").is_allowed_by(&rule));
    }

    #[test]
    fn a_rule_for_paths_may_end_with_a_star() {
        let rule = json!({"verbs": ["get"], "nonResourceURLs": ["/metrics", "/debug/*"]});
        let path = |path| Deed::Path { verb: "get", path };
        assert!(path("/metrics").is_allowed_by(&rule) && path("/debug/x").is_allowed_by(&rule));
        assert!(!path("/metrics/x").is_allowed_by(&rule));
    }
}
