//! What the daemon says about itself: the ConfigMap that `landbridge status` reads.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{api::labels, controllers};

/// The name of the ConfigMap.
const NAME: &str = "landbridge-status";

/// Writes the description, when it is not there already.
pub(super) async fn write(
    client: &Client,
    data: BTreeMap<String, String>,
) -> Result<(), controllers::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), labels::NAMESPACE);
    let failed = controllers::Error::api("write the ConfigMap landbridge-status");
    let present = match api.get_opt(NAME).await {
        Ok(present) => present,
        Err(error) => return Err(failed(error)),
    };
    let outcome = match present {
        Some(present) if present.data.as_ref() == Some(&data) => return Ok(()),
        Some(_) => {
            let patch = Patch::Merge(json!({ "data": data }));
            api.patch(NAME, &PatchParams::apply(labels::MANAGER), &patch)
                .await
        }
        None => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..ConfigMap::default()
            };
            api.create(&PostParams::default(), &map).await
        }
    };
    outcome.map(drop).map_err(failed)
}
