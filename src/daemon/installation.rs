//! What a real cluster needs before the controllers can run on it: our definitions and our key.

use std::{path::Path, time::Duration};

use k8s_openapi::{
    ByteString, api::core::v1::Secret,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams},
    client::ClientBuilder,
    config::Kubeconfig,
};
use serde_json::json;
use tower::timeout::TimeoutLayer;

use super::{Error, kubeconfig};
use crate::{
    api::{self, labels},
    controllers::cluster_config::ensure_namespace,
    peer::certificates::Identity,
};

/// The key of the identity in its Secret.
const IDENTITY_KEY: &str = "identity.pem";
/// How long an answer may take to begin.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may pause: longer than the server keeps a watch open that kube asks for.
const SILENCE_LIMIT: Duration = Duration::from_secs(295);
/// How long a new definition may take to be served.
const ESTABLISHED_LIMIT: Duration = Duration::from_secs(30);
/// How often a new definition is looked at.
const ESTABLISHED_LOOK: Duration = Duration::from_millis(200);

/// Makes a client of a kubeconfig.
pub(super) async fn client_of(path: &Path) -> Result<Client, Error> {
    let refuse = |error: String| Error::Cluster(format!("{}: {error}", path.display()));
    let known = Kubeconfig::read_from(path).map_err(|error| refuse(error.to_string()))?;
    let config = kubeconfig::read(known).await.map_err(refuse)?;
    client(config).map_err(|error| refuse(error.to_string()))
}

/// Makes a client of the service account of this pod.
pub(super) fn client_in_cluster() -> Result<Client, Error> {
    let config = kube::Config::incluster().map_err(|error| Error::Cluster(error.to_string()))?;
    client(config).map_err(|error| Error::Cluster(error.to_string()))
}

/// Makes a client that waits for nobody for ever. A watch may be silent after its answer began.
fn client(mut config: kube::Config) -> Result<Client, kube::Error> {
    config.read_timeout = Some(SILENCE_LIMIT);
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder.with_layer(&TimeoutLayer::new(ANSWER_LIMIT)).build())
}

/// Installs our definitions where they are missing or different, and waits until they are served.
pub(super) async fn install_definitions(client: &Client) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for wanted in api::crds() {
        let name = wanted.name_any();
        let present = api.get_opt(&name).await.map_err(|error| {
            if is_forbidden(&error) {
                Error::DefinitionsHidden(name.clone())
            } else {
                cannot(&name, &error)
            }
        })?;
        let written = match present {
            Some(present) if serves(&present, &wanted) => continue,
            Some(present) => {
                if let Some(whose) = owner(&present) {
                    return Err(Error::DefinitionsOfOthers { name, whose });
                }
                let mut next = present;
                next.labels_mut().extend(wanted.labels().clone());
                next.spec = wanted.spec;
                api.replace(&name, &PostParams::default(), &next).await
            }
            None => api.create(&PostParams::default(), &wanted).await,
        };
        written.map_err(|error| cannot(&name, &error))?;
        wait_until_served(&api, &name).await?;
        tracing::info!(definition = %name, "Resource definition installed");
    }
    Ok(())
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn cannot(name: &str, error: &kube::Error) -> Error {
    if is_forbidden(error) {
        Error::Definitions(name.to_owned())
    } else {
        Error::Cluster(error.to_string())
    }
}

/// Tells whose a definition is, if it is not ours to replace: somebody else's, or that of a newer
/// version of us.
fn owner(present: &CustomResourceDefinition) -> Option<String> {
    let label = |key| present.labels().get(key).map(String::as_str);
    if label(labels::MANAGED_BY) == Some(labels::MANAGER) {
        let version = label(labels::VERSION).unwrap_or_default();
        let is_newer = numbers(version) > numbers(env!("CARGO_PKG_VERSION"));
        return is_newer.then(|| format!("of landbridge {version}, which is newer"));
    }
    // Ours had no label at first, but always this text, which Liqo's do not have.
    let mut schemas = present.spec.versions.iter();
    let is_ours = schemas.any(|version| {
        let schema = version.schema.as_ref();
        let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref());
        let text = schema.and_then(|schema| schema.description.as_deref());
        text.is_some_and(|text| text.starts_with("Auto-generated derived type for "))
    });
    (!is_ours).then(|| "not of landbridge, but perhaps Liqo's".to_owned())
}

/// The numbers of a version, for a comparison.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split(['.', '-', '+']);
    parts.map_while(|part| part.parse().ok()).collect()
}

/// Whether what users and controllers see of it is what we want. A server fills in defaults elsewhere
/// in a definition.
fn serves(present: &CustomResourceDefinition, wanted: &CustomResourceDefinition) -> bool {
    let seen = |crd: &CustomResourceDefinition| {
        let names = &crd.spec.names;
        let versions = crd.spec.versions.iter().map(|version| {
            let (schema, columns) = (&version.schema, &version.additional_printer_columns);
            json!([
                schema,
                columns.as_deref().unwrap_or_default(),
                version.subresources
            ])
        });
        json!({
            "shortNames": names.short_names.as_deref().unwrap_or_default(),
            "categories": names.categories.as_deref().unwrap_or_default(),
            "versions": versions.collect::<Vec<_>>(),
        })
    };
    seen(present) == seen(wanted)
}

