//! `landbridge join NAME` and `landbridge leave NAME`: what is wanted from a cluster.

use kube::ResourceExt as _;
use serde_json::json;

use super::{Failure, args::Named, connection::connect, output, peers};
use crate::api::{
    ForeignCluster,
    foreign_cluster::{AuthStatus, IncomingPeering, Phase, TrustMode},
};

/// Does what `kubectl patch ... join: true|false` does, and says what happens next.
pub(super) async fn set(options: Named, join: bool) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let before = peers::find(&client, &options.name).await?;
    let name = before.name_any();
    peers::write(&client, &name, json!({ "join": join })).await?;
    let text = if join {
        joining(&before)
    } else {
        leaving(&before).to_owned()
    };
    output::print(&format!("foreigncluster/{name} {text}\n"))
}

fn joining(before: &ForeignCluster) -> String {
    let name = before.name_any();
    let status = before.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    let refused = status.is_some_and(|status| {
        matches!(
            status.auth_status,
            AuthStatus::Refused | AuthStatus::EmptyRefused
        )
    });
    if phase == Some(Phase::Peered) && before.spec.join {
        "is joined already".to_owned()
    } else if before.spec.incoming_peering_enabled == IncomingPeering::No {
        format!(
            "shall be joined, but is denied here: landbridge approve {name} lifts that, and trusts it"
        )
    } else if refused {
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
