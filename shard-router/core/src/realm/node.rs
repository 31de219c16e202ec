//! A directory asks for the incarnation of a folder, or tells the one that a folder has.
//!
//! What is issued is above everything that was issued here, that the directory has seen, and that the world's founders took. A
//! folder that has an incarnation already, from its founding or from a directory of before there was a realm, is bound to it if
//! that is above all that are known; a later claim of another folder to the same one is told that it was superseded.

use marchland_proto::codes::Code;
use marchland_proto::storage::{RealmAnswer, RealmNode};
use marchland_types::{GroupId, NodeId, WorldId, planted};

use super::{begun, world};
use crate::group::node::{FOUNDING, Fresh, Registration, is_founding};
use crate::group::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

pub(super) fn handle(txn: &mut Txn<'_>, order: RealmNode) -> Result<RealmAnswer, Halt> {
    begun(txn)?;
    let own = WorldId(order.world);
    let Some(registration) = order.node else {
        return refuse(Code::Malformed, "no node");
    };
    let node = NodeId(registration.node);
    txn.want([Key::RealmWorld(own), Key::WorldOf(node), Key::Plan(GroupId::directory(own))])?;
    if txn.realm_world(own)?.is_none() {
        // Its plan says who took the first incarnation.
        return refuse(Code::Unavailable, format!("world {own} is not recorded"));
    }
    let registration = Registration::read(txn, registration, order.at_least.saturating_sub(1))?;
    world::settle(txn, own, node)?;
    let registered = registration.settle(txn, |txn, registration| fresh(txn, own, registration))?;
    Ok(RealmAnswer {
        code: registered.code as u32,
        node: Some(registered.to_record()),
        reason: registered.reason,
        ..RealmAnswer::default()
    })
}

fn fresh(txn: &Txn<'_>, world: WorldId, registration: &Registration) -> Result<Fresh, Halt> {
    let newest = registration.newest;
    match registration.order.incarnation {
        0 => {
            let plan = txn.plan(GroupId::directory(world))?;
            let founding = if is_founding(plan.as_ref(), registration.node) { FOUNDING } else { 0 };
            let taken = newest.max(founding);
            if planted!("realm-issues-twice") && taken > 0 {
                return Ok(Fresh::Bound(taken));
            }
            registration.next_after(taken)
        }
        own if own <= newest => Ok(Fresh::Superseded(own)),
        own => Ok(Fresh::Bound(own)),
    }
}
