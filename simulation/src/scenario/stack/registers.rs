//! Who knows which data folder by which incarnation: the realm, the directory, and the folder itself.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use marchland_proto::storage::DirectoryFolder;
use marchland_router_core::{Key, check, check_realm};
use marchland_server::node::Node;
use marchland_server::seams::Seams;
use marchland_storage::folder::FolderOwner;
use marchland_storage::keyed::{KeyedNode, KeyedStore};
use marchland_types::{GroupId, Incarnation, NodeId, ReplicaId};
use prost::Message;

use super::DIRECTORY;
use super::node::DATA;
use super::seams::SimSeams;
use crate::fact::{Fact, tell};
use crate::oracle::{self, Violation};

/// Tells what the folder of a node that has just started says of itself; returns its incarnation.
pub(super) fn tell_own(node: &Node<SimSeams>) -> anyhow::Result<Incarnation> {
    let owner = FolderOwner::read(&node.seams().disk(), Path::new(DATA))?;
    let incarnation = owner.incarnation.unwrap_or_default();
    bound(ReplicaId::new(owner.node, incarnation), owner.id.0);
    Ok(incarnation)
}

/// Tells what the realm and the directory know, as far as this node's replicas do.
pub(super) async fn tell_recorded(node: &Node<SimSeams>) -> anyhow::Result<()> {
    let Some(keyed) = node.seams().keyed() else { return Ok(()) };
    let (from, to) = Key::range(Key::Folder(NodeId(0), [0; 16]).ordinal());
    for group in [GroupId::realm(), DIRECTORY] {
        for (key, record) in keyed.namespace(group).range(&from, &to, usize::MAX).await? {
            if let Key::Folder(node, folder) = Key::decode(&key)? {
                let incarnation = Incarnation(DirectoryFolder::decode(record)?.incarnation);
                bound(ReplicaId::new(node, incarnation), folder);
            }
        }
    }
    Ok(())
}

/// Whatever must always hold of the records of realm and directory holds of this node's.
pub(super) async fn check_records(node: &Node<SimSeams>) -> anyhow::Result<()> {
    let Some(keyed) = node.seams().keyed() else { return Ok(()) };
    let all = async |group| keyed.namespace(group).range(b"", b"", usize::MAX).await;
    let (realm, directory) = (check_realm(all(GroupId::realm()).await?), check(all(DIRECTORY).await?));
    for wrong in [realm, directory].into_iter().filter_map(Result::err) {
        oracle::report(Violation::new("records-sound", wrong.to_string()));
    }
    Ok(())
}

thread_local! {
    static TOLD: RefCell<BTreeSet<(ReplicaId, u128)>> = const { RefCell::new(BTreeSet::new()) };
}

/// Tells it once.
fn bound(replica: ReplicaId, folder: [u8; 16]) {
    let folder = u128::from_be_bytes(folder);
    if TOLD.with(|told| told.borrow_mut().insert((replica, folder))) {
        tell(&Fact::Bound { replica, folder });
    }
}
