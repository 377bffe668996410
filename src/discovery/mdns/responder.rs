//! What we tell the LAN about ourselves, and whom we answer.

use std::{net::IpAddr, time::Duration};

use super::wire::{Data, Name, Packet, Question, Record, kind};
use crate::{
    api::identity::ClusterId,
    discovery::{record, source::Announcement},
    engine::domain::SERVICE_TYPES,
};

/// The name under which all service types of a LAN are listed (RFC 6763, section 9).
const TYPES: &str = "_services._dns-sd._udp.local";
/// The longest time to live for whoever asks from another port than 5353 (RFC 6762, section 6.7).
const LEGACY_TTL: u32 = 10;
/// How many known answers and how many questions go into one packet, so that it fits a frame.
pub(super) const ENTRIES: usize = 24;
/// Whoever knows an answer for more than half of its time needs not hear it (RFC 6762, section 7.1).
const KNOWN: u32 = 2;

/// Our own records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Responder {
    services: Vec<Own>,
    host: Name,
    list: Name,
    text: Vec<u8>,
    port: u16,
    ttl: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    kind: Name,
    instance: Name,
}

/// What a query wants of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Whether others may have to say something too, so that we wait a moment.
    pub(super) shared: bool,
    /// Whether the types are to be listed.
    pub(super) list: bool,
    /// Whether an answer to the asker alone will do.
    pub(super) unicast: bool,
}

impl Responder {
    /// Describes what is announced; none for an id that is no label.
    pub(super) fn new(announcement: &Announcement) -> Option<Self> {
        let id = announcement.cluster_id.as_str();
        let local = Name::from_text("local")?;
        let services = service_types().into_iter().map(|kind| {
            let instance = Name::under(id, &kind)?;
            Some(Own { kind, instance })
        });
        let record = record::Record {
            cluster_id: Some(announcement.cluster_id.clone()),
            name: announcement.name.clone(),
            boot: Some(announcement.boot.clone()),
        };
        Some(Self {
            services: services.collect::<Option<_>>()?,
            host: Name::under(id, &local)?,
            list: Name::from_text(TYPES)?,
            text: record.encode(),
            port: announcement.port,
            ttl: u32::try_from(announcement.ttl.as_secs()).unwrap_or(u32::MAX),
        })
    }

    /// Everything about us, in one packet: Liqo's library keeps nothing between packets.
    pub(super) fn announcement(
        &self,
        addresses: impl Iterator<Item = IpAddr>,
        list: bool,
    ) -> Packet {
        self.packet(addresses, self.ttl, list)
    }

    /// Takes everything back.
    pub(super) fn goodbye(&self, addresses: impl Iterator<Item = IpAddr>) -> Packet {
        self.packet(addresses, 0, false)
    }

    /// Takes addresses back, and nothing else.
    pub(super) fn withdrawal(&self, addresses: impl Iterator<Item = IpAddr>) -> Packet {
        let mut packet = self.goodbye(addresses);
        packet.answers.retain(|record| record.name == self.host);
        packet
    }

    /// The answer for whoever asks from another port, as ordinary resolvers do.
    pub(super) fn legacy(
        &self,
        query: &Packet,
        addresses: impl Iterator<Item = IpAddr>,
        list: bool,
    ) -> Packet {
        let mut packet = self.packet(addresses, self.ttl.min(LEGACY_TTL), list);
        packet.id = query.id;
        packet.questions.clone_from(&query.questions);
        for record in packet.answers.iter_mut().chain(&mut packet.additionals) {
            record.flush = false;
        }
        packet
    }

    /// Returns what a query wants of us, if anything.
    pub(super) fn wish(&self, query: &Packet) -> Option<Wish> {
        self.wish_of(&query.questions, query)
    }

    /// Drops the questions whose answers the asker turns out to know.
    pub(super) fn drop_answered(&self, questions: &mut Vec<Question>, known: &Packet) {
        questions.retain(|question| self.asked(question, known).is_some());
    }

