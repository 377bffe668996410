//! What a peer may do at the gateway: a table of verbs over one object, and of fields in it.
//!
//! | request | allowed |
//! | --- | --- |
//! | `GET .../peeringrequests` | list or watch, its own name only |
//! | `POST .../peeringrequests` | create, its own name only |
//! | `GET`, `PATCH` (merge), `DELETE` `.../peeringrequests/{its own name}` | yes |
//! | everything else | no |

use std::net::SocketAddr;

use axum::{
    extract::Query,
    http::{Method, Uri},
};

use super::refusal::Refusal;
use crate::{
    api::{
        foreign_cluster::ClusterIdentity,
        identity::{ClusterId, ClusterName, is_printable},
        peering_request::{PeeringRequestSpec, SessionNetwork},
    },
    engine::addresses::{AuthUrl, normalise},
};

/// Where PeeringRequests live.
pub const COLLECTION: &str = "/apis/discovery.liqo.io/v1alpha1/peeringrequests";

/// The longest watch, in seconds; the peer comes again where it stopped.
const LONGEST_WATCH: u32 = 300;
/// How many tunnel endpoints a peer may name.
const ENDPOINT_LIMIT: usize = 16;
/// The longest text in any field of a peer.
const TEXT_LIMIT: usize = 128;

/// Query parameters that change nothing at the gateway and are passed over.
const HARMLESS: [&str; 8] = [
    "fieldManager",
    "fieldValidation",
    "force",
    "gracePeriodSeconds",
    "limit",
    "pretty",
    "propagationPolicy",
    "resourceVersionMatch",
];

/// What a peer is allowed to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// Read its PeeringRequest.
    Get,
    /// List its PeeringRequest.
    List,
    /// Watch its PeeringRequest.
    Watch {
        /// The revision to start after; the present state is sent first when there is none.
        since: Option<String>,
        /// Whether bookmarks are wanted.
        bookmarks: bool,
        /// How long, in seconds.
        seconds: u32,
    },
    /// Create its PeeringRequest.
    Create,
    /// Change the `spec` of its PeeringRequest.
    Patch,
    /// Delete its PeeringRequest.
    Delete,
}

/// Decides what a request of the peer `own` may do.
pub fn decide(
    method: &Method,
    uri: &Uri,
    content_type: Option<&str>,
    own: &ClusterId,
) -> Result<Permit, Refusal> {
    let rest = uri
        .path()
        .strip_prefix(COLLECTION)
        .ok_or_else(|| denied(own))?;
    let query = Parameters::parse(uri, own)?;
    match (method.as_str(), rest) {
        ("GET", "") if query.watch => Ok(Permit::Watch {
            since: query.since,
            bookmarks: query.bookmarks,
            seconds: query.seconds.unwrap_or(LONGEST_WATCH).min(LONGEST_WATCH),
        }),
        ("GET", "") => Ok(Permit::List),
        ("POST", "") => Ok(Permit::Create),
        (_, item) if item.strip_prefix('/') == Some(own.as_str()) => match method.as_str() {
            "GET" => Ok(Permit::Get),
            "DELETE" => Ok(Permit::Delete),
            "PATCH" => merge_patch(content_type),
            _ => Err(denied(own)),
        },
        _ => Err(denied(own)),
    }
}

/// Tells whether a peer takes back its own object.
pub fn takes_back(method: &Method, uri: &Uri, own: &ClusterId) -> bool {
    matches!(decide(method, uri, None, own), Ok(Permit::Delete))
}

fn merge_patch(content_type: Option<&str>) -> Result<Permit, Refusal> {
    let media_type = content_type.unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/merge-patch+json") {
        return Ok(Permit::Patch);
    }
    Err(Refusal::new(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: \
         application/merge-patch+json",
    ))
}

fn denied(own: &ClusterId) -> Refusal {
    Refusal::forbidden(format!(
        "a peer may get, list, watch, create, merge-patch and delete peeringrequests/{own} only"
    ))
}

#[derive(Default)]
struct Parameters {
    watch: bool,
    bookmarks: bool,
    since: Option<String>,
    seconds: Option<u32>,
}

