//! The inputs that fuzzers found worth keeping, once more, and what a few changes make of them.

#[path = "../../fuzz/src/peers.rs"]
mod peers;

use std::{fs, path::Path};

/// How many inputs are made of each that is kept.
const MUTATIONS: usize = 200;

fn replay(target: &str, deed: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there is no input for {target}");
    let mut chance = fastrand::Rng::with_seed(7);
    for path in paths {
        let input = fs::read(&path).unwrap();
        deed(&input);
        for _ in 0..MUTATIONS {
            let mut changed = input.clone();
            for _ in 0..chance.usize(1..4) {
                let place = chance.usize(..=changed.len());
                let end = (place + chance.usize(..3)).min(changed.len());
                changed.splice(place..end, [chance.u8(..128)]);
            }
            deed(&changed);
        }
    }
}

#[test]
fn requests_of_a_peer_are_permitted_only_as_the_table_says() {
    replay("gateway", peers::gateway);
}

#[test]
fn what_a_peer_says_of_itself_is_read_and_written_alike() {
    replay("identity", peers::identity);
}

#[test]
fn a_url_leads_nowhere_that_is_refused() {
    replay("auth_url", peers::auth_url);
}
