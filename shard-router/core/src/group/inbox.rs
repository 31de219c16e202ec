//! Messages from other groups, taken at last + 1 only.
//!
//! An older message was taken before and changes nothing; a later one is refused with the number expected. A message
//! with a higher cut number takes its cut first. What a group can not use is set aside under its number, visibly:
//! it might hold an entity. If what follows from a message has no room in a channel, the message is not taken and comes again.

use marchland_proto::codes::Code;
use marchland_proto::storage::ChannelMessage;
use marchland_types::{CutNumber, GroupId};

use super::{Halt, cut, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Messages that are set aside before further ones are not taken: by then a person has to look.
pub const SET_ASIDE_MAX: u32 = 256;

/// What became of a message.
pub(crate) enum Verdict {
    /// It had its effect, or needs none.
    Used,
    /// This is to be kept under its number.
    SetAside(ChannelMessage),
}

/// How far a delivery was taken, and what stopped it.
pub(crate) struct Taken {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) seq: u64,
}

/// The one group that all messages of a delivery are from.
pub(crate) fn sender(messages: &[ChannelMessage]) -> Result<GroupId, Halt> {
    let Some(from) = messages.first().map(|m| GroupId(m.from_group)) else {
        return refuse(Code::Malformed, "no messages");
    };
    if messages.iter().any(|m| m.from_group != from.0) {
        return refuse(Code::Malformed, "messages of several channels in one delivery");
    }
    Ok(from)
}

/// Takes what is in order, up to the first message that `handle` refuses.
pub(crate) fn take(
    txn: &mut Txn<'_>,
    from: GroupId,
    messages: Vec<ChannelMessage>,
    mut handle: impl FnMut(&mut Txn<'_>, &ChannelMessage) -> Result<Verdict, Halt>,
) -> Result<Taken, Halt> {
    txn.want([Key::Channel(from), Key::Channels])?;
    let (mut code, mut reason) = (Code::Ok, String::new());
    for message in messages {
        let savepoint = (txn.changes.clone(), txn.counters);
        match take_one(txn, from, message, &mut handle) {
            Ok(()) => {}
            Err(Halt::Refused(refusal, why)) => {
                (txn.changes, txn.counters) = savepoint;
                (code, reason) = (refusal, why);
                break;
            }
            Err(halt) => return Err(halt),
        }
    }
    Ok(Taken { code, reason, seq: txn.channel(from)?.taken_seq })
}

fn take_one(
    txn: &mut Txn<'_>,
    from: GroupId,
    message: ChannelMessage,
    handle: &mut impl FnMut(&mut Txn<'_>, &ChannelMessage) -> Result<Verdict, Halt>,
) -> Result<(), Halt> {
    let last = txn.channel(from)?.taken_seq;
    if message.seq <= last {
        return Ok(());
    }
    if message.seq != last + 1 {
        return refuse(Code::Gap, format!("{from} sent {}, {} expected", message.seq, last + 1));
    }
    cut::take(txn, CutNumber(message.cut))?;
    if let Verdict::SetAside(kept) = handle(txn, &message)? {
        if txn.counters.set_aside >= SET_ASIDE_MAX {
            return refuse(Code::Unavailable, format!("{SET_ASIDE_MAX} messages have been set aside"));
        }
        txn.counters.set_aside += 1;
        txn.put(&Key::SetAside(from, message.seq), &kept);
    }
    let mut channel = txn.channel(from)?;
    channel.taken_seq = message.seq;
    txn.put_channel(&channel)
}

/// The sender has said that nothing follows.
pub(crate) fn finished(txn: &mut Txn<'_>, from: GroupId) -> Result<(), Halt> {
    let mut channel = txn.channel(from)?;
    channel.finished = true;
    txn.put_channel(&channel)
}
