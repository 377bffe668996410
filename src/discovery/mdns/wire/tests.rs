//! Packets read and written, and what strangers send instead.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_text(text).expect("the test names names")
}

/// A header with counts, before a body.
fn packet(counts: [u16; 4], body: &[u8]) -> Vec<u8> {
    let mut data = vec![0, 0, 0x84, 0];
    data.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    data.extend_from_slice(body);
    data
}

fn answer() -> Packet {
    let (service, host) = (name("_liqo_auth._tcp.local"), name("rome.local"));
    let instance = Name::under("rome", &service).expect("short");
    let record = |name: &Name, flush, data| Record {
        name: name.clone(),
        ttl: 90,
        flush,
        data,
    };
    Packet {
        is_response: true,
        answers: vec![
            record(&service, false, Data::Ptr(instance.clone())),
            record(
                &instance,
                true,
                Data::Srv {
                    port: 5870,
                    target: host.clone(),
                },
            ),
            record(&instance, true, Data::Txt(vec![0])),
        ],
        additionals: vec![
            record(&host, true, Data::A(Ipv4Addr::new(10, 0, 0, 1))),
            record(&host, true, Data::Aaaa("fe80::1".parse().expect("v6"))),
        ],
        ..Packet::default()
    }
}

#[test]
fn what_is_written_is_short_and_reads_back() {
    let data = answer().encode();
    assert!(data.len() < 160, "{} bytes", data.len());
    assert_eq!(Packet::decode(&data), Ok(answer()));
    let more = Packet {
        is_truncated: true,
        ..Packet::default()
    };
    assert_eq!(more.encode(), [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Packet::decode(&more.encode()), Ok(more));
}

#[test]
fn names_are_equal_whatever_their_case_and_know_what_is_before_them() {
    let service = name("_liqo_auth._tcp.local");
    let instance = Name::from_labels([b"Rome 2.0".as_slice(), b"_LIQO_auth", b"_tcp", b"Local"]);
    let instance = instance.expect("short");
    assert_eq!(
        instance.label_before(&service),
        Some(b"Rome 2.0".as_slice())
    );
    assert_eq!(
        Some(instance),
        Name::from_labels([b"rome 2.0".as_slice(), b"_liqo_auth", b"_tcp", b"local"])
    );
    assert_eq!(service.label_before(&service), None);
    assert_eq!(Name::from_labels([[b'a'; 64].as_slice()]), None);
}

#[test]
fn a_name_that_leads_nowhere_spoils_its_packet() {
    for (what, body, error) in [
        ("to itself", &b"\xc0\x0c"[..], WireError::Pointer),
        ("forward", b"\xc0\x40", WireError::Pointer),
        ("round and round", b"\x01a\xc0\x0c", WireError::NameTooLong),
        ("cut off", b"\x05ab", WireError::CutOff),
        ("half a pointer", b"\xc0", WireError::CutOff),
        ("an old kind of label", b"\x41a\x00", WireError::Label),
        ("no type", b"\x00\x00", WireError::CutOff),
    ] {
        assert_eq!(
            Packet::decode(&packet([1, 0, 0, 0], body)),
            Err(error),
            "{what}"
        );
    }
    let long: Vec<u8> = (0..5)
        .flat_map(|_| [&[63][..], &[b'a'; 63]].concat())
        .collect();
    assert_eq!(
        Packet::decode(&packet([1, 0, 0, 0], &long)),
        Err(WireError::NameTooLong)
    );
}

#[test]
fn records_of_no_use_are_skipped_and_the_rest_is_read() {
    let root = |kind: u16, class: u16, data: &[u8]| {
        let mut record = vec![0];
        record.extend(kind.to_be_bytes());
        record.extend(class.to_be_bytes());
        record.extend([0, 0, 0, 9]);
        record.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        record.extend_from_slice(data);
        record
    };
    let body = [
        root(47, 0x8001, b"\xc0\x00\x00\x01\x40"),
        root(kind::A, 1, b"\x0a\x00\x00"),
        root(kind::SRV, 1, b"\x00\x00"),
        root(kind::PTR, 1, b"\x00\x00"),
        root(kind::A, 3, b"\x0a\x00\x00\x01"),
        root(kind::A, 0x8001, b"\x0a\x00\x00\x01"),
    ];
    let read = Packet::decode(&packet([0, 2, 1, 3], &body.concat())).expect("well formed");
    let data: Vec<&Data> = read.records().map(|record| &record.data).collect();
    assert_eq!(data, [&Data::A(Ipv4Addr::new(10, 0, 0, 1))]);
}

#[test]
fn more_entries_than_fit_and_other_operations_are_refused() {
    for (data, error) in [
        (packet([129, 0, 0, 0], &[]), WireError::TooMany),
        (packet([0, 800, 20, 1], &[]), WireError::TooMany),
        (packet([0, u16::MAX, 0, 0], &[]), WireError::TooMany),
        (packet([0, 1, 0, 0], &[]), WireError::CutOff),
        (vec![0; 11], WireError::CutOff),
        (
            vec![0, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            WireError::Operation,
        ),
        (
            vec![0, 0, 0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0],
            WireError::Operation,
        ),
    ] {
        assert_eq!(Packet::decode(&data), Err(error));
    }
}

fn names() -> impl Strategy<Value = Name> {
    let label = prop::collection::vec(any::<u8>(), 1..20);
    prop::collection::vec(label, 0..6).prop_map(|labels| {
        Name::from_labels(labels.iter().map(Vec::as_slice)).expect("short enough")
    })
}

fn records() -> impl Strategy<Value = Record> {
    let data = prop_oneof![
        names().prop_map(Data::Ptr),
        (any::<u16>(), names()).prop_map(|(port, target)| Data::Srv { port, target }),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Data::Txt),
        any::<[u8; 4]>().prop_map(|bytes| Data::A(bytes.into())),
        any::<[u8; 16]>().prop_map(|bytes| Data::Aaaa(bytes.into())),
    ];
    (names(), any::<u32>(), any::<bool>(), data).prop_map(|(name, ttl, flush, data)| Record {
        name,
        ttl,
        flush,
        data,
    })
}

fn questions() -> impl Strategy<Value = Question> {
    (names(), any::<u16>(), any::<bool>()).prop_map(|(name, kind, unicast)| Question {
        name,
        kind,
        unicast,
    })
}

fn packets() -> impl Strategy<Value = Packet> {
    let records = || prop::collection::vec(records(), 0..8);
    let questions = prop::collection::vec(questions(), 0..4);
    let flags = any::<(bool, bool)>();
    (any::<u16>(), flags, questions, records(), records()).prop_map(
        |(id, (is_response, is_truncated), questions, answers, additionals)| Packet {
            id,
            is_response,
            is_truncated,
            questions,
            answers,
            additionals,
        },
    )
}

proptest! {
    #[test]
    fn every_packet_reads_back(packet in packets()) {
        prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }

    #[test]
    fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Packet::decode(&data);
    }

    #[test]
    fn a_packet_with_a_few_wrong_bytes_never_panics(
        sane in packets(), wrong in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let mut data = sane.encode();
        for (place, byte) in wrong {
            let place = place % data.len();
            data[place] = byte;
        }
        if let Ok(read) = Packet::decode(&data) {
            prop_assert_eq!(Packet::decode(&read.encode()), Ok(read));
        }
    }
}
