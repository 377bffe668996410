//! Writing a packet, with names that occurred before written as pointers (RFC 1035, section 4.1.4).

use super::{
    Data, Name, Packet, Record,
    read::{RESPONSE, TOP_BIT, TRUNCATED},
};

/// Answers come from whom they are about (RFC 6762, section 18.4).
const AUTHORITATIVE: u16 = 0x0400;
/// How far a pointer reaches.
const REACH: usize = 0x4000;

impl Packet {
    /// Writes the packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let mut flags = 0;
        if self.is_response {
            flags |= RESPONSE | AUTHORITATIVE;
        }
        if self.is_truncated {
            flags |= TRUNCATED;
        }
        writer.u16(self.id);
        writer.u16(flags);
        for count in [
            self.questions.len(),
            self.answers.len(),
            0,
            self.additionals.len(),
        ] {
            writer.u16(u16::try_from(count).unwrap_or(u16::MAX));
        }
        for question in &self.questions {
            writer.name(&question.name);
            writer.u16(question.kind);
            writer.u16(class(question.unicast));
        }
        for record in self.records() {
            writer.record(record);
        }
        writer.data
    }
}

fn class(top: bool) -> u16 {
    if top { TOP_BIT | 1 } else { 1 }
}

#[derive(Default)]
struct Writer {
    data: Vec<u8>,
    names: Vec<(Vec<u8>, u16)>,
}

impl Writer {
    fn u16(&mut self, value: u16) {
        self.data.extend_from_slice(&value.to_be_bytes());
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.name);
        self.u16(record.data.kind());
        self.u16(class(record.flush));
        self.data.extend_from_slice(&record.ttl.to_be_bytes());
        self.u16(0);
        let start = self.data.len();
        match &record.data {
            Data::Ptr(name) => self.name(name),
            Data::Srv { port, target } => {
                // Priority and weight are of no use on a LAN.
                self.data.extend_from_slice(&[0; 4]);
                self.u16(*port);
                self.name(target);
            }
            Data::Txt(text) => self.data.extend_from_slice(text),
            Data::A(address) => self.data.extend_from_slice(&address.octets()),
            Data::Aaaa(address) => self.data.extend_from_slice(&address.octets()),
        }
        let length = u16::try_from(self.data.len() - start).unwrap_or(u16::MAX);
        if let Some(place) = self.data.get_mut(start - 2..start) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn name(&mut self, name: &Name) {
        let mut rest = name.wire();
        while let Some((&length, tail)) = rest.split_first() {
            let known = self.names.iter().find(|(known, _)| known == rest);
            if let Some((_, place)) = known {
                let pointer = 0xc000 | *place;
                return self.u16(pointer);
            }
            if let Some(place) = u16::try_from(self.data.len())
                .ok()
                .filter(|place| usize::from(*place) < REACH)
            {
                self.names.push((rest.to_vec(), place));
            }
            let Some((label, after)) = tail.split_at_checked(usize::from(length)) else {
                break;
            };
            self.data.push(length);
            self.data.extend_from_slice(label);
            rest = after;
        }
        self.data.push(0);
    }
}
