//! What is written into the objects and onto the board: only what changed.

use std::{collections::BTreeMap, net::SocketAddr};

use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Connectivity, Tunnels};
use crate::{
    api::{
        identity::ClusterId,
        tunnel_endpoint::{CONNECTED, CONNECTING, Connection, ERROR, TunnelEndpoint},
    },
    controllers::is_not_found,
    engine::overlay::{
        INTERFACE, Peer, PublicKey,
        health::{self, Health, Verdict},
        wanted::READY,
    },
};

impl Tunnels {
    /// Writes how every tunnel does where it is not written yet.
    pub(super) async fn report(&mut self) {
        let connections = self.connections();
        self.show(&connections);
        for (name, connection) in connections {
            let Some(object) = self.objects.get(&name) else {
                continue;
            };
            let index = self.interface_index(&connection);
            if is_written(object, &connection, index) {
                continue;
            }
            let status = json!({"status": {
                "connection": in_full(&connection),
                "tunnelIFaceName": index.map(|_| INTERFACE),
                "tunnelIFaceIndex": index,
            }});
            let params = PatchParams::default();
            let patch = Patch::Merge(status);
            let report = self.api.patch_status(&name, &params, &patch);
            match self.writes.within_limit(report).await {
                Some(Ok(written)) => {
                    log(object, &connection);
                    self.objects.insert(name, written);
                }
                Some(Err(error)) if is_not_found(&error) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, %name, "Could not report a connection yet");
                }
                None => return,
            }
        }
    }

    fn interface_index(&self, connection: &Connection) -> Option<i64> {
        let is_error = connection.status.as_deref() == Some(ERROR);
        let interface = self.observed.interface.as_ref().filter(|_| !is_error);
        interface.map(|it| it.index.into())
    }

    /// Returns what should stand in each object, by name.
    fn connections(&mut self) -> BTreeMap<String, Connection> {
        let Some(admission) = &self.admission else {
            return BTreeMap::new();
        };
        let mut connections = BTreeMap::new();
        for (name, rejection) in &admission.rejected {
            connections.insert(name.clone(), failed(rejection.to_string()));
        }
        for (cluster, name) in &admission.objects {
            let single = self.faults.single.get(cluster);
            let (Some(peer), Some(state)) = (
                admission.overlay.peers.get(cluster),
                self.peers.get_mut(cluster),
            ) else {
                continue;
            };
            let seen = self.observed.peers.get(&peer.public_key);
            let connection = match self.faults.common.as_ref().or(single) {
                Some(message) => failed(message.clone()),
                None => alive(peer, seen.and_then(|it| it.endpoint), &mut state.health),
            };
            connections.insert(name.clone(), connection);
        }
        for (name, object) in &self.objects {
            if is_waiting(object) {
                let waiting = connecting("the address ranges are not negotiated yet".to_owned());
                connections.insert(name.clone(), waiting);
            }
        }
        connections
    }

    fn show(&self, connections: &BTreeMap<String, Connection>) {
        let Some(admission) = &self.admission else {
            return;
        };
        let now = (self.clock)();
        let mut board: BTreeMap<ClusterId, Connectivity> = BTreeMap::new();
        let before = self.settings.board.borrow().clone();
        for (cluster, peer) in &admission.overlay.peers {
            let name = admission.objects.get(cluster);
            let Some(connection) = name.and_then(|name| connections.get(name)) else {
                continue;
            };
            let is_connected = connection.status.as_deref() == Some(CONNECTED);
            let since = before
                .get(cluster)
                .filter(|it| it.is_connected == is_connected)
                .map_or(now, |it| it.since);
            let seen = self.observed.peers.get(&peer.public_key);
            let state = self.peers.get(cluster);
            let connectivity = Connectivity {
                is_connected,
                message: connection.status_message.clone().unwrap_or_default(),
                round_trip: state
                    .and_then(|it| it.health.round_trip())
                    .filter(|_| is_connected),
                since,
                address: peer.target(),
                received: seen.map_or(0, |it| it.received),
                sent: seen.map_or(0, |it| it.sent),
            };
            board.insert(cluster.clone(), connectivity);
        }
        self.settings.board.send_if_modified(|shown| {
            let is_news = *shown != board;
            *shown = board;
            is_news
        });
    }
}

