//! The door to packets: links, routes, NAT and WireGuard.
//!
//! ```text
//! controllers/tunnel_endpoint --- Operation ---> Driver
//!                                                  |-- userspace: device (WireGuard on a TUN),
//!                                                  |     links (addresses, routes), nat (nft), probe
//!                                                  '-- memory: no packets at all, for simulations
//! ```

mod device;
pub mod driver;
pub mod key;
mod links;
pub mod memory;
mod nat;
pub mod probe;
mod tun;
mod udp;
pub mod userspace;

pub use driver::{Driver, Error};
pub use key::PrivateKey;
pub use userspace::Userspace;
