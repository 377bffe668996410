//! The packets of multicast DNS (RFC 1035, section 4; RFC 6762, section 18): reading and writing.
//!
//! Reading is total and bounded. A record of a kind that is of no use here, or whose data makes no
//! sense, is skipped; a packet whose names lead nowhere is refused as a whole.

use std::net::{Ipv4Addr, Ipv6Addr};

mod name;
mod read;
mod write;

pub use name::Name;

/// The kinds of records that matter here (RFC 1035, section 3.2.2; RFC 3596; RFC 2782).
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// A pointer to an instance.
    pub const PTR: u16 = 12;
    /// Keys and values.
    pub const TXT: u16 = 16;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// A host and a port.
    pub const SRV: u16 = 33;
    /// Any kind, in a question.
    pub const ANY: u16 = 255;
}

/// The largest packet, headers included (RFC 6762, section 17).
pub const SIZE_LIMIT: usize = 9000;

/// Indicates that a packet cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Indicates a packet that ends within something.
    #[error("packet is cut off")]
    CutOff,
    /// Indicates more than 255 bytes of name.
    #[error("name is longer than 255 bytes")]
    NameTooLong,
    /// Indicates a name that points to itself, forward, or from place to place without end.
    #[error("name points to nowhere")]
    Pointer,
    /// Indicates a label of a kind that was never in use.
    #[error("name has a label of an unknown kind")]
    Label,
    /// Indicates more questions or records than any stack sends.
    #[error("packet has too many entries")]
    TooMany,
    /// Indicates an operation or a response code other than zero (RFC 6762, section 18).
    #[error("packet is neither a query nor an answer")]
    Operation,
}

/// A query or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packet {
    /// The id, zero but for those who expect it back (RFC 6762, section 6.7).
    pub id: u16,
    /// Whether it is an answer.
    pub is_response: bool,
    /// Whether more known answers follow in packets of their own (RFC 6762, section 7.2).
    pub is_truncated: bool,
    /// What is asked.
    pub questions: Vec<Question>,
    /// What is answered; in a query: what is known already.
    pub answers: Vec<Record>,
    /// What may be of use besides.
    pub additionals: Vec<Record>,
}

impl Packet {
    /// Returns all records of the packet.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.answers.iter().chain(&self.additionals)
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The name.
    pub name: Name,
    /// The kind of record.
    pub kind: u16,
    /// Whether an answer to the asker alone will do (RFC 6762, section 5.4).
    pub unicast: bool,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The name that it belongs to.
    pub name: Name,
    /// For how many seconds it holds; zero takes it back.
    pub ttl: u32,
    /// Whether it replaces what was known of name and kind (RFC 6762, section 10.2).
    pub flush: bool,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// The name of an instance of a service.
    Ptr(Name),
    /// Where an instance is.
    Srv {
        /// The port.
        port: u16,
        /// The name of the host.
        target: Name,
    },
    /// The keys and values of an instance, not yet taken apart.
    Txt(Vec<u8>),
    /// An address of a host.
    A(Ipv4Addr),
    /// An address of a host.
    Aaaa(Ipv6Addr),
}

impl Data {
    fn kind(&self) -> u16 {
        match self {
            Self::Ptr(_) => kind::PTR,
            Self::Srv { .. } => kind::SRV,
            Self::Txt(_) => kind::TXT,
            Self::A(_) => kind::A,
            Self::Aaaa(_) => kind::AAAA,
        }
    }
}

#[cfg(test)]
mod tests;
