//! The keys that a domain vouches for: TLSA records that DNSSEC proves.
//!
//! ```text
//! instance --> SRV, Secure --> _port._tcp.target --> TLSA, Secure --> SHA-256 of the identity's key
//! ```
//! The SRV record has to be proven as well (RFC 7673, section 3.1): else it could lead to a record
//! that was made for another service.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, stream};
use hickory_proto::rr::{
    Name, RData, RecordType,
    rdata::{
        TLSA,
        tlsa::{CertUsage, Matching, Selector},
    },
};
use hickory_resolver::TokioResolver;
use tokio::time::timeout;

use super::{dnssec, text, under};
use crate::{
    api::identity::Fingerprint,
    engine::domain::{Dnssec, Entry, KEYS, Look, Service},
};

/// How long all keys of a domain may take. What was not proven by then is not vouched for.
const LIMIT: Duration = Duration::from_secs(15);
/// How many entries are proven at a time.
const ENTRIES_AT_A_TIME: usize = 16;

/// Adds the keys to what a look has brought. In a domain that is not signed there are none.
pub(super) async fn add_keys(resolver: &TokioResolver, look: &mut Look) {
    if look.dnssec != Dnssec::Secure {
        return;
    }
    let entries = look.entries.iter_mut();
    let proofs = stream::iter(entries)
        .for_each_concurrent(ENTRIES_AT_A_TIME, |entry| add_keys_of(resolver, entry));
    if timeout(LIMIT, proofs).await.is_err() {
        tracing::debug!("Not all keys that a domain vouches for could be proven in time");
    }
}

async fn add_keys_of(resolver: &TokioResolver, entry: &mut Entry) {
    let Ok(services) = &mut entry.services else {
        return;
    };
    let Ok(instance) = Name::from_ascii(format!("{}.", entry.instance)) else {
        return;
    };
    let proven = dnssec::secure(resolver, &instance, RecordType::SRV).await;
    let is_proven = |service: &Service| {
        proven.iter().any(|data| {
            matches!(data, RData::SRV(srv) if srv.port == service.port && text(&srv.target) == service.target)
        })
    };
    for service in services.iter_mut().filter(|service| is_proven(service)) {
        service.keys = keys(resolver, service).await;
    }
}

/// Returns the keys in the TLSA records of a host and port (RFC 6698, section 3).
async fn keys(resolver: &TokioResolver, service: &Service) -> BTreeSet<Fingerprint> {
    let host = Name::from_ascii(format!("{}.", service.target)).ok();
    let owner = host.and_then(|host| under(&format!("_{}._tcp", service.port), &host));
    let Some(owner) = owner else {
        return BTreeSet::new();
    };
    let records = dnssec::secure(resolver, &owner, RecordType::TLSA).await;
    records.iter().filter_map(key).take(KEYS).collect()
}

/// Reads the hash of an identity's key out of a record.
///
/// The identity signs the leaf that a cluster shows, which is usage 2, DANE-TA (RFC 6698, section
/// 2.1.1); selector 1 is its key and type 1 the SHA-256. Usage 3, DANE-EE, with the same hash is
/// taken too: it names the key of the end entity, which for us is the cluster's identity, since
/// leaves come and go. Both say that whoever holds this key is meant, and who holds it can show
/// either. Usages 0 and 1 ask for an authority besides, which an identity never has.
fn key(data: &RData) -> Option<Fingerprint> {
    let RData::TLSA(TLSA {
        cert_usage: CertUsage::DaneTa | CertUsage::DaneEe,
        selector: Selector::Spki,
        matching: Matching::Sha256,
        cert_data,
        ..
    }) = data
    else {
        return None;
    };
    Fingerprint::from_digest(cert_data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_the_key_of_an_identity_or_nothing() {
        let digest = [7; 32];
        let table = [
            (2, 1, 1, &digest[..], true),
            (3, 1, 1, &digest[..], true),
            (0, 1, 1, &digest[..], false),
            (1, 1, 1, &digest[..], false),
            (255, 1, 1, &digest[..], false),
            (2, 0, 1, &digest[..], false),
            (2, 1, 0, &digest[..], false),
            (2, 1, 2, &digest[..], false),
            (2, 1, 1, &digest[..31], false),
            (2, 1, 1, &[][..], false),
        ];
        for (usage, selector, matching, bytes, expected) in table {
            let record = TLSA::new(
                usage.into(),
                selector.into(),
                matching.into(),
                bytes.to_vec(),
            );
            let found = key(&RData::TLSA(record));
            let wanted = expected.then(|| format!("sha256:{}", "07".repeat(32)));
            let found = found.map(String::from);
            assert_eq!(found, wanted, "{usage} {selector} {matching}");
        }
    }
}
