//! Dialling: one place, or several side by side.

use std::{collections::VecDeque, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, timeout_at};

use crate::{
    api::ClusterId,
    controllers::Context,
    engine::peering::{Connected, Dial},
    peer::client::{ConnectError, Connection, Target},
};

/// Places that are tried, the best first. One that fails makes way for the next one at once, one that
/// is silent after its head start (RFC 8305, section 5).
pub(crate) struct SideBySide<Try> {
    head_start: Duration,
    waiting: VecDeque<Try>,
    running: FuturesUnordered<Try>,
    due: Instant,
}

impl<Try: Future> SideBySide<Try> {
    pub(crate) fn new(head_start: Duration, tries: impl Iterator<Item = Try>) -> Self {
        Self {
            head_start,
            waiting: tries.collect(),
            running: FuturesUnordered::new(),
            due: Instant::now(),
        }
    }

    /// Returns what came of one more place, or nothing when there is none left.
    pub(crate) async fn next(&mut self) -> Option<Try::Output> {
        loop {
            if self.due <= Instant::now() {
                self.running.extend(self.waiting.pop_front());
                self.due = Instant::now() + self.head_start;
            }
            if self.waiting.is_empty() {
                return self.running.next().await;
            }
            if let Ok(done) = timeout_at(self.due, self.running.next()).await {
                self.due = Instant::now();
                return done;
            }
        }
    }
}

/// Dials one place and asks it who it is.
pub(crate) async fn reach(
    context: &Context,
    dial: &Dial,
    expect: Option<ClusterId>,
) -> Result<(Connected, Connection), ConnectError> {
    let target = Target {
        url: dial.url.clone(),
        expect,
        addresses: dial.address.into_iter().collect(),
        source: dial.source,
    };
    let connection = context.connector.connect(&target).await?;
    if connection.proven.cluster_id == context.own.cluster_id {
        return Err(ConnectError::OwnIdentity);
    }
    let ids = connection.ids().await?;
    let connected = Connected {
        url: dial.url.clone(),
        address: connection.address,
        cluster_id: connection.proven.cluster_id.clone(),
        cluster_name: ids.cluster_name,
        fingerprint: connection.proven.fingerprint.clone(),
    };
    Ok((connected, connection))
}
