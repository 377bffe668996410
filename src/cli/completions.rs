//! `landbridge completions SHELL`.

use super::{
    Failure,
    args::{Completions, command},
    output,
};

/// Prints the completion script of a shell.
pub(super) fn completions(options: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command(), "landbridge", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
