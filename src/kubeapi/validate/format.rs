//! The forms of texts that a schema asks for by name (`format`).

use crate::kubeapi::pattern;
use base64::{Engine, engine::general_purpose::STANDARD};
use std::net::{Ipv4Addr, Ipv6Addr};

const MAC: &str = "^(?:[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{4}(?:[.][0-9A-Fa-f]{4}){2})$";

const UUID: &str =
    "^[0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{12}$";

const DATE: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$";

/// As Go has them (`1h30m`), or a number with a unit in words (`3 days`).
const DURATION: &str = "(?i)^[+-]?(?:0|(?:(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)$|[0-9]\\s*(?:(?:ns|us|µs|ms|s|m|hr?|d|wk?)(?:[^A-Za-zµ]|$)|nano|micro|milli|sec|min|hour|day|week)";

const URI: &str = "^(?:/|[A-Za-z][A-Za-z0-9+.-]*:)[^\\x00-\\x1f\\x7f]*$";

/// Whether a text has this form. Every text has one that is not known here.
pub(super) fn has(format: &str, text: &str) -> bool {
    match format {
        "byte" => STANDARD.decode(text).is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "date" => pattern::matches(DATE, text) && text.parse::<jiff::civil::Date>().is_ok(),
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "duration" => pattern::matches(DURATION, text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "mac" => pattern::matches(MAC, text),
        "uri" => pattern::matches(URI, text),
        "uuid" => pattern::matches(UUID, text),
        _ => true,
    }
}
