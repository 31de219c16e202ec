//! Cuts: moments of a whole world, taken before whatever was sent after them.

use marchland_proto::codes::Code;
use marchland_proto::storage::{Cut, DirectoryCut};
use marchland_types::{CutNumber, GroupId};

use super::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Cuts that are remembered: long enough for `verify` to ask every replica about one, short enough to cost nothing.
const CUTS_KEPT: u64 = 16;

/// Takes the cut that was ordered; 0 is the next one. Returns the highest one taken.
pub(crate) fn ordered(txn: &mut Txn<'_>, order: Cut) -> Result<u64, Halt> {
    txn.counters.now_ms = txn.counters.now_ms.max(order.now_ms);
    if order.number == 0 && txn.counters.cut == u64::MAX {
        return refuse(Code::Full, "cut numbers are used up");
    }
    let number = if order.number == 0 { txn.counters.cut + 1 } else { order.number };
    take(txn, CutNumber(number))?;
    Ok(txn.counters.cut)
}

/// Takes a cut unless it, or a later one, has been taken.
pub(crate) fn take(txn: &mut Txn<'_>, number: CutNumber) -> Result<(), Halt> {
    let last = txn.counters.cut;
    if number.0 <= last {
        return Ok(());
    }
    let groups = txn.channels()?.groups;
    txn.want(groups.iter().map(|&group| Key::Channel(GroupId(group))))?;
    let channels = groups.iter().map(|&group| txn.channel(GroupId(group))).collect::<Result<_, _>>()?;
    let record = DirectoryCut {
        number: number.0,
        index: txn.index.0,
        now_ms: txn.counters.now_ms,
        state_hash: txn.state_hash()?,
        channels,
        undo_end: txn.counters.undo_end,
    };
    txn.put(&Key::Cut(number), &record);
    txn.counters.cut = number.0;
    txn.counters.cut_undo = txn.counters.undo_end;
    // Numbers may skip, so what is forgotten is looked for among the keys that a kept window could have left behind.
    for old in last.saturating_sub(CUTS_KEPT)..=last {
        if old != 0 && number.0 - old >= CUTS_KEPT {
            txn.want([Key::Cut(CutNumber(old))])?;
            if txn.get(&Key::Cut(CutNumber(old)))?.is_some() {
                txn.remove(&Key::Cut(CutNumber(old)));
            }
        }
    }
    Ok(())
}