    /// Returns what questions want of somebody who knows what is in a packet.
    pub(super) fn wish_of(&self, questions: &[Question], known: &Packet) -> Option<Wish> {
        let mut wish: Option<Wish> = None;
        for question in questions {
            let Some(asked) = self.asked(question, known) else {
                continue;
            };
            let all = wish.get_or_insert(asked);
            all.shared &= asked.shared;
            all.list |= asked.list;
            all.unicast &= asked.unicast;
        }
        wish
    }

    fn asked(&self, question: &Question, query: &Packet) -> Option<Wish> {
        let name = &question.name;
        let any = question.kind == kind::ANY;
        let pointer = any || question.kind == kind::PTR;
        let located = any || matches!(question.kind, kind::SRV | kind::TXT);
        let addressed = any || matches!(question.kind, kind::A | kind::AAAA);
        let list = pointer && *name == self.list;
        let service = self.services.iter().find(|own| own.kind == *name);
        let shared = list || (pointer && service.is_some_and(|own| !self.is_known(own, query)));
        let own = (located && self.services.iter().any(|own| own.instance == *name))
            || (addressed && *name == self.host);
        (shared || own).then_some(Wish {
            shared,
            list,
            unicast: question.unicast,
        })
    }

    fn is_known(&self, own: &Own, query: &Packet) -> bool {
        query.answers.iter().any(|record| {
            record.name == own.kind
                && record.ttl >= self.ttl / KNOWN
                && matches!(&record.data, Data::Ptr(instance) if *instance == own.instance)
        })
    }

    /// Returns whether a packet takes back what we still stand for.
    pub(super) fn is_denied(&self, packet: &Packet) -> bool {
        packet.records().any(|record| {
            let pointer = matches!(&record.data, Data::Ptr(to) if self.is_instance(to));
            record.ttl == 0
                && (pointer || self.is_instance(&record.name) || record.name == self.host)
        })
    }

    fn is_instance(&self, name: &Name) -> bool {
        self.services.iter().any(|own| own.instance == *name)
    }

    fn packet(&self, addresses: impl Iterator<Item = IpAddr>, ttl: u32, list: bool) -> Packet {
        let record = |name: &Name, flush, data| Record {
            name: name.clone(),
            ttl,
            flush,
            data,
        };
        let mut packet = Packet {
            is_response: true,
            ..Packet::default()
        };
        for own in &self.services {
            if list {
                let kind = Data::Ptr(own.kind.clone());
                packet.answers.push(record(&self.list, false, kind));
            }
            let instance = Data::Ptr(own.instance.clone());
            packet.answers.push(record(&own.kind, false, instance));
        }
        for own in &self.services {
            let place = Data::Srv {
                port: self.port,
                target: self.host.clone(),
            };
            let text = Data::Txt(self.text.clone());
            packet.answers.push(record(&own.instance, true, place));
            packet.answers.push(record(&own.instance, true, text));
        }
        for address in addresses {
            let data = match address {
                IpAddr::V4(v4) => Data::A(v4),
                IpAddr::V6(v6) => Data::Aaaa(v6),
            };
            packet.answers.push(record(&self.host, true, data));
        }
        packet
    }
}

/// Asks for everybody, naming those who are known already so that they need not answer. What one
/// packet cannot hold follows in others (RFC 6762, section 7.2).
pub(super) fn browse(known: impl Iterator<Item = (usize, String, u32)>) -> Vec<Packet> {
    let types = service_types();
    let answers = known.filter_map(|(index, instance, ttl)| {
        let name = types.get(index)?.clone();
        let data = Data::Ptr(Name::under(&instance, &name)?);
        Some(Record {
            name,
            ttl,
            flush: false,
            data,
        })
    });
    let answers: Vec<Record> = answers.collect();
    let mut packets: Vec<Packet> = answers
        .chunks(ENTRIES)
        .map(|answers| Packet {
            is_truncated: true,
            answers: answers.to_vec(),
            ..Packet::default()
        })
        .collect();
    if packets.is_empty() {
        packets.push(Packet::default());
    }
    if let Some(first) = packets.first_mut() {
        first.questions = questions(&types, false);
    }
    if let Some(last) = packets.last_mut() {
        last.is_truncated = false;
    }
    packets
}

