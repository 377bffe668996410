//! What each value must look like, and how to say it when it does not.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::{Incoming, TunnelMode, ZoneStyle};
use crate::{
    api::ClusterName,
    engine::{
        addresses::AuthUrl,
        addressing,
        overlay::{LARGEST_MTU, SMALLEST_MTU},
    },
};

pub(super) fn cluster_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = text(from, "a name")?;
    if ClusterName::neutralise(&name).as_str() == name {
        Ok(name)
    } else {
        Err(D::Error::custom(format!(
            "{name:?} is not a cluster name: use at most 63 bytes of printable characters, no space around them"
        )))
    }
}

pub(super) fn range<'de, D: Deserializer<'de>>(from: D) -> Result<Ipv4Net, D::Error> {
    let given = text(from, "an IPv4 range")?;
    check_range(&given).map_err(D::Error::custom)
}

/// Takes the range of the pods: one that peers accept.
pub(super) fn pod_range<'de, D: Deserializer<'de>>(from: D) -> Result<Ipv4Net, D::Error> {
    addressing::check_range(range(from)?).map_err(D::Error::custom)
}

/// Checks an IPv4 range: addresses of one network, and room for at least two of them.
pub(super) fn check_range(given: &str) -> Result<Ipv4Net, String> {
    let range: Ipv4Net = given
        .parse()
        .map_err(|_| format!("{given:?} is not an IPv4 range: write it like 10.244.0.0/16"))?;
    if range != range.trunc() {
        return Err(format!(
            "{given} is an address in a range: write the range {}",
            range.trunc()
        ));
    }
    if (8..=30).contains(&range.prefix_len()) {
        Ok(range)
    } else {
        Err(format!("{given} has not a usable size: use /8 to /30"))
    }
}

pub(super) fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let given = text(from, "an address with a port")?;
    given.parse().map_err(|_| {
        let hint = "write it like 127.0.0.1:5870 or [::]:5870";
        D::Error::custom(format!("{given:?} is not an address with a port: {hint}"))
    })
}

pub(super) fn listen_on_loopback<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<SocketAddr, D::Error> {
    let address = listen(from)?;
    let loopback = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    if loopback {
        Ok(address)
    } else {
        Err(D::Error::custom(format!(
            "{address} is not a loopback address: use 127.0.0.1:{} and reach it from elsewhere through ssh -L",
            address.port()
        )))
    }
}

pub(super) fn url<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let given = text(from, "a URL")?;
    if given.is_empty() {
        return Ok(given);
    }
    match given.parse::<AuthUrl>() {
        Ok(_) => Ok(given),
        Err(error) => {
            let hint = "write it like https://rome.example.com:5870";
            let message = format!("{given:?} is not an https URL: {error}: {hint}");
            Err(D::Error::custom(message))
        }
    }
}

pub(super) fn tunnel_mode<'de, D: Deserializer<'de>>(from: D) -> Result<TunnelMode, D::Error> {
    match text(from, "auto, userspace or off")?.as_str() {
        "auto" => Ok(TunnelMode::Auto),
        "userspace" => Ok(TunnelMode::Userspace),
        "off" => Ok(TunnelMode::Off),
        "kernel" => Err(D::Error::custom(
            "kernel is not available in this version: use auto or userspace",
        )),
        other => Err(unknown(other, "auto, userspace or off")),
    }
}

pub(super) fn style<'de, D: Deserializer<'de>>(from: D) -> Result<ZoneStyle, D::Error> {
    match text(from, "rfc6763 or liqo")?.as_str() {
        "rfc6763" => Ok(ZoneStyle::Rfc6763),
        "liqo" => Ok(ZoneStyle::Liqo),
        other => Err(D::Error::custom(format!(
            "{other:?} is not a style of zones: use rfc6763 or liqo"
        ))),
    }
}

pub(super) fn incoming<'de, D: Deserializer<'de>>(from: D) -> Result<Incoming, D::Error> {
    match text(from, "ask, token or open")?.as_str() {
        "ask" => Ok(Incoming::Ask),
        "token" => Ok(Incoming::Token),
        "open" => Ok(Incoming::Open),
        other => Err(unknown(other, "ask, token or open")),
    }
}

pub(super) fn port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let given = Value::deserialize(from)?;
    let port = given.as_u64().and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| unlike(&given, "a port: use 1 to 65535, or 0 for any free one"))
}

pub(super) fn mtu<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let given = Value::deserialize(from)?;
    let usable = |bytes: &u16| *bytes == 0 || (SMALLEST_MTU..=LARGEST_MTU).contains(bytes);
    let bytes = given.as_u64().and_then(|bytes| u16::try_from(bytes).ok());
    bytes.filter(usable).ok_or_else(|| {
        let wanted = format!("a packet size: use {SMALLEST_MTU} to {LARGEST_MTU}, or 0");
        unlike(&given, wanted)
    })
}

pub(super) fn switch<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let given = Value::deserialize(from)?;
    given
        .as_bool()
        .ok_or_else(|| unlike(&given, "true or false"))
}

pub(super) fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let given = Value::deserialize(from)?;
    let names: Option<Vec<String>> = given.as_array().and_then(|items| {
        let name = |item: &Value| {
            item.as_str()
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
        };
        items.iter().map(name).collect()
    });
    names.ok_or_else(|| unlike(&given, "a list of names: write it like [eth0, wlan0]"))
}

fn text<'de, D: Deserializer<'de>>(from: D, wanted: &str) -> Result<String, D::Error> {
    let given = Value::deserialize(from)?;
    let text = given.as_str().map(str::to_owned);
    text.ok_or_else(|| unlike(&given, format!("{wanted}: put it in quotes")))
}

fn unlike<E: serde::de::Error>(given: &Value, wanted: impl Display) -> E {
    E::custom(format!("{given} is not {wanted}"))
}

fn unknown<E: serde::de::Error>(given: &str, choices: &str) -> E {
    E::custom(format!("{given:?} is unknown: use {choices}"))
}
