//! The TSIG key: as `tsig-keygen` writes it, or `algorithm:name:secret` in one line.

use std::{fmt, fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hickory_proto::rr::{Name, TSigner, rdata::tsig::TsigAlgorithm};
use zeroize::Zeroizing;

/// How far clocks may be apart, in seconds (RFC 8945, section 10).
const FUDGE: u16 = 300;
/// The longest file that is read.
const SIZE_LIMIT: u64 = 4096;

/// Indicates a key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Indicates a file that cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// Indicates a text that is no key.
    #[error("is not a key: write one with tsig-keygen NAME")]
    Syntax,
    /// Indicates an algorithm that is too weak or unknown.
    #[error("has the algorithm {0}: use hmac-sha256, hmac-sha384 or hmac-sha512")]
    Algorithm(String),
}

/// A key that signs updates.
#[derive(Clone)]
pub struct Key(TSigner);

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({}, ***)", self.0.signer_name())
    }
}

impl Key {
    /// Reads a key from a file.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        use io::Read as _;
        let mut text = Zeroizing::new(String::new());
        fs::File::open(path)
            .map_err(KeyError::Read)?
            .take(SIZE_LIMIT)
            .read_to_string(&mut text)
            .map_err(KeyError::Read)?;
        Self::parse(&text)
    }

    /// Reads a key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (algorithm, name, secret) = parts(text).ok_or(KeyError::Syntax)?;
        let algorithm = match algorithm.to_ascii_lowercase().as_str() {
            "hmac-sha256" => TsigAlgorithm::HmacSha256,
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            "hmac-sha512" => TsigAlgorithm::HmacSha512,
            other => return Err(KeyError::Algorithm(other.chars().take(40).collect())),
        };
        let name = Name::from_ascii(name).map_err(|_| KeyError::Syntax)?;
        let secret = STANDARD.decode(secret).map_err(|_| KeyError::Syntax)?;
        if secret.is_empty() || name.is_root() {
            return Err(KeyError::Syntax);
        }
        TSigner::new(secret, algorithm, name, FUDGE)
            .map(Self)
            .map_err(|_| KeyError::Syntax)
    }

    pub(super) fn signer(&self) -> TSigner {
        self.0.clone()
    }
}

/// Takes algorithm, name and secret out of either form.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    if !text.contains('{') {
        let mut parts = text.trim().splitn(3, ':');
        return Some((parts.next()?, parts.next()?, parts.next()?));
    }
    let mut words = text
        .split(|letter: char| letter.is_whitespace() || matches!(letter, '{' | '}' | ';' | '"'))
        .filter(|word| !word.is_empty());
    let (mut name, mut algorithm, mut secret) = (None, None, None);
    while let Some(word) = words.next() {
        match word {
            "key" => name = words.next(),
            "algorithm" => algorithm = words.next(),
            "secret" => secret = words.next(),
            _ => return None,
        }
    }
    Some((algorithm?, name?, secret?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_bind_writes_it_or_in_one_line() {
        let long = "key \"rome\" {\n\talgorithm hmac-sha512;\n\tsecret \"c2VjcmV0\";\n};\n";
        for text in [long, "hmac-sha256:rome:c2VjcmV0\n"] {
            let key = Key::parse(text).expect("a key");
            assert_eq!(key.0.key(), b"secret");
            assert_eq!(format!("{key:?}"), "Key(rome., ***)");
        }
    }

    #[test]
    fn what_is_not_a_strong_key_is_refused() {
        for text in [
            "",
            "x",
            "hmac-sha256:rome:",
            "hmac-sha256:rome:?",
            "key \"rome\" { };",
        ] {
            assert!(matches!(Key::parse(text), Err(KeyError::Syntax)), "{text}");
        }
        let weak = Key::parse("hmac-md5:rome:c2VjcmV0");
        assert!(matches!(weak, Err(KeyError::Algorithm(name)) if name == "hmac-md5"));
    }
}
