//! The driver for real packets: userspace WireGuard, rtnetlink, nft and the echo, put together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use tokio::sync::{Mutex, watch};

use super::{
    device::{Device, Parts},
    driver::{Driver, Error},
    key::PrivateKey,
    links::{self, LinkFacts, Links},
    nat,
    probe::{self, Responder},
    tun::Passage,
};
use crate::engine::overlay::{
    FilterState, INTERFACE, Observed, ObservedInterface, ObservedPeer, Operation, PublicKey,
};

/// The bit of CAP_NET_ADMIN in a capability set (linux/capability.h).
const CAP_NET_ADMIN: u64 = 1 << 12;
/// How often, and how many times, a vanishing interface is looked for.
const GONE_INTERVAL: Duration = Duration::from_millis(20);
const GONE_TRIES: u32 = 50;

/// What the driver has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the interface.
    pub interface: String,
    /// The tunnel's private key.
    pub key: PrivateKey,
    /// The UDP port that peers send to; 0 takes any free one.
    pub port: u16,
    /// Whether packets go to and from the kernel in bundles; off helps against broken ones.
    pub offload: bool,
}

impl Settings {
    /// Takes the usual interface and bundles.
    pub fn new(key: PrivateKey, port: u16) -> Self {
        Self {
            interface: INTERFACE.to_owned(),
            key,
            port,
            offload: true,
        }
    }
}

/// Userspace WireGuard on this machine.
#[derive(Debug)]
pub struct Userspace {
    settings: Settings,
    public_key: PublicKey,
    links: Links,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    device: Option<Device>,
    responder: Option<Responder>,
    address: Option<Ipv4Addr>,
    /// Whether there are rules of ours, which outlast the device.
    has_rules: bool,
    presented: BTreeMap<PublicKey, Ipv4Net>,
    passages: watch::Sender<Vec<Passage>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("State")
            .field("running", &self.device.is_some())
            .field("address", &self.address)
            .field("presented", &self.presented)
            .finish_non_exhaustive()
    }
}

/// Checks whether this machine can have a tunnel, without changing anything.
pub fn preflight() -> Result<(), Error> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    if effective_capabilities(&status) & CAP_NET_ADMIN == 0 {
        return Err(Error::Unavailable {
            missing: "this process may not make network interfaces (CAP_NET_ADMIN)".to_owned(),
            mend: "run as root, or give it the capability CAP_NET_ADMIN".to_owned(),
        });
    }
    let tun = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if let Err(error) = tun {
        let mend = if error.kind() == io::ErrorKind::PermissionDenied {
            "let this user open it (chmod 0666 /dev/net/tun, which is usual and harmless)"
        } else {
            "load the kernel module tun, and in a container pass the device in"
        };
        return Err(Error::Unavailable {
            missing: format!("/dev/net/tun cannot be opened ({error})"),
            mend: mend.to_owned(),
        });
    }
    match nat::program() {
        Some(_) => Ok(()),
        None => Err(nat::missing()),
    }
}

fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|it| it.strip_prefix("CapEff:"));
    line.and_then(|it| u64::from_str_radix(it.trim(), 16).ok())
        .unwrap_or(0)
}

impl Userspace {
    /// Prepares the driver, and removes what a crash may have left.
    ///
    /// That no tunnel is possible here is told by the operations, not by this: the daemon works
    /// without one too.
    pub async fn open(mut settings: Settings) -> Result<Self, Error> {
        if settings.port == 0 {
            settings.port = free_port()
                .map_err(|source| Error::kernel("find a free UDP port for the tunnel", source))?;
        }
        let driver = Self {
            public_key: settings.key.public_key(),
            links: Links::connect()?,
            state: Mutex::default(),
            settings,
        };
        if preflight().is_ok()
            && let Err(error) = driver.remove_leftovers().await
        {
            tracing::warn!(%error, "Could not remove what an earlier run left");
        }
        Ok(driver)
    }

    async fn remove_leftovers(&self) -> Result<(), Error> {
        match self.links.find(&self.settings.interface).await? {
            // Somebody lives there; making the interface will say so.
            Some(link) if link.held => return Ok(()),
            Some(link) => {
                tracing::info!(interface = %self.settings.interface, "Removing a stale interface");
                self.links.delete(link.index).await?;
            }
            None => {}
        }
        self.remove_routes().await?;
        match nat::observe().await? {
            Some(_) => nat::remove().await,
            None => Ok(()),
        }
    }

