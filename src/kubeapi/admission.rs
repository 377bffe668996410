//! What is done to an object between the client and the store: identity, defaults, rules, checks.

mod identity;

use super::{
    access::{gathering_role, misshapen, moved_role},
    bounds::COMPLAINTS,
    cascade::is_ending,
    catalog::{Catalog, Resource, Role},
    definition,
    dress::dress,
    managed::{self, Manager, Operation, Setting},
    naming,
    normalise::normalise,
    present::as_stored,
    refusal::{FieldError, Refusal},
    validate::validate,
};
use crate::kubeapi::tree::Tree;
use serde_json::{Map, Value, json};

/// Which part of an object a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
    /// The finalizers of a namespace.
    Finalize,
}

impl Part {
    /// The subresource that this part is.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Finalize => "finalize",
        }
    }
}

/// What to do about fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    Strict,
    Warn,
    Ignore,
}

impl Strictness {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "Strict" => Self::Strict,
            "Ignore" => Self::Ignore,
            _ => Self::Warn,
        }
    }
}

/// An object that may be stored, and what the client should be warned of.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
}

/// Everything about a write that is not the object itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) resource: &'a Resource,
    pub(super) namespace: &'a str,
    pub(super) strictness: Strictness,
    pub(super) now: jiff::Timestamp,
    /// Keys that stood twice in the body.
    pub(super) duplicates: &'a [String],
    pub(super) origin: Origin<'a>,
    pub(super) suffix: naming::Suffix,
}

/// Where the fields of a write come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// This manager sent the object.
    Sent(&'a str),
    /// Server-side apply made it, and it says itself who owns what.
    Applied,
}

