//! `landbridge token`: what lets a cluster in without a person.

use std::io::{BufRead, IsTerminal as _};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    Failure,
    args::{Named, TokenCreate, TokenList, TokenRevoke, TokenVerb},
    connection::{connect, explain},
    fleet_secret, output, peers, prompt,
};
use crate::api::{
    ClusterId, labels,
    token::{self, GivenToken, TokenHash},
};

/// The longest line that is read as a token from standard input.
const LENGTH_LIMIT: u64 = 512;

/// Does what the verb says.
pub(super) async fn token(verb: TokenVerb) -> Result<(), Failure> {
    match verb {
        TokenVerb::Create(options) => create(options).await,
        TokenVerb::List(options) => list(options).await,
        TokenVerb::Revoke(options) => revoke(options).await,
        TokenVerb::Store(options) => store(options).await,
    }
}

/// Keeps the hash of a new token, and prints the token.
async fn create(options: TokenCreate) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let text = Zeroizing::new(fleet_secret::make()?);
    let hash = TokenHash::of(&text).map_err(|error| Failure::NotSo(error.to_string()))?;
    let expires = match options.expires.0 {
        None => None,
        Some(life) => Some(Timestamp::now().checked_add(life).map_err(|_| {
            Failure::Usage("--expires is further away than a clock can say".to_owned())
        })?),
    };
    let mut data = vec![(token::HASH, token::bytes(&hash.to_text()))];
    data.extend(expires.map(|end| (token::EXPIRES, token::bytes(&format!("{end:.0}")))));
    data.extend(
        options
            .uses
            .0
            .map(|uses| (token::USES, token::bytes(&uses.to_string()))),
    );
    let name = match options.name {
        Some(name) => name,
        None => format!(
            "token-{}",
            fleet_secret::make()?.get(..6).unwrap_or_default()
        ),
    };
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some([(token::GIVEN_OUT.to_owned(), String::new())].into()),
            ..ObjectMeta::default()
        },
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        ),
        ..Secret::default()
    };
    let made = secrets(&client)
        .create(&PostParams::default(), &secret)
        .await;
    made.map_err(|error| explain(&error))?;
    if std::io::stdout().is_terminal() {
        output::remark(&format!(
            "token {name}, shown this once; on the other machine: landbridge token store {}",
            own_name(&client).await
        ));
    }
    output::print(&format!("{}\n", *text))
}

async fn own_name(client: &Client) -> String {
    match super::status::description(client).await {
        Ok(description) if !description.cluster_name.is_empty() => description.cluster_name,
        Ok(_) | Err(_) => "CLUSTER".to_owned(),
    }
}

async fn list(options: TokenList) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let api = secrets(&client);
    let labelled = ListParams::default().labels(token::GIVEN_OUT);
    let list = api.list(&labelled).await;
    let mut all = list.map_err(|error| explain(&error))?.items;
    let auth_token = api.get_opt(token::AUTH_TOKEN).await;
    all.extend(auth_token.map_err(|error| explain(&error))?);
    let heading = ["NAME", "STATE", "USES LEFT", "EXPIRES", "USED BY"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let now = Timestamp::now();
    rows.extend(all.iter().map(|secret| row(secret, now)));
    output::print(&output::table(&rows))
}

fn row(secret: &Secret, now: Timestamp) -> Vec<String> {
    let name = secret.name_any();
    let token = match GivenToken::read(secret) {
        Ok(token) => token,
        Err(error) => return vec![name, format!("unusable: {error}")],
    };
    let past = token.ended || token.expires.is_some_and(|end| now >= end);
    let state = match token.uses {
        _ if past => "expired",
        Some(0) => "spent",
        Some(_) | None => "valid",
    };
    let used_by: Vec<&str> = token.used_by.iter().map(ClusterId::short).collect();
    vec![
        name,
        state.to_owned(),
        token
            .uses
            .map_or_else(|| "any".to_owned(), |uses| uses.to_string()),
        token
            .expires
            .map_or_else(|| "never".to_owned(), |end| format!("{end:.0}")),
        if used_by.is_empty() {
            "-".to_owned()
        } else {
            used_by.join(",")
        },
    ]
}

async fn revoke(options: TokenRevoke) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let api = secrets(&client);
    for name in options.names {
        let present = api.get_opt(&name).await.map_err(|error| explain(&error))?;
        let ours = present.as_ref().is_some_and(|secret| {
            name == token::AUTH_TOKEN || secret.labels().contains_key(token::GIVEN_OUT)
        });
        if !ours {
            return Err(Failure::NotSo(format!(
                "no token {name:?} was made here: landbridge token list lists them"
            )));
        }
        let deleted = api.delete(&name, &DeleteParams::default()).await;
        deleted.map_err(|error| explain(&error))?;
        let again = if name == token::AUTH_TOKEN {
            ": the daemon makes another one when it starts"
        } else {
            ""
        };
        output::print(&format!("token {name} revoked{again}\n"))?;
    }
    Ok(())
}

/// Does what Liqo's documents have a person do: a Secret with two labels.
async fn store(options: Named) -> Result<(), Failure> {
    let client = connect(&options.connect).await?;
    let cluster = peers::find(&client, &options.name).await?;
    let name = cluster.name_any();
    let id = peers::proven_id(&cluster)?;
    let text = prompt::ask(&format!("the token of {name}"), read).await?;
    let secret = format!("remote-token-{id}");
    let patch = Patch::Apply(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret, "labels": {token::RECEIVED: "", labels::CLUSTER_ID: id}},
        "data": {token::TOKEN: token::bytes(text.trim())},
    }));
    let parameters = PatchParams::apply(labels::MANAGER).force();
    let written = secrets(&client).patch(&secret, &parameters, &patch).await;
    written.map_err(|error| explain(&error))?;
    output::print(&format!(
        "foreigncluster/{name}: token stored in the Secret {secret}, and shown at once if it is asked for\n"
    ))
}

/// Reads a token, whole or not at all.
fn read(input: impl BufRead) -> Result<Zeroizing<String>, Failure> {
    let refuse = |reason: String| Failure::Usage(format!("cannot read a token: {reason}"));
    let mut text = Zeroizing::new(String::new());
    input
        .take(LENGTH_LIMIT + 1)
        .read_line(&mut text)
        .map_err(|error| refuse(error.to_string()))?;
    if text.len() as u64 > LENGTH_LIMIT {
        return Err(refuse(format!(
            "the line has more than {LENGTH_LIMIT} bytes"
        )));
    }
    TokenHash::of(&text).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(text)
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), labels::NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_whole_or_not_at_all() {
        let token = "0123456789abcdef".repeat(32);
        assert_eq!(*read(token.as_bytes()).unwrap(), token);
        let longer = format!("{token}0");
        assert!(matches!(read(longer.as_bytes()), Err(Failure::Usage(_))));
    }
}
