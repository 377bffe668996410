//! A crowd that connects only to stay: some say nothing, some a byte a second of a handshake, some
//! finish the handshake and then a byte a second of a request.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::rig::nobody_on;

/// How many connections it keeps half open.
const HALF_OPEN: usize = 2_000;

/// Keeps coming from these addresses, without end.
pub(crate) async fn crowd(target: SocketAddr, from: &[Ipv4Addr]) {
    let each = (0..HALF_OPEN).map(|index| async move {
        let own = SocketAddr::from((from[index % from.len()], 0));
        loop {
            let socket = TcpSocket::new_v4().unwrap();
            let connected = match socket.bind(own) {
                Ok(()) => socket.connect(target).await,
                Err(error) => Err(error),
            };
            if let Ok(stream) = connected {
                let _ = match index % 3 {
                    0 => say_nothing(stream).await,
                    1 => dawdle(stream, &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await,
                    _ => dawdle_politely(stream).await,
                };
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    futures::future::join_all(each).await;
}

async fn say_nothing(mut stream: TcpStream) -> std::io::Result<()> {
    stream.read(&mut [0; 1]).await.map(drop)
}

/// Sends a byte a second, until the other end has enough.
async fn dawdle<S>(mut stream: S, bytes: &[u8]) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    for byte in bytes.iter().cycle() {
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn dawdle_politely(stream: TcpStream) -> std::io::Result<()> {
    let stream = nobody_on(stream, "http/1.1").await?;
    dawdle(stream, b"GET /ids HTTP/1.1\r\n").await
}
