//! Our records in a DNS zone, and how that goes in what `landbridge status` reads.

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{build::Assembly, self_description};
use crate::{
    config::Config,
    controllers::dns_endpoint::DnsEndpoints,
    discovery::{
        publish::{self, Destination, Register, Sources, Standing},
        source::Announcement,
    },
};

/// What keeps this cluster in its zone.
pub(super) struct Publication {
    register: Arc<dyn Register>,
    sources: Sources,
    client: Client,
}

impl Publication {
    /// Prepares what the settings ask for; nothing when there is no zone to publish in.
    pub(super) fn new(
        assembly: &Assembly,
        config: &Config,
        announcement: watch::Receiver<Announcement>,
    ) -> Option<Self> {
        let client = assembly.platform.client.clone();
        let register: Arc<dyn Register> = match assembly.dns.published.clone()? {
            Destination::Server(publisher) => Arc::new(publisher),
            Destination::Cluster { zone, style } => {
                Arc::new(DnsEndpoints::new(client.clone(), zone, style))
            }
        };
        let sources = Sources {
            announcement,
            own: assembly.own_networks.clone(),
            advertise: config.peer.advertise.parse().ok(),
            key: assembly.credentials.identity().fingerprint().clone(),
        };
        Some(Self {
            register,
            sources,
            client,
        })
    }

    /// Publishes until the shutdown, and then withdraws.
    pub(super) async fn run(self, stop: CancellationToken) {
        let (standing, told) = watch::channel(Standing::default());
        let publishing = publish::run(self.register, self.sources, standing, stop);
        let telling = tell(self.client, told);
        tokio::join!(publishing, telling);
    }
}

/// Tells how it goes until nobody publishes any more.
async fn tell(client: Client, mut told: watch::Receiver<Standing>) {
    while told.changed().await.is_ok() {
        let Standing {
            zone,
            listed,
            problem,
        } = told.borrow_and_update().clone();
        let concerned = listed || problem.is_some();
        let zone = if concerned { zone } else { String::new() };
        let part = [
            ("dnsZone".to_owned(), zone),
            ("dnsProblem".to_owned(), problem.unwrap_or_default()),
        ];
        if let Err(error) = self_description::write(&client, part.into()).await {
            tracing::debug!(%error, "How publishing goes could not be told to landbridge status");
        }
    }
}
