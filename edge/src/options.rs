//! What an edge is told at its start.

use std::collections::BTreeMap;
use std::time::Duration;

use marchland_edge_core::interest::BadInterest;
use marchland_edge_core::{InterestConfig, SessionConfig};
use marchland_types::{NodeId, WorldId};
use tokio_rustls::TlsAcceptor;

/// How much an edge takes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Connections at a time. Beyond it: `Full`.
    pub connections_max: usize,
    /// Connections at a time from one IP address. Beyond it: `Full`.
    pub connections_per_address_max: usize,
    /// Handshakes under way in one worker. More wait in the kernel's queue.
    pub handshakes_max: usize,
    /// Time for TLS and WebSocket handshake together.
    pub handshake_timeout: Duration,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 10_000,
            handshakes_max: 128,
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

/// Everything that an edge needs to know.
#[derive(Clone)]
pub struct EdgeOptions {
    /// `host:port` for players; port 0 takes a free one.
    pub listen: String,
    /// The world that is served.
    pub world: WorldId,
    /// gRPC addresses (`host:port`) of the world's nodes.
    pub nodes: BTreeMap<NodeId, String>,
    /// Loops, each on a thread of its own: one per core that edges may use.
    pub workers: usize,
    /// How much is taken on.
    pub limits: EdgeLimits,
    /// Deadlines of sessions and the name of the world.
    pub session: SessionConfig,
    /// Who sees whom.
    pub interest: InterestConfig,
    /// TLS for players (`wss`); none is plain `ws`.
    pub tls: Option<TlsAcceptor>,
    /// The node of this process, if it hosts replicas: it alone does not make a world.
    pub own_node: Option<NodeId>,
    /// Other edges, named in turn to clients when this one stops or is cut off.
    pub other_edges: Vec<OtherEdge>,
}

/// Where else clients may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherEdge {
    /// Its node. One that can not be reached is named only if none can.
    pub node: NodeId,
    /// Its WebSocket address.
    pub ws: String,
}

/// Options that contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum BadOptions {
    /// A number is 0 that may not be.
    #[error("{0} is 0, expected 1 or more")]
    Zero(&'static str),
    /// No node to ask.
    #[error("no nodes are named")]
    NoNodes,
    /// Who sees whom.
    #[error("interest: {0}")]
    Interest(#[from] BadInterest),
}

impl EdgeOptions {
    /// The defaults for a world.
    #[must_use]
    pub fn of_world(listen: &str, world: WorldId, world_name: &str, nodes: BTreeMap<NodeId, String>) -> Self {
        Self {
            listen: listen.to_owned(),
            world,
            nodes,
            workers: 1,
            limits: EdgeLimits::default(),
            session: SessionConfig::of_world(world_name),
            interest: InterestConfig::default(),
            tls: None,
            own_node: None,
            other_edges: Vec::new(),
        }
    }

    /// Checks the relations.
    pub fn validate(&self) -> Result<(), BadOptions> {
        let positive = [
            ("workers", self.workers),
            ("limits.connections_max", self.limits.connections_max),
            ("limits.connections_per_address_max", self.limits.connections_per_address_max),
            ("limits.handshakes_max", self.limits.handshakes_max),
        ];
        if let Some((name, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(BadOptions::Zero(name));
        }
        if self.nodes.is_empty() {
            return Err(BadOptions::NoNodes);
        }
        Ok(self.interest.validate()?)
    }
}
