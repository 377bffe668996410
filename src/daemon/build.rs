//! From settings to parts: who we are, what we listen on, and what the controllers share.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};
use tokio::{net::TcpListener, sync::watch};

use super::{
    Error, Target, clock,
    networks::{Follower, Networks},
    platform::{self, Embedded, Platform},
    ranges::{ranges, warn_of_policy},
};
use crate::{
    api::{ClusterConfigSpec, ClusterId, ClusterName, labels},
    config::{Config, Loaded, TunnelMode, ZoneStyle},
    controllers::{
        Context, cluster_config,
        context::Parts,
        fleet::{self, Fleet},
        reception::FrontDesk,
        tunnel_endpoint,
    },
    discovery::{
        dns::Servers,
        interfaces::{InterfaceRules, Said},
        publish::{self, Destination},
    },
    engine::{
        addresses::OwnNetworks,
        addressing::{Ground, external_range},
        domain::zone::Style,
        overlay::LARGEST_MTU,
        peering::{Own, OwnTunnel},
    },
    peer::{
        auth::PeerEndpoint, certificates::Identity, client::TlsConnector,
        tls::Credentials as TlsCredentials, trust::FleetSecret, web_pki::WebPki,
    },
    tunnel::{
        driver::Driver,
        key,
        userspace::{Settings, Userspace},
    },
};

/// Where a kube-apiserver of this machine listens, which is no place for a peer endpoint.
const KUBE_APISERVER_PORT: u16 = 6443;

/// Everything that runs, before it runs.
pub(super) struct Assembly {
    pub(super) platform: Platform,
    pub(super) embedded: Option<Embedded>,
    pub(super) context: Arc<Context>,
    pub(super) policy: watch::Sender<ClusterConfigSpec>,
    /// The fleet secret, where it is the one of the API.
    pub(super) fleet: Option<watch::Sender<Fleet>>,
    pub(super) credentials: Arc<TlsCredentials>,
    pub(super) endpoint: PeerEndpoint,
    pub(super) listener: TcpListener,
    pub(super) follower: Follower,
    pub(super) rules: InterfaceRules,
    pub(super) driver: Option<Arc<dyn Driver>>,
    pub(super) boot: String,
    pub(super) peer_port: u16,
    pub(super) place: Place,
    pub(super) own_networks: watch::Receiver<OwnNetworks>,
    pub(super) dns: Dns,
}

/// Who is asked for other clusters, and who is told about this one.
#[derive(Debug, Clone)]
pub(super) struct Dns {
    pub(super) servers: Servers,
    pub(super) published: Option<Destination>,
}

/// Puts everything together.
pub(super) async fn assemble(settings: &Loaded, target: Target) -> Result<Assembly, Error> {
    let config = &settings.config;
    let first = config.cluster_config_spec()?;
    let dns = dns(config)?;
    let (named, web_pki) = (fleet_secret(config)?, web_pki(config)?);
    let mut platform = platform::open(config, target).await?;
    let embedded = platform.embedded.take();
    ensure_namespaces(&platform.client).await?;
    let (follow_fleet, fleet) = shared_secret(named, &platform.client).await?;
    let spec = cluster_config::load(&platform.client, &first).await?;
    let (pod_cidr, service_cidr) = ranges(config, &spec);
    let (rules, follower, networks) = networks(config, pod_cidr, service_cidr);
    warn_of_policy(settings, &spec, pod_cidr, &platform.client).await;
    let listener = listen(config.peer.listen).await?;
    let bound = listener.local_addr().unwrap_or(config.peer.listen);
    let driver = tunnel(config, platform.identity.cluster_id()).await?;
    let credentials = TlsCredentials::new(Arc::clone(&platform.identity), jiff::Timestamp::now())?;
    let place = Place::new(config, bound.port());
    let own = Own {
        auth_url: place.auth_url(&networks.own.borrow()),
        tunnel: driver
            .as_ref()
            .map(|driver| own_tunnel(config, driver.as_ref())),
        ..own(config, &spec, &platform.identity)
    };
    let (policy, policy_receiver) = watch::channel(spec);
    let context = Context::new(Parts {
        client: platform.client.clone(),
        connector: Arc::new(TlsConnector::new(
            Arc::clone(&credentials),
            networks.own.clone(),
        )),
        own,
        service_cidr,
        surroundings: networks.around.clone(),
        fleet,
        web_pki,
        config: policy_receiver,
        clock: clock::wall(),
    });
    let endpoint = endpoint(&context, &platform.client);
    Ok(Assembly {
        platform,
        embedded,
        context,
        policy,
        fleet: follow_fleet,
        credentials,
        endpoint,
        listener,
        follower,
        rules,
        driver,
        boot: boot(),
        peer_port: bound.port(),
        place,
        own_networks: networks.own,
        dns,
    })
}

