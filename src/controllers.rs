//! The corridors: read objects, ask the engine, carry out its answer.

mod approvals;
pub mod cluster_config;
pub mod context;
pub mod dns_endpoint;
pub mod enrolment;
mod events;
mod failures;
pub mod fleet;
pub mod foreign_cluster;
pub mod lan_health;
pub(crate) mod lease;
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

use std::sync::Arc;

use kube::{
    Resource, ResourceExt as _,
    api::{PatchParams, PostParams},
    runtime::{
        controller::{self, Action},
        reflector::ObjectRef,
        watcher,
    },
};

use crate::api::labels;

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
    /// Indicates that there is no place for one more cluster that nobody has let in.
    #[error("too many clusters at its address wait for a person")]
    Crowded,
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
    context: Arc<Context>,
) -> Action {
    let (kind, name) = (K::kind(&()), object.name_any());
    let noted = context.failures.note(&kind, &name, error.to_string());
    if noted.is_news {
        tracing::warn!(%kind, %name, %error, "The Kubernetes API failed; it is tried again");
    }
    Action::requeue(noted.wait)
}

/// What came of a look at an object.
type Look<K> = Result<(ObjectRef<K>, Action), controller::Error<Error, watcher::Error>>;

/// Takes note of what came of a look at an object.
fn note_look<K: Resource<DynamicType = ()>>(context: &Context, look: Look<K>) {
    let kind = K::kind(&());
    match look {
        Ok((object, _)) => context.failures.mended(&kind, &object.name),
        Err(controller::Error::ObjectNotFound(gone)) => {
            context.failures.mended(&kind, &gone.name);
        }
        Err(error) => tracing::debug!(%kind, %error, "A look at an object ended early"),
    }
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
