//! What an applied entry makes edges hear of it.

use std::collections::BTreeMap;

use marchland_proto::cluster::{self, EntityRecord, GhostPost, SessionBatch, SessionMoved, StoredReply};
use marchland_proto::records::OwnState;
use marchland_region_core::{Game, HandedOff, Region};
use marchland_types::{CellId, CharacterId, point};

use super::Replica;
use crate::hub::{TickChanges, ViewSource};

/// Ticks between two showings of ghosts.
const SHOW_EVERY_TICKS: u64 = 2;

impl<G: Game> Replica<G> {
    /// The one way out of a region.
    pub(super) fn publish(&mut self) {
        let changes = self.changes();
        let stamp = self.stamp();
        point!("region.before_publish");
        self.hub.publish(stamp, changes, &Source(&self.region));
        point!("region.published");
        self.show_neighbours();
    }

    /// What is near a border is shown to who is behind it, ten times a second.
    fn show_neighbours(&self) {
        let world = self.region.world();
        let (_, map) = world.map();
        if map.len() < 2 || !world.tick().0.is_multiple_of(SHOW_EVERY_TICKS) {
            return;
        }
        for neighbour in map.iter().filter(|neighbour| neighbour.region != world.region().0) {
            if let Some(batch) = self.region.ghosts_for(neighbour) {
                self.ghosts.put(GhostPost { to_group: neighbour.group, batch: Some(batch) });
            }
        }
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
        let handed: BTreeMap<u32, HandedOff> = self.effects.handed.iter().map(|handed| (handed.slot, *handed)).collect();
        for gone in &self.effects.vanished {
            match handed.get(&gone.slot).filter(|handed| handed.entity == gone.entity) {
                Some(handed) => changes.handed.push((wire(handed), gone.cell)),
                None => changes.left.push((gone.slot, gone.cell)),
            }
        }
        changes.gone_on = std::mem::take(&mut self.effects.sessions_moved);
        changes.arrived = std::mem::take(&mut self.effects.arrived);
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

fn wire(handed: &HandedOff) -> cluster::HandedOff {
    let HandedOff { slot, entity, move_number, to, .. } = *handed;
    cluster::HandedOff { slot, entity: entity.0, move_number: move_number.0, to_group: to.0 }
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

    fn moved(&self, character: CharacterId) -> Option<SessionMoved> {
        self.0.where_to(character, self.0.world().stub(character)?.epoch.0)
    }
}
