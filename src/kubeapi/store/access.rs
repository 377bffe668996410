//! The store as the rest of the room uses it: reads at once, writes in order.

use super::{
    Backend, Commit,
    committer::{Committer, Outcome, Rejected, Write},
    feed::Bell,
    live::{Live, Start, Subscription},
    stored::Stored,
};
use crate::kubeapi::{Clock, Error};
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::sync::{mpsc, oneshot};

/// How many wishes one transaction takes at most, so that the first does not wait too long.
const BATCH_LENGTH: usize = 256;
/// How many wishes wait for the writer, two transactions' worth: whoever brings one more waits,
/// none is dropped.
const QUEUE_LENGTH: usize = 2 * BATCH_LENGTH;

/// Objects with their keys, in the order of these.
type Found = Vec<(String, Arc<Stored>)>;

struct Job {
    write: Write,
    answer: oneshot::Sender<Outcome>,
}

enum Writer {
    Inline(Box<Mutex<Committer>>),
    Threaded {
        jobs: Option<mpsc::Sender<Job>>,
        thread: Option<JoinHandle<()>>,
    },
}

/// The store as the rest of the room uses it.
pub(in crate::kubeapi) struct Store {
    live: Arc<Live>,
    writer: Writer,
}

impl Store {
    pub(in crate::kubeapi) fn open(
        mut backend: Box<dyn Backend>,
        commit: Commit,
        clock: Clock,
    ) -> Result<Self, Error> {
        let live = Arc::new(Live::new(backend.load()?, clock));
        let committer = Committer::new(backend, Arc::clone(&live));
        let writer = match commit {
            Commit::Inline => Writer::Inline(Box::new(Mutex::new(committer))),
            Commit::Threaded => {
                let (jobs, queue) = mpsc::channel(QUEUE_LENGTH);
                let thread = std::thread::Builder::new()
                    .name("kubeapi-store".to_owned())
                    .spawn(move || work(committer, queue))
                    .map_err(Error::Thread)?;
                Writer::Threaded {
                    jobs: Some(jobs),
                    thread: Some(thread),
                }
            }
        };
        Ok(Self { live, writer })
    }

    /// Carries out one wish and returns when it is durable and visible.
    pub(in crate::kubeapi) async fn write(&self, write: Write) -> Outcome {
        match &self.writer {
            Writer::Inline(committer) => {
                let mut committer = committer.lock().unwrap_or_else(PoisonError::into_inner);
                let (mut outcomes, bells) = committer.run(vec![write]);
                bells.iter().for_each(Bell::ring);
                outcomes.pop().unwrap_or(Err(Rejected::Stale))
            }
            Writer::Threaded { jobs, .. } => {
                let stopped = || Rejected::NotStored("the store is closed".to_owned());
                let (answer, outcome) = oneshot::channel();
                let jobs = jobs.as_ref().ok_or_else(stopped)?;
                let sent = jobs.send(Job { write, answer }).await;
                sent.map_err(|_| stopped())?;
                outcome.await.unwrap_or_else(|_| Err(stopped()))
            }
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
        if let Writer::Threaded { jobs, thread } = &mut self.writer {
            jobs.take();
            if let Some(thread) = thread.take() {
                // The file must be free again when the last handle is gone.
                drop(thread.join());
            }
        }
        // Watches end with the store, so that their readers notice.
        self.live.lock().watchers.clear();
    }
}

fn work(mut committer: Committer, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut writes = vec![first.write];
        let mut answers = vec![first.answer];
        while writes.len() < BATCH_LENGTH
            && let Ok(job) = queue.try_recv()
        {
            writes.push(job.write);
            answers.push(job.answer);
        }
        let (outcomes, bells) = committer.run(writes);
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            drop(answer.send(outcome));
        }
        bells.iter().for_each(Bell::ring);
    }
}
