//! A look at recorded answers instead of name servers, for fuzzers: what they do to the reading of
//! answers needs no network.

use hickory_proto::{
    op::Message,
    rr::{Name, Record, RecordType},
};

use super::{
    Looker,
    ask::{Answer, Ask, Reply, from_answers},
    parse,
};
use crate::engine::domain::{Look, Problem};

/// Looks at a domain in messages that stand one after another as on TCP, each behind its length in
/// two bytes (RFC 1035, section 4.2.2). Every question is answered from all of them.
pub fn look_at_recorded(domain: &str, messages: &[u8]) -> Look {
    match parse(domain) {
        Ok(domain) => {
            let records = records(messages);
            let looker = Looker::new(Recorded { records });
            futures::executor::block_on(looker.look(&domain))
        }
        Err(problem) => Look {
            incomplete: Some(problem),
            ..Look::default()
        },
    }
}

struct Recorded {
    records: Vec<Record>,
}

impl Ask for Recorded {
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, Problem> {
        match from_answers(name, kind, &self.records) {
            Reply::Said(answer) | Reply::Unknown(answer) => Ok(answer),
            Reply::Wrong(why) => Err(Problem::Lasting(why)),
            Reply::Silent(why) => Err(Problem::Passing(why)),
        }
    }
}

/// Reads the answers of all messages that can be read.
fn records(mut messages: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some((length, rest)) = messages.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        if let Ok(message) = Message::from_vec(message) {
            records.extend(message.answers);
        }
        messages = rest;
    }
    records
}
