//! `landbridge join NAME` and `landbridge leave NAME`: what is wanted from a cluster.

use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    Failure,
    args::Named,
    connection::{connect, explain},
    output, peers,
};
use crate::api::{
    ForeignCluster,
    foreign_cluster::{AuthStatus, Phase, TrustMode},
};

/// Does what `kubectl patch ... join: true|false` does, and says what happens next.
pub(super) async fn set(options: Named, join: bool) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    output::print(&want(&client, &options.name, join).await?)
}

/// Writes what is wanted, and returns what happens next.
async fn want(client: &Client, wanted: &str, join: bool) -> Result<String, Failure> {
    let before = peers::find(client, wanted).await?;
    let name = before.name_any();
    peers::write(client, &name, json!({ "join": join })).await?;
    if join && was_refused(&before) {
        ask_again(client, &name).await?;
    }
    let text = if join {
        joining(&before)
    } else {
        leaving(&before).to_owned()
    };
    Ok(format!("foreigncluster/{name} {text}\n"))
}

/// Whether the cluster refused us when it was asked last.
fn was_refused(before: &ForeignCluster) -> bool {
    before.status.as_ref().is_some_and(|status| {
        matches!(
            status.auth_status,
            AuthStatus::Refused | AuthStatus::EmptyRefused
        )
    })
}

/// Makes the daemon ask at once a cluster that it would ask later. As in Liqo the status is written
/// through the object itself.
async fn ask_again(client: &Client, name: &str) -> Result<(), Failure> {
    let api: Api<ForeignCluster> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"status": {"authStatus": AuthStatus::Pending}}));
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .map(drop)
        .map_err(|error| explain(&error))
}

fn joining(before: &ForeignCluster) -> String {
    let name = before.name_any();
    let status = before.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    if phase == Some(Phase::Peered) && before.spec.join {
        "is joined already".to_owned()
    } else if before.spec.is_denied() {
        format!(
            "shall be joined, but is denied here: landbridge approve {name} lifts that, and trusts it"
        )
    } else if was_refused(before) {
        "shall be joined: it refused us before and is asked again".to_owned()
    } else if before.spec.trust_mode == TrustMode::Trusted {
        "shall be joined: next come authorisation, offer and tunnel; landbridge status --wait follows them".to_owned()
    } else {
        format!(
            "shall be joined: it is asked, and nothing else happens until it is trusted; landbridge approve {name} trusts it by hand"
        )
    }
}

fn leaving(before: &ForeignCluster) -> &'static str {
    let incoming = before
        .status
        .as_ref()
        .and_then(|status| status.incoming.as_ref())
        .is_some_and(|incoming| incoming.joined);
    match (before.spec.join, incoming) {
        (false, _) => "is not joined",
        (true, true) => {
            "shall be left: node and offer go away; the tunnel stays while the other side consumes what we offer"
        }
        (true, false) => "shall be left: node, offer and tunnel go away on both sides",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::api::PostParams;

    use super::*;
    use crate::{
        api,
        kubeapi::{KubeApi, Options},
    };

    #[tokio::test]
    async fn a_cluster_that_refused_us_is_asked_again() {
        let options = Options::in_memory(Arc::new(jiff::Timestamp::now), api::crds());
        let client = KubeApi::open(options).await.unwrap().client();
        let clusters: Api<ForeignCluster> = Api::all(client.clone());
        for (name, before, join, after) in [
            ("milan", AuthStatus::Refused, true, AuthStatus::Pending),
            ("turin", AuthStatus::EmptyRefused, true, AuthStatus::Pending),
            ("genoa", AuthStatus::Refused, false, AuthStatus::Refused),
            ("bari", AuthStatus::Accepted, true, AuthStatus::Accepted),
        ] {
            let object = json!({
                "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster",
                "metadata": {"name": name},
                "spec": {"authUrl": "https://10.77.0.2:5870"},
                "status": {"authStatus": before},
            });
            let object = serde_json::from_value(object).unwrap();
            let created = clusters.create(&PostParams::default(), &object).await;
            created.unwrap();
            want(&client, name, join).await.unwrap();
            let now = clusters.get(name).await.unwrap();
            assert_eq!(now.spec.join, join, "{name}");
            assert_eq!(now.status.unwrap().auth_status, after, "{name}");
        }
    }
}
