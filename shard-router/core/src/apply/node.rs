//! A node asks for the incarnation of its data folder.
//!
//! The same folder gets the same incarnation for ever; a node's new folder gets the next one. A folder that was replaced
//! is told so: another folder speaks for its node now, and its addresses are not recorded.

use marchland_proto::codes::Code;
use marchland_proto::storage::{DirectoryAnswer, DirectoryFolder, DirectoryNode, NodeRegistered, NodeRegistration};
use marchland_types::NodeId;

use super::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Longest address, in bytes: a domain name and a port.
const ADDRESS_MAX_BYTES: usize = 262;

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
    let incarnation = match txn.folder(node, folder)? {
        Some(bound) if bound.incarnation < newest => {
            return Ok(DirectoryAnswer {
                code: Code::Superseded as u32,
                reason: format!("folder has incarnation {} of node {node}, which is at {newest}", bound.incarnation),
                node: Some(NodeRegistered { code: Code::Superseded as u32, incarnation: bound.incarnation }),
                ..DirectoryAnswer::default()
            });
        }
        Some(bound) => bound.incarnation,
        None => {
            let Some(next) = newest.checked_add(1) else {
                return refuse(Code::Full, format!("node {node} has used up its incarnations"));
            };
            txn.put(&Key::Folder(node, folder), &DirectoryFolder { incarnation: next });
            next
        }
    };
    let record =
        DirectoryNode { node: node.0, incarnation, folder_id: order.folder_id, grpc: order.grpc, ws: order.ws, http: order.http };
    if known.as_ref() != Some(&record) {
        txn.put(&Key::Node(node), &record);
    }
    Ok(DirectoryAnswer { node: Some(NodeRegistered { code: 0, incarnation }), ..DirectoryAnswer::default() })
}
