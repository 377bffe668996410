//! The gateway: a Kubernetes-style API in which a peer sees exactly one object, the PeeringRequest
//! named by its own cluster id.
//!
//! ```text
//! peer -- request --> permissions::decide -- Permit --> kube::Api<PeeringRequest> -> our API server
//!                     permissions::admit  -- spec ---'
//! ```
//! Nothing of a peer's request is passed on as it stands: the object is built anew from the fields
//! that a peer may write.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, header},
};
use json_patch::{PatchOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    auth::{BODY_LIMIT, BODY_TIME, Reception},
    body,
    limits::{Buckets, Guests, Rate},
    permissions::{self, Permit},
    refusal::{Refusal, json_response, status_response},
};
use crate::api::{
    identity::ClusterId,
    labels,
    peering_request::{PeeringRequest, PeeringRequestSpec},
};

mod watch;

use watch::Watch;

/// How often a watch says that it lives; 15 s of silence mean that it does not (protocol, section 6).
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// Who writes in the name of peers, as a field manager.
const FIELD_MANAGER: &str = "landbridge-gateway";
/// How often a change is tried again when another one came in between.
const PATCH_TRIES: u32 = 4;
/// How often one peer, and all together, may write.
const WRITING: (Rate, Rate) = (
    Rate {
        burst: 50,
        each: Duration::from_millis(100),
    },
    Rate {
        burst: 500,
        each: Duration::from_millis(5),
    },
);

/// How many watches all peers, and one of them, may have open.
const WATCHES: (usize, usize) = (1024, 8);
/// How often one peer, and all together, may ask for anything at all.
const ASKING: (Rate, Rate) = (
    Rate {
        burst: 200,
        each: Duration::from_millis(20),
    },
    Rate {
        burst: 2000,
        each: Duration::from_millis(1),
    },
);

/// The gateway in front of the API that keeps our PeeringRequests.
pub struct Gateway {
    api: Api<PeeringRequest>,
    reception: Arc<dyn Reception>,
    asking: Mutex<Buckets>,
    writing: Mutex<Buckets>,
    watching: Arc<Guests<ClusterId>>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gateway").finish_non_exhaustive()
    }
}

impl Gateway {
    /// Makes a gateway; `reception` is asked on for as long as a watch runs.
    pub fn new(client: kube::Client, reception: Arc<dyn Reception>) -> Self {
        let now = Instant::now();
        Self {
            api: Api::all(client),
            reception,
            asking: Mutex::new(Buckets::new(ASKING.0, ASKING.1, now)),
            writing: Mutex::new(Buckets::new(WRITING.0, WRITING.1, now)),
            watching: Guests::new(WATCHES.0, WATCHES.1),
        }
    }

    /// Answers one request of a peer that is accepted, or takes back its own object.
    pub async fn answer(
        &self,
        own: &ClusterId,
        observed: Option<SocketAddr>,
        request: Request<Body>,
    ) -> Response<Body> {
        match self.act(own, observed, request).await {
            Ok(response) => response,
            Err(Failure::Refused(refusal)) => {
                if refusal.code == 403 {
                    tracing::warn!(peer = %own, reason = %refusal, "Peer asked for what it may not have");
                }
                refusal.response()
            }
            Err(Failure::Backing(error)) => backing_refusal(own, &error),
        }
    }

    async fn act(
        &self,
        own: &ClusterId,
        observed: Option<SocketAddr>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        count(&self.asking, own)?;
        let content_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let permit = permissions::decide(request.method(), request.uri(), content_type, own)?;
        if matches!(permit, Permit::Create | Permit::Patch | Permit::Delete) {
            count(&self.writing, own)?;
        }
        match permit {
            Permit::Get => {
                let object = self.api.get(own.as_str()).await?;
                Ok(json_response(StatusCode::OK, &shown(object)))
            }
            Permit::List => self.list(own).await,
            Permit::Watch {
                since,
                bookmarks,
                seconds,
            } => self.watch(own, since, bookmarks, seconds).await,
            Permit::Create => {
                let body = read_object(request).await?;
                let created = self.create(own, observed, body).await?;
                Ok(json_response(StatusCode::CREATED, &shown(created)))
            }
            Permit::Patch => {
                let body = read_object(request).await?;
                let changed = self.patch(own, observed, &body).await?;
                Ok(json_response(StatusCode::OK, &shown(changed)))
            }
            Permit::Delete => self.delete(own).await,
        }
    }