/// What peers talk to.
fn endpoint(context: &Arc<Context>, client: &kube::Client) -> PeerEndpoint {
    let desk = FrontDesk::new(Arc::clone(context));
    PeerEndpoint::new(Arc::new(desk), client.clone())
}

async fn ensure_namespaces(client: &kube::Client) -> Result<(), Error> {
    for namespace in [labels::NAMESPACE, labels::NODE_LEASE_NAMESPACE] {
        cluster_config::ensure_namespace(client, namespace).await?;
    }
    Ok(())
}

/// What of this machine's networks matters, and what follows them.
pub(super) fn networks(
    config: &Config,
    pod_cidr: Ipv4Net,
    service_cidr: Ipv4Net,
) -> (InterfaceRules, Follower, Networks) {
    let listen = config.peer.listen.ip().to_canonical();
    let rules = InterfaceRules {
        allow: config.lan.interfaces.allow.clone(),
        deny: config.lan.interfaces.deny.clone(),
        excluded: vec![IpNet::V4(pod_cidr), IpNet::V4(service_cidr)],
        said: Said::by(listen),
    };
    let base = OwnNetworks {
        pod_cidr: Some(IpNet::V4(pod_cidr)),
        service_cidr: Some(IpNet::V4(service_cidr)),
        // Who listens on loopback only tries things out on one machine.
        loopback_allowed: listen.is_loopback(),
        api_ports: vec![KUBE_APISERVER_PORT],
        ..OwnNetworks::default()
    };
    let (follower, networks) = Follower::new(base, rules.clone());
    (rules, follower, networks)
}

/// Who we are, without what listens.
fn own(config: &Config, spec: &ClusterConfigSpec, identity: &Identity) -> Own {
    let cluster_id = identity.cluster_id();
    let (pod_cidr, service_cidr) = ranges(config, spec);
    let ground = Ground {
        services: Some(service_cidr),
        ..Ground::new(cluster_id.clone(), pod_cidr)
    };
    Own {
        cluster_id: cluster_id.clone(),
        fingerprint: identity.fingerprint().clone(),
        cluster_name: ClusterName::neutralise(&config.cluster.name),
        auth_url: String::new(),
        pod_cidr,
        external_cidr: external_range(&ground).unwrap_or(pod_cidr),
        tunnel: None,
    }
}

fn own_tunnel(config: &Config, driver: &dyn Driver) -> OwnTunnel {
    OwnTunnel {
        public_key: driver.public_key().to_string(),
        port: driver.port(),
        mtu: match config.tunnel.mtu {
            // Each side takes what fits its paths.
            0 => LARGEST_MTU,
            mtu => mtu,
        },
    }
}

/// What the tunnels keep to.
pub(super) fn tunnel_settings(config: &Config, own: &Own) -> tunnel_endpoint::Settings {
    tunnel_endpoint::Settings {
        mtu: config.tunnel.mtu,
        ..tunnel_endpoint::Settings::new(own.pod_cidr)
    }
}

fn fleet_secret(config: &Config) -> Result<Option<FleetSecret>, Error> {
    let path = &config.trust.fleet_secret_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    Ok(Some(FleetSecret::from_file(path)?))
}

/// The fleet secret of the file, or else the one of the API and what follows it.
async fn shared_secret(
    named: Option<FleetSecret>,
    client: &kube::Client,
) -> Result<(Option<watch::Sender<Fleet>>, watch::Receiver<Fleet>), Error> {
    if let Some(secret) = named {
        return Ok((None, watch::channel(Some(Arc::new(secret))).1));
    }
    let (sender, receiver) = watch::channel(fleet::read(client).await?);
    Ok((Some(sender), receiver))
}

fn web_pki(config: &Config) -> Result<WebPki, Error> {
    let files = &config.trust.web_pki;
    let roots = &config.trust.web_pki_roots_file;
    Ok(WebPki::new(
        &files.certificate_file,
        &files.key_file,
        roots,
    )?)
}

