//! `landbridge crd`: the definitions of our kinds.

use std::fs;

use super::{Failure, args::Crd, output};
use crate::api;

/// Prints the definitions for `kubectl apply -f -`, or writes a file for each.
pub(super) fn crd(options: &Crd) -> Result<(), Failure> {
    let mut all = String::new();
    for definition in api::crds() {
        let text = serde_saphyr::to_string(&definition)
            .map_err(|error| Failure::NotSo(format!("a definition is not YAML: {error}")))?;
        if let Some(directory) = &options.write {
            let name = definition.metadata.name.unwrap_or_default();
            let path = directory.join(format!("{name}.yaml"));
            fs::create_dir_all(directory)
                .and_then(|()| fs::write(&path, &text))
                .map_err(|error| {
                    Failure::NotSo(format!("cannot write {}: {error}", path.display()))
                })?;
        }
        all.push_str("---\n");
        all.push_str(&text);
    }
    if options.write.is_some() {
        return Ok(());
    }
    output::print(&all)
}