    async fn remove_routes(&self) -> Result<(), Error> {
        for range in self.links.routes(0).await?.into_keys() {
            self.links.remove_route(range).await?;
        }
        Ok(())
    }

    async fn look(&self) -> Result<Observed, Error> {
        let mut state = self.state.lock().await;
        let is_alive = state.device.as_mut().is_some_and(Device::is_alive);
        let link = self.links.find(&self.settings.interface).await?;
        let (Some(device), Some(link)) = (state.device.as_ref(), link) else {
            let is_anothers = state.device.is_none() && link.is_some_and(|it| it.held);
            return Ok(Observed {
                filter: if is_anothers {
                    // So are the rules.
                    None
                } else {
                    self.filter_without_device().await
                },
                ..Observed::default()
            });
        };
        if !is_alive {
            return Ok(Observed {
                filter: filter().await,
                ..Observed::default()
            });
        }
        let mut peers = BTreeMap::new();
        for facts in device.peers().await {
            let Some(presented) = state.presented.get(&facts.public_key) else {
                continue;
            };
            let peer = ObservedPeer {
                allowed: facts.allowed.into_iter().collect(),
                presented: *presented,
                endpoint: facts.endpoint,
                handshake_age: facts.handshake_age,
                received: facts.received,
                sent: facts.sent,
            };
            peers.insert(facts.public_key, peer);
        }
        Ok(Observed {
            interface: Some(self.look_at_interface(&state, device, link).await?),
            peers,
            routes: self.links.routes(link.index).await?,
            filter: filter().await,
        })
    }

    async fn look_at_interface(
        &self,
        state: &State,
        device: &Device,
        link: LinkFacts,
    ) -> Result<ObservedInterface, Error> {
        let answers = state.responder.as_ref().is_some_and(Responder::is_alive);
        let addresses = if answers {
            self.links.addresses(link.index).await?
        } else {
            // The echo belongs to the address: adding it again starts the echo again.
            BTreeSet::new()
        };
        Ok(ObservedInterface {
            index: link.index,
            up: link.up,
            mtu: link.mtu,
            port: device.port(),
            addresses,
        })
    }

    /// Without rights nothing can be listed, and nothing was made either.
    async fn filter_without_device(&self) -> Option<FilterState> {
        match preflight() {
            Ok(()) => nat::observe().await.unwrap_or_default(),
            Err(_) => None,
        }
    }

    async fn index(&self) -> Result<u32, Error> {
        let link = self.links.find(&self.settings.interface).await?;
        Ok(link.ok_or(Error::NoInterface)?.index)
    }

