//! What changed after a cut, as it was before.
//!
//! A vault holds far more than memory does, so no copy is made at a cut. From then on each change leaves what it changed in a
//! list of bounded length; read from its end back to where it stood at the cut, it leads from the state of now to that of the
//! cut ([decision](../../../../docs/decisions/2026-11-21-vaults.md)). When it has run over the newest cut, nothing is listed
//! until there is another one.

use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::vault_undo::What;
use marchland_proto::storage::{ChannelMessage, VaultBefore, VaultTrimmed, VaultUndo};
use marchland_types::{CharacterId, GroupId};

use crate::group::Halt;
use crate::keys::Key;
use crate::txn::Txn;

/// Changes that are listed: half a minute's worth at 3,000 log-ins and log-outs a second over four vaults.
pub const UNDO_MAX: u64 = 65_536;

/// To be called before a character that is kept is changed, or a new one kept.
pub(super) fn character(txn: &mut Txn<'_>, id: CharacterId) -> Result<(), Halt> {
    if !is_wanted(txn) {
        return Ok(());
    }
    let kept = txn.kept(id)?;
    let before = VaultBefore { character: id.0, held: kept.is_some(), items: kept.map(|kept| kept.items).unwrap_or_default() };
    push(txn, What::Character(before))
}

/// A message has left the outbox.
pub(super) fn trimmed(txn: &mut Txn<'_>, to: GroupId, message: ChannelMessage) -> Result<(), Halt> {
    match message.body {
        Some(Body::Admit(admit)) if is_wanted(txn) => {
            let (character, items) = (admit.character, admit.items);
            push(txn, What::Trimmed(VaultTrimmed { to_group: to.0, seq: message.seq, character, items }))
        }
        _ => Ok(()),
    }
}

/// Whether there is a cut that the list still leads back to.
fn is_wanted(txn: &Txn<'_>) -> bool {
    txn.counters.cut > 0 && txn.counters.cut_undo >= txn.counters.undo_begin
}

fn push(txn: &mut Txn<'_>, what: What) -> Result<(), Halt> {
    txn.put(&Key::Undo(txn.counters.undo_end), &VaultUndo { what: Some(what) });
    txn.counters.undo_end += 1;
    if txn.counters.undo_end - txn.counters.undo_begin > UNDO_MAX {
        txn.remove(&Key::Undo(txn.counters.undo_begin));
        txn.counters.undo_begin += 1;
    }
    Ok(())
}
