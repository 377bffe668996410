//! What a fuzzer does with the bytes that another cluster sends or names: requests to the gateway, the
//! body of `/identity`, URLs. Used by the programs in `fuzz_targets` and, with the inputs kept in
//! `corpus`, by `cargo test`.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "each program uses one"
)]

use axum::http::{Method, Uri};
use landbridge::{
    api::{
        ClusterId,
        foreign_cluster::DiscoveryType,
        identity::is_printable,
        peering_request::PeeringRequestSpec,
        wire::{IdentityRequest, Ids},
    },
    engine::addresses::{AuthUrl, Host, OwnNetworks, judge},
    peer::{
        body,
        permissions::{COLLECTION, Permit, admit, decide},
    },
};
use std::net::{IpAddr, SocketAddr};

/// The cluster that asks.
const OWN: &str = "rome";

/// A method, a path with its query, a content type and a body, each on a line: nothing is permitted
/// but what concerns the own object, and what is admitted is bounded and the peer's own.
pub(crate) fn gateway(input: &[u8]) {
    let mut lines = input.splitn(4, |byte| *byte == b'\n');
    let mut line = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (method, path, media_type, body) = (line(), line(), line(), line());
    let own: ClusterId = OWN.parse().unwrap();
    if let (Ok(method), Ok(uri)) = (method.parse::<Method>(), path.parse::<Uri>()) {
        let permit = decide(&method, &uri, Some(&media_type), &own);
        if let Ok(permit) = permit {
            permitted(&method, &uri, &permit);
        }
    }
    let Ok(spec) = body::parse::<PeeringRequestSpec>(body.as_bytes()) else {
        return;
    };
    let observed: SocketAddr = "192.0.2.7:40000".parse().unwrap();
    let claimed = spec.cluster_identity.cluster_id.clone();
    if let Ok(admitted) = admit(spec, &own, Some(observed)) {
        assert!(claimed.is_empty() || claimed == OWN);
        assert_eq!(admitted.cluster_identity.cluster_id, OWN);
        assert_eq!(admitted.kube_config_ref, None);
        let text = serde_json::to_string(&admitted).unwrap();
        assert!(text.len() < 8 * 1024, "{} bytes", text.len());
        assert!(text.chars().all(is_printable), "{text}");
        assert_eq!(admit(admitted.clone(), &own, Some(observed)), Ok(admitted));
    }
}

/// The table at the head of `peer/permissions.rs`, once more and the other way round.
fn permitted(method: &Method, uri: &Uri, permit: &Permit) {
    let item = format!("{COLLECTION}/{OWN}");
    let (verb, path) = match permit {
        Permit::Get => ("GET", item),
        Permit::Patch => ("PATCH", item),
        Permit::Delete => ("DELETE", item),
        Permit::List | Permit::Watch { .. } => ("GET", COLLECTION.to_owned()),
        Permit::Create => ("POST", COLLECTION.to_owned()),
    };
    assert_eq!((method.as_str(), uri.path()), (verb, path.as_str()));
    if let Permit::Watch { since, seconds, .. } = permit {
        assert!(*seconds <= 300);
        assert!(since.iter().all(|since| since.len() <= 20));
    }
}

/// The body of `POST /identity`, and the answer of `GET /ids`: what is read is written and read back
/// the same, and no name in it can disturb a terminal.
pub(crate) fn identity(input: &[u8]) {
    if let Ok(asked) = body::parse::<IdentityRequest>(input) {
        assert!(asked.cluster_name.as_str().chars().all(is_printable));
        assert!(asked.cluster_id.as_str().is_ascii());
        let shown = format!("{asked:?}");
        if let Some(token) = asked.token.as_ref().filter(|token| token.0.len() > 12) {
            let elsewhere = String::from_utf8_lossy(input).matches(&token.0).count() > 1;
            assert!(elsewhere || !shown.contains(&token.0), "{shown}");
        }
        let text = serde_json::to_vec(&asked).unwrap();
        assert_eq!(body::parse::<IdentityRequest>(&text), Ok(asked));
    }
    if let Ok(ids) = body::parse::<Ids>(input) {
        assert!(ids.cluster_name.as_str().chars().all(is_printable));
        let text = serde_json::to_vec(&ids).unwrap();
        assert_eq!(body::parse::<Ids>(&text), Ok(ids));
    }
}

/// A URL: what is read is written and read back the same, and leads nowhere that is refused.
pub(crate) fn auth_url(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(url) = text.parse::<AuthUrl>() else {
        return;
    };
    assert_ne!(url.port(), 0);
    assert_eq!(url.to_string().parse(), Ok(url.clone()));
    match url.host() {
        Host::Name(name) => {
            // No resolver takes it for an address in other clothes.
            let last = name.rsplit('.').next().unwrap_or_default();
            assert!(name.parse::<IpAddr>().is_err());
            assert!(!last.bytes().all(|byte| byte.is_ascii_digit()), "{name}");
            assert!(!last.starts_with("0x"), "{name}");
            assert!(name.len() <= 253 && name.is_ascii());
        }
        Host::Address(ip) => dialled_only_if_harmless(SocketAddr::new(*ip, url.port())),
    }
}

fn dialled_only_if_harmless(address: SocketAddr) {
    let own = OwnNetworks {
        pod_cidr: "10.244.0.0/16".parse().ok(),
        service_cidr: "10.96.0.0/12".parse().ok(),
        on_link: vec!["192.168.1.0/24".parse().unwrap()],
        addresses: vec!["192.168.1.10".parse().unwrap()],
        ..OwnNetworks::default()
    };
    for source in [
        DiscoveryType::Lan,
        DiscoveryType::Wan,
        DiscoveryType::Manual,
    ] {
        if judge(address, source, &own).is_err() {
            continue;
        }
        let ip = address.ip().to_canonical();
        assert!(!ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast());
        assert!(!own.addresses.contains(&ip));
        assert!(own.pod_cidr.iter().all(|range| !range.contains(&ip)));
        assert!(own.service_cidr.iter().all(|range| !range.contains(&ip)));
        match ip {
            IpAddr::V4(v4) => {
                assert!(!v4.is_link_local() && !v4.is_broadcast() && v4.octets()[0] < 224);
                let near = own.on_link.iter().any(|subnet| subnet.contains(&ip));
                assert!(near || source != DiscoveryType::Lan);
            }
            IpAddr::V6(v6) => assert!(!v6.is_unicast_link_local()),
        }
    }
}
