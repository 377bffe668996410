//! `landbridge approve NAME`: accepts the identity of a cluster.

use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    Failure,
    args::Named,
    connection::{connect, explain},
    output, peers,
};
use crate::api::{
    ForeignCluster,
    foreign_cluster::{IncomingPeering, TrustMode},
    labels,
};

/// Does what `kubectl patch ... trustMode: Trusted, incomingPeeringEnabled: Auto` does. Since the id is made from the key,
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
    let blocked = cluster.spec.incoming_peering_enabled == IncomingPeering::No;
    let trusted = cluster.spec.trust_mode == TrustMode::Trusted;
    if trusted && !blocked {
        return output::print(&format!("foreigncluster/{name} is approved already\n"));
    }
    let mut spec = json!({"trustMode": TrustMode::Trusted});
    if blocked {
        json_patch::merge(
            &mut spec,
            &json!({"incomingPeeringEnabled": IncomingPeering::Auto}),
        );
    }
    write(&client, &name, spec).await?;
    let fingerprint = cluster
        .status
        .as_ref()
        .and_then(|status| status.fingerprint.clone())
        .unwrap_or_default();
    let lifted = if blocked {
        " and no longer refused"
    } else {
        ""
    };
    output::print(&format!(
        "foreigncluster/{name} approved{lifted}: only the key {fingerprint} can be {id} from now on\n"
    ))
}

/// Writes a part of the spec of a ForeignCluster.
pub(super) async fn write(client: &Client, name: &str, spec: Value) -> Result<(), Failure> {
    let api: Api<ForeignCluster> = Api::all(client.clone());
    let patch = Patch::Merge(json!({ "spec": spec }));
    let written = api.patch(name, &manager(), &patch).await;
    written.map(drop).map_err(|error| explain(&error))
}

/// Says who writes.
pub(super) fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(labels::MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
