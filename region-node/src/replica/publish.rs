//! What an applied entry makes edges hear of it.

use std::collections::BTreeMap;

use marchland_proto::cluster::{EntityRecord, SessionBatch, StoredReply};
use marchland_proto::records::OwnState;
use marchland_region_core::{Game, Region};
use marchland_types::{CellId, CharacterId, point};

use super::Replica;
use crate::hub::{TickChanges, ViewSource};

impl<G: Game> Replica<G> {
    /// The one way out of a region.
    pub(super) fn publish(&mut self) {
        let changes = self.changes();
        let stamp = self.stamp();
        point!("region.before_publish");
        self.hub.publish(stamp, changes, &Source(&self.region));
        point!("region.published");
    }

    fn changes(&mut self) -> TickChanges {
        let world = self.region.world();
        let mut changes = TickChanges::default();
        let record = |slot: u32| world.at_slot(slot).map(|view| view.record());
        for change in self.effects.appeared.iter().chain(&self.effects.looks) {
            changes.entities.extend(record(change.slot).map(|r| (r, change.cell)));
        }
        for moved in &self.effects.moved {
            let crossed = (moved.previous != moved.cell).then_some(moved.previous);
            if crossed.is_some() {
                changes.entities.extend(record(moved.motion.slot).map(|r| (r, moved.cell)));
            }
            changes.moved.push((moved.motion, moved.cell, crossed));
        }
        changes.left = self.effects.vanished.iter().map(|c| (c.slot, c.cell)).collect();
        changes.own = std::mem::take(&mut self.effects.own);
        let mut sessions: BTreeMap<CharacterId, SessionBatch> = BTreeMap::new();
        for reply in self.effects.replies.drain(..) {
            let batch = sessions.entry(reply.character).or_insert_with(|| SessionBatch {
                character: reply.character.0,
                epoch: reply.epoch.0,
                ..SessionBatch::default()
            });
            batch.replies.push(reply.reply);
        }
        changes.sessions = sessions.into_values().collect();
        changes.attached = std::mem::take(&mut self.effects.attached);
        changes.ended = std::mem::take(&mut self.effects.ended);
        changes.events = self.effects.area_events.drain(..).map(|event| (event.event, event.cell)).collect();
        changes
    }
}

/// Full views for the hub.
struct Source<'a, G: Game>(&'a Region<G>);

impl<G: Game> ViewSource for Source<'_, G> {
    fn cell(&self, cell: CellId) -> Vec<EntityRecord> {
        self.0.cell_entities(cell).map(|view| view.record()).collect()
    }

    fn own(&self, character: CharacterId) -> Option<OwnState> {
        self.0.own_state(character)
    }

    fn session(&self, character: CharacterId) -> Option<SessionBatch> {
        let session = self.0.session(character)?;
        let replies: Vec<StoredReply> = session.session.replies.iter().cloned().collect();
        let move_number = self.0.world().at_slot(session.slot)?.identity.move_number.0;
        Some(SessionBatch { character: character.0, epoch: session.epoch.0, replies, pinned: Vec::new(), move_number })
    }
}