fn alive(peer: &Peer, endpoint: Option<SocketAddr>, health: &mut Health) -> Connection {
    let verdict = health.verdict();
    // While endpoints take turns the best one is shown, so that nothing changes at every turn.
    let endpoint = match verdict {
        Verdict::Connected | Verdict::Waiting | Verdict::NoEcho => endpoint,
        Verdict::NoHandshake => None,
    };
    let endpoint = endpoint.or_else(|| peer.endpoints.first().copied());
    let latency = health.poll_shown().map(health::show);
    let configuration = configuration(peer, endpoint);
    match verdict {
        Verdict::Connected => Connection {
            status: Some(CONNECTED.to_owned()),
            status_message: Some("handshake fresh, echo answered".to_owned()),
            latency,
            peer_configuration: configuration,
        },
        Verdict::NoHandshake | Verdict::Waiting | Verdict::NoEcho => Connection {
            peer_configuration: configuration,
            ..connecting(reason(verdict, peer, endpoint))
        },
    }
}

fn reason(verdict: Verdict, peer: &Peer, endpoint: Option<SocketAddr>) -> String {
    match (verdict, endpoint) {
        (Verdict::Waiting, _) => "handshake fresh, waiting for the first echo".to_owned(),
        (Verdict::NoEcho, _) => format!(
            "handshake but no echo from {}; is {INTERFACE} behind a firewall on one side?",
            peer.target()
        ),
        (_, None) => "no handshake: the peer named no endpoint, so it must begin".to_owned(),
        (_, Some(endpoint)) => {
            let others = match peer.endpoints.len() {
                0 | 1 => String::new(),
                count => format!(" and {} other endpoints", count - 1),
            };
            format!(
                "no handshake with {endpoint}{others}; is UDP port {} open there?",
                endpoint.port()
            )
        }
    }
}

fn configuration(peer: &Peer, endpoint: Option<SocketAddr>) -> BTreeMap<String, String> {
    let public_key: &PublicKey = &peer.public_key;
    let mut configuration = BTreeMap::from([
        ("publicKey".to_owned(), public_key.to_string()),
        ("allowedIPs".to_owned(), peer.remote.to_string()),
    ]);
    if let Some(endpoint) = endpoint {
        configuration.insert("endpointIP".to_owned(), endpoint.ip().to_string());
        configuration.insert("port".to_owned(), endpoint.port().to_string());
    }
    configuration
}

fn connecting(message: String) -> Connection {
    Connection {
        status: Some(CONNECTING.to_owned()),
        status_message: Some(message),
        ..Connection::default()
    }
}

fn failed(message: String) -> Connection {
    Connection {
        status: Some(ERROR.to_owned()),
        status_message: Some(message),
        ..Connection::default()
    }
}

/// Whether an object says how a connection does that is not wanted now.
fn is_waiting(object: &TunnelEndpoint) -> bool {
    let Some(status) = &object.status else {
        return false;
    };
    status.phase.as_deref() != Some(READY)
        && status.connection.is_some()
        && object.metadata.deletion_timestamp.is_none()
}

fn is_written(object: &TunnelEndpoint, connection: &Connection, index: Option<i64>) -> bool {
    object.status.as_ref().is_some_and(|status| {
        status.connection.as_ref() == Some(connection)
            && status.tunnel_interface_index == index
            && status.tunnel_interface_name.is_some() == index.is_some()
    })
}

/// Names every field, so that a merge patch removes what is no longer so.
fn in_full(connection: &Connection) -> serde_json::Value {
    let part = |key: &str| connection.peer_configuration.get(key);
    json!({
        "status": connection.status,
        "statusMessage": connection.status_message,
        "latency": connection.latency,
        "peerConfiguration": {
            "publicKey": part("publicKey"),
            "allowedIPs": part("allowedIPs"),
            "endpointIP": part("endpointIP"),
            "port": part("port"),
        },
    })
}

/// Tells when a tunnel comes up or goes down; what changes besides is in the object.
fn log(object: &TunnelEndpoint, connection: &Connection) {
    let before = object.status.as_ref().and_then(|it| it.connection.as_ref());
    let before = before.and_then(|it| it.status.as_deref());
    let after = connection.status.as_deref();
    if before == after {
        return;
    }
    let cluster = &object.spec.cluster_id;
    let name = object.name_any();
    let message = connection.status_message.as_deref().unwrap_or_default();
    match (before, after) {
        (_, Some(CONNECTED)) => tracing::info!(%cluster, "Tunnel connected"),
        (Some(CONNECTED), _) => tracing::warn!(%cluster, %message, "Tunnel down"),
        _ => tracing::debug!(%name, ?after, %message, "Tunnel changed"),
    }
}
