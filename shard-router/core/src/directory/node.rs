//! A node asks for the incarnation of its data folder, or tells the one that it has.
//!
//! The realm issues incarnations; a directory records what was issued if that is above everything that it knows of the node. An
//! order that names nothing issued is from a log of before there was a realm: then the node's new folder gets the next one.
//!
//! Founding folders took the first incarnation before there was a directory, and say so when they register. A new folder of a
//! founding node gets the second at least, also when the lost one never came to register: it may have voted.

use marchland_proto::codes::Code;
use marchland_proto::storage::{DirectoryAnswer, NodeRegistration};
use marchland_types::{GroupId, WorldId};

use crate::group::node::{FOUNDING, Fresh, Registration, is_founding};
use crate::group::{Halt, refuse};
use crate::txn::Txn;

pub(super) fn handle(txn: &mut Txn<'_>, order: NodeRegistration) -> Result<DirectoryAnswer, Halt> {
    let registered = Registration::read(txn, order, 0)?.settle(txn, fresh)?;
    Ok(DirectoryAnswer {
        code: registered.code as u32,
        node: Some(registered.to_record()),
        reason: registered.reason,
        ..DirectoryAnswer::default()
    })
}

fn fresh(txn: &Txn<'_>, registration: &Registration) -> Result<Fresh, Halt> {
    let (node, newest) = (registration.node, registration.newest);
    match (registration.order.incarnation, registration.order.issued) {
        (0, issued) => {
            let taken = match txn.world()? {
                Some(world) if is_founding(txn.plan(GroupId::directory(WorldId(world.world)))?.as_ref(), node) => {
                    newest.max(FOUNDING)
                }
                _ => newest,
            };
            match issued {
                0 => registration.next_after(taken),
                // Another folder was issued a later one, and registered first.
                issued if issued <= taken => Ok(Fresh::Superseded(issued)),
                issued => Ok(Fresh::Bound(issued)),
            }
        }
        (own, _) if own <= newest => Ok(Fresh::Superseded(own)),
        (FOUNDING, _) => Ok(Fresh::Bound(FOUNDING)),
        (own, _) => refuse(Code::Refused, format!("incarnation {own} of node {node} was never issued")),
    }
}