/// The name servers that are asked, and whose signatures they are believed for.
pub(super) fn servers(config: &Config) -> Result<Servers, Error> {
    let servers = Servers::parse(&config.dns.servers)?;
    let anchors = &config.dns.trust_anchors_file;
    if anchors.as_os_str().is_empty() {
        return Ok(servers);
    }
    servers
        .with_anchors_from(anchors)
        .map_err(|source| Error::TrustAnchors {
            path: anchors.clone(),
            source,
        })
}

fn dns(config: &Config) -> Result<Dns, Error> {
    let servers = servers(config)?;
    let publish = &config.dns.publish;
    let key_file = publish.tsig_key_file.clone();
    let style = match publish.style {
        ZoneStyle::Rfc6763 => Style::Rfc6763,
        ZoneStyle::Liqo => Style::Liqo,
    };
    let published = Destination::from_settings(&publish.zone, &publish.server, key_file, style)?;
    Ok(Dns { servers, published })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let refuse = |source| Error::Listen {
        address,
        purpose: "other clusters",
        key: "peer.listen",
        source,
    };
    match TcpListener::bind(address).await {
        Err(error) if address.ip().is_unspecified() && is_without_ipv6(&error) => {
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            TcpListener::bind(v4).await.map_err(refuse)
        }
        other => other.map_err(refuse),
    }
}

/// Whether the machine has no IPv6, so that its unspecified address cannot be bound.
fn is_without_ipv6(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::Unsupported
    )
}

/// Where others reach our peer endpoint, as far as the settings say.
#[derive(Debug, Clone)]
pub(super) struct Place {
    advertise: String,
    listen: SocketAddr,
}

impl Place {
    fn new(config: &Config, port: u16) -> Self {
        Self {
            advertise: config.peer.advertise.clone(),
            listen: SocketAddr::new(config.peer.listen.ip(), port),
        }
    }

    /// Returns where we are on our LANs, if the settings do not name one place.
    pub(super) fn endpoints(&self, own: &OwnNetworks) -> String {
        if !self.advertise.is_empty() || !self.listen.ip().is_unspecified() {
            return String::new();
        }
        let port = self.listen.port();
        let all = publish::addresses(own).into_iter();
        let all = all.map(|address| SocketAddr::new(address, port).to_string());
        all.collect::<Vec<_>>().join(" ")
    }

    /// Returns the URL that we name to peers: the one of the settings, else our first address on a
    /// LAN.
    pub(super) fn auth_url(&self, own: &OwnNetworks) -> String {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        let on_link =
            |address: &&IpAddr| own.on_link.iter().any(|subnet| subnet.contains(*address));
        let v4 = own
            .addresses
            .iter()
            .filter(|address| address.is_ipv4())
            .find(on_link);
        let listen = self.listen.ip();
        let named = (!listen.is_unspecified()).then_some(&listen).or(v4);
        named.map_or_else(String::new, |address| {
            format!("https://{}", SocketAddr::new(*address, self.listen.port()))
        })
    }
}

/// The tunnel, with a key that belongs to this identity alone: no two clusters may have one key, and
/// a data directory may have been copied.
async fn tunnel(config: &Config, id: &ClusterId) -> Result<Option<Arc<dyn Driver>>, Error> {
    match config.tunnel.mode {
        TunnelMode::Off => Ok(None),
        TunnelMode::Auto | TunnelMode::Userspace => {
            let key = key::load_or_create(&config.data_dir.join(format!("tunnel-{id}.key")))?;
            let driver = Userspace::open(Settings::new(key, config.tunnel.port)).await?;
            Ok(Some(Arc::new(driver)))
        }
    }
}

/// The name of this run of the program: 16 hexadecimal digits, new at each start.
fn boot() -> String {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 8];
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        bytes = jiff::Timestamp::now().as_microsecond().to_le_bytes();
    }
    format!("{:016x}", u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_size_that_nobody_set_is_left_to_the_paths() {
        let identity = Identity::generate().unwrap();
        let spec = ClusterConfigSpec::default();
        for mtu in [0, 1300] {
            let mut config = Config::default();
            config.tunnel.mtu = mtu;
            let own = own(&config, &spec, &identity);
            assert_eq!(tunnel_settings(&config, &own).mtu, mtu);
        }
    }
}
