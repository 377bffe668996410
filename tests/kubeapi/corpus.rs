//! The inputs that fuzzers found worth keeping, once more, and what chance makes of them.
//!
//! `LANDBRIDGE_MUTATIONS=1000000 LANDBRIDGE_SEED=7 cargo test --test kubeapi corpus` is the long form.

#[path = "../../fuzz/src/deeds.rs"]
mod deeds;

use std::{env, fs, panic, path::Path};

/// How many inputs are made of each corpus in the short form.
const MUTATIONS: u64 = 2_000;

/// What is put into inputs beside random bytes.
const WORDS: [&str; 36] = [
    "null",
    "{}",
    "[]",
    "\"\"",
    "true",
    "-1",
    "0",
    "1e999",
    "9223372036854775808",
    "0.1",
    "\\u0000",
    "\u{202e}",
    "/",
    "//",
    "~1",
    "-",
    "%00",
    "%2f",
    "?",
    "&",
    "=",
    ",",
    "!",
    " in ()",
    "*a",
    "&a ",
    "---\n",
    "$patch",
    "$retainKeys",
    "delete",
    "metadata",
    "ownerReferences",
    "managedFields",
    "finalizers",
    "{\"f:spec\":{\".\":{}}}",
    "k:{\"type\":\"a\"}",
];

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there is no input for {target}");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn replay(target: &str, deed: fn(&[u8])) {
    let inputs = inputs(target);
    for input in &inputs {
        deed(input);
    }
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let count = number("LANDBRIDGE_MUTATIONS").unwrap_or(MUTATIONS);
    let mut chance = fastrand::Rng::with_seed(number("LANDBRIDGE_SEED").unwrap_or(1));
    for _ in 0..count {
        let input = mutate(&inputs, &mut chance);
        let outcome = panic::catch_unwind(|| deed(&input));
        let shown = input.escape_ascii();
        assert!(outcome.is_ok(), "the input for {target} was {shown}");
    }
}

/// An input with a few changes, or with the end of another one.
fn mutate(inputs: &[Vec<u8>], chance: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = inputs[chance.usize(..inputs.len())].clone();
    for _ in 0..chance.usize(1..5) {
        let place = chance.usize(..=input.len());
        let end = (place + chance.usize(..16)).min(input.len());
        match chance.u8(..6) {
            0 => drop(input.splice(place..end, std::iter::once(chance.u8(..)))),
            1 => drop(input.drain(place..end)),
            2 => {
                let again = input[place..end].to_vec();
                input.splice(place..place, again);
            }
            3 => {
                let other = &inputs[chance.usize(..inputs.len())];
                input.truncate(place);
                input.extend_from_slice(&other[chance.usize(..=other.len())..]);
            }
            kind => {
                let word = WORDS[chance.usize(..WORDS.len())];
                let end = if kind == 4 { place } else { end };
                input.splice(place..end, word.bytes());
            }
        }
    }
    input
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
