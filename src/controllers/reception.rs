//! How a peer that comes to us is received: who it is, whether it may come in.

use std::sync::Arc;

use futures::future::BoxFuture;
use kube::ResourceExt as _;

use super::{
    Context, Error,
    enrolment::{self, Newcomer},
    peering_request::admitted,
};
use crate::{
    api::{
        ClusterId, ForeignCluster,
        foreign_cluster::{DiscoveryType, TrustMode},
        labels,
        wire::{Decision, Features, IdentityAnswer, IdentityRequest, Ids, PROTOCOL},
    },
    engine::policy::Trust,
    peer::{
        self,
        approval::Nonce,
        auth::{Reception, Session},
        trust::Role,
    },
};

/// How many clusters that nobody approved may stand in our objects because they came to us.
const STRANGERS: usize = 64;

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
            return Ok(refused("that is our own identity"));
        }
        let known = self.knows_fleet_secret(session, id, &request);
        let present = enrolment::find(context, id).await?;
        if present.is_none() && !known && self.is_crowded().await? {
            return Ok(refused(
                "too many clusters wait for a person here; try again later",
            ));
        }
        let newcomer = Newcomer {
            cluster_id: id.clone(),
            cluster_name: request.cluster_name.clone(),
            auth_url: place(&request.auth_url, session),
            source: DiscoveryType::IncomingPeering,
            search_domains: Vec::new(),
            trusted: known && !present.as_ref().is_some_and(is_blocked),
        };
        let object = enrolment::enrol(context, &newcomer).await?;
        let admitted = admitted(context, &object);
        if admitted == Trust::Waiting && request.token.is_some() {
            return Ok(refused(
                "this version takes no tokens; use a fleet secret, or let a person approve the cluster",
            ));
        }
        let nonce = self.agree_on_code(session, id, &request, &admitted);
        // The peer is there, so a try that was put off may happen now.
        context.links.try_now(&object.name_any());
        let own_id = &context.own.cluster_id;
        let secret = context.fleet.as_ref().filter(|_| known);
        Ok(IdentityAnswer {
            proof: secret.map(|one| one.proof(Role::Foreign, id, own_id, &session.exporter)),
            nonce: nonce.map(Nonce::to_text),
            ..answer(&admitted)
        })
    }

    fn knows_fleet_secret(
        &self,
        session: &Session,
        id: &ClusterId,
        request: &IdentityRequest,
    ) -> bool {
        let own_id = &self.context.own.cluster_id;
        let secret = self.context.fleet.as_ref().zip(request.proof.as_deref());
        secret.is_some_and(|(secret, proof)| {
            secret.verify(proof, Role::Home, id, own_id, &session.exporter)
        })
    }

    /// Takes the peer's part in the approval code, and returns ours when it is our turn.
    fn agree_on_code(
        &self,
        session: &Session,
        id: &ClusterId,
        request: &IdentityRequest,
        admitted: &Trust,
    ) -> Option<Nonce> {
        let approvals = &self.context.approvals;
        if let Some(nonce) = request.nonce.as_deref().and_then(Nonce::parse) {
            approvals.finish(&session.exporter, id, &self.context.own.cluster_id, nonce);
        }
        let commitment = request
            .commitment
            .clone()
            .filter(|_| *admitted == Trust::Waiting)?;
        approvals.begin(session.exporter, commitment, self.context.now())
    }

    async fn is_crowded(&self) -> Result<bool, Error> {
        let objects = enrolment::list(&self.context).await?;
        let stranger = |object: &&ForeignCluster| {
            object.spec.discovery_type == DiscoveryType::IncomingPeering
                && object.spec.trust_mode != TrustMode::Trusted
        };
        Ok(objects.iter().filter(stranger).count() >= STRANGERS)
    }
}

fn is_blocked(object: &ForeignCluster) -> bool {
    object.spec.incoming_peering_enabled == crate::api::foreign_cluster::IncomingPeering::No
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
    IdentityAnswer {
        decision: Decision::Refused,
        message: message.to_owned(),
        proof: None,
        nonce: None,
    }
}

fn answer(admitted: &Trust) -> IdentityAnswer {
    let (decision, message) = match admitted {
        Trust::Accepted(_) => (Decision::Accepted, ""),
        Trust::Waiting => (
            Decision::Waiting,
            "a person has to approve the cluster at the peer",
        ),
        Trust::Refused => (Decision::Refused, "the cluster is blocked at the peer"),
    };
    IdentityAnswer {
        decision,
        message: message.to_owned(),
        proof: None,
        nonce: None,
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
                features: Vec::new(),
            }),
        }))
    }

    fn identify<'a>(
        &'a self,
        session: &'a Session,
        request: IdentityRequest,
    ) -> BoxFuture<'a, IdentityAnswer> {
        Box::pin(async move {
            self.receive(session, request)
                .await
                .unwrap_or_else(|error| {
                    tracing::error!(%error, "A peer could not be received");
                    IdentityAnswer {
                        decision: Decision::Waiting,
                        message: "the peer cannot decide just now".to_owned(),
                        proof: None,
                        nonce: None,
                    }
                })
        })
    }

    fn accepted<'a>(&'a self, id: &'a ClusterId) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            match enrolment::find(&self.context, id).await {
                Ok(Some(object)) => admitted(&self.context, &object).is_accepted(),
                Ok(None) => false,
                Err(error) => {
                    tracing::error!(%error, "A peer's right could not be looked up");
                    false
                }
            }
        })
    }
}
