//! Clients that arrive and leave. The highest attach number of a session counts; the rest is ignored, so that two edges can
//! race.

use marchland_proto::cluster::{AttachAnswer, SessionEnd, SessionMoved};
use marchland_proto::codes::Code;
use marchland_proto::storage::{AttachOrder, DetachOrder};
use marchland_types::limits::SESSIONS_PER_REGION_MAX;
use marchland_types::{AttachNumber, CharacterId, RegionId, SessionEpoch, planted};

use crate::effects::Effects;
use crate::game::Game;
use crate::region::Region;
use crate::session::Presence;
use crate::stub::Stub;

impl<G: Game> Region<G> {
    pub(crate) fn attach(&mut self, order: &AttachOrder, effects: &mut Effects<G>) {
        let answer = match self.try_attach(order, effects) {
            Ok(slot) => self.welcome(slot),
            Err(code) => AttachAnswer {
                moved: if code == Code::Moved { self.where_to(CharacterId(order.character), order.epoch) } else { None },
                character: order.character,
                epoch: order.epoch,
                attach: order.attach,
                code: code as u32,
                ..AttachAnswer::default()
            },
        };
        effects.attached.push(answer);
    }

    fn try_attach(&mut self, order: &AttachOrder, effects: &mut Effects<G>) -> Result<u32, Code> {
        let character = CharacterId(order.character);
        let epoch = SessionEpoch(order.epoch);
        let slot = match self.world.slot_of_character(character) {
            Some(slot) => slot,
            None if let Some(stub) = self.world.stub(character) => return Err(stub_code(stub, epoch)),
            None => self.resume_dormant(character, epoch, &order.secret_hash, effects)?,
        };
        let session = self.world.state.sessions.get(slot).ok_or(Code::NotAdmitted)?;
        if epoch > session.epoch {
            return Err(Code::NotAdmitted);
        }
        let attach = AttachNumber(order.attach);
        // The same connection asks again, perhaps after it was taken for gone because its edge was not heard of for a while.
        let repeated = attach == session.attach;
        // Planted: an attach that was overtaken by a later one counts.
        if epoch < session.epoch || (attach <= session.attach && !repeated && !planted!("delayed-attach")) {
            return Err(Code::Superseded);
        }
        if !order.secret_hash.is_empty() && order.secret_hash != session.secret_hash {
            return Err(Code::BadResume);
        }
        let mut session = session.clone();
        if session.is_attached() && !repeated {
            effects.ended.push(SessionEnd {
                character: character.0,
                epoch: epoch.0,
                attach: session.attach.0,
                code: Code::Superseded as u32,
            });
        }
        session.attach = attach;
        session.presence = Presence::Attached;
        session.acknowledge(order.last_reply_seq);
        self.world.put_session(slot, Some(session));
        Ok(slot)
    }

    /// Whether an attach would be refused now because the message that brings its session has not come: the next tick may have it.
    #[must_use]
    pub fn awaits_admission(&self, order: &AttachOrder) -> bool {
        let (character, epoch) = (CharacterId(order.character), SessionEpoch(order.epoch));
        match self.world.slot_of_character(character) {
            Some(slot) => self.world.state.sessions.get(slot).is_none_or(|session| epoch > session.epoch),
            None => match (self.world.stub(character), self.world.state.dormants.get(character)) {
                (Some(stub), _) => stub_code(stub, epoch) == Code::NotAdmitted,
                (None, dormant) => dormant.is_none_or(|dormant| epoch > dormant.epoch),
            },
        }
    }

    /// Where a character went, for whoever asks here for its session.
    #[must_use]
    pub fn where_to(&self, character: CharacterId, epoch: u64) -> Option<SessionMoved> {
        let stub = self.world.stub(character).filter(|stub| stub.region.0 != 0)?;
        Some(SessionMoved {
            character: character.0,
            epoch,
            group: stub.group.0,
            region: stub.region.0,
            move_number: stub.move_number.0,
        })
    }

