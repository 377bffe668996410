//! Where objects live: memory answers reads and watches, a backend keeps what must survive.

mod access;
mod committer;
mod feed;
mod live;
mod memory;
#[cfg(test)]
mod model;
mod recent;
mod sqlite;
mod stored;
#[cfg(test)]
mod tests;
mod writer;

pub use memory::Memory;
pub use sqlite::Sqlite;

pub(super) use access::Store;
pub(super) use committer::{Expectation, Rejected, Write};
pub(super) use feed::Events;
pub(super) use live::{Event, Start};
pub(super) use stored::Stored;
pub(super) use writer::may_wait_here;

use super::Error;
use axum::body::Bytes;

/// How many changes the log keeps at most; a watch that is further behind must list again.
pub(super) const LOG_LENGTH: usize = 10_000;

/// How many bytes of objects the log keeps at most: a thousand objects of the largest size must not
/// stay in memory because they changed.
pub(super) const LOG_BYTES: usize = 16 * 1_024 * 1_024;

/// How long the log keeps a change.
pub(super) const LOG_MINUTES: i64 = 5;

/// Keeps changes durable. The store calls it from one place at a time.
pub trait Backend: Send {
    /// Reads everything at start; fails rather than give wrong data.
    fn load(&mut self) -> Result<Loaded, Error>;

    /// Makes a batch durable, all or nothing. It may be answered for only after this returns.
    /// With it the log up to and including the revision `forget` goes; the objects stay.
    fn commit(&mut self, batch: &[Change], forget: u64) -> Result<(), Error>;
}

/// Says where commits happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// One thread collects the writes of all requests into one transaction; on the thread that serves the
    /// API's clients a request that is alone commits itself.
    Threaded,
    /// The request itself commits: no threads, so that a simulation is deterministic.
    Inline,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It was deleted.
    Deleted,
}

impl Operation {
    /// The word that the log and the watches use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// Reads the word of the log.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Added, Self::Modified, Self::Deleted]
            .into_iter()
            .find(|operation| operation.as_str() == word)
    }
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision that this change made.
    pub revision: u64,
    /// `group/plural/namespace/name`.
    pub key: String,
    /// What happened.
    pub operation: Operation,
    /// The object after the change, or before it when it was deleted, as JSON.
    pub object: Bytes,
    /// The revision of the object that this takes the place of, if there was one.
    pub replaces: Option<u64>,
}

/// An object as it was last stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// `group/plural/namespace/name`.
    pub key: String,
    /// The revision of its last change.
    pub revision: u64,
    /// The object as JSON.
    pub object: Bytes,
}

/// What a backend holds at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The highest revision ever given out.
    pub revision: u64,
    /// The highest revision that is no longer in the log.
    pub compacted: u64,
    /// Every object.
    pub objects: Vec<Current>,
    /// The kept changes, oldest first.
    pub log: Vec<Change>,
}
