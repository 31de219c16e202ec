//! What a service needs of a raft group.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use marchland_raft::{Committed, Group, ProposeError, Role};
use marchland_types::ReplicaId;

/// A keyed group on this node. [`Group`] is the real one.
pub trait KeyedGroup: Send + Sync + 'static {
    /// Proposes an entry, and waits until it is committed and applied here.
    fn propose(&self, entry: Bytes) -> impl Future<Output = Result<Committed, ProposeError>> + Send;

    /// Returns when everything that was committed before the call is applied here. Leaders only.
    fn read_barrier(&self) -> impl Future<Output = Result<(), ProposeError>> + Send;

    /// Whether this replica leads, as far as it knows.
    fn leads(&self) -> bool;

    /// Who leads, as far as this replica knows.
    fn leader(&self) -> Option<ReplicaId>;
}

impl KeyedGroup for Group {
    async fn propose(&self, entry: Bytes) -> Result<Committed, ProposeError> {
        Group::propose(self, entry).await
    }

    async fn read_barrier(&self) -> Result<(), ProposeError> {
        Group::read_barrier(self).await.map(drop)
    }

    fn leads(&self) -> bool {
        matches!(self.status().role, Role::Leader(_))
    }

    fn leader(&self) -> Option<ReplicaId> {
        self.status().leader
    }
}

impl<G: KeyedGroup> KeyedGroup for Arc<G> {
    fn propose(&self, entry: Bytes) -> impl Future<Output = Result<Committed, ProposeError>> + Send {
        G::propose(self, entry)
    }

    fn read_barrier(&self) -> impl Future<Output = Result<(), ProposeError>> + Send {
        G::read_barrier(self)
    }

    fn leads(&self) -> bool {
        G::leads(self)
    }

    fn leader(&self) -> Option<ReplicaId> {
        G::leader(self)
    }
}
