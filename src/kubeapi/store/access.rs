//! The store as the rest of the room uses it: reads at once, writes in order.

use super::{
    Backend, Commit,
    committer::{Committer, Outcome, Rejected, Write},
    feed::Bell,
    live::{Live, Start, Subscription},
    stored::Stored,
    writer::Writer,
};
use crate::kubeapi::{Clock, Error};
use std::sync::{Arc, Mutex, PoisonError};

/// Objects with their keys, in the order of these.
type Found = Vec<(String, Arc<Stored>)>;

/// Where commits are made.
enum Commits {
    Inline(Box<Mutex<Committer>>),
    Threaded(Writer),
}

/// The store as the rest of the room uses it.
pub(in crate::kubeapi) struct Store {
    commits: Commits,
    live: Arc<Live>,
}

impl Store {
    pub(in crate::kubeapi) fn open(
        mut backend: Box<dyn Backend>,
        commit: Commit,
        clock: Clock,
    ) -> Result<Self, Error> {
        let live = Arc::new(Live::new(backend.load()?, clock));
        let committer = Committer::new(backend, Arc::clone(&live));
        let commits = match commit {
            Commit::Inline => Commits::Inline(Box::new(Mutex::new(committer))),
            Commit::Threaded => Commits::Threaded(Writer::start(committer)?),
        };
        Ok(Self { commits, live })
    }

    /// Carries out one wish and returns when it is durable and visible.
    pub(in crate::kubeapi) async fn write(&self, write: Write) -> Outcome {
        match &self.commits {
            Commits::Inline(committer) => {
                let mut committer = committer.lock().unwrap_or_else(PoisonError::into_inner);
                let (mut outcomes, bells) = committer.run(vec![write]);
                bells.iter().for_each(Bell::ring);
                outcomes.pop().unwrap_or(Err(Rejected::Stale))
            }
            Commits::Threaded(writer) => writer.write(write).await,
        }
    }

    pub(in crate::kubeapi) fn revision(&self) -> u64 {
        self.live.revision()
    }

    pub(in crate::kubeapi) fn compacted(&self) -> u64 {
        self.live.compacted()
    }

    pub(in crate::kubeapi) fn get(&self, key: &str) -> Option<Arc<Stored>> {
        self.live.lock().objects.get(key).map(Arc::clone)
    }

    /// The objects whose keys begin with `prefix`, after the key `after`, and the revision.
    pub(in crate::kubeapi) fn list(&self, prefix: &str, after: Option<&str>) -> (Found, u64) {
        let state = self.live.lock();
        let found = state
            .range(prefix, after)
            .map(|(key, stored)| (key.clone(), Arc::clone(stored)))
            .collect();
        (found, state.revision)
    }

    /// The first objects of such a list, as they were at this revision or are now, how many follow them,
    /// and the revision; `None` when it is forgotten.
    pub(in crate::kubeapi) fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        revision: Option<u64>,
    ) -> Option<(Found, usize, u64)> {
        // What is to be shown is settled under the lock that it is read under.
        let state = self.live.lock();
        let Some(past) = revision.filter(|revision| *revision != state.revision) else {
            let mut found = state.range(prefix, after);
            let page = found
                .by_ref()
                .take(limit)
                .map(|(key, stored)| (key.clone(), Arc::clone(stored)))
                .collect();
            return Some((page, found.count(), state.revision));
        };
        let objects = state.at(prefix, past)?;
        drop(state);
        let mut found = objects
            .into_iter()
            .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        let page = found.by_ref().take(limit).collect();
        Some((page, found.count(), past))
    }

    /// The objects that name this uid as an owner.
    pub(in crate::kubeapi) fn dependents(&self, owner: &str) -> Found {
        let state = self.live.lock();
        let keys = state.dependents.get(owner).into_iter().flatten();
        keys.filter_map(|key| Some((key.clone(), Arc::clone(state.objects.get(key)?))))
            .collect()
    }

    /// Whether one of the objects that name this uid as an owner is such a one.
    pub(in crate::kubeapi) fn any_dependent(
        &self,
        owner: &str,
        is_such: impl Fn(&Stored) -> bool,
    ) -> bool {
        let state = self.live.lock();
        let mut keys = state.dependents.get(owner).into_iter().flatten();
        keys.any(|key| state.objects.get(key).is_some_and(|stored| is_such(stored)))
    }

    /// Every uid that some object names as an owner.
    pub(in crate::kubeapi) fn owners(&self) -> Vec<String> {
        let state = self.live.lock();
        state.dependents.keys().map(ToString::to_string).collect()
    }

    /// Subscribes to the keys that begin with `prefix`; `None` when the start is forgotten.
    pub(in crate::kubeapi) fn subscribe(&self, prefix: &str, start: Start) -> Option<Subscription> {
        self.live.lock().subscribe(prefix, start)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Watches end with the store, so that their readers notice.
        self.live.lock().watchers.clear();
    }
}
