//! The simulated network under the real tonic and tungstenite: the seam in front of the wires.
//!
//! Addresses are `machine:port`. A machine that has lost power sends nothing: what it still writes vanishes here, and its
//! connections are not closed, for a dead machine says no farewell.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use marchland_proto::net::{CONNECT_TIMEOUT, Listener, Transport, Tune};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::machine::Power;
use crate::wire::{End, Host, PLAYER_WINDOW_BYTES, Wire};

/// The network as one boot of a machine sees it.
#[derive(Clone, Debug)]
pub struct SimTransport {
    wire: Wire,
    host: Host,
    power: Power,
}

impl SimTransport {
    /// The network of a machine with this power.
    #[must_use]
    pub(crate) fn new(wire: Wire, host: Host, power: Power) -> Self {
        Self { wire, host, power }
    }

    fn stream(&self, end: End) -> SimStream {
        SimStream { wire: self.wire.clone(), end, power: self.power.clone() }
    }
}

impl Transport for SimTransport {
    type Stream = SimStream;
    type Listener = SimListener;

    async fn connect(&self, address: &str) -> io::Result<SimStream> {
        if !self.power.is_on() {
            pending::<()>().await;
        }
        // Whoever gives up closes what has begun.
        let stream = self.stream(self.wire.connect(self.host, address)?);
        let connected = poll_fn(|cx| self.wire.poll_connected(stream.end, cx));
        match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
            Ok(connected) => connected.map(|()| stream),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {address} within 2 s"))),
        }
    }

    async fn listen(&self, address: &str) -> io::Result<SimListener> {
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} is not host:port")))?;
        let address = self.wire.listen(self.host, port)?;
        Ok(SimListener { transport: self.clone(), address })
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct SimListener {
    transport: SimTransport,
    address: SocketAddr,
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let (wire, host) = (&self.transport.wire, self.transport.host);
        let (end, from) = poll_fn(|cx| wire.poll_accept(host, self.address.port(), cx)).await?;
        Ok((self.transport.stream(end), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        if self.transport.power.is_on() {
            self.transport.wire.stop_listening(self.transport.host, self.address.port());
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct SimStream {
    wire: Wire,
    end: End,
    power: Power,
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if self.power.is_on() {
            self.wire.close(self.end);
        }
    }
}

impl Tune for SimStream {
    fn tune_for_player(&self) -> io::Result<()> {
        self.wire.set_window(self.end, PLAYER_WINDOW_BYTES);
        Ok(())
    }

    fn tune_for_cluster(&self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.power.is_on() {
            return Poll::Pending;
        }
        self.wire.poll_read(self.end, cx, buf)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.power.is_on() {
            return Poll::Ready(Ok(buf.len()));
        }
        self.wire.poll_write(self.end, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.power.is_on() {
            self.wire.shutdown(self.end);
        }
        Poll::Ready(Ok(()))
    }
}
