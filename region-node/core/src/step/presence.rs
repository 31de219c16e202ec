//! Characters that come into the world and leave it, and the directory's knowledge of that.

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::{Admit, ChannelMessage, Deposit, EntityHandoff, Expel, LocationUpdate, Moved};
use marchland_types::limits::{CARRIED_MAX_BYTES, CHANNEL_MESSAGES_MAX, SESSIONS_PER_REGION_MAX};
use marchland_types::{CharacterId, GroupId, MoveNumber, RegionId, SessionEpoch, planted, vault_of};

use crate::channel::Body as MessageBody;
use crate::context::Context;
use crate::doing::Handler;
use crate::dormant::Dormant;
use crate::effects::Effects;
use crate::entity::Body;
use crate::game::{Entrance, Game};
use crate::ground::{Ground, WALKER_RADIUS_M};
use crate::record::Record;
use crate::region::Region;
use crate::session::{Mover, Presence, Session};
use crate::stub::Stub;
use crate::timer::TimerId;

/// Locations that are told in one tick, so that a mass log-in does not fill the channel at once.
const LOCATIONS_PER_TICK_MAX: usize = 256;

/// The move number of a character that has never been anywhere.
const FIRST_MOVE: MoveNumber = MoveNumber(1);

/// The session that a sign-in brings.
pub(crate) struct FreshSession {
    epoch: SessionEpoch,
    secret_hash: Bytes,
    name: String,
}

impl<G: Game> Region<G> {
    /// The directory has admitted a character.
    pub(crate) fn admit(&mut self, from: GroupId, admit: &Admit, effects: &mut Effects<G>) {
        let character = CharacterId(admit.character);
        let epoch = SessionEpoch(admit.epoch);
        if character.0 == 0 {
            self.world.state.core.counters.messages_refused += 1;
            return;
        }
        if let Some((slot, session, _)) = self.world.session_of(character) {
            if epoch > session.epoch {
                self.take_over(slot, admit, effects);
            }
            if !admit.carried.is_empty() {
                // It is here already, and comes once more: one of the two is none. Nothing is thrown away.
                self.keep_unreadable(admit);
            }
            return;
        }
        if self.world.state.dormants.get(character).is_some_and(|dormant| dormant.epoch >= epoch) {
            return;
        }
        if admit.carried.is_empty() && self.has_gone(character, MoveNumber(admit.move_number)) {
            let message = ChannelMessage { body: Some(MessageBody::Admit(admit.clone())), ..ChannelMessage::default() };
            self.post(from, MessageBody::Moved(Box::new(Moved { character: character.0, message: Some(Box::new(message)) })));
            return;
        }
        if self.world.session_count() >= SESSIONS_PER_REGION_MAX {
            self.world.state.core.counters.admissions_refused += 1;
            self.keep_carried(admit);
            return;
        }
        let fresh = FreshSession { epoch, secret_hash: admit.secret_hash.clone(), name: admit.name.clone() };
        let dormant = self.world.state.dormants.get(character).map(|dormant| dormant.record.clone());
        let entered = match dormant.as_deref().or((!admit.carried.is_empty()).then_some(&admit.carried)) {
            None => self.enter(character, fresh, MoveNumber(admit.move_number), effects),
            Some(bytes) => match Record::take(bytes) {
                Ok(mut record) => {
                    record.identity.move_number = record.identity.move_number.max(MoveNumber(admit.move_number));
                    record.identity.character = Some(character);
                    self.name_template(&mut record, admit);
                    let arrived = if dormant.is_none() { record.inventory.items.len() as u64 } else { 0 };
                    let entered = self.wake(character, record, Some(fresh), effects);
                    if entered.is_some() {
                        self.world.state.core.ledger.arrived += arrived;
                    }
                    entered
                }
                Err(_) => None,
            },
        };
        if entered.is_none() {
            self.world.state.core.counters.admissions_refused += 1;
            if dormant.is_none() {
                self.keep_carried(admit);
            }
        } else {
            self.world.state.borders.stubs.remove(character);
        }
    }

