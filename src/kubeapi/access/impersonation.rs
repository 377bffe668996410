//! Acting as somebody else, as `kubectl --as` asks for: only for whoever has the right to.

use super::{ANONYMOUS, AUTHENTICATED, Deed, UNAUTHENTICATED, User};
use crate::kubeapi::{Server, refusal::Refusal};
use axum::http::{HeaderMap, HeaderName};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
/// What else kubectl may ask for, and what has no meaning here.
const OTHERS: &[&str] = &["impersonate-uid", "impersonate-extra-"];

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

impl Server {
    /// The user that a request is carried out as: the one who sends it, or whom its headers name.
    pub(in crate::kubeapi) fn acting_user(
        &self,
        sender: User,
        headers: &HeaderMap,
    ) -> Result<User, Refusal> {
        let mut names = headers.keys().map(HeaderName::as_str);
        if names.any(|name| OTHERS.iter().any(|other| name.starts_with(other))) {
            let why = "only users and groups can be impersonated here";
            return Err(Refusal::bad_request(why));
        }
        let groups = headers.get_all(GROUP).iter();
        let groups: Vec<String> = groups
            .filter_map(|value| value.to_str().ok())
            .map(str::to_owned)
            .collect();
        let name = headers.get(USER).and_then(|value| value.to_str().ok());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return if headers.contains_key(USER) || headers.contains_key(GROUP) {
                let why = format!("requested groups {groups:?} without impersonating a user");
                Err(Refusal::internal(why))
            } else {
                Ok(sender)
            };
        };
        self.authorize(&sender, subject(name))?;
        for group in &groups {
            self.authorize(&sender, impersonation("groups", "", group))?;
        }
        Ok(User {
            name: name.to_owned(),
            groups: with_implied(name, groups),
        })
    }
}

/// The service account that a user name stands for: its namespace and its name.
fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')
}

fn subject(name: &str) -> Deed<'_> {
    match service_account(name) {
        Some((namespace, account)) => impersonation("serviceaccounts", namespace, account),
        None => impersonation("users", "", name),
    }
}

fn impersonation<'a>(resource: &'a str, namespace: &'a str, name: &'a str) -> Deed<'a> {
    Deed::Objects {
        verb: "impersonate",
        group: "",
        resource,
        namespace,
        name,
    }
}

/// The groups that somebody is in besides those that are named, as on a real server.
fn with_implied(name: &str, mut groups: Vec<String>) -> Vec<String> {
    let account = service_account(name).filter(|_| groups.is_empty());
    if let Some((namespace, _)) = account {
        groups.push(SERVICE_ACCOUNTS.to_owned());
        groups.push(format!("{SERVICE_ACCOUNTS}:{namespace}"));
    }
    let implied = if name == ANONYMOUS {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    if !groups.iter().any(|group| group == implied) {
        groups.push(implied.to_owned());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_named_is_in_the_groups_that_follow() {
        let implied = |name, groups: &[&str]| {
            let groups = groups.iter().map(ToString::to_string).collect();
            with_implied(name, groups).join(" ")
        };
        assert_eq!(implied("bob", &["ops"]), "ops system:authenticated");
        assert_eq!(implied(ANONYMOUS, &[]), "system:unauthenticated");
        assert_eq!(
            implied("system:serviceaccount:liqo:a", &[]),
            "system:serviceaccounts system:serviceaccounts:liqo system:authenticated"
        );
    }
}
