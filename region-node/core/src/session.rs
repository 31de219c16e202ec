//! A character's session: who may speak for it, what it was answered, and the movement that it has asked for.
//!
//! What always holds: `applied_seq` counts every input once, in order; replies are numbered without gaps from the oldest
//! kept to `last_reply_seq`, and never exceed their bounds; a session that is not attached takes no input.

use std::collections::VecDeque;

use bytes::Bytes;
use marchland_proto::cluster::StoredReply;
use marchland_types::limits::{KEPT_REPLIES_MAX, KEPT_REPLIES_MAX_BYTES, QUEUED_MOVES_MAX, TICK_MS};
use marchland_types::{AttachNumber, CharacterId, CommandSeq, ReplySeq, SessionEpoch, Tick, level};

use crate::codec::{CodecError, Reader, Row, Writer};

/// Largest body of one reply or event to a session.
pub const REPLY_MAX_BYTES: usize = 8 * 1024;
/// Kept replies beyond which the game's events are refused: the rest is for answers to commands.
pub const KEPT_EVENTS_MAX: usize = KEPT_REPLIES_MAX * 3 / 4;
/// Bytes of those.
pub const KEPT_EVENTS_MAX_BYTES: usize = KEPT_REPLIES_MAX_BYTES * 3 / 4;
/// Movement time that a session may save up while it stands still or its inputs are late.
pub const MOVE_CREDIT_MAX_MS: u32 = 250;
/// Movement time that one input may cover.
pub const MOVE_DURATION_MAX_MS: u32 = 250;

const _: () = assert!(REPLY_MAX_BYTES + KEPT_EVENTS_MAX_BYTES <= KEPT_REPLIES_MAX_BYTES, "an answer fits beside all events");
const _: () = assert!(KEPT_EVENTS_MAX < KEPT_REPLIES_MAX);

/// Whether a client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// On some edge.
    Attached,
    /// On none since this region time; the character leaves the world some time after.
    Away {
        /// Region time in milliseconds.
        since_ms: u64,
    },
}

/// The part of a session that changes with attaches and replies.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Whose it is.
    pub character: CharacterId,
    /// Raised by the directory at every sign-in.
    pub epoch: SessionEpoch,
    /// The highest attach number seen.
    pub attach: AttachNumber,
    /// Whether a client is there.
    pub presence: Presence,
    /// SHA-256 of the resume secret.
    pub secret_hash: Bytes,
    /// Number of the newest reply or event; 0 before the first.
    pub last_reply_seq: ReplySeq,
    /// Replies and events that the client has not acknowledged, oldest first.
    pub replies: VecDeque<StoredReply>,
    /// Bytes of their bodies.
    pub replies_bytes: usize,
}

impl Session {
    /// A session that nobody attached to yet.
    #[must_use]
    pub fn new(character: CharacterId, epoch: SessionEpoch, secret_hash: Bytes, now_ms: u64) -> Self {
        Self {
            character,
            epoch,
            attach: AttachNumber(0),
            presence: Presence::Away { since_ms: now_ms },
            secret_hash,
            last_reply_seq: ReplySeq(0),
            replies: VecDeque::new(),
            replies_bytes: 0,
        }
    }

    /// Whether a client is there.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.presence == Presence::Attached
    }

    /// Whether the answer to one more command can be kept, however long it is.
    #[must_use]
    pub fn has_room_for_reply(&self) -> bool {
        self.replies.len() < KEPT_REPLIES_MAX && self.replies_bytes + REPLY_MAX_BYTES <= KEPT_REPLIES_MAX_BYTES
    }

    /// Whether an event of `bytes` can be kept beside `pending` others of `pending_bytes`.
    #[must_use]
    pub fn has_room_for_event(&self, bytes: usize, pending: usize, pending_bytes: usize) -> bool {
        self.replies.len() + pending < KEPT_EVENTS_MAX && self.replies_bytes + pending_bytes + bytes <= KEPT_EVENTS_MAX_BYTES
    }

    /// Whether [`Session::acknowledge`] would forget anything.
    #[must_use]
    pub fn would_acknowledge(&self, up_to: u64) -> bool {
        self.replies.front().is_some_and(|reply| reply.reply_seq <= up_to)
    }

    /// Forgets the replies up to `up_to`, inclusive.
    pub fn acknowledge(&mut self, up_to: u64) {
        while let Some(reply) = self.replies.front() {
            if reply.reply_seq > up_to {
                break;
            }
            self.replies_bytes -= reply.body.len();
            self.replies.pop_front();
        }
    }

    /// Numbers and keeps a reply (or, with command 0, an event). The caller has asked for room.
    pub fn push(&mut self, command: CommandSeq, code: u32, body: Bytes) -> &StoredReply {
        self.last_reply_seq = self.last_reply_seq.next();
        self.replies_bytes += body.len();
        self.replies.push_back(StoredReply { reply_seq: self.last_reply_seq.0, command_seq: command.0, code, body });
        level!("session.replies", self.replies.len(), KEPT_REPLIES_MAX);
        level!("session.reply_bytes", self.replies_bytes, KEPT_REPLIES_MAX_BYTES);
        self.replies.back().expect("just pushed")
    }

    /// The kept reply to a command.
    #[must_use]
    pub fn reply_to(&self, command: u64) -> Option<&StoredReply> {
        self.replies.iter().find(|reply| reply.command_seq == command && command != 0)
    }
}