async fn wait_until_served(api: &Api<CustomResourceDefinition>, name: &str) -> Result<(), Error> {
    let served = async {
        loop {
            let present = api
                .get_opt(name)
                .await
                .map_err(|error| cannot(name, &error))?;
            let conditions = present
                .and_then(|crd| crd.status)
                .and_then(|status| status.conditions);
            let established = |one: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionCondition| {
                one.type_ == "Established" && one.status == "True"
            };
            if conditions.is_some_and(|all| all.iter().any(established)) {
                return Ok(());
            }
            tokio::time::sleep(ESTABLISHED_LOOK).await;
        }
    };
    tokio::time::timeout(ESTABLISHED_LIMIT, served)
        .await
        .unwrap_or_else(|_| Err(Error::Cluster(format!("{name} is not served after 30 s"))))
}

/// Reads our identity from its Secret, or makes one.
pub(super) async fn identity(client: &Client) -> Result<Identity, Error> {
    ensure_namespace(client, labels::NAMESPACE).await?;
    let api: Api<Secret> = Api::namespaced(client.clone(), labels::NAMESPACE);
    let refuse = |error: kube::Error| {
        Error::Cluster(format!("the Secret {}: {error}", labels::IDENTITY_SECRET))
    };
    if let Some(secret) = api.get_opt(labels::IDENTITY_SECRET).await.map_err(refuse)? {
        return read_identity(&secret);
    }
    let identity = Identity::generate()?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(labels::IDENTITY_SECRET.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(
            [(
                IDENTITY_KEY.to_owned(),
                ByteString(identity.to_pem().as_bytes().to_vec()),
            )]
            .into(),
        ),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(identity),
        // Another replica was faster: its key is ours too.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let secret = api.get(labels::IDENTITY_SECRET).await.map_err(refuse)?;
            read_identity(&secret)
        }
        Err(error) => Err(refuse(error)),
    }
}

fn read_identity(secret: &Secret) -> Result<Identity, Error> {
    let pem = secret.data.as_ref().and_then(|data| data.get(IDENTITY_KEY));
    let pem = pem.and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let Some(pem) = pem else {
        return Err(Error::Cluster(format!(
            "the Secret {} has no key {IDENTITY_KEY}; delete it to make a new identity",
            labels::IDENTITY_SECRET
        )));
    };
    Ok(Identity::from_pem(pem)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

    use super::*;
    use crate::kubeapi::{KubeApi, Options};

    #[tokio::test]
    async fn only_definitions_of_ours_that_are_not_newer_are_replaced() {
        for (label, version, text, whose) in [
            (Some("landbridge"), "0.0.9", "", None),
            (None, "", "Auto-generated derived type for X via `Y`", None),
            (Some("landbridge"), "99.1.0", "", Some("landbridge 99.1.0")),
            (None, "", "Liqo's", Some("not of landbridge")),
            (Some("helm"), "0.0.1", "Liqo's", Some("not of landbridge")),
        ] {
            let client = empty_cluster().await;
            let api: Api<CustomResourceDefinition> = Api::all(client.clone());
            let wanted = api::crds().remove(0);
            let mut old = wanted.clone();
            old.metadata.labels = label.map(|label| {
                let all = [(labels::MANAGED_BY, label), (labels::VERSION, version)];
                all.map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into()
            });
            let schema = old.spec.versions[0].schema.as_mut().unwrap();
            schema.open_api_v3_schema = Some(JSONSchemaProps {
                type_: Some("object".to_owned()),
                description: Some(text.to_owned()),
                ..JSONSchemaProps::default()
            });
            api.create(&PostParams::default(), &old).await.unwrap();
            let installed = install_definitions(&client).await;
            let now = api.get(&wanted.name_any()).await.unwrap();
            assert_eq!(serves(&now, &wanted), whose.is_none(), "{text}");
            if let Some(whose) = whose {
                let error = installed.unwrap_err().to_string();
                assert!(error.contains(whose), "{error}");
            } else {
                installed.unwrap();
                assert_eq!(now.labels(), wanted.labels());
            }
        }
    }

    #[tokio::test]
    async fn a_definition_that_shows_something_else_is_replaced() {
        let wanted = api::crds().remove(0);
        let changes: [fn(&mut CustomResourceDefinition); 3] = [
            |crd| crd.spec.names.short_names = None,
            |crd| crd.spec.versions[0].additional_printer_columns = None,
            |crd| {
                let status = serde_json::from_value(json!({"status": {}}));
                crd.spec.versions[0].subresources = status.unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let client = empty_cluster().await;
            let api: Api<CustomResourceDefinition> = Api::all(client.clone());
            let mut old = wanted.clone();
            change(&mut old);
            let made = api.create(&PostParams::default(), &old).await.unwrap();
            assert!(!serves(&made, &wanted), "change {number}");
            install_definitions(&client).await.unwrap();
            let now = api.get(&wanted.name_any()).await.unwrap();
            assert!(serves(&now, &wanted), "change {number}");
        }
    }

    async fn empty_cluster() -> Client {
        let options = Options::in_memory(Arc::new(jiff::Timestamp::now), Vec::new());
        KubeApi::open(options).await.unwrap().client()
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_says_nothing_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
            }
        });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let client = client(config).unwrap();
        let answer = client.apiserver_version();
        let answer = tokio::time::timeout(Duration::from_mins(1), answer).await;
        let error = answer.expect("an end").expect_err("no answer");
        assert!(matches!(error, kube::Error::Service(_)), "{error:?}");
        silent.abort();
    }
}
