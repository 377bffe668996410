//! Deletion in the foreground, which waits for dependents, and deletion that orphans them.

use super::{
    Server,
    admission::name_of,
    cascade::is_ending,
    catalog::Resource,
    chores::{Chore, Chores},
    delete::{DeleteOptions, Policy, keep_finalizers},
    refusal::Refusal,
    store::{Expectation, Rejected, Stored, Write},
    tree::Tree,
    write::{ATTEMPTS, is_finished},
};
use serde_json::Value;
use std::sync::Arc;

/// The finalizer of an object that waits for its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// The finalizer of an object whose dependents shall stay.
pub(super) const ORPHAN: &str = "orphan";

impl Server {
    /// Carries out what the finalizers of an object to be deleted ask of the server.
    pub(super) async fn settle(
        &self,
        resource: &Arc<Resource>,
        object: &Value,
        chores: &mut Chores,
    ) -> Result<(), Refusal> {
        let uid = object.field("metadata").text("uid");
        if has_finalizer(object, ORPHAN) {
            self.orphan_dependents(uid, chores).await?;
            self.drop_finalizer(resource, object, ORPHAN, chores)
                .await?;
        }
        if has_finalizer(object, FOREGROUND) {
            let deleted = self.delete_dependents(uid, chores).await;
            self.finish_foreground(resource, object, chores).await?;
            deleted?;
        }
        Ok(())
    }

