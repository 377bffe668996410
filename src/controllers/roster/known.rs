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

/// What changed among the ForeignClusters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    /// The ids of all of them.
    pub(super) known: BTreeSet<ClusterId>,
    /// What was deleted, by name.
    pub(super) gone: BTreeMap<String, Trace>,
}

/// What is remembered of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) uid: Option<String>,
    pub(super) id: Option<ClusterId>,
}

impl Trace {
    fn of(object: &ForeignCluster) -> Self {
        Self {
            uid: object.uid(),
            id: claimed_id(object),
        }
    }
}

/// Follows the ForeignClusters: tells when one is gone, and when there are other ids than before.
pub(super) fn follow(client: Client) -> BoxStream<'static, News> {
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

/// The objects by their name.
#[derive(Debug, Default)]
struct Book {
    present: BTreeMap<String, Trace>,
    listed: BTreeMap<String, Trace>,
    told: BTreeSet<ClusterId>,
}

impl Book {
    /// Takes an event; returns what follows from it that was not told before.
    fn take(&mut self, event: Event<ForeignCluster>) -> Option<News> {
        let mut gone = BTreeMap::new();
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(object.name_any(), Trace::of(&object));
            }
            Event::InitDone => {
                gone = std::mem::replace(&mut self.present, std::mem::take(&mut self.listed));
                gone.retain(|name, trace| {
                    let present = self.present.get(name);
                    present.is_none_or(|present| present.uid != trace.uid)
                });
            }
            Event::Apply(object) => {
                self.present.insert(object.name_any(), Trace::of(&object));
            }
            Event::Delete(object) => {
                self.present.remove(&object.name_any());
                gone.insert(object.name_any(), Trace::of(&object));
            }
        }
        let ids = self.present.values().filter_map(|trace| trace.id.clone());
        let known: BTreeSet<ClusterId> = ids.collect();
        (known != self.told || !gone.is_empty()).then(|| {
            self.told.clone_from(&known);
            News { known, gone }
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
        let mut object = ForeignCluster::new(name, spec);
        object.metadata.uid = Some(format!("uid of {name}"));
        object
    }

    fn news(known: &[&str], gone: &[(&str, Option<&str>)]) -> News {
        let gone = gone.iter().map(|&(name, id)| {
            let trace = Trace::of(&object(name, id));
            (name.to_owned(), trace)
        });
        News {
            known: known.iter().map(|id| id.parse().expect("an id")).collect(),
            gone: gone.collect(),
        }
    }

    #[test]
    fn the_ids_follow_the_objects_and_what_goes_is_told() {
        let (rome, milan) = (("rome", Some("rome-1")), ("by-hand", Some("milan-1")));
        let mut book = Book::default();
        for (event, told) in vec![
            (Event::Init, None),
            (Event::InitApply(object("rome", Some("rome-1"))), None),
            (Event::InitApply(object("copy", Some("rome-1"))), None),
            (Event::InitApply(object("by-hand", None)), None),
            (Event::InitDone, Some(news(&["rome-1"], &[]))),
            (Event::Apply(object("rome", Some("rome-1"))), None),
            (
                Event::Apply(object("by-hand", Some("milan-1"))),
                Some(news(&["milan-1", "rome-1"], &[])),
            ),
            (
                Event::Delete(object("rome", Some("rome-1"))),
                Some(news(&["milan-1", "rome-1"], &[rome])),
            ),
            (
                Event::Delete(object("copy", Some("rome-1"))),
                Some(news(&["milan-1"], &[("copy", Some("rome-1"))])),
            ),
            (Event::Init, None),
            (Event::InitDone, Some(news(&[], &[milan]))),
        ] {
            let shown = format!("{event:?}");
            assert_eq!(book.take(event), told, "{shown:.40}");
        }
    }
}
