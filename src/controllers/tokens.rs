//! Tokens: redeemed when a cluster shows one, and shown to the cluster that gave us one.
//!
//! The count of a token is written with the version of its Secret that was read, before its bearer
//! is accepted, together with who the bearer is: of any number of bearers at the same time exactly
//! as many are let in as the token says, and one that was counted and not accepted because of a
//! crash is let in when it asks again.

mod ends;

use std::{collections::BTreeMap, fmt::Display, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, ObjectMeta, Patch, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::ends::Ends;
use super::{Context, Error, enrolment, is_conflict, managed};
use crate::{
    api::{
        ClusterId, labels,
        token::{self, GivenToken, TokenHash},
        wire::IdentityRequest,
    },
    engine::tokens::{Worth, worth},
    peer::{
        auth::Session,
        token::{is_same, proof, verify},
        trust::{Role, to_hex},
    },
};

/// How often a count is tried again when somebody else has written the Secret meanwhile.
const TRIES: usize = 8;
/// How often it is looked whether the end of a token has come.
const SWEEP: Duration = Duration::from_secs(30);

/// The tokens that we were given, where they cannot be read.
const RECEIVED: &str = "received tokens";

/// What is remembered about tokens besides their Secrets.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    ends: Ends,
    /// Held while a token is counted, so that bearers at the same time do not get in each other's way.
    counting: tokio::sync::Mutex<()>,
}

/// What came of a token that was shown.
#[derive(Debug)]
pub(crate) struct Redeemed {
    /// Whether it lets its bearer in.
    pub(crate) lets_in: bool,
    /// Our proof that it is ours.
    pub(crate) proof: String,
}

impl Tokens {
    /// Looks for the token that a proven cluster shows, and counts the use when `counts`. Nothing
    /// when it is none of ours.
    pub(crate) async fn redeem(
        &self,
        context: &Context,
        session: &Session,
        request: &IdentityRequest,
        counts: bool,
    ) -> Result<Option<Redeemed>, Error> {
        let (home, foreign) = (&request.cluster_id, &context.own.cluster_id);
        let _alone = self.counting.lock().await;
        for _ in 0..TRIES {
            let Some((token, version)) = self.find(context, session, request).await? else {
                return Ok(None);
            };
            let worth = worth(&token, home, context.now(), self.ends.has_come(&token));
            if worth == Worth::Expired && !token.ended {
                end(context, &token).await?;
            }
            let is_counted = worth == Worth::Counted && counts;
            let is_written = !is_counted || count(context, &token, version, home).await?;
            if is_written {
                return Ok(Some(Redeemed {
                    lets_in: worth.lets_in(),
                    proof: proof(&token.hash, Role::Foreign, home, foreign, &session.exporter),
                }));
            }
        }
        Ok(None)
    }

    /// Returns the token that a cluster gave us, if it did.
    pub(crate) async fn received(&self, context: &Context, id: &ClusterId) -> Option<TokenHash> {
        let wanted = format!("{},{}={id}", token::RECEIVED, labels::CLUSTER_ID);
        let api = secrets(context);
        let failures = &context.failures;
        let found = match api.list(&ListParams::default().labels(&wanted)).await {
            Ok(found) => {
                failures.mended(RECEIVED, "");
                found.items
            }
            Err(error) => {
                if failures.note(RECEIVED, "", error.to_string()).is_news {
                    tracing::warn!(%error, "The tokens that other clusters gave us cannot be read");
                }
                return None;
            }
        };
        found
            .iter()
            .find_map(|secret| usable(context, secret, token::received(secret)))
    }

    /// Compares what was shown with every token that we gave out, in the same time whichever it is.
    async fn find(
        &self,
        context: &Context,
        session: &Session,
        request: &IdentityRequest,
    ) -> Result<Option<(GivenToken, String)>, Error> {
        let all = given_out(context).await?;
        self.ends.note(&all, context.now());
        let (home, foreign) = (&request.cluster_id, &context.own.cluster_id);
        let plain = request.token.as_ref();
        let plain = plain.and_then(|token| TokenHash::of(&token.0).ok());
        let mut found = None;
        for (token, version) in all {
            let by_proof = request.token_proof.as_deref().is_some_and(|shown| {
                verify(
                    &token.hash,
                    shown,
                    Role::Home,
                    home,
                    foreign,
                    &session.exporter,
                )
            });
            let by_text = plain
                .as_ref()
                .is_some_and(|plain| is_same(plain, &token.hash));
            if by_proof || by_text {
                found = Some((token, version));
            }
        }
        Ok(found)
    }

    /// Writes down which tokens have ended, so that no clock brings them back.
    async fn sweep(&self, context: &Context) -> Result<(), Error> {
        let all = given_out(context).await?;
        self.ends.note(&all, context.now());
        for (token, _) in all {
            let past = token
                .expires
                .is_some_and(|expires| context.now() >= expires);
            if !token.ended && (past || self.ends.has_come(&token)) {
                end(context, &token).await?;
                tracing::info!(token = %token.name, "Token expired");
            }
        }
        Ok(())
    }
}

