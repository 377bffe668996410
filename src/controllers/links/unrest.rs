//! Objects whose plans do not come to rest: they are looked at ever less often.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    api::{ForeignCluster, ForeignClusterSpec},
    controllers::context::chance,
    engine::backoff::Backoff,
};

/// The first wait of an object whose plan did not come to rest.
const BASE: Duration = Duration::from_millis(400);
/// Its longest wait.
const CEILING: Duration = Duration::from_secs(30);

/// How often a plan did not come to rest, and until when it is let alone.
#[derive(Debug)]
pub(super) struct Unrest {
    backoff: Backoff,
    until: Instant,
    said: (ForeignClusterSpec, bool),
}

impl Unrest {
    pub(super) fn of(object: &ForeignCluster) -> Self {
        Self {
            backoff: Backoff::new(BASE, CEILING),
            until: Instant::now(),
            said: said(object),
        }
    }

    /// Lets an object alone for a while, which is returned.
    pub(super) fn pause(&mut self, object: &ForeignCluster) -> Duration {
        let wait = self.backoff.next(chance());
        self.until = Instant::now() + wait;
        self.said = said(object);
        wait
    }

    /// Returns for how long an object is let alone still. What a person says of it is heard at once.
    pub(super) fn left(&self, object: &ForeignCluster) -> Option<Duration> {
        let left = self.until.checked_duration_since(Instant::now())?;
        (!left.is_zero() && self.said == said(object)).then_some(left)
    }
}

fn said(object: &ForeignCluster) -> (ForeignClusterSpec, bool) {
    let is_deleted = object.metadata.deletion_timestamp.is_some();
    (object.spec.clone(), is_deleted)
}
