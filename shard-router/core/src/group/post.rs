//! Putting messages into the channels to other groups.

use marchland_proto::codes::Code;
use marchland_proto::storage::ChannelMessage;
use marchland_proto::storage::channel_message::Body;
use marchland_types::GroupId;

use super::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Posts a message. Refused with [`Code::Unavailable`] when `limit` messages wait already.
pub(crate) fn post(txn: &mut Txn<'_>, to: GroupId, limit: usize, body: Body) -> Result<(), Halt> {
    txn.want([Key::Channel(to), Key::Channels])?;
    let Some(sender) = txn.sender else {
        return refuse(Code::Unavailable, "the world has not begun");
    };
    let mut channel = txn.channel(to)?;
    let waiting = channel.posted_seq - channel.acked_seq;
    if waiting >= limit as u64 {
        return refuse(Code::Unavailable, format!("{waiting} messages wait for {to}"));
    }
    channel.posted_seq += 1;
    let message = ChannelMessage {
        from_group: sender.group.0,
        seq: channel.posted_seq,
        cut: txn.counters.cut,
        map_epoch: sender.map_epoch.0,
        body: Some(body),
    };
    txn.put(&Key::Posted(to, channel.posted_seq), &message);
    txn.put_channel(&channel)?;
    txn.changes.posted.insert(to);
    Ok(())
}
