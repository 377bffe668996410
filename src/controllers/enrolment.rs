//! One ForeignCluster per cluster id, whoever finds the cluster first.

mod handover;
mod standing;

use std::{collections::BTreeMap, time::Duration};

use kube::{
    Api, ResourceExt as _,
    api::{ListParams, ObjectMeta, Patch},
};
use serde_json::json;

pub use self::standing::{claimed_id, standing};
pub(super) use self::{
    handover::fill_identity,
    standing::{is_denied, precedence, verdict},
};
use super::{
    Context, Error, creating, managed, peering_request::admitted, search_domain::belonging,
};
use crate::{
    api::{
        ClusterId, ClusterName, ForeignCluster, ForeignClusterSpec, SearchDomain,
        foreign_cluster::{ClusterIdentity, DiscoveryType, IncomingPeering, TrustMode},
        labels,
    },
    engine::{
        addresses::AuthUrl,
        naming,
        peering::status::STAGE_JOIN_REQUESTED,
        policy::{self, Evidence, Trust},
    },
};

/// How many clusters of the LAN may wait for a person at one address.
const STRANGERS_OF_ADDRESS: usize = 16;
/// How often a cluster that nobody has let in may change what its object says of it.
const CHANGE_PAUSE: Duration = Duration::from_mins(1);

/// A cluster whose key was proven, as somebody found it.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// Its id.
    pub cluster_id: ClusterId,
    /// Its name, possibly empty.
    pub cluster_name: ClusterName,
    /// The URL of its peer endpoint.
    pub auth_url: String,
    /// How it was found.
    pub source: DiscoveryType,
    /// The SearchDomains that it was found through, the most promising first.
    pub search_domains: Vec<SearchDomain>,
    /// What it has shown besides its key.
    pub evidence: Option<Evidence>,
}

/// Finds the ForeignCluster that stands for a cluster.
pub async fn find(context: &Context, id: &ClusterId) -> Result<Option<ForeignCluster>, Error> {
    Ok(standing(list(context).await?, id))
}

/// Makes sure that a cluster has its ForeignCluster, and returns it.
///
/// Policy writes the spec when the object is created. A find may take over an object that a
/// visit made and nobody has touched since, and follows the address of what it has found before.
pub async fn enrol(context: &Context, newcomer: &Newcomer) -> Result<ForeignCluster, Error> {
    let _alone = context.enrolment.lock().await;
    let objects = list(context).await?;
    let present = standing(&objects, &newcomer.cluster_id).or_else(|| {
        let mut objects = objects.iter();
        objects.find(|object| is_same_place(object, newcomer))
    });
    match present {
        Some(present) => update(context, present, newcomer).await,
        None => create(context, &objects, newcomer).await,
    }
}

/// Lists all ForeignClusters.
pub(super) async fn list(context: &Context) -> Result<Vec<ForeignCluster>, Error> {
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(Error::api("list ForeignClusters"))?;
    Ok(list.items)
}

/// Whether a person's object without an identity names the very place where the cluster was
/// dialled. What a visitor says about its own place proves nothing.
fn is_same_place(object: &ForeignCluster, newcomer: &Newcomer) -> bool {
    if newcomer.source == DiscoveryType::IncomingPeering {
        return false;
    }
    let url = object.spec.auth_url.trim_end_matches('/');
    let identity = object.spec.cluster_identity.as_ref();
    let is_nobodys = identity.is_none_or(|identity| identity.cluster_id.is_empty());
    is_nobodys && url == newcomer.auth_url.trim_end_matches('/')
}

