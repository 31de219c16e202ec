//! gRPC channels and servers over a [`Transport`] with [`ClusterSecurity`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use marchland_types::limits::CLUSTER_MESSAGE_MAX_BYTES;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status};

use super::{CONNECT_TIMEOUT, ClusterSecurity, ClusterStream, Listener, PeerIdentity, Transport, Tune};

/// Deadline of a call that has none of its own.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Handshakes under way at once. More wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 64;
/// Secured connections that wait to be taken by the server.
const ACCEPTED_MAX: usize = 64;
/// How often an idle connection is probed, and how long a probe may take: a dead peer is noticed within two seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A lazily connected channel to the node at `address` (`host:port`). One TCP connection, made again when it broke.
pub fn cluster_channel<T: Transport>(transport: &T, security: &ClusterSecurity, address: &str) -> Channel {
    let (transport, security, address) = (transport.clone(), security.clone(), Arc::<str>::from(address));
    Endpoint::from_static("http://marchland.cluster")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let (transport, security, address) = (transport.clone(), security.clone(), address.clone());
            async move {
                let stream = transport.connect(&address).await?;
                stream.tune_for_cluster()?;
                let stream = security.connect(stream).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        }))
}

/// Generated clients with the message limits of the cluster.
pub trait ClusterClient: Sized {
    /// A client over `channel` that takes and sends messages up to the cluster's limit.
    fn over(channel: Channel) -> Self;
}

macro_rules! cluster_clients {
    ($($client:path),*) => {$(
        impl ClusterClient for $client {
            fn over(channel: Channel) -> Self {
                Self::new(channel)
                    .max_decoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
                    .max_encoding_message_size(CLUSTER_MESSAGE_MAX_BYTES)
            }
        }
    )*};
}

cluster_clients!(
    crate::cluster::raft_transport_client::RaftTransportClient<Channel>,
    crate::cluster::regions_client::RegionsClient<Channel>,
    crate::cluster::directory_client::DirectoryClient<Channel>,
    crate::cluster::realm_client::RealmClient<Channel>,
    crate::cluster::admin_client::AdminClient<Channel>
);

/// Who sent a request, as its connection proved.
#[allow(clippy::result_large_err)]
pub fn peer_of<M>(request: &Request<M>) -> Result<&PeerIdentity, Status> {
    request.extensions().get::<PeerIdentity>().ok_or_else(|| Status::unauthenticated("connection carries no identity"))
}

/// Serves cluster services until `shutdown` resolves: calls under way end first. Connections that can not prove an identity
/// of this cluster are refused and logged; they never reach a service.
pub async fn serve_cluster<L>(
    listener: L,
    security: ClusterSecurity,
    routes: tonic::service::Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error>
where
    L: Listener,
    L::Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Tune + Unpin + Send + 'static,
{
    let (accepted, incoming) = mpsc::channel::<Result<ClusterStream<L::Stream>, std::io::Error>>(ACCEPTED_MAX);
    let accept = async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(pair) => pair,
                Err(error) => {
                    // Out of descriptors, or a connection that died in the queue. Pause, or this loop would spin.
                    tracing::warn!(%error, "cluster port: accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
            let (security, accepted) = (security.clone(), accepted.clone());
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = stream.tune_for_cluster() {
                    tracing::debug!(%from, %error, "cluster port: socket options");
                }
                match security.accept(stream).await {
                    // The server has gone: nobody is left to tell.
                    Ok(stream) => drop(accepted.send(Ok(stream)).await),
                    Err(error) => tracing::warn!(%from, %error, "cluster port: connection refused"),
                }
            });
        }
    };
    let serve = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE * 2))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), shutdown);
    tokio::select! {
        () = accept => Ok(()),
        served = serve => served,
    }
}
