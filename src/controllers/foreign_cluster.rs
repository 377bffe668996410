//! The controller of ForeignClusters: one peering each, from the first contact to the last.

mod contact;
mod gather;
mod projection;
mod reach;
mod virtual_node;

pub(super) use contact::introduce;
pub(super) use reach::{SideBySide, reach};

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
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
    Context, Error,
    context::changes,
    enrolment::{claimed_id, standing},
    is_not_found, managed,
    status::difference,
};
use crate::{
    api::{
        Advertisement, ClusterId, ForeignCluster, ForeignClusterStatus, NetworkConfig,
        PeeringRequest, TunnelEndpoint, foreign_cluster::Phase, labels,
    },
    engine::peering::{self, Step, happening},
};
use projection::Side;

/// How often one look may plan again after its steps have succeeded, before it pauses.
const ROUNDS: usize = 12;
/// The shortest wait for a moment at which time alone changes the plan.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

pub(crate) fn advertisement_name(cluster_id: &str) -> String {
    format!("advertisement-{cluster_id}")
}

pub(crate) fn local_network_name(cluster_id: &str) -> String {
    format!("net-config-{cluster_id}-local")
}

pub(crate) fn remote_network_name(cluster_id: &str) -> String {
    format!("net-config-{cluster_id}-remote")
}

pub(crate) fn tunnel_name(cluster_id: &str) -> String {
    format!("tun-endpoint-{cluster_id}")
}

/// Runs until the shutdown.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let client = &context.client;
    let watched = watcher::Config::default;
    let controller = Controller::new(Api::<ForeignCluster>::all(client.clone()), watched());
    let store = controller.store();
    // A second controller would see the same.
    drop(context.seen.set(store.clone()));
    let by_request = {
        let store = store.clone();
        move |request: PeeringRequest| object_of(&store, &request.name_any())
    };
    let wakes = context
        .links
        .wakes()
        .map(|mut wakes| futures::stream::poll_fn(move |cx| wakes.poll_recv(cx)).boxed());
    let stop = shutdown.clone();
    controller
        .owns(Api::<Advertisement>::all(client.clone()), watched())
        .owns(Api::<NetworkConfig>::all(client.clone()), watched())
        .owns(Api::<TunnelEndpoint>::all(client.clone()), watched())
        .watches(
            Api::<PeeringRequest>::all(client.clone()),
            watched(),
            by_request,
        )
        .reconcile_on(wakes.unwrap_or_else(|| futures::stream::empty().boxed()))
        .reconcile_all_on(changes(context.config.clone()))
        .reconcile_all_on(context.suspicions.changes())
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile, super::try_again, Arc::clone(&context))
        .for_each(|look| {
            super::note_look(&context, look);
            futures::future::ready(())
        })
        .await;
}

fn object_of(store: &Store<ForeignCluster>, cluster_id: &str) -> Option<ObjectRef<ForeignCluster>> {
    let id = cluster_id.parse().ok()?;
    standing(store.state(), &id).map(|object| ObjectRef::from_obj(object.as_ref()))
}

async fn reconcile(object: Arc<ForeignCluster>, context: Arc<Context>) -> Result<Action, Error> {
    let name = object.name_any();
    if let Some(left) = context.links.pause(&object) {
        return Ok(Action::requeue(left));
    }
    for _ in 0..ROUNDS {
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let present = api
            .get_opt(&name)
            .await
            .map_err(Error::api("read a ForeignCluster"))?;
        let Some(present) = present else {
            let (uid, id) = (object.uid(), claimed_id(&object));
            forget(&context, &name, uid.as_deref(), id.as_ref());
            look_again(&context, &object);
            return Ok(Action::await_change());
        };
        if context.links.replaces(&name, present.uid()) {
            // An object of this name was deleted, and made anew before we looked.
            look_again(&context, &present);
        }
        let facts = gather::facts(&context, &present).await?;
        let plan = peering::plan(&present, &facts, context.now());
        let Some(present) = write_status(&context, present, &plan.status).await? else {
            continue;
        };
        if facts.link.answer.is_some() {
            context.links.recorded(&name);
        }
        if plan.steps.is_empty() {
            context.links.settled(&name);
            return Ok(Action::requeue(wait_until(plan.check_again, context.now())));
        }
        for step in plan.steps {
            tracing::debug!(cluster = %name, step = ?Kind(&step), "Step");
            if is_shared(&step) {
                let _alone = context.sharing.lock().await;
                if is_still_planned(&context, &present, &step).await? {
                    carry_out(&context, &present, step).await?;
                }
            } else {
                carry_out(&context, &present, step).await?;
            }
        }
    }
    Ok(Action::requeue(context.links.unsettled(&object)))
}

/// Whether a step takes of what all peers share: the number of offers, and the address ranges.
fn is_shared(step: &Step) -> bool {
    matches!(
        step,
        Step::WriteAdvertisement(..) | Step::WriteRemoteNetwork(_)
    )
}

/// Plans anew, since another peer may have taken what a step counted on.
async fn is_still_planned(
    context: &Context,
    object: &ForeignCluster,
    step: &Step,
) -> Result<bool, Error> {
    let facts = gather::facts(context, object).await?;
    let plan = peering::plan(object, &facts, context.now());
    Ok(plan.steps.contains(step))
}