async fn create(
    context: &Context,
    objects: &[ForeignCluster],
    newcomer: &Newcomer,
) -> Result<ForeignCluster, Error> {
    let is_stranger = newcomer.source == DiscoveryType::Lan && newcomer.evidence.is_none();
    if is_stranger && is_crowded(context, objects, newcomer) {
        return Err(Error::Crowded);
    }
    let nobody = ClusterId::from_spki(&[]);
    let taken: BTreeMap<String, ClusterId> = objects
        .iter()
        .map(|object| {
            (
                object.name_any(),
                claimed_id(object).unwrap_or_else(|| nobody.clone()),
            )
        })
        .collect();
    let name = naming::object_name(&newcomer.cluster_name, &newcomer.cluster_id, &taken);
    let config = context.policy().discovery_config;
    let found = newcomer.source != DiscoveryType::IncomingPeering;
    let join = found && belonging::joins(newcomer, &config, newcomer.evidence.is_some());
    let object = ForeignCluster {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(object_labels(newcomer)),
            annotations: Some(object_annotations(context, newcomer, join)),
            owner_references: Some(belonging::owners(newcomer)).filter(|owners| !owners.is_empty()),
            ..ObjectMeta::default()
        },
        spec: ForeignClusterSpec {
            cluster_identity: Some(identity(newcomer)),
            namespace: Some(labels::NAMESPACE.to_owned()),
            join,
            discovery_type: newcomer.source,
            auth_url: newcomer.auth_url.clone(),
            trust_mode: if newcomer.evidence.is_some() {
                TrustMode::Trusted
            } else {
                TrustMode::Untrusted
            },
            incoming_peering_enabled: IncomingPeering::Auto,
        },
        status: None,
    };
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    let created = api
        .create(&creating(), &object)
        .await
        .map_err(Error::api("create a ForeignCluster"))?;
    tracing::info!(
        cluster = %name,
        id = %newcomer.cluster_id,
        source = newcomer.source.as_str(),
        join = created.spec.join,
        "Cluster found"
    );
    Ok(created)
}

/// Whether as many clusters of the LAN wait for a person at the address of a newcomer as may: one host
/// can have any number of keys.
fn is_crowded(context: &Context, objects: &[ForeignCluster], newcomer: &Newcomer) -> bool {
    let host = |url: &str| {
        let url = url.parse::<AuthUrl>().ok()?;
        Some(url.host().clone())
    };
    let here = host(&newcomer.auth_url);
    let waiting = objects.iter().filter(|object| {
        object.spec.discovery_type == DiscoveryType::Lan
            && admitted(context, object) == Trust::Waiting
            && host(&object.spec.auth_url) == here
    });
    waiting.count() >= STRANGERS_OF_ADDRESS
}

async fn update(
    context: &Context,
    present: &ForeignCluster,
    newcomer: &Newcomer,
) -> Result<ForeignCluster, Error> {
    let mut spec = serde_json::Map::new();
    let (mut marks, mut notes) = (serde_json::Map::new(), serde_json::Map::new());
    let source = newcomer.source;
    let takes_over = policy::takes_over(source, present.spec.discovery_type);
    if takes_over {
        spec.insert("discoveryType".into(), json!(source));
        marks.insert(labels::DISCOVERY_TYPE.into(), json!(source));
        if is_undecided(present) && !present.spec.is_denied() {
            let shown = newcomer.evidence.is_some();
            let trusted = shown || present.spec.trust_mode == TrustMode::Trusted;
            let join = belonging::joins(newcomer, &context.policy().discovery_config, trusted);
            spec.insert("join".into(), json!(join));
            let by = join.then_some(labels::POLICY);
            notes.insert(labels::JOINED_BY.into(), json!(by));
        }
    }
    let follows = source == present.spec.discovery_type
        && source != DiscoveryType::Manual
        && (source != DiscoveryType::IncomingPeering
            || newcomer.evidence.is_some()
            || may_change(context, present));
    if takes_over || follows {
        if present.spec.auth_url != newcomer.auth_url {
            spec.insert("authUrl".into(), json!(newcomer.auth_url));
        }
        if let Some(name) = changed_name(present, newcomer) {
            let renamed = json!({ "clusterName": name });
            spec.insert("clusterIdentity".into(), renamed);
        }
        if !spec.is_empty() {
            let second = context.now().as_second().to_string();
            notes.insert(labels::LAST_UPDATE.into(), json!(second));
        }
    }
    // An object that names no cluster yet may become another one's.
    if let Some(evidence) = newcomer.evidence
        && claimed_id(present).is_some()
        && present.spec.trust_mode != TrustMode::Trusted
        && !present.spec.is_denied()
    {
        spec.insert("trustMode".into(), json!(TrustMode::Trusted));
        notes.insert(labels::TRUSTED_BY.into(), json!(evidence.reason()));
    }
    if let Some(domain) = belonging::unlabelled(present, newcomer) {
        marks.insert(labels::SEARCH_DOMAIN.into(), json!(domain));
    }
    let mut metadata = json!({ "labels": marks, "annotations": notes });
    let owners = belonging::changed_owners(present, newcomer);
    if let Some(owners) = &owners {
        json_patch::merge(&mut metadata, &json!({ "ownerReferences": owners }));
    }
    if spec.is_empty() && marks.is_empty() && owners.is_none() {
        return Ok(present.clone());
    }
    let patch = json!({ "metadata": metadata, "spec": spec });
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    api.patch(&present.name_any(), &managed(), &Patch::Merge(patch))
        .await
        .map_err(Error::api("update a ForeignCluster"))
}

