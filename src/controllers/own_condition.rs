//! A condition of the ClusterConfig, which tells how this cluster itself does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{Api, Client, api::Patch};
use serde_json::json;

use super::{Error, is_conflict, managed};
use crate::api::{ClusterConfig, labels};

/// How often a write is tried again when another condition was written meanwhile.
const TRIES: usize = 8;

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `True` or `False`.
    pub(super) status: &'static str,
    /// In CamelCase as Kubernetes asks.
    pub(super) reason: &'static str,
    /// For a person.
    pub(super) message: String,
}

/// Writes a condition if it says something else than before; does nothing where there is no
/// ClusterConfig.
pub(super) async fn write(
    client: &Client,
    type_: &str,
    verdict: &Verdict,
    now: Timestamp,
) -> Result<(), Error> {
    let api: Api<ClusterConfig> = Api::all(client.clone());
    let mut written = Ok(());
    for _ in 0..TRIES {
        let read = Error::api("read the ClusterConfig");
        let Some(object) = api.get_opt(labels::CLUSTER_CONFIG).await.map_err(read)? else {
            return Ok(());
        };
        let present = object.status.unwrap_or_default().conditions;
        let Some(conditions) = with(present, type_, verdict, now) else {
            return Ok(());
        };
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": object.metadata.resource_version },
            "status": { "conditions": conditions },
        }));
        let patched = api
            .patch_status(labels::CLUSTER_CONFIG, &managed(), &patch)
            .await;
        written = patched.map(drop);
        if !written.as_ref().is_err_and(is_conflict) {
            break;
        }
    }
    written.map_err(Error::api("write the status of the ClusterConfig"))
}

/// Tells whether there is a condition of a type.
pub(super) async fn is_there(client: &Client, type_: &str) -> Result<bool, Error> {
    let api: Api<ClusterConfig> = Api::all(client.clone());
    let read = Error::api("read the ClusterConfig");
    let object = api.get_opt(labels::CLUSTER_CONFIG).await.map_err(read)?;
    let status = object.and_then(|object| object.status).unwrap_or_default();
    Ok(status.conditions.iter().any(|one| one.type_ == type_))
}

/// Returns the conditions with one of them said anew; nothing when it is said already.
fn with(
    mut conditions: Vec<Condition>,
    type_: &str,
    verdict: &Verdict,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let before = conditions
        .iter()
        .position(|one| one.type_ == type_)
        .map(|index| conditions.swap_remove(index));
    let said = |one: &Condition| {
        one.status == verdict.status
            && one.reason == verdict.reason
            && one.message == verdict.message
    };
    if before.as_ref().is_some_and(said) {
        return None;
    }
    let since = before.filter(|one| one.status == verdict.status);
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: verdict.status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: verdict.message.clone(),
        last_transition_time: since.map_or(Time(now), |one| one.last_transition_time),
        observed_generation: None,
    });
    conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
    Some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_changes_alone_and_keeps_its_time_while_its_status_stays() {
        let verdict = |status, message: &str| Verdict {
            status,
            reason: "Because",
            message: message.to_owned(),
        };
        let at = |second| Timestamp::from_second(second).expect("a time");
        let first = with(Vec::new(), "B", &verdict("True", "one"), at(1)).expect("new");
        assert_eq!(
            with(first.clone(), "B", &verdict("True", "one"), at(2)),
            None
        );
        let second = with(first, "A", &verdict("False", "two"), at(2)).expect("another");
        let third = with(second, "B", &verdict("True", "three"), at(3)).expect("news");
        let told: Vec<(&str, &str, i64)> = third
            .iter()
            .map(|one| {
                let since = one.last_transition_time.0.as_second();
                (one.type_.as_str(), one.message.as_str(), since)
            })
            .collect();
        assert_eq!(told, [("A", "two", 2), ("B", "three", 1)]);
        let fourth = with(third, "B", &verdict("False", "three"), at(4)).expect("news");
        assert_eq!(fourth[1].last_transition_time.0, at(4));
    }
}
