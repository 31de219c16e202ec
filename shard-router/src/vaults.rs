//! The vaults of a node.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use marchland_proto::cluster::{DeliverAnswer, DeliverRequest, InspectReply};
use marchland_proto::net::PeerIdentity;
use marchland_storage::keyed::KeyedStore;
use marchland_types::seam::Clock;
use marchland_types::{CutNumber, GroupId};

use crate::group::KeyedGroup;
use crate::vault_service::VaultService;

type Groups<G, K, C> = RwLock<BTreeMap<GroupId, Arc<VaultService<G, K, C>>>>;

/// The vaults of a node, by group. Cheap to clone; clones share.
pub struct Vaults<G, K, C>(Arc<Groups<G, K, C>>);

impl<G, K, C> Clone for Vaults<G, K, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<G, K, C> Default for Vaults<G, K, C> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> Vaults<G, K, C> {
    /// Serves a vault from here on.
    pub fn insert(&self, service: Arc<VaultService<G, K, C>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(service.id(), service);
    }

    /// Serves it no more.
    pub fn remove(&self, vault: GroupId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&vault);
    }

    /// A vault, if it is here.
    pub fn get(&self, vault: GroupId) -> Option<Arc<VaultService<G, K, C>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&vault).cloned()
    }

    /// All that are here, in the order of groups.
    pub fn all(&self) -> Vec<Arc<VaultService<G, K, C>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Takes messages for a vault. They come by the same call as messages for regions: whoever serves that call passes on here
    /// what is addressed to a vault. `None` when this is none of ours.
    pub async fn deliver(&self, peer: &PeerIdentity, request: DeliverRequest) -> Option<DeliverAnswer> {
        let service = self.get(GroupId(request.to_group))?;
        Some(service.deliver(peer, request).await)
    }

    /// What a vault held at a cut, or (0) holds now. `None` when this is none of ours.
    pub async fn inspect(&self, vault: GroupId, cut: CutNumber) -> Option<InspectReply> {
        let service = self.get(vault)?;
        Some(service.inspect(cut).await)
    }
}
