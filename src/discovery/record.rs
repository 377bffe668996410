//! The TXT record of an advertisement: `v=1 id=<clusterID> name=<clusterName> boot=<run>`.
//!
//! Reading is total: whatever a stranger sends ends in a record or in an error, within the bounds.

use crate::api::identity::{ClusterId, ClusterName, IdentityError};

/// The version that we write. Readers ignore it: what is unknown to them is not read.
const VERSION: &str = "1";
/// The most keys of a record that is read.
const KEY_LIMIT: usize = 16;
/// The most bytes of a record that is read: what fits in an Ethernet frame (RFC 6763, section 6.2).
const SIZE_LIMIT: usize = 1300;
/// The most bytes of a value that is read (RFC 6763, section 6.1).
const VALUE_LIMIT: usize = 255;
/// The most characters of a boot mark; ours have 16.
const BOOT_LIMIT: usize = 32;

/// Indicates that a TXT record is not worth reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Indicates a record that is too long, has too many keys or too long a value.
    #[error(
        "TXT record with {keys} keys and {size} bytes is beyond {KEY_LIMIT} keys of {VALUE_LIMIT} and {SIZE_LIMIT} bytes"
    )]
    TooLarge {
        /// How many keys it has.
        keys: usize,
        /// How many bytes it has.
        size: usize,
    },
    /// Indicates a string that ends after the record does.
    #[error("TXT record is cut off")]
    CutOff,
    /// Indicates a claimed id that is none.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What the TXT record of an advertisement says. All of it may be missing: Liqo's is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The id that the advertiser claims.
    pub cluster_id: Option<ClusterId>,
    /// The name that the advertiser claims, possibly empty.
    pub name: ClusterName,
    /// The run of the advertiser's program.
    pub boot: Option<String>,
}

impl Record {
    /// Returns the keys and values to publish; together they stay below 400 bytes, since every part
    /// has a length limit of its own.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![("v", VERSION.to_owned())];
        if let Some(id) = &self.cluster_id {
            pairs.push(("id", id.to_string()));
        }
        if !self.name.as_str().is_empty() {
            pairs.push(("name", self.name.to_string()));
        }
        if let Some(boot) = &self.boot {
            pairs.push(("boot", boot.clone()));
        }
        pairs
    }

    /// Writes the record data of a TXT record (RFC 6763, section 6.1).
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for (key, value) in self.pairs() {
            let text = format!("{key}={value}");
            let length = u8::try_from(text.len()).expect("keys and values are limited");
            data.push(length);
            data.extend_from_slice(text.as_bytes());
        }
        data
    }

    /// Reads the record data of a TXT record.
    pub fn decode(data: &[u8]) -> Result<Self, RecordError> {
        let mut rest = data;
        let mut strings = Vec::new();
        while let Some((&length, tail)) = rest.split_first() {
            let (text, tail) = tail
                .split_at_checked(usize::from(length))
                .ok_or(RecordError::CutOff)?;
            rest = tail;
            strings.push(text);
        }
        Self::from_strings(strings)
    }

    /// Reads the strings of a TXT record.
    pub fn from_strings<'a>(
        strings: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, RecordError> {
        let mut size = 0;
        let mut pairs = Vec::new();
        for text in strings {
            // Its length is a byte before it (RFC 1035, section 3.3).
            size += text.len() + 1;
            if size > SIZE_LIMIT {
                let keys = pairs.len();
                return Err(RecordError::TooLarge { keys, size });
            }
            // A string without a key is to be ignored (RFC 6763, section 6.4).
            if !text.is_empty() && text.first() != Some(&b'=') {
                let mut halves = text.splitn(2, |byte| *byte == b'=');
                pairs.push((halves.next().unwrap_or_default(), halves.next()));
            }
        }
        Self::from_pairs(pairs)
    }

    /// Reads keys and values that were taken apart already.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<Self, RecordError> {
        let pairs: Vec<_> = pairs.into_iter().take(SIZE_LIMIT).collect();
        let length = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
        let size = pairs
            .iter()
            .map(|(key, value)| 1 + key.len() + usize::from(value.is_some()) + length(*value))
            .sum();
        let long = pairs.iter().any(|(_, value)| length(*value) > VALUE_LIMIT);
        if pairs.len() > KEY_LIMIT || size > SIZE_LIMIT || long {
            let keys = pairs.len();
            return Err(RecordError::TooLarge { keys, size });
        }
        // The first of several equal keys counts, whatever its case (RFC 6763, section 6.4).
        let text = |wanted: &str| {
            pairs
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(wanted.as_bytes()))
                .and_then(|(_, value)| *value)
                .and_then(|value| std::str::from_utf8(value).ok())
                .filter(|value| !value.is_empty())
        };
        Ok(Self {
            cluster_id: text("id").map(str::parse).transpose()?,
            name: text("name")
                .map(ClusterName::neutralise)
                .unwrap_or_default(),
            boot: text("boot").filter(|boot| is_boot(boot)).map(str::to_owned),
        })
    }
}