impl Case<'_> {
    /// Makes a sent object into one that can be created.
    pub(super) fn admit_new(&self, mut object: Value) -> Result<Admitted, Refusal> {
        self.check_kind(&object)?;
        self.settle_namespace(&mut object)?;
        let metadata = metadata_of(&mut object)?;
        if metadata
            .get("resourceVersion")
            .and_then(Value::as_str)
            .is_some_and(|revision| !revision.is_empty())
        {
            return Err(Refusal::internal(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "resourceVersion",
        ] {
            metadata.remove(field);
        }
        naming::settle_name(metadata, self.suffix);
        if !self.resource.rules.status_at_creation {
            remove(&mut object, "status");
        }
        dress(self.resource, &mut object, None, self.now);
        let mut warnings = self.normalise(None, &mut object)?;
        self.check(None, &object, Vec::new(), Part::Main)?;
        self.track(None, &mut object, Part::Main);
        warnings.extend(naming::finalizer_warnings(&object, None));
        let metadata = metadata_of(&mut object)?;
        metadata.insert("uid".to_owned(), json!(naming::uid()));
        metadata.insert("creationTimestamp".to_owned(), naming::time(self.now));
        if self.resource.rules.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
        managed::fit(&mut object)?;
        Ok(Admitted {
            object: as_stored(self.resource, object),
            warnings,
        })
    }

    /// Makes a proposed state into one that can replace `old` (both as they are shown).
    pub(super) fn admit_change(
        &self,
        old: &Value,
        mut object: Value,
        part: Part,
    ) -> Result<Admitted, Refusal> {
        self.check_kind(&object)?;
        self.settle_namespace(&mut object)?;
        let mut mistakes = self.check_identity(old, &mut object)?;
        self.keep_other_parts(old, &mut object, part);
        dress(self.resource, &mut object, Some(old), self.now);
        let mut warnings = self.normalise(Some(old), &mut object)?;
        mistakes.extend(moved_role(self.resource, old, &object));
        mistakes.extend(self.check_sealed(old, &object));
        self.check(Some(old), &object, mistakes, part)?;
        self.check_finalizers(old, &object)?;
        warnings.extend(naming::finalizer_warnings(&object, Some(old)));
        self.count(old, &mut object);
        self.track(Some(old), &mut object, part);
        managed::keep_times(old, &mut object);
        managed::fit(&mut object)?;
        Ok(Admitted { object, warnings })
    }

    /// What a comparison of fields needs to know.
    pub(super) fn setting(&self, part: Part) -> Setting<'_> {
        Setting {
            resource: self.resource,
            schema: self.catalog.schema(self.resource),
            part,
            now: self.now,
        }
    }

    fn track(&self, old: Option<&Value>, object: &mut Value, part: Part) {
        if let Origin::Sent(manager) = self.origin {
            let manager = Manager::new(manager, Operation::Update, self.resource, part);
            managed::track(self.setting(part), &manager, old, object);
        }
    }

    /// Brings an object into the form of its schema, and tells what the schema does not know; but not what it
    /// does not know of the old state either, which it once knew.
    fn normalise(&self, old: Option<&Value>, object: &mut Value) -> Result<Vec<String>, Refusal> {
        let schema = self.catalog.schema(self.resource);
        let unknown = normalise(schema, object);
        let old = old.filter(|_| !unknown.is_empty()).cloned();
        let dropped = old.map(|mut old| normalise(schema, &mut old));
        let dropped = dropped.unwrap_or_default();
        let unknown = unknown
            .iter()
            .filter(|field| !dropped.contains(field))
            .map(|field| format!("unknown field \"{field}\""));
        let duplicates = self
            .duplicates
            .iter()
            .map(|field| format!("duplicate field \"{field}\""));
        let complaints: Vec<String> = unknown.chain(duplicates).take(COMPLAINTS).collect();
        match self.strictness {
            Strictness::Ignore => Ok(Vec::new()),
            Strictness::Strict if !complaints.is_empty() => Err(Refusal::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {}",
                self.resource.version,
                complaints.join(", "),
                kind = self.resource.kind,
            ))),
            Strictness::Strict | Strictness::Warn => Ok(complaints),
        }
    }

    fn check(
        &self,
        old: Option<&Value>,
        object: &Value,
        mut errors: Vec<FieldError>,
        part: Part,
    ) -> Result<(), Refusal> {
        errors.extend(naming::check_metadata(
            object.field("metadata"),
            old.map(|old| old.field("metadata")),
            self.resource,
        ));
        errors.extend(gathering_role(self.resource, old, object));
        errors.extend(misshapen(self.resource, old, object));
        let name = &name_of(old.unwrap_or(object));
        errors.extend(validate(self.catalog.schema(self.resource), object, old));
        if errors.is_empty()
            && let Some(rules) = &self.resource.cel
        {
            errors.extend(rules.check(object, old));
        }
        if errors.is_empty() && self.resource.role == Role::Definition {
            errors.extend(definition::check(self.catalog, old, object));
        }
        if part == Part::Status {
            for error in &mut errors {
                // Of a write to /status the real server names the fields from there.
                error.message = error.message.replacen(": status.", ": ", 1);
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Refusal::invalid(self.resource.kind_subject(name), &errors))
        }
    }

    fn check_finalizers(&self, old: &Value, object: &Value) -> Result<(), Refusal> {
        if !is_ending(old) {
            return Ok(());
        }
        let new: Vec<String> = naming::new_finalizers(object, Some(old))
            .take(COMPLAINTS)
            .map(|finalizer| format!("{finalizer:?}"))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            new.join(", ")
        );
        let error = FieldError::forbidden("metadata.finalizers", why);
        let name = name_of(old);
        Err(Refusal::invalid(
            self.resource.kind_subject(&name),
            &[error.clone(), error],
        ))
    }

    /// Counts a change of what the object wants.
    fn count(&self, old: &Value, object: &mut Value) {
        if !self.resource.rules.generation {
            return;
        }
        let counts = |name: &str| match name {
            "metadata" => false,
            "status" => !self.resource.rules.status,
            _ => true,
        };
        if !same_fields(old, object, counts) {
            let generation = old
                .field("metadata")
                .field("generation")
                .as_i64()
                .unwrap_or(0);
            object.set(&["metadata", "generation"], json!(generation + 1));
        }
    }
}

/// Whether two objects have the same in every field that counts.
pub(super) fn same_fields(one: &Value, other: &Value, counts: impl Fn(&str) -> bool) -> bool {
    let covers = |one: &Value, other: &Value| {
        let fields = one.as_object().into_iter().flatten();
        fields
            .filter(|(name, _)| counts(name))
            .all(|(name, value)| other.get(name) == Some(value))
    };
    covers(one, other) && covers(other, one)
}

/// The name of an object.
pub(super) fn name_of(object: &Value) -> String {
    object.field("metadata").text("name").to_owned()
}

fn metadata_of(object: &mut Value) -> Result<&mut Map<String, Value>, Refusal> {
    let malformed = || Refusal::bad_request("the object must have metadata that is an object");
    let fields = object.as_object_mut().ok_or_else(malformed)?;
    fields
        .entry("metadata")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(malformed)
}

fn copy(from: &Value, to: &mut Map<String, Value>, field: &str) {
    match from.get(field) {
        // Most writes change nothing here.
        value if value == to.get(field) => None,
        Some(value) => to.insert(field.to_owned(), value.clone()),
        None => to.remove(field),
    };
}

fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}
