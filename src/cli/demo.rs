//! `landbridge demo`: clusters on this machine that peer before your eyes.

use super::{Failure, args::Demo};

/// Runs the demo.
pub(super) fn demo(_options: Demo) -> Result<(), Failure> {
    Ok(())
}
