//! Server-side apply: an object that says what its applier wants to own, merged into the live one.

use super::{
    admission::Strictness,
    body::{self, Parsed},
    bounds::{COMPLAINTS, quote},
    fields::FieldSet,
    managed::{Manager, Managers, Operation, Setting, take, write},
    refusal::Refusal,
    tree::Tree,
    typed::{Comparison, complaints, fields_of, merge, with_parents, without},
};
use serde_json::{Value, json};

/// The content type of an applied object; JSON is YAML too.
pub(super) const MEDIA_TYPE: &str = "application/apply-patch+yaml";

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An applied object.
#[derive(Debug, Clone)]
pub(super) struct Application {
    object: Value,
    manager: Manager,
    force: bool,
    /// Keys that stood twice in it.
    duplicates: Vec<String>,
}

impl Application {
    /// Reads an applied object for the object of this name.
    pub(super) fn parse(
        setting: Setting<'_>,
        bytes: &[u8],
        name: &str,
        manager: &str,
        force: bool,
    ) -> Result<Self, Refusal> {
        let Parsed {
            mut object,
            duplicates,
        } = match body::json(bytes) {
            Ok(parsed) => parsed,
            Err(_) => Parsed {
                object: body::yaml(bytes).map_err(|error| {
                    Refusal::bad_request(format!("error decoding YAML: {error}"))
                })?,
                duplicates: Vec::new(),
            },
        };
        let resource = setting.resource;
        let (version, kind) = (object.text("apiVersion"), object.text("kind"));
        if version.is_empty() || kind.is_empty() {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            return Err(Refusal::bad_request(format!(
                "invalid object type: {group}/{version}, Kind={kind}"
            )));
        }
        let managers = object.field("metadata").field("managedFields");
        if managers.as_array().is_some_and(|list| !list.is_empty()) {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        take(&mut object);
        let found = complaints(setting.schema, &object);
        if version_and_kind(&object) == (&resource.api_version(), &resource.kind)
            && !found.is_empty()
        {
            let all = match found.as_slice() {
                [one] => one.clone(),
                several => format!("errors:\n  {}", several.join("\n  ")),
            };
            return Err(Refusal::internal(format!(
                "failed to create typed patch object ({}/{name}; {}, Kind={}): {all}",
                object.field("metadata").text("namespace"),
                resource.api_version(),
                resource.kind
            )));
        }
        Ok(Self {
            object,
            manager: Manager::new(manager, Operation::Apply, resource, setting.part),
            force,
            duplicates,
        })
    }

    /// The keys that stood twice in the applied object, of which nobody who is strict wants the last to
    /// count.
    pub(super) fn duplicates(&self, strictness: Strictness) -> Result<&[String], Refusal> {
        if strictness != Strictness::Strict || self.duplicates.is_empty() {
            return Ok(&self.duplicates);
        }
        let told = self.duplicates.iter();
        let told: Vec<String> = told
            .map(|key| format!("key {key:?} already set in map"))
            .collect();
        let why = format!("error strict decoding YAML: {}", told.join(", "));
        Err(Refusal::bad_request(why))
    }

    /// The object that is created when there is none.
    pub(super) fn new_object(&self, setting: Setting<'_>, name: &str) -> Result<Value, Refusal> {
        let (version, kind) = version_and_kind(&self.object);
        let empty = json!({"apiVersion": version, "kind": kind});
        let mut object = self.apply(setting, &empty)?;
        let uid = object.field("metadata").text("uid");
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(Refusal::conflict(setting.resource.subject(name), &why));
        }
        let sent = object.field("metadata").text("name");
        if !sent.is_empty() && sent != name {
            return Err(Refusal::misnamed(sent, name));
        }
        object.set(&["metadata", "name"], json!(name));
        Ok(object)
    }

    /// The live object after this, with its managers.
    pub(super) fn apply(&self, setting: Setting<'_>, old: &Value) -> Result<Value, Refusal> {
        let mut merged = old.clone();
        let mut managers = Managers::decode(take(&mut merged)).unwrap_or_default();
        if managers.0.is_empty() && !merged.field("metadata").text("uid").is_empty() {
            managers.begin(setting, &merged);
        }
        merge(setting.schema, &mut merged, &self.object);
        let wanted = fields_of(setting.schema, &self.object).filtered(|step| setting.writes(step));
        let last = managers.0.remove(&self.manager).map(|owned| owned.fields);
        let dropped = last.filter(|last| !last.is_part_of(&wanted));
        managers.give(setting, &self.manager, wanted);
        let mut object = match dropped {
            Some(last) => prune(setting, &merged, &managers, last),
            None => merged,
        };
        self.take_over(setting, old, &object, &mut managers)?;
        self.keep_last_applied(old, &mut object);
        write(&mut object, managers);
        Ok(object)
    }

