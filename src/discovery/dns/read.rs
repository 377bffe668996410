//! From records to what the engine judges, within bounds.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RData, rdata::SRV};

use crate::{
    api::identity::ClusterName,
    discovery::record::Record,
    engine::domain::{ANSWERS, Claim, Problem, TARGETS},
};

/// Returns a name as text: lower-case, without the final dot, unusual bytes escaped.
pub(in crate::discovery) fn text(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

/// Checks that the first label of an instance may be shown to a person.
pub(super) fn check_label(name: &Name) -> Result<(), Problem> {
    let label = name.iter().next().unwrap_or_default();
    let printable = std::str::from_utf8(label)
        .is_ok_and(|text| !text.is_empty() && ClusterName::neutralise(text).as_str() == text);
    if printable {
        Ok(())
    } else {
        Err(Problem::Lasting(
            "its name is not printable text".to_owned(),
        ))
    }
}

/// Returns the addresses among the records, in order and not too many.
pub(super) fn addresses(records: &[RData]) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = records.iter().filter_map(RData::ip_addr).collect();
    addresses.sort_unstable();
    addresses.truncate(ANSWERS);
    addresses
}

/// Reads the claim of an instance from its TXT records; the first that can be read counts.
pub(super) fn claim(records: &[RData]) -> Result<Claim, Problem> {
    let mut refusal = None;
    for data in records.iter().take(ANSWERS) {
        let RData::TXT(text) = data else { continue };
        match Record::from_strings(text.txt_data.iter().map(|string| &**string)) {
            Ok(record) => {
                return Ok(Claim {
                    cluster_id: record.cluster_id,
                    name: record.name,
                    boot: record.boot,
                });
            }
            Err(error) => {
                refusal.get_or_insert_with(|| Problem::Lasting(error.to_string()));
            }
        }
    }
    refusal.map_or_else(|| Ok(Claim::default()), Err)
}

/// Returns the SRV records that are worth following, those of lowest priority first and not too many.
/// All are looked at, since servers rotate their answers and the choice must not change with that.
pub(super) fn first_services(records: Vec<RData>) -> Vec<SRV> {
    let services = records.into_iter().filter_map(|data| {
        let RData::SRV(service) = data else {
            return None;
        };
        Some(service)
    });
    let mut services: Vec<SRV> = services.collect();
    services.sort_by(|one, other| {
        let key = |service: &SRV| (service.priority, std::cmp::Reverse(service.weight));
        key(one)
            .cmp(&key(other))
            .then_with(|| one.target.cmp(&other.target))
    });
    services.truncate(TARGETS);
    services
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::TXT;

    use super::*;

    fn text_record(strings: &[&[u8]]) -> RData {
        RData::TXT(TXT::from_bytes(strings.to_vec()))
    }

    #[test]
    fn the_first_readable_record_counts() {
        let records = [
            text_record(&[b"id=.."]),
            text_record(&[b"=x", b"v=1", b"id=rome", b"name=Rome"]),
        ];
        let claim = claim(&records).expect("readable");
        assert_eq!(claim.cluster_id, "rome".parse().ok());
        assert_eq!(claim.name.as_str(), "Rome");
        assert!(matches!(
            super::claim(&records[..1]),
            Err(Problem::Lasting(_))
        ));
        assert_eq!(super::claim(&[]), Ok(Claim::default()));
    }

    #[test]
    fn a_record_of_1301_bytes_is_refused_whatever_they_say() {
        let long = [b'='; 255];
        let mut strings: Vec<&[u8]> = vec![&long; 5];
        strings.extend([&b"id=rome"[..], &long[..11]]);
        assert!(claim(&[text_record(&strings)]).is_ok(), "1300 bytes");
        strings.push(b"");
        assert!(claim(&[text_record(&strings)]).is_err(), "1301 bytes");
    }

    #[test]
    fn names_that_deceive_the_eye_are_refused() {
        let name = |label: &str| {
            let labels: [&[u8]; 2] = [label.as_bytes(), b"example"];
            Name::from_labels(labels).expect("a name")
        };
        assert_eq!(check_label(&name("Living Room \u{e9}")), Ok(()));
        for label in ["a\u{202e}b", "a\u{1b}[2J", "a\u{200b}"] {
            assert!(check_label(&name(label)).is_err(), "{label:?}");
        }
        assert_eq!(text(&name("A\u{7}")), "a\\007.example");
    }
}
