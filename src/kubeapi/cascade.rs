//! What goes with an object that is gone: its dependents, the content of a namespace or of a kind.

use super::{
    Server,
    admission::name_of,
    catalog::{Resource, Role, Verbs},
    chores::{AT_ONCE, Chore, Chores},
    delete::DeleteOptions,
    dependents::is_waiting,
    refusal::Refusal,
    retire::storage_of,
    store::{Expectation, Rejected, Stored, Write},
};
use crate::kubeapi::tree::Tree;
use futures::StreamExt;
use serde_json::Value;
use std::sync::{Arc, atomic::Ordering};

/// The finalizer in the spec of a namespace by which the server itself keeps it until it is empty.
pub(super) const OWN_FINALIZER: &str = "kubernetes";

/// How many seconds pass at least between two looks for what has expired.
const EXPIRE_EVERY: i64 = 60;

impl Server {
    /// Cleans up after an object that is gone.
    pub(super) async fn release(
        &self,
        key: &str,
        object: &Value,
        chores: &mut Chores,
    ) -> Result<(), Refusal> {
        let uid = object.field("metadata").text("uid");
        let collected = self.collect_dependents(uid, uid, chores).await;
        self.tell_owners(object, chores).await?;
        let catalog = self.catalog();
        let kind = catalog.by_key(key);
        if kind.is_some_and(|kind| kind.role == Role::Definition) {
            self.collect_kind(&storage_of(object), chores).await?;
        }
        if let Some(kind) = kind.filter(|kind| kind.ends) {
            chores.push(Chore::Retire(kind.definition()));
        }
        let namespace = object.field("metadata").text("namespace");
        let place = self.namespace(namespace);
        if place.is_some_and(|namespace| namespace.is_ending()) {
            chores.push(Chore::Empty(namespace.to_owned()));
        }
        collected
    }

    /// Deletes the dependents of an owner that have no owner left; `gone` is none any more.
    pub(super) async fn collect_dependents(
        &self,
        owner: &str,
        gone: &str,
        chores: &mut Chores,
    ) -> Result<(), Refusal> {
        let is_alone = |object: &Value| !self.has_owner(object, gone);
        let mut alone = self.with_kinds(self.store.dependents(owner));
        alone.retain(|(_, object)| is_alone(object));
        let options = DeleteOptions::default();
        self.delete_all(alone, &options, &is_alone, chores).await?;
        Ok(())
    }

    /// Whether an object has an owner other than the one with the uid `gone`, or needs none. An owner
    /// that waits for its dependents keeps none of them.
    pub(super) fn has_owner(&self, object: &Value, gone: &str) -> bool {
        let catalog = self.catalog();
        let namespace = object.field("metadata").text("namespace");
        let references = object.field("metadata").field("ownerReferences").as_array();
        let Some(references) = references.filter(|references| !references.is_empty()) else {
            return true;
        };
        references.iter().any(|reference| {
            let text = |field: &str| reference.text(field);
            let kinds = || catalog.by_kind(text("apiVersion"), text("kind"));
            if namespace.is_empty() && kinds().any(|kind| kind.namespaced) {
                // Which object that is cannot be said, so nothing is deleted for its sake.
                return true;
            }
            if !gone.is_empty() && text("uid") == gone {
                return false;
            }
            if kinds().next().is_none() {
                // Nothing is known of such owners either.
                return true;
            }
            kinds().any(|kind| {
                let owner = self.owner(kind, namespace, reference);
                owner.is_some_and(|owner| !is_waiting(&owner))
            })
        })
    }

    /// The object of this kind that a reference in this namespace is to, if it is there.
    pub(super) fn owner(
        &self,
        kind: &Resource,
        namespace: &str,
        reference: &Value,
    ) -> Option<Arc<Value>> {
        let namespace = if kind.namespaced { namespace } else { "" };
        let stored = self
            .store
            .get(&kind.key(namespace, reference.text("name")))?;
        let owner = stored.tree();
        (owner.field("metadata").field("uid") == reference.field("uid")).then_some(owner)
    }

    /// Deletes the objects of a kind whose definition is gone, as when somebody took its finalizer
    /// away: nobody could reach them any more.
    pub(super) async fn collect_kind(
        &self,
        storage: &str,
        chores: &mut Chores,
    ) -> Result<(), Refusal> {
        // Writes that began before it went may still come; and once there is such a kind again, its
        // objects are reached.
        while self.is_of_no_kind(storage) {
            let found = self.store.list(storage, None).0;
            if found.is_empty() {
                break;
            }
            for (key, stored) in found {
                let write = Write {
                    key: key.clone(),
                    expected: Expectation::Revision(stored.revision),
                    object: stored.value(),
                    deletes: true,
                };
                match self.store.write(write).await {
                    Ok(stored) => chores.push(Chore::Released(key, stored.value())),
                    Err(Rejected::Stale) => {}
                    Err(Rejected::NotStored(why)) => return Err(Refusal::not_stored(&why)),
                }
            }
        }
        Ok(())
    }

