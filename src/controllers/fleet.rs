//! The fleet secret that a Secret of the API holds, for whoever has kubectl and no file.

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{api::labels, peer::trust::FleetSecret};

/// The key of the Secret.
const KEY: &str = "secret";

/// The fleet secret as it stands now, if there is one.
pub type Fleet = Option<Arc<FleetSecret>>;

/// Reads the fleet secret, so that it is known before the first cluster is found.
pub async fn read(client: &Client) -> Result<Fleet, Error> {
    match secrets(client).get_opt(labels::FLEET_SECRET).await {
        Ok(present) => Ok(present.as_ref().and_then(taken)),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::warn!("This account may not read the Secret of the fleet");
            Ok(None)
        }
        Err(error) => Err(Error::api("read the Secret of the fleet")(error)),
    }
}

/// Follows the Secret until the shutdown. Whoever waits for a person asks again within seconds, and
/// is let in by the new secret then.
pub async fn run(client: Client, fleet: watch::Sender<Fleet>, shutdown: CancellationToken) {
    let named = format!("metadata.name={}", labels::FLEET_SECRET);
    let named = watcher::Config::default().fields(&named);
    let mut changes = Box::pin(watcher(secrets(&client), named).default_backoff());
    let mut listed = None;
    loop {
        let change = tokio::select! {
            () = shutdown.cancelled() => return,
            change = changes.next() => change,
        };
        match change {
            Some(Ok(event)) => follow(event, &mut listed, &fleet),
            Some(Err(error)) => {
                tracing::debug!(%error, "The watch on the Secret of the fleet ended");
            }
            None => return,
        }
    }
}

fn follow(event: Event<Secret>, listed: &mut Fleet, fleet: &watch::Sender<Fleet>) {
    let told = match event {
        Event::Init => {
            *listed = None;
            return;
        }
        Event::InitApply(secret) => {
            *listed = taken(&secret);
            return;
        }
        Event::InitDone => listed.take(),
        Event::Apply(secret) => taken(&secret),
        Event::Delete(_) => None,
    };
    let text = |fleet: &Fleet| fleet.as_ref().map(|secret| secret.expose().to_owned());
    fleet.send_if_modified(|present| {
        let news = text(present) != text(&told);
        if news {
            tracing::info!(is_set = told.is_some(), "The fleet secret changed");
            *present = told;
        }
        news
    });
}

/// Returns what a Secret holds, unless it is of no use.
fn taken(secret: &Secret) -> Fleet {
    let text = secret.data.as_ref().and_then(|data| data.get(KEY));
    let text = text.and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let Some(text) = text else {
        tracing::warn!("The Secret of the fleet has no text under the key {KEY}");
        return None;
    };
    let secret = FleetSecret::new(text)
        .inspect_err(|error| tracing::warn!(%error, "The Secret of the fleet is of no use"));
    secret.ok().map(Arc::new)
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), labels::NAMESPACE)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::ByteString;
    use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
    use serde_json::json;

    use super::*;
    use crate::{
        api,
        controllers::{Clock, cluster_config},
        kubeapi::{KubeApi, Options},
    };

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    #[tokio::test]
    async fn the_secret_is_read_and_followed_and_a_weak_one_is_none() {
        let clock: Clock = Arc::new(|| Timestamp::UNIX_EPOCH);
        let options = Options::in_memory(clock, api::crds());
        let client = KubeApi::open(options).await.unwrap().client();
        let made = cluster_config::ensure_namespace(&client, labels::NAMESPACE).await;
        made.unwrap();
        assert!(read(&client).await.unwrap().is_none());
        let (sender, mut fleet) = watch::channel(None);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(client.clone(), sender, stop.clone()));

        let api = secrets(&client);
        let mut secret = Secret::default();
        secret.metadata.name = Some(labels::FLEET_SECRET.to_owned());
        let data = |text: &str| ByteString(format!("{text}\n").into_bytes());
        secret.data = Some([(KEY.to_owned(), data(TEXT))].into());
        api.create(&PostParams::default(), &secret).await.unwrap();
        let told = |fleet: &Fleet| fleet.as_ref().map(|secret| secret.expose().to_owned());
        fleet.changed().await.unwrap();
        assert_eq!(told(&fleet.borrow_and_update()).as_deref(), Some(TEXT));
        assert_eq!(told(&read(&client).await.unwrap()).as_deref(), Some(TEXT));

        let weak = Patch::Merge(json!({"data": {KEY: data("short")}}));
        let parameters = PatchParams::default();
        let patched = api.patch(labels::FLEET_SECRET, &parameters, &weak).await;
        patched.unwrap();
        fleet.changed().await.unwrap();
        assert!(fleet.borrow_and_update().is_none());

        let strong = Patch::Merge(json!({"data": {KEY: data(TEXT)}}));
        let patched = api.patch(labels::FLEET_SECRET, &parameters, &strong).await;
        patched.unwrap();
        fleet.changed().await.unwrap();
        assert!(fleet.borrow_and_update().is_some());
        let all = DeleteParams::default();
        api.delete(labels::FLEET_SECRET, &all).await.unwrap();
        fleet.changed().await.unwrap();
        assert!(fleet.borrow_and_update().is_none());
        stop.cancel();
        task.await.unwrap();
    }
}
