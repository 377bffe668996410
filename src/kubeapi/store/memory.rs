//! A backend in memory, for tests and simulations: clones share it, so it survives a "restart".

use super::{Backend, Change, Current, Loaded, Operation};
use crate::kubeapi::Error;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A store that forgets when the last clone is dropped.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    revision: u64,
    compacted: u64,
    objects: BTreeMap<String, Current>,
    log: Vec<Change>,
    full: bool,
}

impl Memory {
    /// Makes every further commit fail, like a full disk, until it is called with `false`.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Memory {
    fn load(&mut self) -> Result<Loaded, Error> {
        let held = self.lock();
        Ok(Loaded {
            revision: held.revision,
            compacted: held.compacted,
            objects: held.objects.values().cloned().collect(),
            log: held.log.clone(),
        })
    }

    fn commit(&mut self, batch: &[Change], forget: u64) -> Result<(), Error> {
        let mut held = self.lock();
        if held.full {
            return Err(Error::Write {
                path: PathBuf::from(":memory:"),
                reason: "it is full".to_owned(),
            });
        }
        for change in batch {
            held.revision = held.revision.max(change.revision);
            if change.operation == Operation::Deleted {
                held.objects.remove(&change.key);
            } else {
                let current = Current {
                    key: change.key.clone(),
                    revision: change.revision,
                    object: change.object.clone(),
                };
                held.objects.insert(change.key.clone(), current);
            }
            held.log.push(change.clone());
        }
        if forget > held.compacted {
            held.compacted = forget;
            held.log.retain(|change| change.revision > forget);
        }
        Ok(())
    }
}
