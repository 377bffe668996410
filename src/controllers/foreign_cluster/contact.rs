//! The steps that talk to the peer. A failure is remembered with the connection, where the next
//! plan finds it; it is never an error of ours.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PostParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::reach::{SideBySide, reach};
use crate::{
    api::{
        ClusterId, ClusterName, ForeignCluster, PeeringRequest,
        labels::reason,
        peering_request::{HomeSession, PeeringRequestSpec},
        token::TokenHash,
        wire::{Decision, IdentityAnswer, IdentityRequest},
    },
    controllers::{Context, Error, enrolment, gone_is_fine, managed, suspicions},
    engine::{
        peering::{Answer, Connected, Dial, Failure, LONGEST_REFUSAL},
        policy::Evidence,
    },
    peer::{
        approval::{self, Nonce},
        client::{ConnectError, Connection},
        token,
        trust::Role,
    },
};

/// A request on the session that takes longer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How much later each further place of a peer is dialled than the one before.
const HEAD_START: Duration = Duration::from_millis(100);
/// How soon a peer that waits for a person is asked again.
const ASK_AGAIN_WAITING: SignedDuration = SignedDuration::from_secs(3);

/// Dials the places side by side until one proves the right key; the better ones have a head start. A
/// connection that stands is given up when the session goes on on the new one.
pub(super) async fn connect(
    context: &Arc<Context>,
    object: &ForeignCluster,
    dials: Vec<Dial>,
    expect: Option<ClusterId>,
) {
    let name = object.name_any();
    let before = context.links.connection(&name);
    let tries = dials.into_iter().map(|dial| {
        let expect = expect.clone();
        async move {
            let reached = reach(context, &dial, expect).await;
            (dial.url, reached)
        }
    });
    let mut tries = SideBySide::new(HEAD_START, tries);
    let mut failures = BTreeMap::new();
    let mut is_misused = false;
    while let Some((url, reached)) = tries.next().await {
        match reached {
            Ok((connected, connection)) => {
                take(context, &name, connected, connection).await;
                return;
            }
            Err(error) => {
                tracing::debug!(cluster = %name, %url, %error, "Endpoint did not answer");
                if let Some(id) = expect.as_ref().filter(|_| suspicions::is_misuse(&error)) {
                    let message = format!("{url}: {error}");
                    context.suspicions.misused(id, message, context.now());
                    is_misused = true;
                }
                failures.insert(url, failure(&error));
            }
        }
    }
    let (now, before) = (context.links.connection(&name), before.as_ref());
    let found_meanwhile = now.is_some_and(|now| before.is_none_or(|old| !Arc::ptr_eq(&now, old)));
    if !found_meanwhile {
        context.links.failed(&name, failures, context.now());
        if let Some(id) = expect.filter(|_| is_misused) {
            // Its advertisement may lead to another cluster now.
            context.neighbours.look_again(id);
        }
    }
}

async fn take(context: &Arc<Context>, name: &str, connected: Connected, connection: Connection) {
    let present = context.links.facts(name);
    let continued = match (present.session, present.answer) {
        (Some(_), Some(answer)) => go_on(context, &connection, answer.code).await,
        (None, _) | (_, None) => None,
    };
    let links = &context.links;
    links.adopt(name, connected, Arc::new(connection));
    if let Some((answer, request)) = continued {
        let (own_id, clock) = (&context.own.cluster_id, Arc::clone(&context.clock));
        links.answered(name, answer);
        links.watch(name, own_id, request, clock);
    }
}

/// Asks a peer on another connection whether all is as it was.
async fn go_on(
    context: &Context,
    connection: &Connection,
    code: Option<String>,
) -> Option<(Answer, PeeringRequest)> {
    let answer = introduce(context, connection, code).await.ok()?;
    let own_id = context.own.cluster_id.as_str();
    let request = bounded(requests(connection).get_opt(own_id)).await.ok()??;
    (answer.decision == Decision::Accepted).then_some((answer, request))
}

pub(super) fn failure(error: &ConnectError) -> Failure {
    Failure {
        reason: error.reason().to_owned(),
        message: error.to_string(),
    }
}

