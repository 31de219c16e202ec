//! Numbered replies and events on their way to one client: each once, in order, none skipped.
//!
//! The region keeps them until the client acknowledges them, so this queue may refuse: what it does not take is asked for
//! again with an attach.

use std::collections::VecDeque;

use marchland_proto::cluster::StoredReply;
use marchland_types::limits::{KEPT_REPLIES_MAX, KEPT_REPLIES_MAX_BYTES};

/// What became of a reply that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Queued for the next frame.
    Taken,
    /// Had it already.
    Old,
    /// One before it is missing, or there is no room: the region must be asked again.
    Gap,
}

/// Replies that wait for a frame.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    pending: VecDeque<StoredReply>,
    pending_bytes: usize,
    received: u64,
    sent: u64,
}

impl Replies {
    /// For a client that has everything up to and including `received`.
    #[must_use]
    pub fn after(received: u64) -> Self {
        Self { received, sent: received, ..Self::default() }
    }

    /// Number of the newest reply that was taken.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Number of the newest reply that was given to the client.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Offers one from a tick's batch: taken only if it is the next.
    pub fn offer(&mut self, reply: &StoredReply) -> Offered {
        if reply.reply_seq <= self.received {
            return Offered::Old;
        }
        if reply.reply_seq != self.received + 1 {
            return Offered::Gap;
        }
        let full = self.pending.len() >= KEPT_REPLIES_MAX
            || (self.pending_bytes + reply.body.len() > KEPT_REPLIES_MAX_BYTES && !self.pending.is_empty());
        if full {
            return Offered::Gap;
        }
        self.received = reply.reply_seq;
        self.pending_bytes += reply.body.len();
        self.pending.push_back(reply.clone());
        Offered::Taken
    }

    /// Offers everything that the region still keeps. What it no longer keeps was acknowledged: the first one may jump.
    pub fn offer_kept(&mut self, kept: &[StoredReply]) {
        if let Some(first) = kept.first()
            && first.reply_seq > self.received + 1
        {
            self.received = first.reply_seq - 1;
        }
        for reply in kept {
            if self.offer(reply) == Offered::Gap {
                return;
            }
        }
    }

    /// The next one for a frame that has `room_bytes` left; at least one fits in an empty frame whatever its size.
    pub(crate) fn take(&mut self, room_bytes: usize, first: bool) -> Option<StoredReply> {
        if !first && self.pending.front()?.body.len() > room_bytes {
            return None;
        }
        let reply = self.pending.pop_front()?;
        self.pending_bytes -= reply.body.len();
        self.sent = reply.reply_seq;
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(reply_seq: u64, bytes: usize) -> StoredReply {
        StoredReply { reply_seq, body: vec![0; bytes].into(), ..Default::default() }
    }

    #[test]
    fn each_once_in_order() {
        let mut replies = Replies::after(4);
        assert_eq!(replies.offer(&reply(4, 0)), Offered::Old);
        assert_eq!(replies.offer(&reply(6, 0)), Offered::Gap);
        assert_eq!(replies.offer(&reply(5, 0)), Offered::Taken);
        assert_eq!(replies.offer(&reply(5, 0)), Offered::Old);
        assert_eq!(replies.sent(), 4);
        assert_eq!(replies.take(0, true).unwrap().reply_seq, 5);
        assert_eq!((replies.sent(), replies.received()), (5, 5));
        assert!(replies.take(100, true).is_none());
    }

    #[test]
    fn kept_ones_fill_a_gap_and_may_begin_later() {
        let mut replies = Replies::after(0);
        replies.offer_kept(&[reply(7, 0), reply(8, 0)]);
        assert_eq!(replies.received(), 8);
        assert_eq!(replies.take(0, true).unwrap().reply_seq, 7);
    }

    #[test]
    fn bounded_by_count_and_bytes() {
        let mut replies = Replies::after(0);
        for seq in 1..=KEPT_REPLIES_MAX as u64 {
            assert_eq!(replies.offer(&reply(seq, 1)), Offered::Taken);
        }
        assert_eq!(replies.offer(&reply(KEPT_REPLIES_MAX as u64 + 1, 1)), Offered::Gap);
        let mut replies = Replies::after(0);
        assert_eq!(replies.offer(&reply(1, KEPT_REPLIES_MAX_BYTES + 1)), Offered::Taken);
        assert_eq!(replies.offer(&reply(2, 1)), Offered::Gap);
        assert!(replies.take(10, false).is_none(), "does not fit beside others");
        assert!(replies.take(10, true).is_some(), "but alone it goes");
    }
}
