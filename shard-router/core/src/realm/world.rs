//! A world is recorded, with the members of its directory, before that is initialised. Once; the same again changes nothing.

use std::collections::BTreeSet;

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::{RealmAnswer, RealmWorld};
use marchland_types::{GroupId, NodeId, ReplicaId, WorldId};

use super::begun;
use crate::directory::WORLD_NAME_MAX_BYTES;
use crate::group::{Halt, plan, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Nodes of one world when it is recorded: far more than host a directory.
pub const WORLD_NODES_MAX: usize = 64;

pub(super) fn handle(txn: &mut Txn<'_>, mut order: RealmWorld) -> Result<RealmAnswer, Halt> {
    begun(txn)?;
    let world = WorldId(order.world);
    if order.world == 0 || order.world >= 1 << 24 {
        return refuse(Code::Malformed, format!("world {world} is out of range"));
    }
    if order.name.is_empty() || order.name.len() > WORLD_NAME_MAX_BYTES {
        return refuse(Code::Malformed, format!("world name of {} bytes", order.name.len()));
    }
    let nodes: BTreeSet<_> = order.nodes.iter().copied().map(NodeId).collect();
    if nodes.is_empty() || nodes.len() != order.nodes.len() || nodes.contains(&NodeId(0)) {
        return refuse(Code::Malformed, format!("world {world} does not name distinct nodes"));
    }
    if nodes.len() > WORLD_NODES_MAX {
        return refuse(Code::TooLarge, format!("world {world} names {} nodes, at most {WORLD_NODES_MAX}", nodes.len()));
    }
    let own = GroupId::directory(world);
    let Some(members) = order.plan.take().filter(|plan| plan.group == own.0) else {
        return refuse(Code::Malformed, format!("no plan of {own}"));
    };
    if let Some(foreign) = members.replicas.iter().map(|id| ReplicaId(*id)).find(|id| !nodes.contains(&id.node())) {
        return refuse(Code::Malformed, format!("replica {foreign} of {own} is on no node of world {world}"));
    }
    order.nodes = nodes.iter().map(|node| node.0).collect();

    txn.want([Key::RealmWorld(world), Key::WorldName(order.name.clone()), Key::Plan(own)])?;
    txn.want(nodes.iter().map(|node| Key::WorldOf(*node)))?;
    match txn.realm_world(world)? {
        Some(existing) if existing != order => {
            return refuse(
                Code::Refused,
                format!("world {world} is recorded already, as {:?} or with other nodes", existing.name),
            );
        }
        Some(_) => {}
        None => {
            if let Some(holder) = txn.world_named(&order.name)? {
                return refuse(Code::Refused, format!("world {holder} is called {:?} already", order.name));
            }
            txn.put(&Key::RealmWorld(world), &order);
            txn.put_bytes(&Key::WorldName(order.name), number(world));
        }
    }
    for node in nodes {
        settle(txn, world, node)?;
    }
    plan::record(txn, world, members)?;
    Ok(RealmAnswer::default())
}

/// The node belongs to this world from here on, and to no other.
pub(super) fn settle(txn: &mut Txn<'_>, world: WorldId, node: NodeId) -> Result<(), Halt> {
    match txn.world_of(node)? {
        Some(other) if other != world => refuse(Code::Refused, format!("node {node} belongs to world {other}")),
        Some(_) => Ok(()),
        None => {
            txn.put_bytes(&Key::WorldOf(node), number(world));
            Ok(())
        }
    }
}

fn number(world: WorldId) -> Bytes {
    Bytes::copy_from_slice(&world.0.to_be_bytes())
}
