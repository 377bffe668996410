//! Whatever is heard by chance, everything that was told is taken back.

use proptest::prelude::*;

use super::*;
use crate::discovery::mdns::wire::Record as WireRecord;

/// What happens to the table in a proptest.
#[derive(Debug, Clone)]
enum Step {
    Hear(u8, u8, Vec<(u8, u8, u8, u32, bool)>),
    Verify(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let record = (
        0..5_u8,
        0..4_u8,
        0..6_u8,
        prop_oneof![Just(0), Just(90), 1..10_000_u32],
        any::<bool>(),
    );
    prop_oneof![
        4 => (0..4_u8, 1..6_u8, prop::collection::vec(record, 0..8))
            .prop_map(|(interface, source, records)| Step::Hear(interface, source, records)),
        1 => (0..4_u8).prop_map(Step::Verify),
        2 => (0..40_000_u64).prop_map(Step::Pass),
    ]
}

fn packet_of(records: &[(u8, u8, u8, u32, bool)]) -> Packet {
    let service = service_types()[1].clone();
    let instance = |number: u8| Name::under(&format!("c{number}"), &service).expect("a name");
    let host = |number: u8| Name::from_text(&format!("h{number}.local")).expect("a name");
    let answers = records.iter().map(|&(kind, number, other, ttl, flush)| {
        let (name, data) = match kind {
            0 => (service.clone(), Data::Ptr(instance(number))),
            1 => {
                let (port, target) = (u16::from(other), host(other % 3));
                (instance(number), Data::Srv { port, target })
            }
            2 => (
                instance(number),
                Data::Txt(format!("\u{7}id=c-{number:02}").into_bytes()),
            ),
            3 => (host(number % 3), Data::A([10, 0, 0, other].into())),
            _ => (host(number % 3), Data::Aaaa("fe80::9".parse().expect("v6"))),
        };
        WireRecord {
            name,
            ttl,
            flush,
            data,
        }
    });
    Packet {
        is_response: true,
        answers: answers.collect(),
        ..Packet::default()
    }
}

/// Whether each host names just the rows that are said to be on it, and there is no other host.
fn are_linked(table: &Neighbours) -> bool {
    let hosts = table.hosts.iter();
    let listed =
        hosts.flat_map(|(name, host)| host.rows.iter().map(move |key| (name, key.as_str())));
    let rows = table.rows.iter();
    let said = rows.flat_map(|(key, row)| {
        row.targets()
            .into_iter()
            .map(move |name| (name, key.as_str()))
    });
    let said: BTreeSet<_> = said.collect();
    listed.eq(said) && table.hosts.values().all(|host| !host.rows.is_empty())
}

proptest! {
    #[test]
    fn whatever_is_heard_everything_that_was_told_is_taken_back(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let (mut table, links, start) = (neighbours(), links(), Instant::now());
        let mut now = start;
        let mut events = Vec::new();
        for step in steps {
            match step {
                Step::Hear(interface, source, records) => {
                    let origin = from(interface.into(), &format!("10.0.0.{source}"));
                    table.hear(&packet_of(&records), origin, &links, now);
                }
                Step::Verify(number) => table.verify(&format!("c{number}"), now),
                Step::Pass(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    events.extend(wait(&mut table, &links, now));
                }
            }
            events.extend(drain(&mut table));
            prop_assert!(table.rows.len() <= 4 && are_linked(&table), "{table:?}");
        }
        events.extend(wait(&mut table, &links, now + TTL.1 + DOUBT));
        prop_assert!(table.rows.is_empty() && table.hosts.is_empty());
        let mut told = BTreeSet::new();
        for event in events {
            match event {
                Event::Seen(one) if one.endpoints.is_empty() => {
                    told.remove(&(one.instance, one.interface));
                }
                Event::Seen(one) => {
                    told.insert((one.instance, one.interface));
                }
                Event::Gone { instance, .. } => told.retain(|(one, _)| *one != instance),
            }
        }
        prop_assert!(told.is_empty(), "{told:?} were never taken back");
    }
}
