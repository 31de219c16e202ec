//! The shell of an edge: sockets of players, streams to the owners of regions, and the loop that brings one to the other.
//!
//! An [`Edge`] is a handle; its work is done by [`EdgeWorker`]s, each of which runs on one thread inside a
//! [`tokio::task::LocalSet`] (production: a thread with a runtime of its own for each; simulator: all on one). A worker shares
//! nothing with the others but counters and the listening socket.
//!
//! What always holds: a client whose socket takes nothing is skipped, never queued for, so that no client holds more memory
//! than one frame; a tick costs no wake-up per client; nothing is kept here that a region does not have, so an edge may die
//! at any moment.
//!
//! What is decided stands in `marchland-edge-core`; this crate performs it. [`client`] is the other end of the protocol, for
//! bots and tests.

mod admission;
mod beat;
pub mod client;
mod connection;
mod directory;
mod links;
mod options;
mod player_stream;
mod reach;
mod routes;
mod stats;
mod tick;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;

use marchland_proto::net::{ClusterSecurity, Listener, Transport};
use marchland_types::seam::{Clock, Entropy};
use tokio::sync::watch;

pub use marchland_edge_core::{InterestConfig, SessionConfig};
pub use options::{BadOptions, EdgeLimits, EdgeOptions, OtherEdge};
pub use stats::EdgeStats;
pub use worker::EdgeWorker;

use stats::Counters;

/// Subprotocol that a client must offer.
pub const SUBPROTOCOL: &str = "marchland.v1";

/// Why an edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The options contradict each other.
    #[error("edge options: {0}")]
    Options(#[from] BadOptions),
    /// The address can not be listened on.
    #[error("edge: {0}")]
    Listen(#[from] std::io::Error),
}

/// What the workers of one edge share.
pub(crate) struct Shared {
    pub(crate) options: EdgeOptions,
    pub(crate) counters: Counters,
    pub(crate) admission: admission::Admission,
    pub(crate) stop: watch::Sender<bool>,
}

/// A handle to a running edge. Dropping it changes nothing.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
}

impl Edge {
    /// Listens, and makes the workers; clients are served as soon as those run. `options.workers` of them are returned.
    pub async fn bind<T: Transport, C: Clock, E: Entropy>(
        options: EdgeOptions,
        transport: T,
        security: ClusterSecurity,
        clock: C,
        entropy: E,
    ) -> Result<(Edge, Vec<EdgeWorker<T, C, E>>), EdgeError> {
        options.validate()?;
        let listener = Arc::new(transport.listen(&options.listen).await?);
        let local_addr = listener.local_addr()?;
        let workers = options.workers;
        let admission = admission::Admission::new(options.limits.clone(), workers);
        let shared = Arc::new(Shared { options, counters: Counters::default(), admission, stop: watch::Sender::new(false) });
        let workers = (0..workers)
            .map(|number| EdgeWorker {
                shared: shared.clone(),
                number,
                transport: transport.clone(),
                security: security.clone(),
                clock: clock.clone(),
                entropy: entropy.clone(),
                listener: listener.clone(),
            })
            .collect();
        Ok((Edge { shared, local_addr }, workers))
    }

    /// Where players connect.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The counters as they stand.
    #[must_use]
    pub fn stats(&self) -> EdgeStats {
        self.shared.counters.snapshot()
    }

    /// Stops: every client is told `GoingAway` and where else to go, what is written is flushed, and the workers end within
    /// two seconds.
    pub fn shutdown(&self) {
        self.shared.stop.send_replace(true);
    }
}

/// Runs a worker until the edge is shut down. Must be called within a [`tokio::task::LocalSet`].
pub async fn run_worker<T: Transport, C: Clock, E: Entropy>(worker: EdgeWorker<T, C, E>) {
    worker.run().await;
}
