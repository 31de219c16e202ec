//! Entities that leave for another region and that come from one, each whole, in one message.
//!
//! In the tick that posts it an entity is gone from here; in the tick that takes it, it is there. In between it is in the channel and
//! nowhere else. With it goes all that belongs to it: its session with numbers and kept replies, what it holds, its components and
//! timers, and whatever is attached to it.

use bytes::Bytes;
use marchland_proto::cluster::SessionMoved;
use marchland_proto::storage::{EntityHandoff, Neighbour};
use marchland_types::limits::SESSIONS_PER_REGION_MAX;
use marchland_types::{CharacterId, EntityId, GroupId, MoveNumber, RegionId, SessionEpoch, Tick, planted};

use super::Failure;
use crate::channel::Body as MessageBody;
use crate::doing::Handler;
use crate::effects::{Effects, HandedOff};
use crate::game::Game;
use crate::record::Record;
use crate::region::Region;
use crate::session::Presence;
use crate::stub::Stub;
use crate::world::cell_of;
use crate::world::state::SET_ASIDE_MAX;

/// Entities that one carries along.
pub const ATTACHED_MAX: usize = 8;
/// Ticks between two attempts to take what was set aside.
const RETRY_EVERY_TICKS: u64 = 20;

impl<G: Game> Region<G> {
    /// Sends an entity, with what is attached to it, to a neighbour. False when it stays: its message is too large, or the game wants
    /// it no more.
    pub(crate) fn hand_off(&mut self, slot: u32, to: &Neighbour, effects: &mut Effects<G>) -> bool {
        let Some(entity) = self.world.at_slot(slot).map(|view| view.identity.entity) else { return false };
        let group = GroupId(to.group);
        let _ = self.handle(effects, Handler::Departing(entity), |game, ctx| {
            game.departing(ctx, entity, group);
            Ok::<_, std::convert::Infallible>(())
        });
        let slots = self.travellers(entity);
        let records: Vec<Bytes> = slots.iter().filter_map(|slot| self.departing(*slot)).map(|record| record.put()).collect();
        let (Some(first), Some(number)) = (records.first().cloned(), self.next_move(slot)) else { return false };
        let handoff = EntityHandoff {
            entity: entity.0,
            move_number: number.0,
            record: first,
            attached: records[1..].to_vec(),
            now_ms: self.world.now_ms(),
            returned: 0,
        };
        if !self.post(group, MessageBody::Handoff(handoff)) {
            // Too large. It is looked at again as if it had just come.
            let now_ms = self.world.now_ms();
            self.world.state.borders.entered.insert(entity, now_ms);
            return false;
        }
        for slot in slots {
            self.depart(slot, group, RegionId(to.region), effects);
        }
        true
    }

    /// Who goes along with an entity: itself first.
    fn travellers(&self, entity: EntityId) -> Vec<u32> {
        let mut slots = Vec::new();
        let attached = self.game.attached(&self.world, entity);
        for traveller in std::iter::once(entity).chain(attached.into_iter().take(ATTACHED_MAX)) {
            if let Some(slot) = self.world.slot_of(traveller)
                && !slots.contains(&slot)
            {
                slots.push(slot);
            }
        }
        slots
    }

    fn next_move(&self, slot: u32) -> Option<MoveNumber> {
        self.world.at_slot(slot).map(|view| view.identity.move_number.next())
    }

    /// The record under which an entity leaves: its move raised, and nothing in it that counts in this region's ticks.
    fn departing(&self, slot: u32) -> Option<Record> {
        // Planted: a character goes without its session.
        let mut record = Record::of(&self.world, slot, !planted!("handoff-forgets-session"))?;
        record.identity.move_number = record.identity.move_number.next();
        if let Some((_, mover)) = &mut record.session {
            mover.credit_ms = mover.credit_at(self.world.tick());
            mover.credit_tick = Tick(0);
        }
        Some(record)
    }

