//! What stands in for an entry that an operator had skipped.
//!
//! It must not run what may have failed, so it runs no rule of the game: a tick passes in which the world stands still. What the entry
//! brought is not lost in silence: commands are answered `Internal`, messages and orders are taken and set aside, and whatever only concerns
//! the bookkeeping of channels and sessions takes effect. An attach is not answered; its edge asks again.

use marchland_proto::codes::Code;
use marchland_proto::storage::{
    ChannelMessage, DeadLetter, RegionEntry, SessionInputs, SkipEntry, SkippedEntry, StoredInput, TickEntry, region_entry,
    stored_input,
};
use marchland_types::limits::INPUTS_PER_TICK_MAX;
use marchland_types::{GroupId, LogIndex};
use prost::Message as _;

use crate::channel::Body;
use crate::effects::{Applied, Effects};
use crate::game::Game;
use crate::region::{ApplyFault, ENTRY_FORMAT, Region};
use crate::trouble::{CAUSE_SKIPPED, What};

/// Longest reason that an order keeps, in bytes.
pub const SKIP_REASON_MAX_BYTES: usize = 256;
/// An order is not larger than this; anything that is, is none.
const ORDER_MAX_BYTES: usize = 4 * SKIP_REASON_MAX_BYTES;
/// How every order begins: the format, and the tag of its body.
const ORDER_PREFIX: [u8; 3] = [0x08, ENTRY_FORMAT as u8, 0x2a];

/// The entry that orders another one to be skipped. Longer texts are cut.
#[must_use]
pub fn skip_entry(index: LogIndex, reason: &str, actor: &str) -> Vec<u8> {
    let order = SkipEntry { index: index.0, reason: cut(reason), actor: cut(actor) };
    RegionEntry { format: ENTRY_FORMAT, body: Some(region_entry::Body::Skip(order)) }.encode_to_vec()
}

/// Which entry an entry orders to be skipped. Costs nothing for any other entry.
#[must_use]
pub fn skipped_by(entry: &[u8]) -> Option<LogIndex> {
    if entry.len() > ORDER_MAX_BYTES || !entry.starts_with(&ORDER_PREFIX) {
        return None;
    }
    match RegionEntry::decode(entry).ok()?.body? {
        region_entry::Body::Skip(order) => Some(LogIndex(order.index)),
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(SKIP_REASON_MAX_BYTES)].to_owned()
}

impl<G: Game> Region<G> {
    /// Stands in for an entry that an operator had skipped.
    pub fn skip(&mut self, index: LogIndex, entry: &[u8]) -> Result<Effects<G>, ApplyFault> {
        let mut effects = Effects::default();
        self.skip_into(index, entry, &mut effects)?;
        Ok(effects)
    }

    /// The same; the effects replace what is in `effects`.
    pub fn skip_into(&mut self, index: LogIndex, entry: &[u8], effects: &mut Effects<G>) -> Result<(), ApplyFault> {
        effects.clear();
        self.check_order(index)?;
        effects.applied = Applied::Skipped;
        let core = &mut self.world.state.core;
        core.counters.skipped_entries += 1;
        if self.ground.is_some() {
            core.tick = core.tick.next();
            effects.tick = Some(core.tick);
        }
        let mut skipped = SkippedEntry { index: index.0, tick: self.world.tick().0, ..SkippedEntry::default() };
        let body = RegionEntry::decode(entry).ok().filter(|entry| entry.format == ENTRY_FORMAT).and_then(|entry| entry.body);
        if let (Some(region_entry::Body::Tick(tick)), true, None) = (body, self.ground.is_some(), self.world.state.core.barrier) {
            self.skip_tick(index, &tick, &mut skipped, effects);
        }
        self.world.state.trouble.skipped(skipped);
        self.finish(index, effects);
        Ok(())
    }

    fn skip_tick(&mut self, index: LogIndex, tick: &TickEntry, skipped: &mut SkippedEntry, effects: &mut Effects<G>) {
        self.advance_clock(tick.now_ms, 1);
        self.world.state.core.asleep_until_ms = None;
        for batch in &tick.ghosts {
            self.take_ghosts(batch);
        }
        for message in &tick.messages {
            self.skip_message(index, message, skipped, effects);
        }
        for ack in &tick.acks {
            self.take_ack(ack, effects);
        }
        for order in &tick.detaches {
            self.detach_quietly(order, effects);
        }
        for order in &tick.orders {
            if self.remember_order(order.id) {
                self.set_aside(index, CAUSE_SKIPPED, What::Order(order.clone()));
            }
        }
        let mut left = INPUTS_PER_TICK_MAX;
        for inputs in &tick.sessions {
            self.skip_inputs(inputs, &mut left, skipped, effects);
        }
    }

