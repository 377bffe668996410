//! What we tell the LAN.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Peer,
    controllers::Context,
    discovery::source::{Announcement, EventSink},
};

/// Whether anybody else can reach us; says so where nobody can, since then nothing is announced.
pub(super) fn is_reachable(peer: &Peer) -> bool {
    let reachable = !peer.listen.ip().to_canonical().is_loopback() || !peer.advertise.is_empty();
    if !reachable {
        tracing::info!("Others are not told of this cluster: peer.listen is on loopback");
    }
    reachable
}

/// What we tell the LAN under the policy as it stands now.
pub(super) fn under_policy(
    context: &Context,
    boot: &str,
    port: u16,
    reachable: bool,
) -> Announcement {
    let switches = context.policy().discovery_config;
    Announcement {
        cluster_id: context.own.cluster_id.clone(),
        name: context.own_name(),
        boot: boot.to_owned(),
        port,
        ttl: Duration::from_secs(u64::from(switches.ttl)),
        advertise: reachable && switches.enable_advertisement && context.twin().borrow().is_none(),
        discover: switches.enable_discovery,
    }
}

/// Follows the policy in what we announce; an identity that is on two machines is not announced.
pub(super) async fn follow_policy(
    context: Arc<Context>,
    reachable: bool,
    announcement: watch::Sender<Announcement>,
    _events: EventSink,
    stop: CancellationToken,
) {
    let (mut policy, mut twin) = (context.config.clone(), context.twin());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = policy.changed() => if changed.is_err() { return },
            changed = twin.changed() => if changed.is_err() { return },
        }
        policy.borrow_and_update();
        twin.borrow_and_update();
        announcement.send_if_modified(|present| {
            let wanted = under_policy(&context, &present.boot, present.port, reachable);
            let news = *present != wanted;
            *present = wanted;
            news
        });
    }
}