    /// Takes an entity that was posted out of the world.
    fn depart(&mut self, slot: u32, to: GroupId, region: RegionId, effects: &mut Effects<G>) {
        let Some(view) = self.world.at_slot(slot) else { return };
        let (entity, character) = (view.identity.entity, view.identity.character);
        let (move_number, cell) = (view.identity.move_number.next(), cell_of(view.body));
        if let Some(character) = character {
            let epoch = self.world.session_at(slot).map_or(SessionEpoch(0), |(session, _)| session.epoch);
            self.moved_on(character, Stub { group: to, region, move_number, epoch }, effects);
        }
        effects.handed.push(HandedOff { slot, entity, cell, move_number, to });
        self.note_sent(slot, entity);
        // Planted: the entity is sent and goes on living here.
        if planted!("handoff-releases-after-activating") {
            let now_ms = self.world.now_ms();
            self.world.state.borders.entered.insert(entity, now_ms);
            return;
        }
        let held = self.world.state.inventories.get(slot).map_or(0, |inventory| inventory.items.len() as u64);
        self.world.state.core.ledger.left += held;
        self.world.put_inventory(slot, None);
        self.world.despawn(slot);
        self.world.state.borders.entered.remove(&entity);
    }

    /// A character is elsewhere from now on: whoever asks here is sent on.
    pub(crate) fn moved_on(&mut self, character: CharacterId, stub: Stub, effects: &mut Effects<G>) {
        self.world.state.borders.stubs.insert(character, stub);
        effects.sessions_moved.push(SessionMoved {
            character: character.0,
            epoch: stub.epoch.0,
            group: stub.group.0,
            region: stub.region.0,
            move_number: stub.move_number.0,
        });
    }

    /// Whether a handoff can be dealt with in any case. What can not be is left in its channel.
    pub(crate) fn can_settle_handoff(&self) -> bool {
        self.world.state.set_aside.len() < SET_ASIDE_MAX
    }

    /// An entity comes from another region. One that there is no room for goes back; one that came back already is kept until there is.
    pub(crate) fn take_handoff(&mut self, from: GroupId, handoff: &EntityHandoff, effects: &mut Effects<G>) {
        for entity in self.take_handoff_quietly(from, handoff, effects) {
            self.welcome_traveller(entity, from, effects);
        }
    }

    /// The same without a word to the game. Returns who came.
    pub(crate) fn take_handoff_quietly(
        &mut self,
        from: GroupId,
        handoff: &EntityHandoff,
        effects: &mut Effects<G>,
    ) -> Vec<EntityId> {
        match self.try_take(handoff, effects) {
            Ok(entities) => return entities,
            Err(character) if handoff.returned == 0 => self.send_back(from, handoff, character, effects),
            Err(_) => self.keep_aside(handoff),
        }
        Vec::new()
    }

    fn welcome_traveller(&mut self, entity: EntityId, from: GroupId, effects: &mut Effects<G>) {
        let arrived = self.handle(effects, Handler::Arrived(entity), |game, ctx| {
            game.arrived(ctx, entity, from);
            Ok::<_, std::convert::Infallible>(())
        });
        // It is here whatever the game says of it.
        let (Ok(()) | Err(Failure::Panicked) | Err(Failure::Refused(_))) = arrived;
    }

    /// Puts all of a handoff into the world, or nothing of it.
    fn try_take(&mut self, handoff: &EntityHandoff, effects: &mut Effects<G>) -> Result<Vec<EntityId>, Option<CharacterId>> {
        let mut records = Vec::new();
        for bytes in std::iter::once(&handoff.record).chain(&handoff.attached) {
            records.push(self.arriving(bytes, handoff).ok_or(None)?);
        }
        let character = records.first().and_then(|record| record.identity.character);
        let sessions = records.iter().filter(|record| record.session.is_some()).count();
        let full = handoff.returned == 0 && self.world.session_count() + sessions > SESSIONS_PER_REGION_MAX;
        let here = records.iter().any(|record| self.has(record));
        if full || here {
            return Err(character);
        }
        self.world.begin();
        let later_ms = self.world.now_ms().wrapping_sub(handoff.now_ms) as i64;
        let slots: Option<Vec<u32>> = records.iter().map(|record| self.put_traveller(record, later_ms)).collect();
        let Some(slots) = slots else {
            self.world.roll_back();
            return Err(character);
        };
        self.world.commit();
        let now_ms = self.world.now_ms();
        for (slot, record) in slots.into_iter().zip(&records) {
            self.world.state.core.ledger.arrived += record.inventory.items.len() as u64;
            self.world.state.borders.entered.insert(record.entity(), now_ms);
            self.note_came(slot, record.entity());
            if let Some(character) = record.identity.character {
                self.world.state.borders.stubs.remove(character);
                self.note_location(slot, true);
                effects.arrived.push(character);
            }
        }
        Ok(records.iter().map(Record::entity).collect())
    }

