//! `landbridge man DIR`.

use super::{
    Failure,
    args::{Man, command},
};

/// Writes a man page for the program and for each verb.
pub(super) fn man(options: &Man) -> Result<(), Failure> {
    let directory = &options.directory;
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command(), directory))
        .map_err(|error| {
            let place = directory.display();
            Failure::NotSo(format!("cannot write man pages to {place}: {error}"))
        })
}
