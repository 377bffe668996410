//! The door to packets: links, routes, NAT and WireGuard.
