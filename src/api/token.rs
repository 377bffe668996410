//! The Secrets that hold tokens: those that this cluster gave out, and those that it was given.
//!
//! | Secret in our namespace | is |
//! | --- | --- |
//! | `auth-token` (Liqo's name) | a token of ours without an end |
//! | label [`GIVEN_OUT`] | a token of ours, as `landbridge token create` makes it |
//! | labels `discovery.liqo.io/cluster-id` and [`RECEIVED`] (Liqo's) | the token of that cluster |

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt as _;
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::{identity::ClusterId, labels};

/// The Secret with the token that Liqo's documents have a person read.
pub const AUTH_TOKEN: &str = "auth-token";
/// The label of a token that this cluster gave out.
pub const GIVEN_OUT: &str = "discovery.liqo.io/incoming-token";
/// The label of a token that another cluster gave us (Liqo's).
pub const RECEIVED: &str = "discovery.liqo.io/auth-token";

/// The key of a Secret that holds the token itself (Liqo's).
pub const TOKEN: &str = "token";
/// The key of a Secret that holds what a token is recognised by.
pub const HASH: &str = "hash";
/// The key of a Secret that says when its token ends (RFC 3339).
pub const EXPIRES: &str = "expires";
/// The key of a Secret that says how often its token may still be used.
pub const USES: &str = "uses";
/// The key of a Secret that lists the clusters that have used its token.
pub const USED_BY: &str = "usedBy";
/// The key of a Secret that says that its end has come, whatever a clock says later.
pub const ENDED: &str = "ended";

/// The shortest text that can hold 128 bits: 22 characters of base64.
const SHORTEST: usize = 22;
/// What the hash of a token is for, so that no other hash of ours gives the same bytes.
const LABEL: &[u8] = b"landbridge token v1";

/// Indicates a Secret that holds no usable token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Indicates a Secret with neither token nor hash.
    #[error("the Secret {0} has no key token")]
    Missing(String),
    /// Indicates a token that could be guessed.
    #[error("the token is too weak: it needs 128 bits, at least 22 random characters")]
    TooWeak,
    /// Indicates a key whose text cannot be read.
    #[error("the key {key} of the Secret {name} is not {wanted}")]
    Unreadable {
        /// Which Secret.
        name: String,
        /// Which of its keys.
        key: &'static str,
        /// What should stand there.
        wanted: &'static str,
    },
}

/// What a token is recognised by: its hash. It is as secret as the token, and prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash(Zeroizing<[u8; 32]>);

