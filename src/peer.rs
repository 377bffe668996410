//! The door to other clusters: identity, TLS, the peer endpoint and its client.
