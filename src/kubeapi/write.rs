//! create, update and patch.

use super::{
    Server,
    access::Deed,
    admission::{Admitted, Case, Origin, Part, name_of},
    apply::Application,
    body::{self, Parsed},
    cascade::is_ending,
    catalog::{Resource, Role},
    chores::{Chore, Chores},
    intent::Intent,
    naming,
    patch::Patch,
    present::{Presenter, as_shown, as_stored, shown},
    refusal::Refusal,
    routes::Target,
    store::{Expectation, Rejected, Stored, Write},
};
use crate::kubeapi::tree::Tree;
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::Value;
use std::{mem::take, sync::Arc};

/// How often a write is tried again when others write the same object meanwhile.
pub(super) const ATTEMPTS: usize = 16;

/// How many names are tried for an object that is to be given one, as with a real server.
const NAMES: usize = 8;

/// How long the warnings of an answer are together at most, as those of a real server.
const WARNING_BYTES: usize = 4 * 1_024;

/// Computes the wanted state of an object from the one that is there.
type Edit<'a> = &'a (dyn Fn(&Case<'_>, &Value) -> Result<Value, Refusal> + Sync);

/// An object after a write.
enum Written {
    /// As it was stored, now or before.
    Stored(Arc<Stored>),
    /// As it is shown, after a dry run.
    Unstored(Value),
}

impl Written {
    fn show(self, status: StatusCode, presenter: Presenter<'_>) -> Response<Body> {
        match self {
            Self::Stored(stored) => presenter.stored(status, &stored),
            Self::Unstored(object) => presenter.object(status, object),
        }
    }
}

impl Server {
    /// Answers a POST.
    pub(super) async fn create(
        &self,
        target: &Target,
        intent: &Intent,
        content_type: &str,
        bytes: &[u8],
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let resource = &target.resource;
        let Parsed {
            mut object,
            duplicates,
        } = body::parse_for(resource, content_type, bytes)?;
        if resource.namespaced && target.namespace.is_empty() {
            return Err(Refusal::bad_request(
                "an empty namespace may not be set during creation",
            ));
        }
        let catalog = self.catalog();
        let case = self.case(&catalog, target, intent, &duplicates);
        let nameless = naming::is_nameless(object.field("metadata"));
        let mut tries = if nameless { NAMES } else { 1 };
        let (written, warnings) = loop {
            tries -= 1;
            let object = if tries > 0 {
                object.clone()
            } else {
                take(&mut object)
            };
            match self.create_one(&case, target, intent, object).await {
                Err(refusal) if tries > 0 && refusal.is_already_exists() => {}
                made => break made?,
            }
        };
        let answer = written.show(StatusCode::CREATED, presenter);
        Ok(warn(answer, &warnings))
    }

    /// Creates an object, which must have the name that the path names if it names one.
    async fn create_one(
        &self,
        case: &Case<'_>,
        target: &Target,
        intent: &Intent,
        object: Value,
    ) -> Result<(Written, Vec<String>), Refusal> {
        let resource = &target.resource;
        let admitted = case.admit_new(object)?;
        let name = name_of(&admitted.object);
        if let Some(wanted) = target.name.as_deref().filter(|wanted| *wanted != name) {
            return Err(Refusal::misnamed(&name, wanted));
        }
        self.check_namespace(target, &name)?;
        let Admitted { object, warnings } = admitted;
        let written = self.insert(resource, target, intent, object).await?;
        Ok((written, warnings))
    }

    async fn insert(
        &self,
        resource: &Arc<Resource>,
        target: &Target,
        intent: &Intent,
        object: Value,
    ) -> Result<Written, Refusal> {
        let name = name_of(&object);
        self.check_kind_stays(resource)?;
        self.check_grant(&intent.user, resource, &target.namespace, &object)?;
        let exists = || Refusal::already_exists(resource.subject(&name));
        let key = resource.key(&target.namespace, &name);
        if intent.dry_run {
            return match self.store.get(&key) {
                Some(_) => Err(exists()),
                None => Ok(Written::Unstored(as_shown(resource, object))),
            };
        }
        let owned = !owners_of(&object).is_null();
        let write = Write {
            key: key.clone(),
            expected: Expectation::Absent,
            object,
            deletes: false,
        };
        let stored = match self.commit(resource, write).await {
            Ok(stored) => stored,
            Err(Rejected::Stale) => return Err(exists()),
            Err(Rejected::NotStored(why)) => return Err(Refusal::not_stored(&why)),
        };
        self.expire(resource).await;
        // Namespace, kind and owners may have begun to end while this was written: then this ends too.
        let mut chores = Chores::default();
        if self.is_of_no_kind(&key) {
            self.collect_kind(&resource.storage, &mut chores).await?;
            self.carry_out(chores).await;
            return Err(Refusal::unknown_path());
        }
        if self.check_namespace(target, &name).is_err() {
            chores.push(Chore::Empty(target.namespace.clone()));
        }
        if self.check_kind_stays(resource).is_err() {
            chores.push(Chore::Retire(resource.definition()));
        }
        if owned {
            chores.push(Chore::Adopted(Arc::clone(resource), stored.value()));
        }
        self.carry_out(chores).await;
        Ok(Written::Stored(stored))
    }

    /// Answers a PUT.
    pub(super) async fn update(
        &self,
        target: &Target,
        part: Part,
        intent: &Intent,
        content_type: &str,
        bytes: &[u8],
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let resource = &target.resource;
        let Parsed { object, duplicates } = body::parse_for(resource, content_type, bytes)?;
        let change = move |_: &Case<'_>, _: &Value| Ok(object.clone());
        let (written, warnings) = self
            .change(target, part, intent, &duplicates, &change)
            .await?;
        Ok(warn(written.show(StatusCode::OK, presenter), &warnings))
    }

    /// Answers a PATCH.
    pub(super) async fn patch(
        &self,
        target: &Target,
        part: Part,
        intent: &Intent,
        content_type: &str,
        bytes: &[u8],
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        if intent.applies {
            return self.apply(target, part, intent, bytes, presenter).await;
        }
        let (patch, duplicates) = Patch::parse(content_type, bytes, &target.resource)?;
        let change = move |_: &Case<'_>, old: &Value| patch.apply(old);
        let (written, warnings) = self
            .change(target, part, intent, &duplicates, &change)
            .await?;
        Ok(warn(written.show(StatusCode::OK, presenter), &warnings))
    }

    /// Answers a server-side apply, which creates what is not there.
    async fn apply(
        &self,
        target: &Target,
        part: Part,
        intent: &Intent,
        bytes: &[u8],
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let resource = &target.resource;
        let name = target.name.as_deref().unwrap_or_default();
        let catalog = self.catalog();
        let case = self.case(&catalog, target, intent, &[]);
        let setting = case.setting(part);
        let applied = Application::parse(setting, bytes, name, &intent.manager, intent.force)?;
        let duplicates = applied.duplicates(intent.strictness)?;
        let case = Case { duplicates, ..case };
        let key = resource.key(&target.namespace, name);
        let change = |case: &Case<'_>, old: &Value| applied.apply(case.setting(part), old);
        for _ in 0..ATTEMPTS {
            if part == Part::Main && self.store.get(&key).is_none() {
                let new = applied.new_object(setting, name)?;
                match self.apply_new(&case, target, intent, new).await {
                    // Somebody was faster; then this is a change of what they made.
                    Err(refusal) if refusal.is_already_exists() => continue,
                    made => {
                        let (written, warnings) = made?;
                        let answer = written.show(StatusCode::CREATED, presenter);
                        return Ok(warn(answer, &warnings));
                    }
                }
            }
            let changed = self.change(target, part, intent, duplicates, &change);
            match changed.await {
                Err(refusal) if refusal.is_not_found() && part == Part::Main => {}
                changed => {
                    let (written, warnings) = changed?;
                    return Ok(warn(written.show(StatusCode::OK, presenter), &warnings));
                }
            }
        }
        Err(Refusal::modified(resource.subject(name)))
    }

    /// Creates what an apply does not find.
    async fn apply_new(
        &self,
        case: &Case<'_>,
        target: &Target,
        intent: &Intent,
        object: Value,
    ) -> Result<(Written, Vec<String>), Refusal> {
        let resource = &target.resource;
        let name = target.name.as_deref().unwrap_or_default();
        let deed = Deed::Objects {
            verb: "create",
            group: &resource.group,
            resource: &resource.plural,
            namespace: &target.namespace,
            name,
        };
        self.authorize(&intent.user, deed)?;
        self.create_one(case, target, intent, object).await
    }

    /// Changes an object, again if another write came between; returns warnings, too.
    async fn change(
        &self,
        target: &Target,
        part: Part,
        intent: &Intent,
        duplicates: &[String],
        change: Edit<'_>,
    ) -> Result<(Written, Vec<String>), Refusal> {
        let resource = &target.resource;
        let name = target.name.as_deref().unwrap_or_default();
        let key = resource.key(&target.namespace, name);
        let catalog = self.catalog();
        for _ in 0..ATTEMPTS {
            let stored = self
                .store
                .get(&key)
                .ok_or_else(|| Refusal::not_found(resource.subject(name)))?;
            let old = shown(resource, stored.tree());
            let case = self.case(&catalog, target, intent, duplicates);
            let admitted = case.admit_change(&old, change(&case, &old)?, part)?;
            self.check_grant(&intent.user, resource, &target.namespace, &admitted.object)?;
            if admitted.object == *old {
                return Ok((Written::Stored(stored), admitted.warnings));
            }
            if intent.dry_run {
                return Ok((Written::Unstored(admitted.object), admitted.warnings));
            }
            let deletes = is_finished(resource, &admitted.object);
            let moves = owners_of(&admitted.object) != owners_of(&old);
            let write = Write {
                key: key.clone(),
                expected: Expectation::Revision(stored.revision),
                object: as_stored(resource, admitted.object),
                deletes,
            };
            match self.commit(resource, write).await {
                Ok(stored) => {
                    let mut chores = Chores::default();
                    if deletes {
                        chores.push(Chore::Released(key, stored.value()));
                    } else if moves {
                        chores.push(Chore::Adopted(Arc::clone(resource), stored.value()));
                    }
                    if moves {
                        chores.push(Chore::Disowned(Arc::unwrap_or_clone(old)));
                    }
                    self.carry_out(chores).await;
                    return Ok((Written::Stored(stored), admitted.warnings));
                }
                Err(Rejected::Stale) => {}
                Err(Rejected::NotStored(why)) => return Err(Refusal::not_stored(&why)),
            }
        }
        Err(Refusal::modified(resource.subject(name)))
    }

    fn case<'a>(
        &self,
        catalog: &'a super::catalog::Catalog,
        target: &'a Target,
        intent: &'a Intent,
        duplicates: &'a [String],
    ) -> Case<'a> {
        Case {
            catalog,
            resource: &target.resource,
            namespace: &target.namespace,
            strictness: intent.strictness,
            now: (self.clock)(),
            duplicates,
            suffix: self.suffix,
            origin: if intent.applies {
                Origin::Applied
            } else {
                Origin::Sent(&intent.manager)
            },
        }
    }

    /// Refuses to create in a namespace that is not there or on its way out.
    fn check_namespace(&self, target: &Target, object: &str) -> Result<(), Refusal> {
        if !target.resource.namespaced {
            return Ok(());
        }
        let catalog = self.catalog();
        let Some(namespaces) = catalog.by_role(Role::Namespace) else {
            return Ok(());
        };
        let name = target.namespace.as_str();
        let namespace = self
            .store
            .get(&namespaces.key("", name))
            .ok_or_else(|| Refusal::not_found(namespaces.subject(name)))?;
        if namespace.is_ending() {
            let subject = target.resource.subject(object);
            return Err(Refusal::terminating(subject, name));
        }
        Ok(())
    }

    /// Carries out a wish. Whoever hears of a definition and asks for its kind waits until it is served.
    pub(super) async fn commit(
        &self,
        resource: &Resource,
        write: Write,
    ) -> Result<Arc<Stored>, Rejected> {
        if resource.role != Role::Definition {
            return self.store.write(write).await;
        }
        let _defining = self.defining.write().await;
        let outcome = self.store.write(write).await;
        if outcome.is_ok() {
            self.reload_catalog();
        }
        outcome
    }
}

/// Whether nothing holds back the deletion of an object any more.
pub(super) fn is_finished(resource: &Resource, object: &Value) -> bool {
    let metadata = object.field("metadata");
    let mut holds = vec![metadata.field("finalizers")];
    if resource.role == Role::Namespace {
        holds.push(object.field("spec").field("finalizers"));
    }
    let held = holds
        .into_iter()
        .filter_map(Value::as_array)
        .any(|finalizers| !finalizers.is_empty());
    is_ending(object) && !held
}

fn owners_of(object: &Value) -> &Value {
    object.field("metadata").field("ownerReferences")
}

fn warn(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    let mut room = WARNING_BYTES;
    for warning in warnings {
        let Some(left) = room.checked_sub(warning.len()) else {
            break;
        };
        room = left;
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}
