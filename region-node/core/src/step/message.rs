//! Messages of other groups: taken at last + 1 only, each once, whatever they hold.

use std::sync::Arc;

use marchland_proto::storage::{ChannelAck, ChannelMessage, DropStub, GameMessage, MapChange, Moved};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CharacterId, CutNumber, EntityId, GroupId, LogIndex, MapEpoch, MoveNumber, level, planted};

use crate::channel::Body;
use crate::doing::Handler;
use crate::effects::Effects;
use crate::game::{Game, Letter};
use crate::region::Region;
use crate::trouble::{CAUSE_PANIC, What};

/// How often a message for a character is sent on after it. Whoever moves faster than its messages gets none.
const FORWARDS_MAX: u32 = 8;

impl<G: Game> Region<G> {
    /// Counts a message as taken if it is the next of its channel; tells whether anything may be done about its content.
    pub(crate) fn receive(&mut self, message: &ChannelMessage, effects: &mut Effects<G>) -> bool {
        let from = GroupId(message.from_group);
        let inbox = self.world.state.channels.inbox(from);
        if message.seq <= inbox.taken {
            return false;
        }
        // Planted: what is missing is passed over.
        if message.seq != inbox.taken + 1 && !planted!("gap-accepted") {
            effects.gaps.push((from, inbox.taken + 1));
            return false;
        }
        // Whatever is passed over never arrives.
        level!("channel.passed_over", message.seq - inbox.taken - 1, 0);
        self.take_cut(CutNumber(message.cut), effects);
        self.world.channels_changed = true;
        self.world.state.channels.inbox_mut(from).taken = message.seq;
        if inbox.finished {
            self.refuse_message();
        }
        !inbox.finished
    }

    /// Whether a message was sent by a map that is known here. One that was sent by a newer one is not taken, and comes again: it may be about
    /// ground that this region does not know to be its own.
    pub(crate) fn knows_map_of(&self, message: &ChannelMessage) -> bool {
        let tells_map = matches!(message.body, Some(Body::MapChange(_)));
        tells_map || MapEpoch(message.map_epoch) <= self.world.state.core.map_epoch
    }

    /// Whether what follows from a message can be done. If not, it is not taken, and comes again.
    fn can_settle(&self, message: &ChannelMessage) -> bool {
        let answers = match &message.body {
            Some(Body::Handoff(_)) => return self.can_settle_handoff(),
            Some(Body::Admit(_) | Body::Game(_)) => 1,
            _ => 0,
        };
        let waiting = self.world.state.channels.waiting(GroupId(message.from_group));
        answers == 0 || waiting + answers < CHANNEL_MESSAGES_MAX
    }

    pub(crate) fn take_message(&mut self, index: LogIndex, message: &ChannelMessage, effects: &mut Effects<G>) {
        if !self.knows_map_of(message) || !self.can_settle(message) || !self.receive(message, effects) {
            return;
        }
        let from = GroupId(message.from_group);
        let panics = self.world.state.core.counters.panics;
        match &message.body {
            None => self.refuse_message(),
            Some(Body::Admit(admit)) => self.admit(from, admit, effects),
            Some(Body::Expel(expel)) => self.expel(expel, effects),
            Some(Body::MapChange(change)) => self.change_map(change),
            Some(Body::Handoff(handoff)) => self.take_handoff(from, handoff, effects),
            Some(Body::Game(letter)) => self.take_letter(from, letter, effects),
            Some(Body::Fin(_)) => self.world.state.channels.inbox_mut(from).finished = true,
            Some(Body::DropStub(drop)) => self.drop_stub(drop),
            Some(Body::Moved(moved)) => self.take_returned(from, moved, effects),
            // Where a character is concerns the directory, and this is no vault.
            Some(Body::Location(_) | Body::Deposit(_) | Body::Withdraw(_)) => self.refuse_message(),
        }
        if self.world.state.core.counters.panics > panics {
            self.set_aside(index, CAUSE_PANIC, What::Message(message.clone()));
        }
    }