/// Writes who answered into an object that named only a place, unless another object stands for
/// that cluster already: then this one says so, and the connection is given up.
pub(super) async fn fill_identity(
    context: &Arc<Context>,
    object: &ForeignCluster,
    id: &ClusterId,
    cluster_name: &ClusterName,
) -> Result<(), Error> {
    if let Some(other) = enrolment::fill_identity(context, object, id, cluster_name).await? {
        let failure = Failure {
            reason: reason::DUPLICATE.to_owned(),
            message: format!(
                "ForeignCluster {other} stands for the same cluster {id}; delete one of them"
            ),
        };
        context
            .links
            .broken(&object.name_any(), failure, context.now());
    } else {
        // What it has shown before was not written while the object named no cluster.
        context.neighbours.look_again(id.clone());
    }
    Ok(())
}

/// Asks the peer to accept us, with the proof of the fleet secret where there is one.
pub(super) async fn identify(context: &Arc<Context>, object: &ForeignCluster) {
    let name = object.name_any();
    let Some(connection) = context.links.connection(&name) else {
        return;
    };
    let code = context
        .links
        .facts(&name)
        .answer
        .and_then(|answer| answer.code);
    match introduce(context, &connection, code).await {
        Ok(answer) => context.links.answered(&name, answer),
        Err(ConnectError::Busy { retry_after })
            if context
                .links
                .put_off(&name, &context.own_name(), until(context, retry_after)) => {}
        Err(error) => context.links.broken(&name, failure(&error), context.now()),
    }
}

/// When a busy peer wants to be asked again.
fn until(context: &Context, retry_after: Duration) -> Timestamp {
    let pause = SignedDuration::try_from(retry_after).unwrap_or(LONGEST_REFUSAL);
    context.now() + pause.min(LONGEST_REFUSAL)
}

/// Introduces us on a connection and reads the answer. While a person has to decide there, the
/// approval code is agreed on, once a connection and not too often; `code` is the one that it has
/// already.
pub(crate) async fn introduce(
    context: &Context,
    connection: &Connection,
    code: Option<String>,
) -> Result<Answer, ConnectError> {
    let (approvals, peer_id) = (&context.approvals, &connection.proven.cluster_id);
    let nonce = if code.is_none() && approvals.may_ask(peer_id, Instant::now()) {
        Nonce::generate().ok()
    } else {
        None
    };
    let token = context.tokens.received(context, peer_id).await;
    let mut request = IdentityRequest {
        commitment: nonce.map(Nonce::commitment),
        ..introduction(context, connection, token.as_ref())
    };
    let mut answer = connection.identify(&request).await?;
    let mut code = code;
    if let Some((own, theirs)) = nonce.zip(answer.nonce.as_deref().and_then(Nonce::parse)) {
        approvals.note_reveal(peer_id, Instant::now());
        request.commitment = None;
        request.nonce = Some(own.to_text());
        answer = connection.identify(&request).await?;
        code = Some(approval::code(
            (&context.proven(), own),
            (&connection.proven, theirs),
            &connection.exporter,
        ));
    }
    let pause = match answer.decision {
        Decision::Accepted | Decision::Waiting => ASK_AGAIN_WAITING,
        Decision::Refused | Decision::EmptyRefused => LONGEST_REFUSAL,
    };
    let knows_token = token.is_some_and(|token| knows_token(context, connection, &answer, &token));
    let evidence = if knows_fleet_secret(context, connection, &answer) {
        Some(Evidence::FleetSecret)
    } else {
        knows_token.then_some(Evidence::Token)
    };
    Ok(Answer {
        introduced: request.cluster_name,
        evidence,
        decision: answer.decision,
        message: answer.message,
        code,
        ask_again: context.now() + pause,
        recorded: false,
    })
}

fn introduction(
    context: &Context,
    connection: &Connection,
    token: Option<&TokenHash>,
) -> IdentityRequest {
    let own = &context.own;
    let peer_id = &connection.proven.cluster_id;
    let exporter = &connection.exporter;
    IdentityRequest {
        cluster_id: own.cluster_id.clone(),
        cluster_name: context.own_name(),
        auth_url: context.auth_url(),
        boot: String::new(),
        token: None,
        token_proof: token
            .map(|one| token::proof(one, Role::Home, &own.cluster_id, peer_id, exporter)),
        proof: context
            .fleet_secret()
            .map(|secret| secret.proof(Role::Home, &own.cluster_id, peer_id, &connection.exporter)),
        commitment: None,
        nonce: None,
    }
}

