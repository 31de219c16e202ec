//! A receiver has taken messages: the channel to it is trimmed.

use marchland_proto::codes::Code;
use marchland_proto::storage::{ChannelAck, DirectoryAnswer};
use marchland_types::GroupId;

use super::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

pub(super) fn handle(txn: &mut Txn<'_>, ack: ChannelAck) -> Result<DirectoryAnswer, Halt> {
    let group = GroupId(ack.from_group);
    let mut channel = txn.channel(group)?;
    if ack.seq > channel.posted_seq {
        return refuse(Code::Gap, format!("{group} acknowledges {} of {} messages", ack.seq, channel.posted_seq));
    }
    if ack.seq > channel.acked_seq {
        txn.want((channel.acked_seq + 1..=ack.seq).map(|seq| Key::Posted(group, seq)))?;
        for seq in channel.acked_seq + 1..=ack.seq {
            txn.remove(&Key::Posted(group, seq));
        }
        channel.acked_seq = ack.seq;
        txn.put_channel(&channel)?;
    }
    Ok(DirectoryAnswer { taken_seq: channel.acked_seq, ..DirectoryAnswer::default() })
}
