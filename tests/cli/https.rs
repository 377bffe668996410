//! A client of its own, with what the kubeconfig says: the embedded API is plain HTTPS.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Certificate, Client, ClientBuilder, Identity, StatusCode, Version};
use serde_json::Value;

use super::*;

#[tokio::test]
async fn whoever_shows_the_certificate_of_the_kubeconfig_gets_in() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let home = TempDir::new().expect("a directory");
    let data = home.path().join("state");
    let mut daemon = daemon(&home, &data).spawn().expect("the program runs");
    until_there(&data.join("kubeconfig"));
    let kubeconfig = fs::read_to_string(data.join("kubeconfig")).expect("a kubeconfig");
    let kubeconfig: Value = serde_saphyr::from_str(&kubeconfig).expect("YAML");
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    let user = &kubeconfig["users"][0]["user"];
    let authority = decoded(&cluster["certificate-authority-data"]);
    let trusting = || {
        let authority = Certificate::from_pem(&authority).expect("a certificate");
        Client::builder().no_proxy().tls_certs_only([authority])
    };
    let own = ["client-key-data", "client-certificate-data"].map(|part| decoded(&user[part]));
    let own = Identity::from_pem(&own.concat()).expect("a key and its certificate");
    let url = format!(
        "{}/api/v1/namespaces",
        cluster["server"].as_str().expect("a URL")
    );

    let (code, answer) = ask(trusting().identity(own), &url).await;
    assert_eq!(
        (code, &answer["kind"]),
        (StatusCode::OK, &"NamespaceList".into())
    );
    let (code, answer) = ask(trusting(), &url).await;
    assert_eq!(
        (code, &answer["reason"]),
        (StatusCode::FORBIDDEN, &"Forbidden".into())
    );
    let distrustful = Client::builder().no_proxy().tls_certs_only([]);
    let distrustful = distrustful.build().expect("a client");
    distrustful
        .get(&url)
        .send()
        .await
        .expect_err("a stranger's certificate");

    signal(daemon.id(), Signal::SIGTERM);
    assert_eq!(daemon.wait().expect("our child").code(), Some(0));
}

async fn ask(client: ClientBuilder, url: &str) -> (StatusCode, Value) {
    let client = client.build().expect("a client");
    let answer = client.get(url).send().await.expect("an answer");
    assert_eq!(answer.version(), Version::HTTP_2);
    (answer.status(), answer.json().await.expect("JSON"))
}

fn decoded(part: &Value) -> Vec<u8> {
    let text = part.as_str().expect("a text");
    BASE64_STANDARD.decode(text).expect("base64")
}
