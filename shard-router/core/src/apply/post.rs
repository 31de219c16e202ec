//! Putting messages into the channels to other groups.

use marchland_proto::codes::Code;
use marchland_proto::storage::ChannelMessage;
use marchland_proto::storage::channel_message::Body;
use marchland_types::GroupId;
use marchland_types::limits::CHANNEL_MESSAGES_MAX;

use super::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Messages that may wait for a receiver before sign-ins that need it are refused. The rest is kept for what follows
/// from messages that came in, which can not be refused as easily.
pub const SIGN_IN_CHANNEL_MESSAGES_MAX: usize = CHANNEL_MESSAGES_MAX * 3 / 4;

/// Posts a message. Refused with [`Code::Unavailable`] when `limit` messages wait already.
pub(super) fn post(txn: &mut Txn<'_>, to: GroupId, limit: usize, body: Body) -> Result<(), Halt> {
    txn.want([Key::Channel(to), Key::Channels])?;
    let mut channel = txn.channel(to)?;
    let waiting = channel.posted_seq - channel.acked_seq;
    if waiting >= limit as u64 {
        return refuse(Code::Unavailable, format!("{waiting} messages wait for {to}"));
    }
    channel.posted_seq += 1;
    let map_epoch = txn.world()?.map_or(0, |world| world.map_epoch);
    let message = ChannelMessage {
        from_group: own_group(txn)?.0,
        seq: channel.posted_seq,
        cut: txn.counters.cut,
        map_epoch,
        body: Some(body),
    };
    txn.put(&Key::Posted(to, channel.posted_seq), &message);
    txn.put_channel(&channel)?;
    txn.changes.posted.insert(to);
    Ok(())
}

/// The directory's own group, as it stands in what it sends.
pub(super) fn own_group(txn: &Txn<'_>) -> Result<GroupId, Halt> {
    match txn.world()? {
        Some(world) => Ok(GroupId::directory(marchland_types::WorldId(world.world))),
        None => refuse(Code::Unavailable, "the world has not begun"),
    }
}
