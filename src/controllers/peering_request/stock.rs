//! What this cluster has to offer, read once for all peers that it is read for at about one time: on
//! a large cluster that is a list of thousands of pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt as _, future::ready};
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::ListParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    api::labels,
    controllers::{Context, Error},
    engine::offer::{self, Amounts},
};

/// For how long a reading stands unless a node changes. Pods change all the time, and are looked at
/// again with each resync only.
const AGE_LIMIT: Duration = Duration::from_secs(5);

/// The last reading.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// Counts the changes of nodes that were heard of.
    changes: AtomicU64,
    last: Mutex<Option<(u64, Instant, Arc<Reading>)>>,
}

/// What there is.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) nodes: Vec<Node>,
    /// What the pods leave.
    pub(super) free: Amounts,
}

impl Stock {
    /// Returns what there is.
    pub(super) async fn read(&self, client: &Client) -> Result<Arc<Reading>, Error> {
        // Whoever comes meanwhile waits for this one.
        let mut last = self.last.lock().await;
        let changes = self.changes.load(Ordering::Acquire);
        if let Some((known, at, reading)) = &*last
            && *known == changes
            && at.elapsed() < AGE_LIMIT
        {
            return Ok(Arc::clone(reading));
        }
        let all = ListParams::default();
        let nodes = Api::<Node>::all(client.clone()).list(&all).await;
        let nodes = nodes.map_err(Error::api("list Nodes"))?.items;
        let pods = Api::<Pod>::all(client.clone()).list(&all).await;
        let pods = pods.map_err(Error::api("list Pods"))?.items;
        let free = offer::free(&nodes, &pods);
        let reading = Arc::new(Reading { nodes, free });
        *last = Some((changes, Instant::now(), Arc::clone(&reading)));
        Ok(reading)
    }
}

/// Tells when one of our own nodes has other things to offer, or is gone.
pub(super) fn changes(context: Arc<Context>) -> impl Stream<Item = ()> + Send + 'static {
    let api = Api::<Node>::all(context.client.clone());
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut known = Known::default();
    events.filter_map(move |event| {
        let is_news = match event {
            Ok(event) => known.hear(&event),
            Err(error) => {
                tracing::debug!(%error, "The watch on Nodes broke");
                false
            }
        };
        if is_news {
            context.stock.changes.fetch_add(1, Ordering::Release);
        }
        ready(is_news.then_some(()))
    })
}

/// The nodes that there are.
#[derive(Debug, Default)]
struct Known {
    nodes: BTreeMap<String, Contribution>,
    /// Those that a new list has named so far.
    listed: BTreeSet<String>,
}

/// What of a node an offer is made of; a heartbeat changes nothing of it.
#[derive(Debug, PartialEq)]
struct Contribution {
    is_usable: bool,
    allocatable: Option<BTreeMap<String, Quantity>>,
    labels: BTreeMap<String, String>,
}

impl Known {
    /// Takes what is said of a node, and tells whether that is news.
    fn hear(&mut self, event: &Event<Node>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(node) => {
                self.listed.insert(node.name_any());
                self.learn(node)
            }
            // A node that went while nobody watched is missing in the list, and nothing else tells.
            Event::InitDone => {
                let before = self.nodes.len();
                self.nodes.retain(|name, _| self.listed.contains(name));
                self.nodes.len() < before
            }
            Event::Apply(node) => self.learn(node),
            Event::Delete(node) => self.nodes.remove(&node.name_any()).is_some(),
        }
    }

    fn learn(&mut self, node: &Node) -> bool {
        if node.labels().contains_key(labels::VIRTUAL_NODE_TYPE) {
            return false;
        }
        let contribution = Contribution {
            is_usable: offer::is_usable(node),
            allocatable: node.status.as_ref().and_then(|it| it.allocatable.clone()),
            labels: node.labels().clone(),
        };
        let before = self.nodes.get(&node.name_any());
        let is_news = before != Some(&contribution);
        self.nodes.insert(node.name_any(), contribution);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use axum::http::Request;
    use kube::{
        api::{Patch, PatchParams, PostParams},
        client::Body,
    };
    use serde_json::json;

    use super::*;
    use crate::controllers::enrolment::context;

    fn node(change: &serde_json::Value) -> Node {
        let mut node = json!({
            "metadata": {"name": "rome", "labels": {"gpu": "true"}},
            "status": {
                "allocatable": {"cpu": "4"},
                "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2027-01-01T00:00:00Z"}],
            },
        });
        json_patch::merge(&mut node, change);
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn only_what_an_offer_is_made_of_is_news() {
        let mut known = Known::default();
        let mut apply = |change: serde_json::Value| known.hear(&Event::Apply(node(&change)));
        assert!(apply(json!({})));
        assert!(!apply(
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        ));
        assert!(!apply(json!({"status": {"images": []}})));
        assert!(apply(json!({"status": {"allocatable": {"cpu": "3"}}})));
        assert!(apply(
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
        ));
        assert!(apply(json!({})));
        assert!(apply(json!({"spec": {"unschedulable": true}})));
        assert!(apply(json!({"metadata": {"labels": {"gpu": "false"}}})));
        let virtual_node = json!({"metadata": {"name": "liqo-milan",
            "labels": {labels::VIRTUAL_NODE_TYPE: labels::VIRTUAL_NODE}}});
        assert!(!apply(virtual_node));
        assert!(known.hear(&Event::Delete(node(&json!({})))));
        assert!(!known.hear(&Event::Delete(node(&json!({})))));
    }

    #[test]
    fn a_node_that_went_while_nobody_watched_is_missed() {
        let mut known = Known::default();
        let named = |name: &str| node(&json!({"metadata": {"name": name}}));
        let mut list = |names: &[&str]| {
            known.hear(&Event::Init);
            let all = names.iter().map(|name| Event::InitApply(named(name)));
            let mut news = false;
            for event in all.chain([Event::InitDone]) {
                news |= known.hear(&event);
            }
            news
        };
        assert!(list(&["rome", "milan"]));
        assert!(!list(&["rome", "milan"]));
        assert!(list(&["rome"]), "one has gone");
        assert!(!list(&["rome"]));
    }

    #[tokio::test]
    async fn one_reading_is_for_all_until_a_node_changes() {
        let context = context().await;
        let lists = Arc::new(AtomicUsize::new(0));
        let (client, count) = (context.client.clone(), Arc::clone(&lists));
        let service = tower::service_fn(move |request: Request<Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            let client = client.clone();
            async move { client.send(request).await }
        });
        let client = Client::new(service, "default");
        let mut changes = std::pin::pin!(changes(Arc::clone(&context)));
        let stock = &context.stock;
        let cpu = async || stock.read(&client).await.unwrap().free.get("cpu").copied();

        let nodes: Api<Node> = Api::all(context.client.clone());
        nodes
            .create(&PostParams::default(), &node(&json!({})))
            .await
            .unwrap();
        changes.next().await.unwrap();
        assert_eq!(cpu().await, Some(4000));
        assert_eq!(cpu().await, Some(4000));
        assert_eq!(lists.load(Ordering::Relaxed), 2, "the nodes and the pods");

        let smaller = Patch::Merge(json!({"status": {"allocatable": {"cpu": "3"}}}));
        let parameters = PatchParams::default();
        let patched = nodes.patch_status("rome", &parameters, &smaller).await;
        patched.unwrap();
        changes.next().await.unwrap();
        assert_eq!(cpu().await, Some(3000));
    }
}
