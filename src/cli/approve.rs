//! `landbridge approve NAME`: accepts the identity of a cluster.

use kube::ResourceExt as _;
use serde_json::json;

use super::{Failure, args::Named, connection::connect, output, peers};
use crate::api::foreign_cluster::{IncomingPeering, TrustMode};

/// Does what `kubectl patch ... trustMode: Trusted` does, and lifts a refusal. Since the id is made from the key, approving
/// the object pins the key.
pub(super) async fn approve(options: Named) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let cluster = peers::find(&client, &options.name).await?;
    let name = cluster.name_any();
    let id = peers::proven_id(&cluster)?;
    let denied = cluster.spec.is_denied();
    let trusted = cluster.spec.trust_mode == TrustMode::Trusted;
    if trusted && !denied {
        return output::print(&format!("foreigncluster/{name} is approved already\n"));
    }
    let mut spec = json!({"trustMode": TrustMode::Trusted});
    if denied {
        json_patch::merge(
            &mut spec,
            &json!({"incomingPeeringEnabled": IncomingPeering::Auto}),
        );
    }
    peers::write(&client, &name, spec).await?;
    let fingerprint = cluster
        .status
        .as_ref()
        .and_then(|status| status.fingerprint.clone())
        .unwrap_or_default();
    let lifted = if denied { " and no longer refused" } else { "" };
    output::print(&format!(
        "foreigncluster/{name} approved{lifted}: only the key {fingerprint} can be {id} from now on\n"
    ))
}
