//! Connections to the cluster's nodes, made when they are first needed and shared by everything that calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use marchland_proto::net::{ClusterSecurity, Transport, cluster_channel};
use tonic::transport::Channel;

/// Addresses that are remembered. A cluster has fewer nodes; when addresses changed so often, old ones are dropped.
const ADDRESSES_MAX: usize = 4096;

/// One channel for each address. Cheap to clone; clones share the channels.
#[derive(Clone)]
pub struct Peers<T> {
    transport: T,
    security: ClusterSecurity,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl<T: Transport> Peers<T> {
    /// None connected yet.
    pub fn new(transport: T, security: ClusterSecurity) -> Self {
        Self { transport, security, channels: Arc::default() }
    }

    /// The channel to the node at `address` (`host:port`).
    #[must_use]
    pub fn channel(&self, address: &str) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return channel.clone();
        }
        if channels.len() >= ADDRESSES_MAX {
            channels.clear();
        }
        let channel = cluster_channel(&self.transport, &self.security, address);
        channels.insert(address.to_owned(), channel.clone());
        channel
    }
}