/// Whether a cluster that came to us may change what its object says of it: always when it is let in,
/// once a minute while it waits for that, and never when it is not.
fn may_change(context: &Context, present: &ForeignCluster) -> bool {
    let changed = present.annotations().get(labels::LAST_UPDATE);
    let changed = changed.and_then(|second| second.parse::<i64>().ok());
    match admitted(context, present) {
        Trust::Accepted(_) => true,
        Trust::Waiting => changed.is_none_or(|changed| {
            let since = context.now().as_second().abs_diff(changed);
            since >= CHANGE_PAUSE.as_secs()
        }),
        Trust::Refused => false,
    }
}

/// The name that the cluster goes by now, if it is another one than before.
fn changed_name<'a>(present: &ForeignCluster, newcomer: &'a Newcomer) -> Option<&'a str> {
    let name = newcomer.cluster_name.as_str();
    let identity = present.spec.cluster_identity.as_ref();
    let shown = identity.and_then(|identity| identity.cluster_name.as_deref());
    let is_other = identity.is_some() && !name.is_empty() && shown != Some(name);
    is_other.then_some(name)
}

/// Whether nobody has ever asked for the join of an object that a visit made, so that policy may
/// still decide it.
fn is_undecided(object: &ForeignCluster) -> bool {
    let asked = object
        .status
        .as_ref()
        .is_some_and(|status| status.timeline.contains_key(STAGE_JOIN_REQUESTED));
    let was_visit = object.spec.discovery_type == DiscoveryType::IncomingPeering;
    was_visit && !object.spec.join && !asked
}

fn identity(newcomer: &Newcomer) -> ClusterIdentity {
    let name = newcomer.cluster_name.as_str();
    ClusterIdentity {
        cluster_id: newcomer.cluster_id.to_string(),
        cluster_name: (!name.is_empty()).then(|| name.to_owned()),
    }
}

fn object_labels(newcomer: &Newcomer) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (
            labels::CLUSTER_ID.to_owned(),
            newcomer.cluster_id.to_string(),
        ),
        (
            labels::DISCOVERY_TYPE.to_owned(),
            newcomer.source.as_str().to_owned(),
        ),
    ]);
    if let Some(domain) = newcomer.search_domains.first() {
        labels.insert(labels::SEARCH_DOMAIN.to_owned(), domain.name_any());
    }
    labels
}

