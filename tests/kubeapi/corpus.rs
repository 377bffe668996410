//! The inputs that fuzzers found worth keeping, once more.

#[path = "../../fuzz/src/deeds.rs"]
mod deeds;

use std::{fs, path::Path};

fn replay(target: &str, deed: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        deed(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "there is no input for {target}");
}

#[test]
fn paths_and_queries_are_answered() {
    replay("path", deeds::path);
}

#[test]
fn patches_are_carried_out_or_refused() {
    replay("patch", deeds::patch);
}

#[test]
fn selectors_select_or_are_refused() {
    replay("selector", deeds::selector);
}

#[test]
fn objects_are_taken_or_refused() {
    replay("validation", deeds::validation);
}
