//! Messages from other groups, taken at last + 1 only.
//!
//! An older message was taken before and changes nothing; a later one is refused with the number expected. A message
//! with a higher cut number takes its cut first. What the directory can not use is set aside under its number, visibly:
//! it might hold an entity. If what follows from a message has no room in a channel, the message is not taken and comes again.

use marchland_proto::codes::Code;
use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::{Admit, ChannelMessage, DirectoryAnswer, DirectoryCharacter, DropStub, LocationUpdate, Moved};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CharacterId, CutNumber, GroupId, MapEpoch, WorldId};

use super::post::post;
use super::{ApplyFault, Halt, cut, refuse};
use crate::keys::Key;
use crate::map::RegionMap;
use crate::txn::Txn;

/// Messages that are set aside before further ones are not taken: by then a person has to look.
pub const SET_ASIDE_MAX: u32 = 256;

pub(super) fn handle(txn: &mut Txn<'_>, messages: Vec<ChannelMessage>) -> Result<DirectoryAnswer, Halt> {
    let Some(from) = messages.first().map(|m| GroupId(m.from_group)) else {
        return refuse(Code::Malformed, "no messages");
    };
    if messages.iter().any(|m| m.from_group != from.0) {
        return refuse(Code::Malformed, "messages of several channels in one delivery");
    }
    let Some(world) = txn.world()? else {
        return refuse(Code::Unavailable, "the world has not begun");
    };
    let map = RegionMap::parse(WorldId(world.world), MapEpoch(world.map_epoch), &world.map)
        .map_err(|_| Halt::Fault(ApplyFault::Damaged { key: Key::World }))?;
    if map.of_group(from).is_none() && txn.plan(from)?.is_none() {
        return refuse(Code::Forbidden, format!("{from} is not known to world {}", world.world));
    }
    txn.want([Key::Channel(from), Key::Channels])?;
    let mut stopped = None;
    for message in messages {
        let (changes, counters) = (txn.changes.clone(), txn.counters);
        match take(txn, from, &map, message) {
            Ok(()) => {}
            Err(Halt::Refused(code, reason)) => {
                (txn.changes, txn.counters) = (changes, counters);
                stopped = Some((code, reason));
                break;
            }
            Err(halt) => return Err(halt),
        }
    }
    let (code, reason) = stopped.unwrap_or((Code::Ok, String::new()));
    let taken_seq = txn.channel(from)?.taken_seq;
    Ok(DirectoryAnswer { code: code as u32, reason, taken_seq, ..DirectoryAnswer::default() })
}

fn take(txn: &mut Txn<'_>, from: GroupId, map: &RegionMap, message: ChannelMessage) -> Result<(), Halt> {
    let last = txn.channel(from)?.taken_seq;
    if message.seq <= last {
        return Ok(());
    }
    if message.seq != last + 1 {
        return refuse(Code::Gap, format!("{from} sent {}, {} expected", message.seq, last + 1));
    }
    cut::take(txn, CutNumber(message.cut))?;
    let usable = match &message.body {
        Some(Body::Location(update)) => locate(txn, from, map, *update)?,
        Some(Body::Moved(moved)) => moved_on(txn, from, moved)?,
        Some(Body::Fin(_)) => {
            let mut channel = txn.channel(from)?;
            channel.finished = true;
            txn.put_channel(&channel)?;
            true
        }
        // Nothing sends these to a directory. An entity among them must not be lost for that.
        Some(
            Body::Admit(_)
            | Body::Expel(_)
            | Body::MapChange(_)
            | Body::Handoff(_)
            | Body::DropStub(_)
            | Body::Game(_)
            | Body::Deposit(_)
            | Body::Withdraw(_),
        )
        | None => false,
    };
    if !usable {
        if txn.counters.set_aside >= SET_ASIDE_MAX {
            return refuse(Code::Unavailable, format!("{SET_ASIDE_MAX} messages have been set aside"));
        }
        txn.counters.set_aside += 1;
        txn.put(&Key::SetAside(from, message.seq), &message);
    }
    let mut channel = txn.channel(from)?;
    channel.taken_seq = message.seq;
    txn.put_channel(&channel)
}

/// A region has, or had, a character. The highest move number is the newest place; whoever reports an older one, and
/// whoever had it before, may drop what it keeps of the character.
fn locate(txn: &mut Txn<'_>, from: GroupId, map: &RegionMap, update: LocationUpdate) -> Result<bool, Halt> {
    let Some(region) = map.of_group(from) else { return Ok(false) };
    let Some(mut character) = txn.character(CharacterId(update.character))? else { return Ok(false) };
    if update.group != 0 && update.group != from.0 {
        return Ok(false);
    }
    let here = character.group == from.0;
    if update.move_number > character.move_number {
        let left = GroupId(character.group);
        character.move_number = update.move_number;
        character.group = from.0;
        character.region = region.region.0;
        character.present = update.present;
        if !here {
            drop_stub(txn, left, &character)?;
        }
        if let Some(admit) = character.waiting.take() {
            admit_at(txn, &mut character, admit)?;
        }
    } else if here {
        // The channel is in order: of two reports with one number the later is the newer. A lower number says nothing new.
        if update.move_number < character.move_number || update.present == character.present {
            return Ok(true);
        }
        character.present = update.present;
    } else {
        drop_stub(txn, from, &character)?;
        return Ok(true);
    }
    txn.put(&Key::Character(CharacterId(character.character)), &character);
    Ok(true)
}

/// A message came back from a region that the character had left.
fn moved_on(txn: &mut Txn<'_>, from: GroupId, moved: &Moved) -> Result<bool, Halt> {
    let Some(returned) = moved.message.as_ref().and_then(|m| m.body.clone()) else { return Ok(false) };
    let admit = match returned {
        Body::Admit(admit) => admit,
        // Nothing is left there to expel or to drop.
        Body::Expel(_) | Body::DropStub(_) => return Ok(true),
        Body::MapChange(_)
        | Body::Handoff(_)
        | Body::Location(_)
        | Body::Moved(_)
        | Body::Game(_)
        | Body::Fin(_)
        | Body::Deposit(_)
        | Body::Withdraw(_) => {
            return Ok(false);
        }
    };
    let Some(mut character) = txn.character(CharacterId(admit.character))? else { return Ok(false) };
    if admit.epoch != character.epoch {
        // A newer sign-in has sent its own.
        return Ok(true);
    }
    if character.group == from.0 {
        // Where it went has not been heard yet.
        character.waiting = Some(admit);
    } else {
        admit_at(txn, &mut character, admit)?;
    }
    txn.put(&Key::Character(CharacterId(character.character)), &character);
    Ok(true)
}

fn admit_at(txn: &mut Txn<'_>, character: &mut DirectoryCharacter, mut admit: Admit) -> Result<(), Halt> {
    admit.move_number = character.move_number;
    character.admitted_group = character.group;
    post(txn, GroupId(character.group), CHANNEL_MESSAGES_MAX, Body::Admit(admit))
}

fn drop_stub(txn: &mut Txn<'_>, at: GroupId, character: &DirectoryCharacter) -> Result<(), Halt> {
    let stub = DropStub { character: character.character, move_number: character.move_number };
    post(txn, at, CHANNEL_MESSAGES_MAX, Body::DropStub(stub))
}
