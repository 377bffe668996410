//! Events on a ForeignCluster, as `kubectl describe` shows them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};

use crate::{
    api::{ForeignCluster, labels},
    engine::peering::happening::Happening,
};

/// Events of cluster-scoped objects live here (Kubernetes convention).
const NAMESPACE: &str = "default";
/// At most so many events an object ...
const LIMIT: usize = 10;
/// ... in this time. More are dropped: the status still says everything.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// Publishes events, as many as people can read.
#[derive(Debug, Default)]
pub(crate) struct Events {
    sent: Mutex<BTreeMap<String, VecDeque<Timestamp>>>,
}

impl Events {
    /// Publishes what happened to an object. An event that the API does not take is only logged.
    pub(crate) async fn publish(
        &self,
        client: &Client,
        object: &ForeignCluster,
        happened: &[Happening],
        now: Timestamp,
    ) {
        let api: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
        for one in happened {
            if !self.may_send(&object.name_any(), now) {
                return;
            }
            if let Err(error) = api
                .create(&PostParams::default(), &event(object, one, now))
                .await
            {
                tracing::debug!(%error, "An event was not taken");
            }
        }
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&self, name: &str) {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }

    fn may_send(&self, name: &str, now: Timestamp) -> bool {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let times = sent.entry(name.to_owned()).or_default();
        while times.front().is_some_and(|first| now >= *first + WINDOW) {
            times.pop_front();
        }
        let room = times.len() < LIMIT;
        if room {
            times.push_back(now);
        }
        room
    }
}

fn event(object: &ForeignCluster, happening: &Happening, now: Timestamp) -> Event {
    let kind = if happening.warning {
        "Warning"
    } else {
        "Normal"
    };
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", object.name_any())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(happening.note.clone()),
        reason: Some(happening.reason.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(ForeignCluster::api_version(&()).into_owned()),
            kind: Some(ForeignCluster::kind(&()).into_owned()),
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(labels::MANAGER.to_owned()),
        reporting_instance: Some(labels::MANAGER.to_owned()),
        type_: Some(kind.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_events_is_cut_to_what_people_can_read() {
        let events = Events::default();
        let start = Timestamp::UNIX_EPOCH;
        let sent = |at| (0..20).filter(|_| events.may_send("milan", at)).count();
        assert_eq!(sent(start), LIMIT);
        assert_eq!(sent(start + SignedDuration::from_mins(1)), 0);
        assert_eq!(sent(start + WINDOW), LIMIT);
    }
}
