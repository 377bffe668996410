//! delete: preconditions, finalizers, and what goes with an object that is gone.

use super::{
    Server,
    admission::name_of,
    cascade::is_ending,
    catalog::{Resource, Role},
    chores::{Chore, Chores},
    dependents::{FOREGROUND, ORPHAN},
    naming,
    options::{self, unsupported},
    present::{Presenter, as_shown, respond_json},
    protobuf,
    refusal::{FieldError, Refusal},
    retire::CLEANUP,
    routes::{Parameters, Target},
    start::NAMESPACES,
    store::{Expectation, Rejected, Stored, Write},
    write::{ATTEMPTS, is_finished},
};
use crate::kubeapi::tree::Tree;
use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// What becomes of the dependents of an object that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// What a delete asks for, from its body and its query.
#[derive(Debug, Clone, Default)]
pub(super) struct DeleteOptions {
    uid: Option<String>,
    revision: Option<String>,
    /// What an earlier deletion asked for, or that they go after it, when nothing is said.
    policy: Option<Policy>,
    dry_run: bool,
}

impl DeleteOptions {
    /// Options that say nothing but this.
    pub(super) fn with(policy: Policy) -> Self {
        Self {
            policy: Some(policy),
            ..Self::default()
        }
    }

    /// Reads the options; a body that is missing or empty has none.
    pub(super) fn parse(bytes: &[u8], parameters: &Parameters) -> Result<Self, Refusal> {
        let said = if bytes.is_empty() {
            Value::Null
        } else if let Ok(decoded) = protobuf::decode(bytes, protobuf::DELETE_OPTIONS) {
            decoded
        } else {
            super::body::yaml(bytes).map_err(Refusal::bad_request)?
        };
        if !matches!(said, Value::Null | Value::Object(_))
            || !matches!(said.text("kind"), "" | "DeleteOptions")
        {
            let why = "the object provided is unrecognized (must be of type DeleteOptions)";
            return Err(Refusal::bad_request(why));
        }
        let text = |pointer: &str| {
            let value = said.pointer(pointer).and_then(Value::as_str);
            value.map(str::to_owned)
        };
        let orphans = said.field("orphanDependents");
        let asked = RawOptions {
            policy: text("/propagationPolicy")
                .unwrap_or_else(|| parameters.get("propagationPolicy").to_owned()),
            orphans: if orphans.is_null() {
                let there = parameters.has("orphanDependents");
                there.then(|| parameters.flag("orphanDependents"))
            } else {
                Some(orphans == true)
            },
            dry_run: match said.field("dryRun").as_array() {
                Some(dry_run) => dry_run.clone(),
                None if parameters.get("dryRun").is_empty() => Vec::new(),
                None => vec![json!(parameters.get("dryRun"))],
            },
        };
        options::check("DeleteOptions", &asked.mistakes())?;
        Ok(Self {
            uid: text("/preconditions/uid"),
            revision: text("/preconditions/resourceVersion"),
            policy: match (asked.policy.as_str(), asked.orphans) {
                ("Foreground", _) => Some(Policy::Foreground),
                ("Orphan", _) | (_, Some(true)) => Some(Policy::Orphan),
                ("Background", _) | (_, Some(false)) => Some(Policy::Background),
                _ => None,
            },
            dry_run: !asked.dry_run.is_empty(),
        })
    }

    fn check(&self, resource: &Resource, object: &Value) -> Result<(), Refusal> {
        let name = name_of(object);
        let pairs = [
            ("UID", "uid", &self.uid, "deleted and then recreated"),
            (
                "ResourceVersion",
                "resourceVersion",
                &self.revision,
                "modified",
            ),
        ];
        for (word, field, wanted, fate) in pairs {
            let found = object.field("metadata").text(field);
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != found) {
                let why = format!(
                    "the {word} in the precondition ({wanted}) does not match the {word} in record ({found}). The object might have been {fate}"
                );
                return Err(Refusal::conflict(resource.kind_subject(&name), &why));
            }
        }
        Ok(())
    }
}

