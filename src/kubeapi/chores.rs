//! What follows from a deletion, in a queue: what follows has followers of its own, thousands deep.

use super::{
    Server,
    admission::name_of,
    catalog::Resource,
    delete::{DeleteOptions, Deleted},
    refusal::Refusal,
    store::Stored,
    tree::Tree,
};
use futures::StreamExt;
use serde_json::Value;
use std::{collections::VecDeque, sync::Arc};

/// How many objects of one chore are deleted at once: they share a commit.
const AT_ONCE: usize = 64;

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
    /// An object may have none of its owners.
    Adopted(Arc<Resource>, Value),
}

/// Chores in the order in which they came up.
pub(super) type Chores = VecDeque<Chore>;

impl Server {
    /// Does a chore and everything that comes of it.
    pub(super) async fn carry_out(
        &self,
        first: impl IntoIterator<Item = Chore>,
    ) -> Result<(), Refusal> {
        let mut chores: Chores = first.into_iter().collect();
        while let Some(chore) = chores.pop_front() {
            match chore {
                Chore::Released(key, object) => {
                    self.release(&key, &object, &mut chores).await?;
                }
                Chore::Settle(resource, object) => {
                    self.settle(&resource, &object, &mut chores).await?;
                }
                Chore::Empty(namespace) => self.empty_namespace(&namespace, &mut chores).await?,
                Chore::Retire(definition) => self.retire(&definition, &mut chores).await?,
                Chore::Adopted(resource, object) => {
                    if !self.has_owner(&object, "") {
                        let options = DeleteOptions::default();
                        let alone = vec![(resource, object)];
                        self.delete_all(alone, &options, &mut chores).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Deletes objects, those of them that are still there; whether some of them are waiting.
    pub(super) async fn delete_all(
        &self,
        objects: Vec<(Arc<Resource>, Value)>,
        options: &DeleteOptions,
        chores: &mut Chores,
    ) -> Result<bool, Refusal> {
        let mut begun = futures::stream::iter(objects)
            .map(|(resource, object)| async move {
                let namespace = object.field("metadata").text("namespace");
                self.begin_deletion(&resource, namespace, &name_of(&object), options)
                    .await
            })
            .buffered(AT_ONCE);
        let mut waiting = false;
        while let Some(outcome) = begun.next().await {
            match outcome {
                Ok((deleted, follow)) => {
                    waiting |= matches!(deleted, Deleted::Waiting(_));
                    chores.extend(follow);
                }
                Err(refusal) if refusal.is_not_found() => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(waiting)
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