/// Asks for everybody, content with an answer to us alone: whoever has just spoken to all may not
/// repeat it to all within a second (RFC 6762, sections 5.4 and 6).
pub(super) fn first_question() -> Packet {
    Packet {
        questions: questions(&service_types(), true),
        ..Packet::default()
    }
}

/// A question that nobody answers, to find out whether it comes back to us.
pub(super) fn echo(id: &ClusterId) -> Option<Packet> {
    let question = Question {
        name: Name::under(id.as_str(), &Name::from_text("local")?)?,
        kind: kind::PTR,
        unicast: false,
    };
    Some(Packet {
        questions: vec![question],
        ..Packet::default()
    })
}

/// The service types on the LAN. The first one counts where they disagree.
pub(super) fn service_types() -> Vec<Name> {
    let types = SERVICE_TYPES.iter();
    let types = types.filter_map(|text| Name::from_text(&format!("{text}.local")));
    types.collect()
}

fn questions(types: &[Name], unicast: bool) -> Vec<Question> {
    let questions = types.iter().map(|name| Question {
        name: name.clone(),
        kind: kind::PTR,
        unicast,
    });
    questions.collect()
}

/// Tells whether a packet is our own, which comes back to us from every interface.
pub(super) fn is_own(packet: &Packet, id: &ClusterId, boot: &str) -> bool {
    packet.records().any(|record| {
        let Data::Txt(text) = &record.data else {
            return false;
        };
        record::Record::decode(text).is_ok_and(|record| {
            record.cluster_id.as_ref() == Some(id) && record.boot.as_deref() == Some(boot)
        })
    })
}

