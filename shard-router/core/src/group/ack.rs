//! A receiver has taken messages: the channel to it is trimmed.
//!
//! An acknowledgement carries the receiver's cut, as messages do. Else a message could be in no place at a cut: taken after the
//! receiver's cut, and gone from the outbox before the sender's.

use marchland_proto::codes::Code;
use marchland_proto::storage::{ChannelAck, ChannelMessage};
use marchland_types::{CutNumber, GroupId};

use super::{ApplyFault, Halt, cut, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Trims; `trimmed` is told of each message that goes. Returns up to where the channel is acknowledged.
pub(crate) fn take(
    txn: &mut Txn<'_>,
    ack: ChannelAck,
    mut trimmed: impl FnMut(&mut Txn<'_>, GroupId, ChannelMessage) -> Result<(), Halt>,
) -> Result<u64, Halt> {
    let group = GroupId(ack.from_group);
    let posted = txn.channel(group)?.posted_seq;
    if ack.seq > posted {
        return refuse(Code::Gap, format!("{group} acknowledges {} of {posted} messages", ack.seq));
    }
    cut::take(txn, CutNumber(ack.cut))?;
    let mut channel = txn.channel(group)?;
    if ack.seq > channel.acked_seq {
        txn.want((channel.acked_seq + 1..=ack.seq).map(|seq| Key::Posted(group, seq)))?;
        for seq in channel.acked_seq + 1..=ack.seq {
            let key = Key::Posted(group, seq);
            let Some(message) = txn.message(&key)? else { return Err(Halt::Fault(ApplyFault::Damaged { key })) };
            trimmed(txn, group, message)?;
            txn.remove(&key);
        }
        channel.acked_seq = ack.seq;
        txn.put_channel(&channel)?;
    }
    Ok(channel.acked_seq)
}
