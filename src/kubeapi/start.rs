//! Opening: definitions into the store, the catalog out of it, the namespaces that must be there.

use super::{
    Error, Options, Server,
    access::{MASTERS, RBAC},
    admission::{Case, Origin, Strictness, name_of},
    catalog::{Catalog, Resource, Role, check_definition},
    chores::Chores,
    definition, dress, naming,
    retire::storage_of,
    store::{Expectation, Rejected, Store, Write},
};
use crate::kubeapi::tree::Tree;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicI64},
};

/// The namespaces that every cluster has, and the one in which Liqo keeps its things. Nobody may delete them.
pub(super) const NAMESPACES: &[&str] = &["default", "kube-system", "kube-node-lease", "liqo"];

impl Server {
    pub(super) fn open(options: Options) -> Result<Self, Error> {
        for definition in &options.crds {
            check_definition(definition)?;
        }
        let catalog = Catalog::new(options.crds.iter(), Catalog::components());
        let store = Store::open(options.backend, options.commit, Arc::clone(&options.clock))?;
        Ok(Self {
            store: Arc::new(store),
            catalog: RwLock::new(Arc::new(catalog)),
            defining: tokio::sync::RwLock::new(()),
            clock: options.clock,
            suffix: naming::suffix,
            expired_at: AtomicI64::new(i64::MIN),
            unfinished: AtomicBool::new(false),
        })
    }

    /// Brings the store up to date with this program, and finishes what a crash interrupted.
    pub(super) async fn begin(
        &self,
        definitions: Vec<CustomResourceDefinition>,
    ) -> Result<(), Error> {
        let catalog = self.catalog();
        if let Some(kinds) = catalog.by_role(Role::Definition) {
            for definition in definitions {
                let object = serde_json::to_value(definition).unwrap_or_default();
                self.put_definition(&catalog, kinds, object).await?;
            }
        }
        if let Some(namespaces) = catalog.by_role(Role::Namespace) {
            for name in NAMESPACES {
                if self.store.get(&namespaces.key("", name)).is_none() {
                    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                    self.put(&catalog, namespaces, object).await?;
                }
            }
        }
        self.put_roles(&catalog).await?;
        self.reload_catalog();
        self.tell_what_is_served().await;
        self.sweep().await;
        Ok(())
    }

    /// Says of each definition that another version of this program took and that cannot be served why, in
    /// the log and in its conditions; and of one that can be again, that it is.
    async fn tell_what_is_served(&self) {
        let catalog = self.catalog();
        let Some(kinds) = catalog.by_role(Role::Definition) else {
            return;
        };
        for (key, stored) in self.store.list(&kinds.prefix(""), None).0 {
            let object = stored.tree();
            // What is in the catalog was looked at when it came there.
            let served = catalog.by_key(&storage_of(&object)).is_some();
            let mistake = if served {
                None
            } else {
                definition::mistake_of(&object)
            };
            if let Some(reason) = &mistake {
                let name = name_of(&object);
                tracing::warn!(%name, %reason, "A definition cannot be served; change or delete it");
            }
            if is_established(&object) == mistake.is_none() {
                continue;
            }
            let now = (self.clock)();
            let establish = |new: &mut Value| dress::establish(new, Some(&object), now);
            let told = self.edit(&key, &establish, &mut Chores::default()).await;
            if let Err(refusal) = told {
                let status = refusal.status();
                let why = status.text("message");
                tracing::warn!(%key, why, "Could not say whether a definition is served");
            }
        }
    }