/// What a delete says about dependents and about being a rehearsal, before it is looked at.
struct RawOptions {
    policy: String,
    orphans: Option<bool>,
    dry_run: Vec<Value>,
}

impl RawOptions {
    fn mistakes(&self) -> Vec<FieldError> {
        let field = "propagationPolicy";
        let asked = json!(self.policy);
        let known = ["Foreground", "Background", "Orphan"];
        let mut errors = Vec::new();
        if !self.policy.is_empty() {
            if !known.contains(&self.policy.as_str()) {
                let supported = [known.as_slice(), &["nil"]].concat();
                errors.push(unsupported(field, &asked, &supported));
            }
            if self.orphans.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid(field, &asked, why));
            }
        }
        if self.dry_run.iter().any(|asked| *asked != "All") {
            let asked = json!(self.dry_run);
            errors.push(unsupported("dryRun", &asked, &["All"]));
        }
        errors
    }
}

/// What became of an object that shall be deleted.
#[derive(Debug)]
pub(super) enum Deleted {
    /// It is gone; its last state.
    Gone(Value),
    /// Finalizers hold it; its state now.
    Waiting(Value),
}

/// Whether an object, as it is now, shall still be deleted.
pub(super) type Still<'a> = &'a (dyn Fn(&Value) -> bool + Sync);

impl Server {
    /// Answers a DELETE of one object.
    pub(super) async fn delete(
        &self,
        target: &Target,
        name: &str,
        options: &DeleteOptions,
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let resource = &target.resource;
        let (deleted, follow) = self
            .begin_deletion(resource, &target.namespace, name, options, &|_| true)
            .await?;
        self.carry_out(follow.into_iter().collect()).await;
        match deleted {
            Deleted::Waiting(object) => {
                Ok(presenter.object(StatusCode::OK, as_shown(resource, object)))
            }
            Deleted::Gone(object) => {
                let mut details = json!({
                    "name": name,
                    "kind": resource.plural,
                    "uid": object.field("metadata").field("uid"),
                });
                if !resource.group.is_empty() {
                    details.set(&["group"], json!(resource.group));
                }
                let status = json!({
                    "kind": "Status",
                    "apiVersion": "v1",
                    "metadata": {},
                    "status": "Success",
                    "details": details,
                });
                Ok(respond_json(StatusCode::OK, &status))
            }
        }
    }

    /// Answers a DELETE of a collection with what was deleted.
    pub(super) async fn delete_collection(
        &self,
        target: &Target,
        parameters: &Parameters,
        options: &DeleteOptions,
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let selected: Vec<Arc<Stored>> = self.collection(target, parameters)?;
        let objects = selected
            .iter()
            .map(|stored| (Arc::clone(&target.resource), stored.value()));
        let mut chores = Chores::default();
        let deleted = self
            .delete_all(objects.collect(), options, &|_| true, &mut chores)
            .await;
        self.carry_out(chores).await;
        deleted?;
        let end = super::present::ListEnd {
            revision: self.store.revision(),
            ..Default::default()
        };
        Ok(presenter.list(&selected, &end))
    }