impl Row for Session {
    fn put(&self, out: &mut Writer) {
        out.u64(self.character.0);
        out.u64(self.epoch.0);
        out.u32(self.attach.0);
        match self.presence {
            Presence::Attached => out.u8(0),
            Presence::Away { since_ms } => {
                out.u8(1);
                out.u64(since_ms);
            }
        }
        out.bytes(&self.secret_hash);
        out.u64(self.last_reply_seq.0);
        out.count(self.replies.len());
        for reply in &self.replies {
            out.u64(reply.command_seq);
            out.u32(reply.code);
            out.bytes(&reply.body);
        }
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut session = Self {
            character: CharacterId(input.u64()?),
            epoch: SessionEpoch(input.u64()?),
            attach: AttachNumber(input.u32()?),
            presence: match input.u8()? {
                0 => Presence::Attached,
                1 => Presence::Away { since_ms: input.u64()? },
                _ => return Err(CodecError::Invalid("a session is neither attached nor away")),
            },
            secret_hash: input.owned()?,
            last_reply_seq: ReplySeq(input.u64()?),
            replies: VecDeque::new(),
            replies_bytes: 0,
        };
        let count = input.count(16)?;
        let first = session.last_reply_seq.0.checked_sub(count as u64).ok_or(CodecError::Invalid("more replies than numbers"))?;
        for number in 0..count as u64 {
            let (command_seq, code, body) = (input.u64()?, input.u32()?, input.owned()?);
            session.replies_bytes += body.len();
            session.replies.push_back(StoredReply { reply_seq: first + number + 1, command_seq, code, body });
        }
        if count > KEPT_REPLIES_MAX || session.replies_bytes > KEPT_REPLIES_MAX_BYTES {
            return Err(CodecError::Invalid("more replies than a session keeps"));
        }
        Ok(session)
    }
}

/// One movement input whose time has not passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueuedMove {
    /// The input's number.
    pub seq: CommandSeq,
    /// East and south, a vector of length 0 to 1.
    pub direction: [f32; 2],
    /// Facing.
    pub yaw: u8,
    /// Time that is still to come.
    pub left_ms: u32,
}

/// The part of a session that changes with every input and every step: numbers and movement.
///
/// The saved-up time is stored as of a tick, so that whoever stands still is not written at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mover {
    /// The newest input that was taken; the next one carries this plus 1.
    pub applied_seq: CommandSeq,
    /// The input whose movement time was used last.
    pub move_seq: CommandSeq,
    /// Time of `move_seq` that is still to come.
    pub move_left_ms: u32,
    /// Movement that was asked for, oldest first; at most [`QUEUED_MOVES_MAX`].
    pub queue: VecDeque<QueuedMove>,
    /// Time saved up after `credit_tick`, at most [`MOVE_CREDIT_MAX_MS`].
    pub credit_ms: u32,
    /// See `credit_ms`.
    pub credit_tick: Tick,
}

impl Mover {
    /// Time that may be used in `tick`.
    #[must_use]
    pub fn credit_at(&self, tick: Tick) -> u32 {
        let gained = tick.0.saturating_sub(self.credit_tick.0).saturating_mul(TICK_MS).saturating_add(u64::from(self.credit_ms));
        gained.min(u64::from(MOVE_CREDIT_MAX_MS)) as u32
    }

    /// Time that waits in the queue.
    #[must_use]
    pub fn backlog_ms(&self) -> u32 {
        self.queue.iter().map(|queued| queued.left_ms).sum()
    }
}

impl Row for Mover {
    fn put(&self, out: &mut Writer) {
        out.u64(self.applied_seq.0);
        out.u64(self.move_seq.0);
        out.u32(self.move_left_ms);
        out.u32(self.credit_ms);
        out.u64(self.credit_tick.0);
        out.count(self.queue.len());
        for queued in &self.queue {
            out.u64(queued.seq.0);
            out.f32(queued.direction[0]);
            out.f32(queued.direction[1]);
            out.u8(queued.yaw);
            out.u32(queued.left_ms);
        }
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut mover = Self {
            applied_seq: CommandSeq(input.u64()?),
            move_seq: CommandSeq(input.u64()?),
            move_left_ms: input.u32()?,
            credit_ms: input.u32()?,
            credit_tick: Tick(input.u64()?),
            queue: VecDeque::new(),
        };
        for _ in 0..input.count(21)? {
            mover.queue.push_back(QueuedMove {
                seq: CommandSeq(input.u64()?),
                direction: [input.f32()?, input.f32()?],
                yaw: input.u8()?,
                left_ms: input.u32()?,
            });
        }
        let excess = mover.queue.iter().any(|queued| queued.left_ms > MOVE_DURATION_MAX_MS);
        if mover.queue.len() > QUEUED_MOVES_MAX || mover.credit_ms > MOVE_CREDIT_MAX_MS || excess {
            return Err(CodecError::Invalid("more movement than a session may ask for"));
        }
        Ok(mover)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_numbered_and_trimmed() {
        let mut session = Session::new(CharacterId(1), SessionEpoch(1), Bytes::new(), 0);
        for command in 1..=3 {
            session.push(CommandSeq(command), 0, Bytes::from_static(b"ab"));
        }
        assert!(session.would_acknowledge(2));
        session.acknowledge(2);
        assert!(!session.would_acknowledge(2));
        assert_eq!((session.replies.len(), session.replies_bytes, session.last_reply_seq), (1, 2, ReplySeq(3)));
        assert!(session.reply_to(2).is_none() && session.reply_to(3).is_some());
        let mut out = Writer::new();
        session.put(&mut out);
        assert_eq!(Session::take(&mut Reader::new(out.as_slice())), Ok(session));
    }

    #[test]
    fn credit_is_saved_up_to_its_bound() {
        let mover = Mover { credit_ms: 20, credit_tick: Tick(10), ..Mover::default() };
        assert_eq!([mover.credit_at(Tick(10)), mover.credit_at(Tick(11)), mover.credit_at(Tick(999))], [20, 70, 250]);
        assert_eq!(mover.credit_at(Tick(3)), 20);
    }
}
