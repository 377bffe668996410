//! What a kubeconfig says, for whoever connects to its cluster: nobody asks a proxy.

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Stands where a kubeconfig names no proxy, so that kube does not take the one of the environment.
const NO_PROXY: &str = "none";

/// Reads where the cluster of a kubeconfig is and how to get in.
///
/// # Errors
///
/// Why it cannot be used, without any secret.
pub async fn read(mut kubeconfig: Kubeconfig) -> Result<Config, String> {
    let named = kubeconfig.clusters.iter_mut();
    for cluster in named.filter_map(|named| named.cluster.as_mut()) {
        let proxy = cluster.proxy_url.take().filter(|proxy| !proxy.is_empty());
        cluster.proxy_url = Some(proxy.unwrap_or_else(|| NO_PROXY.to_owned()));
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| error.to_string())?;
    match config.proxy_url.take() {
        Some(proxy) if proxy != NO_PROXY => {
            Err("it names a proxy-url, and no proxy is asked: take it out".to_owned())
        }
        _ => Ok(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_proxy_of_a_kubeconfig_is_refused_without_its_password() {
        for (proxy, refused) in [("", false), ("http://ada:secret@proxy:1", true)] {
            let text = format!(
                "{{current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
                 clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1', proxy-url: '{proxy}'}}}}], \
                 users: [{{name: u, user: {{}}}}]}}"
            );
            let outcome = read(Kubeconfig::from_yaml(&text).unwrap()).await;
            assert_eq!(outcome.is_err(), refused, "{proxy}");
            if let Err(error) = outcome {
                assert!(
                    error.contains("proxy-url") && !error.contains("secret"),
                    "{error}"
                );
            }
        }
    }
}
