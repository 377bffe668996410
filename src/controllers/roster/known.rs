//! Which clusters there are objects for, as they come and go: these are heard first.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, future, stream::BoxStream};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};

use crate::{
    api::{ClusterId, ForeignCluster},
    controllers::enrolment::claimed_id,
};

/// Returns the ids of all ForeignClusters, again whenever they change.
pub(super) fn follow(client: Client) -> BoxStream<'static, BTreeSet<ClusterId>> {
    let objects = watcher(
        Api::<ForeignCluster>::all(client),
        watcher::Config::default(),
    );
    let mut book = Book::default();
    objects
        .default_backoff()
        .filter_map(move |event| {
            let news = match event {
                Ok(event) => book.take(event),
                Err(error) => {
                    tracing::debug!(%error, "ForeignClusters cannot be watched at the moment");
                    None
                }
            };
            future::ready(news)
        })
        .boxed()
}

/// The ids by the name of their object.
#[derive(Debug, Default)]
struct Book {
    ids: BTreeMap<String, ClusterId>,
    listed: BTreeMap<String, ClusterId>,
    told: BTreeSet<ClusterId>,
}

impl Book {
    /// Takes an event; returns the ids if they are others than before.
    fn take(&mut self, event: Event<ForeignCluster>) -> Option<BTreeSet<ClusterId>> {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                if let Some(id) = claimed_id(&object) {
                    self.listed.insert(object.name_any(), id);
                }
            }
            Event::InitDone => self.ids = std::mem::take(&mut self.listed),
            Event::Apply(object) => {
                match claimed_id(&object) {
                    Some(id) => self.ids.insert(object.name_any(), id),
                    None => self.ids.remove(&object.name_any()),
                };
            }
            Event::Delete(object) => {
                self.ids.remove(&object.name_any());
            }
        }
        let ids: BTreeSet<ClusterId> = self.ids.values().cloned().collect();
        (ids != self.told).then(|| {
            self.told.clone_from(&ids);
            ids
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::foreign_cluster::{ClusterIdentity, ForeignClusterSpec};

    fn object(name: &str, id: Option<&str>) -> ForeignCluster {
        let spec = ForeignClusterSpec {
            cluster_identity: id.map(|id| ClusterIdentity {
                cluster_id: id.to_owned(),
                cluster_name: None,
            }),
            ..ForeignClusterSpec::default()
        };
        ForeignCluster::new(name, spec)
    }

    fn ids(texts: &[&str]) -> BTreeSet<ClusterId> {
        let ids = texts.iter().map(|text| text.parse().expect("an id"));
        ids.collect()
    }

    #[test]
    fn the_ids_follow_the_objects_and_are_told_when_they_change() {
        let mut book = Book::default();
        for (event, told) in vec![
            (Event::Init, None),
            (Event::InitApply(object("rome", Some("rome-1"))), None),
            (Event::InitApply(object("by-hand", None)), None),
            (Event::InitDone, Some(ids(&["rome-1"]))),
            (Event::Apply(object("rome", Some("rome-1"))), None),
            (
                Event::Apply(object("by-hand", Some("milan-1"))),
                Some(ids(&["milan-1", "rome-1"])),
            ),
            (
                Event::Delete(object("rome", Some("rome-1"))),
                Some(ids(&["milan-1"])),
            ),
            (Event::Init, None),
            (Event::InitDone, Some(ids(&[]))),
        ] {
            let shown = format!("{event:?}");
            assert_eq!(book.take(event), told, "{shown:.40}");
        }
    }
}