    fn skip_message(&mut self, index: LogIndex, message: &ChannelMessage, skipped: &mut SkippedEntry, effects: &mut Effects<G>) {
        if !self.knows_map_of(message) {
            return;
        }
        match &message.body {
            Some(Body::Admit(_) | Body::Game(_) | Body::Moved(_)) => {
                if self.receive(message, effects) {
                    skipped.messages += 1;
                    self.set_aside(index, CAUSE_SKIPPED, What::Message(message.clone()));
                }
            }
            Some(Body::Expel(expel)) => {
                if self.receive(message, effects) {
                    self.expel_quietly(expel, effects);
                }
            }
            Some(Body::Handoff(handoff)) => {
                if self.can_settle_handoff() && self.receive(message, effects) {
                    self.take_handoff_quietly(GroupId(message.from_group), handoff, effects);
                }
            }
            // None of these runs a rule.
            None
            | Some(
                Body::MapChange(_) | Body::Fin(_) | Body::DropStub(_) | Body::Location(_) | Body::Deposit(_) | Body::Withdraw(_),
            ) => self.take_message(index, message, effects),
        }
    }

    fn skip_inputs(&mut self, inputs: &SessionInputs, left: &mut usize, skipped: &mut SkippedEntry, effects: &mut Effects<G>) {
        let Some(slot) = self.begin_inputs(inputs) else { return };
        for input in &inputs.inputs {
            let Some(fewer) = left.checked_sub(1) else { return };
            *left = fewer;
            match self.skip_input(slot, input, effects) {
                Ok(commands) => skipped.commands += commands,
                Err(code) => {
                    self.end_attach(slot, code, effects);
                    return;
                }
            }
        }
    }

    /// As an input is taken, but that it has no effect and a command's answer is `Internal`.
    fn skip_input(&mut self, slot: u32, input: &StoredInput, effects: &mut Effects<G>) -> Result<u32, Code> {
        let Some((session, mover)) = self.world.session_at(slot) else { return Err(Code::Internal) };
        let expected = mover.applied_seq.next();
        if input.seq < expected.0 {
            return Ok(0);
        }
        if input.seq > expected.0 {
            return Err(Code::SequenceGap);
        }
        if !matches!(input.what, Some(stored_input::What::Action(_))) {
            self.pass(slot, expected);
            return Ok(0);
        }
        if !session.has_room_for_reply() {
            return Err(Code::TooMany);
        }
        self.pass(slot, expected);
        self.reply(slot, expected, Code::Internal as u32, bytes::Bytes::new(), effects);
        Ok(1)
    }

    /// Keeps what had no effect.
    pub(crate) fn set_aside(&mut self, index: LogIndex, cause: u32, what: What) {
        let tick = self.world.tick().0;
        self.world.state.trouble.set_aside(DeadLetter { index: index.0, tick, cause, what: Some(what) });
    }

    /// The order to skip an entry, met in the log above it: it must have been obeyed by then.
    pub(crate) fn skip_ordered(
        &mut self,
        index: LogIndex,
        order: &SkipEntry,
        effects: &mut Effects<G>,
    ) -> Result<(), ApplyFault> {
        let about = LogIndex(order.index);
        effects.applied = Applied::SkipOrdered(about);
        if about >= index {
            // Of no effect on any replica.
            return Ok(());
        }
        let skipped = std::sync::Arc::make_mut(&mut self.world.state.trouble.skipped);
        let Some(entry) = skipped.iter_mut().rev().find(|entry| entry.index == about.0) else {
            return Err(ApplyFault::NotSkipped { index, about });
        };
        if entry.order == 0 {
            entry.order = index.0;
            (entry.reason, entry.actor) = (cut(&order.reason), cut(&order.actor));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_proto::storage::Sleep;

    #[test]
    fn an_order_is_told_from_every_other_entry() {
        let order = skip_entry(LogIndex(77), &"because ".repeat(100), "root");
        assert_eq!(skipped_by(&order), Some(LogIndex(77)));
        assert!(order.starts_with(&ORDER_PREFIX) && order.len() < ORDER_MAX_BYTES);
        for body in [region_entry::Body::Tick(TickEntry::default()), region_entry::Body::Sleep(Sleep::default())] {
            assert_eq!(skipped_by(&RegionEntry { format: ENTRY_FORMAT, body: Some(body) }.encode_to_vec()), None);
        }
        for rubbish in [&b""[..], b"\x08\x01\x2a", b"\x08\x01\x2a\xff\xff", &order[..order.len() - 1]] {
            assert_eq!(skipped_by(rubbish), None);
        }
    }
}
