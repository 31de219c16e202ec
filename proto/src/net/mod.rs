//! Byte streams between processes, who is at the other end, and gRPC over both.
//!
//! [`Transport`] is a seam: tokio's TCP in production, a simulated network in the simulator, under the very same tonic
//! and tungstenite. [`ClusterSecurity`] puts mutual TLS on top and turns the peer's certificate into a [`PeerIdentity`],
//! which every cluster service finds in its request's extensions and checks for role and world. No stream that could not
//! prove an identity of this cluster ever reaches a service.

mod grpc;
mod identity;
mod security;
mod stream;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use grpc::{CALL_TIMEOUT, ClusterClient, cluster_channel, peer_of, serve_cluster};
pub use identity::{BadIdentity, PeerIdentity, Role};
pub use security::{
    Authority, ClusterSecurity, SecurityError, TlsFiles, client_tls_acceptor, make_authority, make_node_certificate,
};
pub use stream::ClusterStream;

/// Longest time for a connection to be made and secured.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How processes reach each other.
pub trait Transport: Clone + Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Tune + Unpin + Send + 'static;
    /// A listening socket.
    type Listener: Listener<Stream = Self::Stream>;

    /// Connects to `host:port`, within [`CONNECT_TIMEOUT`].
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Listens on `host:port`; port 0 takes a free one.
    fn listen(&self, address: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send;
}

/// A listening socket of a [`Transport`].
pub trait Listener: Send + Sync + 'static {
    /// What it accepts.
    type Stream;

    /// The next connection and where it comes from.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Socket options that matter here. A network without them does nothing.
pub trait Tune {
    /// For a player's connection: no delay, at most 4 kB unsent, a small send buffer, and a peer that is silent for ten
    /// seconds is gone. A frame is made only when the socket takes one, so a slow client gets fewer and newer ones.
    fn tune_for_player(&self) -> io::Result<()>;

    /// For a connection within the cluster: no delay.
    fn tune_for_cluster(&self) -> io::Result<()>;
}

/// TCP by tokio.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioTransport;

impl Transport for TokioTransport {
    type Stream = tokio::net::TcpStream;
    type Listener = tokio::net::TcpListener;

    async fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(address))
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {address} within 2 s"))))
    }

    async fn listen(&self, address: &str) -> io::Result<Self::Listener> {
        tokio::net::TcpListener::bind(address)
            .await
            .map_err(|e| io::Error::new(e.kind(), format!("can not listen on {address}: {e}")))
    }
}

impl Listener for tokio::net::TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::Stream, SocketAddr)> {
        tokio::net::TcpListener::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        tokio::net::TcpListener::local_addr(self)
    }
}

impl Tune for tokio::net::TcpStream {
    fn tune_for_player(&self) -> io::Result<()> {
        let socket = socket2::SockRef::from(self);
        socket.set_tcp_nodelay(true)?;
        // The kernel doubles it. What is unsent is bounded by the low-water mark; this bounds what is sent and unacknowledged.
        socket.set_send_buffer_size(16 * 1024)?;
        #[cfg(target_os = "linux")]
        {
            socket.set_tcp_notsent_lowat(4 * 1024)?;
            socket.set_tcp_user_timeout(Some(Duration::from_secs(10)))?;
        }
        Ok(())
    }

    fn tune_for_cluster(&self) -> io::Result<()> {
        self.set_nodelay(true)
    }
}
