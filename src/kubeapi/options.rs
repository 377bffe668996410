//! Options of requests that make no sense, refused in the words of the real server.

use super::{
    refusal::{FieldError, Refusal, Subject},
    routes::Parameters,
};
use serde_json::Value;

/// Refuses options of this kind unless nothing is wrong with them.
pub(super) fn check(kind: &'static str, errors: &[FieldError]) -> Result<(), Refusal> {
    if errors.is_empty() {
        return Ok(());
    }
    let subject = Subject {
        group: "meta.k8s.io",
        kind,
        name: "",
    };
    Err(Refusal::invalid(subject, errors))
}

/// The refusal of what is not supported, with what is.
pub(super) fn unsupported(field: &str, asked: &Value, supported: &[&str]) -> FieldError {
    let supported: Vec<String> = supported
        .iter()
        .map(|value| format!("\"{value}\""))
        .collect();
    FieldError::unsupported(field, &asked.to_string(), &supported)
}

/// Refuses options of a list that do not go together.
pub(super) fn check_list(parameters: &Parameters) -> Result<(), Refusal> {
    let field = "resourceVersionMatch";
    let matching = parameters.get(field);
    let forbidden = |why| FieldError::forbidden(field, why);
    let mut errors = Vec::new();
    if !matching.is_empty() {
        let revision = parameters.get("resourceVersion");
        if revision.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(forbidden(why));
        }
        if !parameters.get("continue").is_empty() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(forbidden(why));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            let supported = ["Exact", "NotOlderThan", ""];
            errors.push(unsupported(field, &Value::from(matching), &supported));
        }
        if matching == "Exact" && revision == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(forbidden(why));
        }
    }
    if parameters.has("sendInitialEvents") {
        let why = "sendInitialEvents is forbidden for list";
        errors.push(FieldError::forbidden("sendInitialEvents", why));
    }
    check("ListOptions", &errors)
}

/// Reads a parameter that is a number, if it is there.
pub(super) fn number(parameters: &Parameters, name: &str) -> Result<Option<i64>, Refusal> {
    let text = parameters.get(name);
    if text.is_empty() {
        return Ok(None);
    }
    let refused = |_| {
        Refusal::bad_request(format!(
            "strconv.ParseInt: parsing \"{text}\": invalid syntax"
        ))
    };
    text.parse().map(Some).map_err(refused)
}
