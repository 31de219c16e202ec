//! A client's inputs: checked, numbered, kept until they are applied.

use std::collections::VecDeque;
use std::time::Duration;

use marchland_proto::client::{Commands, Input, input::What};
use marchland_proto::codes::Code;
use marchland_proto::storage::{SessionInputs, StoredAction, StoredInput, StoredMove, stored_input};
use marchland_types::level;
use marchland_types::limits::{ACTION_MAX_BYTES, INPUT_MAX_MS, INPUTS_PER_MESSAGE_MAX, UNACKED_COMMANDS_MAX};

use super::{Effect, Playing, Refusal, Session, State};

/// Inputs that the region has not applied yet, in order, without gaps.
#[derive(Debug)]
pub(super) struct Unacked {
    inputs: VecDeque<StoredInput>,
    /// Number that the next input must carry.
    next_seq: u64,
}

impl Unacked {
    /// Of a session whose next input is `next_seq`.
    pub(super) fn from_next(next_seq: u64) -> Self {
        Self { inputs: VecDeque::new(), next_seq: next_seq.max(1) }
    }

    pub(super) fn len(&self) -> usize {
        self.inputs.len()
    }

    pub(super) fn all(&self) -> Vec<StoredInput> {
        self.inputs.iter().cloned().collect()
    }

    /// Everything up to `seq` is committed. `true` if that is news.
    pub(super) fn applied(&mut self, seq: u64) -> bool {
        let before = self.inputs.len();
        while self.inputs.front().is_some_and(|input| input.seq <= seq) {
            self.inputs.pop_front();
        }
        // A region may know more of this session than this edge does, e.g. from an edge before it.
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
        self.inputs.len() < before
    }
}

impl Playing {
    pub(super) fn inputs(&self, inputs: Vec<StoredInput>) -> SessionInputs {
        SessionInputs {
            character: self.key.character.0,
            epoch: self.key.epoch.0,
            attach: self.key.attach.0,
            inputs,
            acked_reply_seq: self.acked_reply_seq,
        }
    }
}

impl Session {
    pub(super) fn take_commands(&mut self, now: Duration, commands: Commands, out: &mut Vec<Effect>) {
        let State::Playing(playing) = &mut self.state else { return };
        let acked = commands.acked_reply_seq.min(playing.replies.sent());
        let acks = acked > playing.acked_reply_seq;
        playing.acked_reply_seq = playing.acked_reply_seq.max(acked);
        let count = commands.inputs.len();
        if count > INPUTS_PER_MESSAGE_MAX {
            let reason = format!("{count} inputs in a message, at most {INPUTS_PER_MESSAGE_MAX}");
            return self.refuse(Refusal::new(Code::TooLarge, reason), out);
        }
        let mut taken = Vec::with_capacity(count);
        let mut refusal = None;
        for input in commands.inputs {
            let expected = playing.unacked.next_seq;
            if input.seq < expected {
                continue;
            }
            if input.seq > expected {
                let reason = format!("input {}, {expected} expected", input.seq);
                refusal = Some(Refusal::new(Code::SequenceGap, reason));
                break;
            }
            if playing.unacked.len() >= UNACKED_COMMANDS_MAX {
                let reason = format!("more than {UNACKED_COMMANDS_MAX} inputs on their way");
                refusal = Some(Refusal::new(Code::TooMany, reason));
                break;
            }
            let (stored, too_large) = stored(input);
            if playing.unacked.inputs.is_empty() {
                playing.given_at = now;
            }
            playing.unacked.next_seq = expected.saturating_add(1);
            playing.unacked.inputs.push_back(stored.clone());
            level!("edge.unacked_commands", playing.unacked.len(), UNACKED_COMMANDS_MAX);
            taken.push(stored);
            if let Some(reason) = too_large {
                refusal = Some(Refusal::new(Code::TooLarge, reason));
                break;
            }
        }
        // On their way to another region, they wait here until it has the session.
        if playing.transit.is_none() && (!taken.is_empty() || acks) {
            out.push(Effect::Inputs { group: playing.group, inputs: playing.inputs(taken) });
        }
        if let Some(refusal) = refusal {
            self.refuse(refusal, out);
        }
    }
}

/// As it goes on. One that is refused goes on empty, with its number, so that numbers have no gaps and a client that comes
/// back is not asked for it again.
fn stored(input: Input) -> (StoredInput, Option<String>) {
    let Input { seq, client_tick, duration_ms, what } = input;
    let empty = StoredInput { seq, client_tick, duration_ms: 0, what: None };
    if duration_ms > INPUT_MAX_MS {
        return (empty, Some(format!("input of {duration_ms} ms, at most {INPUT_MAX_MS}")));
    }
    let what = match what {
        None => None,
        Some(What::Move(step)) => {
            let finite = step.x.is_finite() && step.z.is_finite();
            let (x, z) = if finite { (step.x, step.z) } else { (0.0, 0.0) };
            Some(stored_input::What::Move(StoredMove { x, z, yaw: step.yaw & 0xff }))
        }
        Some(What::Action(action)) if action.body.len() > ACTION_MAX_BYTES => {
            let reason = format!("action of {} bytes, at most {ACTION_MAX_BYTES}", action.body.len());
            return (empty, Some(reason));
        }
        // Copied, or the body would keep the whole message alive.
        Some(What::Action(action)) => Some(stored_input::What::Action(StoredAction {
            code: action.code,
            body: bytes::Bytes::copy_from_slice(&action.body),
        })),
    };
    (StoredInput { seq, client_tick, duration_ms, what }, None)
}
