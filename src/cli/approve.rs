//! `landbridge approve NAME`: accepts the identity of a cluster.

use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    Failure,
    args::Named,
    connection::{connect, explain},
    output, peers,
};
use crate::api::{ForeignCluster, foreign_cluster::TrustMode, labels};

/// Does what `kubectl patch ... trustMode: Trusted` does. Since the id is made from the key,
/// approving the object pins the key.
pub(super) async fn approve(options: Named) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let cluster = peers::find(&client, &options.name).await?;
    let name = cluster.name_any();
    let Some(id) = peers::id(&cluster) else {
        return Err(Failure::NotSo(format!(
            "{name} has not proven who it is yet: landbridge status says what is missing"
        )));
    };
    let text = if cluster.spec.trust_mode == TrustMode::Trusted {
        format!("foreigncluster/{name} is approved already\n")
    } else {
        let api: Api<ForeignCluster> = Api::all(client.clone());
        let patch = Patch::Merge(json!({"spec": {"trustMode": "Trusted"}}));
        api.patch(&name, &manager(), &patch)
            .await
            .map_err(|error| explain(&error))?;
        let fingerprint = cluster
            .status
            .as_ref()
            .and_then(|status| status.fingerprint.clone())
            .unwrap_or_default();
        format!(
            "foreigncluster/{name} approved: only the key {fingerprint} can be {id} from now on\n"
        )
    };
    output::print(&text)
}

/// Says who writes.
pub(super) fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(labels::MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
