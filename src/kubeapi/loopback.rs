//! The same API for kubectl: TLS on loopback, with a client certificate.
