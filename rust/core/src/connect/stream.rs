//! Sockets to servers, over TCP or on this machine.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Config;

/// How often a full listen queue of a Unix socket is tried again.
const UNIX_BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Where a socket is opened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Over a network.
    Tcp(SocketAddr),
    /// A socket's path. A leading NUL means the abstract namespace.
    Unix(PathBuf),
}

pub(super) fn socket_path(directory: &str, port: u16) -> PathBuf {
    match directory.strip_prefix('@') {
        Some(name) => PathBuf::from(format!("\0{name}/.s.PGSQL.{port}")),
        None => Path::new(directory).join(format!(".s.PGSQL.{port}")),
    }
}

pub(super) async fn open(target: &Target) -> io::Result<Stream> {
    match target {
        Target::Tcp(address) => TcpStream::connect(address).await.map(Stream::Tcp),
        Target::Unix(socket) => loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return Ok(Stream::Unix(stream)),
                // The listen queue is full: there is no readiness to wait for, so look again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(UNIX_BUSY_PAUSE).await
                }
                Err(error) => return Err(error),
            }
        },
    }
}

pub(super) fn tune(tcp: &TcpStream, config: &Config) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    if let Some(limit) = config.tcp_user_timeout {
        socket.set_tcp_user_timeout(Some(limit))?;
    }
    socket.set_keepalive(config.keepalives.enabled)?;
    if config.keepalives.enabled {
        let mut keepalive = TcpKeepalive::new();
        if let Some(idle) = config.keepalives.idle {
            keepalive = keepalive.with_time(idle);
        }
        if let Some(interval) = config.keepalives.interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(count) = config.keepalives.count {
            keepalive = keepalive.with_retries(count);
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

/// A socket to a server.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// The directory of a socket, as settings name it.
pub(super) fn directory_of(socket: &Path) -> String {
    let text = socket.to_string_lossy();
    let text = text
        .strip_prefix('\0')
        .map_or_else(|| text.to_string(), |name| format!("@{name}"));
    text.rsplit_once('/')
        .map_or(text.clone(), |(directory, _)| directory.to_owned())
}