fn knows_fleet_secret(context: &Context, connection: &Connection, answer: &IdentityAnswer) -> bool {
    let (own_id, peer_id) = (&context.own.cluster_id, &connection.proven.cluster_id);
    context
        .fleet_secret()
        .zip(answer.proof.as_deref())
        .is_some_and(|(secret, proof)| {
            secret.verify(proof, Role::Foreign, own_id, peer_id, &connection.exporter)
        })
}

/// Whether the peer gave out the token that we were given in its name.
fn knows_token(
    context: &Context,
    connection: &Connection,
    answer: &IdentityAnswer,
    token: &TokenHash,
) -> bool {
    let (own_id, peer_id) = (&context.own.cluster_id, &connection.proven.cluster_id);
    answer.token_proof.as_deref().is_some_and(|proof| {
        let exporter = &connection.exporter;
        token::verify(token, proof, Role::Foreign, own_id, peer_id, exporter)
    })
}

fn requests(connection: &Connection) -> Api<PeeringRequest> {
    Api::all(connection.kube_client())
}

/// Creates our PeeringRequest at the peer, or finds the one that stands there, and watches it.
pub(super) async fn open_session(
    context: &Arc<Context>,
    object: &ForeignCluster,
    spec: PeeringRequestSpec,
) {
    let name = object.name_any();
    let Some(connection) = context.links.connection(&name) else {
        return;
    };
    let own_id = &context.own.cluster_id;
    let request = PeeringRequest {
        metadata: ObjectMeta {
            name: Some(own_id.to_string()),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    };
    let api = requests(&connection);
    context.links.opening(&name);
    let opened = bounded(async {
        match api.get_opt(own_id.as_str()).await? {
            Some(present) => Ok(present),
            None => api.create(&PostParams::default(), &request).await,
        }
    })
    .await;
    match opened {
        Ok(request) => {
            context
                .links
                .watch(&name, own_id, request, Arc::clone(&context.clock));
        }
        Err(error) => give_up(context, &name, &error),
    }
}

/// Writes our half of the session.
pub(super) async fn tell(
    context: &Arc<Context>,
    object: &ForeignCluster,
    own_name: &ClusterName,
    session: &HomeSession,
) {
    let name = object.name_any();
    let Some(connection) = context.links.connection(&name) else {
        return;
    };
    let identity = json!({ "clusterName": own_name });
    let patch = Patch::Merge(json!({
        "spec": { "clusterIdentity": identity, "session": session.as_change() },
    }));
    let api = requests(&connection);
    match bounded(api.patch(context.own.cluster_id.as_str(), &managed(), &patch)).await {
        Ok(request) => context.links.updated(&name, request),
        Err(error) => give_up(context, &name, &error),
    }
}

/// Deletes our PeeringRequest at the peer.
pub(super) async fn close_session(context: &Arc<Context>, object: &ForeignCluster) {
    let name = object.name_any();
    let Some(connection) = context.links.connection(&name) else {
        return;
    };
    let api = requests(&connection);
    let own_id = context.own.cluster_id.as_str();
    let parameters = DeleteParams::default();
    let deletion = bounded(async { gone_is_fine(api.delete(own_id, &parameters).await) });
    match deletion.await {
        Ok(()) => context.links.withdrawn(&name),
        Err(error) => give_up(context, &name, &error),
    }
}

fn give_up(context: &Context, name: &str, error: &kube::Error) {
    tracing::debug!(cluster = %name, %error, "Request on the session failed");
    let failure = Failure {
        reason: reason::PEER_SILENT.to_owned(),
        message: format!("the session failed: {error}"),
    };
    context.links.broken(name, failure, context.now());
}

async fn bounded<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    tokio::time::timeout(REQUEST_TIMEOUT, request)
        .await
        .unwrap_or_else(|_| {
            Err(kube::Error::Service(
                "the peer did not answer in time".into(),
            ))
        })
}

#[cfg(test)]
mod tests;
