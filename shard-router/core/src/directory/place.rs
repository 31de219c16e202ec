//! Where characters are, and bringing them into the world from there.
//!
//! A character is in a region, in a vault, or in a channel between two of them. The directory knows the place with the
//! highest move number that it was told of. What is sent there may miss the character, and comes back as `Moved`:
//!
//! ```text
//! directory                    vault            region
//!   epoch 2 ── Withdraw 2 ──▶ has it ─ Admit 2 ──▶ takes it ─┐
//!   epoch 3 ── Withdraw 3 ──▶ has it no more                 │
//!      ◀────── Moved(Withdraw 3) ──┘                         │
//!   keeps 3 until it hears where the character is            │
//!      ◀────────────────────────────────── LocationUpdate ───┘
//!           ── Admit 3 ───────────────────────▶ a newer session
//! ```

use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::{Admit, DirectoryCharacter, DirectoryGenesis, DropStub, LocationUpdate, Moved, Withdraw};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CharacterId, GroupId, GroupKind, MapEpoch, RegionId, WorldId, level, planted};

use crate::group::post::post;
use crate::group::{ApplyFault, Halt};
use crate::keys::Key;
use crate::map::{MapRegion, RegionMap};
use crate::txn::Txn;

/// The map of a world that has begun.
pub(super) fn map_of(world: &DirectoryGenesis) -> Result<RegionMap, Halt> {
    RegionMap::parse(WorldId(world.world), MapEpoch(world.map_epoch), &world.map)
        .map_err(|_| Halt::Fault(ApplyFault::Damaged { key: Key::World }))
}

/// Where a character comes into the world out of its vault: where it left, or where newcomers do.
fn way_in<'m>(map: &'m RegionMap, character: &DirectoryCharacter) -> &'m MapRegion {
    match map.regions().binary_search_by_key(&RegionId(character.last_region), |region| region.region) {
        Ok(at) => &map.regions()[at],
        Err(_) => map.entrance_for(CharacterId(character.character)),
    }
}

/// Which region admits a character, and with which move number at least.
pub(super) struct Admission {
    pub(super) group: GroupId,
    pub(super) region: u32,
    pub(super) move_number: u64,
}

/// Where a character enters the world, or is in it.
pub(super) fn admission(map: &RegionMap, character: &DirectoryCharacter) -> Admission {
    if GroupId(character.group).kind() == Some(GroupKind::Vault) {
        let way_in = way_in(map, character);
        // The vault raises the number.
        return Admission { group: way_in.group, region: way_in.region.0, move_number: character.move_number + 1 };
    }
    Admission { group: GroupId(character.group), region: character.region, move_number: character.move_number }
}

/// Posts the newest session to where the character is: `Admit` to a region, `Withdraw` to a vault.
pub(super) fn admit(
    txn: &mut Txn<'_>,
    map: &RegionMap,
    character: &mut DirectoryCharacter,
    mut admit: Admit,
    limit: usize,
) -> Result<(), Halt> {
    let place = GroupId(character.group);
    let to = admission(map, character).group;
    admit.move_number = character.move_number;
    character.admitted_group = to.0;
    let body = if place == to { Body::Admit(admit) } else { Body::Withdraw(Withdraw { to_group: to.0, admit: Some(admit) }) };
    post(txn, place, limit, body)
}

/// A region or a vault has, or had, a character. The highest move number is the newest place; whoever reports an older one,
/// and whoever had it before, may drop what it keeps of the character.
pub(super) fn located(txn: &mut Txn<'_>, from: GroupId, map: &RegionMap, update: LocationUpdate) -> Result<bool, Halt> {
    let region = match from.kind() {
        Some(GroupKind::Vault) => 0,
        _ => match map.of_group(from) {
            Some(region) => region.region.0,
            None => return Ok(false),
        },
    };
    let Some(mut character) = txn.character(CharacterId(update.character))? else { return Ok(false) };
    if update.group != 0 && update.group != from.0 {
        return Ok(false);
    }
    let here = character.group == from.0;
    let known = character.clone();
    if known.located_index == 0 {
        character.located_index = txn.index.0;
    }
    // Planted: whatever is heard last counts, however old it is.
    if update.move_number > character.move_number || (planted!("stale-location-update") && !here) {
        let left = GroupId(character.group);
        level!("directory.place_goes_back", known.move_number.saturating_sub(update.move_number), 0);
        character.move_number = update.move_number;
        character.group = from.0;
        character.region = region;
        character.present = update.present;
        if region != 0 {
            character.last_region = region;
        }
        if !here {
            drop_stub(txn, left, &character)?;
        }
        if let Some(waiting) = character.waiting.take() {
            admit(txn, map, &mut character, waiting, CHANNEL_MESSAGES_MAX)?;
        }
    } else if here {
        // The channel is in order: of two reports with one number the later is the newer. A lower number says nothing new.
        if update.move_number == character.move_number {
            character.present = update.present;
        }
    } else {
        drop_stub(txn, from, &character)?;
    }
    if character != known {
        txn.put(&Key::Character(CharacterId(character.character)), &character);
    }
    Ok(true)
}

/// A message came back from a place that the character had left.
///
/// If that place is where it is thought to be, it is not heard yet where it went: channels are in order, so a return to the
/// place would be reported behind this.
pub(super) fn moved_on(txn: &mut Txn<'_>, from: GroupId, map: &RegionMap, moved: &Moved) -> Result<bool, Halt> {
    let returned = moved.message.as_ref().and_then(|message| message.body.clone());
    let returned = match returned {
        Some(Body::Admit(admit)) => admit,
        Some(Body::Withdraw(Withdraw { admit: Some(admit), .. })) => admit,
        // Nothing is left there to expel or to drop.
        Some(Body::Expel(_) | Body::DropStub(_)) => return Ok(true),
        Some(
            Body::MapChange(_)
            | Body::Handoff(_)
            | Body::Location(_)
            | Body::Moved(_)
            | Body::Game(_)
            | Body::Fin(_)
            | Body::Deposit(_)
            | Body::Withdraw(_),
        )
        | None => return Ok(false),
    };
    // One with a character inside is a vault's, and no business of this group.
    if !returned.carried.is_empty() {
        return Ok(false);
    }
    let Some(mut character) = txn.character(CharacterId(returned.character))? else { return Ok(false) };
    if returned.epoch != character.epoch {
        // A newer sign-in has sent its own.
        return Ok(true);
    }
    if character.group == from.0 {
        character.waiting = Some(returned);
    } else {
        admit(txn, map, &mut character, returned, CHANNEL_MESSAGES_MAX)?;
    }
    txn.put(&Key::Character(CharacterId(character.character)), &character);
    Ok(true)
}

fn drop_stub(txn: &mut Txn<'_>, at: GroupId, character: &DirectoryCharacter) -> Result<(), Halt> {
    let stub = DropStub { character: character.character, move_number: character.move_number };
    post(txn, at, CHANNEL_MESSAGES_MAX, Body::DropStub(stub))
}
