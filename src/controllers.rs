//! The corridors: read objects, ask the engine, carry out its answer.

mod approvals;
pub mod cluster_config;
pub mod context;
pub mod dns_endpoint;
pub mod enrolment;
mod events;
pub mod fleet;
pub mod foreign_cluster;
pub mod lan_health;
pub mod links;
mod own_condition;
pub mod own_node;
pub mod peering_request;
pub mod reception;
pub mod roster;
pub mod search_domain;
pub mod status;
pub mod suspicions;
pub mod tokens;
pub mod tunnel_endpoint;

pub use context::{Clock, Context};

use std::{sync::Arc, time::Duration};

use kube::{
    Resource, ResourceExt as _,
    api::{PatchParams, PostParams},
    runtime::controller::Action,
};

use crate::api::labels;

/// How long a controller waits at least after the API has failed.
const API_RETRY: Duration = Duration::from_secs(2);

/// Indicates why a controller could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates that the Kubernetes API refused or failed.
    #[error("cannot {action}: {source}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// What the API said.
        source: Box<kube::Error>,
    },
    /// Indicates that an object could not be turned into JSON.
    #[error("cannot encode an object: {0}")]
    Encode(#[from] serde_json::Error),
}

impl Error {
    /// Makes the conversion of an API error that says what was tried.
    pub(crate) fn api(action: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api {
            action,
            source: Box::new(source),
        }
    }
}

/// Has an object that the API failed for looked at again.
#[expect(
    clippy::needless_pass_by_value,
    reason = "kube's Controller calls it so"
)]
fn try_again<K: Resource<DynamicType = ()>>(
    object: Arc<K>,
    error: &Error,
    _: Arc<Context>,
) -> Action {
    let (kind, name) = (K::kind(&()), object.name_any());
    tracing::warn!(%kind, %name, %error, "The Kubernetes API failed; it is tried again");
    Action::requeue(API_RETRY.mul_f64(1.0 + context::chance()))
}

/// Says that a patch is ours.
pub(crate) fn managed() -> PatchParams {
    PatchParams::apply(labels::MANAGER)
}

/// Says that a new object is ours.
fn creating() -> PostParams {
    PostParams {
        field_manager: Some(labels::MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Tells whether an API error is a 409: somebody else was faster.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Tells whether an API error is a 404.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Turns the 404 of a deletion into success.
pub(crate) fn gone_is_fine<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
    }
}