    async fn list(&self, own: &ClusterId) -> Result<Response<Body>, Failure> {
        let mut list = self
            .api
            .list(&ListParams::default().fields(&own_name(own)))
            .await?;
        list.items = list.items.into_iter().map(shown).collect();
        list.metadata.continue_ = None;
        Ok(json_response(StatusCode::OK, &list))
    }

    async fn create(
        &self,
        own: &ClusterId,
        observed: Option<SocketAddr>,
        body: Value,
    ) -> Result<PeeringRequest, Failure> {
        permissions::names_nobody_else(
            body.pointer("/metadata/name").and_then(Value::as_str),
            own,
        )?;
        let spec = body.get("spec").cloned().unwrap_or(Value::Null);
        let object = PeeringRequest {
            metadata: ObjectMeta {
                name: Some(own.to_string()),
                labels: Some(BTreeMap::from([(
                    labels::CLUSTER_ID.to_owned(),
                    own.to_string(),
                )])),
                ..ObjectMeta::default()
            },
            spec: permissions::admit(parse_spec(spec)?, own, observed)?,
            status: None,
        };
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        Ok(self.api.create(&parameters, &object).await?)
    }

    /// Merges the peer's patch into the present `spec` and replaces that, and nothing else. The test
    /// on the revision keeps two changes at once from undoing each other.
    async fn patch(
        &self,
        own: &ClusterId,
        observed: Option<SocketAddr>,
        body: &Value,
    ) -> Result<PeeringRequest, Failure> {
        permissions::names_nobody_else(
            body.pointer("/metadata/name").and_then(Value::as_str),
            own,
        )?;
        let Some(change) = body.get("spec") else {
            return Ok(self.api.get(own.as_str()).await?);
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let present = self.api.get(own.as_str()).await?;
            let mut spec = serde_json::to_value(&present.spec)
                .map_err(|error| Refusal::invalid(error.to_string()))?;
            json_patch::merge(&mut spec, change);
            let spec = permissions::admit(parse_spec(spec)?, own, observed)?;
            if spec == present.spec {
                return Ok(present);
            }
            match self.replace_spec(&present, &spec).await {
                Err(error) if !is_outrun(&error) => return Err(error.into()),
                Err(_) if tries < PATCH_TRIES => {}
                Err(_) => return Err(outrun().into()),
                Ok(changed) => return Ok(changed),
            }
        }
    }

    async fn replace_spec(
        &self,
        present: &PeeringRequest,
        spec: &PeeringRequestSpec,
    ) -> Result<PeeringRequest, kube::Error> {
        let patch = json_patch::Patch(vec![
            PatchOperation::Test(TestOperation {
                path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
                value: json!(present.resource_version()),
            }),
            PatchOperation::Replace(ReplaceOperation {
                path: PointerBuf::from_tokens(["spec"]),
                value: serde_json::to_value(spec).map_err(kube::Error::SerdeError)?,
            }),
        ]);
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let name = present.name_any();
        self.api
            .patch(&name, &parameters, &Patch::Json::<()>(patch))
            .await
    }

    async fn delete(&self, own: &ClusterId) -> Result<Response<Body>, Failure> {
        let deleted = self
            .api
            .delete(own.as_str(), &DeleteParams::default())
            .await?;
        Ok(deleted.either(
            |object| json_response(StatusCode::OK, &shown(object)),
            |mut status| {
                status.code = 200;
                status_response(&status)
            },
        ))
    }