    /// Deletes an object, or marks it as one to be deleted when it has finalizers; and what follows.
    /// One that shall not go any more counts as gone.
    pub(super) async fn begin_deletion(
        &self,
        resource: &Arc<Resource>,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        still: Still<'_>,
    ) -> Result<(Deleted, Vec<Chore>), Refusal> {
        if resource.role == Role::Namespace && NAMESPACES.contains(&name) {
            let why = "this namespace may not be deleted";
            return Err(Refusal::forbidden(resource.subject(name), why));
        }
        let key = resource.key(namespace, name);
        let gone = || Refusal::not_found(resource.subject(name));
        for _ in 0..ATTEMPTS {
            let stored = self.store.get(&key).ok_or_else(gone)?;
            let old = stored.value();
            if !still(&old) {
                return Err(gone());
            }
            options.check(resource, &old)?;
            let object = self.marked(resource, &old, options.policy);
            let deletes = is_finished(resource, &object);
            if options.dry_run {
                let deleted = if deletes {
                    Deleted::Gone(old)
                } else {
                    Deleted::Waiting(object)
                };
                return Ok((deleted, Vec::new()));
            }
            let mut follow = Vec::new();
            if resource.role == Role::Namespace {
                follow.push(Chore::Empty(name.to_owned()));
            }
            if resource.role == Role::Definition && !deletes {
                follow.push(Chore::Retire(name.to_owned()));
            }
            if object == old && !deletes {
                // Whatever kept the first wish from its end may be over.
                follow.insert(0, Chore::Settle(Arc::clone(resource), object));
                return Ok((Deleted::Waiting(old), follow));
            }
            let write = Write {
                key: key.clone(),
                expected: Expectation::Revision(stored.revision),
                object: if deletes { old } else { object },
                deletes,
            };
            match self.commit(resource, write).await {
                Ok(stored) if deletes => {
                    let object = stored.value();
                    follow.push(Chore::Released(key, object.clone()));
                    return Ok((Deleted::Gone(object), follow));
                }
                Ok(stored) => {
                    let object = stored.value();
                    follow.insert(0, Chore::Settle(Arc::clone(resource), object.clone()));
                    return Ok((Deleted::Waiting(object), follow));
                }
                Err(Rejected::Stale) => {}
                Err(Rejected::NotStored(why)) => return Err(Refusal::not_stored(&why)),
            }
        }
        Err(Refusal::modified(resource.subject(name)))
    }

    /// The state of an object that shall go: with the time of the wish.
    fn marked(&self, resource: &Resource, old: &Value, policy: Option<Policy>) -> Value {
        let mut object = old.clone();
        if let Some(policy) = policy {
            let wanted = match policy {
                Policy::Background => "",
                Policy::Foreground => FOREGROUND,
                Policy::Orphan => ORPHAN,
            };
            keep_finalizers(&mut object, |known| {
                known == wanted || known != FOREGROUND && known != ORPHAN
            });
            if !wanted.is_empty() {
                add_finalizer(&mut object, wanted);
            }
            super::dress::tidy(&mut object);
        }
        if is_ending(old) {
            return object;
        }
        object.set(
            &["metadata", "deletionTimestamp"],
            naming::time((self.clock)()),
        );
        object.set(&["metadata", "deletionGracePeriodSeconds"], json!(0));
        if resource.rules.generation {
            let generation = old
                .field("metadata")
                .field("generation")
                .as_i64()
                .unwrap_or(0);
            object.set(&["metadata", "generation"], json!(generation + 1));
        }
        if resource.role == Role::Namespace {
            object.set(&["status", "phase"], json!("Terminating"));
        }
        if resource.role == Role::Definition && self.is_in_use(old) {
            add_finalizer(&mut object, CLEANUP);
        }
        object
    }
}

/// Takes the other finalizers off an object.
pub(super) fn keep_finalizers(object: &mut Value, keeps: impl Fn(&Value) -> bool) {
    let list = object
        .pointer_mut("/metadata/finalizers")
        .and_then(Value::as_array_mut);
    if let Some(list) = list {
        list.retain(keeps);
    }
}

fn add_finalizer(object: &mut Value, finalizer: &str) {
    let mut list = object.field("metadata").field("finalizers").clone();
    if !list.is_array() {
        list = json!([]);
    }
    if let Some(known) = list.as_array_mut()
        && !known.iter().any(|known| known == finalizer)
    {
        known.push(json!(finalizer));
    }
    object.set(&["metadata", "finalizers"], list);
}
