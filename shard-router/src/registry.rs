//! Which replicas may speak: the newest incarnation of every node, as this node's replicas of directory and realm know it.
//!
//! Shared between the machines of directory and realm, which write it, and raft, which asks it at every request. It only grows: what was
//! superseded once stays so. It may be behind the directory, and then calls a replica unknown that was just issued, never
//! issued what was superseded here before.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use marchland_proto::storage::DirectoryNode;
use marchland_raft::Standing;
use marchland_router_core::Key;
use marchland_storage::keyed::KeyedStore;
use marchland_types::{Incarnation, NodeId, ReplicaId};
use prost::Message;
use tokio::sync::watch;

use crate::records::{ReadError, Records};

/// The newest incarnations. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub struct Registry(Arc<watch::Sender<BTreeMap<NodeId, Incarnation>>>);

impl Registry {
    /// The newest incarnation of a node, if one is known.
    #[must_use]
    pub fn newest(&self, node: NodeId) -> Option<Incarnation> {
        self.0.borrow().get(&node).copied()
    }

    /// Changes whenever something is learnt.
    pub(crate) fn news(&self) -> watch::Receiver<BTreeMap<NodeId, Incarnation>> {
        self.0.subscribe()
    }

    /// What is known of a replica.
    #[must_use]
    pub fn standing(&self, replica: ReplicaId) -> Standing {
        match self.newest(replica.node()) {
            Some(newest) if newest == replica.incarnation() => Standing::Issued,
            Some(newest) if newest > replica.incarnation() => Standing::Superseded,
            Some(_) | None => Standing::Unknown,
        }
    }

    /// Changes when a node has a new incarnation.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeMap<NodeId, Incarnation>> {
        self.0.subscribe()
    }

    fn enter(&self, node: NodeId, incarnation: Incarnation) {
        self.0.send_if_modified(|all| {
            let known = all.entry(node).or_default();
            let newer = *known < incarnation;
            *known = incarnation.max(*known);
            newer
        });
    }

    /// Whether the record under this key is of a node.
    pub(crate) fn holds(key: &[u8]) -> bool {
        key.first() == Some(&Key::Node(NodeId(0)).ordinal())
    }

    /// Takes in a node's record as it was stored.
    pub(crate) fn learn(&self, record: Bytes) -> Result<(), prost::DecodeError> {
        let node = DirectoryNode::decode(record)?;
        self.enter(NodeId(node.node), Incarnation(node.incarnation));
        Ok(())
    }

    /// Takes in every node's record.
    pub(crate) async fn read<K: KeyedStore>(&self, records: &Records<K>) -> Result<(), ReadError> {
        let enter = |_, node: DirectoryNode| self.enter(NodeId(node.node), Incarnation(node.incarnation));
        records.each(&Key::Node(NodeId(0)), enter).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_issued_older_ones_never_again() {
        let registry = Registry::default();
        let id = |incarnation| ReplicaId::new(NodeId(3), Incarnation(incarnation));
        assert_eq!(registry.standing(id(1)), Standing::Unknown);
        registry.enter(NodeId(3), Incarnation(2));
        let standings = [1, 2, 3].map(|incarnation| registry.standing(id(incarnation)));
        assert_eq!(standings, [Standing::Superseded, Standing::Issued, Standing::Unknown]);
        // A restored store may be older than what was known.
        registry.enter(NodeId(3), Incarnation(1));
        assert_eq!(registry.newest(NodeId(3)), Some(Incarnation(2)));
    }
}
