//! Turns wishes into committed changes, in order: check, number, make durable, publish.

use super::{Backend, Change, Operation, feed::Bell, live::Live, stored::Stored};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// How many revisions that the log no longer keeps a commit lets the backend forget: a few, so
/// that no write waits for long, but not fewer, since each time costs a little of its own.
const FORGET_AT_ONCE: u64 = 64;

/// What must be true of a key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kubeapi) enum Expectation {
    /// Nothing is there.
    Absent,
    /// The object of this revision is there.
    Revision(u64),
}

/// A wish: an object in place of another, or nothing in place of it.
#[derive(Debug)]
pub(in crate::kubeapi) struct Write {
    pub(in crate::kubeapi) key: String,
    pub(in crate::kubeapi) expected: Expectation,
    /// The new object, or the last state of one that shall be deleted.
    pub(in crate::kubeapi) object: Value,
    pub(in crate::kubeapi) deletes: bool,
}

/// Why a wish was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubeapi) enum Rejected {
    /// The expectation does not hold (any more).
    Stale,
    /// The backend failed; nothing is visible.
    NotStored(String),
}

pub(super) type Outcome = Result<Arc<Stored>, Rejected>;

/// The only one that changes the state.
pub(super) struct Committer {
    backend: Box<dyn Backend>,
    live: Arc<Live>,
    compacted: u64,
}

impl Committer {
    pub(super) fn new(backend: Box<dyn Backend>, live: Arc<Live>) -> Self {
        let compacted = live.compacted();
        Self {
            backend,
            live,
            compacted,
        }
    }

    /// Carries out a batch with one commit. The outcomes have the order of the wishes; the watchers are
    /// to be woken after those who wait for them.
    pub(super) fn run(&mut self, writes: Vec<Write>) -> (Vec<Outcome>, Vec<Bell>) {
        let mut revision = self.live.revision();
        let mut ahead: BTreeMap<String, Option<u64>> = BTreeMap::new();
        let (mut batch, mut changes) = (Vec::new(), Vec::new());
        let mut outcomes = Vec::new();
        for mut write in writes {
            let standing = ahead
                .get(&write.key)
                .copied()
                .unwrap_or_else(|| self.live.revision_of(&write.key));
            let operation = match (write.expected, standing, write.deletes) {
                (Expectation::Absent, None, false) => Operation::Added,
                (Expectation::Revision(expected), Some(found), deletes) if expected == found => {
                    if deletes {
                        Operation::Deleted
                    } else {
                        Operation::Modified
                    }
                }
                _ => {
                    outcomes.push(Err(Rejected::Stale));
                    continue;
                }
            };
            revision += 1;
            stamp(&mut write.object, revision);
            let stored = Arc::new(Stored::new(revision, operation, write.object));
            ahead.insert(write.key.clone(), (!write.deletes).then_some(revision));
            outcomes.push(Ok(Arc::clone(&stored)));
            batch.push(Change {
                revision,
                key: write.key.clone(),
                operation,
                object: stored.json(),
                replaces: standing,
            });
            changes.push((write.key, operation, stored));
        }
        match self.persist(&batch) {
            Ok(()) => (outcomes, self.live.publish(changes)),
            Err(rejected) => {
                let outcomes = outcomes.into_iter();
                let refused = outcomes.map(|outcome| outcome.and(Err(rejected.clone())));
                (refused.collect(), Vec::new())
            }
        }
    }

    fn persist(&mut self, batch: &[Change]) -> Result<(), Rejected> {
        if batch.is_empty() {
            return Ok(());
        }
        let forget = self.due(batch.len() as u64);
        self.backend.commit(batch, forget).map_err(|error| {
            tracing::error!(%error, changes = batch.len(), "Could not store changes");
            Rejected::NotStored(error.to_string())
        })?;
        self.compacted = forget;
        Ok(())
    }

    /// Up to where the backend shall forget the log with a commit of so many changes.
    fn due(&self, changes: u64) -> u64 {
        let kept = self.live.compacted();
        if kept < self.compacted + FORGET_AT_ONCE {
            return self.compacted;
        }
        // Twice what comes, or it would never be done.
        kept.min(self.compacted + FORGET_AT_ONCE.max(2 * changes))
    }
}

fn stamp(object: &mut Value, revision: u64) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(
            "resourceVersion".to_owned(),
            Value::String(revision.to_string()),
        );
    }
}
