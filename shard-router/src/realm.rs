//! The realm's replica on a node, put together.

use std::sync::Arc;

use marchland_raft::{Group, RaftNode};
use marchland_storage::keyed::KeyedStore;
use marchland_types::seam::Clock;
use marchland_types::{GroupId, ReplicaId};

use crate::directory::OpenDirectoryError;
use crate::machine::KeyedMachine;
use crate::options::DirectoryOptions;
use crate::realm_service::RealmService;
use crate::registry::Registry;
use crate::view::RealmView;

/// One replica of the realm: machine, group and service.
pub struct Realm<K, C> {
    service: Arc<RealmService<Group, K, C>>,
}

impl<K: KeyedStore, C: Clock> Realm<K, C> {
    /// Opens the replica on this node. A store that lost its records is filled from `peers` before the group starts. The registry
    /// learns of every node that it has, now and later.
    pub async fn open(
        raft: &RaftNode,
        store: K,
        (clock, registry): (C, Registry),
        peers: &[ReplicaId],
        options: DirectoryOptions,
    ) -> Result<Self, OpenDirectoryError> {
        options.validate()?;
        let id = GroupId::realm();
        let machine = Arc::new(KeyedMachine::realm(id, store, registry).await?);
        let group = raft.rebuild_group(id, machine.clone(), peers).await?;
        let service = Arc::new(RealmService::new(group, RealmView::new(machine.store().clone()), clock, options));
        Ok(Self { service })
    }

    /// What directories and founding nodes call, to be put into a node's [`crate::RealmSlot`].
    pub fn service(&self) -> Arc<RealmService<Group, K, C>> {
        self.service.clone()
    }

    /// The group.
    pub fn group(&self) -> &Group {
        self.service.group()
    }
}