fn object_annotations(
    context: &Context,
    newcomer: &Newcomer,
    join: bool,
) -> BTreeMap<String, String> {
    let second = context.now().as_second().to_string();
    let mut annotations = BTreeMap::from([(labels::LAST_UPDATE.to_owned(), second)]);
    if let Some(evidence) = newcomer.evidence {
        annotations.insert(labels::TRUSTED_BY.to_owned(), evidence.reason().to_owned());
    }
    if join {
        annotations.insert(labels::JOINED_BY.to_owned(), labels::POLICY.to_owned());
    }
    annotations
}

#[cfg(test)]
pub(super) use tests::context;

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use futures::future::BoxFuture;
    use jiff::Timestamp;
    use kube::api::{PatchParams, PostParams};
    use tokio::sync::watch;

    use super::*;
    use crate::{
        api::{self, ClusterConfigSpec, Fingerprint, SearchDomainSpec},
        controllers::context::Parts,
        engine::{addressing::Surroundings, peering::Own},
        kubeapi::{KubeApi, Options},
        peer::{
            client::{ConnectError, Connection, Connector, Target},
            web_pki::WebPki,
        },
    };

    struct Nobody;

    impl Connector for Nobody {
        fn connect<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Connection, ConnectError>> {
            Box::pin(async { Err(ConnectError::OwnIdentity) })
        }
    }

    /// A cluster that can reach nobody.
    pub(in crate::controllers) async fn context() -> Arc<Context> {
        let clock: crate::controllers::Clock = Arc::new(|| Timestamp::UNIX_EPOCH);
        let options = Options::in_memory(Arc::clone(&clock), api::crds());
        let (_, surroundings) = watch::channel(Surroundings::default());
        let (_, config) = watch::channel(ClusterConfigSpec::default());
        Context::new(Parts {
            client: KubeApi::open(options).await.unwrap().client(),
            connector: Arc::new(Nobody),
            own: Own {
                cluster_id: ClusterId::from_spki(b"own"),
                fingerprint: Fingerprint::from_spki(b"own"),
                cluster_name: ClusterName::default(),
                auth_url: String::new(),
                pod_cidr: "10.244.0.0/16".parse().unwrap(),
                external_cidr: "10.1.0.0/24".parse().unwrap(),
                tunnel: None,
            },
            service_cidr: "10.96.0.0/12".parse().unwrap(),
            surroundings,
            fleet: watch::channel(None).1,
            web_pki: WebPki::default(),
            config,
            clock,
        })
    }

    pub(super) fn newcomer(source: DiscoveryType) -> Newcomer {
        Newcomer {
            cluster_id: ClusterId::from_spki(b"peer"),
            cluster_name: ClusterName::neutralise("milan"),
            auth_url: "https://10.0.0.2:5870".to_owned(),
            source,
            search_domains: Vec::new(),
            evidence: None,
        }
    }

    /// A person trusts whoever proves to be at a place, and has not been told yet who that is.
    pub(super) async fn trusted_place(context: &Context) {
        let spec = ForeignClusterSpec {
            auth_url: "https://10.0.0.2:5870".to_owned(),
            trust_mode: TrustMode::Trusted,
            ..ForeignClusterSpec::default()
        };
        let object = ForeignCluster::new("by-hand", spec);
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    #[tokio::test]
    async fn a_visitor_that_claims_a_trusted_place_gets_nothing_by_it() {
        let context = context().await;
        trusted_place(&context).await;
        let visitor = enrol(&context, &newcomer(DiscoveryType::IncomingPeering))
            .await
            .unwrap();
        assert_ne!(visitor.name_any(), "by-hand");
        assert_eq!(visitor.spec.trust_mode, TrustMode::Untrusted);
    }

    #[tokio::test]
    async fn a_cluster_that_was_dialled_at_a_persons_place_stays_one_object() {
        let context = context().await;
        trusted_place(&context).await;
        let found = enrol(&context, &newcomer(DiscoveryType::Lan))
            .await
            .unwrap();
        assert_eq!(found.name_any(), "by-hand");
        assert_eq!(list(&context).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_a_cluster_shows_is_not_written_into_an_object_that_names_no_cluster() {
        let context = context().await;
        trusted_place(&context).await;
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let change = async |spec: serde_json::Value| {
            let patch = Patch::Merge(json!({ "spec": spec }));
            let patched = api.patch("by-hand", &PatchParams::default(), &patch).await;
            patched.unwrap();
        };
        change(json!({"trustMode": "Untrusted"})).await;
        let found = Newcomer {
            evidence: Some(Evidence::FleetSecret),
            ..newcomer(DiscoveryType::Lan)
        };
        let object = enrol(&context, &found).await.unwrap();
        // Another cluster may answer there when the object asks.
        assert_eq!(object.name_any(), "by-hand");
        assert_eq!(object.spec.trust_mode, TrustMode::Untrusted);
        assert!(!object.annotations().contains_key(labels::TRUSTED_BY));
        change(json!({"clusterIdentity": {"clusterID": found.cluster_id}})).await;
        let object = enrol(&context, &found).await.unwrap();
        assert_eq!(object.spec.trust_mode, TrustMode::Trusted);
    }

    #[tokio::test]
    async fn a_search_domain_that_wants_no_join_is_not_overruled_by_the_lan() {
        let context = context().await;
        let spec = SearchDomainSpec {
            domain: "example.test".to_owned(),
            autojoin: false,
            public_only: None,
            trusted_by: Vec::new(),
        };
        let listed = Newcomer {
            search_domains: vec![SearchDomain::new("example", spec)],
            ..newcomer(DiscoveryType::Wan)
        };
        for found in [listed, newcomer(DiscoveryType::Lan)] {
            let object = enrol(&context, &found).await.unwrap();
            let (source, join) = (object.spec.discovery_type, object.spec.join);
            assert_eq!((source, join), (found.source, false));
        }
    }

    #[tokio::test]
    async fn an_object_stands_for_one_cluster_all_its_life() {
        let context = context().await;
        trusted_place(&context).await;
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        for (identity, is_taken) in [
            (json!({"clusterID": ""}), true),
            (json!({"clusterID": "milan-1"}), true),
            (json!({"clusterName": "milan"}), true),
            (json!({"clusterID": "turin-1"}), false),
            (json!({"clusterID": ""}), false),
            (json!(null), false),
        ] {
            let patch = Patch::Merge(json!({"spec": {"clusterIdentity": identity}}));
            let patched = api.patch("by-hand", &PatchParams::default(), &patch).await;
            assert_eq!(patched.is_ok(), is_taken, "{identity}: {patched:?}");
        }
    }

    #[tokio::test]
    async fn what_a_cluster_shows_lifts_no_block() {
        let context = context().await;
        let found = newcomer(DiscoveryType::Wan);
        let object = enrol(&context, &found).await.unwrap();
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let no = Patch::Merge(json!({"spec": {"incomingPeeringEnabled": "No"}}));
        let name = object.name_any();
        let parameters = PatchParams::default();
        api.patch(&name, &parameters, &no).await.unwrap();
        for evidence in [Evidence::FleetSecret, Evidence::Tlsa, Evidence::WebPki] {
            let showing = Newcomer {
                evidence: Some(evidence),
                ..found.clone()
            };
            let object = enrol(&context, &showing).await.unwrap();
            assert_eq!(object.spec.trust_mode, TrustMode::Untrusted, "{evidence:?}");
        }
    }

    #[tokio::test]
    async fn one_address_of_the_lan_has_few_clusters_that_nobody_let_in() {
        let context = context().await;
        let numbered = |number: usize, host: usize| Newcomer {
            cluster_id: ClusterId::from_spki(&number.to_be_bytes()),
            auth_url: format!("https://10.0.0.{host}:{}", 5000 + number),
            ..newcomer(DiscoveryType::Lan)
        };
        for number in 0..16 {
            enrol(&context, &numbered(number, 1)).await.unwrap();
        }
        let refused = enrol(&context, &numbered(90, 1)).await;
        assert!(matches!(refused, Err(Error::Crowded)), "{refused:?}");
        // One that shows something waits for nobody.
        let member = Newcomer {
            evidence: Some(Evidence::FleetSecret),
            ..numbered(92, 1)
        };
        enrol(&context, &member).await.unwrap();
        // The address of another one has its own, and who was found before stays found.
        enrol(&context, &numbered(91, 2)).await.unwrap();
        let first = enrol(&context, &numbered(0, 1)).await.unwrap();
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let trusted = Patch::Merge(json!({"spec": {"trustMode": "Trusted"}}));
        let name = first.name_any();
        let parameters = PatchParams::default();
        api.patch(&name, &parameters, &trusted).await.unwrap();
        enrol(&context, &numbered(90, 1)).await.unwrap();
    }

    #[tokio::test]
    async fn it_is_noted_when_policy_wants_the_join() {
        let context = context().await;
        let by = |object: &ForeignCluster| object.annotations().get(labels::JOINED_BY).cloned();
        let visit = newcomer(DiscoveryType::IncomingPeering);
        let visitor = enrol(&context, &visit).await.unwrap();
        assert_eq!((visitor.spec.join, by(&visitor)), (false, None));
        let other = Newcomer {
            cluster_id: ClusterId::from_spki(b"other"),
            ..newcomer(DiscoveryType::Lan)
        };
        for found in [newcomer(DiscoveryType::Lan), other] {
            let found = enrol(&context, &found).await.unwrap();
            let noted = Some(labels::POLICY.to_owned());
            assert_eq!((found.spec.join, by(&found)), (true, noted));
        }
    }

    #[tokio::test]
    async fn a_cluster_that_is_denied_is_not_joined_when_it_is_found() {
        let context = context().await;
        let visit = newcomer(DiscoveryType::IncomingPeering);
        let name = enrol(&context, &visit).await.unwrap().name_any();
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let no = Patch::Merge(json!({"spec": {"incomingPeeringEnabled": "No"}}));
        let parameters = PatchParams::default();
        api.patch(&name, &parameters, &no).await.unwrap();
        let found = enrol(&context, &newcomer(DiscoveryType::Lan))
            .await
            .unwrap();
        assert_eq!(found.spec.discovery_type, DiscoveryType::Lan);
        assert!(!found.spec.join);
    }

    #[tokio::test]
    async fn who_is_not_let_in_has_its_object_written_once_a_minute_and_who_is_denied_never() {
        let second = Arc::new(AtomicI64::new(0));
        let mut context = Arc::into_inner(context().await).unwrap();
        let time = Arc::clone(&second);
        context.clock =
            Arc::new(move || Timestamp::from_second(time.load(Ordering::SeqCst)).unwrap());
        let api: Api<ForeignCluster> = Api::all(context.client.clone());
        let said = async |at: i64| {
            second.store(at, Ordering::SeqCst);
            let visit = Newcomer {
                auth_url: format!("https://10.0.0.2:{}", 5000 + at),
                ..newcomer(DiscoveryType::IncomingPeering)
            };
            let object = enrol(&context, &visit).await.unwrap();
            (object.spec.auth_url == visit.auth_url, object.name_any())
        };
        let (_, name) = said(0).await;
        let decided = async |spec: serde_json::Value| {
            let patch = Patch::Merge(json!({ "spec": spec }));
            let patched = api.patch(&name, &PatchParams::default(), &patch).await;
            patched.unwrap();
        };
        for (at, is_kept) in [(30, false), (60, true), (61, false), (119, false)] {
            assert_eq!(said(at).await.0, is_kept, "{at}");
        }
        decided(json!({"trustMode": "Trusted"})).await;
        assert!(said(120).await.0 && said(121).await.0, "it is let in");
        decided(json!({"incomingPeeringEnabled": "No"})).await;
        assert!(!said(3000).await.0, "it is denied");
    }
}
