//! How a peer that comes to us is received: who it is, whether it may come in.

use std::{borrow::Borrow, sync::Arc};

use futures::future::BoxFuture;
use kube::{ResourceExt as _, runtime::reflector::Store};
use tokio::time::Instant;

use super::{
    Context, Error,
    enrolment::{self, Newcomer, is_denied, standing, verdict},
    peering_request::admitted,
    suspicions::Place,
};
use crate::{
    api::{
        ClusterId, ForeignCluster,
        foreign_cluster::DiscoveryType,
        labels,
        wire::{Attestation, Decision, Features, IdentityAnswer, IdentityRequest, Ids, PROTOCOL},
    },
    engine::policy::{Evidence, Trust},
    peer::{
        self,
        approval::Nonce,
        auth::{Reception, Session, Undecided},
        certificates::Proven,
        trust::{FleetSecret, Role},
        web_pki::Ends,
    },
};

/// How many clusters may wait for a person because they came to us.
const STRANGERS: usize = 64;
/// How many clusters may stand in our objects because they came to us, whatever let them in.
const VISITORS: usize = 1024;

/// The reception, where it fails.
const RECEPTION: &str = "reception";

/// What a cluster has shown besides its key, and what follows.
#[derive(Debug, Default)]
struct Showing {
    evidence: Option<Evidence>,
    /// Our proof of the fleet secret.
    proof: Option<String>,
    /// Our proof of the token.
    token_proof: Option<String>,
    /// The answer of a cluster that leaves no trace here.
    refusal: Option<IdentityAnswer>,
}

/// Receives peers with the objects of a [`Context`].
#[derive(Debug, Clone)]
pub struct FrontDesk {
    context: Arc<Context>,
}

