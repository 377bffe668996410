//! Zero-config peering of Kubernetes clusters: discovery, identity, approval and tunnels.

pub mod api;
pub mod cli;
pub mod config;
pub mod controllers;
pub mod daemon;
pub mod discovery;
pub mod engine;
pub mod kubeapi;
pub mod peer;
pub mod telemetry;
pub mod tunnel;
