//! A small model of one peer: what the steps of a plan do to the objects and the connection.

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, ResourceQuotaSpec},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};

use super::*;
use crate::{
    api::{
        AdvertisementSpec, AdvertisementStatus, ForeignClusterSpec, PeeringRequestStatus,
        advertisement::SecretReference,
        foreign_cluster::{ClusterIdentity, DiscoveryType},
        labels,
        peering_request::{ForeignSession, SessionNetwork},
    },
    engine::{addressing::Ground, policy::Evidence},
};

const URL: &str = "https://192.168.1.12:5870";
const START: i64 = 1_800_000_000;

/// How the peer behaves.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) answers: bool,
    pub(super) knows_secret: bool,
    pub(super) offers: bool,
    pub(super) decision: Decision,
}

/// An object, the facts, and a peer that answers what is asked.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) object: ForeignCluster,
    pub(super) facts: Facts,
    pub(super) peer: Peer,
    pub(super) now: Timestamp,
    pub(super) gone: bool,
}

fn own_id() -> ClusterId {
    "home".parse().unwrap()
}

fn peer_id() -> ClusterId {
    "foreign".parse().unwrap()
}

impl Model {
    /// A cluster that was just found on the LAN, with its join decided by policy.
    pub(super) fn found() -> Self {
        let start = Timestamp::from_second(START).unwrap();
        let spec = ForeignClusterSpec {
            cluster_identity: Some(ClusterIdentity {
                cluster_id: peer_id().to_string(),
                cluster_name: Some("milan".to_owned()),
            }),
            join: true,
            discovery_type: DiscoveryType::Lan,
            auth_url: URL.to_owned(),
            trust_mode: TrustMode::Untrusted,
            ..ForeignClusterSpec::default()
        };
        let neighbour = Neighbour {
            endpoints: vec![PeerEndpoint {
                url: URL.to_owned(),
                source: "LAN".to_owned(),
                ..PeerEndpoint::default()
            }],
            addresses: BTreeMap::from([(URL.to_owned(), "192.168.1.12:5870".parse().unwrap())]),
            ttl: 120,
            expired: None,
            source: DiscoveryType::Lan,
        };
        let mut object = ForeignCluster::new("milan", spec);
        let noted = (labels::JOINED_BY.to_owned(), labels::POLICY.to_owned());
        object.metadata.annotations = Some([noted].into());
        Self {
            object,
            facts: facts(start, neighbour),
            peer: Peer {
                answers: true,
                knows_secret: false,
                offers: true,
                decision: Decision::Accepted,
            },
            now: start,
            gone: false,
        }
    }

    /// A member of the fleet with which everything stands, the visit of the peer included.
    pub(super) fn peered() -> Self {
        let mut model = Self::found();
        model.peer.knows_secret = true;
        model.visit();
        run(&mut model);
        assert!(model.facts.node.is_some() && model.facts.tunnel.is_some());
        model
    }

    /// The peer asks for our resources.
    pub(super) fn visit(&mut self) {
        let mut request = PeeringRequest::new(peer_id().as_str(), PeeringRequestSpec::default());
        request.spec.session = Some(HomeSession {
            protocol: 1,
            network: Some(network()),
            accepted: Acceptance::Accepted,
        });
        self.facts.request = Some(request);
    }

    /// The advertisement of the peer is gone.
    pub(super) fn lose(&mut self) {
        if let Some(neighbour) = &mut self.facts.neighbour {
            neighbour.endpoints.clear();
            neighbour.addresses.clear();
            neighbour.expired = Some(self.now);
        }
    }

