//! `landbridge deny NAME` and `landbridge block NAME`: a cluster is refused.

use kube::ResourceExt as _;
use serde_json::json;

use super::{Failure, args::Named, connection::connect, output, peers};
use crate::api::foreign_cluster::{IncomingPeering, TrustMode};

/// Does what `kubectl patch ... incomingPeeringEnabled: No` does: what the cluster asks for is
/// refused and nothing is asked of it, across restart and rediscovery. What was wanted is kept.
pub(super) async fn deny(options: Named) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let cluster = peers::find(&client, &options.name).await?;
    let name = cluster.name_any();
    if cluster.spec.is_denied() {
        return output::print(&format!("foreigncluster/{name} is denied already\n"));
    }
    let spec = json!({"incomingPeeringEnabled": IncomingPeering::No});
    peers::write(&client, &name, spec).await?;
    output::print(&format!(
        "foreigncluster/{name} denied: it is refused, and so it stays; landbridge approve {name} lifts it\n"
    ))
}

/// Denies a cluster and takes back what was decided in its favour, so that a later approval begins
/// from nothing.
pub(super) async fn block(options: Named) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let cluster = peers::find(&client, &options.name).await?;
    let name = cluster.name_any();
    let spec = json!({
        "incomingPeeringEnabled": IncomingPeering::No,
        "trustMode": TrustMode::Untrusted,
        "join": false,
    });
    peers::write(&client, &name, spec).await?;
    output::print(&format!(
        "foreigncluster/{name} blocked: it is refused, not trusted and not joined; landbridge approve {name} lifts it, and landbridge join {name} joins it again\n"
    ))
}
