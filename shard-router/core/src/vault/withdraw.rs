//! A character goes into the world, with the session that the directory admitted.

use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::{Admit, ChannelMessage, DropStub, Moved, VaultStub, Withdraw};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CharacterId, GroupId};

use super::{is_region_of, undo};
use crate::group::Halt;
use crate::group::inbox::Verdict;
use crate::group::post::post;
use crate::keys::Key;
use crate::txn::Txn;

pub(super) fn take(txn: &mut Txn<'_>, own: GroupId, message: &ChannelMessage, withdraw: &Withdraw) -> Result<Verdict, Halt> {
    let to = GroupId(withdraw.to_group);
    let Some(admit) = withdraw.admit.as_ref().filter(|_| is_region_of(own, to)) else {
        return Ok(Verdict::SetAside(message.clone()));
    };
    let id = CharacterId(admit.character);
    let Some(kept) = txn.kept(id)? else {
        let moved = Moved { character: id.0, message: Some(Box::new(message.clone())) };
        post(txn, GroupId::directory(own.world()), CHANNEL_MESSAGES_MAX, Body::Moved(Box::new(moved)))?;
        return Ok(Verdict::Used);
    };
    // The session has been, and has ended: a newer sign-in sends its own.
    if admit.epoch < kept.epoch {
        return Ok(Verdict::Used);
    }
    let Some(move_number) = kept.move_number.checked_add(1) else { return Ok(Verdict::SetAside(message.clone())) };
    undo::character(txn, id)?;
    let carried = Admit { carried: kept.record, items: kept.items, move_number, ..admit.clone() };
    post(txn, to, CHANNEL_MESSAGES_MAX, Body::Admit(carried))?;
    txn.put(&Key::Stub(id), &VaultStub { group: to.0, move_number });
    txn.remove(&Key::Kept(id));
    txn.counters.held -= 1;
    Ok(Verdict::Used)
}

/// The directory knows where the character went.
pub(super) fn drop_stub(txn: &mut Txn<'_>, drop: DropStub) -> Result<Verdict, Halt> {
    let id = CharacterId(drop.character);
    if txn.stub(id)?.is_some_and(|stub| stub.move_number <= drop.move_number) {
        txn.remove(&Key::Stub(id));
    }
    Ok(Verdict::Used)
}
