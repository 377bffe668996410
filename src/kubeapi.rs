//! The embedded Kubernetes API: the same objects to kube clients and kubectl, without a cluster.
//!
//! ```text
//!  kube::Client (in-process)   kubectl -- TLS --> loopback
//!            '-------------. .-------------'
//!                        KubeApi (tower Service)
//!                 routes -> catalog, admission, patch, selector
//!                             | read, watch   | write, delete
//!                             v               v
//!                     store: memory <--- committer ---> backend (SQLite)
//! ```
//!
//! The generic part knows no kind by name: kinds come from definitions (CRDs) that are objects of
//! the store themselves, and from a small table of built-in ones.

mod access;
mod admission;
mod apply;
mod body;
mod bounds;
mod builtin;
mod cascade;
mod catalog;
mod cel;
mod chores;
mod definition;
mod delete;
mod dependents;
mod directory;
mod dress;
mod error;
mod event_view;
mod fields;
mod intent;
mod items;
mod jsonpath;
mod layout;
pub mod loopback;
mod managed;
mod naming;
mod normalise;
mod openapi;
mod options;
mod patch;
mod path;
mod pattern;
mod present;
mod protobuf;
mod read;
mod refusal;
mod retire;
mod review;
mod routes;
mod schema;
mod selector;
mod service;
mod start;
pub mod store;
mod table;
#[cfg(test)]
mod tests;
mod tree;
mod typed;
mod uninterrupted;
mod validate;
mod watch;
mod write;

pub use error::Error;

use axum::{
    body::Body,
    http::{Method, Request, Response},
};
use catalog::Catalog;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use refusal::Refusal;
use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    task::{Context, Poll},
};
use uninterrupted::Uninterrupted;

/// Tells the time of objects: creation, deletion, ages.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// What an embedded API is made of.
pub struct Options {
    /// Keeps the objects.
    pub backend: Box<dyn store::Backend>,
    /// Says where commits happen.
    pub commit: store::Commit,
    /// Tells the time.
    pub clock: Clock,
    /// The kinds to serve, beside those that were created here.
    pub crds: Vec<CustomResourceDefinition>,
}

impl Options {
    /// An API that forgets when it is dropped and commits without threads, for tests and simulations.
    pub fn in_memory(clock: Clock, crds: Vec<CustomResourceDefinition>) -> Self {
        Self {
            backend: Box::new(store::Memory::default()),
            commit: store::Commit::Inline,
            clock,
            crds,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("commit", &self.commit)
            .field("crds", &self.crds.len())
            .finish_non_exhaustive()
    }
}

/// A Kubernetes API in this process; clones share it. It closes its store with the last clone.
#[derive(Clone)]
pub struct KubeApi {
    server: Arc<Server>,
}

impl KubeApi {
    /// Opens the store, puts the definitions into it and makes the namespaces that must be there.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let definitions = options.crds.clone();
        let server = Arc::new(Server::open(options)?);
        server.begin(definitions).await?;
        Ok(Self { server })
    }

    /// Makes a client that speaks to this API without any socket. Needs a tokio runtime.
    pub fn client(&self) -> kube::Client {
        let service =
            tower::ServiceExt::map_request(self.clone(), |request: Request<kube::client::Body>| {
                request.map(Body::new)
            });
        kube::Client::new(service, "default")
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.server.store.revision()
    }
}

impl fmt::Debug for KubeApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KubeApi")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl tower::Service<Request<Body>> for KubeApi {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = Arc::clone(&self.server);
        Box::pin(async move {
            if matches!(*request.method(), Method::GET | Method::HEAD) {
                return Ok(server.answer(request).await);
            }
            let work = Uninterrupted::new(async move { server.answer_write(request).await });
            let answer = work.await.unwrap_or_else(|error| {
                tracing::error!(error, "A request to the embedded API failed");
                Refusal::internal("the request failed; the log of the daemon says why")
                    .into_response()
            });
            Ok(answer)
        })
    }
}

/// What all requests share.
struct Server {
    store: Arc<store::Store>,
    catalog: RwLock<Arc<Catalog>>,
    /// Held while a definition is stored and its kind is not served yet.
    defining: tokio::sync::RwLock<()>,
    clock: Clock,
    /// Where the ends of names that are made come from.
    suffix: naming::Suffix,
    /// When objects with a lifetime were last looked through, in Unix seconds.
    expired_at: AtomicI64,
    /// Whether a deletion is left half done, because the disk was full.
    unfinished: AtomicBool,
}

impl Server {
    fn catalog(&self) -> Arc<Catalog> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&catalog)
    }

    /// Answers a request that may write, and finishes what an earlier one could not.
    async fn answer_write(&self, request: Request<Body>) -> Response<Body> {
        let unfinished = self.unfinished.load(Ordering::Relaxed);
        let answer = self.answer(request).await;
        if unfinished
            && answer.status().is_success()
            && self.unfinished.swap(false, Ordering::Relaxed)
        {
            self.sweep().await;
        }
        answer
    }
}
