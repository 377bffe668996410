//! The outer UDP socket: gotatun's own, with large buffers and runs of packets sent in one call.
//!
//! UDP_SEGMENT hands the kernel up to 64 packets for one peer at once. Where a path cannot do that,
//! or is too narrow for it at present, the kernel says so, and the packets go one by one.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    time::Duration,
};

use gotatun::{
    packet::{Packet, PacketBufPool},
    udp::{
        UdpRecv, UdpSend, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt},
};
use tokio::{io::Interest, sync::watch, time::sleep};

use super::tun::Passage;

/// Room for bursts; the default loses packets at every one of them.
const BUFFER: usize = 7 << 20;
/// The most packets in one call (Linux: UDP_MAX_SEGMENTS).
const MOST_SEGMENTS: usize = 64;
/// The most bytes in one call, below what a UDP datagram may have.
const MOST_BYTES: usize = 65_000;

/// The pause after an error that may stay.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Makes the outer socket.
#[derive(Debug)]
pub(crate) struct Factory {
    sockets: UdpSocketFactory,
    passages: watch::Receiver<Vec<Passage>>,
}

impl Factory {
    /// Takes what may come out of the tunnel, which is where nothing is sent to.
    pub(crate) fn new(passages: watch::Receiver<Vec<Passage>>) -> Self {
        Self {
            sockets: UdpSocketFactory::default(),
            passages,
        }
    }
}

impl UdpTransportFactory for Factory {
    type Send = Sender;
    type Recv = Receiver<UdpSocket>;

    async fn bind(
        &mut self,
        params: &UdpTransportFactoryParams,
    ) -> io::Result<(Sender, Self::Recv)> {
        let (socket, receiver) = self.sockets.bind(params).await?;
        // Needs CAP_NET_ADMIN, as the tunnel does anyway; without it the default is kept.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER);
        let passages = self.passages.clone();
        Ok((Sender { socket, passages }, Receiver(receiver)))
    }
}

/// The sending half of the outer socket.
#[derive(Clone)]
pub(crate) struct Sender {
    socket: UdpSocket,
    passages: watch::Receiver<Vec<Passage>>,
}

impl UdpSend for Sender {
    type SendManyBuf = ();

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        if !self.is_loop(destination) {
            self.socket.socket().send_to(&packet, destination).await?;
        }
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
            let (run, others) = rest.split_at(run_length(rest));
            rest = others;
            if self.is_loop(*destination) {
                continue;
            }
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
    /// Whether a packet would come back into the tunnel and be sealed again, without end. A peer is
    /// wherever its last packet came from, and that may have come through the tunnel.
    fn is_loop(&self, destination: SocketAddr) -> bool {
        let IpAddr::V4(address) = destination.ip().to_canonical() else {
            return false;
        };
        let passages = self.passages.borrow();
        passages.iter().any(|it| it.from.contains(&address))
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
                // Of this path, and at this moment: another one, or the same one later, may do it.
                tracing::trace!(%error, %destination, "Sending packets one by one");
                self.send_single(run, destination).await
            }
            sent => sent,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, %destination, "Could not send packets");
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

/// The receiving half. The engine gives up at the first error, and would receive nothing any more.
pub(crate) struct Receiver<R>(R);

impl<R: UdpRecv> UdpRecv for Receiver<R> {
    type RecvManyBuf = R::RecvManyBuf;

    async fn recv_from(&mut self, pool: &mut PacketBufPool) -> io::Result<(Packet, SocketAddr)> {
        self.0.recv_from(pool).await
    }

    async fn recv_many_from(
        &mut self,
        buffer: &mut Self::RecvManyBuf,
        pool: &mut PacketBufPool,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        while let Err(error) = self.0.recv_many_from(buffer, pool, packets).await {
            tracing::debug!(%error, "Could not receive packets");
            sleep(ERROR_PAUSE).await;
        }
        Ok(())
    }

    fn enable_udp_gro(&self) -> io::Result<()> {
        self.0.enable_udp_gro()
    }
}

