//! The world begins: name, map, plans, key of its sign-in tokens. Once; the same again changes nothing.

use marchland_proto::codes::Code;
use marchland_proto::storage::{DirectoryAnswer, DirectoryGenesis};
use marchland_types::{GroupId, MapEpoch, WorldId};

use crate::group::{Halt, plan, refuse};
use crate::keys::Key;
use crate::map::RegionMap;
use crate::token::TokenVerifier;
use crate::txn::Txn;

/// Longest name of a world, in bytes.
pub(crate) const WORLD_NAME_MAX_BYTES: usize = 64;
/// Vaults of one world: each is a group on every node.
pub const VAULTS_MAX: u32 = 64;

pub(super) fn handle(txn: &mut Txn<'_>, mut genesis: DirectoryGenesis) -> Result<DirectoryAnswer, Halt> {
    let world = WorldId(genesis.world);
    if genesis.world == 0 || genesis.world >= 1 << 24 {
        return refuse(Code::Malformed, format!("world {world} is out of range"));
    }
    if genesis.name.is_empty() || genesis.name.len() > WORLD_NAME_MAX_BYTES {
        return refuse(Code::Malformed, format!("world name of {} bytes", genesis.name.len()));
    }
    if let Err(bad) = RegionMap::parse(world, MapEpoch(genesis.map_epoch), &genesis.map) {
        return refuse(Code::Malformed, bad.to_string());
    }
    if let Err(bad) = TokenVerifier::new(world, &genesis.token_key) {
        return refuse(Code::Malformed, bad.to_string());
    }
    if genesis.vaults > VAULTS_MAX {
        return refuse(Code::TooLarge, format!("{} vaults, at most {VAULTS_MAX}", genesis.vaults));
    }
    let mut vaults = (1..=genesis.vaults).map(|k| GroupId::vault(world, k));
    if let Some(vault) = vaults.find(|vault| !genesis.plans.iter().any(|plan| plan.group == vault.0)) {
        return refuse(Code::Malformed, format!("{vault} has no plan"));
    }
    let plans = std::mem::take(&mut genesis.plans);
    txn.want(plans.iter().map(|plan| Key::Plan(GroupId(plan.group))))?;
    if let Some(existing) = txn.world()? {
        // The map may be another one by now.
        let began = DirectoryGenesis { map_epoch: existing.map_epoch, map: existing.map.clone(), ..genesis.clone() };
        let has_moved = existing.map_epoch > genesis.map_epoch;
        if existing != genesis && !(has_moved && existing == began) {
            return refuse(Code::Refused, format!("world {:?} has begun already, with other parameters", existing.name));
        }
    } else {
        txn.put(&Key::World, &genesis);
    }
    for each in plans {
        plan::record(txn, world, each)?;
    }
    Ok(DirectoryAnswer::default())
}
