//! A character comes to rest here.
//!
//! Whatever comes in is kept in some form: as what the vault keeps, or set aside if something newer is known. Two of one
//! character are the fault of whoever sent them, and a person has to look which one is true.

use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::{ChannelMessage, Deposit, LocationUpdate, Moved, VaultCharacter};
use marchland_types::limits::{CARRIED_MAX_BYTES, CHANNEL_MESSAGE_MAX_BYTES, CHANNEL_MESSAGES_MAX, NAME_MAX_BYTES};
use marchland_types::{CharacterId, GroupId};

use super::undo;
use crate::accounts::ACCOUNT_MAX_BYTES;
use crate::group::Halt;
use crate::group::inbox::Verdict;
use crate::group::post::post;
use crate::keys::Key;
use crate::txn::Txn;

const _: () = assert!(
    CARRIED_MAX_BYTES + NAME_MAX_BYTES + ACCOUNT_MAX_BYTES + 32 + 200 <= CHANNEL_MESSAGE_MAX_BYTES,
    "it goes again with name, account, secret hash, numbers and tags"
);
/// Longest encoding of a number.
const ITEM_MAX_BYTES: usize = 10;

pub(super) fn take(txn: &mut Txn<'_>, own: GroupId, message: &ChannelMessage, deposit: &Deposit) -> Result<Verdict, Halt> {
    let id = CharacterId(deposit.character);
    let size = deposit.record.len() + deposit.items.len() * ITEM_MAX_BYTES;
    let gone = txn.stub(id)?.is_some_and(|stub| deposit.move_number <= stub.move_number);
    let kept = txn.kept(id)?;
    let older = kept.as_ref().is_some_and(|kept| deposit.move_number <= kept.move_number);
    if id.0 == 0 || size > CARRIED_MAX_BYTES || gone || older {
        return Ok(Verdict::SetAside(message.clone()));
    }
    let new = VaultCharacter {
        epoch: deposit.epoch,
        move_number: deposit.move_number,
        record: deposit.record.clone(),
        items: deposit.items.clone(),
    };
    keep(txn, own, id, &new)?;
    Ok(match kept {
        None => Verdict::Used,
        // It came twice without having left: the older one is set aside in the newer one's message.
        Some(replaced) => {
            let replaced = Deposit {
                character: id.0,
                epoch: replaced.epoch,
                move_number: replaced.move_number,
                record: replaced.record,
                items: replaced.items,
            };
            Verdict::SetAside(ChannelMessage { body: Some(Body::Deposit(replaced)), ..message.clone() })
        }
    })
}

/// A region gave a character back that was on its way there. Regions keep what comes with its record; should one not, the
/// character is here again, as after a deposit.
pub(super) fn take_back(txn: &mut Txn<'_>, own: GroupId, message: &ChannelMessage, moved: &Moved) -> Result<Verdict, Halt> {
    let returned = moved.message.as_ref().and_then(|returned| returned.body.as_ref());
    let Some(Body::Admit(admit)) = returned else { return Ok(Verdict::SetAside(message.clone())) };
    let id = CharacterId(admit.character);
    let sent = txn.stub(id)?.is_some_and(|stub| stub.group == message.from_group && stub.move_number == admit.move_number);
    let Some(raised) = admit.move_number.checked_add(1).filter(|_| sent && !admit.carried.is_empty()) else {
        return Ok(Verdict::SetAside(message.clone()));
    };
    let again =
        VaultCharacter { epoch: admit.epoch, move_number: raised, record: admit.carried.clone(), items: admit.items.clone() };
    keep(txn, own, id, &again)?;
    Ok(Verdict::Used)
}

fn keep(txn: &mut Txn<'_>, own: GroupId, id: CharacterId, new: &VaultCharacter) -> Result<(), Halt> {
    undo::character(txn, id)?;
    if txn.kept(id)?.is_none() {
        txn.counters.held += 1;
    }
    txn.put(&Key::Kept(id), new);
    if txn.stub(id)?.is_some() {
        txn.remove(&Key::Stub(id));
    }
    let update = LocationUpdate { character: id.0, move_number: new.move_number, group: own.0, present: false };
    post(txn, GroupId::directory(own.world()), CHANNEL_MESSAGES_MAX, Body::Location(update))
}