    fn refuse_message(&mut self) {
        self.world.state.core.counters.messages_refused += 1;
    }

    /// A receiver has taken messages. A cut that it knows is taken here before they are forgotten: else neither view of it had them.
    pub(crate) fn take_ack(&mut self, ack: &ChannelAck, effects: &mut Effects<G>) {
        self.take_cut(CutNumber(ack.cut), effects);
        let trimmed = self.world.state.channels.acknowledge(GroupId(ack.from_group), ack.seq);
        self.world.channels_changed |= trimmed;
    }

    /// Posts a message; one that does not fit into its channel is counted.
    pub(crate) fn post(&mut self, to: GroupId, body: Body) -> bool {
        let from = self.world.group();
        let (cut, map_epoch) = (self.world.state.core.cut.0, self.world.state.core.map_epoch.0);
        let posted = self.world.state.channels.post(to, from, cut, map_epoch, body).is_ok();
        self.world.channels_changed |= posted;
        if !posted {
            self.world.state.core.counters.posts_refused += 1;
        }
        posted
    }

    fn change_map(&mut self, change: &MapChange) {
        let core = &mut self.world.state.core;
        if MapEpoch(change.map_epoch) > core.map_epoch {
            core.map_epoch = MapEpoch(change.map_epoch);
            self.world.state.map = Arc::new(change.map.clone());
            self.world.map_changed = true;
            self.world.look_at_map();
        }
    }

    /// The directory knows where a character went.
    fn drop_stub(&mut self, drop: &DropStub) {
        let character = CharacterId(drop.character);
        let stubs = &mut self.world.state.borders.stubs;
        if stubs.get(character).is_some_and(|stub| stub.move_number <= MoveNumber(drop.move_number)) {
            stubs.remove(character);
        }
    }

    fn take_letter(&mut self, from: GroupId, message: &GameMessage, effects: &mut Effects<G>) {
        let (character, entity) = (CharacterId(message.character), EntityId(message.entity));
        let to = match (character.0, entity.0) {
            (0, 0) => None,
            (0, _) => self.world.slot_of(entity).map(|_| entity),
            _ => self.world.entity_of(character),
        };
        if to.is_none() && (character.0, entity.0) != (0, 0) {
            self.send_on(from, message);
            return;
        }
        let from = if message.origin == 0 { from } else { GroupId(message.origin) };
        let _ = self.handle(effects, Handler::Letter(from, message.code), |game, ctx| {
            game.letter(ctx, Letter { from, code: message.code, to, body: &message.body });
            Ok::<_, std::convert::Infallible>(())
        });
    }

    /// Its addressee is not here: it goes where that went, or back to who posted it.
    fn send_on(&mut self, from: GroupId, message: &GameMessage) {
        let origin = if message.origin == 0 { from } else { GroupId(message.origin) };
        let stub = self.world.state.borders.stubs.get(CharacterId(message.character)).copied();
        if let Some(stub) = stub.filter(|stub| stub.region.0 != 0 && message.forwards < FORWARDS_MAX) {
            let on = GameMessage { origin: origin.0, forwards: message.forwards + 1, ..message.clone() };
            if self.post(stub.group, Body::Game(on)) {
                return;
            }
        }
        let returned = ChannelMessage { body: Some(Body::Game(message.clone())), ..ChannelMessage::default() };
        let moved = Moved { character: message.character, message: Some(Box::new(returned)) };
        self.post(origin, Body::Moved(Box::new(moved)));
    }

    /// A message of this region found nobody.
    fn take_returned(&mut self, from: GroupId, moved: &Moved, effects: &mut Effects<G>) {
        let Some(Body::Game(letter)) = moved.message.as_ref().and_then(|message| message.body.as_ref()) else {
            self.refuse_message();
            return;
        };
        let to = (letter.entity != 0).then_some(EntityId(letter.entity));
        let _ = self.handle(effects, Handler::Returned(from, letter.code), |game, ctx| {
            game.returned(ctx, Letter { from, code: letter.code, to, body: &letter.body });
            Ok::<_, std::convert::Infallible>(())
        });
    }
}
