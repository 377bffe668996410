//! The outer UDP socket: gotatun's own, with large buffers and runs of packets sent in one call.
//!
//! UDP_SEGMENT hands the kernel up to 64 packets for one peer at once. A path that cannot do it
//! says so at the first try, and from then on packets go one by one.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use gotatun::{
    packet::Packet,
    udp::{
        UdpSend, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt},
};
use tokio::io::Interest;

/// Room for bursts; the default loses packets at every one of them.
const BUFFER: usize = 7 << 20;
/// The most packets in one call (Linux: UDP_MAX_SEGMENTS).
const MOST_SEGMENTS: usize = 64;
/// The most bytes in one call, below what a UDP datagram may have.
const MOST_BYTES: usize = 65_000;

/// Makes the outer socket.
#[derive(Debug, Default)]
pub(crate) struct Factory {
    sockets: UdpSocketFactory,
}

impl UdpTransportFactory for Factory {
    type Send = Sender;
    type Recv = UdpSocket;

    async fn bind(
        &mut self,
        params: &UdpTransportFactoryParams,
    ) -> io::Result<(Sender, UdpSocket)> {
        let (socket, receiver) = self.sockets.bind(params).await?;
        // Needs CAP_NET_ADMIN, as the tunnel does anyway; without it the default is kept.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER);
        let sender = Sender {
            socket,
            one_by_one: Arc::default(),
        };
        Ok((sender, receiver))
    }
}

/// The sending half of the outer socket.
#[derive(Clone)]
pub(crate) struct Sender {
    socket: UdpSocket,
    one_by_one: Arc<AtomicBool>,
}

impl UdpSend for Sender {
    type SendManyBuf = ();

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        self.socket.socket().send_to(&packet, destination).await?;
        Ok(())
    }

    fn max_number_of_packets_to_send(&self) -> usize {
        2 * MOST_SEGMENTS
    }

    async fn send_many_to(
        &self,
        (): &mut (),
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        let mut rest = packets.as_slice();
        while let Some((_, destination)) = rest.first() {
            let (run, others) = rest.split_at(self.run_length(rest));
            rest = others;
            self.send_run(run, *destination).await;
        }
        packets.clear();
        Ok(())
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.socket.local_addr().map(Some)
    }
}

impl Sender {
    /// Counts the packets at the front that may go in one call: one destination, one size, and a
    /// shorter one only at the end.
    fn run_length(&self, packets: &[(Packet, SocketAddr)]) -> usize {
        let Some((first, destination)) = packets.first() else {
            return 0;
        };
        if self.one_by_one.load(Ordering::Relaxed) {
            return 1;
        }
        let size = first.len();
        let mut bytes = size;
        let mut length = 1;
        for (packet, to) in packets.iter().take(MOST_SEGMENTS).skip(1) {
            bytes += packet.len();
            if to != destination || packet.len() > size || bytes > MOST_BYTES {
                break;
            }
            length += 1;
            if packet.len() < size {
                break;
            }
        }
        length
    }

    /// Sends a run; what cannot be sent is lost, as packets are.
    async fn send_run(&self, run: &[(Packet, SocketAddr)], destination: SocketAddr) {
        let sent = if run.len() > 1 {
            self.send_segments(run, destination).await
        } else {
            self.send_single(run, destination).await
        };
        let sent = match sent {
            Err(error) if run.len() > 1 && is_offload_refused(&error) => {
                self.give_up_runs(&error);
                self.send_single(run, destination).await
            }
            sent => sent,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, %destination, "Could not send packets");
        }
    }

    fn give_up_runs(&self, error: &io::Error) {
        if !self.one_by_one.swap(true, Ordering::Relaxed) {
            tracing::info!(%error, "Sending packets one by one from now on");
        }
    }

    async fn send_single(
        &self,
        run: &[(Packet, SocketAddr)],
        destination: SocketAddr,
    ) -> io::Result<()> {
        for (packet, _) in run {
            self.socket.socket().send_to(packet, destination).await?;
        }
        Ok(())
    }

    async fn send_segments(
        &self,
        run: &[(Packet, SocketAddr)],
        destination: SocketAddr,
    ) -> io::Result<()> {
        let size = run.first().map_or(0, |(packet, _)| packet.len());
        let size = u16::try_from(size).map_err(|_| Errno::EINVAL)?;
        let address = SockaddrStorage::from(destination);
        let socket = self.socket.socket();
        let send = || {
            let slices: Vec<_> = run.iter().map(|(packet, _)| IoSlice::new(packet)).collect();
            let control = [ControlMessage::UdpGsoSegments(&size)];
            let flags = MsgFlags::MSG_DONTWAIT;
            sendmsg(socket.as_raw_fd(), &slices, &control, flags, Some(&address))?;
            Ok(())
        };
        socket.async_io(Interest::WRITABLE, send).await
    }
}

/// What kernels and network cards say when they cannot cut a run into packets.
fn is_offload_refused(error: &io::Error) -> bool {
    [
        Errno::EIO,
        Errno::EINVAL,
        Errno::EMSGSIZE,
        Errno::EOPNOTSUPP,
    ]
    .iter()
    .any(|errno| error.raw_os_error() == Some(*errno as i32))
}