impl FrontDesk {
    /// Makes a front desk.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    async fn receive(
        &self,
        session: &Session,
        request: IdentityRequest,
    ) -> Result<IdentityAnswer, Error> {
        let context = &self.context;
        let Some(peer) = &session.peer else {
            return Ok(refused("no identity was proven"));
        };
        let id = &peer.cluster_id;
        if *id == context.own.cluster_id {
            return Ok(self.meet_twin(session, &request));
        }
        if context.suspicions.twin().is_some() {
            return Ok(decided(
                Decision::Waiting,
                "another machine holds the identity of the peer",
            ));
        }
        let objects = enrolment::list(context).await?;
        let showing = self.look_at(session, &request, &objects).await?;
        if let Some(refusal) = showing.refusal {
            return Ok(refusal);
        }
        let newcomer = Newcomer {
            cluster_id: id.clone(),
            cluster_name: request.cluster_name.clone(),
            auth_url: place(&request.auth_url, session),
            source: DiscoveryType::IncomingPeering,
            search_domains: Vec::new(),
            evidence: showing.evidence,
        };
        let object = enrolment::enrol(context, &newcomer).await?;
        let admitted = if is_denied(&objects, id) {
            Trust::Refused
        } else {
            admitted(context, &object)
        };
        let nonce = self.agree_on_code(session, peer, &request, &admitted);
        context.neighbours.note_visit(id.clone(), context.now());
        if admitted.is_accepted() {
            context.neighbours.note_presence(id.clone(), context.now());
        }
        // The peer is there, so a try that was put off may happen now.
        context.links.try_now(&object.name_any());
        context.links.ask_soon(&object.name_any(), context.now());
        Ok(IdentityAnswer {
            proof: showing.proof,
            token_proof: showing.token_proof,
            nonce: nonce.map(Nonce::to_text),
            ..answer(&admitted)
        })
    }

    /// Takes note of another machine that has proven our own identity. What comes back from
    /// ourselves carries our own run of the program.
    fn meet_twin(&self, session: &Session, request: &IdentityRequest) -> IdentityAnswer {
        let suspicions = &self.context.suspicions;
        if !request.boot.is_empty() && request.boot != suspicions.boot() {
            suspicions.found_twin(Place {
                url: place(&request.auth_url, session),
                address: None,
                source: DiscoveryType::Lan,
            });
        }
        refused("that is our own identity")
    }

    /// Looks at what a cluster shows besides its key, in the order of the protocol (section 4).
    async fn look_at(
        &self,
        session: &Session,
        request: &IdentityRequest,
        objects: &[ForeignCluster],
    ) -> Result<Showing, Error> {
        let (context, id) = (&self.context, &request.cluster_id);
        let policy = context.policy().auth_config;
        let mut showing = Showing::default();
        let is_new = standing(objects, id).is_none();
        if is_new && came(objects).count() >= VISITORS {
            showing.refusal = Some(refused("too many clusters have come here"));
            return Ok(showing);
        }
        if is_denied(objects, id) {
            return Ok(showing);
        }
        let fleet = context.fleet_secret();
        let known = self.knows(fleet.as_deref(), session, request);
        if let Some(secret) = fleet.filter(|_| known) {
            let own_id = &context.own.cluster_id;
            showing.proof = Some(secret.proof(Role::Foreign, id, own_id, &session.exporter));
            showing.evidence = Some(Evidence::FleetSecret);
        }
        let is_in = known || policy.allow_empty_token || is_let_in(context, objects, id);
        if request.shows_token() {
            let tokens = &context.tokens;
            let redeemed = tokens.redeem(context, session, request, !is_in).await?;
            if !is_in && !redeemed.as_ref().is_some_and(|redeemed| redeemed.lets_in) {
                showing.refusal = Some(refused(
                    "the token is wrong, expired or used up: ask for another one",
                ));
                return Ok(showing);
            }
            if !is_in {
                showing.evidence = Some(Evidence::Token);
            }
            showing.token_proof = redeemed.map(|redeemed| redeemed.proof);
        } else if !is_in && policy.require_token {
            showing.refusal = Some(decided(
                Decision::EmptyRefused,
                "a token is needed: landbridge token create makes one at the peer",
            ));
        }
        let is_stranger = is_new && showing.evidence.is_none() && !is_in;
        if showing.refusal.is_none() && is_stranger && is_crowded(context, objects) {
            showing.refusal = Some(refused(
                "too many clusters wait for a person here; try again later",
            ));
        }
        Ok(showing)
    }

    fn knows(
        &self,
        fleet: Option<&FleetSecret>,
        session: &Session,
        request: &IdentityRequest,
    ) -> bool {
        let (id, own_id) = (&request.cluster_id, &self.context.own.cluster_id);
        let secret = fleet.zip(request.proof.as_deref());
        secret.is_some_and(|(secret, proof)| {
            secret.verify(proof, Role::Home, id, own_id, &session.exporter)
        })
    }

    /// Takes the peer's part in the approval code, and returns ours when it is our turn.
    fn agree_on_code(
        &self,
        session: &Session,
        peer: &Proven,
        request: &IdentityRequest,
        admitted: &Trust,
    ) -> Option<Nonce> {
        let approvals = &self.context.approvals;
        if let Some(nonce) = request.nonce.as_deref().and_then(Nonce::parse) {
            approvals.finish(&session.exporter, peer, &self.context.proven(), nonce);
        }
        let commitment = request
            .commitment
            .clone()
            .filter(|_| *admitted == Trust::Waiting)?;
        let (exporter, id) = (session.exporter, &peer.cluster_id);
        approvals.begin(exporter, id, commitment, Instant::now())
    }
}

/// Whether a cluster is accepted by its objects.
fn is_let_in<T: Borrow<ForeignCluster>>(context: &Context, objects: &[T], id: &ClusterId) -> bool {
    verdict(context, objects, id).is_some_and(|it| it.is_accepted())
}

/// The objects of clusters that came to us.
fn came(objects: &[ForeignCluster]) -> impl Iterator<Item = &ForeignCluster> {
    let all = objects.iter();
    all.filter(|object| object.spec.discovery_type == DiscoveryType::IncomingPeering)
}

/// Whether as many clusters wait for a person as may. Who is let in or denied does not wait.
fn is_crowded(context: &Context, objects: &[ForeignCluster]) -> bool {
    let waits = |object: &&ForeignCluster| admitted(context, object) == Trust::Waiting;
    came(objects).filter(waits).count() >= STRANGERS
}

