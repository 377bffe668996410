//! Five hundred announced clusters, and what it takes to know them when nothing happens.
//!
//! They are at fifty addresses, announce themselves twice and answer from then on, as the stacks that
//! they stand for would. There is no cluster behind them, so whoever wants a proof gets none.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use landbridge::discovery::mdns::wire::{Data, Name, Packet, Record, kind};

use crate::{
    ear::{GROUP, PORT, open},
    lan::Lan,
    process::Process,
};

/// How many there are.
pub(crate) const SIZE: usize = 500;
/// At how many addresses.
const ADDRESSES: usize = 50;
const SERVICE_TYPE: &str = "_landbridge._tcp.local";
/// The times to live of names and of addresses, in seconds (RFC 6762, section 10).
const TTL: (u32, u32) = (4500, 120);
/// For how long further known answers of a question are awaited (RFC 6762, section 7.2).
const KNOWN_ANSWERS: Duration = Duration::from_millis(450);
/// How long everything rests before it is measured, and for how long that is done.
const REST: Duration = Duration::from_secs(90);
const MEASURED: Duration = Duration::from_mins(1);

/// The crowd, until it is dropped.
pub(crate) struct Crowd {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Lets all of them appear on a machine.
    pub(crate) fn on(lan: &Lan, machine: &str) -> Self {
        for address in addresses() {
            lan.ip(machine, &format!("address add {address}/24 dev eth0"));
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        let thread = lan.beside(machine, move || live(&end));
        Self {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What went wrong there shows in what was found.
            let _ = thread.join();
        }
    }
}

/// What somebody uses at rest.
pub(crate) struct Use {
    pub(crate) mebibytes: f64,
    pub(crate) share_of_a_core: f64,
    pub(crate) sent_a_minute: f64,
    pub(crate) received_a_minute: f64,
}

/// Measures what processes use on a machine that has found everybody.
pub(crate) fn at_rest(lan: &Lan, machine: &str, processes: &[Process]) -> Use {
    lan.count_packets(machine, PORT);
    sleep(REST);
    let busy = || -> Duration { processes.iter().map(|one| one.processor_time()).sum() };
    let (used, sent, start) = (busy(), lan.packets(machine), Instant::now());
    sleep(MEASURED);
    let (used, now) = (busy().saturating_sub(used), lan.packets(machine));
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    let kilobytes: u32 = processes.iter().map(|one| one.resident()).sum();
    Use {
        mebibytes: f64::from(kilobytes) / 1024.0,
        share_of_a_core: 100.0 * used.as_secs_f64() / (minutes * 60.0),
        sent_a_minute: f64::from(now.0 - sent.0) / minutes,
        received_a_minute: f64::from(now.1 - sent.1) / minutes,
    }
}

fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    (0..ADDRESSES).map(|number| Ipv4Addr::new(10, 77, 0, 100 + u8::try_from(number).unwrap()))
}

/// Everything that one of them says.
struct Member {
    instance: Name,
    host: Name,
    packet: Vec<u8>,
    voice: Arc<UdpSocket>,
}

impl Member {
    fn say(&self) {
        // A packet that the LAN does not take is one that was lost.
        let _ = self
            .voice
            .send_to(&self.packet, SocketAddr::from((GROUP, PORT)));
    }
}

fn members() -> Vec<Member> {
    let service = Name::from_text(SERVICE_TYPE).unwrap();
    let voices: Vec<_> = addresses()
        .map(|address| (address, Arc::new(open(address))))
        .collect();
    (0..SIZE)
        .map(|number| {
            let (address, voice) = &voices[number % ADDRESSES];
            member(number, *address, voice, &service)
        })
        .collect()
}

fn member(number: usize, address: Ipv4Addr, voice: &Arc<UdpSocket>, service: &Name) -> Member {
    let id = format!("{number:08x}-4b5a-8697-8877-665544332211");
    let instance = Name::under(&id, service).unwrap();
    let host = Name::from_text(&format!("{id}.local")).unwrap();
    let mut text = Vec::new();
    for entry in ["v=1", &format!("id={id}"), &format!("name=c{number}")] {
        text.push(u8::try_from(entry.len()).unwrap());
        text.extend(entry.bytes());
    }
    let (port, target) = (5870, host.clone());
    let answers = [
        (service.clone(), TTL.0, Data::Ptr(instance.clone())),
        (instance.clone(), TTL.1, Data::Srv { port, target }),
        (instance.clone(), TTL.0, Data::Txt(text)),
        (host.clone(), TTL.1, Data::A(address)),
    ];
    let answers = answers.map(|(name, ttl, data)| Record {
        flush: !matches!(data, Data::Ptr(_)),
        name,
        ttl,
        data,
    });
    let packet = Packet {
        is_response: true,
        answers: answers.to_vec(),
        ..Packet::default()
    };
    Member {
        instance,
        host,
        packet: packet.encode(),
        voice: Arc::clone(voice),
    }
}

fn live(is_over: &AtomicBool) {
    let members = members();
    let ear = open(Ipv4Addr::new(10, 77, 0, 2));
    for _ in 0..2 {
        for member in &members {
            member.say();
            sleep(Duration::from_millis(2));
        }
    }
    let service = Name::from_text(SERVICE_TYPE).unwrap();
    let mut buffer = vec![0; 9000];
    // When the question for everybody is answered, and who is known to the asker.
    let mut roll_call: Option<(Instant, BTreeSet<Name>)> = None;
    while !is_over.load(Ordering::Relaxed) {
        if let Ok((length, _)) = ear.recv_from(&mut buffer)
            && let Ok(query) = Packet::decode(&buffer[..length])
            && !query.is_response
        {
            let is_for_all = |name: &Name, asked| *name == service && asked == kind::PTR;
            let mut questions = query.questions.iter();
            if questions.any(|one| is_for_all(&one.name, one.kind)) {
                roll_call.get_or_insert_with(|| (Instant::now() + KNOWN_ANSWERS, BTreeSet::new()));
            }
            if let Some((_, known)) = &mut roll_call {
                let answers = query.answers.iter();
                known.extend(answers.filter_map(|record| match &record.data {
                    Data::Ptr(instance) => Some(instance.clone()),
                    _ => None,
                }));
            }
            for member in &members {
                let names = [&member.instance, &member.host];
                if query.questions.iter().any(|one| names.contains(&&one.name)) {
                    member.say();
                }
            }
        }
        if roll_call
            .as_ref()
            .is_some_and(|(due, _)| *due <= Instant::now())
            && let Some((_, known)) = roll_call.take()
        {
            let unknown = members.iter().filter(|one| !known.contains(&one.instance));
            unknown.for_each(Member::say);
        }
    }
}
