//! Domain names as labels, equal whatever their case (RFC 6762, section 16).

use std::{cmp::Ordering, fmt};

/// The longest name, its end included (RFC 1035, section 2.3.4).
pub(super) const NAME_LIMIT: usize = 255;
/// The longest label.
const LABEL_LIMIT: usize = 63;

/// A domain name: labels with their lengths before them, without the root at the end. The lengths
/// are below every letter, so that folding the case leaves them alone.
#[derive(Clone, Default)]
pub struct Name(Vec<u8>);

impl Name {
    /// Joins labels; none when one is empty or too long, or all of them are.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut name = Self::default();
        for label in labels {
            if !name.push(label) {
                return None;
            }
        }
        Some(name)
    }

    /// Takes a name apart at its dots, for names that are known to be well formed.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::from_labels(text.trim_end_matches('.').split('.').map(str::as_bytes))
    }

    /// Puts a label before a name.
    pub fn under(label: &str, parent: &Self) -> Option<Self> {
        Self::from_labels(std::iter::once(label.as_bytes()).chain(parent.labels()))
    }

    /// Returns the one label that a name has more than `parent`.
    pub fn label_before(&self, parent: &Self) -> Option<&[u8]> {
        let (&length, rest) = self.0.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        rest.eq_ignore_ascii_case(&parent.0).then_some(label)
    }

    /// Returns the labels, the first one first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(usize::from(length))?;
            rest = tail;
            Some(label)
        })
    }

    /// Adds a label at the end; false when there is no room for it.
    pub(super) fn push(&mut self, label: &[u8]) -> bool {
        let fits = !label.is_empty()
            && label.len() <= LABEL_LIMIT
            && self.0.len() + label.len() + 2 <= NAME_LIMIT;
        if let (true, Ok(length)) = (fits, u8::try_from(label.len())) {
            self.0.push(length);
            self.0.extend_from_slice(label);
        }
        fits
    }

    /// Returns the labels with their lengths.
    pub(super) fn wire(&self) -> &[u8] {
        &self.0
    }

    fn folded(&self) -> impl Iterator<Item = u8> {
        self.0.iter().map(u8::to_ascii_lowercase)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded().cmp(other.folded())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            write!(formatter, "{}.", label.escape_ascii())?;
        }
        Ok(())
    }
}
