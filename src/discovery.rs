//! The door to the LAN and to DNS: what is out there.
