//! The JSON of the peer endpoint: `/ids` and `/identity`.

use serde::{Deserialize, Serialize};

use super::identity::{ClusterId, ClusterName};

/// The version of the peering protocol that we speak.
pub const PROTOCOL: u32 = 1;

/// The answer of `GET /ids`. The first three keys are Liqo's, spelt so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    /// The id of the answering cluster.
    pub cluster_id: ClusterId,
    /// Its name, possibly empty.
    #[serde(default)]
    pub cluster_name: ClusterName,
    /// The namespace that Liqo's peers write to.
    #[serde(default)]
    pub guest_namespace: String,
    /// What only a Landbridge says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landbridge: Option<Features>,
}

/// What a Landbridge says about itself in `/ids`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// The version of the peering protocol.
    pub protocol: u32,
    /// The version of the program.
    #[serde(default)]
    pub version: String,
    /// The run of the program that answers, to tell a copy of a machine from the machine itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// What it can do beyond the protocol's minimum.
    #[serde(default)]
    pub features: Vec<String>,
    /// Its certificate of the Web PKI, for who asks with `GET /ids?attestation=webpki` over mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
}

/// A certificate of the Web PKI whose key has signed this very session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// The chain in base64 of DER, the certificate itself first and without the root.
    pub chain: Vec<String>,
    /// The number of the signature's scheme in TLS (RFC 8446, section 4.2.3).
    pub scheme: u16,
    /// The signature in base64.
    pub signature: String,
}

/// The body of `POST /identity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRequest {
    /// The id of the asking cluster; it must be the one that the TLS session proves.
    #[serde(rename = "clusterID")]
    pub cluster_id: ClusterId,
    /// The name of the asking cluster.
    #[serde(rename = "clusterName", default)]
    pub cluster_name: ClusterName,
    /// The URL at which the asking cluster's own peer endpoint can be reached, possibly empty.
    #[serde(rename = "authUrl", default, skip_serializing_if = "String::is_empty")]
    pub auth_url: String,
    /// The run of the program that asks, when it asks a machine with its own identity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// A token that the answering cluster gave out, for whoever cannot make a proof of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The proof of such a token in the role of the asking cluster, 64 hexadecimal digits.
    #[serde(
        rename = "tokenProof",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub token_proof: Option<String>,
    /// The proof of the fleet secret in the role of the asking cluster, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// The commitment to the nonce of the approval code, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commitment: Option<String>,
    /// The nonce itself, once the answer has brought the other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

impl IdentityRequest {
    /// Tells whether a token is shown, in one way or the other. Liqo's peers send an empty one.
    pub fn shows_token(&self) -> bool {
        self.token_proof.is_some() || self.token.as_ref().is_some_and(|token| !token.0.is_empty())
    }
}

/// A token that lets its bearer in, kept out of logs and zeroed after use.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl Drop for Token {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("***")
    }
}

/// The answer of `POST /identity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityAnswer {
    /// The decision.
    pub decision: Decision,
    /// The reason, for people.
    #[serde(default)]
    pub message: String,
    /// The proof of the fleet secret in the role of the answering cluster, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// The proof of the token that was shown, in the role of the answering cluster.
    #[serde(
        rename = "tokenProof",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub token_proof: Option<String>,
    /// The answering cluster's nonce of the approval code, after a commitment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// What the asked cluster decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// 201: the gateway is open.
    Accepted,
    /// 202: a person has to decide.
    Waiting,
    /// 403: no.
    Refused,
    /// 403: no token was given and one is needed.
    EmptyRefused,
}
