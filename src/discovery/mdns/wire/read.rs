//! Reading a packet: whatever a stranger sends ends in a packet or in an error.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Data, Name, Packet, Question, Record, WireError, kind};

/// The most questions of a packet.
const QUESTION_LIMIT: usize = 128;
/// The most records of a packet, those that are skipped included: what 9000 bytes can hold of the
/// smallest ones.
const RECORD_LIMIT: usize = 820;
/// The most jumps within one name: more than a name has labels lead nowhere.
const JUMP_LIMIT: usize = 128;
/// The class of the internet (RFC 1035, section 3.2.4), without the bit that multicast DNS took.
const INTERNET: u16 = 1;
/// Any class, in a question.
const ANY_CLASS: u16 = 255;
/// The bit of the class that multicast DNS took for itself (RFC 6762, section 18.12 and 18.13).
pub(super) const TOP_BIT: u16 = 0x8000;
/// The flag of an answer.
pub(super) const RESPONSE: u16 = 0x8000;
/// The flag of a packet that more belongs to (RFC 6762, section 18.5).
pub(super) const TRUNCATED: u16 = 0x0200;
/// The fields that must be zero (RFC 6762, section 18.3 and 18.11).
const OPERATION_AND_CODE: u16 = 0x780f;

impl Packet {
    /// Reads a packet.
    pub fn decode(data: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader { data, at: 0 };
        let id = reader.u16()?;
        let flags = reader.u16()?;
        if flags & OPERATION_AND_CODE != 0 {
            return Err(WireError::Operation);
        }
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = usize::from(reader.u16()?);
        }
        let [questions, answers, authorities, additionals] = counts;
        if questions > QUESTION_LIMIT || answers + authorities + additionals > RECORD_LIMIT {
            return Err(WireError::TooMany);
        }
        let mut packet = Self {
            id,
            is_response: flags & RESPONSE != 0,
            is_truncated: flags & TRUNCATED != 0,
            ..Self::default()
        };
        for _ in 0..questions {
            packet.questions.extend(reader.question()?);
        }
        for _ in 0..answers {
            packet.answers.extend(reader.record()?);
        }
        for _ in 0..authorities {
            reader.record()?;
        }
        for _ in 0..additionals {
            packet.additionals.extend(reader.record()?);
        }
        Ok(packet)
    }
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(length).ok_or(WireError::CutOff)?;
        let taken = self.data.get(self.at..end).ok_or(WireError::CutOff)?;
        self.at = end;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        let bytes = self.take(2)?.try_into().map_err(|_| WireError::CutOff)?;
        Ok(u16::from_be_bytes(bytes))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        let bytes = self.take(4)?.try_into().map_err(|_| WireError::CutOff)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn question(&mut self) -> Result<Option<Question>, WireError> {
        let name = self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let known = matches!(class & !TOP_BIT, INTERNET | ANY_CLASS);
        Ok(known.then_some(Question {
            name,
            kind,
            unicast: class & TOP_BIT != 0,
        }))
    }

    /// Reads a record; nothing for one of no use.
    fn record(&mut self) -> Result<Option<Record>, WireError> {
        let name = self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl = self.u32()?;
        let length = usize::from(self.u16()?);
        let start = self.at;
        let data = self.take(length)?;
        if class & !TOP_BIT != INTERNET {
            return Ok(None);
        }
        Ok(self.data_of(kind, data, start).map(|data| Record {
            name,
            ttl,
            flush: class & TOP_BIT != 0,
            data,
        }))
    }

    fn data_of(&self, kind: u16, data: &[u8], start: usize) -> Option<Data> {
        match kind {
            kind::PTR => self.name_within(start, start + data.len()).map(Data::Ptr),
            kind::SRV => {
                let port = data.get(4..6)?.try_into().ok()?;
                let target = self.name_within(start + 6, start + data.len())?;
                Some(Data::Srv {
                    port: u16::from_be_bytes(port),
                    target,
                })
            }
            kind::TXT => Some(Data::Txt(data.to_vec())),
            kind::A => {
                let bytes: [u8; 4] = data.try_into().ok()?;
                Some(Data::A(Ipv4Addr::from(bytes)))
            }
            kind::AAAA => {
                let bytes: [u8; 16] = data.try_into().ok()?;
                Some(Data::Aaaa(Ipv6Addr::from(bytes)))
            }
            _ => None,
        }
    }

    /// Reads the name that fills a record's data to its end.
    fn name_within(&self, start: usize, end: usize) -> Option<Name> {
        let mut reader = Reader {
            data: self.data,
            at: start,
        };
        let name = reader.name().ok()?;
        (reader.at == end).then_some(name)
    }

    fn name(&mut self) -> Result<Name, WireError> {
        let mut name = Name::default();
        let mut at = self.at;
        let mut after = None;
        let mut jumps = 0;
        loop {
            let length = *self.data.get(at).ok_or(WireError::CutOff)?;
            match length & 0xc0 {
                0 if length == 0 => {
                    self.at = after.unwrap_or(at + 1);
                    return Ok(name);
                }
                0 => {
                    let end = at + 1 + usize::from(length);
                    let label = self.data.get(at + 1..end).ok_or(WireError::CutOff)?;
                    if !name.push(label) {
                        return Err(WireError::NameTooLong);
                    }
                    at = end;
                }
                0xc0 => {
                    let low = *self.data.get(at + 1).ok_or(WireError::CutOff)?;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    after.get_or_insert(at + 2);
                    jumps += 1;
                    if target >= at || jumps > JUMP_LIMIT {
                        return Err(WireError::Pointer);
                    }
                    at = target;
                }
                _ => return Err(WireError::Label),
            }
        }
    }
}
