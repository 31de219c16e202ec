//! Nodes, their data folders and the incarnations of these: what realm and directories have in common.
//!
//! The same folder gets the same incarnation for ever, and no two folders of a node get the same one. A folder that was replaced
//! is told so: another folder speaks for its node now, and its addresses are not recorded.

use marchland_proto::codes::Code;
use marchland_proto::storage::{DirectoryFolder, DirectoryNode, GroupPlan, NodeRegistered, NodeRegistration};
use marchland_types::{NodeId, ReplicaId};

use super::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Longest address, in bytes: a domain name and a port.
const ADDRESS_MAX_BYTES: usize = 262;
/// What founding folders took, before anybody could issue it to them.
pub(crate) const FOUNDING: u32 = 1;

/// What becomes of a folder that is not known.
pub(crate) enum Fresh {
    /// It is bound to this incarnation, which is above all that are known.
    Bound(u32),
    /// It has this one, and another folder has taken its node over.
    Superseded(u32),
}

/// A registration that is well formed, and what is known of its node.
pub(crate) struct Registration {
    pub(crate) node: NodeId,
    folder: [u8; 16],
    pub(crate) order: NodeRegistration,
    known: Option<DirectoryNode>,
    /// The newest incarnation of the node, 0 for none.
    pub(crate) newest: u32,
}

/// What a registration is answered.
pub(crate) struct Registered {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) incarnation: u32,
}

impl Registered {
    pub(crate) fn to_record(&self) -> NodeRegistered {
        NodeRegistered { code: self.code as u32, incarnation: self.incarnation }
    }
}

impl Registration {
    /// Checks an order. `told` is what somebody else knows to be issued to the node.
    pub(crate) fn read(txn: &Txn<'_>, order: NodeRegistration, told: u32) -> Result<Self, Halt> {
        let node = NodeId(order.node);
        let Ok(folder) = <[u8; 16]>::try_from(&order.folder_id[..]) else {
            return refuse(Code::Malformed, format!("folder id of {} bytes, 16 expected", order.folder_id.len()));
        };
        if node.0 == 0 {
            return refuse(Code::Malformed, "node 0 can not register");
        }
        if [&order.grpc, &order.ws, &order.http].iter().any(|address| address.len() > ADDRESS_MAX_BYTES) {
            return refuse(Code::TooLarge, format!("address of more than {ADDRESS_MAX_BYTES} bytes"));
        }
        txn.want([Key::Node(node), Key::Folder(node, folder)])?;
        let known = txn.node(node)?;
        let newest = known.as_ref().map_or(0, |known| known.incarnation).max(told);
        Ok(Self { node, folder, order, known, newest })
    }

    /// The incarnation that follows on all that were given to the node.
    pub(crate) fn next_after(&self, taken: u32) -> Result<Fresh, Halt> {
        match taken.checked_add(1) {
            Some(next) => Ok(Fresh::Bound(next)),
            None => refuse(Code::Full, format!("node {} has used up its incarnations", self.node)),
        }
    }

    /// Answers with the incarnation of the folder, and records the node. `fresh` decides about a folder that is not known.
    pub(crate) fn settle(
        self,
        txn: &mut Txn<'_>,
        fresh: impl FnOnce(&Txn<'_>, &Self) -> Result<Fresh, Halt>,
    ) -> Result<Registered, Halt> {
        let Self { node, folder, newest, .. } = self;
        let superseded = |own: u32| Registered {
            code: Code::Superseded,
            reason: format!("folder has incarnation {own} of node {node}, which is at {newest}"),
            incarnation: own,
        };
        let incarnation = match txn.folder(node, folder)? {
            Some(bound) if bound.incarnation < newest => return Ok(superseded(bound.incarnation)),
            Some(bound) => bound.incarnation,
            None => match fresh(txn, &self)? {
                Fresh::Superseded(own) => return Ok(superseded(own)),
                Fresh::Bound(incarnation) => {
                    txn.put(&Key::Folder(node, folder), &DirectoryFolder { incarnation });
                    incarnation
                }
            },
        };
        let Self { order, known, .. } = self;
        let record = DirectoryNode {
            node: node.0,
            incarnation,
            folder_id: order.folder_id,
            grpc: order.grpc,
            ws: order.ws,
            http: order.http,
        };
        if known.as_ref() != Some(&record) {
            txn.put(&Key::Node(node), &record);
        }
        Ok(Registered { code: Code::Ok, reason: String::new(), incarnation })
    }
}

/// Whether a group began with a replica of this node.
pub(crate) fn is_founding(plan: Option<&GroupPlan>, node: NodeId) -> bool {
    plan.is_some_and(|plan| plan.replicas.iter().any(|id| ReplicaId(*id).node() == node))
}
