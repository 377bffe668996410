//! `landbridge add URL`: the ForeignCluster that a person writes.

use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    Failure,
    args::Add,
    connection::{connect, explain},
    output,
};
use crate::{
    api::{ForeignCluster, ForeignClusterSpec, foreign_cluster::DiscoveryType, labels},
    config::AuthUrl,
};

/// The port of the peer endpoint when none is given.
const DEFAULT_PORT: u16 = 5870;

/// Creates the object and says what happens next.
pub(super) async fn add(options: Add) -> Result<(), Failure> {
    let url = peer_url(&options.url).map_err(Failure::Usage)?;
    let host = url.host().to_string();
    let name = options.name.unwrap_or_else(|| object_name(&host));
    let mut cluster = ForeignCluster::new(
        &name,
        ForeignClusterSpec {
            auth_url: url.to_string(),
            join: options.join,
            discovery_type: DiscoveryType::Manual,
            ..ForeignClusterSpec::default()
        },
    );
    let label = DiscoveryType::Manual.as_str().to_owned();
    cluster.metadata.labels = Some([(labels::DISCOVERY_TYPE.to_owned(), label)].into());
    let client = connect(&options.connect).await?;
    output::print(&enter(client, &cluster).await?)
}

/// Creates the object, or takes over the one that is there, and returns what happens next.
async fn enter(client: Client, cluster: &ForeignCluster) -> Result<String, Failure> {
    let api: Api<ForeignCluster> = Api::all(client);
    let (name, url) = (cluster.name_any(), &cluster.spec.auth_url);
    let parameters = PostParams {
        field_manager: Some(labels::MANAGER.to_owned()),
        ..PostParams::default()
    };
    let (done, is_denied) = match api.create(&parameters, cluster).await {
        Ok(_) => ("created", false),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let present = take_over(&api, &name, &cluster.spec).await?;
            let done = "came to us before and is yours now,";
            (done, present.spec.is_denied())
        }
        Err(error) => return Err(explain(&error)),
    };
    let next = if is_denied {
        format!("but it is denied here: landbridge approve {name} lifts that, and trusts it")
    } else if cluster.spec.join {
        "its identity is read from there, then it is joined; landbridge status --wait follows it"
            .to_owned()
    } else {
        format!("its identity is read from there; landbridge join {name} peers with it")
    };
    Ok(format!("foreigncluster/{name} {done} for {url}: {next}\n"))
}

/// Makes the object of a cluster that came to us the person's own, and returns it. Whoever answers at
/// the URL still has to prove the identity that the object names.
async fn take_over(
    api: &Api<ForeignCluster>,
    name: &str,
    spec: &ForeignClusterSpec,
) -> Result<ForeignCluster, Failure> {
    let present = api.get(name).await.map_err(|error| explain(&error))?;
    if present.spec.discovery_type != DiscoveryType::IncomingPeering {
        let message = format!("foreigncluster/{name} exists already: choose another --name");
        return Err(Failure::NotSo(message));
    }
    let patch = json!({
        "metadata": {"labels": { labels::DISCOVERY_TYPE: spec.discovery_type }},
        "spec": {
            "authUrl": spec.auth_url,
            "discoveryType": spec.discovery_type,
            "join": spec.join || present.spec.join,
        },
    });
    api.patch(
        name,
        &PatchParams::apply(labels::MANAGER),
        &Patch::Merge(patch),
    )
    .await
    .map_err(|error| explain(&error))
}

/// Completes what was typed to the URL of a peer endpoint.
fn peer_url(typed: &str) -> Result<AuthUrl, String> {
    // A URL with its scheme is complete: without a port, https means 443.
    let full = if typed.contains("://") {
        typed.to_owned()
    } else {
        let place = typed.strip_suffix('/').unwrap_or(typed);
        let after_address = place.rsplit(']').next().unwrap_or_default();
        if after_address.contains(':') {
            format!("https://{place}")
        } else {
            format!("https://{place}:{DEFAULT_PORT}")
        }
    };
    full.parse().map_err(|error| {
        let hint = "write it like https://milan.example.com:5870";
        format!("{typed:?} is not the URL of a peer endpoint: {error}: {hint}")
    })
}

/// Makes a host into an object name (DNS-1123 subdomain).
fn object_name(host: &str) -> String {
    let name: String = host
        .chars()
        .map(|character| match character {
            'a'..='z' | '0'..='9' | '-' | '.' => character,
            _ => '-',
        })
        .collect();
    name.trim_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::{self, foreign_cluster::IncomingPeering},
        kubeapi::{KubeApi, Options},
    };

    #[tokio::test]
    async fn who_came_to_us_is_taken_over_and_stays_denied() {
        let options = Options::in_memory(Arc::new(jiff::Timestamp::now), api::crds());
        let client = KubeApi::open(options).await.unwrap().client();
        let api: Api<ForeignCluster> = Api::all(client.clone());
        for (name, denied) in [("milan", false), ("turin", true)] {
            let mut visitor = ForeignCluster::new(name, ForeignClusterSpec::default());
            visitor.spec.discovery_type = DiscoveryType::IncomingPeering;
            if denied {
                visitor.spec.incoming_peering_enabled = IncomingPeering::No;
            }
            let created = api.create(&PostParams::default(), &visitor).await;
            created.unwrap();
            let mut wanted = visitor.clone();
            wanted.spec.discovery_type = DiscoveryType::Manual;
            wanted.spec.join = true;
            let said = enter(client.clone(), &wanted).await.unwrap();
            assert_eq!(said.contains("landbridge approve turin"), denied, "{said}");
            assert_eq!(said.contains("then it is joined"), !denied, "{said}");
            assert!(api.get(name).await.unwrap().spec.join);
        }
    }

    #[test]
    fn what_is_typed_becomes_a_url_and_a_name() {
        for (typed, url, name) in [
            ("10.77.0.2", "https://10.77.0.2:5870", "10.77.0.2"),
            ("milan:7000", "https://milan:7000", "milan"),
            ("milan/", "https://milan:5870", "milan"),
            ("[fd00::2]", "https://[fd00::2]:5870", "fd00--2"),
            (
                "https://Milan.example.com/",
                "https://milan.example.com:443",
                "milan.example.com",
            ),
            (
                "https://[fd00::2]:5870",
                "https://[fd00::2]:5870",
                "fd00--2",
            ),
        ] {
            let found = peer_url(typed).expect(typed);
            let host = found.host().to_string();
            assert_eq!(
                (found.to_string().as_str(), object_name(&host).as_str()),
                (url, name)
            );
        }
        for typed in [
            "",
            "http://milan",
            "https://milan/ids",
            "https://",
            "https://a@milan",
            "a b",
            "milan:",
            "milan:0",
            "milan:70000",
            "https://milan:587O",
            "milan//",
            "fd00::2",
        ] {
            let message = peer_url(typed).expect_err(typed);
            assert!(message.contains("write it like https://"), "{message}");
        }
    }
}