    fn welcome(&self, slot: u32) -> AttachAnswer {
        let Some((session, mover)) = self.world.session_at(slot) else { return AttachAnswer::default() };
        AttachAnswer {
            character: session.character.0,
            epoch: session.epoch.0,
            attach: session.attach.0,
            code: Code::Ok as u32,
            next_seq: mover.applied_seq.0 + 1,
            entity: self.world.at_slot(slot).map_or(0, |view| view.identity.entity.0),
            rules_version: self.world.state.core.rules_version,
            content_hash: self.world.state.core.content_hash,
            max_speed: self.game.max_speed(),
            replies: session.replies.iter().cloned().collect(),
            moved: None,
        }
    }

    /// A character that left the world because its client was lost comes back when that returns with its secret.
    fn resume_dormant(
        &mut self,
        character: CharacterId,
        epoch: SessionEpoch,
        secret_hash: &[u8],
        effects: &mut Effects<G>,
    ) -> Result<u32, Code> {
        let full = self.world.session_count() >= SESSIONS_PER_REGION_MAX;
        let Some(dormant) = self.world.state.dormants.get(character) else {
            return Err(if full { Code::Full } else { Code::NotAdmitted });
        };
        if dormant.epoch < epoch {
            return Err(if full { Code::Full } else { Code::NotAdmitted });
        }
        if dormant.epoch > epoch {
            return Err(Code::Superseded);
        }
        if !dormant.resumable {
            return Err(Code::BadResume);
        }
        if full {
            return Err(Code::Full);
        }
        let record = crate::record::Record::take(&dormant.record).map_err(|_| Code::Internal)?;
        let known = record.session.as_ref().is_some_and(|(session, _)| session.secret_hash == secret_hash);
        if secret_hash.is_empty() || !known {
            return Err(Code::BadResume);
        }
        self.wake(character, record, None, effects).ok_or(Code::Unavailable)
    }

    /// Ends the attach that is in force. The session stays and may be resumed.
    pub(crate) fn end_attach(&mut self, slot: u32, code: Code, effects: &mut Effects<G>) {
        let now_ms = self.world.now_ms();
        let Some(session) = self.world.state.sessions.get(slot) else { return };
        if !session.is_attached() {
            return;
        }
        let mut session = session.clone();
        session.presence = Presence::Away { since_ms: now_ms };
        effects.ended.push(SessionEnd {
            character: session.character.0,
            epoch: session.epoch.0,
            attach: session.attach.0,
            code: code as u32,
        });
        self.world.put_session(slot, Some(session));
    }

    pub(crate) fn detach(&mut self, order: &DetachOrder, effects: &mut Effects<G>) {
        // Planted: an entry that can be proposed and not be applied.
        assert!(!planted!("panicking-entry"), "a client went away");
        if let Some(slot) = self.end_named(order, effects) {
            self.leave(slot, false, effects);
        }
    }

    /// The same without a word to the game.
    pub(crate) fn detach_quietly(&mut self, order: &DetachOrder, effects: &mut Effects<G>) {
        if let Some(slot) = self.end_named(order, effects) {
            self.leave_quietly(slot, false, effects);
        }
    }

    /// Ends the attach that an order names. Returns the slot of a character that leaves with it.
    fn end_named(&mut self, order: &DetachOrder, effects: &mut Effects<G>) -> Option<u32> {
        let character = CharacterId(order.character);
        let (slot, session, _) = self.world.session_of(character)?;
        let named = (session.epoch.0, session.attach.0) == (order.epoch, order.attach);
        if !named || !session.is_attached() {
            return None;
        }
        if order.goodbye {
            self.end_attach(slot, Code::Goodbye, effects);
            Some(slot)
        } else {
            let mut session = session.clone();
            session.presence = Presence::Away { since_ms: self.world.now_ms() };
            self.world.put_session(slot, Some(session));
            None
        }
    }
}

/// What an attach is answered for a character that has gone: where it is, if its session goes on there. In a vault nobody has one.
fn stub_code(stub: &Stub, epoch: SessionEpoch) -> Code {
    match stub.region {
        // A newer sign-in is on its way.
        RegionId(0) if epoch > stub.epoch => Code::NotAdmitted,
        RegionId(0) => Code::BadResume,
        _ => Code::Moved,
    }
}
