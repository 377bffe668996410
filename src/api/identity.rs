//! Who a cluster is: its id, its name and the fingerprint of its key, checked when parsed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest DNS label (RFC 1035, section 2.3.4), which an id and a name must fit in.
const LABEL_LIMIT: usize = 63;

/// Indicates that a string is not a usable identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Indicates a cluster id that is neither a UUID nor a DNS-1123 label.
    #[error("cluster id {0:?} is neither a UUID nor a DNS-1123 label of at most 63 characters")]
    ClusterId(String),
    /// Indicates a fingerprint that is not `sha256:` and 64 hexadecimal digits.
    #[error("fingerprint {0:?} is not sha256: followed by 64 hexadecimal digits")]
    Fingerprint(String),
}

/// The id of a cluster: for ours, a UUID of version 8 made from the cluster's public key.
///
/// A parsed id is only well-formed. That somebody may speak for it is shown by a TLS handshake
/// whose key gives the same id through [`ClusterId::from_spki`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(String);

impl ClusterId {
    /// Derives the id that belongs to a key: UUIDv8 (RFC 9562, section 5.8) whose 122 free bits are
    /// the first 122 bits of the SHA-256 of its SubjectPublicKeyInfo in DER.
    pub fn from_spki(spki_der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, spki_der);
        let mut head = [0_u8; 16];
        for (to, from) in head.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        let bits = u128::from_be_bytes(head) >> 6;
        // Layout: 48 bits, version (4 bits), 12 bits, variant (2 bits), 62 bits.
        let high = bits >> 74;
        let middle = (bits >> 62) & 0xfff;
        let low = bits & ((1 << 62) - 1);
        let uuid = (high << 80) | (8 << 76) | (middle << 64) | (2 << 62) | low;
        let hex = format!("{uuid:032x}");
        let mut text = String::with_capacity(36);
        for (index, digit) in hex.chars().enumerate() {
            if matches!(index, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(digit);
        }
        Self(text)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first six hexadecimal digits, for names that must differ.
    pub fn short(&self) -> &str {
        self.0.get(..6).unwrap_or(&self.0)
    }
}

impl FromStr for ClusterId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let well_formed = !text.is_empty()
            && text.len() <= LABEL_LIMIT
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdentityError::ClusterId(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ClusterId {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> Self {
        id.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Tells whether a text is an id of ours, or as much of the start of one as is shown to people.
pub fn begins_an_id(text: &str) -> bool {
    let fits = |(index, character): (usize, char)| match index {
        8 | 13 | 18 | 23 => character == '-',
        _ => character.is_ascii_hexdigit(),
    };
    (6..=36).contains(&text.len()) && text.chars().enumerate().all(fits)
}

/// The name that people gave a cluster, safe to print: at most 63 bytes, no control, bidirectional
/// or zero-width characters. It is never identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// Takes what a stranger says and neutralises it. A neutral name stays as it is.
    pub fn neutralise(text: &str) -> Self {
        let printable: String = text
            .chars()
            .filter(|&character| is_printable(character))
            .collect();
        let name = printable.trim();
        let fits = |end: &usize| name.is_char_boundary(*end);
        let end = (0..=LABEL_LIMIT.min(name.len())).rev().find(fits);
        let name = name.get(..end.unwrap_or(0)).unwrap_or_default();
        Self(name.trim_end().to_owned())
    }

    /// Returns the name as text, possibly empty.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Tells whether a character of a stranger's text can be shown: it is no control, bidirectional,
/// zero-width or tag character and breaks no line, which could steer a terminal or deceive a reader.
pub fn is_printable(character: char) -> bool {
    let deceives = matches!(character,
        '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    !character.is_control() && !deceives
}

impl From<String> for ClusterName {
    fn from(text: String) -> Self {
        Self::neutralise(&text)
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The SHA-256 of a public key (SPKI, DER), written `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Computes the fingerprint of a key from its SubjectPublicKeyInfo in DER.
    pub fn from_spki(spki_der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, spki_der);
        Self::written(digest.as_ref())
    }

    /// Takes the 32 bytes of a fingerprint that was computed elsewhere.
    pub fn from_digest(digest: &[u8]) -> Option<Self> {
        (digest.len() == 32).then(|| Self::written(digest))
    }

    fn written(digest: &[u8]) -> Self {
        use std::fmt::Write as _;
        let mut text = String::from("sha256:");
        for byte in digest {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        Self(text)
    }

    /// Returns the 64 hexadecimal digits alone.
    pub fn digits(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }

    /// Returns the 32 bytes.
    pub fn to_digest(&self) -> Vec<u8> {
        let places = (0..self.digits().len()).step_by(2);
        places
            .filter_map(|place| u8::from_str_radix(self.digits().get(place..place + 2)?, 16).ok())
            .collect()
    }

    /// Returns the fingerprint as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Fingerprint {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("sha256:") {
            Some(digits)
                if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                Ok(Self(text.to_ascii_lowercase()))
            }
            _ => Err(IdentityError::Fingerprint(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_key_is_a_uuid_of_version_8_made_of_its_hash() {
        // SHA-256("abc") = ba7816bf 8f01cfea 414140de 5dae2223 ...
        let id = ClusterId::from_spki(b"abc");
        assert_eq!(id.as_str().len(), 36);
        assert!(id.as_str().starts_with("ba7816bf-8f01-8cfe-"), "{id}");
        assert!(
            matches!(id.as_str().as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
            "{id}"
        );
        assert_eq!(id, ClusterId::from_spki(b"abc"));
        assert_ne!(id, ClusterId::from_spki(b"abd"));
        assert_eq!(id.as_str().parse(), Ok(id));
    }

    #[test]
    fn ids_that_could_not_name_an_object_are_refused() {
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "a\n",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_lose_what_could_deceive_a_reader() {
        assert_eq!(
            ClusterName::neutralise(" ro\u{1b}[31mme\u{202e}\n").as_str(),
            "ro[31mme"
        );
        assert_eq!(ClusterName::neutralise(&"ü".repeat(60)).as_str().len(), 62);
    }

    #[test]
    fn no_character_that_cannot_be_seen_is_printable() {
        let hidden = "\0\n\u{7f}\u{9b}\u{61c}\u{180e}\u{200b}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\
                      \u{2060}\u{2066}\u{2069}\u{206f}\u{feff}\u{e0000}\u{e0041}\u{e007f}";
        for character in hidden.chars() {
            assert!(!is_printable(character), "{character:?}");
            let name = format!("ro{character}me");
            assert_eq!(ClusterName::neutralise(&name).as_str(), "rome");
        }
        for character in "a ü\u{61b}\u{200a}\u{2027}\u{202f}中🏛".chars() {
            assert!(is_printable(character), "{character:?}");
        }
    }

    #[test]
    fn a_neutral_name_stays_as_it_is() {
        for text in [
            "\u{200b} rome ",
            &format!("{} x", "a".repeat(62)),
            &format!("{}ü", "a".repeat(62)),
            "\n\u{1b}",
        ] {
            let once = ClusterName::neutralise(text);
            assert_eq!(ClusterName::neutralise(once.as_str()), once, "{text:?}");
        }
    }

    #[test]
    fn a_fingerprint_reads_back() {
        let fingerprint = Fingerprint::from_spki(b"abc");
        assert!(fingerprint.as_str().starts_with("sha256:ba7816bf"));
        assert_eq!(fingerprint.as_str().parse(), Ok(fingerprint));
        assert!("sha256:12".parse::<Fingerprint>().is_err());
    }
}