/// Makes Liqo's token when there is none, then follows the tokens that we are given until the
/// shutdown: a new one is shown at once to the cluster that it is of.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    if let Err(error) = make_auth_token(&context).await {
        tracing::warn!(%error, "The token of Liqo's documents cannot be made");
    }
    let received = watcher::Config::default().labels(token::RECEIVED);
    let changes = watcher(secrets(&context), received)
        .default_backoff()
        .applied_objects();
    let mut changes = Box::pin(changes);
    let mut sweeps = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = sweeps.tick() => sweep(&context).await,
            change = changes.next() => match change {
                Some(change) => show(&context, change).await,
                None => return,
            },
        }
    }
}

async fn sweep(context: &Context) {
    if let Err(error) = context.tokens.sweep(context).await {
        tracing::debug!(%error, "The tokens cannot be looked through");
    }
}

async fn show(context: &Context, change: Result<Secret, watcher::Error>) {
    let secret = match change {
        Ok(secret) => secret,
        Err(error) => {
            tracing::debug!(%error, "The watch on tokens ended");
            return;
        }
    };
    let Some(id) = token::received_from(&secret) else {
        return;
    };
    if let Ok(Some(object)) = enrolment::find(context, &id).await {
        context.links.ask_anew(&object.name_any());
    }
}

async fn make_auth_token(context: &Context) -> Result<(), Error> {
    let api = secrets(context);
    let present = api.get_opt(token::AUTH_TOKEN).await;
    if present.map_err(Error::api("read a Secret"))?.is_some() {
        return Ok(());
    }
    let mut bytes = Zeroizing::new([0_u8; 32]);
    if SystemRandom::new().fill(bytes.as_mut_slice()).is_err() {
        tracing::warn!("The system gives no random numbers for a token");
        return Ok(());
    }
    let text = Zeroizing::new(to_hex(bytes.as_slice()));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(token::AUTH_TOKEN.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([(token::TOKEN.to_owned(), token::bytes(&text))].into()),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        Err(error) if is_conflict(&error) => Ok(()),
        made => made.map(drop).map_err(Error::api("create a Secret")),
    }
}

/// Lists the tokens that we gave out, each with the version of its Secret.
async fn given_out(context: &Context) -> Result<Vec<(GivenToken, String)>, Error> {
    let api = secrets(context);
    let labelled = ListParams::default().labels(token::GIVEN_OUT);
    let list = api.list(&labelled).await;
    let mut all = list.map_err(Error::api("list Secrets"))?.items;
    let auth_token = api.get_opt(token::AUTH_TOKEN).await;
    all.extend(auth_token.map_err(Error::api("read a Secret"))?);
    let read = |secret: &Secret| {
        let token = usable(context, secret, GivenToken::read(secret))?;
        Some((token, secret.resource_version().unwrap_or_default()))
    };
    Ok(all.iter().filter_map(read).collect())
}

/// Takes what was read of a Secret, and tells once where it is of no use.
fn usable<T>(context: &Context, secret: &Secret, read: Result<T, impl Display>) -> Option<T> {
    let (kind, name) = ("Secret", secret.name_any());
    match read {
        Ok(token) => {
            context.failures.mended(kind, &name);
            Some(token)
        }
        Err(error) => {
            let cause = format!("{name}: {error}");
            if context.failures.note(kind, &name, cause).is_news {
                tracing::warn!(secret = %name, %error, "This token is of no use");
            }
            None
        }
    }
}

/// Counts one use of a token, unless its Secret is another than the one that was read.
async fn count(
    context: &Context,
    token: &GivenToken,
    version: String,
    by: &ClusterId,
) -> Result<bool, Error> {
    let data: BTreeMap<&str, _> = token.used(by).into_iter().collect();
    let patch = json!({ "metadata": { "resourceVersion": version }, "data": data });
    let counted = secrets(context)
        .patch(&token.name, &managed(), &Patch::Merge(patch))
        .await;
    match counted {
        Ok(_) => {
            tracing::info!(token = %token.name, %by, "Token used");
            Ok(true)
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(Error::api("count the use of a token")(error)),
    }
}

/// Writes down that the end of a token has come.
async fn end(context: &Context, token: &GivenToken) -> Result<(), Error> {
    let patch = json!({ "data": { token::ENDED: token::bytes("true") } });
    let ended = secrets(context)
        .patch(&token.name, &managed(), &Patch::Merge(patch))
        .await;
    super::gone_is_fine(ended).map_err(Error::api("end a token"))
}

fn secrets(context: &Context) -> Api<Secret> {
    Api::namespaced(context.client.clone(), labels::NAMESPACE)
}
