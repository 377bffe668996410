//! The echo through the tunnel: proof that packets pass both ways, and how long they take.
//!
//! UDP on a fixed port of the tunnel's own address. An answer is exactly what was asked, so that
//! nothing can be amplified.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::Ipv4Net;
use ring::rand::{SecureRandom as _, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    driver::{ECHO_LIMIT, Error},
    tun::Passage,
};

/// The UDP port that echoes.
pub const PORT: u16 = 5870;
/// The longest question that is answered, in bytes.
const LONGEST: usize = 64;
/// How many questions of one peer are answered in a second; a peer asks every two seconds.
const PER_SECOND: u32 = 20;
/// What a question begins with.
const MAGIC: &[u8; 8] = b"lbecho1\0";

/// Answers the echoes of peers until it is dropped.
#[derive(Debug)]
pub(crate) struct Responder {
    task: JoinHandle<()>,
}

impl Responder {
    /// Starts to answer those whose packets have a passage.
    pub(crate) fn start(
        interface: &str,
        address: Ipv4Addr,
        passages: watch::Receiver<Vec<Passage>>,
    ) -> Result<Self, Error> {
        let socket = bind(interface, address, PORT).map_err(|source| {
            Error::kernel(format!("listen for echoes on {address}:{PORT}/udp"), source)
        })?;
        let task = tokio::spawn(respond(socket, passages));
        Ok(Self { task })
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }

    /// Stops, and has let the port go when this returns.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(socket: UdpSocket, passages: watch::Receiver<Vec<Passage>>) {
    let mut budget = Budget::default();
    let mut buffer = [0; LONGEST + 1];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) if is_gone(&error) => return,
            Err(error) => {
                tracing::debug!(%error, "Could not receive an echo");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(question) = buffer.get(..length).filter(|it| is_question(it)) else {
            continue;
        };
        let owner = owner(&passages.borrow(), from);
        if let Some(owner) = owner
            && budget.spend(owner, Instant::now())
        {
            // A lost answer is what the asker measures.
            let _ = socket.try_send_to(question, from);
        }
    }
}

fn is_question(bytes: &[u8]) -> bool {
    bytes.len() <= LONGEST && bytes.starts_with(MAGIC)
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32)
}

fn owner(passages: &[Passage], from: SocketAddr) -> Option<Ipv4Net> {
    let IpAddr::V4(address) = from.ip() else {
        return None;
    };
    // An answer to our own port would be answered in turn.
    if from.port() == PORT {
        return None;
    }
    let mut sources = passages.iter().map(|it| it.from);
    sources.find(|it| it.contains(&address))
}

/// Since when each peer that asked lately is counted, and how many answers it got.
#[derive(Debug, Default)]
struct Budget {
    spent: BTreeMap<Ipv4Net, (Instant, u32)>,
}

impl Budget {
    fn spend(&mut self, owner: Ipv4Net, now: Instant) -> bool {
        self.spent
            .retain(|_, (since, _)| now.duration_since(*since) < Duration::from_secs(1));
        let (_, count) = self.spent.entry(owner).or_insert((now, 0));
        *count += 1;
        *count <= PER_SECOND
    }
}

/// Sends an echo and returns how long it took to come back.
pub(crate) async fn echo(
    interface: &str,
    address: Ipv4Addr,
    target: Ipv4Addr,
) -> Result<Duration, Error> {
    let failed = |source| Error::kernel(format!("send an echo to {target}"), source);
    let socket = bind(interface, address, 0).map_err(failed)?;
    socket.connect((target, PORT)).await.map_err(failed)?;
    let mut question = [0; 24];
    let (magic, nonce) = question.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    SystemRandom::new()
        .fill(nonce)
        .map_err(|_| failed(io::Error::other("no randomness")))?;
    let started = Instant::now();
    let exchange = async {
        socket.send(&question).await?;
        let mut answer = [0; LONGEST];
        loop {
            let length = socket.recv(&mut answer).await?;
            if answer.get(..length) == Some(&question[..]) {
                return Ok(started.elapsed());
            }
        }
    };
    match timeout(ECHO_LIMIT, exchange).await {
        Ok(Ok(elapsed)) => Ok(elapsed),
        Ok(Err::<_, io::Error>(error)) => {
            tracing::debug!(%target, %error, "An echo failed");
            Err(Error::NoEcho(target))
        }
        Err(_) => Err(Error::NoEcho(target)),
    }
}

fn bind(interface: &str, address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from((address, port)).into())?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_questions_of_known_peers_are_answered() {
        assert!(is_question(b"lbecho1\0nonce"));
        assert!(!is_question(b"hello"));
        assert!(!is_question(b""));
        let mut long = MAGIC.to_vec();
        long.resize(LONGEST + 1, 0);
        assert!(!is_question(&long));

        let passages = [passage("10.71.0.0/16")];
        let from = |text: &str| owner(&passages, text.parse().unwrap());
        assert!(from("10.71.0.1:999").is_some());
        assert!(from("10.71.0.1:5870").is_none());
        assert!(from("10.72.0.1:999").is_none());
        assert!(from("[::1]:999").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_asks_too_often_waits_for_the_next_second() {
        let mut budget = Budget::default();
        let (noisy, quiet) = (
            "10.71.0.0/16".parse().unwrap(),
            "10.80.0.0/16".parse().unwrap(),
        );
        let now = Instant::now();
        let answered = (0..100).filter(|_| budget.spend(noisy, now)).count();
        assert_eq!(answered, PER_SECOND as usize);
        assert!(budget.spend(quiet, now));
        assert!(budget.spend(noisy, now + Duration::from_secs(1)));
        assert_eq!(budget.spent.len(), 1, "the quiet one is forgotten");
    }

    #[tokio::test]
    async fn an_echo_comes_back_over_loopback() {
        let passages = watch::Sender::new(vec![passage("127.0.0.0/8")]);
        let address = Ipv4Addr::new(127, 58, 70, 1);
        let Ok(responder) = Responder::start("lo", address, passages.subscribe()) else {
            println!("skipped: echo port or loopback not available");
            return;
        };
        assert!(echo("lo", address, address).await.is_ok());
        passages.send_replace(Vec::new());
        assert!(matches!(
            echo("lo", address, address).await,
            Err(Error::NoEcho(_))
        ));
        assert!(responder.is_alive());
    }

    fn passage(from: &str) -> Passage {
        let from = from.parse().unwrap();
        Passage { from, to: from }
    }
}
