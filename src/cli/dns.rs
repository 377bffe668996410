//! `landbridge dns zone`: this cluster as a zone file, for people who keep their zone by hand.

use super::{
    Failure,
    args::{Dns, DnsVerb, DnsZone, ZoneStyle},
    connection::connect,
    output,
    status::description,
};
use crate::daemon::zone::{self, Style};

/// Prints the zone.
pub(super) async fn dns(options: Dns) -> Result<(), Failure> {
    let DnsVerb::Zone(options) = options.verb;
    let domain = domain(&options)?;
    let description = description(&connect(&options.connect).await?).await?;
    let style = match options.style {
        ZoneStyle::Liqo => Style::Liqo,
        ZoneStyle::Rfc6763 => Style::Rfc6763,
    };
    let zone = zone::of(&domain, &description, style)
        .map_err(|error| Failure::NotSo(error.to_string()))?;
    output::print(&zone)
}

fn domain(options: &DnsZone) -> Result<String, Failure> {
    let typed = match &options.domain {
        Some(domain) => domain.clone(),
        None => {
            options
                .connect
                .settings
                .sources()
                .load()?
                .config
                .dns
                .publish
                .zone
        }
    };
    if typed.is_empty() {
        let message = "no domain is set: name it with --domain".to_owned();
        return Err(Failure::Usage(message));
    }
    zone::domain(&typed).map_err(|error| Failure::Usage(error.to_string()))
}
