//! From request to answer: route, look at the verb, call the part that knows.

use super::{
    Server,
    access::{Deed, User, resource_name},
    admission::Part,
    body,
    catalog::{Role, Verbs},
    delete::DeleteOptions,
    directory,
    intent::Intent,
    openapi,
    present::{Presenter, respond, respond_json},
    protobuf,
    refusal::Refusal,
    routes::{Parameters, Route, Target, route},
    selector::Selector,
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header},
};
use serde_json::Value;

/// A request without its body.
struct Asked<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    parameters: Parameters,
    user: User,
}

impl Asked<'_> {
    fn header(&self, name: header::HeaderName) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

impl Server {
    /// Answers any request.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        let binary = request
            .headers()
            .get(header::ACCEPT)
            .is_some_and(|accepted| accepted == protobuf::MEDIA_TYPE);
        let refuse = if binary {
            Refusal::into_binary_response
        } else {
            Refusal::into_response
        };
        let mut response = self.dispatch(request).await.unwrap_or_else(refuse);
        if head {
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn dispatch(&self, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let (parts, body) = request.into_parts();
        let sender = parts.extensions.get().cloned().unwrap_or_else(User::daemon);
        let asked = Asked {
            method: &parts.method,
            headers: &parts.headers,
            parameters: Parameters::of(&parts.uri),
            user: self.acting_user(sender, &parts.headers)?,
        };
        let catalog = {
            let _defined = self.defining.read().await;
            self.catalog()
        };
        let nowhere = Refusal::unknown_path;
        let route = route(parts.uri.path(), &catalog);
        if !matches!(route, Ok(Route::Objects(_))) {
            self.check_path(&asked, parts.uri.path(), route.is_ok())?;
        }
        match route? {
            Route::Objects(target) => self.objects(&target, &asked, body).await,
            Route::Health => Ok(respond(StatusCode::OK, "text/plain; charset=utf-8", "ok")),
            Route::Version => Ok(respond_json(StatusCode::OK, &directory::version())),
            Route::CoreVersions if wants_aggregated(&asked) => Ok(directory_answer(
                &asked,
                &directory::aggregated(&catalog, true),
            )),
            Route::Groups if wants_aggregated(&asked) => Ok(directory_answer(
                &asked,
                &directory::aggregated(&catalog, false),
            )),
            Route::CoreVersions => Ok(respond_json(StatusCode::OK, &directory::core_versions())),
            Route::Groups => {
                let groups = directory::group_list(&catalog);
                Ok(respond_json(StatusCode::OK, &groups))
            }
            Route::Group(name) => {
                let group = directory::group(&catalog, &name).ok_or_else(nowhere)?;
                Ok(respond_json(StatusCode::OK, &group))
            }
            Route::Kinds(group, version) => {
                let kinds = directory::kinds(&catalog, &group, &version).ok_or_else(nowhere)?;
                Ok(respond_json(StatusCode::OK, &kinds))
            }
            Route::Documents => {
                let index = catalog.open_api().index.clone();
                let tag = openapi::hash(&index);
                Ok(tagged(&asked, &tag, "text/plain; charset=utf-8", index))
            }
            Route::Document(path) => {
                let open_api = catalog.open_api();
                let document = open_api.documents.get(&path).ok_or_else(nowhere)?;
                let body = document.body.clone();
                Ok(tagged(&asked, &document.hash, "application/json", body))
            }
        }
    }

    /// Refuses what may not be done with a path that leads to no objects.
    fn check_path(&self, asked: &Asked<'_>, path: &str, leads: bool) -> Result<(), Refusal> {
        let verb = &asked.method.as_str().to_lowercase();
        self.authorize(&asked.user, Deed::Path { verb, path })?;
        let reads = matches!(*asked.method, Method::GET | Method::HEAD);
        if leads && !reads {
            return Err(Refusal::only_read());
        }
        Ok(())
    }

    async fn objects(
        &self,
        target: &Target,
        asked: &Asked<'_>,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        let verb = verb(target, asked);
        let resource = &target.resource;
        let deed = Deed::Objects {
            verb,
            group: &resource.group,
            resource: &resource_name(resource, target),
            namespace: place(target),
            name: &name(target, verb, &asked.parameters),
        };
        self.authorize(&asked.user, deed)?;
        if resource.role == Role::Review && verb == "create" {
            let bytes = body::read(body).await?;
            let content_type = asked.header(header::CONTENT_TYPE);
            let parsed = body::parse_for(resource, content_type, &bytes)?;
            let answer = self.review(parsed.object, &asked.user);
            return Ok(respond_json(StatusCode::CREATED, &answer));
        }
        if !answers(target, verb) {
            return Err(Refusal::method_not_allowed(resource.subject(""), verb));
        }
        let presenter = self.presenter(target, &asked.parameters, asked.headers)?;
        match (verb, target.name.as_deref()) {
            ("watch", _) => self.watch(target, &asked.parameters, presenter),
            ("list", _) => self.list(target, &asked.parameters, presenter),
            ("get", Some(name)) => {
                part_of(target, verb)?;
                self.get(target, name, &asked.parameters, presenter)
            }
            _ => self.write(target, asked, verb, body, presenter).await,
        }
    }

    async fn write(
        &self,
        target: &Target,
        asked: &Asked<'_>,
        verb: &str,
        body: Body,
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let part = part_of(target, verb)?;
        let content_type = asked.header(header::CONTENT_TYPE);
        let parameters = &asked.parameters;
        let bytes = body::read(body).await?;
        let intent = |options| Intent::of(parameters, asked.headers, &asked.user, options);
        match (verb, target.name.as_deref()) {
            ("create", _) => {
                let intent = intent("CreateOptions")?;
                self.create(target, &intent, content_type, &bytes, presenter)
                    .await
            }
            ("update", Some(_)) => {
                let intent = intent("UpdateOptions")?;
                self.update(target, part, &intent, content_type, &bytes, presenter)
                    .await
            }
            ("patch", Some(_)) => {
                let intent = intent("PatchOptions")?;
                self.patch(target, part, &intent, content_type, &bytes, presenter)
                    .await
            }
            ("delete", Some(name)) => {
                let options = DeleteOptions::parse(&bytes, parameters)?;
                self.delete(target, name, &options, presenter).await
            }
            ("deletecollection", _) => {
                let options = DeleteOptions::parse(&bytes, parameters)?;
                self.delete_collection(target, parameters, &options, presenter)
                    .await
            }
            ("update" | "patch", None) => Err(Refusal::bad_request("name must be provided")),
            _ => {
                let subject = target.resource.subject("");
                Err(Refusal::method_not_allowed(subject, verb))
            }
        }
    }
}

/// Whether a path has this verb: a real server creates built-in objects only at the path of all, and
/// deletes all of them only in one namespace.
fn answers(target: &Target, verb: &str) -> bool {
    let resource = &target.resource;
    let built_in = resource.is_built_in();
    let everywhere = resource.namespaced && target.namespace.is_empty();
    match verb {
        "create" if built_in && target.name.is_some() => false,
        "deletecollection" if built_in && (everywhere || resource.role == Role::Namespace) => false,
        _ => resource.verbs == Verbs::All || resource.verbs.names().contains(&verb),
    }
}

/// The namespace that rights are asked for: a namespace is in itself.
fn place(target: &Target) -> &str {
    if target.resource.role == Role::Namespace {
        target.name.as_deref().unwrap_or_default()
    } else {
        &target.namespace
    }
}

/// The name that rights are asked for: also that of the one object that a list or a watch is about.
/// With other verbs a selector says nothing of what is done.
fn name(target: &Target, verb: &str, parameters: &Parameters) -> String {
    let selected = || {
        if !matches!(verb, "list" | "watch") {
            return None;
        }
        let fields = parameters.get("fieldSelector");
        let selector = Selector::parse("", fields, &target.resource.selectable).ok()?;
        selector.name().map(str::to_owned)
    };
    let name = target.name.clone().or_else(selected);
    name.unwrap_or_default()
}

fn verb(target: &Target, asked: &Asked<'_>) -> &'static str {
    let watches = target.watch || asked.parameters.flag("watch");
    match (asked.method.as_str(), target.name.is_some()) {
        ("GET" | "HEAD", true) if target.watch => "watch",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) if watches => "watch",
        ("GET" | "HEAD", false) => "list",
        _ if target.watch => "this method",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "this method",
    }
}

/// The part of the object that the path names, if this verb exists for it.
fn part_of(target: &Target, verb: &str) -> Result<Part, Refusal> {
    let resource = &target.resource;
    let part = match target.subresource.as_deref() {
        None => return Ok(Part::Main),
        Some("status") if resource.rules.status => Part::Status,
        Some("finalize") if resource.role == Role::Namespace => Part::Finalize,
        Some(_) => return Err(Refusal::no_subresource()),
    };
    if matches!(verb, "get" | "update" | "patch") {
        Ok(part)
    } else {
        Err(Refusal::method_not_allowed(resource.subject(""), verb))
    }
}

fn wants_aggregated(asked: &Asked<'_>) -> bool {
    asked.header(header::ACCEPT).split(',').any(|range| {
        range.contains("as=APIGroupDiscoveryList") && range.contains("v=v2;")
            || range.trim_end().ends_with("v=v2") && range.contains("as=APIGroupDiscoveryList")
    })
}

fn directory_answer(asked: &Asked<'_>, list: &Value) -> Response<Body> {
    let body = list.to_string();
    let tag = openapi::hash(body.as_bytes());
    tagged(asked, &tag, directory::AGGREGATED, Bytes::from(body))
}

/// An answer that a client may keep until its tag changes.
fn tagged(asked: &Asked<'_>, tag: &str, content_type: &'static str, body: Bytes) -> Response<Body> {
    let tag = format!("\"{tag}\"");
    let fresh = asked.header(header::IF_NONE_MATCH) == tag;
    let mut response = if fresh {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond(StatusCode::OK, content_type, body)
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}
