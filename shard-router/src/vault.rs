//! A vault's replica on a node, put together.

use std::sync::Arc;

use marchland_raft::{Group, RaftNode};
use marchland_storage::keyed::KeyedStore;
use marchland_types::seam::Clock;
use marchland_types::{GroupId, ReplicaId, WorldId};

use crate::delivery::Deliver;
use crate::directory::OpenDirectoryError;
use crate::machine::KeyedMachine;
use crate::options::{DirectoryOptions, PumpOptions};
use crate::outbox::KeyedOutbox;
use crate::pump::ChannelPump;
use crate::vault_service::VaultService;

/// One replica of a vault: machine, group and service.
pub struct Vault<K, C> {
    machine: Arc<KeyedMachine<K>>,
    service: Arc<VaultService<Group, K, C>>,
}

impl<K: KeyedStore, C: Clock> Vault<K, C> {
    /// Opens the replica of vault `k` (from 1) of `world` on this node. A store that lost its records is filled from `peers`
    /// before the group starts. A vault begins empty and needs no genesis.
    pub async fn open(
        raft: &RaftNode,
        (world, k): (WorldId, u32),
        store: K,
        clock: C,
        peers: &[ReplicaId],
        options: DirectoryOptions,
    ) -> Result<Self, OpenDirectoryError> {
        options.validate()?;
        let id = GroupId::vault(world, k);
        let machine = Arc::new(KeyedMachine::vault(id, store).await?);
        let group = raft.rebuild_group(id, machine.clone(), peers).await?;
        let service = Arc::new(VaultService::new(id, group, machine.records(), clock, options));
        Ok(Self { machine, service })
    }

    /// What other groups deliver to, to be put among a node's [`crate::Vaults`].
    pub fn service(&self) -> Arc<VaultService<Group, K, C>> {
        self.service.clone()
    }

    /// The group.
    pub fn group(&self) -> &Group {
        self.service.group()
    }

    /// Delivers to the directory and to regions while this replica leads, until the group stops. To be run as a task.
    pub fn pump<D: Deliver>(&self, delivery: Arc<D>, options: PumpOptions) -> impl Future<Output = ()> + Send + use<K, C, D> {
        let outbox = Arc::new(KeyedOutbox::new(self.service.clone(), self.machine.posted()));
        let pump = ChannelPump::new(self.service.id(), outbox, delivery, options);
        let roles = self.machine.roles();
        async move { pump.run(roles).await }
    }
}
