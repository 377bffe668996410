//! What is said to everybody on a LAN by multicast DNS, with the time at which it was heard.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use socket2::{Domain, Socket, Type};

use crate::lan::Lan;

/// The group and the port of multicast DNS.
pub(crate) const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub(crate) const PORT: u16 = 5353;

/// A packet: when, from where, and what.
type Heard = (Timestamp, IpAddr, Vec<u8>);

/// Somebody who listens on a machine until it is dropped.
pub(crate) struct Ear {
    heard: Arc<Mutex<Vec<Heard>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ear {
    pub(crate) fn on(lan: &Lan, machine: &str, own: Ipv4Addr) -> Self {
        let (heard, is_over) = (Arc::default(), Arc::default());
        let (all, end) = (Arc::clone(&heard), Arc::clone(&is_over));
        let thread = lan.beside(machine, move || listen(&open(own), &all, &end));
        Self {
            heard,
            is_over,
            thread: Some(thread),
        }
    }

    /// Waits for an answer or an announcement from a time on in which these bytes are, if any.
    pub(crate) fn announced(
        &self,
        since: Timestamp,
        from: &[IpAddr],
        bytes: &[u8],
        patience: Duration,
    ) -> Option<Timestamp> {
        let deadline = Instant::now() + patience;
        loop {
            let all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let found = all.iter().find(|(at, source, data)| {
                // The first bit of the flags tells answers from questions (RFC 1035, section 4.1.1).
                let is_answer = data.get(2).is_some_and(|flags| flags & 0x80 != 0);
                let has_bytes = bytes.is_empty() || data.windows(bytes.len()).any(|w| w == bytes);
                *at >= since && is_answer && from.contains(source) && has_bytes
            });
            let found = found.map(|(at, ..)| *at);
            drop(all);
            if found.is_some() || Instant::now() >= deadline {
                return found;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What went wrong there has nothing to say any more.
            let _ = thread.join();
        }
    }
}

fn listen(socket: &UdpSocket, heard: &Mutex<Vec<Heard>>, is_over: &AtomicBool) {
    let mut buffer = vec![0; 9000];
    while !is_over.load(Ordering::Relaxed) {
        if let Ok((length, source)) = socket.recv_from(&mut buffer) {
            let packet = (Timestamp::now(), source.ip(), buffer[..length].to_vec());
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push(packet);
        }
    }
}

/// Opens a socket that hears what is said to everybody and speaks from `own`. It waits for a moment at
/// most.
pub(crate) fn open(own: Ipv4Addr) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_multicast_if_v4(&own).unwrap();
    socket.set_multicast_ttl_v4(255).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    socket.bind(&everywhere.into()).unwrap();
    socket.join_multicast_v4(&GROUP, &own).unwrap();
    socket.into()
}
