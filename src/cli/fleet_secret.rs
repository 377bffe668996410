//! `landbridge fleet-secret`: a new secret for all machines of one owner.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::{Failure, args::FleetSecret, output};
use crate::daemon;

/// Prints a new secret, or writes it to a file that only we can read.
pub(super) fn fleet_secret(options: &FleetSecret) -> Result<(), Failure> {
    match &options.file {
        Some(path) => write(path),
        None => output::print(&format!("{}\n", make()?)),
    }
}

/// Writes a new secret to a file that does not exist yet. A missing directory is made for its owner
/// alone.
pub(super) fn write(path: &Path) -> Result<(), Failure> {
    let secret = make()?;
    let mut directory = fs::DirBuilder::new();
    directory.recursive(true).mode(0o700);
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent
        .map_or(Ok(()), |parent| directory.create(parent))
        .and_then(|()| {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        })
        .and_then(|mut file| writeln!(file, "{secret}"))
        .map_err(|error| {
            let place = path.display();
            let hint = if error.kind() == io::ErrorKind::AlreadyExists {
                ": copy it to the other machines, or name another file"
            } else {
                ""
            };
            Failure::NotSo(format!("cannot write {place}: {error}{hint}"))
        })
}

/// Makes 256 random bits, as hexadecimal digits.
pub(super) fn make() -> Result<String, Failure> {
    let made = daemon::new_secret().map_err(|error| Failure::NotSo(error.to_string()))?;
    Ok(made.expose().to_owned())
}