/// Where the peer may be reached: what it says, else where it came from.
fn place(said: &str, session: &Session) -> String {
    /// The longest URL that is kept.
    const LIMIT: usize = 256;
    if said.starts_with("https://") && said.len() <= LIMIT {
        return said.to_owned();
    }
    session.address.map_or_else(String::new, |address| {
        let ip = address.ip().to_canonical();
        format!(
            "https://{}",
            std::net::SocketAddr::new(ip, peer::DEFAULT_PORT)
        )
    })
}

fn refused(message: &str) -> IdentityAnswer {
    decided(Decision::Refused, message)
}

fn decided(decision: Decision, message: &str) -> IdentityAnswer {
    IdentityAnswer {
        decision,
        message: message.to_owned(),
        proof: None,
        token_proof: None,
        nonce: None,
    }
}

fn answer(admitted: &Trust) -> IdentityAnswer {
    match admitted {
        Trust::Accepted(_) => decided(Decision::Accepted, ""),
        Trust::Waiting => decided(
            Decision::Waiting,
            "a person has to approve the cluster at the peer",
        ),
        Trust::Refused => refused("the cluster is blocked at the peer"),
    }
}

impl Reception for FrontDesk {
    fn ids(&self) -> BoxFuture<'_, Ids> {
        let own = &self.context.own;
        Box::pin(futures::future::ready(Ids {
            cluster_id: own.cluster_id.clone(),
            cluster_name: self.context.own_name(),
            guest_namespace: labels::NAMESPACE.to_owned(),
            landbridge: Some(Features {
                protocol: PROTOCOL,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                boot: self.context.suspicions.boot().to_owned(),
                features: Vec::new(),
                attestation: None,
            }),
        }))
    }

    fn attest<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Option<Attestation>> {
        let (context, exporter) = (Arc::clone(&self.context), session.exporter);
        let peer = session.peer.as_ref().map(|peer| peer.cluster_id.clone());
        let signing = tokio::task::spawn_blocking(move || {
            let ends = Ends {
                asked: &context.own.cluster_id,
                asking: &peer?,
                exporter: &exporter,
            };
            context
                .web_pki
                .attest(ends)
                .inspect_err(|error| tracing::warn!(%error, "Our certificate cannot be shown"))
                .ok()?
        });
        Box::pin(async move { signing.await.ok()? })
    }

    fn identify<'a>(
        &'a self,
        session: &'a Session,
        request: IdentityRequest,
    ) -> BoxFuture<'a, Result<IdentityAnswer, Undecided>> {
        Box::pin(async move {
            let (peer, failures) = (request.cluster_id.clone(), &self.context.failures);
            match self.receive(session, request).await {
                Ok(answer) => {
                    failures.mended(RECEPTION, "");
                    Ok(answer)
                }
                Err(error) => {
                    if failures.note(RECEPTION, "", error.to_string()).is_news {
                        tracing::warn!(%peer, %error, "A peer could not be received");
                    }
                    // Not an answer: the peer would take one as our decision.
                    Err(Undecided)
                }
            }
        })
    }

    /// Whether a cluster is accepted by all that the controller sees of it.
    fn is_known_accepted(&self, id: &ClusterId) -> bool {
        let seen = self.context.seen.get().map(Store::state);
        seen.is_some_and(|seen| is_let_in(&self.context, &seen, id))
    }

    fn accepted<'a>(&'a self, id: &'a ClusterId) -> BoxFuture<'a, Result<bool, Undecided>> {
        Box::pin(async move {
            let context = &self.context;
            let is_let_in = self.is_known_accepted(id) || {
                let objects = enrolment::list(context).await.map_err(|error| {
                    tracing::debug!(peer = %id, %error, "A peer's right could not be looked up");
                    Undecided
                })?;
                is_let_in(context, &objects, id)
            };
            if is_let_in {
                context.neighbours.note_presence(id.clone(), context.now());
            }
            Ok(is_let_in)
        })
    }
}

#[cfg(test)]
mod tests;
