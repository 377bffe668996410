//! The thread that commits what many requests want, in one transaction; a request that is alone spares
//! the way there and back.
//!
//! ```text
//! request --- several at once: queue ---> thread --- one commit for all ---> outcomes
//!         --- alone, on a thread that serves clients only: commits itself
//! ```

use super::{
    committer::{Committer, Outcome, Rejected, Write},
    feed::Bell,
};
use crate::kubeapi::Error;
use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// How many wishes one transaction takes at most, so that the first does not wait too long.
const BATCH_LENGTH: usize = 256;
/// How many wishes wait for the writer, two transactions' worth: whoever brings one more waits,
/// none is dropped.
const QUEUE_LENGTH: usize = 2 * BATCH_LENGTH;

/// How long a commit may have taken for the next to be made where others would wait for it: they are
/// held up by no more than a few answers. A slow disk is the thread's alone.
const QUICK: Duration = Duration::from_millis(1);

/// How many requests in turn must have been alone before one commits itself: of several clients two soon
/// meet, and they are faster when their requests are read while the disk is waited for.
const ALONE: usize = 16;

thread_local! {
    static MAY_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Says of this thread that it may wait for the disk: nobody but the clients of the API waits with it.
pub(in crate::kubeapi) fn may_wait_here() {
    MAY_WAIT.set(true);
}

struct Job {
    write: Write,
    answer: oneshot::Sender<Outcome>,
}

/// The committer, and whether its last commit was quick.
struct Desk {
    committer: Committer,
    quick: bool,
}

impl Desk {
    fn run(&mut self, writes: Vec<Write>) -> (Vec<Outcome>, Vec<Bell>) {
        let begun = Instant::now();
        let done = self.committer.run(writes);
        self.quick = begun.elapsed() < QUICK;
        done
    }
}

/// Hands wishes to the committer, and ends its thread when dropped.
pub(super) struct Writer {
    desk: Arc<Mutex<Desk>>,
    /// How many requests are at it.
    present: AtomicUsize,
    /// How many requests in turn met no other one.
    alone: AtomicUsize,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(committer: Committer) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::channel(QUEUE_LENGTH);
        let quick = false;
        let desk = Arc::new(Mutex::new(Desk { committer, quick }));
        let theirs = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("kubeapi-store".to_owned())
            .spawn(move || work(&theirs, queue))
            .map_err(Error::Thread)?;
        Ok(Self {
            desk,
            present: AtomicUsize::new(0),
            alone: AtomicUsize::new(0),
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    pub(super) async fn write(&self, write: Write) -> Outcome {
        let _present = Present::of(&self.present);
        if MAY_WAIT.get()
            && self.is_alone().await
            && let Ok(mut desk) = self.desk.try_lock()
            && desk.quick
        {
            return one(&mut desk, write);
        }
        let stopped = || Rejected::NotStored("the store is closed".to_owned());
        let (answer, outcome) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        let sent = jobs.send(Job { write, answer }).await;
        sent.map_err(|_| stopped())?;
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Whether a request meets no other one here, and those before it did not either.
    async fn is_alone(&self) -> bool {
        if self.present.load(Ordering::Relaxed) == 1 {
            if self.alone.fetch_add(1, Ordering::Relaxed) < ALONE {
                return false;
            }
            // Whoever else has asked by now comes here, too.
            tokio::task::yield_now().await;
            if self.present.load(Ordering::Relaxed) == 1 {
                return true;
            }
        }
        self.alone.store(0, Ordering::Relaxed);
        false
    }
}

fn one(desk: &mut Desk, write: Write) -> Outcome {
    let (mut outcomes, bells) = desk.run(vec![write]);
    bells.iter().for_each(Bell::ring);
    outcomes.pop().unwrap_or(Err(Rejected::Stale))
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            // The file must be free again when the last handle is gone.
            drop(thread.join());
        }
    }
}

/// A request that is at the writer.
struct Present<'a>(&'a AtomicUsize);

impl<'a> Present<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(desk: &Mutex<Desk>, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut writes = vec![first.write];
        let mut answers = vec![first.answer];
        while writes.len() < BATCH_LENGTH
            && let Ok(job) = queue.try_recv()
        {
            writes.push(job.write);
            answers.push(job.answer);
        }
        let (outcomes, bells) = lock(desk).run(writes);
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            drop(answer.send(outcome));
        }
        bells.iter().for_each(Bell::ring);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeapi::store::{Backend, Change, Expectation, Loaded, live::Live};
    use serde_json::json;
    use std::thread::{self, ThreadId};

    type Threads = Arc<Mutex<Vec<ThreadId>>>;

    /// A backend that keeps nothing but on which threads it was called.
    struct Witness {
        takes: Duration,
        seen: Threads,
    }

    impl Backend for Witness {
        fn load(&mut self) -> Result<Loaded, Error> {
            Ok(Loaded::default())
        }

        fn commit(&mut self, _: &[Change], _: u64) -> Result<(), Error> {
            thread::sleep(self.takes);
            let seen = self.seen.lock();
            let mut seen = seen.unwrap_or_else(PoisonError::into_inner);
            seen.push(thread::current().id());
            Ok(())
        }
    }

    struct Bench {
        writer: Writer,
        seen: Threads,
    }

    impl Bench {
        fn new(takes: Duration) -> Self {
            let seen = Arc::default();
            let backend = Witness {
                takes,
                seen: Arc::clone(&seen),
            };
            let clock = Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
            let live = Arc::new(Live::new(Loaded::default(), clock));
            let writer = Writer::start(Committer::new(Box::new(backend), live)).unwrap();
            Self { writer, seen }
        }

        async fn create(&self, name: &str) {
            let write = Write {
                key: name.to_owned(),
                expected: Expectation::Absent,
                object: json!({"metadata": {"name": name}}),
                deletes: false,
            };
            self.writer.write(write).await.unwrap();
        }

        /// Creates one after the other, and says how many commits were made here.
        async fn create_in_turn(&self, count: usize) -> usize {
            for number in 0..count {
                self.create(&format!("o{number}")).await;
            }
            self.made_here()
        }

        /// How many commits were made on this thread.
        fn made_here(&self) -> usize {
            let seen = self.seen.lock().unwrap();
            let here = thread::current().id();
            seen.iter().filter(|thread| **thread == here).count()
        }
    }

    #[tokio::test]
    async fn a_request_that_is_alone_commits_itself_where_it_may_wait() {
        let bench = Bench::new(Duration::ZERO);
        assert_eq!(bench.create_in_turn(100).await, 0);
        may_wait_here();
        assert!(Bench::new(Duration::ZERO).create_in_turn(100).await > 0);
    }

    #[tokio::test]
    async fn requests_that_come_together_share_the_commits_of_the_thread() {
        may_wait_here();
        let bench = Bench::new(Duration::ZERO);
        let names: Vec<String> = (0..100).map(|number| format!("o{number}")).collect();
        futures::future::join_all(names.iter().map(|name| bench.create(name))).await;
        assert_eq!(bench.made_here(), 0);
    }

    #[tokio::test]
    async fn a_slow_disk_is_waited_for_by_the_thread() {
        may_wait_here();
        let bench = Bench::new(2 * QUICK);
        assert_eq!(bench.create_in_turn(10).await, 0);
    }
}