    async fn execute(&self, operation: Operation) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        match operation {
            Operation::CreateInterface { port, mtu } => {
                self.create(&mut state, port, mtu).await?;
            }
            Operation::RemoveInterface => self.remove(&mut state).await?,
            Operation::BringUp => self.links.bring_up(self.index().await?).await?,
            Operation::SetMtu(mtu) => {
                self.links.set_mtu(self.index().await?, mtu).await?;
                state.running()?.set_mtu(mtu);
            }
            Operation::AddAddress(address) => {
                self.links.add_address(self.index().await?, address).await?;
                let passages = state.passages.subscribe();
                state.stop_responder().await;
                let responder = Responder::start(&self.settings.interface, address, passages)?;
                state.responder = Some(responder);
                state.address = Some(address);
            }
            Operation::RemoveAddress(address) => {
                let index = self.index().await?;
                self.links.remove_address(index, address).await?;
            }
            Operation::ReplaceFilter(ruleset) => {
                state.has_rules = true;
                nat::replace(&ruleset).await?;
            }
            Operation::RemoveFilter => {
                nat::remove().await?;
                state.has_rules = false;
            }
            Operation::SetPeer(link) => {
                state.running()?.set_peer(&link).await?;
                state.presented.insert(link.public_key, link.presented);
                state.tell_passages().await?;
            }
            Operation::SetEndpoint(key, endpoint) => {
                state.running()?.set_endpoint(&key, endpoint).await?;
            }
            Operation::RemovePeer(key) => {
                state.running()?.remove_peer(&key).await?;
                state.presented.remove(&key);
                state.tell_passages().await?;
            }
            Operation::AddRoute { range, source } => {
                let index = self.index().await?;
                self.links.add_route(index, range, source).await?;
            }
            Operation::RemoveRoute(range) => self.links.remove_route(range).await?,
        }
        Ok(())
    }

    async fn create(&self, state: &mut State, port: u16, mtu: u16) -> Result<(), Error> {
        preflight()?;
        self.remove(state).await?;
        let parts = Parts {
            interface: &self.settings.interface,
            key: &self.settings.key,
            port,
            mtu,
            offload: self.settings.offload,
        };
        let device = Device::start(parts, state.passages.subscribe()).await?;
        // The tunnel carries no IPv6 yet; without this the kernel would speak it on its own.
        let knob = format!(
            "/proc/sys/net/ipv6/conf/{}/disable_ipv6",
            self.settings.interface
        );
        let _ = fs::write(knob, "1");
        state.device = Some(device);
        Ok(())
    }

    /// Stops what runs and waits until the kernel has let the interface go.
    async fn remove(&self, state: &mut State) -> Result<(), Error> {
        state.stop_responder().await;
        state.address = None;
        state.presented.clear();
        state.passages.send_replace(Vec::new());
        let Some(device) = state.device.take() else {
            return Ok(());
        };
        device.stop().await;
        for _ in 0..GONE_TRIES {
            if self.links.find(&self.settings.interface).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(GONE_INTERVAL).await;
        }
        match self.links.find(&self.settings.interface).await? {
            Some(link) => self.links.delete(link.index).await,
            None => Ok(()),
        }
    }

    async fn shut(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if state.device.is_none() && !state.has_rules {
            return Ok(());
        }
        let routes = self.remove_routes().await;
        let interface = self.remove(&mut state).await;
        // The rules go last, so that nothing passes without them.
        let filter = nat::remove().await;
        state.has_rules &= filter.is_err();
        routes.and(interface).and(filter)
    }
}

impl State {
    async fn stop_responder(&mut self) {
        if let Some(responder) = self.responder.take() {
            responder.stop().await;
        }
    }

    fn running(&self) -> Result<&Device, Error> {
        self.device.as_ref().ok_or(Error::NoInterface)
    }

    async fn tell_passages(&self) -> Result<(), Error> {
        let peers = self.running()?.peers().await;
        let passages = peers.into_iter().flat_map(|peer| {
            let presented = self.presented.get(&peer.public_key).copied();
            let ranges = presented.map(|to| {
                peer.allowed
                    .into_iter()
                    .map(move |from| Passage { from, to })
            });
            ranges.into_iter().flatten()
        });
        self.passages.send_replace(passages.collect());
        Ok(())
    }
}

impl Driver for Userspace {
    fn public_key(&self) -> PublicKey {
        self.public_key.clone()
    }

    fn port(&self) -> u16 {
        self.settings.port
    }

    fn path_mtu(&self, endpoint: SocketAddr) -> Option<u32> {
        links::path_mtu(endpoint)
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observed, Error>> {
        Box::pin(self.look())
    }

    fn carry_out(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.execute(operation))
    }

    fn probe(&self, target: Ipv4Addr) -> BoxFuture<'_, Result<Duration, Error>> {
        Box::pin(async move {
            let address = self.state.lock().await.address;
            let address = address.ok_or(Error::NoInterface)?;
            probe::echo(&self.settings.interface, address, target).await
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.shut())
    }
}

/// Looks at our rules. Where they cannot be seen, setting them says why, and whatever does not need
/// them goes on.
async fn filter() -> Option<FilterState> {
    let seen = nat::observe().await;
    seen.unwrap_or_else(|_| Some(FilterState::unknown()))
}

fn free_port() -> io::Result<u16> {
    let socket = match UdpSocket::bind(("::", 0)) {
        Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
            UdpSocket::bind(("0.0.0.0", 0))?
        }
        socket => socket?,
    };
    Ok(socket.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_to_make_interfaces_is_read_from_the_kernel() {
        let root = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        assert_ne!(effective_capabilities(root) & CAP_NET_ADMIN, 0);
        let nobody = "CapEff:\t0000000000000000\n";
        assert_eq!(effective_capabilities(nobody) & CAP_NET_ADMIN, 0);
        assert_eq!(effective_capabilities(""), 0);
    }
}
