//! Random operations on a store and on a plain model of it, with crashes between any two writes.

use super::*;
use crate::kubeapi::Clock;
use futures::executor::block_on;
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use tempfile::TempDir;

/// What is done, to one of a few keys.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Create(u8),
    Update(u8),
    /// An update that knows an older state than there is.
    Outdated(u8),
    Delete(u8),
    /// Time passes, so that the log may forget what was before.
    Wait,
    /// The process ends without a word and starts again.
    Crash,
}

fn deeds(count: usize) -> impl Strategy<Value = Vec<Deed>> {
    let key = || 0..4_u8;
    let deed = prop_oneof![
        4 => key().prop_map(Deed::Create),
        6 => key().prop_map(Deed::Update),
        1 => key().prop_map(Deed::Outdated),
        3 => key().prop_map(Deed::Delete),
        1 => Just(Deed::Wait),
        2 => Just(Deed::Crash),
    ];
    vec(deed, 1..count)
}

/// What a store must be: every change in order, and what is left of them.
#[derive(Debug, Default)]
struct Model {
    revision: u64,
    objects: BTreeMap<String, (u64, Value)>,
    events: Vec<(u64, String, Operation)>,
    /// Up to which revision the log may forget.
    old: u64,
}

impl Model {
    /// Carries out a deed; returns the write that the store is asked for and whether it succeeds.
    fn carry_out(&mut self, deed: Deed) -> Option<(Write, bool)> {
        let (Deed::Create(key) | Deed::Update(key) | Deed::Outdated(key) | Deed::Delete(key)) =
            deed
        else {
            return None;
        };
        let key = format!("g/kinds//o{key}");
        let standing = self.objects.get(&key).map(|(revision, _)| *revision);
        let expected = match (deed, standing) {
            (Deed::Create(_), _) => Expectation::Absent,
            (Deed::Outdated(_), Some(revision)) => Expectation::Revision(revision - 1),
            (_, revision) => Expectation::Revision(revision.unwrap_or(7)),
        };
        let deletes = matches!(deed, Deed::Delete(_));
        let succeeds = match expected {
            Expectation::Absent => standing.is_none(),
            Expectation::Revision(revision) => standing == Some(revision),
        };
        let object = json!({"metadata": {"name": key}, "at": self.revision});
        if succeeds {
            self.revision += 1;
            let mut shown = object.clone();
            shown["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            let operation = match (deletes, standing) {
                (true, _) => Operation::Deleted,
                (false, None) => Operation::Added,
                (false, Some(_)) => Operation::Modified,
            };
            if deletes {
                self.objects.remove(&key);
            } else {
                self.objects.insert(key.clone(), (self.revision, shown));
            }
            self.events.push((self.revision, key.clone(), operation));
        }
        let write = Write {
            key,
            expected,
            object,
            deletes,
        };
        Some((write, succeeds))
    }

    fn check(&self, store: &Store) {
        assert_eq!(store.revision(), self.revision);
        let (found, _) = store.list("g/kinds/", None);
        let found: BTreeMap<String, (u64, Value)> = found
            .into_iter()
            .map(|(key, stored)| (key, (stored.revision, stored.value())))
            .collect();
        assert_eq!(found, self.objects);
        for after in 0..=self.revision {
            let Some(heard) = store.subscribe("g/", Start::After(after)) else {
                assert!(after < self.old, "{after} is forgotten too early");
                assert!(after < store.compacted());
                continue;
            };
            let heard: Vec<_> = heard
                .backlog
                .iter()
                .map(|event| (event.revision, event.key.clone(), event.operation))
                .collect();
            let told = self
                .events
                .iter()
                .filter(|(revision, ..)| *revision > after);
            assert_eq!(heard, told.cloned().collect::<Vec<_>>());
        }
    }
}

/// The time of a store, in seconds.
type Time = Arc<AtomicI64>;

fn open(backend: impl Backend + 'static, time: &Time) -> Store {
    let time = Arc::clone(time);
    let now = move || jiff::Timestamp::from_second(time.load(Ordering::Relaxed)).unwrap();
    let clock: Clock = Arc::new(now);
    Store::open(Box::new(backend), Commit::Inline, clock).unwrap()
}

fn run(deeds: Vec<Deed>, time: &Time, mut store: Store, mut reopen: impl FnMut(Store) -> Store) {
    let mut model = Model::default();
    for deed in deeds {
        if let Some((write, succeeds)) = model.carry_out(deed) {
            let outcome = block_on(store.write(write));
            assert_eq!(outcome.is_ok(), succeeds, "{deed:?}");
            let was_forgotten = store.compacted() >= model.old;
            assert!(
                !succeeds || was_forgotten,
                "what is old goes with the next write"
            );
        } else if matches!(deed, Deed::Wait) {
            time.fetch_add(2 * 60 * LOG_MINUTES, Ordering::Relaxed);
            model.old = model.revision;
        } else {
            store = reopen(store);
            // Since when a change is there is not kept: the log begins to wait anew.
            model.old = store.compacted();
        }
        model.check(&store);
    }
}

/// What a crash leaves: the files as they are at this moment.
fn crashed(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for name in ["store.db", "store.db-wal"] {
        let _ = fs::copy(from.join(name), to.path().join(name));
    }
    to
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_in_memory_is_like_its_model(deeds in deeds(60)) {
        let (memory, time) = (Memory::default(), Time::default());
        run(deeds, &time, open(memory.clone(), &time), |_| open(memory.clone(), &time));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_on_disk_is_like_its_model(deeds in deeds(30)) {
        let mut home = tempfile::tempdir().unwrap();
        let time = Time::default();
        let at = |home: &TempDir| open(Sqlite::open(home.path().join("store.db")).unwrap(), &time);
        let store = at(&home);
        run(deeds, &time, store, |before| {
            // The files are taken while the store is open: nothing is written by its end.
            let left = crashed(home.path());
            drop(before);
            home = left;
            at(&home)
        });
    }
}
