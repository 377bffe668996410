//! A kind that shall go: its objects first, as their finalizers allow, then its definition.

use super::{
    Server,
    cascade::is_ending,
    catalog::{Resource, Role, kind_of},
    chores::Chores,
    delete::DeleteOptions,
    refusal::Refusal,
};
use crate::kubeapi::tree::Tree;
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc};

/// The finalizer that a real server keeps a definition by while there are objects of its kind.
pub(super) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What the keys of the objects of a defined kind begin with.
pub(super) fn storage_of(definition: &Value) -> String {
    let spec = definition.field("spec");
    let plural = spec.field("names").text("plural");
    format!("{}/{plural}/", spec.text("group"))
}

impl Server {
    /// Whether there are objects of the kind that this defines.
    pub(super) fn is_in_use(&self, definition: &Value) -> bool {
        let page = self.store.page(&storage_of(definition), None, 1, None);
        page.is_some_and(|(found, ..)| !found.is_empty())
    }

    /// Refuses to create an object of a kind that is gone or shall go.
    pub(super) fn check_kind_stays(&self, resource: &Resource) -> Result<(), Refusal> {
        let catalog = self.catalog();
        match catalog.find(&resource.group, &resource.version, &resource.plural) {
            None => Err(Refusal::unknown_path()),
            Some(present) if present.ends => Err(Refusal::kind_terminating()),
            Some(_) => Ok(()),
        }
    }

    /// Whether the objects with this key are of no kind, so that nobody can reach them. A definition that
    /// is stored and cannot be served keeps them: it may be mended.
    pub(super) fn is_of_no_kind(&self, key: &str) -> bool {
        let catalog = self.catalog();
        let mut parts = key.split('/');
        let mut part = || parts.next().unwrap_or_default();
        let (group, plural) = (part(), part());
        let definitions = catalog.by_role(Role::Definition);
        let is_defined = definitions.is_some_and(|definitions| {
            let key = definitions.key("", &format!("{plural}.{group}"));
            self.store.get(&key).is_some()
        });
        !is_defined && catalog.by_key(key).is_none()
    }

    /// The kinds of definitions that cannot be served, whose objects stay all the same.
    pub(super) fn unserved_kinds(&self) -> Vec<Arc<Resource>> {
        let catalog = self.catalog();
        let Some(definitions) = catalog.by_role(Role::Definition) else {
            return Vec::new();
        };
        let (found, _) = self.store.list(&definitions.prefix(""), None);
        let definitions = found.into_iter().map(|(_, stored)| stored.tree());
        definitions
            .filter(|definition| catalog.by_key(&storage_of(definition)).is_none())
            .filter_map(|definition| kind_of(&definition))
            .collect()
    }

    /// What those of the keys begin with that are of no kind, for each such kind. Kinds that a definition made have
    /// a group with a dot; what else is not known may be a built-in one of a later program.
    pub(super) fn gone_kinds<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Vec<String> {
        let storage = |key: &str| {
            let (end, _) = key.match_indices('/').nth(1)?;
            let (group, _) = key.split_once('/')?;
            let storage = key.get(..=end)?;
            group.contains('.').then(|| storage.to_owned())
        };
        let all: BTreeSet<String> = keys.filter_map(storage).collect();
        let gone = all
            .into_iter()
            .filter(|storage| self.is_of_no_kind(storage));
        gone.collect()
    }

    /// Deletes the objects of a kind that shall go, and its definition when none is left.
    pub(super) async fn retire(&self, name: &str, chores: &mut Chores) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let Some(definitions) = catalog.by_role(Role::Definition) else {
            return Ok(());
        };
        let Some(stored) = self.store.get(&definitions.key("", name)) else {
            return Ok(());
        };
        if !stored.is_ending() {
            return Ok(());
        }
        let definition = stored.tree();
        let storage = storage_of(&definition);
        let found = self.store.list(&storage, None).0;
        let known = catalog.by_key(&storage).cloned();
        let kind = known.or_else(|| kind_of(&definition));
        let mut objects: Vec<_> = match kind {
            Some(kind) => {
                let objects = found.into_iter();
                objects
                    .map(|(_, stored)| (Arc::clone(&kind), stored.value()))
                    .collect()
            }
            None if found.is_empty() => Vec::new(),
            None => return Ok(()),
        };
        let all = objects.len();
        objects.retain(|(_, object)| !is_ending(object));
        let mut remaining = objects.len() < all;
        let options = DeleteOptions::default();
        remaining |= self
            .delete_all(objects, &options, &|_| true, chores)
            .await?;
        if remaining {
            return Ok(());
        }
        self.drop_finalizer(definitions, &definition, CLEANUP, chores)
            .await
    }
}