    /// Puts the role that may do everything, so that others can be bound to it.
    async fn put_roles(&self, catalog: &Catalog) -> Result<(), Error> {
        let objects = [
            (
                "clusterroles",
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": "cluster-admin"},
                "rules": [
                    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                    {"verbs": ["*"], "nonResourceURLs": ["*"]}]}),
            ),
            (
                "clusterrolebindings",
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": "cluster-admin"},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": MASTERS}]}),
            ),
        ];
        for (plural, object) in objects {
            let Some(resource) = catalog.find(RBAC, "v1", plural) else {
                continue;
            };
            if self.store.get(&resource.key("", "cluster-admin")).is_none() {
                self.put(catalog, resource, object).await?;
            }
        }
        Ok(())
    }

    /// Makes the catalog anew from the definitions in the store.
    pub(super) fn reload_catalog(&self) {
        // Locked from the reading on: of two changes at once the later one must win.
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let Some(kinds) = catalog.by_role(Role::Definition) else {
            return;
        };
        let definitions: Vec<CustomResourceDefinition> = self
            .store
            .list(&kinds.prefix(""), None)
            .0
            .iter()
            .filter_map(|(key, stored)| {
                serde_json::from_slice(&stored.json())
                    .map_err(|error| tracing::warn!(%key, %error, "Could not read a definition"))
                    .ok()
            })
            .filter(|definition| check_definition(definition).is_ok())
            .collect();
        *catalog = Arc::new(Catalog::new(
            definitions.iter(),
            catalog.shared_components(),
        ));
    }

    /// Brings a definition of this program up to date. One that somebody changed so that this cannot be
    /// done is served as it is: only a server that runs lets them mend it.
    async fn put_definition(
        &self,
        catalog: &Catalog,
        kinds: &Resource,
        mut object: Value,
    ) -> Result<(), Error> {
        let stored = self.store.get(&kinds.key("", &name_of(&object)));
        if let Some(stored) = &stored {
            keep_stored_versions(&stored.tree(), &mut object);
        }
        match self.put(catalog, kinds, object).await {
            Err(Error::Definition { name, reason }) if stored.is_some() => {
                tracing::warn!(%name, %reason, "A definition is not the one of this program, and cannot be made so; delete it and start again");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Creates an object, or gives the one that is there this spec.
    async fn put(
        &self,
        catalog: &Catalog,
        resource: &Resource,
        object: Value,
    ) -> Result<(), Error> {
        let name = name_of(&object);
        let case = Case {
            catalog,
            resource,
            namespace: "",
            strictness: Strictness::Ignore,
            now: (self.clock)(),
            duplicates: &[],
            origin: Origin::Sent("landbridge"),
            suffix: self.suffix,
        };
        let key = resource.key("", &name);
        let known = self.store.get(&key);
        let (expected, admitted) = match &known {
            None => (Expectation::Absent, case.admit_new(object)),
            Some(stored) => {
                let old = stored.tree();
                let mut wanted = Value::clone(&old);
                wanted.set(&["spec"], object.field("spec").clone());
                let change = case.admit_change(&old, wanted, super::admission::Part::Main);
                (Expectation::Revision(stored.revision), change)
            }
        };
        let admitted = admitted.map_err(|refusal| Error::Definition {
            name: name.clone(),
            reason: refusal.status().text("message").to_owned(),
        })?;
        if known.is_some_and(|stored| *stored.tree() == admitted.object) {
            return Ok(());
        }
        let write = Write {
            key,
            expected,
            object: admitted.object,
            deletes: false,
        };
        match self.store.write(write).await {
            Ok(_) => Ok(()),
            Err(Rejected::NotStored(why)) => Err(Error::Prepare(why)),
            Err(Rejected::Stale) => Err(Error::Prepare(format!("{name} changed meanwhile"))),
        }
    }
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition.field("status").field("conditions").as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one.text("type") == "Established" && one.text("status") == "True")
}

/// Keeps the versions that there may be objects of and that a definition does not name, as after a
/// downgrade, without serving them.
fn keep_stored_versions(stored: &Value, definition: &mut Value) {
    let listed = stored.field("status").field("storedVersions").as_array();
    let listed = listed.map_or(&[][..], Vec::as_slice);
    let known = stored.field("spec").field("versions").as_array();
    let versions = definition.pointer_mut("/spec/versions");
    let Some(versions) = versions.and_then(Value::as_array_mut) else {
        return;
    };
    for version in known.into_iter().flatten() {
        let name = version.field("name");
        if listed.contains(name) && !versions.iter().any(|one| one.field("name") == name) {
            let mut kept = version.clone();
            kept.set(&["served"], json!(false));
            kept.set(&["storage"], json!(false));
            versions.push(kept);
        }
    }
}