/// The bounds of the time to live that we announce: Liqo's least, and what RFC 6762 gives pointers.
pub(super) const TTL: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(75));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::identity::ClusterName;

    const ROME: &str = "0f1e2d3c-4b5a-8697-8877-665544332211";

    fn responder() -> Responder {
        let announcement = Announcement {
            cluster_id: ROME.parse().expect("a UUID"),
            name: ClusterName::neutralise("rome"),
            boot: "bbbb".to_owned(),
            port: 5870,
            ttl: Duration::from_secs(90),
            advertise: true,
            discover: true,
        };
        Responder::new(&announcement).expect("an id is a label")
    }

    fn addresses() -> impl Iterator<Item = IpAddr> {
        ["10.0.0.1", "fe80::1"]
            .into_iter()
            .map(|text| text.parse().expect("an address"))
    }

    fn query(name: &str, kind: u16) -> Packet {
        let question = Question {
            name: Name::from_text(name).expect("a name"),
            kind,
            unicast: false,
        };
        Packet {
            questions: vec![question],
            ..Packet::default()
        }
    }

    #[test]
    fn one_packet_says_everything_and_fits_a_frame() {
        let packet = responder().announcement(addresses(), true);
        assert!(packet.encode().len() < 600, "{}", packet.encode().len());
        let count = |wanted: fn(&Data) -> bool| {
            let answers = packet.answers.iter();
            answers.filter(|record| wanted(&record.data)).count()
        };
        assert_eq!(count(|data| matches!(data, Data::Ptr(_))), 4);
        assert_eq!(count(|data| matches!(data, Data::Srv { .. })), 2);
        assert_eq!(count(|data| matches!(data, Data::Txt(_))), 2);
        assert_eq!(count(|data| matches!(data, Data::A(_) | Data::Aaaa(_))), 2);
        let unique = |record: &&Record| !matches!(record.data, Data::Ptr(_));
        assert!(
            packet
                .answers
                .iter()
                .filter(unique)
                .all(|record| record.flush)
        );
        assert!(packet.answers.iter().all(|record| record.ttl == 90));
        let goodbye = responder().goodbye(addresses());
        assert!(goodbye.answers.iter().all(|record| record.ttl == 0));
        assert!(
            goodbye
                .answers
                .iter()
                .all(|record| record.name != responder().list),
            "the list of types belongs to everybody"
        );
    }

    #[test]
    fn who_asks_is_answered_by_what_was_asked() {
        let host = format!("{ROME}.local");
        let instance = format!("{ROME}._landbridge._tcp.local");
        let wish = |shared, list| {
            let unicast = false;
            Some(Wish {
                shared,
                list,
                unicast,
            })
        };
        for (name, kind, expected) in [
            ("_landbridge._tcp.local", kind::PTR, wish(true, false)),
            ("_LIQO_auth._tcp.local", kind::ANY, wish(true, false)),
            ("_services._dns-sd._udp.local", kind::PTR, wish(true, true)),
            (&instance, kind::SRV, wish(false, false)),
            (&instance, kind::TXT, wish(false, false)),
            (&host, kind::AAAA, wish(false, false)),
            (&host, kind::PTR, None),
            ("_landbridge._tcp.local", kind::A, None),
            ("_http._tcp.local", kind::PTR, None),
            ("milan.local", kind::A, None),
        ] {
            assert_eq!(
                responder().wish(&query(name, kind)),
                expected,
                "{name} {kind}"
            );
        }
    }

    #[test]
    fn who_knows_us_well_enough_is_not_answered() {
        let mut asked = query("_landbridge._tcp.local", kind::PTR);
        asked.answers = responder().announcement(addresses(), false).answers;
        assert_eq!(responder().wish(&asked), None);
        for record in &mut asked.answers {
            record.ttl = 44;
        }
        assert!(responder().wish(&asked).is_some());
    }

    #[test]
    fn who_knows_us_by_a_later_packet_is_not_answered_either() {
        let mut questions = query("_landbridge._tcp.local", kind::PTR).questions;
        questions.extend(query(&format!("{ROME}.local"), kind::A).questions);
        responder().drop_answered(&mut questions, &query("milan.local", kind::A));
        assert_eq!(questions.len(), 2);
        let known = responder().announcement(addresses(), false);
        responder().drop_answered(&mut questions, &known);
        let left = Name::from_text(&format!("{ROME}.local"));
        assert_eq!(questions.pop().map(|question| question.name), left);
        assert!(questions.is_empty());
    }

    #[test]
    fn all_who_are_known_are_named_in_packets_that_fit_a_frame() {
        let crowd = |size: u32| {
            let row = |number| (0, format!("{number:08}-4b5a-8697-8877-665544332211"), 60);
            browse((0..size).map(row))
        };
        for (size, expected) in [(0, 1), (1, 1), (24, 1), (25, 2), (500, 21)] {
            let packets = crowd(size);
            assert_eq!(packets.len(), expected, "{size}");
            let asked: Vec<usize> = packets.iter().map(|one| one.questions.len()).collect();
            assert_eq!((asked[0], asked.iter().sum::<usize>()), (2, 2), "{size}");
            let told: usize = packets.iter().map(|one| one.answers.len()).sum();
            assert_eq!(told, size as usize);
            let more = packets.iter().filter(|one| one.is_truncated).count();
            assert_eq!((more, packets[more].is_truncated), (expected - 1, false));
            assert!(packets.iter().all(|one| one.encode().len() < 1400));
        }
    }

    #[test]
    fn an_ordinary_resolver_gets_its_question_back_and_a_short_time() {
        let mut asked = query("_landbridge._tcp.local", kind::PTR);
        asked.id = 77;
        let reply = responder().legacy(&asked, addresses(), false);
        assert_eq!((reply.id, &reply.questions), (77, &asked.questions));
        assert!(
            reply
                .answers
                .iter()
                .all(|record| record.ttl == 10 && !record.flush)
        );
    }

    #[test]
    fn who_takes_us_back_is_denied_and_others_are_not() {
        let mut milan = responder().goodbye(addresses());
        assert!(responder().is_denied(&milan));
        assert!(!responder().is_denied(&responder().announcement(addresses(), false)));
        let other = Name::from_text("milan._landbridge._tcp.local").expect("a name");
        milan
            .answers
            .retain(|record| matches!(record.data, Data::Ptr(_)));
        for record in &mut milan.answers {
            record.data = Data::Ptr(other.clone());
        }
        assert!(!responder().is_denied(&milan));
    }

    #[test]
    fn we_know_our_own_packets_and_those_of_a_clone() {
        let packet = responder().announcement(addresses(), false);
        let id = ROME.parse().expect("a UUID");
        assert!(is_own(&packet, &id, "bbbb"));
        assert!(!is_own(&packet, &id, "cccc"));
    }
}