/// Shows a step by its name alone, since its content may be long.
struct Kind<'a>(&'a Step);

impl std::fmt::Debug for Kind<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{:?}", self.0);
        formatter.write_str(text.split(['(', ' ']).next().unwrap_or_default())
    }
}

/// Forgets an object that is gone, and has the other objects of its cluster looked at: one of them
/// stands for it now.
pub(super) fn forget(context: &Context, name: &str, uid: Option<&str>, id: Option<&ClusterId>) {
    context.links.forget(name, uid);
    context.events.forget(name);
    let Some(id) = id else {
        return;
    };
    for other in context.seen.get().map(Store::state).unwrap_or_default() {
        if claimed_id(&other).as_ref() == Some(id) && other.name_any() != name {
            context.links.nudge(&other.name_any());
        }
    }
}

/// Has the cluster of an object found anew, if it is still there.
fn look_again(context: &Context, object: &ForeignCluster) {
    if let Some(id) = claimed_id(object) {
        context.neighbours.look_again(id);
    }
}

/// At least a moment, so that a check at a time that has just passed does not spin.
fn wait_until(moment: Timestamp, now: Timestamp) -> Duration {
    let wait = moment.duration_since(now).max(SignedDuration::ZERO);
    Duration::try_from(wait)
        .unwrap_or_default()
        .max(SHORTEST_WAIT)
}

/// Writes the status if it changed, and returns the object as it stands then, unless it is gone.
async fn write_status(
    context: &Context,
    object: ForeignCluster,
    status: &ForeignClusterStatus,
) -> Result<Option<ForeignCluster>, Error> {
    let old = serde_json::to_value(object.status.as_ref())?;
    let new = serde_json::to_value(status)?;
    let Some(change) = difference(&old, &new) else {
        return Ok(Some(object));
    };
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    let written = api
        .patch(
            &object.name_any(),
            &managed(),
            &Patch::Merge(json!({ "status": change })),
        )
        .await;
    let written = match written {
        Ok(written) => written,
        Err(error) if is_not_found(&error) => return Ok(None),
        Err(error) => return Err(Error::api("write the status of a ForeignCluster")(error)),
    };
    let happened = happening::happenings(object.status.as_ref(), status);
    context
        .events
        .publish(&context.client, &object, &happened, context.now())
        .await;
    let before = object.status.as_ref().and_then(|status| status.phase);
    if before != status.phase {
        announce(&object, before, status);
    }
    Ok(Some(written))
}

fn announce(object: &ForeignCluster, before: Option<Phase>, status: &ForeignClusterStatus) {
    let ready = status
        .conditions
        .iter()
        .find(|one| one.type_ == labels::condition::READY);
    tracing::info!(
        cluster = %object.name_any(),
        from = before.map_or("", Phase::as_str),
        to = status.phase.map_or("", Phase::as_str),
        reason = ready.map_or("", |one| one.reason.as_str()),
        "State changed"
    );
}

async fn carry_out(
    context: &Arc<Context>,
    object: &ForeignCluster,
    step: Step,
) -> Result<(), Error> {
    match step {
        Step::AddFinalizer | Step::RemoveFinalizer => {
            let is_held = step == Step::AddFinalizer;
            projection::set_finalizer(context, object, is_held).await?;
        }
        Step::FillIdentity(id, name) => contact::fill_identity(context, object, &id, &name).await?,
        Step::SetTrust(mode, by) => projection::set_trust(context, object, mode, by).await?,
        Step::ForgetPolicy | Step::Disown => {
            let is_owned = step == Step::Disown;
            projection::untie(context, object, is_owned).await?;
        }
        Step::Forget => projection::forget(context, object).await?,
        Step::DismissRequest => projection::dismiss_request(context, object).await?,
        Step::WriteAdvertisement(offer, answer) => {
            projection::write_advertisement(context, object, *offer, answer).await?;
        }
        Step::RemoveAdvertisement => projection::remove_advertisement(context, object).await?,
        Step::WriteLocalNetwork(wish) => {
            projection::write_network(context, object, Side::Local, wish.spec, wish.status).await?;
        }
        Step::WriteRemoteNetwork(wish) => {
            projection::write_network(context, object, Side::Remote, wish.spec, wish.status)
                .await?;
        }
        Step::RemoveNetworks => projection::remove_networks(context, object).await?,
        Step::WriteTunnel(wish) => projection::write_tunnel(context, object, *wish).await?,
        Step::RemoveTunnel => projection::remove_tunnel(context, object).await?,
        Step::Entomb => projection::entomb(context, object).await?,
        Step::Exhume => projection::exhume(context, object).await?,
        Step::WriteNode(wish) => virtual_node::write(context, object, &wish).await?,
        Step::RenewLease => virtual_node::renew_lease(context, object).await?,
        Step::RemoveNode => virtual_node::remove(context, object).await?,
        Step::Connect { dials, expect } => contact::connect(context, object, dials, expect).await,
        Step::Disconnect => context.links.disconnect(&object.name_any()),
        Step::Identify => contact::identify(context, object).await,
        Step::OpenSession(request) => contact::open_session(context, object, *request).await,
        Step::Tell(name, session) => contact::tell(context, object, &name, &session).await,
        Step::CloseSession => contact::close_session(context, object).await,
    }
    Ok(())
}

#[cfg(test)]
mod tests;
