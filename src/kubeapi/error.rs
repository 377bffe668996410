//! What can go wrong while the embedded API is opened or served.

use std::path::{Path, PathBuf};

/// Tells why the embedded API cannot be opened or served, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates that the store's file cannot be opened.
    #[error("cannot open the store {path}: {reason}; check its owner and the free space")]
    Open {
        /// The file of the store.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// Indicates that another process holds the store.
    #[error(
        "the store {path} is in use by another daemon; stop it or choose another data directory"
    )]
    InUse {
        /// The file of the store.
        path: PathBuf,
    },
    /// Indicates that the store's content cannot be trusted.
    #[error(
        "the store {path} is damaged: {reason}; restore it from a copy, or move it away to start empty"
    )]
    Damaged {
        /// The file of the store.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Indicates that a batch of changes could not be made durable.
    #[error("cannot write to the store {path}: {reason}; free some space on its disk")]
    Write {
        /// The file of the store.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// Indicates that what every cluster must have could not be put into the store.
    #[error("cannot prepare the embedded api: {0}")]
    Prepare(String),
    /// Indicates that a file beside the store cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried: read, write, create.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Indicates that a certificate or key of the loopback listener is unusable.
    #[error(
        "cannot use the certificate {path}: {reason}; delete it, and the daemon makes a new one when it starts"
    )]
    Certificate {
        /// The file of the certificate or key.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Indicates a user in more groups than a certificate names.
    #[error("a user can be in {0} groups at most; bind to the user what else it may")]
    Groups(usize),
    /// Indicates that a thread of the embedded API could not be started.
    #[error("cannot start a thread of the embedded api: {0}; raise the limit of processes")]
    Thread(std::io::Error),
    /// Indicates that the thread that serves has ended before it was told to.
    #[error("the embedded api serves no longer: its thread failed; start again and report it")]
    Stopped,
    /// Indicates that the loopback listener is unusable.
    #[error(
        "cannot serve the embedded api on {address}: {reason}; choose another address with api.listen"
    )]
    Listen {
        /// The address of the listener.
        address: String,
        /// The system's answer.
        reason: String,
    },
    /// Indicates that a definition of a kind cannot be served.
    #[error("cannot serve the definition {name}: {reason}; correct it and apply it again")]
    Definition {
        /// The name of the definition.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// Wraps an error of the file system with what was tried on which path.
    pub(super) fn file(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}
