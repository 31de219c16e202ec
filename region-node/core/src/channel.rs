//! Both ends of the ordered channels between groups: what was taken from whom, and what waits for whom.
//!
//! What always holds: a message is taken at last + 1 only, and stays in the outbox until its receiver acknowledged it; an
//! outbox never exceeds [`CHANNEL_MESSAGES_MAX`], whoever posts is refused before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use marchland_proto::storage::ChannelMessage;
use marchland_types::limits::{CHANNEL_MESSAGE_MAX_BYTES, CHANNEL_MESSAGES_MAX};
use marchland_types::{EntityId, GroupId, level, planted};
use prost::Message as _;

use crate::codec::{CodecError, Reader, Writer};
use crate::hash::{hash, mix};

/// What a message does; its envelope is the channel's business.
pub type Body = marchland_proto::storage::channel_message::Body;

/// A message that could not be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The receiver acknowledges too slowly.
    #[error("the channel to {0} is full")]
    Full(GroupId),
    /// Larger than a message may be.
    #[error("a message of {found} bytes exceeds {max}", max = CHANNEL_MESSAGE_MAX_BYTES)]
    TooLarge {
        /// Encoded size.
        found: usize,
    },
    /// The entity is none that a neighbour shows.
    #[error("entity {0} is not a neighbour's")]
    NoGhost(EntityId),
}

/// The receiving end of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inbox {
    pub(crate) taken: u64,
    pub(crate) finished: bool,
}

/// A message on its way, with its hash.
#[derive(Clone, Debug)]
struct Posted {
    message: Arc<ChannelMessage>,
    hash: u64,
}

/// The sending end of a channel.
#[derive(Clone, Debug, Default)]
struct Outbox {
    last: u64,
    messages: VecDeque<Posted>,
}

/// All channels of a region.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channels {
    inboxes: BTreeMap<GroupId, Inbox>,
    outboxes: Arc<BTreeMap<GroupId, Outbox>>,
}

impl Channels {
    pub(crate) fn inbox(&self, from: GroupId) -> Inbox {
        self.inboxes.get(&from).copied().unwrap_or_default()
    }

