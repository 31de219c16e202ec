//! Keeping what handlers did, while somebody asks for it.

use bytes::Bytes;
use marchland_types::{CharacterId, CommandSeq, EntityId};

use crate::deed::{Deed, DeedAnswer, DeedOutcome, Holder, ItemMove};
use crate::doing::Handler;
use crate::game::Game;
use crate::region::Region;

impl<G: Game> Region<G> {
    /// Keeps from here on what handlers do, until it is taken by [`Region::take_deeds`]. Costs time and memory, and changes nothing else.
    pub fn trace(&mut self) {
        self.deeds.get_or_insert_default();
    }

    /// What handlers did since it was taken last, in order.
    pub fn take_deeds(&mut self) -> Vec<Deed> {
        self.deeds.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A handler ends; its journal is still there.
    pub(crate) fn note_deed(&mut self, handler: Handler, outcome: DeedOutcome) {
        if let Some(deeds) = &mut self.deeds {
            let items = if outcome == DeedOutcome::Done { self.world.items_moved(handler) } else { Vec::new() };
            deeds.push(Deed { handler, outcome, answer: None, items });
        }
    }

    /// The command whose handler ran last is answered.
    pub(crate) fn note_answer(&mut self, character: CharacterId, seq: CommandSeq, code: u32, body: &Bytes) {
        if let Some(deed) = self.deeds.as_mut().and_then(|deeds| deeds.last_mut())
            && let (Handler::Command(..), None) = (deed.handler, &deed.answer)
        {
            deed.answer = Some(DeedAnswer { character, seq, code, body: body.clone() });
        }
    }

    /// An entity goes to another region with what it holds.
    pub(crate) fn note_sent(&mut self, slot: u32, entity: EntityId) {
        self.note_crossing(Handler::Departing(entity), slot, Holder::Entity(entity), Holder::Nobody);
    }

    /// An entity came from another region with what it holds.
    pub(crate) fn note_came(&mut self, slot: u32, entity: EntityId) {
        self.note_crossing(Handler::Arrived(entity), slot, Holder::Nobody, Holder::Entity(entity));
    }

    fn note_crossing(&mut self, handler: Handler, slot: u32, from: Holder, to: Holder) {
        let Some(deeds) = &mut self.deeds else { return };
        let held = self.world.state.inventories.get(slot).map_or(&[][..], |inventory| &inventory.items);
        let items = held.iter().map(|item| ItemMove { item: item.item, kind: item.kind, from, to }).collect();
        deeds.push(Deed { handler, outcome: DeedOutcome::Done, answer: None, items });
    }

    /// A character leaves the world with what it holds.
    pub(crate) fn note_put_away(&mut self, slot: u32, entity: EntityId, character: CharacterId) {
        self.note_crossing(Handler::Leaving(entity), slot, Holder::Entity(entity), Holder::Dormant(character));
    }
}
