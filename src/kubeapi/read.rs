//! get and list.

use super::{
    Server, options,
    present::{Format, ListEnd, Presenter},
    refusal::Refusal,
    routes::{Parameters, Target},
    selector::Selector,
    store::Stored,
    table::Include,
};
use axum::{
    body::Body,
    http::{HeaderMap, Response, StatusCode},
};
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How continue tokens are written; read like the real server's, which overlooks bits too many.
const TOKEN: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// Where the next page of a list begins.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    v: String,
    rv: u64,
    start: String,
}

impl Server {
    /// Answers a get of one object.
    pub(super) fn get(
        &self,
        target: &Target,
        name: &str,
        parameters: &Parameters,
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let resource = &target.resource;
        let text = parameters.get("resourceVersion");
        if !text.is_empty() {
            let wanted = text.parse();
            self.must_have_reached(wanted.map_err(|_| Refusal::internal(not_a_number(text)))?)?;
        }
        let stored = self
            .store
            .get(&resource.key(&target.namespace, name))
            .ok_or_else(|| Refusal::not_found(resource.subject(name)))?;
        Ok(presenter.stored(StatusCode::OK, &stored))
    }

    /// Answers a list.
    pub(super) fn list(
        &self,
        target: &Target,
        parameters: &Parameters,
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let selector = selector(target, parameters)?;
        options::check_list(parameters)?;
        let limit = match options::number(parameters, "limit")?.map(usize::try_from) {
            None | Some(Ok(0) | Err(_)) => usize::MAX,
            Some(Ok(limit)) => limit,
        };
        let token = self.continuation(parameters)?;
        if token.is_some() && !matches!(parameters.get("resourceVersion"), "" | "0") {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Refusal::bad_request(why));
        }
        let exact = self.check_revision(parameters)?;
        let prefix = target.resource.prefix(&target.namespace);
        let after = token.as_ref().map(|token| token.start.as_str());
        let wanted = token.as_ref().map(|token| token.rv).or(exact);
        // Which of them a selector leaves is not known before all of them are looked at.
        let most = if selector.is_empty() {
            limit
        } else {
            usize::MAX
        };
        let page = self.store.page(&prefix, after, most, wanted);
        let (found, mut rest, revision) = page.ok_or_else(|| forgotten(token.is_some()))?;
        let mut selected = matching(&selector, target, found);
        rest += selected.split_off(limit.min(selected.len())).len();
        let mut end = ListEnd {
            revision,
            ..ListEnd::default()
        };
        if rest > 0 {
            end.next = selected.last().map(|(key, _)| encode(end.revision, key));
            end.remaining = selector.is_empty().then_some(rest);
        }
        let items: Vec<Arc<Stored>> = selected.into_iter().map(|(_, stored)| stored).collect();
        Ok(presenter.list(&items, &end))
    }

    /// The objects of a collection that a delete is about.
    pub(super) fn collection(
        &self,
        target: &Target,
        parameters: &Parameters,
    ) -> Result<Vec<Arc<Stored>>, Refusal> {
        let selector = selector(target, parameters)?;
        let prefix = target.resource.prefix(&target.namespace);
        let (found, _) = self.store.list(&prefix, None);
        let selected = matching(&selector, target, found);
        Ok(selected.into_iter().map(|(_, stored)| stored).collect())
    }

    /// How a request wants its objects shown.
    pub(super) fn presenter<'a>(
        &self,
        target: &'a Target,
        parameters: &Parameters,
        headers: &HeaderMap,
    ) -> Result<Presenter<'a>, Refusal> {
        Ok(Presenter {
            resource: &target.resource,
            format: Format::negotiate(headers)?,
            include: Include::parse(parameters.get("includeObject")),
            now: (self.clock)(),
        })
    }

    fn continuation(&self, parameters: &Parameters) -> Result<Option<Continue>, Refusal> {
        let text = parameters.get("continue");
        if text.is_empty() {
            return Ok(None);
        }
        let bytes = TOKEN
            .decode(text.trim_end_matches('='))
            .map_err(|error| unreadable(&error.to_string()))?;
        let token: Continue =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(&explain(&bytes, &error)))?;
        self.must_have_reached(token.rv)?;
        Ok(Some(token))
    }

    /// Checks that a list of the wanted revision can be given; returns the one that is meant exactly.
    fn check_revision(&self, parameters: &Parameters) -> Result<Option<u64>, Refusal> {
        let text = parameters.get("resourceVersion");
        if text.is_empty() {
            return Ok(None);
        }
        let wanted: u64 = text.parse().map_err(|_| {
            Refusal::bad_request(format!("invalid resource version: {}", not_a_number(text)))
        })?;
        self.must_have_reached(wanted)?;
        // Without a word, a page is of exactly the revision that it names, as it always was.
        let exact = match parameters.get("resourceVersionMatch") {
            "Exact" => true,
            "" => wanted > 0 && !matches!(parameters.get("limit"), "" | "0"),
            _ => false,
        };
        Ok(exact.then_some(wanted))
    }

    fn must_have_reached(&self, wanted: u64) -> Result<(), Refusal> {
        let current = self.store.revision();
        if wanted > current {
            return Err(Refusal::from_the_future(wanted, current));
        }
        Ok(())
    }
}

/// The refusal of a list of a revision that is not kept any more.
fn forgotten(continues: bool) -> Refusal {
    Refusal::expired(if continues {
        "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter."
    } else {
        "The resourceVersion for the provided list is too old."
    })
}

/// The refusal of a continue token that this server did not write.
fn unreadable(why: &str) -> Refusal {
    Refusal::bad_request(format!(
        "invalid continue token: continue key is not valid: {why}"
    ))
}

/// Says why bytes are no JSON; the usual reason in the words of the real server.
fn explain(bytes: &[u8], error: &serde_json::Error) -> String {
    match bytes.first() {
        Some(first) if !b"{[\"-0123456789tfn \t\r\n".contains(first) => {
            let shown = first.escape_ascii();
            format!("invalid character '{shown}' looking for beginning of value")
        }
        _ => error.to_string(),
    }
}

/// What the real server says about a revision that is no number.
pub(super) fn not_a_number(text: &str) -> String {
    format!(
        "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
    )
}

/// The selectors of a request.
pub(super) fn selector(target: &Target, parameters: &Parameters) -> Result<Selector, Refusal> {
    Selector::parse(
        parameters.get("labelSelector"),
        parameters.get("fieldSelector"),
        &target.resource.selectable,
    )
}

fn matching(
    selector: &Selector,
    target: &Target,
    found: Vec<(String, Arc<Stored>)>,
) -> Vec<(String, Arc<Stored>)> {
    if selector.is_empty() {
        return found;
    }
    found
        .into_iter()
        .filter(|(key, stored)| {
            // The name is in the key: most objects need not be parsed.
            let named = selector
                .name()
                .is_none_or(|name| key.rsplit_once('/').is_some_and(|(_, known)| known == name));
            let shown = || super::present::shown(&target.resource, stored.tree());
            named && selector.matches(&shown())
        })
        .collect()
}

fn encode(revision: u64, start: &str) -> String {
    let token = Continue {
        v: "meta.k8s.io/v1".to_owned(),
        rv: revision,
        start: start.to_owned(),
    };
    let json = serde_json::to_vec(&token).unwrap_or_default();
    TOKEN.encode(json)
}