    /// A person deletes the object.
    pub(super) fn delete(&mut self) {
        self.object.metadata.deletion_timestamp = Some(Time(self.now));
        let finalizers = self.object.metadata.finalizers.as_deref();
        self.gone = finalizers.unwrap_or_default().is_empty();
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.object, &self.facts, self.now)
    }

    /// Notes that the peer's answer stands in the status.
    pub(super) fn recorded(&mut self) {
        if let Some(answer) = &mut self.facts.link.answer {
            answer.recorded = true;
        }
    }

    /// Whether nothing stands of the peering, here or there.
    pub(super) fn is_empty(&self) -> bool {
        self.facts.advertisement.is_none()
            && self.facts.node.is_none()
            && self.facts.link.session.is_none()
            && (self.facts.request.is_some() || self.facts.tunnel.is_none())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the rest is told apart below"
    )]
    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::AddFinalizer => {
                self.object.metadata.finalizers = Some(vec![labels::FINALIZER_PEERED.to_owned()]);
            }
            Step::RemoveFinalizer => {
                self.object.metadata.finalizers = None;
                self.gone = self.object.metadata.deletion_timestamp.is_some();
            }
            Step::FillIdentity(id, name) => {
                self.object.spec.cluster_identity = Some(ClusterIdentity {
                    cluster_id: id.to_string(),
                    cluster_name: Some(name.to_string()),
                });
            }
            Step::SetTrust(mode, by) => {
                self.object.spec.trust_mode = *mode;
                let annotations = self.object.metadata.annotations.get_or_insert_default();
                annotations.remove(labels::TRUSTED_BY);
                let by = by.map(|by| (labels::TRUSTED_BY.to_owned(), by.reason().to_owned()));
                annotations.extend(by);
            }
            Step::ForgetPolicy => {
                let annotations = self.object.metadata.annotations.as_mut();
                annotations.map(|all| all.remove(labels::JOINED_BY));
            }
            Step::Disown => self.object.metadata.owner_references = None,
            Step::Forget => self.gone = true,
            Step::Entomb => self.facts.tombstone = true,
            Step::Exhume => self.facts.tombstone = false,
            Step::DismissRequest => self.facts.request = None,
            step => {
                self.talk(step);
                self.write(step);
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not talk")]
    fn talk(&mut self, step: &Step) {
        let (now, peer) = (self.now, self.peer.clone());
        let link = &mut self.facts.link;
        match step {
            Step::Connect { dials, .. } if peer.answers && !dials.is_empty() => {
                *link = Link {
                    connected: Some(connected()),
                    withdrawn: link.withdrawn,
                    ..Link::default()
                };
            }
            Step::Connect { .. } => link.retry_at = Some(now + SignedDuration::from_secs(1)),
            Step::Identify => {
                link.answer = Some(Answer {
                    code: None,
                    decision: peer.decision,
                    message: String::new(),
                    introduced: self.facts.own.cluster_name.clone(),
                    evidence: peer.knows_secret.then_some(Evidence::FleetSecret),
                    ask_again: now + SignedDuration::from_secs(3),
                    recorded: false,
                });
            }
            Step::OpenSession(spec) => {
                let mut request = PeeringRequest::new(own_id().as_str(), (**spec).clone());
                request.status = Some(said(&peer));
                link.session = Some(Session {
                    request,
                    heard: now,
                });
                link.withdrawn = false;
            }
            Step::Tell(name, said) => {
                let session = link.session.as_mut().expect("it is told on a session");
                let identity = &mut session.request.spec.cluster_identity;
                identity.cluster_name = Some(name.to_string());
                let told = session.request.spec.session.as_ref();
                session.request.spec.session = Some(merged(told, &said.as_change()));
            }
            Step::CloseSession if peer.answers => {
                link.session = None;
                link.withdrawn = true;
            }
            Step::CloseSession => {
                link.retry_at = Some(now + SignedDuration::from_secs(1));
                disconnect(link);
            }
            Step::Disconnect => disconnect(link),
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is not written")]
    fn write(&mut self, step: &Step) {
        let facts = &mut self.facts;
        match step {
            Step::WriteAdvertisement(offer, answer) => {
                let spec = AdvertisementSpec {
                    cluster_id: peer_id().to_string(),
                    offer: (**offer).clone(),
                    neighbors: None,
                    properties: None,
                    kube_config_ref: SecretReference::default(),
                };
                let mut advertisement = Advertisement::new("advertisement", spec);
                advertisement.status = Some(AdvertisementStatus {
                    advertisement_status: *answer,
                    vk_created: *answer == Acceptance::Accepted,
                    ..AdvertisementStatus::default()
                });
                facts.advertisement = Some(advertisement);
            }
            Step::WriteLocalNetwork(wish) => {
                let mut config = NetworkConfig::new("local", wish.spec.clone());
                config.status = Some(wish.status.clone());
                facts.local_network = Some(config);
            }
            Step::WriteRemoteNetwork(wish) => {
                let mut config = NetworkConfig::new("remote", wish.spec.clone());
                config.status = Some(wish.status.clone());
                facts.remote_network = Some(config);
            }
            Step::WriteTunnel(wish) => {
                let mut tunnel = TunnelEndpoint::new("tunnel", wish.spec.clone());
                let present = facts.tunnel.take().and_then(|old| old.status);
                tunnel.status = Some(merged(present.as_ref(), &wish.status));
                facts.tunnel = Some(tunnel);
            }
            Step::WriteNode(wish) => facts.node = Some(node(wish)),
            Step::RenewLease => facts.lease_renewed = Some(self.now),
            Step::RemoveAdvertisement => facts.advertisement = None,
            Step::RemoveTunnel => facts.tunnel = None,
            Step::RemoveNetworks => {
                facts.local_network = None;
                facts.remote_network = None;
            }
            Step::RemoveNode => {
                facts.node = None;
                facts.lease_renewed = None;
            }
            _ => {}
        }
    }
}

/// A status after a merge patch: what the new one does not name stays as it was.
fn merged<S>(present: Option<&S>, wish: &impl serde::Serialize) -> S
where
    S: serde::Serialize + serde::de::DeserializeOwned,
{
    let mut status = serde_json::to_value(present).unwrap();
    json_patch::merge(&mut status, &serde_json::to_value(wish).unwrap());
    serde_json::from_value(status).unwrap()
}

fn facts(start: Timestamp, neighbour: Neighbour) -> Facts {
    let pod_cidr = "10.244.0.0/16".parse().unwrap();
    Facts {
        visited: None,
        present: None,
        visitor_code: None,
        codes_withheld: false,
        twin: None,
        misuse: None,
        own: Own {
            cluster_id: own_id(),
            fingerprint: Fingerprint::from_spki(b"home"),
            cluster_name: ClusterName::neutralise("rome"),
            auth_url: String::new(),
            pod_cidr,
            external_cidr: "10.1.0.0/24".parse().unwrap(),
            tunnel: Some(OwnTunnel {
                public_key: "ours".to_owned(),
                port: 5871,
                mtu: 1420,
            }),
        },
        config: ClusterConfigSpec::default(),
        started: start,
        neighbour: Some(neighbour),
        scopes: BTreeMap::new(),
        link: Link::default(),
        request: None,
        advertisement: None,
        accepted_elsewhere: 0,
        local_network: None,
        remote_network: None,
        tunnel: None,
        node: None,
        lease_renewed: None,
        ground: Ground::new(own_id(), pod_cidr),
        tombstone: false,
        rival: None,
    }
}

fn disconnect(link: &mut Link) {
    link.connected = None;
    link.answer = None;
    link.session = None;
}

fn connected() -> Connected {
    Connected {
        url: URL.to_owned(),
        address: Some("192.168.1.12:5870".parse().unwrap()),
        cluster_id: peer_id(),
        cluster_name: ClusterName::neutralise("milan"),
        fingerprint: Fingerprint::from_spki(b"milan"),
    }
}

fn network() -> SessionNetwork {
    SessionNetwork {
        pod_cidr: "10.244.0.0/16".to_owned(),
        external_cidr: "10.2.0.0/24".to_owned(),
        endpoints: Vec::new(),
        public_key: "theirs".to_owned(),
        port: 5871,
        mtu: 1420,
        pod_cidr_nat: Some("10.99.0.0/16".to_owned()),
    }
}

/// What the peer says on the session.
fn said(peer: &Peer) -> PeeringRequestStatus {
    let when = Time(Timestamp::from_second(START).unwrap());
    let hard = BTreeMap::from([("cpu".to_owned(), Quantity("2".to_owned()))]);
    let offer = Offer {
        resource_quota: Some(ResourceQuotaSpec {
            hard: Some(hard),
            ..ResourceQuotaSpec::default()
        }),
        labels: None,
        images: None,
        prices: None,
        limit_range: None,
        timestamp: when.clone(),
        time_to_live: when,
    };
    PeeringRequestStatus {
        session: Some(ForeignSession {
            offer: peer.offers.then_some(offer),
            network: Some(network()),
            message: String::new(),
        }),
        ..PeeringRequestStatus::default()
    }
}

fn node(wish: &NodeWish) -> Node {
    let condition = |kind: &str, holds: bool| NodeCondition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        ..NodeCondition::default()
    };
    let mut node = Node {
        spec: Some(NodeSpec {
            taints: Some(vec![virtual_node_taint()]),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            capacity: Some(wish.capacity.clone()),
            conditions: Some(vec![
                condition("Ready", wish.ready),
                condition("NetworkUnavailable", !wish.network),
            ]),
            ..NodeStatus::default()
        }),
        ..Node::default()
    };
    node.metadata.labels = Some(wish.labels.clone());
    let annotations = [
        (labels::NODE_CLUSTER_ID, &wish.cluster_id),
        (labels::OFFERED_LABELS, &wish.offered_labels),
    ];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.clone()));
    node.metadata.annotations = Some(annotations.into());
    node
}
