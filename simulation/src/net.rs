//! The simulated network under the real tonic and tungstenite.
//!
//! Addresses are `machine:port`. A machine that has lost power sends nothing: what it still writes vanishes here, and its
//! connections are not closed, for a dead machine says no farewell.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use marchland_proto::net::{CONNECT_TIMEOUT, Listener, Transport, Tune};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::machine::Power;

/// The network as one boot of a machine sees it.
#[derive(Clone, Debug)]
pub struct SimTransport {
    power: Power,
}

impl SimTransport {
    /// The network of a machine with this power.
    #[must_use]
    pub fn new(power: Power) -> Self {
        Self { power }
    }
}

impl Transport for SimTransport {
    type Stream = SimStream;
    type Listener = SimListener;

    async fn connect(&self, address: &str) -> io::Result<SimStream> {
        if !self.power.is_on() {
            pending::<()>().await;
        }
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, turmoil::net::TcpStream::connect(address)).await;
        match connected {
            Ok(stream) => Ok(SimStream { inner: stream?, power: self.power.clone() }),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {address} within 2 s"))),
        }
    }

    async fn listen(&self, address: &str) -> io::Result<SimListener> {
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} is not host:port")))?;
        let inner = turmoil::net::TcpListener::bind(("0.0.0.0", port)).await?;
        Ok(SimListener { inner, power: self.power.clone() })
    }
}

/// A listening socket.
pub struct SimListener {
    inner: turmoil::net::TcpListener,
    power: Power,
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let (inner, from) = self.inner.accept().await?;
        Ok((SimStream { inner, power: self.power.clone() }, from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection.
#[derive(Debug)]
pub struct SimStream {
    inner: turmoil::net::TcpStream,
    power: Power,
}

impl Tune for SimStream {
    fn tune_for_player(&self) -> io::Result<()> {
        Ok(())
    }

    fn tune_for_cluster(&self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for SimStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.power.is_on() {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.power.is_on() {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.power.is_on() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