    /// A record as it enters here: deadlines are as far away as they were.
    fn arriving(&self, bytes: &[u8], handoff: &EntityHandoff) -> Option<Record> {
        let mut record = Record::take(bytes).ok()?;
        let later_ms = self.world.now_ms().wrapping_sub(handoff.now_ms) as i64;
        record.identity.move_number.0 = record.identity.move_number.0.checked_add(u64::from(handoff.returned))?;
        if let Some((session, mover)) = &mut record.session {
            if let Presence::Away { since_ms } = &mut session.presence {
                *since_ms = since_ms.saturating_add_signed(later_ms);
            }
            mover.credit_tick = self.world.tick();
        }
        let needs_session = record.identity.character.is_some() == record.session.is_some();
        needs_session.then_some(record)
    }

    /// Whether any of it is here already.
    fn has(&self, record: &Record) -> bool {
        let character = record.identity.character;
        let known =
            |character| self.world.slot_of_character(character).is_some() || self.world.state.dormants.get(character).is_some();
        self.world.slot_of(record.entity()).is_some() || character.is_some_and(known)
    }

    fn put_traveller(&mut self, record: &Record, later_ms: i64) -> Option<u32> {
        let (slot, _) = self.world.put_record(record)?;
        for column in self.world.state.components.columns.values_mut() {
            column.shift_ms(slot, later_ms);
        }
        if let Some((session, mover)) = &record.session {
            self.world.put_session(slot, Some(session.clone()));
            self.world.put_mover(slot, Some(mover.clone()));
        }
        Some(slot)
    }

    /// There is no room: it goes back to where it came from, under the next number.
    fn send_back(&mut self, from: GroupId, handoff: &EntityHandoff, character: Option<CharacterId>, effects: &mut Effects<G>) {
        let back = EntityHandoff { returned: handoff.returned + 1, ..handoff.clone() };
        if !self.post(from, MessageBody::Handoff(back)) {
            self.keep_aside(handoff);
            return;
        }
        self.world.state.core.counters.handoffs_returned += 1;
        let neighbour = self.world.state.map.iter().find(|neighbour| neighbour.group == from.0).copied();
        if let (Some(character), Some(neighbour)) = (character, neighbour) {
            let session = Record::take(&handoff.record).ok().and_then(|record| record.session);
            let epoch = session.map_or(SessionEpoch(0), |(session, _)| session.epoch);
            let move_number = MoveNumber(handoff.move_number + u64::from(handoff.returned) + 1);
            let stub = Stub { group: from, region: RegionId(neighbour.region), move_number, epoch };
            self.moved_on(character, stub, effects);
        }
    }

    pub(crate) fn keep_aside(&mut self, handoff: &EntityHandoff) {
        std::sync::Arc::make_mut(&mut self.world.state.set_aside).push(handoff.clone());
        self.world.state.core.counters.handoffs_set_aside += 1;
    }

    /// Tries once a second to take what was set aside.
    pub(crate) fn retry_set_aside(&mut self, effects: &mut Effects<G>) {
        if self.world.state.set_aside.is_empty() || !self.world.tick().0.is_multiple_of(RETRY_EVERY_TICKS) {
            return;
        }
        let waiting = std::mem::take(&mut self.world.state.set_aside);
        let mut left = Vec::new();
        for handoff in waiting.iter() {
            match self.try_take(handoff, effects) {
                Ok(entities) => {
                    for entity in entities {
                        self.welcome_traveller(entity, self.world.group(), effects);
                    }
                }
                Err(_) => left.push(handoff.clone()),
            }
        }
        self.world.state.set_aside = std::sync::Arc::new(left);
    }
}