impl TokenHash {
    /// Hashes a token; white space around it does not count.
    pub fn of(token: &str) -> Result<Self, TokenError> {
        let token = token.trim();
        let distinct: BTreeSet<u8> = token.bytes().collect();
        // Fewer than eight different characters are a pattern and not chance.
        if token.len() < SHORTEST || distinct.len() < 8 {
            return Err(TokenError::TooWeak);
        }
        let mut context = Context::new(&SHA256);
        context.update(LABEL);
        context.update(&[0]);
        context.update(token.as_bytes());
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(context.finish().as_ref());
        Ok(Self(bytes))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Writes the hash as a Secret holds it: 64 hexadecimal digits.
    pub fn to_text(&self) -> Zeroizing<String> {
        use fmt::Write as _;
        let mut text = Zeroizing::new(String::with_capacity(64));
        for byte in self.0.iter() {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (index, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(index * 2..index * 2 + 2)?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// A token that this cluster gave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenToken {
    /// The name of its Secret.
    pub name: String,
    /// The uid of its Secret.
    pub uid: String,
    /// What it is recognised by.
    pub hash: TokenHash,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
    /// How often it may still be used; as often as one likes when absent.
    pub uses: Option<u32>,
    /// Which clusters have used it.
    pub used_by: BTreeSet<ClusterId>,
    /// Whether its end has come already.
    pub ended: bool,
}

impl GivenToken {
    /// Reads the token from its Secret.
    pub fn read(secret: &Secret) -> Result<Self, TokenError> {
        let name = secret.name_any();
        let text = |key| text(secret, key);
        let wrong = |key, wanted| TokenError::Unreadable {
            name: name.clone(),
            key,
            wanted,
        };
        let hash = match (text(HASH), text(TOKEN)) {
            (Some(hash), _) => {
                TokenHash::parse(hash).ok_or_else(|| wrong(HASH, "64 hexadecimal digits"))?
            }
            (None, Some(token)) => TokenHash::of(token)?,
            (None, None) => return Err(TokenError::Missing(name)),
        };
        let expires = text(EXPIRES).map(str::parse::<Timestamp>).transpose();
        let uses = text(USES).map(str::parse::<u32>).transpose();
        let used_by = text(USED_BY).unwrap_or_default().split(',');
        Ok(Self {
            uid: secret.uid().unwrap_or_default(),
            hash,
            created: secret.creation_timestamp().map(|time| time.0),
            expires: expires.map_err(|_| wrong(EXPIRES, "a time like 2030-01-02T15:04:05Z"))?,
            uses: uses.map_err(|_| wrong(USES, "a number"))?,
            used_by: used_by.filter_map(|id| id.parse().ok()).collect(),
            ended: text(ENDED).is_some(),
            name,
        })
    }

    /// Returns the data of the Secret that follow from one more use.
    pub fn used(&self, by: &ClusterId) -> Vec<(&'static str, ByteString)> {
        let left = self.uses.map(|uses| uses.saturating_sub(1));
        let ids = self.used_by.iter().chain([by]).map(ClusterId::as_str);
        let ids: Vec<&str> = ids.collect();
        let mut data = vec![(USED_BY, bytes(&ids.join(",")))];
        data.extend(left.map(|left| (USES, bytes(&left.to_string()))));
        data
    }
}

/// Returns the cluster whose token a Secret holds, if it is one that we were given.
pub fn received_from(secret: &Secret) -> Option<ClusterId> {
    secret.labels().get(RECEIVED)?;
    secret.labels().get(labels::CLUSTER_ID)?.parse().ok()
}

/// Returns what the token that we were given is recognised by.
pub fn received(secret: &Secret) -> Result<TokenHash, TokenError> {
    let token = text(secret, TOKEN);
    TokenHash::of(token.ok_or_else(|| TokenError::Missing(secret.name_any()))?)
}

/// Puts a text into a Secret's data.
pub fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    let data = secret.data.as_ref()?.get(key)?;
    let text = std::str::from_utf8(&data.0).ok()?.trim();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0123456789abcdef0123456789abcdef";

    fn secret(data: &[(&str, &str)]) -> Secret {
        let data = data
            .iter()
            .map(|(key, text)| ((*key).to_owned(), bytes(text)));
        let mut secret = Secret {
            data: Some(data.collect()),
            ..Secret::default()
        };
        secret.metadata.name = Some("invite".to_owned());
        secret
    }

    #[test]
    fn a_token_and_its_hash_are_the_same_token() {
        let plain = GivenToken::read(&secret(&[(TOKEN, GOOD)])).unwrap();
        let hash = TokenHash::of(&format!(" {GOOD}\n")).unwrap();
        let hashed = GivenToken::read(&secret(&[(HASH, &hash.to_text())])).unwrap();
        assert_eq!(plain, hashed);
        assert_eq!((plain.expires, plain.uses), (None, None));
        assert!(!format!("{plain:?}").contains(hash.to_text().as_str()));
    }

    #[test]
    fn a_use_is_counted_and_names_who_used_it() {
        let rome = ClusterId::from_spki(b"rome");
        let milan = ClusterId::from_spki(b"milan");
        let data = [(TOKEN, GOOD), (USES, "2"), (USED_BY, rome.as_str())];
        let token = GivenToken::read(&secret(&data)).unwrap();
        assert_eq!(token.used_by, BTreeSet::from([rome.clone()]));
        let used = token.used(&milan);
        let text = |key| {
            let found = used.iter().find(|(name, _)| *name == key).unwrap();
            String::from_utf8(found.1.0.clone()).unwrap()
        };
        assert_eq!(text(USES), "1");
        assert_eq!(text(USED_BY), format!("{rome},{milan}"));
    }

    #[test]
    fn what_is_no_token_says_what_is_wrong() {
        for (data, complaint) in [
            (vec![], "the Secret invite has no key token"),
            (vec![(TOKEN, "short")], "too weak"),
            (
                vec![(TOKEN, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")],
                "too weak",
            ),
            (vec![(HASH, "00")], "hash of the Secret invite is not 64"),
            (
                vec![(TOKEN, GOOD), (USES, "-1")],
                "uses of the Secret invite is not a number",
            ),
            (vec![(TOKEN, GOOD), (EXPIRES, "soon")], "is not a time like"),
        ] {
            let error = GivenToken::read(&secret(&data)).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn only_a_secret_with_both_labels_is_the_token_of_a_cluster() {
        let rome = ClusterId::from_spki(b"rome");
        let mut given = secret(&[(TOKEN, GOOD)]);
        let mut label = |key: &str, value: &str| {
            let labels = given.metadata.labels.get_or_insert_default();
            labels.insert(key.to_owned(), value.to_owned());
            received_from(&given)
        };
        assert_eq!(label(labels::CLUSTER_ID, rome.as_str()), None);
        assert_eq!(label(RECEIVED, ""), Some(rome));
        assert_eq!(received(&given), TokenHash::of(GOOD));
    }
}
