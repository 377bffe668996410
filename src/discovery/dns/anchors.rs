//! Keys of zones that are signed and that nobody above vouches for, such as a company's own domain.

use std::{fs, io, path::Path, sync::Arc};

use hickory_proto::{
    dnssec::{TrustAnchors, Verifier as _},
    serialize::txt::trust_anchor::{Entry, Parser},
};

use super::Servers;

/// The largest file that is read.
const SIZE_LIMIT: u64 = 64 * 1024;

/// Indicates keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnchorsError {
    /// Indicates a file that cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Indicates a text that is none.
    #[error("is not a list of DNSKEY records: write them as dig DNSKEY +noall +answer prints them")]
    Syntax,
}

impl Servers {
    /// Follows signatures to the DNSKEY records in a file as well as to the keys of the root.
    pub fn with_anchors_from(self, path: &Path) -> Result<Self, AnchorsError> {
        use io::Read as _;
        let mut text = String::new();
        fs::File::open(path)?
            .take(SIZE_LIMIT)
            .read_to_string(&mut text)?;
        Ok(self.with_trust_anchors(Arc::new(parse(&text)?)))
    }
}

fn parse(text: &str) -> Result<TrustAnchors, AnchorsError> {
    let entries = Parser::new(text)
        .parse()
        .map_err(|_| AnchorsError::Syntax)?;
    let mut anchors = TrustAnchors::default();
    for entry in &entries {
        let Entry::DNSKEY(record) = entry else {
            return Err(AnchorsError::Syntax);
        };
        let key = record.data().key().map_err(|_| AnchorsError::Syntax)?;
        anchors.insert_with_name(&*key, record.name().into());
    }
    if entries.is_empty() {
        return Err(AnchorsError::Syntax);
    }
    Ok(anchors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_anything_else_is_refused() {
        let key = "signed.test. IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=\n";
        let anchors = parse(key).expect("a record");
        assert!(!anchors.is_empty());
        let root = TrustAnchors::default();
        assert_eq!(anchors.len(), root.len(), "the root is followed too");
        for wrong in ["", "key", "signed.test. IN A 10.0.0.1\n"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
