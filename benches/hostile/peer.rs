//! A peer that is accepted by the fleet secret, and how long its requests take.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use landbridge::{
    api::{PeeringRequest, peering_request::PeeringRequestSpec, wire::Decision},
    peer::{
        client::{ConnectError, Connection, Connector as _},
        tls::Credentials,
        trust::{FleetSecret, Role},
    },
};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::rig::{SECRET, connector, credentials, request, target};

/// How often a minute a well-behaved peer reads, writes and comes anew. All are below the quota of a
/// peer, so that nothing is refused for its sake.
pub(crate) const READS: u64 = 1_800;
pub(crate) const WRITES: u64 = 480;
pub(crate) const SESSIONS: u64 = 40;

/// How long the program may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long requests of one kind took.
#[derive(Debug, Default)]
pub(crate) struct Times {
    sorted: Vec<Duration>,
    pub(crate) failed: usize,
}

impl Times {
    fn of(results: Vec<Option<Duration>>) -> Self {
        let all = results.len();
        let mut sorted: Vec<Duration> = results.into_iter().flatten().collect();
        sorted.sort();
        Self {
            failed: all - sorted.len(),
            sorted,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// How long that many in a hundred took at the most.
    pub(crate) fn at(&self, percent: usize) -> Duration {
        let place = self.sorted.len() * percent / 100;
        self.sorted
            .get(place.min(self.sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

/// Reads, writes and new sessions.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) kinds: [Times; 3],
}

/// A cluster with a session.
pub(crate) struct Peer {
    credentials: Arc<Credentials>,
    address: SocketAddr,
    pub(crate) api: Api<PeeringRequest>,
}

impl Peer {
    /// Waits until the endpoint answers, is accepted there, and has its object.
    pub(crate) async fn accepted(address: SocketAddr) -> Self {
        let credentials = credentials();
        let since = Instant::now();
        let connection = loop {
            match identify(&credentials, address).await {
                Ok(connection) => break connection,
                Err(error) => assert!(since.elapsed() < PATIENCE, "not accepted: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let api: Api<PeeringRequest> = Api::all(connection.kube_client());
        let own = credentials.identity().cluster_id();
        let object = PeeringRequest::new(own.as_str(), PeeringRequestSpec::default());
        api.create(&PostParams::default(), &object).await.unwrap();
        Self {
            credentials,
            address,
            api,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.credentials.identity().cluster_id().as_str()
    }

    /// Another session of the same peer, if it gets one.
    pub(crate) async fn another_session(&self) -> Option<Api<PeeringRequest>> {
        let connector = connector(&self.credentials);
        let connection = connector.connect(&target(self.address)).await.ok()?;
        Some(Api::all(connection.kube_client()))
    }

    /// Changes a field of the own object.
    pub(crate) async fn change(
        api: &Api<PeeringRequest>,
        name: &str,
        namespace: &str,
    ) -> Result<PeeringRequest, kube::Error> {
        let change = Patch::Merge(json!({"spec": {"namespace": namespace}}));
        api.patch(name, &PatchParams::default(), &change).await
    }

    /// Asks at a steady pace for so long.
    pub(crate) async fn measure(&self, time: Duration) -> Measured {
        let (reads, writes, sessions) = tokio::join!(
            paced(READS, time, |_| async {
                self.api.get(self.name()).await.map(drop)
            }),
            paced(WRITES, time, |index| async move {
                let namespace = format!("n{index}");
                let changed = Self::change(&self.api, self.name(), &namespace).await;
                changed.map(drop)
            }),
            paced(SESSIONS, time, |_| async {
                identify(&self.credentials, self.address).await.map(drop)
            }),
        );
        Measured {
            kinds: [reads, writes, sessions].map(Times::of),
        }
    }
}

/// Connects, proves who both are, and shows that both belong to one fleet.
async fn identify(
    credentials: &Arc<Credentials>,
    address: SocketAddr,
) -> Result<Connection, ConnectError> {
    let connection = connector(credentials).connect(&target(address)).await?;
    let own = credentials.identity().cluster_id();
    let secret = FleetSecret::new(SECRET).unwrap();
    let foreign = &connection.proven.cluster_id;
    let mut asked = request(own);
    asked.proof = Some(secret.proof(Role::Home, own, foreign, &connection.exporter));
    let answer = connection.identify(&asked).await?;
    assert_eq!(answer.decision, Decision::Accepted, "{}", answer.message);
    Ok(connection)
}

/// Does something so often a minute, never two of a kind at once, and takes the time of each from the
/// moment when it was due: who waits for the one before waits too.
async fn paced<T, E, F>(rate: u64, time: Duration, deed: impl Fn(u64) -> F) -> Vec<Option<Duration>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut ticks = interval(Duration::from_mins(1) / u32::try_from(rate).unwrap());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut results = Vec::new();
    for index in 0..rate * time.as_secs() / 60 {
        let due = ticks.tick().await;
        let done = deed(index).await.is_ok();
        results.push(done.then(|| due.elapsed()));
    }
    results
}