impl Parameters {
    fn parse(uri: &Uri, own: &ClusterId) -> Result<Self, Refusal> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Refusal::bad_request("the query is not well-formed"))?;
        let mut parsed = Self::default();
        for (key, value) in pairs {
            match key.as_str() {
                "watch" => parsed.watch = is_true(&value),
                "allowWatchBookmarks" => parsed.bookmarks = is_true(&value),
                "resourceVersion" => parsed.since = revision(&value)?,
                "timeoutSeconds" => parsed.seconds = value.parse().ok(),
                "fieldSelector" => own_name_only(&value, own)?,
                harmless if HARMLESS.contains(&harmless) => {}
                other => {
                    let other: String = other.chars().take(40).collect();
                    return Err(Refusal::bad_request(format!(
                        "the query parameter {other:?} is not served to peers"
                    )));
                }
            }
        }
        Ok(parsed)
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "true" | "1" | "")
}

fn revision(value: &str) -> Result<Option<String>, Refusal> {
    if value.len() > 20 || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::bad_request("the resourceVersion is not a number"));
    }
    Ok(Some(value.to_owned()).filter(|value| !matches!(value.as_str(), "" | "0")))
}

fn own_name_only(selector: &str, own: &ClusterId) -> Result<(), Refusal> {
    let name = selector
        .strip_prefix("metadata.name")
        .map(|rest| rest.trim_start_matches('='));
    if selector.is_empty() || name == Some(own.as_str()) {
        Ok(())
    } else {
        Err(denied(own))
    }
}

/// Refuses an object that names another cluster than the session proves; nothing named is fine.
pub fn names_nobody_else(named: Option<&str>, own: &ClusterId) -> Result<(), Refusal> {
    match named {
        None | Some("") => Ok(()),
        Some(name) if name == own.as_str() => Ok(()),
        Some(_) => Err(denied(own)),
    }
}

/// Makes of what a peer wrote what is stored: its own id, bounded text, well-formed endpoints, and
/// first among these the address that we see it at.
pub fn admit(
    spec: PeeringRequestSpec,
    own: &ClusterId,
    observed: Option<SocketAddr>,
) -> Result<PeeringRequestSpec, Refusal> {
    let claimed = &spec.cluster_identity;
    names_nobody_else(Some(&claimed.cluster_id), own)?;
    let name = claimed.cluster_name.as_deref().map(ClusterName::neutralise);
    if !spec.auth_url.is_empty() {
        spec.auth_url
            .parse::<AuthUrl>()
            .map_err(|error| Refusal::invalid(format!("spec.authUrl: {error}")))?;
    }
    bounded("spec.namespace", &spec.namespace)?;
    let mut session = spec.session;
    if let Some(network) = session
        .as_mut()
        .and_then(|session| session.network.as_mut())
    {
        admit_network(network, observed)?;
    }
    Ok(PeeringRequestSpec {
        cluster_identity: ClusterIdentity {
            cluster_id: own.to_string(),
            cluster_name: name.map(String::from),
        },
        namespace: spec.namespace,
        auth_url: spec.auth_url,
        kube_config_ref: None,
        session,
    })
}

fn admit_network(
    network: &mut SessionNetwork,
    observed: Option<SocketAddr>,
) -> Result<(), Refusal> {
    bounded("spec.session.network.podCIDR", &network.pod_cidr)?;
    bounded("spec.session.network.externalCIDR", &network.external_cidr)?;
    bounded("spec.session.network.publicKey", &network.public_key)?;
    if let Some(nat) = &network.pod_cidr_nat {
        bounded("spec.session.network.podCIDRNAT", nat)?;
    }
    let observed = observed.filter(|_| network.port != 0).map(|mut address| {
        address.set_port(network.port);
        normalise(address).to_string()
    });
    let named = std::mem::take(&mut network.endpoints);
    let well_formed = named
        .into_iter()
        .filter(|endpoint| endpoint.parse::<SocketAddr>().is_ok());
    for endpoint in observed.into_iter().chain(well_formed) {
        if network.endpoints.len() < ENDPOINT_LIMIT && !network.endpoints.contains(&endpoint) {
            network.endpoints.push(endpoint);
        }
    }
    Ok(())
}

fn bounded(field: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > TEXT_LIMIT || !text.chars().all(is_printable) {
        return Err(Refusal::invalid(format!(
            "{field}: at most {TEXT_LIMIT} printable characters"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
