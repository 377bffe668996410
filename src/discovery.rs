//! The door to the LAN and to DNS: what is out there.

pub mod dns;
pub mod interfaces;
pub mod lan_check;
pub mod lan_look;
pub mod mdns;
pub mod publish;
pub mod record;
pub mod source;

/// Indicates why discovery on the LAN could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Indicates that another program holds the mDNS port for itself.
    #[error(
        "UDP port {port} is held exclusively by another program ({reason}): stop it, or let it share the port"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Indicates that the interfaces of this machine could not be listed.
    #[error("cannot list the network interfaces: {0}")]
    Interfaces(std::io::Error),
    /// Indicates that the system gives no socket for multicast DNS, in IPv4 or in IPv6.
    #[error("no socket for multicast DNS: {0}")]
    Socket(std::io::Error),
}

/// How a source of discovery is doing, for a condition that a person reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    /// It has not started yet.
    #[default]
    Starting,
    /// It works, on these interfaces.
    Working {
        /// The names of the interfaces.
        interfaces: Vec<String>,
    },
    /// It waits for an interface that may be used: up, multicast and allowed by the rules.
    NoInterface {
        /// The names of those that are up and allowed and do not know multicast.
        without_multicast: Vec<String>,
    },
    /// Multicast does not pass on some interfaces: not even what we send ourselves comes back.
    Blocked {
        /// The names of these interfaces.
        interfaces: Vec<String>,
        /// The names of those on which it passes.
        working: Vec<String>,
    },
    /// It is switched off by the configuration.
    SwitchedOff,
    /// Another program holds the port for itself; tried again with growing waits.
    PortTaken {
        /// Which port, and what to do about it.
        message: String,
    },
    /// It broke and is started again with growing waits.
    Restarting {
        /// What broke.
        message: String,
    },
    /// It was shut down.
    Stopped,
}

/// Returns a random number between 0 and 1, to spread what many do at the same time.
fn fraction() -> f64 {
    let mut bytes = [0_u8; 4];
    // Without randomness everybody waits alike, which is only less polite.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}
