//! Deletion in the foreground, which waits for dependents, and deletion that orphans them.

use super::{
    Server,
    admission::name_of,
    catalog::Resource,
    delete::{ATTEMPTS, DeleteOptions, Policy},
    refusal::Refusal,
    store::{Expectation, Rejected, Write},
    tree::Tree,
    write::is_finished,
};
use serde_json::Value;
use std::{future::Future, pin::Pin};

/// The finalizer of an object that waits for its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// The finalizer of an object whose dependents shall stay.
pub(super) const ORPHAN: &str = "orphan";

type Work<'a> = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>>;

impl Server {
    /// Carries out what the finalizers of an object to be deleted ask of the server.
    /// Boxed, since dependents have dependents.
    pub(super) fn settle<'a>(&'a self, resource: &'a Resource, object: &'a Value) -> Work<'a> {
        Box::pin(async move {
            let uid = object.field("metadata").text("uid");
            if has_finalizer(object, ORPHAN) {
                self.orphan_dependents(uid).await?;
                self.drop_finalizer(resource, object, ORPHAN).await?;
            }
            if has_finalizer(object, FOREGROUND) {
                self.delete_dependents(uid).await?;
                self.finish_foreground(resource, object).await?;
            }
            Ok(())
        })
    }

    /// Lets the owners of an object that is gone go on, if they waited for it.
    pub(super) async fn tell_owners(&self, object: &Value) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let metadata = object.field("metadata");
        let references = metadata.field("ownerReferences").as_array();
        for reference in references.into_iter().flatten() {
            let kind = (reference.text("apiVersion"), reference.text("kind"));
            let Some(resource) = catalog.by_kind(kind.0, kind.1) else {
                continue;
            };
            let namespace = if resource.namespaced {
                metadata.text("namespace")
            } else {
                ""
            };
            let key = resource.key(namespace, reference.text("name"));
            if let Some(stored) = self.store.get(&key) {
                let owner = stored.value();
                if owner.field("metadata").field("uid") == reference.field("uid") {
                    self.finish_foreground(resource, &owner).await?;
                }
            }
        }
        Ok(())
    }

    async fn finish_foreground(&self, resource: &Resource, owner: &Value) -> Result<(), Refusal> {
        let metadata = owner.field("metadata");
        let waits = has_finalizer(owner, FOREGROUND) && metadata.get("deletionTimestamp").is_some();
        if !waits || self.is_blocked(metadata.text("uid")) {
            return Ok(());
        }
        self.drop_finalizer(resource, owner, FOREGROUND).await
    }

    /// Whether a dependent is left that says its owner must wait for it.
    fn is_blocked(&self, owner: &str) -> bool {
        self.store.dependents(owner).iter().any(|key| {
            let object = self.store.get(key).map(|stored| stored.value());
            object.is_some_and(|object| {
                let references = object.field("metadata").field("ownerReferences").as_array();
                references.into_iter().flatten().any(|reference| {
                    reference.text("uid") == owner && reference.field("blockOwnerDeletion") == true
                })
            })
        })
    }

    async fn delete_dependents(&self, owner: &str) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let options = DeleteOptions::with(Policy::Foreground);
        for key in self.store.dependents(owner) {
            let (Some(resource), Some(stored)) = (catalog.by_key(&key), self.store.get(&key))
            else {
                continue;
            };
            let object = stored.value();
            let namespace = object.field("metadata").text("namespace");
            let deleted = self
                .delete_object(resource, namespace, &name_of(&object), &options)
                .await;
            match deleted {
                Err(refusal) if !refusal.is_not_found() => return Err(refusal),
                _ => {}
            }
        }
        Ok(())
    }

    async fn orphan_dependents(&self, owner: &str) -> Result<(), Refusal> {
        for key in self.store.dependents(owner) {
            self.edit(&key, &|object| {
                let list = object
                    .pointer_mut("/metadata/ownerReferences")
                    .and_then(Value::as_array_mut);
                if let Some(list) = list {
                    list.retain(|reference| reference.text("uid") != owner);
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn drop_finalizer(
        &self,
        resource: &Resource,
        object: &Value,
        finalizer: &str,
    ) -> Result<(), Refusal> {
        let namespace = object.field("metadata").text("namespace");
        let key = resource.key(namespace, &name_of(object));
        self.edit(&key, &|object| {
            let list = object
                .pointer_mut("/metadata/finalizers")
                .and_then(Value::as_array_mut);
            if let Some(list) = list {
                list.retain(|known| known != finalizer);
            }
        })
        .await
    }

    /// Changes an object of which the server itself wants something, if it is still there.
    async fn edit(&self, key: &str, change: &(dyn Fn(&mut Value) + Sync)) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let Some(resource) = catalog.by_key(key) else {
            return Ok(());
        };
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.store.get(key) else {
                return Ok(());
            };
            let old = stored.value();
            let mut object = old.clone();
            change(&mut object);
            if object == old {
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
            match self.store.write(write).await {
                Ok(stored) if deletes => return self.released(resource, &stored.value()).await,
                Ok(_) => return Ok(()),
                Err(Rejected::Stale) => {}
                Err(Rejected::NotStored(why)) => return Err(Refusal::not_stored(&why)),
            }
        }
        Ok(())
    }

    /// Finishes what a crash interrupted.
    pub(super) async fn settle_all(&self) -> Result<(), Refusal> {
        let catalog = self.catalog();
        for (key, stored) in self.store.list("", None).0 {
            // Most objects have neither word in them and need not be parsed.
            let text = String::from_utf8_lossy(stored.json());
            if !text.contains(FOREGROUND) && !text.contains(ORPHAN) {
                continue;
            }
            let object = stored.value();
            if let Some(resource) = catalog.by_key(&key)
                && object.field("metadata").get("deletionTimestamp").is_some()
            {
                self.settle(resource, &object).await?;
            }
        }
        Ok(())
    }
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    let list = object.field("metadata").field("finalizers").as_array();
    list.is_some_and(|list| list.iter().any(|known| known == finalizer))
}
