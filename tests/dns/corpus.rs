//! The inputs that fuzzers found worth keeping, once more, and what the good ones lead to.

#[path = "../../fuzz/src/domain.rs"]
mod domain;

use std::{
    fs,
    path::{Path, PathBuf},
};

use landbridge::discovery::dns::look_at_recorded;

use crate::lookup::{found, refused};

fn corpus(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("fuzz/corpus").join(target)
}

fn replay(target: &str, deed: fn(&[u8])) {
    let files = fs::read_dir(corpus(target)).expect("a folder");
    let inputs = files.map(|file| fs::read(file.expect("readable").path()).expect("readable"));
    let count = inputs.map(|input| deed(&input)).count();
    assert!(count > 0, "there is no input for {target}");
}

#[test]
fn answers_of_name_servers_are_read_within_bounds() {
    replay("answers", domain::answers);
}

#[test]
fn recordings_with_bytes_changed_by_chance_stay_within_bounds() {
    let rounds: usize = std::env::var("MUTATIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200);
    let mut random = fastrand::Rng::with_seed(7);
    for file in fs::read_dir(corpus("answers")).expect("a folder") {
        let path = file.expect("readable").path();
        let input = fs::read(&path).expect("readable");
        for _ in 0..rounds {
            let mut changed = input.clone();
            for _ in 0..random.usize(1..8) {
                if let Some(byte) = random.choice(changed.iter_mut()) {
                    *byte = random.u8(..);
                }
            }
            domain::answers(&changed);
        }
    }
}

#[test]
fn recorded_answers_of_bind_lead_to_the_clusters_that_they_list() {
    let look = |name: &str| {
        let messages = fs::read(corpus("answers").join(name)).expect("a recording");
        look_at_recorded("fuzz.test", &messages)
    };
    let both = look("bind-both-styles");
    let found_both = found(&both);
    assert_eq!(found_both["rome.fuzz.test"], ["192.0.2.1:5870"]);
    assert_eq!(
        found_both["naples._landbridge._tcp.fuzz.test"],
        ["192.0.2.4:5870", "[2001:db8::4]:5870"]
    );
    let circle = refused(&look("bind-circle"));
    assert!(circle["circle.fuzz.test"].contains("circle"), "{circle:?}");
    assert!(found(&look("cut-off")).len() < found_both.len());
}