fn is_boot(text: &str) -> bool {
    text.len() <= BOOT_LIMIT && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rome() -> Record {
        Record {
            cluster_id: "0f1e2d3c-4b5a-8697-8877-665544332211".parse().ok(),
            name: ClusterName::neutralise("rome"),
            boot: Some("00112233aabbccdd".to_owned()),
        }
    }

    #[test]
    fn a_record_reads_as_the_protocol_says() {
        let text = rome()
            .pairs()
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(
            text,
            "v=1 id=0f1e2d3c-4b5a-8697-8877-665544332211 name=rome boot=00112233aabbccdd"
        );
    }

    #[test]
    fn an_empty_record_is_legal() {
        assert_eq!(Record::decode(&[]), Ok(Record::default()));
        assert_eq!(Record::decode(&[0]), Ok(Record::default()));
    }

    #[test]
    fn unknown_keys_and_keys_without_a_value_are_ignored() {
        let data = b"\x0aID=milan-1\x07id=rome\x06future\x04name\x02=x";
        let record = Record::decode(data).expect("the record is well formed");
        assert_eq!(record.cluster_id, "milan-1".parse().ok());
        assert_eq!(record.name, ClusterName::default());
    }

    #[test]
    fn a_record_of_1300_bytes_is_read_and_one_of_1301_is_not() {
        let text = [b"k=", &[b'x'; 198][..]].concat();
        // What is to be ignored counts as well.
        for (ignored, is_read) in [(93, true), (94, false)] {
            let mut strings = vec![text.clone(); 6];
            strings.push(vec![b'='; ignored]);
            let data: Vec<u8> = strings
                .iter()
                .flat_map(|text| [&[u8::try_from(text.len()).expect("short")], &text[..]].concat())
                .collect();
            assert_eq!(data.len() <= SIZE_LIMIT, is_read);
            let read = Record::from_strings(strings.iter().map(Vec::as_slice));
            assert_eq!(read.is_ok(), is_read, "{read:?}");
            assert_eq!(Record::decode(&data), read);
        }
    }

    #[test]
    fn what_is_beyond_the_bounds_is_refused() {
        let many: Vec<u8> = (0..17).flat_map(|_| *b"\x03a=b").collect();
        assert!(matches!(
            Record::decode(&many),
            Err(RecordError::TooLarge { keys: 17, .. })
        ));
        let long = vec![0; SIZE_LIMIT + 1];
        assert!(matches!(
            Record::decode(&long),
            Err(RecordError::TooLarge { .. })
        ));
        assert_eq!(Record::decode(b"\x09id=a"), Err(RecordError::CutOff));
        assert!(matches!(
            Record::decode(b"\x05id=.."),
            Err(RecordError::Identity(_))
        ));
        let value = [b'x'; 256];
        let pairs = [(b"name".as_slice(), Some(value.as_slice()))];
        assert!(matches!(
            Record::from_pairs(pairs),
            Err(RecordError::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            id in prop::option::of("[a-z0-9]{1,63}"), name in any::<String>(),
            boot in prop::option::of("[0-9a-f]{16}"),
        ) {
            let record = Record {
                cluster_id: id.and_then(|id| id.parse().ok()),
                name: ClusterName::neutralise(&name),
                boot,
            };
            let data = record.encode();
            prop_assert!(data.len() <= 400);
            prop_assert_eq!(Record::decode(&data), Ok(record));
        }

        #[test]
        fn garbage_never_panics_and_never_yields_more_than_the_bounds(
            data in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            if let Ok(record) = Record::decode(&data) {
                prop_assert!(record.name.as_str().len() <= 63);
                prop_assert!(record.boot.is_none_or(|boot| boot.len() <= BOOT_LIMIT));
            }
        }
    }
}
