//! Our records in a DNS zone.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::build::Assembly;
use crate::{
    controllers::dns_endpoint::DnsEndpoints,
    discovery::{
        publish::{self, Destination, Register, Sources, Standing},
        source::Announcement,
    },
    engine::addresses::OwnNetworks,
};

/// What keeps this cluster in its zone.
pub(super) struct Publication {
    register: Arc<dyn Register>,
    sources: Sources,
}

impl Publication {
    /// Prepares what the settings ask for; nothing when there is no zone to publish in.
    pub(super) fn new(
        assembly: &Assembly,
        announcement: watch::Receiver<Announcement>,
    ) -> Option<Self> {
        let register: Arc<dyn Register> = match assembly.dns.published.clone()? {
            Destination::Server(publisher) => Arc::new(publisher),
            Destination::Cluster { zone, style } => Arc::new(DnsEndpoints::new(
                assembly.platform.client.clone(),
                zone,
                style,
            )),
        };
        let sources = Sources {
            announcement,
            own: assembly.own_networks.clone(),
            // Without our addresses it is what the settings name.
            advertise: assembly
                .place
                .auth_url(&OwnNetworks::default())
                .parse()
                .ok(),
            key: assembly.credentials.identity().fingerprint().clone(),
        };
        Some(Self { register, sources })
    }

    /// Publishes until the shutdown, and then withdraws.
    pub(super) async fn run(self, standing: watch::Sender<Standing>, stop: CancellationToken) {
        publish::run(self.register, self.sources, standing, stop).await;
    }
}