/// Counts the packets at the front that may go in one call: one destination, one size, and a shorter
/// one only at the end.
fn run_length(packets: &[(Packet, SocketAddr)]) -> usize {
    let Some((first, destination)) = packets.first() else {
        return 0;
    };
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

/// What kernels and network cards say when they cannot cut a run into packets, and the kernel when
/// they are larger than the path takes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_destination_and_one_size_but_for_its_end() {
        let length = |packets: &[(usize, u16)]| {
            let packets = packets.iter().map(|(size, port)| {
                let packet = Packet::copy_from(vec![0_u8; *size].as_slice());
                (packet, SocketAddr::from(([192, 0, 2, 1], *port)))
            });
            run_length(&packets.collect::<Vec<_>>())
        };
        assert_eq!(length(&[]), 0);
        assert_eq!(length(&[(900, 1)]), 1);
        assert_eq!(length(&[(900, 1), (900, 1), (900, 2)]), 2);
        assert_eq!(length(&[(900, 1), (901, 1)]), 1, "a longer one");
        assert_eq!(length(&[(900, 1), (899, 1), (899, 1)]), 2, "a shorter one");
        assert_eq!(length(&[(900, 1); 100]), MOST_SEGMENTS);
        assert_eq!(length(&[(1400, 1); 100]), MOST_BYTES / 1400);
    }

    #[tokio::test]
    async fn nothing_is_sent_into_the_tunnel() {
        let passage = |from: &str| Passage {
            from: from.parse().unwrap(),
            to: "10.72.0.0/16".parse().unwrap(),
        };
        let passages = watch::Sender::new(vec![passage("127.71.0.0/16"), passage("10.80.0.0/16")]);
        let params = UdpTransportFactoryParams {
            addr: Some("127.0.0.1".parse().unwrap()),
            port: 0,
            fwmark: None,
        };
        let mut factory = Factory::new(passages.subscribe());
        let (sender, _receiver) = factory.bind(&params).await.unwrap();
        let [inside, outside] = ["127.71.0.9:0", "127.0.0.1:0"].map(|address| {
            let socket = std::net::UdpSocket::bind(address).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        let packet = || Packet::copy_from([7; 32].as_slice());
        let places = [&inside, &outside].map(|socket| socket.local_addr().unwrap());
        for place in places {
            sender.send_to(packet(), place).await.unwrap();
        }
        let mut packets = Vec::from(places.map(|place| (packet(), place)));
        sender.send_many_to(&mut (), &mut packets).await.unwrap();
        let count = |socket: &std::net::UdpSocket| {
            std::iter::from_fn(|| socket.recv(&mut [0; 32]).ok()).count()
        };
        assert_eq!([count(&inside), count(&outside)], [0, 2]);
    }

    /// Fails a few times, as where the system has no memory to spare, then receives.
    struct Failing(u32);

    impl UdpRecv for Failing {
        type RecvManyBuf = ();

        async fn recv_from(&mut self, _: &mut PacketBufPool) -> io::Result<(Packet, SocketAddr)> {
            if let Some(left) = self.0.checked_sub(1) {
                self.0 = left;
                return Err(Errno::ENOBUFS.into());
            }
            Ok((Packet::default(), ([192, 0, 2, 1], 5871).into()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_socket_is_not_the_end_of_receiving() {
        let (mut receiver, mut packets) = (Receiver(Failing(3)), Vec::new());
        let mut pool = PacketBufPool::new(1);
        receiver
            .recv_many_from(&mut (), &mut pool, &mut packets)
            .await
            .unwrap();
        assert_eq!(packets.len(), 1);
    }

    #[test]
    fn only_a_refusal_of_runs_is_one() {
        let refused = |errno: Errno| is_offload_refused(&errno.into());
        for errno in [Errno::EIO, Errno::EINVAL, Errno::EMSGSIZE] {
            assert!(refused(errno), "{errno}");
        }
        for errno in [Errno::ENETUNREACH, Errno::EPERM, Errno::ENOBUFS] {
            assert!(!refused(errno), "{errno}");
        }
    }
}
