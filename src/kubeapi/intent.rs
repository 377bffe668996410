//! The options of a write: whether it is stored, how strict it is, and who it is.

use super::{
    access::User,
    admission::Strictness,
    apply,
    managed::{LONGEST_NAME, check_name},
    options::{check, unsupported},
    refusal::{FieldError, Refusal},
    routes::Parameters,
};
use axum::http::{HeaderMap, header};
use serde_json::json;

/// The options of a write.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) dry_run: bool,
    pub(super) strictness: Strictness,
    /// Who owns what this writes.
    pub(super) manager: String,
    /// An apply takes fields from their owners.
    pub(super) force: bool,
    /// This is a server-side apply.
    pub(super) applies: bool,
    pub(super) user: User,
}

impl Intent {
    pub(super) fn of(
        parameters: &Parameters,
        headers: &HeaderMap,
        user: &User,
        options: &'static str,
    ) -> Result<Self, Refusal> {
        let text = |name: header::HeaderName| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default()
        };
        let applies = options == "PatchOptions"
            && text(header::CONTENT_TYPE).split(';').next() == Some(apply::MEDIA_TYPE);
        let dry_run = parameters.get("dryRun");
        check(options, &mistakes(parameters, options, applies))?;
        let named = parameters.get("fieldManager");
        let manager = if named.is_empty() {
            from_user_agent(text(header::USER_AGENT))
        } else {
            named.to_owned()
        };
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            strictness: Strictness::parse(parameters.get("fieldValidation")),
            manager,
            force: parameters.flag("force"),
            applies,
            user: user.clone(),
        })
    }
}

fn mistakes(parameters: &Parameters, options: &str, applies: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let manager = parameters.get("fieldManager");
    if applies && manager.is_empty() {
        errors.push(FieldError::required(
            "fieldManager",
            "is required for apply patch",
        ));
    }
    errors.extend(check_name("fieldManager", manager));
    if options == "PatchOptions" && !applies && parameters.has("force") {
        errors.push(FieldError::forbidden(
            "force",
            "may not be specified for non-apply patch",
        ));
    }
    let dry_run = parameters.get("dryRun");
    if !matches!(dry_run, "" | "All") {
        errors.push(unsupported("dryRun", &json!([dry_run]), &["All"]));
    }
    let validation = parameters.get("fieldValidation");
    let known = ["", "Ignore", "Strict", "Warn"];
    if !known.contains(&validation) {
        errors.push(unsupported("fieldValidation", &json!(validation), &known));
    }
    errors
}

/// The program's name in a user agent.
fn from_user_agent(agent: &str) -> String {
    let name: String = agent
        .split('/')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|letter| !letter.is_control())
        .take(LONGEST_NAME)
        .collect();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}
