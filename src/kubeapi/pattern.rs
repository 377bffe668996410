//! The patterns of schemas, each compiled once: compiling takes as long as the rest of a write.

use regex::Regex;
use std::{
    collections::BTreeMap,
    sync::{LazyLock, PoisonError, RwLock},
};

/// How many compiled patterns are kept. A definition has a handful; who has more pays for some of
/// them again.
const MOST: usize = 256;

/// The compiled patterns by their text; none is one that is no regular expression.
type Known = BTreeMap<String, Option<Regex>>;

static KNOWN: LazyLock<RwLock<Known>> = LazyLock::new(RwLock::default);

/// Whether a text has what a pattern says; no text has what is no regular expression.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(compiled) = known.get(pattern) {
        return is_match(compiled.as_ref(), text);
    }
    drop(known);
    let compiled = Regex::new(pattern).ok();
    let matches = is_match(compiled.as_ref(), text);
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(pattern.to_owned(), compiled);
    matches
}

fn is_match(compiled: Option<&Regex>, text: &str) -> bool {
    compiled.is_some_and(|pattern| pattern.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_patterns_are_told_apart_and_not_all_kept() {
        for number in 0..2 * MOST {
            let pattern = format!("^a{number}$");
            for _ in 0..2 {
                assert!(matches(&pattern, &format!("a{number}")));
                assert!(!matches(&pattern, "b"));
            }
        }
        assert!(KNOWN.read().unwrap().len() <= MOST);
        assert!(!matches("(", "("));
    }
}
