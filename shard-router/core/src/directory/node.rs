//! A node asks for the incarnation of its data folder.
//!
//! The same folder gets the same incarnation for ever; a node's new folder gets the next one. A folder that was replaced
//! is told so: another folder speaks for its node now, and its addresses are not recorded.
//!
//! Founding folders took the first incarnation before there was a directory, and say so when they register. A new folder of a
//! founding node gets the second at least, also when the lost one never came to register: it may have voted.

use marchland_proto::codes::Code;
use marchland_proto::storage::{DirectoryAnswer, DirectoryFolder, DirectoryNode, NodeRegistered, NodeRegistration};
use marchland_types::{GroupId, NodeId, ReplicaId, WorldId};

use crate::group::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Longest address, in bytes: a domain name and a port.
const ADDRESS_MAX_BYTES: usize = 262;
/// What founding folders took.
const FOUNDING: u32 = 1;

pub(super) fn handle(txn: &mut Txn<'_>, order: NodeRegistration) -> Result<DirectoryAnswer, Halt> {
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
    let newest = known.as_ref().map_or(0, |known| known.incarnation);
    let superseded = |own: u32| {
        Ok(DirectoryAnswer {
            code: Code::Superseded as u32,
            reason: format!("folder has incarnation {own} of node {node}, which is at {newest}"),
            node: Some(NodeRegistered { code: Code::Superseded as u32, incarnation: own }),
            ..DirectoryAnswer::default()
        })
    };
    let incarnation = match (txn.folder(node, folder)?, order.incarnation) {
        (Some(bound), _) if bound.incarnation < newest => return superseded(bound.incarnation),
        (Some(bound), _) => bound.incarnation,
        (None, 0) => {
            let taken = newest.max(if is_founding(txn, node)? { FOUNDING } else { 0 });
            let Some(next) = taken.checked_add(1) else {
                return refuse(Code::Full, format!("node {node} has used up its incarnations"));
            };
            txn.put(&Key::Folder(node, folder), &DirectoryFolder { incarnation: next });
            next
        }
        (None, own) if own <= newest => return superseded(own),
        (None, FOUNDING) => {
            txn.put(&Key::Folder(node, folder), &DirectoryFolder { incarnation: FOUNDING });
            FOUNDING
        }
        (None, own) => return refuse(Code::Refused, format!("incarnation {own} of node {node} was never issued")),
    };
    let record =
        DirectoryNode { node: node.0, incarnation, folder_id: order.folder_id, grpc: order.grpc, ws: order.ws, http: order.http };
    if known.as_ref() != Some(&record) {
        txn.put(&Key::Node(node), &record);
    }
    Ok(DirectoryAnswer { node: Some(NodeRegistered { code: 0, incarnation }), ..DirectoryAnswer::default() })
}

/// Whether the world began with a replica of this node.
fn is_founding(txn: &Txn<'_>, node: NodeId) -> Result<bool, Halt> {
    let Some(world) = txn.world()? else { return Ok(false) };
    let plan = txn.plan(GroupId::directory(WorldId(world.world)))?;
    Ok(plan.is_some_and(|plan| plan.replicas.iter().any(|id| ReplicaId(*id).node() == node)))
}
