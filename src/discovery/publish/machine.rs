//! A mark that tells this machine from others without telling which it is.

use std::{fs, path::Path};

use ring::digest::{SHA256, digest};

/// Where the machine's id is, new at each installation (machine-id(5)).
const PATH: &str = "/etc/machine-id";
/// How many bytes of the hash are the mark.
const LENGTH: usize = 8;

/// Returns the mark of this machine for a zone; none where the machine has no id.
pub(super) fn mark(zone: &str) -> Option<String> {
    of(&fs::read_to_string(Path::new(PATH)).ok()?, zone)
}

/// The id itself is not to be shown to others (machine-id(5)), so it is hashed with the zone.
fn of(id: &str, zone: &str) -> Option<String> {
    let id = id.trim();
    let usable = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash = usable.then(|| digest(&SHA256, format!("landbridge {zone} {id}").as_bytes()))?;
    let start: [u8; LENGTH] = *hash.as_ref().first_chunk()?;
    Some(format!("{:016x}", u64::from_be_bytes(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_mark_of_its_own_in_each_zone() {
        let id = "0123456789abcdef0123456789abcdef";
        let mark = of(&format!("{id}\n"), "a.test").expect("an id");
        assert_eq!(mark.len(), 16);
        assert!(!id.contains(&mark));
        assert_eq!(of(id, "a.test"), Some(mark.clone()));
        assert_ne!(of(id, "b.test"), Some(mark));
    }

    #[test]
    fn a_machine_without_an_id_has_none() {
        for text in ["", "uninitialized\n", "0123"] {
            assert_eq!(of(text, "a.test"), None, "{text:?}");
        }
    }
}