    /// A character that was made with many others has no entity and no name yet.
    fn name_template(&mut self, record: &mut Record, admit: &Admit) {
        if record.identity.entity.0 == 0
            && let Some(entity) = self.world.new_entity_id()
        {
            record.identity.entity = entity;
            record.identity.name = admit.name.as_str().into();
        }
    }

    /// A character that came with its admission and can not enter now is kept here until it is admitted again.
    fn keep_carried(&mut self, admit: &Admit) {
        let character = CharacterId(admit.character);
        if admit.carried.is_empty() {
            return;
        }
        let record = match Record::take(&admit.carried) {
            Ok(mut record) => {
                record.identity.move_number = record.identity.move_number.max(MoveNumber(admit.move_number));
                record.identity.character = Some(character);
                self.name_template(&mut record, admit);
                record
            }
            // What can not be read is no character; it is kept to be looked at.
            Err(_) => return self.keep_unreadable(admit),
        };
        self.world.state.core.ledger.arrived += record.inventory.items.len() as u64;
        let dormant = Dormant { epoch: SessionEpoch(admit.epoch), resumable: false, record: record.put() };
        self.world.state.dormants.insert(character, dormant);
        self.world.state.borders.stubs.remove(character);
        let (group, move_number) = (self.world.group().0, record.identity.move_number.0);
        let update = LocationUpdate { character: character.0, move_number, group, present: false };
        self.world.state.locations.insert(character, update);
    }

    fn keep_unreadable(&mut self, admit: &Admit) {
        let kept = EntityHandoff { record: admit.carried.clone(), move_number: admit.move_number, ..EntityHandoff::default() };
        self.keep_aside(&kept);
    }

    /// Whether a character that the directory sends for is elsewhere by now: it left, or it never came with that number.
    fn has_gone(&self, character: CharacterId, move_number: MoveNumber) -> bool {
        let left = self.world.state.borders.stubs.get(character).is_some();
        left || (move_number > FIRST_MOVE && self.world.state.dormants.get(character).is_none())
    }

    /// A newer sign-in of a character that is in the world: the session begins anew, the character goes on.
    fn take_over(&mut self, slot: u32, admit: &Admit, effects: &mut Effects<G>) {
        self.end_attach(slot, Code::Superseded, effects);
        let now_ms = self.world.now_ms();
        let session = Session::new(CharacterId(admit.character), SessionEpoch(admit.epoch), admit.secret_hash.clone(), now_ms);
        self.world.put_session(slot, Some(session));
        let mover = Mover { credit_tick: self.world.tick(), ..Mover::default() };
        self.world.put_mover(slot, Some(mover));
        self.note_location(slot, true);
    }

    /// A newer session of the character lives elsewhere.
    pub(crate) fn expel(&mut self, expel: &Expel, effects: &mut Effects<G>) {
        let Some((slot, session, _)) = self.world.session_of(CharacterId(expel.character)) else { return };
        if session.epoch < SessionEpoch(expel.epoch) {
            self.end_attach(slot, Code::Superseded, effects);
            self.leave(slot, false, effects);
        }
    }

    /// The same without a word to the game.
    pub(crate) fn expel_quietly(&mut self, expel: &Expel, effects: &mut Effects<G>) {
        let Some((slot, session, _)) = self.world.session_of(CharacterId(expel.character)) else { return };
        if session.epoch < SessionEpoch(expel.epoch) {
            self.end_attach(slot, Code::Superseded, effects);
            self.leave_quietly(slot, false, effects);
        }
    }

    fn enter(
        &mut self,
        character: CharacterId,
        fresh: FreshSession,
        move_number: MoveNumber,
        effects: &mut Effects<G>,
    ) -> Option<u32> {
        let entered = self.handle(effects, Handler::Enter(character), |game, ctx| {
            let mut spawn = game.enter(ctx, character, &fresh.name);
            spawn.name = fresh.name;
            spawn.position = free_place(ctx.ground(), spawn.position);
            let entity = ctx.world.spawn(spawn, Some(character), move_number).ok_or(())?;
            let slot = ctx.world.slot_of(entity).ok_or(())?;
            begin_session(ctx, slot, Session::new(character, fresh.epoch, fresh.secret_hash, ctx.now_ms()), Mover::default());
            game.entered(ctx, entity, Entrance::First);
            Ok::<_, ()>(slot)
        });
        let slot = entered.ok()?;
        self.note_location(slot, true);
        Some(slot)
    }

