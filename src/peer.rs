//! The door to other clusters: identity, TLS, the peer endpoint and its client.
//!
//! ```text
//! ours                                                      theirs
//! client::TlsConnector -- TCP, TLS 1.3, proof of the key --> listener::serve
//! client::Connection   -- GET /ids, POST /identity --------> auth::PeerEndpoint -> auth::Reception
//!                      -- one PeeringRequest --------------> gateway -> kube::Client
//! ```

pub mod approval;
pub mod auth;
pub mod body;
pub mod certificates;
pub mod client;
pub mod gateway;
pub mod guesses;
pub mod keyfile;
pub mod limits;
pub mod listener;
pub mod permissions;
pub mod refusal;
pub mod seal;
pub mod tls;
pub mod token;
pub mod trust;
pub mod web_pki;

/// The port of the peer endpoint where nothing else is said.
pub const DEFAULT_PORT: u16 = 5870;