    /// Lets the owners that an object had go on, if they waited for it.
    pub(super) async fn tell_owners(
        &self,
        object: &Value,
        chores: &mut Chores,
    ) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let metadata = object.field("metadata");
        let references = metadata.field("ownerReferences").as_array();
        for reference in references.into_iter().flatten() {
            let (version, kind) = (reference.text("apiVersion"), reference.text("kind"));
            for resource in catalog.by_kind(version, kind) {
                if let Some(owner) = self.owner(resource, metadata.text("namespace"), reference) {
                    self.finish_foreground(resource, &owner, chores).await?;
                }
            }
        }
        Ok(())
    }

    async fn finish_foreground(
        &self,
        resource: &Resource,
        owner: &Value,
        chores: &mut Chores,
    ) -> Result<(), Refusal> {
        if !is_waiting(owner) || self.is_blocked(owner.field("metadata").text("uid")) {
            return Ok(());
        }
        self.drop_finalizer(resource, owner, FOREGROUND, chores)
            .await
    }

    /// Whether a dependent is left that says its owner must wait for it.
    fn is_blocked(&self, owner: &str) -> bool {
        self.store.any_dependent(owner, |stored| {
            let object = stored.tree();
            let references = object.field("metadata").field("ownerReferences").as_array();
            references.into_iter().flatten().any(|reference| {
                reference.text("uid") == owner && reference.field("blockOwnerDeletion") == true
            })
        })
    }

    /// Deletes the dependents of an owner that waits for them; those with another owner lose it.
    async fn delete_dependents(&self, owner: &str, chores: &mut Chores) -> Result<(), Refusal> {
        let options = DeleteOptions::with(Policy::Foreground);
        let is_alone = |object: &Value| !self.has_owner(object, owner);
        let mut alone = Vec::new();
        for (key, stored) in self.store.dependents(owner) {
            let dependent = stored.tree();
            if !is_alone(&dependent) {
                continue;
            }
            if self.waits_for(&dependent) {
                self.unblock_owners(&key, chores).await?;
            }
            if !stored.is_ending() {
                alone.push((key, stored));
            }
        }
        let alone = self.with_kinds(alone);
        let deleted = self.delete_all(alone, &options, &is_alone, chores).await;
        // Among them those that got another owner meanwhile.
        for (key, stored) in self.store.dependents(owner) {
            if !is_alone(&stored.tree()) {
                self.disown(&key, owner, chores).await?;
            }
        }
        deleted.map(drop)
    }

    /// Whether a dependent of this object is itself waiting for its dependents: they may be in a ring.
    fn waits_for(&self, object: &Value) -> bool {
        let uid = object.field("metadata").text("uid");
        self.store
            .any_dependent(uid, |stored| is_waiting(&stored.tree()))
    }

    /// Lets no owner of an object wait for it any more, as the real collector breaks rings.
    async fn unblock_owners(&self, key: &str, chores: &mut Chores) -> Result<(), Refusal> {
        self.edit(
            key,
            &|object| {
                for reference in owners_mut(object).into_iter().flatten() {
                    reference.set(&["blockOwnerDeletion"], Value::Bool(false));
                }
            },
            chores,
        )
        .await
    }

    async fn orphan_dependents(&self, owner: &str, chores: &mut Chores) -> Result<(), Refusal> {
        for (key, _) in self.store.dependents(owner) {
            self.disown(&key, owner, chores).await?;
        }
        Ok(())
    }

    /// Takes this owner from an object.
    async fn disown(&self, key: &str, owner: &str, chores: &mut Chores) -> Result<(), Refusal> {
        self.edit(
            key,
            &|object| {
                if let Some(owners) = owners_mut(object) {
                    owners.retain(|reference| reference.text("uid") != owner);
                }
            },
            chores,
        )
        .await
    }

    /// Takes a finalizer of the server itself off an object, which may end it.
    pub(super) async fn drop_finalizer(
        &self,
        resource: &Resource,
        object: &Value,
        finalizer: &str,
        chores: &mut Chores,
    ) -> Result<(), Refusal> {
        let namespace = object.field("metadata").text("namespace");
        let key = resource.key(namespace, &name_of(object));
        self.edit(
            &key,
            &|object| keep_finalizers(object, |known| known != finalizer),
            chores,
        )
        .await
    }

    /// Changes an object of which the server itself wants something, if it is still there.
    pub(super) async fn edit(
        &self,
        key: &str,
        change: &(dyn Fn(&mut Value) + Sync),
        chores: &mut Chores,
    ) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let Some(resource) = catalog.by_key(key) else {
            return Ok(());
        };
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.store.get(key) else {
                return Ok(());
            };
            let old = stored.tree();
            let mut object = Value::clone(&old);
            change(&mut object);
            if object == *old {
                return Ok(());
            }
            super::dress::tidy(&mut object);
            let deletes = is_finished(resource, &object);
            let write = Write {
                key: key.to_owned(),
                expected: Expectation::Revision(stored.revision),
                object,
                deletes,
            };
            match self.commit(resource, write).await {
                Ok(stored) => {
                    if deletes {
                        chores.push(Chore::Released(key.to_owned(), stored.value()));
                    }
                    return Ok(());
                }
                Err(Rejected::Stale) => {}
                Err(Rejected::NotStored(why)) => return Err(Refusal::not_stored(&why)),
            }
        }
        Err(Refusal::modified(resource.subject(key)))
    }

    /// Those of the objects whose finalizers still ask something of the server.
    pub(super) fn unsettled(&self, mut found: Vec<(String, Arc<Stored>)>) -> Chores {
        // Most objects have neither word in them and need not be parsed.
        found.retain(|(_, stored)| {
            let json = stored.json();
            let text = String::from_utf8_lossy(&json);
            text.contains(FOREGROUND) || text.contains(ORPHAN)
        });
        self.with_kinds(found)
            .into_iter()
            .filter(|(_, object)| is_ending(object))
            .map(|(resource, object)| Chore::Settle(resource, object))
            .collect()
    }
}

fn owners_mut(object: &mut Value) -> Option<&mut Vec<Value>> {
    let owners = object.pointer_mut("/metadata/ownerReferences")?;
    owners.as_array_mut()
}

/// Whether an object is to be deleted once its dependents are gone.
pub(super) fn is_waiting(object: &Value) -> bool {
    has_finalizer(object, FOREGROUND) && is_ending(object)
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    let list = object.field("metadata").field("finalizers").as_array();
    list.is_some_and(|list| list.iter().any(|known| known == finalizer))
}