    fn namespace(&self, name: &str) -> Option<Arc<Stored>> {
        let catalog = self.catalog();
        let namespaces = catalog.by_role(Role::Namespace)?;
        self.store.get(&namespaces.key("", name))
    }

    /// Deletes what is in a namespace that shall go, and the namespace when nothing holds it.
    pub(super) async fn empty_namespace(
        &self,
        namespace: &str,
        chores: &mut Chores,
    ) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let options = DeleteOptions::default();
        let unserved = self.unserved_kinds();
        let held = catalog
            .resources()
            .chain(&unserved)
            .filter(|resource| resource.namespaced && resource.verbs == Verbs::All);
        // Another run may have ended it meanwhile, and somebody have made it anew.
        let stays = || {
            let stored = self.namespace(namespace);
            stored.is_some_and(|stored| !stored.is_ending())
        };
        let mut remaining = false;
        for resource in held {
            if stays() {
                return Ok(());
            }
            let (found, _) = self.store.list(&resource.prefix(namespace), None);
            let found = found.into_iter();
            let mut objects: Vec<_> = found
                .map(|(_, stored)| (Arc::clone(resource), stored.value()))
                .collect();
            let all = objects.len();
            objects.retain(|(_, object)| !is_ending(object));
            remaining |= objects.len() < all;
            remaining |= self
                .delete_all(objects, &options, &|_| !stays(), chores)
                .await?;
        }
        if remaining {
            return Ok(());
        }
        self.finish_namespace(namespace, chores).await
    }

    async fn finish_namespace(&self, namespace: &str, chores: &mut Chores) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let Some(namespaces) = catalog.by_role(Role::Namespace) else {
            return Ok(());
        };
        self.edit(
            &namespaces.key("", namespace),
            &|object| {
                if !is_ending(object) {
                    return;
                }
                let finalizers = object.pointer_mut("/spec/finalizers");
                if let Some(finalizers) = finalizers.and_then(Value::as_array_mut) {
                    finalizers.retain(|finalizer| finalizer != OWN_FINALIZER);
                }
            },
            chores,
        )
        .await
    }

    /// Deletes the objects of a kind that nobody spoke of for longer than they are kept; those that
    /// cannot be deleted now are looked at again.
    pub(super) async fn expire(&self, resource: &Resource) {
        let Some(lifetime) = resource.rules.lifetime else {
            return;
        };
        let now = (self.clock)().as_second();
        let last = self.expired_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) < EXPIRE_EVERY {
            return;
        }
        self.expired_at.store(now, Ordering::Relaxed);
        let found = self.store.list(&resource.prefix(""), None).0.into_iter();
        let expired = found.filter_map(|(key, stored)| {
            let object = stored.value();
            (now - last_heard_of(&object) > lifetime).then(|| Write {
                key,
                expected: Expectation::Revision(stored.revision),
                object,
                deletes: true,
            })
        });
        let mut written = futures::stream::iter(expired)
            .map(|write| self.store.write(write))
            .buffered(AT_ONCE);
        while let Some(outcome) = written.next().await {
            if matches!(outcome, Err(Rejected::NotStored(_))) {
                return;
            }
        }
    }

    /// Finishes what a crash or a full disk may have left half done.
    pub(super) async fn sweep(&self) {
        let (all, _) = self.store.list("", None);
        let gone = self.gone_kinds(all.iter().map(|(key, _)| &**key));
        let mut chores = self.unsettled(all);
        chores.extend(self.store.owners().into_iter().map(Chore::Collect));
        chores.extend(gone.into_iter().map(Chore::Clear));
        let catalog = self.catalog();
        for resource in catalog.resources() {
            self.expire(resource).await;
        }
        for role in [Role::Namespace, Role::Definition] {
            let Some(kind) = catalog.by_role(role) else {
                continue;
            };
            for (_, stored) in self.store.list(&kind.prefix(""), None).0 {
                if !stored.is_ending() {
                    continue;
                }
                let name = name_of(&stored.tree());
                chores.push(if role == Role::Namespace {
                    Chore::Empty(name)
                } else {
                    Chore::Retire(name)
                });
            }
        }
        self.carry_out(chores).await;
    }
}

/// The latest time in an object with a lifetime, in Unix seconds.
fn last_heard_of(object: &Value) -> i64 {
    [
        "/metadata/creationTimestamp",
        "/lastTimestamp",
        "/series/lastObservedTime",
    ]
    .into_iter()
    .filter_map(|path| {
        object
            .pointer(path)?
            .as_str()?
            .parse::<jiff::Timestamp>()
            .ok()
    })
    .map(jiff::Timestamp::as_second)
    .max()
    .unwrap_or(0)
}

/// Whether an object goes as soon as nothing holds it any more.
pub(super) fn is_ending(object: &Value) -> bool {
    !object
        .field("metadata")
        .field("deletionTimestamp")
        .is_null()
}
