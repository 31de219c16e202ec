//! A directory's replica on a node, put together.

use std::sync::Arc;

use marchland_raft::{Group, MachineFault, OpenError, RaftNode};
use marchland_storage::keyed::KeyedStore;
use marchland_types::seam::Clock;
use marchland_types::{GroupId, ReplicaId, WorldId};

use crate::delivery::Deliver;
use crate::issuer::Issuer;
use crate::machine::KeyedMachine;
use crate::options::{BadOptions, DirectoryOptions, PumpOptions};
use crate::outbox::KeyedOutbox;
use crate::pump::ChannelPump;
use crate::registry::Registry;
use crate::service::DirectoryService;
use crate::view::DirectoryView;

/// Why a replica of a directory, a vault or the realm could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirectoryError {
    /// Its records are damaged or of a newer version.
    #[error(transparent)]
    Machine(#[from] MachineFault),
    /// Raft could not open the group.
    #[error(transparent)]
    Group(#[from] OpenError),
    /// The options contradict each other.
    #[error(transparent)]
    Options(#[from] BadOptions),
}

/// One replica of a world's directory: machine, group and service.
pub struct Directory<K, C> {
    machine: Arc<KeyedMachine<K>>,
    service: Arc<DirectoryService<Group, K, C>>,
}

impl<K: KeyedStore, C: Clock> Directory<K, C> {
    /// Opens the replica of `world` on this node. A store that lost its records is filled from `peers` before the group
    /// starts. The registry learns of every node that it has, now and later. New folders get what `issuer` issues; without one, the
    /// directory issues by itself.
    pub async fn open(
        raft: &RaftNode,
        world: WorldId,
        store: K,
        (clock, registry): (C, Registry),
        issuer: Option<Arc<dyn Issuer>>,
        peers: &[ReplicaId],
        options: DirectoryOptions,
    ) -> Result<Self, OpenDirectoryError> {
        options.validate()?;
        let id = GroupId::directory(world);
        let machine = Arc::new(KeyedMachine::directory(id, store, registry).await?);
        let group = raft.rebuild_group(id, machine.clone(), peers).await?;
        let view = DirectoryView::new(machine.store().clone());
        let service = Arc::new(DirectoryService::new(world, group, view, clock, options).issued_by(issuer));
        Ok(Self { machine, service })
    }

    /// What edges and nodes call, to be put among a node's [`crate::Directories`].
    pub fn service(&self) -> Arc<DirectoryService<Group, K, C>> {
        self.service.clone()
    }

    /// The group.
    pub fn group(&self) -> &Group {
        self.service.group()
    }

    /// The records, as new as this replica.
    pub fn view(&self) -> &DirectoryView<K> {
        self.service.view()
    }

    /// Delivers to regions and vaults while this replica leads, until the group stops. To be run as a task.
    pub fn pump<D: Deliver>(&self, delivery: Arc<D>, options: PumpOptions) -> impl Future<Output = ()> + Send + use<K, C, D> {
        let outbox = Arc::new(KeyedOutbox::new(self.service.clone(), self.machine.posted()));
        let pump = ChannelPump::new(self.service.group().id(), outbox, delivery, options);
        let roles = self.machine.roles();
        async move { pump.run(roles).await }
    }
}
