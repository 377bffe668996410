//! The controller of PeeringRequests: what we say to a peer that asks for our resources.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, ResourceExt as _,
    api::Patch,
    runtime::{
        Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Context, Error, context::changes, enrolment, foreign_cluster::remote_network_name,
    gone_is_fine, managed, status::difference,
};
use crate::{
    api::{
        ClusterId, ForeignCluster, NetworkConfig, PeeringRequest, PeeringRequestStatus, labels,
        peering_request::{ForeignSession, SessionNetwork},
    },
    engine::{
        offer, peering,
        policy::{self, Trust},
    },
};

pub(super) mod stock;

/// How often the offer is computed anew though nothing was seen to change.
const RESYNC: Duration = Duration::from_mins(5);

/// Runs until the shutdown.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let client = &context.client;
    let watched = watcher::Config::default;
    let controller = Controller::new(Api::<PeeringRequest>::all(client.clone()), watched());
    let requests = controller.store();
    let (by_cluster, by_network) = (requests.clone(), requests);
    controller
        .watches(
            Api::<ForeignCluster>::all(client.clone()),
            watched(),
            move |object: ForeignCluster| {
                let id = enrolment::claimed_id(&object)?;
                standing(&by_cluster, id.as_str())
            },
        )
        .watches(
            Api::<NetworkConfig>::all(client.clone()),
            watched(),
            move |config: NetworkConfig| {
                standing(&by_network, config.labels().get(labels::CLUSTER_ID)?)
            },
        )
        .reconcile_all_on(stock::changes(Arc::clone(&context)))
        .reconcile_all_on(changes(context.config.clone()))
        .reconcile_all_on(context.suspicions.changes())
        .graceful_shutdown_on(async move { shutdown.cancelled().await })
        .run(reconcile, super::try_again, Arc::clone(&context))
        .for_each(|look| {
            super::note_look(&context, look);
            futures::future::ready(())
        })
        .await;
}

/// The request of a cluster, if there is one.
fn standing(
    requests: &Store<PeeringRequest>,
    cluster_id: &str,
) -> Option<ObjectRef<PeeringRequest>> {
    let request = ObjectRef::new(cluster_id);
    requests.get(&request).map(|_| request)
}

async fn reconcile(request: Arc<PeeringRequest>, context: Arc<Context>) -> Result<Action, Error> {
    let api: Api<PeeringRequest> = Api::all(context.client.clone());
    let name = request.name_any();
    let present = api
        .get_opt(&name)
        .await
        .map_err(Error::api("read a PeeringRequest"))?;
    let (Some(present), Ok(id)) = (present, name.parse::<ClusterId>()) else {
        return Ok(Action::await_change());
    };
    let session = say(&context, &present, &id).await?;
    let status = PeeringRequestStatus {
        session: Some(session),
        advertisement_status: present
            .spec
            .session
            .as_ref()
            .map(|session| session.accepted.as_str().to_owned()),
        ..present.status.clone().unwrap_or_default()
    };
    let old = serde_json::to_value(present.status.as_ref())?;
    let new = serde_json::to_value(&status)?;
    if let Some(change) = difference(&old, &new) {
        let patch = Patch::Merge(json!({ "status": change }));
        let patched = api.patch(&name, &managed(), &patch).await;
        gone_is_fine(patched).map_err(Error::api("write the status of a PeeringRequest"))?;
    }
    Ok(Action::requeue(
        RESYNC.mul_f64(1.0 + super::context::chance() / 10.0),
    ))
}

/// What we say on the session: our network and our offer, or why there is none.
async fn say(
    context: &Context,
    request: &PeeringRequest,
    id: &ClusterId,
) -> Result<ForeignSession, Error> {
    let message = |text: &str| ForeignSession {
        message: text.to_owned(),
        ..ForeignSession::default()
    };
    let objects = enrolment::list(context).await?;
    let Some(admitted) = enrolment::verdict(context, &objects, id) else {
        return Ok(message("the cluster is not known here"));
    };
    match admitted {
        Trust::Accepted(_) => {}
        Trust::Waiting if context.suspicions.twin().is_some() => {
            return Ok(message(
                "another machine holds the identity of this cluster",
            ));
        }
        Trust::Waiting => return Ok(message("a person has to approve the cluster here")),
        Trust::Refused => return Ok(message("the cluster is blocked here")),
    }
    let present = request
        .status
        .as_ref()
        .and_then(|status| status.session.as_ref());
    let network = Some(network(context, id).await?);
    let config = context.policy().advertisement_config;
    if !config.outgoing_config.enable_broadcaster {
        let text = "nothing is offered: outgoingConfig.enableBroadcaster is false";
        return Ok(ForeignSession {
            network,
            ..message(text)
        });
    }
    let stock = context.stock.read(&context.client).await?;
    let hard = offer::share(
        &stock.free,
        config.outgoing_config.resource_sharing_percentage,
    );
    let shared = offer::shared_labels(
        &stock.nodes,
        config.label_policies.as_deref().unwrap_or_default(),
    );
    let present = present.and_then(|session| session.offer.as_ref());
    let offer = offer::make(hard, shared, present, context.now());
    let text = if offer.is_none() {
        "nothing is free to be offered"
    } else {
        ""
    };
    Ok(ForeignSession {
        offer,
        network,
        message: text.to_owned(),
    })
}

/// Whether the peer may consume what we offer.
pub(super) fn admitted(context: &Context, object: &ForeignCluster) -> Trust {
    let is_held_back =
        object.metadata.deletion_timestamp.is_some() || context.suspicions.twin().is_some();
    let empty = context.policy().auth_config.allow_empty_token;
    policy::admit(&object.spec, empty, is_held_back)
}

/// Our network, with the word on how we see the peer once that is decided.
async fn network(context: &Context, id: &ClusterId) -> Result<SessionNetwork, Error> {
    let remote = Api::<NetworkConfig>::all(context.client.clone())
        .get_opt(&remote_network_name(id.as_str()))
        .await
        .map_err(Error::api("read a NetworkConfig"))?;
    let seen = remote
        .and_then(|config| config.status)
        .and_then(|status| status.pod_cidr_nat);
    Ok(peering::network::own_network(&context.own, seen))
}
