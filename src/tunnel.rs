//! The door to packets: links, routes, NAT and WireGuard.
//!
//! ```text
//! controllers/tunnel_endpoint --- Operation ---> Driver
//!                                                  |-- userspace: device (WireGuard on a TUN),
//!                                                  |     links (addresses, routes), nat (nft), probe
//!                                                  '-- memory: no packets at all, for simulations
//! ```

pub mod driver;
pub mod key;
pub mod memory;

pub use driver::{Driver, Error};
