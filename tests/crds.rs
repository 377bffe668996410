//! The definitions under `deploy/crds` are the ones that the program prints.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

#[test]
fn the_shipped_definitions_are_the_generated_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let status = Command::new(env!("CARGO_BIN_EXE_landbridge"))
        .args(["crd", "--write"])
        .arg(directory.path())
        .status()
        .expect("the program runs");
    assert!(status.success());
    let shipped = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/crds"));
    let generated = files(directory.path());
    let remedy = "run: cargo run -- crd --write deploy/crds";
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&shipped), names(&generated), "{remedy}");
    for (name, text) in generated {
        assert!(
            shipped[&name] == text,
            "deploy/crds/{name} differs; {remedy}"
        );
    }
}

fn files(directory: &Path) -> BTreeMap<String, String> {
    fs::read_dir(directory)
        .expect("a readable directory")
        .map(|entry| {
            let entry = entry.expect("a readable entry");
            let name = entry.file_name().into_string().expect("a plain name");
            (name, fs::read_to_string(entry.path()).expect("text"))
        })
        .collect()
}
