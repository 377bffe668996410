//! The inner side of WireGuard: a TUN whose packets come and go in bundles.
//!
//! With IFF_VNET_HDR the kernel hands over and takes bundles of TCP segments, which tun-rs cuts and
//! joins; that is where most of the throughput comes from.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gotatun::{
    packet::{Ip, Packet, PacketBufPool},
    tun::{IpRecv, IpSend, MtuWatcher},
};
use ipnet::Ipv4Net;
use nix::errno::Errno;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tun_rs::{AsyncDevice, GROTable, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN};

/// The largest bundle.
const BUNDLE: usize = 65_535;
/// The largest single packet that is passed on.
const PACKET: usize = 4096;
/// Packets that wait for the TUN. When it is full the sender waits, so that nothing is dropped here
/// and the kernel's socket buffer takes the burst.
const QUEUE: usize = 1024;

/// What may come out of the tunnel from one peer. The packet rules say the same; this holds where
/// somebody has flushed them, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage {
    /// The range that the peer sends from.
    pub(crate) from: Ipv4Net,
    /// The range under which it sees us.
    pub(crate) to: Ipv4Net,
}

/// Says whether the TUN still exists.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<AtomicBool>);

impl Pulse {
    pub(crate) fn is_dead(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes the two halves that WireGuard wants, and a task that writes.
pub(crate) fn halves(
    device: AsyncDevice,
    mtu: watch::Receiver<u16>,
    passages: watch::Receiver<Vec<Passage>>,
    pulse: &Pulse,
) -> (Sender, Receiver, JoinHandle<()>) {
    let device = Arc::new(device);
    let (queue, waiting) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write(Arc::clone(&device), waiting, pulse.clone()));
    let receiver = Receiver {
        device,
        mtu,
        pulse: pulse.clone(),
        bundle: vec![0; VIRTIO_NET_HDR_LEN + BUNDLE],
        pieces: vec![vec![0; PACKET]; IDEAL_BATCH_SIZE],
        sizes: vec![0; IDEAL_BATCH_SIZE],
        packets: Vec::with_capacity(IDEAL_BATCH_SIZE),
    };
    (Sender { queue, passages }, receiver, writer)
}

/// Takes what came out of the tunnel.
pub(crate) struct Sender {
    queue: mpsc::Sender<Packet<[u8]>>,
    passages: watch::Receiver<Vec<Passage>>,
}

impl IpSend for Sender {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        let packet = packet.into_bytes();
        if !may_pass(&self.passages.borrow(), &packet) {
            return Ok(());
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.queue.send(packet).await.map_err(gone)
    }
}

/// Reads source and target of an IPv4 packet (RFC 791, section 3.1), and whether a peer may send it.
fn may_pass(passages: &[Passage], packet: &[u8]) -> bool {
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let (true, Some(source), Some(target)) = (is_ipv4, address(12), address(16)) else {
        return false;
    };
    let fits = |it: &Passage| it.from.contains(&source) && it.to.contains(&target);
    passages.iter().any(fits)
}

async fn write(device: Arc<AsyncDevice>, mut queue: mpsc::Receiver<Packet<[u8]>>, pulse: Pulse) {
    let mut packets = Vec::with_capacity(IDEAL_BATCH_SIZE);
    let mut table = GROTable::default();
    let room = VIRTIO_NET_HDR_LEN + BUNDLE;
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    buffers.resize_with(IDEAL_BATCH_SIZE, || Vec::with_capacity(room));
    while queue.recv_many(&mut packets, IDEAL_BATCH_SIZE).await > 0 {
        let count = packets.len();
        for (buffer, packet) in buffers.iter_mut().zip(packets.drain(..)) {
            buffer.clear();
            buffer.resize(VIRTIO_NET_HDR_LEN, 0);
            buffer.extend_from_slice(&packet);
        }
        let Some(filled) = buffers.get_mut(..count) else {
            continue;
        };
        let written = device.send_multiple(&mut table, filled, VIRTIO_NET_HDR_LEN);
        match written.await {
            Err(error) if is_gone(&error) => {
                pulse.stop();
                return;
            }
            // The interface is down, or a peer sent what no kernel takes.
            Err(error) => tracing::debug!(%error, "The TUN refused a packet"),
            Ok(_) => {}
        }
    }
}

/// Gives what shall go into the tunnel.
pub(crate) struct Receiver {
    device: Arc<AsyncDevice>,
    mtu: watch::Receiver<u16>,
    pulse: Pulse,
    bundle: Vec<u8>,
    pieces: Vec<Vec<u8>>,
    sizes: Vec<usize>,
    packets: Vec<Packet<Ip>>,
}

impl IpRecv for Receiver {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        loop {
            let read =
                self.device
                    .recv_multiple(&mut self.bundle, &mut self.pieces, &mut self.sizes, 0);
            match read.await {
                Ok(count) => {
                    self.collect(count, pool);
                    return Ok(self.packets.drain(..));
                }
                Err(error) if is_gone(&error) => {
                    self.pulse.stop();
                    return Err(error);
                }
                // The packet was consumed; the pause is for errors that stay.
                Err(error) => {
                    tracing::debug!(%error, "A packet for the tunnel could not be read");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    fn mtu(&self) -> MtuWatcher {
        self.mtu.clone().into()
    }
}

impl Receiver {
    fn collect(&mut self, count: usize, pool: &PacketBufPool) {
        self.packets.clear();
        for (piece, size) in self.pieces.iter().zip(&self.sizes).take(count) {
            let Some(bytes) = piece.get(..*size) else {
                continue;
            };
            let mut packet = pool.get();
            packet.buf_mut().clear();
            packet.buf_mut().extend_from_slice(bytes);
            if let Ok(packet) = packet.try_into_ip() {
                self.packets.push(packet);
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    [Errno::EBADF, Errno::EBADFD, Errno::ENODEV]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_peer_may_send_comes_out() {
        let passages = [
            ("10.71.0.0/16", "10.72.0.0/16"),
            ("10.80.0.0/16", "10.244.0.0/16"),
        ];
        let passages = passages.map(|(from, to)| Passage {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        });
        let passes = |first: u8, from: &str, to: &str, length: usize| {
            let mut packet = [0; 28];
            packet[0] = first;
            packet[12..16].copy_from_slice(&from.parse::<Ipv4Addr>().unwrap().octets());
            packet[16..20].copy_from_slice(&to.parse::<Ipv4Addr>().unwrap().octets());
            may_pass(&passages, &packet[..length])
        };
        assert!(passes(0x45, "10.71.1.10", "10.72.1.10", 28));
        assert!(passes(0x45, "10.80.1.10", "10.244.0.1", 20));
        assert!(
            !passes(0x45, "10.71.1.10", "10.244.1.10", 28),
            "another's target"
        );
        assert!(!passes(0x45, "10.73.1.10", "10.72.1.10", 28));
        assert!(!passes(0x45, "10.71.1.10", "192.168.1.1", 28));
        assert!(!passes(0x60, "10.71.1.10", "10.72.1.10", 28), "IPv6");
        assert!(!passes(0x45, "10.71.1.10", "10.72.1.10", 19));
        assert!(!may_pass(&passages, &[]));
    }
}
