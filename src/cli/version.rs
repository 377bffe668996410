//! `landbridge version`.

use super::{Failure, output};

/// Prints the version.
pub(super) fn version() -> Result<(), Failure> {
    output::print(concat!("landbridge ", env!("CARGO_PKG_VERSION"), "\n"))
}
