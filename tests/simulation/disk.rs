//! The disk of a cluster: it survives crashes, counts writes, and can end a life at any of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::Resource;
use landbridge::kubeapi::{
    Error,
    store::{Backend, Change, Loaded, Memory, Operation},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// When a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Just before this write is stored; it is lost.
    Before(usize),
    /// Just after this write was stored; nobody is told.
    After(usize),
}

/// What survives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    memory: Memory,
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Debug, Default)]
struct Ledger {
    objects: BTreeMap<String, Arc<Value>>,
    history: Vec<Write>,
    crash: Option<Crash>,
}

/// One write, with the object before and after it.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub key: String,
    pub operation: Operation,
    pub before: Option<Arc<Value>>,
    pub after: Arc<Value>,
}

impl Disk {
    /// Gives the disk to a new life.
    pub(crate) fn drive(&self, life: CancellationToken) -> Drive {
        Drive {
            disk: self.clone(),
            life,
        }
    }

    /// Ends the life at a write, counted from now on, the first being 0.
    pub(crate) fn crash_at(&self, crash: Crash) {
        let mut ledger = self.ledger();
        let done = ledger.history.len();
        ledger.crash = Some(match crash {
            Crash::Before(nth) => Crash::Before(done + nth),
            Crash::After(nth) => Crash::After(done + nth),
        });
    }

    /// Tells whether a crash was asked for and has not come yet.
    pub(crate) fn awaits_crash(&self) -> bool {
        self.ledger().crash.is_some()
    }

    /// Returns how often the disk was written.
    pub(crate) fn writes(&self) -> usize {
        self.ledger().history.len()
    }

    /// Returns the writes from a certain one on.
    pub(crate) fn history(&self, from: usize) -> Vec<Write> {
        self.ledger().history[from..].to_vec()
    }

    /// Returns all objects by their keys.
    pub(crate) fn everything(&self) -> BTreeMap<String, Arc<Value>> {
        self.ledger().objects.clone()
    }

    /// Returns the objects of a kind.
    pub(crate) fn objects<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let prefix = format!("{}/{}/", K::group(&()), K::plural(&()));
        let found: Vec<Arc<Value>> = self
            .ledger()
            .objects
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(_, object)| Arc::clone(object))
            .collect();
        found
            .iter()
            .map(|object| K::deserialize(object.as_ref()).unwrap())
            .collect()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }
}

/// The disk as one life sees it. What a dead machine writes goes nowhere.
pub(crate) struct Drive {
    disk: Disk,
    life: CancellationToken,
}

impl Backend for Drive {
    fn load(&mut self) -> Result<Loaded, Error> {
        self.disk.memory.load()
    }

    fn commit(&mut self, batch: &[Change], forget: u64) -> Result<(), Error> {
        if self.life.is_cancelled() {
            return Ok(());
        }
        let shared = Arc::clone(&self.disk.ledger);
        let mut ledger = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ledger.history.len();
        if ledger.crash == Some(Crash::Before(next)) {
            ledger.crash = None;
            self.life.cancel();
            return Ok(());
        }
        self.disk.memory.commit(batch, forget)?;
        for change in batch {
            let after: Arc<Value> = Arc::new(parse(&change.object));
            let before = if change.operation == Operation::Deleted {
                ledger.objects.remove(&change.key)
            } else {
                ledger
                    .objects
                    .insert(change.key.clone(), Arc::clone(&after))
            };
            ledger.history.push(Write {
                key: change.key.clone(),
                operation: change.operation,
                before,
                after,
            });
        }
        if ledger.crash == Some(Crash::After(next)) {
            ledger.crash = None;
            self.life.cancel();
        }
        Ok(())
    }
}

fn parse(object: &[u8]) -> Value {
    serde_json::from_slice(object).expect("the API stores JSON")
}
