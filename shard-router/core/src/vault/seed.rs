//! Many characters at once, for tests of size.
//!
//! The directory has given out their ids; each vault makes those that are its own. Each seed is remembered by its first
//! character, and takes effect once.

use marchland_proto::codes::Code;
use marchland_proto::storage::{VaultAnswer, VaultCharacter, VaultSeed};
use marchland_types::{CharacterId, GroupId, vault_of};

use super::undo;
use crate::directory::{VAULTS_MAX, check_count};
use crate::group::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;
use marchland_types::limits::CARRIED_MAX_BYTES;

pub(super) fn handle(txn: &mut Txn<'_>, own: GroupId, seed: &VaultSeed) -> Result<VaultAnswer, Halt> {
    let ids = check_count(seed.first, seed.count)?;
    if seed.vaults == 0 || seed.vaults > VAULTS_MAX || own.serial() > seed.vaults {
        return refuse(Code::Malformed, format!("{own} of {} vaults", seed.vaults));
    }
    if seed.record.len() > CARRIED_MAX_BYTES {
        return refuse(Code::TooLarge, format!("record of {} bytes, at most {CARRIED_MAX_BYTES}", seed.record.len()));
    }
    let done = Key::Seeded(CharacterId(seed.first));
    if let Some(count) = txn.get(&done)? {
        if count[..] == seed.count.to_be_bytes() {
            return Ok(VaultAnswer::default());
        }
        return refuse(Code::Refused, format!("another number of characters was seeded from {} on", seed.first));
    }
    let own_ids: Vec<_> = ids.map(CharacterId).filter(|id| vault_of(own.world(), seed.vaults, *id) == own).collect();
    txn.want(own_ids.iter().flat_map(|id| [Key::Kept(*id), Key::Stub(*id)]))?;
    let new = VaultCharacter { epoch: 0, move_number: 1, record: seed.record.clone(), items: Vec::new() };
    let mut seeded = 0;
    for id in own_ids {
        // Whoever is known here has been in the world: nothing stands above that.
        if txn.kept(id)?.is_none() && txn.stub(id)?.is_none() {
            undo::character(txn, id)?;
            txn.put(&Key::Kept(id), &new);
            seeded += 1;
        }
    }
    txn.counters.held += u64::from(seeded);
    txn.put_bytes(&done, bytes::Bytes::copy_from_slice(&seed.count.to_be_bytes()));
    Ok(VaultAnswer { seeded, ..VaultAnswer::default() })
}