    /// Brings a character back into the world: with a fresh session, or with the one that it had.
    pub(crate) fn wake(
        &mut self,
        character: CharacterId,
        record: Record,
        fresh: Option<FreshSession>,
        effects: &mut Effects<G>,
    ) -> Option<u32> {
        let entered = self.handle(effects, Handler::Enter(character), |game, ctx| {
            if ctx.world.slot_of(record.entity()).is_some() {
                return Err(());
            }
            let (slot, entity) = ctx.world.put_record(&record).ok_or(())?;
            let view = ctx.world.at_slot(slot).ok_or(())?;
            // If borders have moved since, or it comes from elsewhere, it may stand on another region's ground, and goes there from here.
            let position = free_place(ctx.ground(), view.body.position);
            let discontinuity = view.body.discontinuity.wrapping_add(1);
            let body = Body { position, velocity: [0.0; 3], discontinuity, ..*view.body };
            ctx.world.put_body(slot, Some(body));
            let (session, mover) = match fresh {
                Some(fresh) => (Session::new(character, fresh.epoch, fresh.secret_hash, ctx.now_ms()), Mover::default()),
                None => record.session.ok_or(())?,
            };
            begin_session(ctx, slot, session, mover);
            game.entered(ctx, entity, Entrance::Return);
            Ok(slot)
        });
        let slot = entered.ok()?;
        self.world.state.dormants.remove(character);
        self.note_location(slot, true);
        Some(slot)
    }

    /// Takes a character out of the world. When `resumable`, its session goes on and may be taken up with its secret.
    pub(crate) fn leave(&mut self, slot: u32, resumable: bool, effects: &mut Effects<G>) {
        let Some(view) = self.world.at_slot(slot) else { return };
        let entity = view.identity.entity;
        let _ = self.handle(effects, Handler::Leaving(entity), |game, ctx| {
            game.leaving(ctx, entity);
            Ok::<_, std::convert::Infallible>(())
        });
        self.leave_quietly(slot, resumable, effects);
    }

    /// The same without a word to the game.
    pub(crate) fn leave_quietly(&mut self, slot: u32, resumable: bool, effects: &mut Effects<G>) {
        if self.deposit(slot, effects) {
            return;
        }
        self.note_location(slot, false);
        let Some((session, _)) = self.world.session_at(slot) else { return };
        let (character, epoch) = (session.character, session.epoch);
        let Some(mut record) = Record::of(&self.world, slot, resumable) else { return };
        let entity = record.entity();
        if let Some((_, mover)) = &mut record.session {
            mover.queue.clear();
            mover.move_left_ms = 0;
        }
        let dormant = Dormant { epoch, resumable, record: record.put() };
        self.world.state.dormants.insert(character, dormant);
        self.note_put_away(slot, entity, character);
        self.world.put_inventory(slot, None);
        self.world.despawn(slot);
    }

    /// Sends a character that leaves the world to its vault. False when there is none, or none that takes it: the region keeps it then.
    fn deposit(&mut self, slot: u32, effects: &mut Effects<G>) -> bool {
        let vaults = self.world.state.genesis.as_ref().map_or(0, |genesis| genesis.vaults);
        let Some((session, _)) = self.world.session_at(slot).filter(|_| vaults > 0) else { return false };
        let (character, epoch) = (session.character, session.epoch);
        let Some(mut record) = Record::of(&self.world, slot, false) else { return false };
        let move_number = record.identity.move_number.next();
        record.identity.move_number = move_number;
        let vault = vault_of(self.world.world(), vaults, character);
        let items: Vec<u64> = record.inventory.items.iter().map(|item| item.item.0).collect();
        let bytes = record.put();
        if bytes.len() + 10 * items.len() > CARRIED_MAX_BYTES {
            return false;
        }
        let deposit =
            Deposit { character: character.0, epoch: epoch.0, move_number: move_number.0, record: bytes, items: items.clone() };
        if !self.post(vault, MessageBody::Deposit(deposit)) {
            return false;
        }
        self.moved_on(character, Stub { group: vault, region: RegionId(0), move_number, epoch }, effects);
        self.note_put_away(slot, record.entity(), character);
        self.world.state.core.ledger.left += items.len() as u64;
        self.world.put_inventory(slot, None);
        self.world.despawn(slot);
        true
    }

