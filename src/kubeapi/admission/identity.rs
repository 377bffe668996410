//! Whether a sent object is the one that the request is about, and what of it may be written.

use super::{Case, Origin, Part, copy, metadata_of, name_of};
use crate::kubeapi::{
    catalog::Role,
    refusal::{FieldError, Refusal},
    tree::Tree,
};
use serde_json::{Value, json};

impl Case<'_> {
    pub(super) fn check_kind(&self, object: &Value) -> Result<(), Refusal> {
        let (version, kind) = (object.text("apiVersion"), object.text("kind"));
        let expected = self.resource.api_version();
        if version != expected {
            return Err(Refusal::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({expected})"
            )));
        }
        if kind != self.resource.kind {
            return Err(Refusal::bad_request(format!(
                "the kind in the data ({kind}) does not match the expected kind ({})",
                self.resource.kind
            )));
        }
        Ok(())
    }

    pub(super) fn settle_namespace(&self, object: &mut Value) -> Result<(), Refusal> {
        let wanted = self.namespace;
        let metadata = metadata_of(object)?;
        let found = metadata
            .get("namespace")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if wanted.is_empty() && (found.is_empty() || found == "default") {
            metadata.remove("namespace");
        } else if found.is_empty() {
            metadata.insert("namespace".to_owned(), json!(wanted));
        } else if found != wanted {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(())
    }

    pub(super) fn check_identity(
        &self,
        old: &Value,
        object: &mut Value,
    ) -> Result<Vec<FieldError>, Refusal> {
        let name = name_of(old);
        let metadata = metadata_of(object)?;
        let text = |field: &str| {
            metadata
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        if text("name") != name {
            return Err(Refusal::misnamed(text("name"), &name));
        }
        let subject = self.resource.subject(&name);
        let known = old.field("metadata").text("uid");
        let mut errors = Vec::new();
        if !text("uid").is_empty() && text("uid") != known {
            if let Origin::Applied = self.origin {
                let error =
                    FieldError::invalid("metadata.uid", &json!(text("uid")), "field is immutable");
                errors = vec![error.clone(), error];
            } else {
                let why = format!(
                    "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {}, UID in object meta: {known}",
                    self.resource.registry_key(self.namespace, &name),
                    text("uid")
                );
                return Err(Refusal::conflict(subject, &why));
            }
        }
        let current = old.field("metadata").text("resourceVersion");
        let revision = text("resourceVersion");
        if revision.is_empty() || revision == "0" {
            if !self.resource.rules.unconditional {
                let error = FieldError::invalid(
                    "metadata.resourceVersion",
                    &json!(0),
                    "must be specified for an update",
                );
                return Err(Refusal::invalid(subject, &[error]));
            }
        } else if revision != current {
            return Err(Refusal::modified(subject));
        }
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
        ] {
            copy(old.field("metadata"), metadata, field);
        }
        Ok(errors)
    }

    /// What a change may not touch: the type of a secret, and the data of what is said to be immutable.
    pub(super) fn check_sealed(&self, old: &Value, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kind = object.field("type");
        if self.resource.role == Role::Secret && kind != old.field("type") {
            errors.push(FieldError::invalid("type", kind, "field is immutable"));
        }
        if self.resource.is_built_in() && old.field("immutable") == true {
            let sealed = ["immutable", "data", "binaryData"].into_iter();
            let changed = sealed.filter(|field| old.field(field) != object.field(field));
            let why = "field is immutable when `immutable` is set";
            errors.extend(changed.map(|field| FieldError::forbidden(field, why)));
        }
        errors
    }

    /// Puts back what this request may not write.
    pub(super) fn keep_other_parts(&self, old: &Value, object: &mut Value, part: Part) {
        match part {
            Part::Main => {
                if self.resource.rules.status
                    && let Some(fields) = object.as_object_mut()
                {
                    copy(old, fields, "status");
                }
                if self.resource.role == Role::Namespace
                    && let Some(fields) = object.as_object_mut()
                {
                    copy(old, fields, "spec");
                }
            }
            Part::Status => self.keep_all_but_status(old, object),
            Part::Finalize => {
                let spec = object.field("spec").clone();
                *object = old.clone();
                object.set(&["spec"], spec);
            }
        }
    }

    /// With the status a custom resource takes the managers of fields, and a built-in one all metadata.
    fn keep_all_but_status(&self, old: &Value, object: &mut Value) {
        let writes =
            |name: &str| name == "status" || self.resource.is_built_in() && name == "metadata";
        let (Some(fields), Some(old)) = (object.as_object_mut(), old.as_object()) else {
            return;
        };
        let mut managers = None;
        fields.retain(|name, _| writes(name) || old.contains_key(name));
        for (name, value) in old.iter().filter(|(name, _)| !writes(name)) {
            // Most patches change nothing here, and then nothing is copied.
            if fields.get(name) == Some(value) {
                continue;
            }
            let mut sent = fields.insert(name.clone(), value.clone());
            if name == "metadata" {
                let sent = sent.as_mut().and_then(Value::as_object_mut);
                managers = sent.and_then(|sent| sent.remove("managedFields"));
            }
        }
        if let Some(managers) = managers {
            object.set(&["metadata", "managedFields"], managers);
        }
    }
}
