//! What follows from a deletion, in a queue: what follows has followers of its own, thousands deep.

use super::{
    Server,
    admission::name_of,
    catalog::Resource,
    delete::{DeleteOptions, Deleted, Still},
    refusal::Refusal,
    store::Stored,
    tree::Tree,
};
use futures::StreamExt;
use serde_json::Value;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
};

/// How many objects of one chore are deleted at once: they share a commit.
pub(super) const AT_ONCE: usize = 64;

/// Something that the server itself has to do after a write.
#[derive(Debug)]
pub(super) enum Chore {
    /// The object of this key is gone: clean up after it.
    Released(String, Value),
    /// An object waits for what its finalizers ask of the server.
    Settle(Arc<Resource>, Value),
    /// A namespace shall go: empty it.
    Empty(String),
    /// The kind of this definition shall go.
    Retire(String),
    /// Objects whose keys begin so may be of no kind any more.
    Clear(String),
    /// An object may have none of its owners.
    Adopted(Arc<Resource>, Value),
    /// The owners that this object had need not wait for it any more.
    Disowned(Value),
    /// The owner of this uid may be gone, and nobody cleaned up after it.
    Collect(String),
}

/// Chores in the order in which they came up. What each of thousands of objects asks for when it goes
/// is done once, after the rest.
#[derive(Debug, Default)]
pub(super) struct Chores {
    queue: VecDeque<Chore>,
    namespaces: BTreeSet<String>,
    definitions: BTreeSet<String>,
}

impl Chores {
    pub(super) fn push(&mut self, chore: Chore) {
        if let Chore::Empty(namespace) = chore {
            self.namespaces.insert(namespace);
        } else if let Chore::Retire(definition) = chore {
            self.definitions.insert(definition);
        } else {
            self.queue.push_back(chore);
        }
    }

    fn pop(&mut self) -> Option<Chore> {
        let Self {
            queue,
            namespaces,
            definitions,
        } = self;
        queue
            .pop_front()
            .or_else(|| namespaces.pop_first().map(Chore::Empty))
            .or_else(|| definitions.pop_first().map(Chore::Retire))
    }
}

impl Extend<Chore> for Chores {
    fn extend<T: IntoIterator<Item = Chore>>(&mut self, chores: T) {
        chores.into_iter().for_each(|chore| self.push(chore));
    }
}

impl FromIterator<Chore> for Chores {
    fn from_iter<T: IntoIterator<Item = Chore>>(found: T) -> Self {
        let mut chores = Self::default();
        chores.extend(found);
        chores
    }
}

impl Server {
    /// Does these chores and everything that comes of them. What fails is left to a later sweep:
    /// whoever asked for the deletion has what they wanted.
    pub(super) async fn carry_out(&self, mut chores: Chores) {
        while let Some(chore) = chores.pop() {
            let Err(refusal) = self.attempt(chore, &mut chores).await else {
                continue;
            };
            let status = refusal.status();
            let why = status.text("message");
            tracing::warn!(why, "The embedded API could not finish a deletion");
            if !refusal.is_forbidden() {
                // The sweep finds the rest, too.
                self.unfinished.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    async fn attempt(&self, chore: Chore, chores: &mut Chores) -> Result<(), Refusal> {
        match chore {
            Chore::Released(key, object) => self.release(&key, &object, chores).await,
            Chore::Settle(resource, object) => self.settle(&resource, &object, chores).await,
            Chore::Empty(namespace) => self.empty_namespace(&namespace, chores).await,
            Chore::Retire(definition) => self.retire(&definition, chores).await,
            Chore::Clear(storage) => self.collect_kind(&storage, chores).await,
            Chore::Adopted(_, object) if self.has_owner(&object, "") => Ok(()),
            Chore::Adopted(resource, object) => {
                let (alone, options) = (vec![(resource, object)], DeleteOptions::default());
                let still = |object: &Value| !self.has_owner(object, "");
                let deleted = self.delete_all(alone, &options, &still, chores).await;
                deleted.map(drop)
            }
            Chore::Disowned(object) => self.tell_owners(&object, chores).await,
            Chore::Collect(owner) => self.collect_dependents(&owner, "", chores).await,
        }
    }

    /// Deletes objects, those of them that are still there and shall still go; whether some of them are
    /// waiting. One that cannot be deleted is told of when the others are.
    pub(super) async fn delete_all(
        &self,
        objects: Vec<(Arc<Resource>, Value)>,
        options: &DeleteOptions,
        still: Still<'_>,
        chores: &mut Chores,
    ) -> Result<bool, Refusal> {
        let mut begun = futures::stream::iter(objects)
            .map(|(resource, object)| async move {
                let (metadata, name) = (object.field("metadata"), name_of(&object));
                let namespace = metadata.text("namespace");
                let still = |now: &Value| {
                    now.field("metadata").field("uid") == metadata.field("uid") && still(now)
                };
                self.begin_deletion(&resource, namespace, &name, options, &still)
                    .await
            })
            .buffered(AT_ONCE);
        let mut waiting = Ok(false);
        while let Some(outcome) = begun.next().await {
            match outcome {
                Ok((deleted, follow)) => {
                    let waits = matches!(deleted, Deleted::Waiting(_));
                    waiting = waiting.map(|waiting| waiting || waits);
                    chores.extend(follow);
                }
                Err(refusal) if refusal.is_not_found() => {}
                Err(refusal) => waiting = waiting.and(Err(refusal)),
            }
        }
        waiting
    }

    /// The objects behind these keys, with their kinds.
    pub(super) fn with_kinds(
        &self,
        found: impl IntoIterator<Item = (String, Arc<Stored>)>,
    ) -> Vec<(Arc<Resource>, Value)> {
        let catalog = self.catalog();
        found
            .into_iter()
            .filter_map(|(key, stored)| Some((Arc::clone(catalog.by_key(&key)?), stored.value())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_ask_for_is_done_once_after_the_rest() {
        let empty = || Chore::Empty("team".to_owned());
        let collect = || Chore::Collect("1".to_owned());
        let mut chores = Chores::from_iter([empty(), collect(), empty(), collect()]);
        let mut done = Vec::new();
        while let Some(chore) = chores.pop() {
            done.push(format!("{chore:?}"));
        }
        let wanted = [collect(), collect(), empty()].map(|chore| format!("{chore:?}"));
        assert_eq!(done, wanted);
    }
}
