//! The verbs about who this machine is, and whom it belongs to.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Settings;

#[derive(Debug, Args)]
pub(in crate::cli) struct FleetSecret {
    /// Write it to this new file, which only you can read, instead of printing it
    pub(in crate::cli) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Identity {
    #[command(subcommand)]
    pub(in crate::cli) verb: IdentityVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum IdentityVerb {
    /// Print the cluster id and the fingerprint of its key
    Show(Settings),
    /// Write the identity to a new file, sealed by a passphrase
    Export(IdentityExport),
    /// Make an exported identity the one of this machine; its daemon must not run
    Import(IdentityImport),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct IdentityExport {
    /// The new file, which only you can read
    pub(in crate::cli) file: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) passphrase: Passphrase,
    #[command(flatten)]
    pub(in crate::cli) settings: Settings,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct IdentityImport {
    /// The file that landbridge identity export wrote
    pub(in crate::cli) file: PathBuf,
    /// Take the place of another identity, which is kept as identity.pem.ID
    #[arg(long)]
    pub(in crate::cli) replace: bool,
    #[command(flatten)]
    pub(in crate::cli) passphrase: Passphrase,
    #[command(flatten)]
    pub(in crate::cli) settings: Settings,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Passphrase {
    /// The file with the passphrase [default: asked for, or one line of standard input]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) passphrase_file: Option<PathBuf>,
}
