//! Players' inputs: taken at last + 1 only, each once.
//!
//! An older one is answered from the kept replies. One after a gap, or one whose answer could not be kept because the client
//! acknowledges nothing, is not taken and ends the attach: the client resumes, is told the number to go on with, and its
//! resuming acknowledges what it has. So no number is ever passed over and no answer is lost, in bounded memory.

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::{SessionInputs, StoredInput, StoredMove, stored_input};
use marchland_types::limits::{ACTION_MAX_BYTES, QUEUED_MOVES_MAX};
use marchland_types::{CharacterId, CommandSeq, planted};

use super::Failure;
use crate::doing::Handler;
use crate::effects::{Effects, SessionReply};
use crate::game::{Action, Game, Refusal};
use crate::region::Region;
use crate::session::{MOVE_DURATION_MAX_MS, QueuedMove, REPLY_MAX_BYTES};

impl<G: Game> Region<G> {
    /// Takes a session's inputs; `left` bounds those of the whole tick.
    pub(crate) fn take_inputs(&mut self, inputs: &SessionInputs, left: &mut usize, effects: &mut Effects<G>) {
        let Some(slot) = self.begin_inputs(inputs) else { return };
        for input in &inputs.inputs {
            let Some(fewer) = left.checked_sub(1) else { return };
            *left = fewer;
            if let Err(code) = self.take_input(slot, input, effects) {
                self.end_attach(slot, code, effects);
                return;
            }
        }
    }

    /// Whose inputs these are, if they are of the attach in force. What they acknowledge is forgotten.
    pub(crate) fn begin_inputs(&mut self, inputs: &SessionInputs) -> Option<u32> {
        let (slot, session, _) = self.world.session_of(CharacterId(inputs.character))?;
        let named = (session.epoch.0, session.attach.0) == (inputs.epoch, inputs.attach);
        if !named || !session.is_attached() {
            return None;
        }
        if session.would_acknowledge(inputs.acked_reply_seq)
            && let Some(session) = self.world.session_mut(slot)
        {
            session.acknowledge(inputs.acked_reply_seq);
        }
        Some(slot)
    }

    fn take_input(&mut self, slot: u32, input: &StoredInput, effects: &mut Effects<G>) -> Result<(), Code> {
        let Some((session, mover)) = self.world.session_at(slot) else { return Err(Code::Internal) };
        let expected = mover.applied_seq.next();
        if input.seq < expected.0 {
            // Planted: an action that comes again is carried out again.
            if planted!("command-applied-twice")
                && let Some(stored_input::What::Action(action)) = &input.what
            {
                let (code, body) = self.act(slot, Action { code: action.code, body: &action.body }, effects);
                self.reply(slot, CommandSeq(input.seq), code, body, effects);
                return Ok(());
            }
            if let Some(reply) = session.reply_to(input.seq) {
                let (character, epoch) = (session.character, session.epoch);
                effects.replies.push(SessionReply { character, epoch, reply: reply.clone() });
            }
            return Ok(());
        }
        // Planted: what is missing is passed over.
        if input.seq > expected.0 && !planted!("command-gap-accepted") {
            return Err(Code::SequenceGap);
        }
        let expected = CommandSeq(input.seq);
        match &input.what {
            None => self.pass(slot, expected),
            Some(stored_input::What::Move(wanted)) => {
                if mover.queue.len() >= QUEUED_MOVES_MAX {
                    if !session.has_room_for_reply() {
                        return Err(Code::TooMany);
                    }
                    self.pass(slot, expected);
                    self.reply(slot, expected, Code::TooMany as u32, Bytes::new(), effects);
                } else if let Some(mover) = self.world.mover_mut(slot) {
                    mover.queue.push_back(queued(expected, input.duration_ms, wanted));
                    mover.applied_seq = expected;
                }
            }
            Some(stored_input::What::Action(action)) => {
                if !session.has_room_for_reply() {
                    return Err(Code::TooMany);
                }
                let character = session.character;
                self.pass(slot, expected);
                let (code, body) = self.act(slot, Action { code: action.code, body: &action.body }, effects);
                self.note_answer(character, expected, code, &body);
                self.reply(slot, expected, code, body, effects);
            }
        }
        Ok(())
    }

    pub(crate) fn pass(&mut self, slot: u32, seq: CommandSeq) {
        if let Some(mover) = self.world.mover_mut(slot) {
            mover.applied_seq = seq;
        }
    }

    fn act(&mut self, slot: u32, action: Action<'_>, effects: &mut Effects<G>) -> (u32, Bytes) {
        if action.body.len() > ACTION_MAX_BYTES {
            return (Code::TooLarge as u32, Bytes::new());
        }
        let Some(who) = self.world.at_slot(slot).map(|view| view.identity.entity) else {
            return (Code::Internal as u32, Bytes::new());
        };
        // An answer that is too long is the handler's failure, so it must have no effect either.
        let too_long = Refusal { code: Code::Internal, body: Bytes::new() };
        let result = self.handle(effects, Handler::Command(who, action.code), |game, ctx| {
            game.command(ctx, who, action).and_then(|body| if body.len() <= REPLY_MAX_BYTES { Ok(body) } else { Err(too_long) })
        });
        match result {
            Ok(body) => (Code::Ok as u32, body),
            Err(Failure::Refused(refusal)) if refusal.body.len() <= REPLY_MAX_BYTES => (refusal.code as u32, refusal.body),
            Err(Failure::Refused(refusal)) => (refusal.code as u32, Bytes::new()),
            Err(Failure::Panicked) => (Code::Internal as u32, Bytes::new()),
        }
    }

    pub(crate) fn reply(&mut self, slot: u32, command: CommandSeq, code: u32, body: Bytes, effects: &mut Effects<G>) {
        if let Some(session) = self.world.session_mut(slot) {
            let reply = session.push(command, code, body).clone();
            // Planted: a reply is forgotten when it is published, not when the client has acknowledged it.
            if planted!("reply-not-kept") {
                session.acknowledge(reply.reply_seq);
            }
            effects.replies.push(SessionReply { character: session.character, epoch: session.epoch, reply });
        }
    }
}

/// A movement input within its bounds: what is no number stands still, what is longer than 1 is shortened.
fn queued(seq: CommandSeq, duration_ms: u32, wanted: &StoredMove) -> QueuedMove {
    let (x, z) = (wanted.x, wanted.z);
    let norm = (x * x + z * z).sqrt();
    let direction = if !norm.is_finite() {
        [0.0, 0.0]
    } else if norm > 1.0 {
        [x / norm, z / norm]
    } else {
        [x, z]
    };
    QueuedMove { seq, direction, yaw: wanted.yaw as u8, left_ms: duration_ms.min(MOVE_DURATION_MAX_MS) }
}