    async fn watch(
        &self,
        own: &ClusterId,
        since: Option<String>,
        bookmarks: bool,
        seconds: u32,
    ) -> Result<Response<Body>, Failure> {
        let place = Guests::enter(&self.watching, own.clone()).ok_or_else(Refusal::too_many)?;
        let mut ready = Vec::new();
        let revision = if let Some(revision) = since {
            revision
        } else {
            let parameters = ListParams::default().fields(&own_name(own));
            let list = self.api.list(&parameters).await?;
            ready = list.items;
            list.metadata.resource_version.unwrap_or_default()
        };
        let parameters = WatchParams::default()
            .fields(&own_name(own))
            .timeout(seconds.clamp(1, 294));
        let events = self.api.watch(&parameters, &revision).await?;
        let watch = Watch::new(events, own, Arc::clone(&self.reception), place)
            .starting_with(ready, revision)
            .ending_at(Instant::now() + Duration::from_secs(u64::from(seconds)))
            .with_bookmarks(bookmarks);
        let lines = futures::stream::unfold(watch, |mut watch| async move {
            let line = watch.next_line().await?;
            Some((Ok::<_, std::convert::Infallible>(line), watch))
        });
        let mut response = Response::new(Body::from_stream(lines));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Ok(response)
    }
}

enum Failure {
    Refused(Refusal),
    Backing(kube::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Backing(error)
    }
}

fn count(buckets: &Mutex<Buckets>, own: &ClusterId) -> Result<(), Refusal> {
    buckets
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .try_take(own.as_str(), Instant::now())
        .map_err(|_| Refusal::too_many())
}

/// Whether another change came first. A test of a JSON patch that fails is answered with 422 and,
/// unlike an invalid object, no cause.
fn is_outrun(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let details = status.details.as_ref();
    let has_cause = details.is_some_and(|details| !details.causes.is_empty());
    status.code == 409 || status.code == 422 && !has_cause
}

fn outrun() -> Refusal {
    let message = "the object was changed at the same time: read it and try again";
    Refusal::new(409, "Conflict", message)
}

/// Passes on what the API says about the object; what went wrong inside is nobody's business.
fn backing_refusal(own: &ClusterId, error: &kube::Error) -> Response<Body> {
    if let kube::Error::Api(status) = error
        && matches!(status.code, 404 | 409 | 410 | 422 | 429)
    {
        return status_response(status);
    }
    tracing::warn!(peer = %own, %error, "Cannot serve a peer's request");
    Refusal::unavailable("the cluster's own API does not answer: try again later").response()
}

async fn read_object(request: Request<Body>) -> Result<Value, Refusal> {
    let bytes = body::read(request.into_body(), BODY_LIMIT, BODY_TIME)
        .await
        .map_err(|error| {
            let (code, reason) = match error {
                body::BodyError::TooLarge(_) => (413, "RequestEntityTooLarge"),
                body::BodyError::TooSlow(_)
                | body::BodyError::Broken(_)
                | body::BodyError::TooDeep
                | body::BodyError::NotJson(_) => (400, "BadRequest"),
            };
            Refusal::new(code, reason, error.to_string())
        })?;
    let value: Value =
        body::parse(&bytes).map_err(|error| Refusal::bad_request(error.to_string()))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Refusal::bad_request("the body is not an object"))
    }
}

fn parse_spec(spec: Value) -> Result<PeeringRequestSpec, Refusal> {
    serde_json::from_value(spec).map_err(|error| Refusal::invalid(format!("spec: {error}")))
}

/// Leaves out what concerns this cluster alone.
fn shown(mut object: PeeringRequest) -> PeeringRequest {
    let metadata = &mut object.metadata;
    metadata.managed_fields = None;
    metadata.owner_references = None;
    metadata.annotations = None;
    object
}

fn own_name(own: &ClusterId) -> String {
    format!("metadata.name={own}")
}