    /// Takes the changed fields from their owners, or refuses.
    fn take_over(
        &self,
        setting: Setting<'_>,
        live: &Value,
        object: &Value,
        managers: &mut Managers,
    ) -> Result<(), Refusal> {
        let change = setting.compare(live, object);
        if !self.force {
            let conflicts = self.conflicts(setting, live, &change, managers);
            if !conflicts.is_empty() {
                return Err(conflict(&conflicts));
            }
        }
        managers.release(setting, Some(&self.manager), &change);
        Ok(())
    }

    /// The owners of changed fields, each with these.
    fn conflicts<'a>(
        &self,
        setting: Setting<'_>,
        live: &Value,
        change: &Comparison,
        managers: &'a Managers,
    ) -> Vec<(&'a Manager, FieldSet)> {
        let changed = change.added.clone().union(&change.modified);
        let forgiven = self.forgiven(setting, live);
        let owners = managers.0.iter();
        let others = owners.filter(|(manager, _)| **manager != self.manager);
        others
            .map(|(manager, owned)| {
                let lost = owned.fields.intersection(&changed);
                (manager, lost.difference(&forgiven))
            })
            .filter(|(_, lost)| !lost.is_empty())
            .collect()
    }

    /// The fields that the same kubectl wrote before it began to apply on the server.
    fn forgiven(&self, setting: Setting<'_>, live: &Value) -> FieldSet {
        let last = last_applied(live)
            .filter(|_| self.manager.name == "kubectl")
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        let Some(last) = last else {
            return FieldSet::default();
        };
        let mut merged = live.clone();
        merge(setting.schema, &mut merged, &last);
        let drifted = setting.compare(live, &merged);
        fields_of(setting.schema, &last)
            .difference(&drifted.modified)
            .difference(&drifted.added)
    }

    /// Keeps the annotation of client-side apply current, so that a user may go back to it.
    fn keep_last_applied(&self, live: &Value, object: &mut Value) {
        if self.manager.name != "kubectl"
            || !self.manager.subresource.is_empty()
            || last_applied(live).is_none()
        {
            return;
        }
        let mut applied = self.object.clone();
        if let Some(annotations) = applied
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(LAST_APPLIED);
        }
        object.set(
            &["metadata", "annotations", LAST_APPLIED],
            json!(format!("{applied}\n")),
        );
    }
}

fn last_applied(object: &Value) -> Option<&str> {
    object
        .field("metadata")
        .field("annotations")
        .field(LAST_APPLIED)
        .as_str()
        .filter(|text| !text.is_empty())
}

fn version_and_kind(object: &Value) -> (&str, &str) {
    (object.text("apiVersion"), object.text("kind"))
}

/// Removes what the applier owned, does not want any more, and nobody else owns.
fn prune(setting: Setting<'_>, merged: &Value, managers: &Managers, last: FieldSet) -> Value {
    let schema = setting.schema;
    let whole = |set: FieldSet| with_parents(schema, set);
    let last = whole(last);
    let pruned = without(schema, merged, &last);
    let everything = whole(fields_of(schema, merged));
    let owned = managers
        .0
        .values()
        .fold(FieldSet::default(), |all, owned| all.union(&owned.fields));
    let kept = whole(fields_of(schema, &pruned)).union(&whole(owned));
    let pruned = without(schema, merged, &everything.clone().difference(&kept));
    let kept = whole(fields_of(schema, &pruned));
    let gone = everything.difference(&kept).intersection(&last);
    without(schema, merged, &gone)
}

fn conflict(conflicts: &[(&Manager, FieldSet)]) -> Refusal {
    let mut causes = Vec::new();
    let mut texts = Vec::new();
    let mut single = String::new();
    for (manager, fields) in conflicts {
        let room = COMPLAINTS - causes.len();
        if room == 0 {
            break;
        }
        let who = owner(manager);
        texts.push(format!("conflicts with {who}:"));
        for path in fields.paths(room) {
            single = format!("conflict with {who}: {path}");
            texts.push(format!("- {path}"));
            causes.push(json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {who}"),
                "field": path,
            }));
        }
    }
    let count: usize = conflicts.iter().map(|(_, fields)| fields.count()).sum();
    if count > causes.len() {
        texts.push("- ...".to_owned());
    }
    let message = if count == 1 {
        format!("Apply failed with 1 conflict: {single}")
    } else {
        format!("Apply failed with {count} conflicts: {}", texts.join("\n"))
    };
    Refusal::conflicts(message, &causes)
}

/// A manager as those are told who come into conflict with it.
fn owner(manager: &Manager) -> String {
    let mut who = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        who = format!("{who} with subresource {:?}", manager.subresource);
    }
    if manager.operation == Operation::Update {
        who = format!("{who} using {}", manager.version);
    }
    quote(&who)
}