    /// Characters whose client was lost long enough ago leave the world.
    pub(crate) fn end_lingering(&mut self, effects: &mut Effects<G>) {
        if self.world.away_count() == 0 {
            return;
        }
        let (now_ms, linger_ms) = (self.world.now_ms(), self.game.linger_ms());
        let over: Vec<u32> = self
            .world
            .state
            .sessions
            .iter()
            .filter(|(_, session)| match session.presence {
                Presence::Attached => false,
                Presence::Away { since_ms } => since_ms.saturating_add(linger_ms) <= now_ms,
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in over {
            self.leave(slot, true, effects);
        }
    }

    pub(crate) fn note_location(&mut self, slot: u32, present: bool) {
        let group = self.world.group();
        let Some(identity) = self.world.state.identities.get(slot) else { return };
        let Some(character) = identity.character else { return };
        let move_number = identity.move_number.0;
        let update = LocationUpdate { character: character.0, move_number, group: group.0, present };
        self.world.state.locations.insert(character, update);
    }

    /// Posts what the directory was not told yet, as far as its channel has room.
    pub(crate) fn tell_locations(&mut self) {
        let directory = GroupId::directory(self.world.world());
        let room = (CHANNEL_MESSAGES_MAX / 2).saturating_sub(self.world.state.channels.waiting(directory));
        for _ in 0..room.min(LOCATIONS_PER_TICK_MAX) {
            let locations = &mut self.world.state.locations;
            // Planted: in the order of a hash set, which is another one on every replica.
            let next = if planted!("hash-map-order") {
                let any = locations.keys().copied().collect::<std::collections::HashSet<_>>().into_iter().next();
                any.and_then(|character| locations.remove_entry(&character))
            } else {
                locations.pop_first()
            };
            let Some((_, update)) = next else { return };
            self.post(directory, MessageBody::Location(update));
        }
    }
}

fn begin_session<G: Game>(ctx: &mut Context<'_, G>, slot: u32, mut session: Session, mut mover: Mover) {
    session.presence = Presence::Away { since_ms: ctx.now_ms() };
    mover.credit_ms = 0;
    mover.credit_tick = ctx.tick();
    ctx.world.put_session(slot, Some(session));
    ctx.world.put_mover(slot, Some(mover));
}

/// The free place nearest to `at`, by rings of a walker's width up to 64 m, or `at` itself when there is none.
pub(crate) fn free_place(ground: &impl Ground, at: [f32; 3]) -> [f32; 3] {
    let at = at.map(crate::world::within_reach);
    let [low, high] = ground.bounds();
    let center = [at[0].clamp(low[0], high[0]), at[2].clamp(low[1], high[1])];
    let step = 2.0 * WALKER_RADIUS_M;
    for ring in 0..108_i32 {
        for x in -ring..=ring {
            for z in -ring..=ring {
                if x.abs().max(z.abs()) == ring {
                    let place = [center[0] + x as f32 * step, center[1] + z as f32 * step];
                    if ground.is_free(place) {
                        return [place[0], ground.height(place), place[1]];
                    }
                }
            }
        }
    }
    at
}

impl crate::world::World {
    /// Puts a record's entity into the world, without a session. `None` when the region is full or a component is none.
    pub(crate) fn put_record(&mut self, record: &Record) -> Option<(u32, marchland_types::EntityId)> {
        let slot = self.take_slot()?;
        self.put_identity(slot, Some(record.identity.clone()));
        self.put_body(slot, Some(record.body));
        self.put_inventory(slot, Some(record.inventory.clone()));
        for (tag, bytes) in &record.components {
            self.put_component_bytes(*tag, slot, bytes).ok()?;
        }
        for (left_ms, timer) in &record.timers {
            self.state.core.next_timer += 1;
            let id = TimerId { due_ms: self.now_ms().saturating_add(*left_ms), number: self.state.core.next_timer };
            self.put_timer(id, Some(*timer));
        }
        Some((slot, record.entity()))
    }
}