    /// Number of the last message that was taken, by sender.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (GroupId, u64)> {
        self.inboxes.iter().map(|(from, inbox)| (*from, inbox.taken))
    }

    pub(crate) fn inbox_mut(&mut self, from: GroupId) -> &mut Inbox {
        self.inboxes.entry(from).or_default()
    }

    /// Messages that `to` has not acknowledged.
    pub(crate) fn waiting(&self, to: GroupId) -> usize {
        self.outboxes.get(&to).map_or(0, |outbox| outbox.messages.len())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.outboxes.values().all(|outbox| outbox.messages.is_empty())
    }

    /// Every receiver with the messages that it has not acknowledged, in order.
    pub(crate) fn outboxes(&self) -> impl Iterator<Item = (GroupId, impl Iterator<Item = &Arc<ChannelMessage>>)> {
        self.outboxes.iter().map(|(to, outbox)| (*to, outbox.messages.iter().map(|posted| &posted.message)))
    }

    pub(crate) fn post(&mut self, to: GroupId, from: GroupId, cut: u64, map_epoch: u64, body: Body) -> Result<(), PostError> {
        if self.waiting(to) >= CHANNEL_MESSAGES_MAX {
            return Err(PostError::Full(to));
        }
        let outboxes = Arc::make_mut(&mut self.outboxes);
        let outbox = outboxes.entry(to).or_default();
        let message = ChannelMessage { from_group: from.0, seq: outbox.last + 1, cut, map_epoch, body: Some(body) };
        let found = message.encoded_len();
        if found > CHANNEL_MESSAGE_MAX_BYTES {
            return Err(PostError::TooLarge { found });
        }
        outbox.last += 1;
        outbox.messages.push_back(Posted::new(to, message));
        level!("channel.messages", outbox.messages.len(), CHANNEL_MESSAGES_MAX);
        Ok(())
    }

    /// Forgets the messages to `to` up to `up_to`, inclusive. A number that was never given out trims nothing.
    pub(crate) fn acknowledge(&mut self, to: GroupId, up_to: u64) -> bool {
        let trims = self.outboxes.get(&to).is_some_and(|outbox| {
            up_to <= outbox.last && outbox.messages.front().is_some_and(|posted| posted.message.seq <= up_to)
        });
        if trims && let Some(outbox) = Arc::make_mut(&mut self.outboxes).get_mut(&to) {
            outbox.messages.retain(|posted| posted.message.seq > up_to);
        }
        trims
    }

    pub(crate) fn sum(&self) -> u64 {
        let mut state = 0;
        for (group, inbox) in &self.inboxes {
            state = mix(mix(state, group.0), mix(inbox.taken, u64::from(inbox.finished)));
        }
        for (group, outbox) in self.outboxes.iter() {
            state = mix(mix(state, group.0), outbox.last);
            state = outbox.messages.iter().fold(state, |state, posted| mix(state, posted.hash));
        }
        state
    }

    /// The same with every message hashed anew.
    pub(crate) fn full_sum(&self) -> u64 {
        let mut copy = self.clone();
        for (to, outbox) in Arc::make_mut(&mut copy.outboxes) {
            for posted in &mut outbox.messages {
                *posted = Posted::new(*to, ChannelMessage::clone(&posted.message));
            }
        }
        copy.sum()
    }

    pub(crate) fn put(&self, out: &mut Writer) {
        out.count(self.inboxes.len());
        for (group, inbox) in &self.inboxes {
            out.u64(group.0);
            // Planted: a checkpoint does not say what was taken.
            out.u64(if planted!("counters-not-in-checkpoint") { 0 } else { inbox.taken });
            out.bool(inbox.finished);
        }
        out.count(self.outboxes.len());
        for (group, outbox) in self.outboxes.iter() {
            out.u64(group.0);
            out.u64(outbox.last);
            out.count(outbox.messages.len());
            for posted in &outbox.messages {
                out.bytes(&posted.message.encode_to_vec());
            }
        }
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut channels = Self::default();
        for _ in 0..input.count(17)? {
            let group = GroupId(input.u64()?);
            channels.inboxes.insert(group, Inbox { taken: input.u64()?, finished: input.bool()? });
        }
        let mut outboxes = BTreeMap::new();
        for _ in 0..input.count(20)? {
            let to = GroupId(input.u64()?);
            let mut outbox = Outbox { last: input.u64()?, messages: VecDeque::new() };
            let count = input.count(4)?;
            if count > CHANNEL_MESSAGES_MAX {
                return Err(CodecError::Invalid("more messages than an outbox holds"));
            }
            for back in (0..count as u64).rev() {
                let message = ChannelMessage::decode(input.bytes()?)
                    .map_err(|_| CodecError::Invalid("a message of an outbox does not decode"))?;
                if message.seq.checked_add(back) != Some(outbox.last) {
                    return Err(CodecError::Invalid("the messages of an outbox have gaps"));
                }
                outbox.messages.push_back(Posted::new(to, message));
            }
            outboxes.insert(to, outbox);
        }
        channels.outboxes = Arc::new(outboxes);
        Ok(channels)
    }
}

impl Posted {
    fn new(to: GroupId, message: ChannelMessage) -> Self {
        Self { hash: hash(to.0, &message.encode_to_vec()), message: Arc::new(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_proto::storage::Fin;

    const TO: GroupId = GroupId(7);
    const FROM: GroupId = GroupId(8);

    #[test]
    fn an_outbox_is_bounded_and_trimmed_in_order() {
        let mut channels = Channels::default();
        for _ in 0..CHANNEL_MESSAGES_MAX {
            channels.post(TO, FROM, 1, 2, Body::Fin(Fin {})).unwrap();
        }
        assert_eq!(channels.post(TO, FROM, 1, 2, Body::Fin(Fin {})), Err(PostError::Full(TO)));
        let beyond = CHANNEL_MESSAGES_MAX as u64 + 1;
        assert!(!channels.acknowledge(TO, beyond), "a number that was never given out");
        assert!(channels.acknowledge(TO, 1000));
        assert!(!channels.acknowledge(TO, 1000));
        let (to, messages) = channels.outboxes().next().unwrap();
        assert_eq!((to, messages.map(|m| m.seq).collect::<Vec<_>>()), (TO, (1001..=1024).collect()));
        assert_eq!(channels.sum(), channels.full_sum());
        let mut out = Writer::new();
        channels.put(&mut out);
        let copy = Channels::take(&mut Reader::new(out.as_slice())).unwrap();
        assert_eq!(copy.sum(), channels.sum());
    }
}
