//! What goes with an object that is gone: its dependents, the content of a namespace or of a kind.

use super::{
    Server,
    admission::name_of,
    catalog::{Resource, Role, Verbs},
    delete::{ATTEMPTS, DeleteOptions, Deleted},
    refusal::Refusal,
    store::{Expectation, Rejected, Write},
    write::is_finished,
};
use crate::kubeapi::tree::Tree;
use serde_json::{Value, json};
use std::{future::Future, pin::Pin, sync::atomic::Ordering};

/// How many seconds pass at least between two looks for what has expired.
const EXPIRE_EVERY: i64 = 60;

impl Server {
    /// Cleans up after an object that is gone. Boxed, since what is deleted here has dependents too.
    pub(super) fn released<'a>(
        &'a self,
        resource: &'a Resource,
        object: &'a Value,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        Box::pin(async move {
            let uid = object.field("metadata").text("uid");
            self.collect_dependents(uid).await?;
            self.tell_owners(object).await?;
            if resource.role == Role::Definition {
                self.collect_kind(object).await?;
            }
            let namespace = object.field("metadata").text("namespace");
            if !namespace.is_empty() && self.is_terminating(namespace) {
                self.empty_namespace(namespace).await?;
            }
            Ok(())
        })
    }

    /// Deletes what has no owner left after this one is gone.
    async fn collect_dependents(&self, owner: &str) -> Result<(), Refusal> {
        let catalog = self.catalog();
        for key in self.store.dependents(owner) {
            let (Some(resource), Some(stored)) = (catalog.by_key(&key), self.store.get(&key))
            else {
                continue;
            };
            let object = stored.value();
            if self.has_owner(&object) {
                continue;
            }
            let namespace = object.field("metadata").text("namespace");
            let options = DeleteOptions::default();
            allow_missing(
                self.delete_object(resource, namespace, &name_of(&object), &options)
                    .await,
            )?;
        }
        Ok(())
    }

    fn has_owner(&self, object: &Value) -> bool {
        let catalog = self.catalog();
        let namespace = object.field("metadata").text("namespace");
        let references = object.field("metadata").field("ownerReferences").as_array();
        references.into_iter().flatten().any(|reference| {
            let text = |field: &str| reference.text(field);
            let Some(owner) = catalog.by_kind(text("apiVersion"), text("kind")) else {
                // Nothing is known of such owners, so nothing is deleted for their sake.
                return true;
            };
            let namespace = if owner.namespaced { namespace } else { "" };
            self.store
                .get(&owner.key(namespace, text("name")))
                .is_some_and(|stored| {
                    stored.value().field("metadata").field("uid") == reference.field("uid")
                })
        })
    }

    /// Deletes the objects of a kind whose definition is gone.
    async fn collect_kind(&self, definition: &Value) -> Result<(), Refusal> {
        let spec = &definition.field("spec");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let prefix = format!(
            "{}/{}/",
            text(spec.field("group")),
            text(spec.field("names").field("plural"))
        );
        for (key, stored) in self.store.list(&prefix, None).0 {
            let write = Write {
                key,
                expected: Expectation::Revision(stored.revision),
                object: stored.value(),
                deletes: true,
            };
            if let Err(Rejected::NotStored(why)) = self.store.write(write).await {
                return Err(Refusal::not_stored(&why));
            }
        }
        Ok(())
    }

    fn is_terminating(&self, namespace: &str) -> bool {
        let catalog = self.catalog();
        catalog
            .by_role(Role::Namespace)
            .and_then(|namespaces| self.store.get(&namespaces.key("", namespace)))
            .is_some_and(|stored| {
                !stored
                    .value()
                    .field("metadata")
                    .field("deletionTimestamp")
                    .is_null()
            })
    }

    /// Deletes what is in a namespace that shall go, and the namespace when nothing holds it.
    pub(super) fn empty_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        Box::pin(async move {
            let catalog = self.catalog();
            let options = DeleteOptions::default();
            let held = catalog
                .resources()
                .filter(|resource| resource.namespaced && resource.verbs == Verbs::All);
            let mut remaining = false;
            for resource in held {
                for (_, stored) in self.store.list(&resource.prefix(namespace), None).0 {
                    let object = stored.value();
                    if is_marked(&object) {
                        remaining = true;
                        continue;
                    }
                    let name = name_of(&object);
                    let deleted = self.delete_object(resource, namespace, &name, &options);
                    let deleted = allow_missing(Box::pin(deleted).await)?;
                    remaining |= matches!(deleted, Some(Deleted::Waiting(_)));
                }
            }
            if remaining {
                return Ok(());
            }
            self.finish_namespace(namespace).await
        })
    }

    async fn finish_namespace(&self, namespace: &str) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let Some(namespaces) = catalog.by_role(Role::Namespace) else {
            return Ok(());
        };
        let key = namespaces.key("", namespace);
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.store.get(&key) else {
                return Ok(());
            };
            let mut object = stored.value();
            if !is_marked(&object) {
                return Ok(());
            }
            object.set(&["spec", "finalizers"], json!([]));
            let write = Write {
                key: key.clone(),
                expected: Expectation::Revision(stored.revision),
                deletes: is_finished(namespaces, &object),
                object,
            };
            match self.store.write(write).await {
                Ok(_) => return Ok(()),
                Err(Rejected::Stale) => {}
                Err(Rejected::NotStored(why)) => return Err(Refusal::not_stored(&why)),
            }
        }
        Ok(())
    }

    /// Deletes the objects of a kind that nobody spoke of for longer than they are kept.
    pub(super) async fn expire(&self, resource: &Resource) -> Result<(), Refusal> {
        let Some(lifetime) = resource.rules.lifetime else {
            return Ok(());
        };
        let now = (self.clock)().as_second();
        let last = self.expired_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) < EXPIRE_EVERY {
            return Ok(());
        }
        self.expired_at.store(now, Ordering::Relaxed);
        for (key, stored) in self.store.list(&resource.prefix(""), None).0 {
            let object = stored.value();
            if now - last_heard_of(&object) <= lifetime {
                continue;
            }
            let write = Write {
                key,
                expected: Expectation::Revision(stored.revision),
                object,
                deletes: true,
            };
            if let Err(Rejected::NotStored(why)) = self.store.write(write).await {
                return Err(Refusal::not_stored(&why));
            }
        }
        Ok(())
    }

    /// Finishes what a crash may have left half done.
    pub(super) async fn sweep(&self) -> Result<(), Refusal> {
        self.settle_all().await?;
        for owner in self.store.owners() {
            self.collect_dependents(&owner).await?;
        }
        let catalog = self.catalog();
        for resource in catalog.resources() {
            self.expire(resource).await?;
        }
        let Some(namespaces) = catalog.by_role(Role::Namespace) else {
            return Ok(());
        };
        for (_, stored) in self.store.list(&namespaces.prefix(""), None).0 {
            let object = stored.value();
            if is_marked(&object) {
                self.empty_namespace(&name_of(&object)).await?;
            }
        }
        Ok(())
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

fn is_marked(object: &Value) -> bool {
    !object
        .field("metadata")
        .field("deletionTimestamp")
        .is_null()
}

/// What is gone already needs no deletion.
fn allow_missing(outcome: Result<Deleted, Refusal>) -> Result<Option<Deleted>, Refusal> {
    match outcome {
        Ok(deleted) => Ok(Some(deleted)),
        Err(refusal) if refusal.is_not_found() => Ok(None),
        Err(refusal) => Err(refusal),
    }
}
