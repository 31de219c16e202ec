//! A region as it was at one moment: encoded, hashed and inspected away from the hot path.

use std::sync::Arc;

use marchland_proto::cluster;
use marchland_proto::storage::EntityHandoff;
use marchland_types::{CutNumber, LogIndex, Tick};

use crate::channel::Body;
use crate::codec::Writer;
use crate::game::Game;
use crate::record;
use crate::world::state::State;

/// A region's state at one moment. Sending and keeping it is cheap; whoever writes the region copies what it changes.
pub struct RegionView<G: Game> {
    pub(crate) game: Arc<G>,
    pub(crate) state: State,
}

impl<G: Game> RegionView<G> {
    /// The game whose rules made this state.
    #[must_use]
    pub fn game(&self) -> &Arc<G> {
        &self.game
    }

    /// Number of the last tick.
    #[must_use]
    pub fn tick(&self) -> Tick {
        self.state.core.tick
    }

    /// Index of the last entry.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.state.core.applied
    }

    /// The newest cut.
    #[must_use]
    pub fn cut_number(&self) -> CutNumber {
        self.state.core.cut
    }

    /// The rules and content in force.
    #[must_use]
    pub fn rules(&self) -> (u64, u64) {
        (self.state.core.rules_version, self.state.core.content_hash)
    }

    /// Hash of the whole state, computed from scratch. Equals the region's own hash when the view was taken between entries.
    #[must_use]
    pub fn state_hash_full(&self) -> u64 {
        self.state.hash(true, &mut Writer::new())
    }

    /// What an audit wants to know: every copy of every item, every character, the ledger and the hashes.
    #[must_use]
    pub fn inspect(&self) -> cluster::InspectReply {
        let mut reply = cluster::InspectReply {
            index: self.state.core.applied.0,
            tick: self.state.core.tick.0,
            state_hash: self.state_hash_full(),
            items_minted: self.state.core.ledger.minted,
            items_destroyed: self.state.core.ledger.destroyed,
            in_flight: self.in_flight(),
            taken: self.state.channels.taken().map(|(from, seq)| cluster::Taken { from_group: from.0, seq }).collect(),
            ..cluster::InspectReply::default()
        };
        for (_, inventory) in self.state.inventories.iter() {
            reply.items.extend(inventory.items.iter().map(|item| item.item.0));
        }
        for (slot, session) in self.state.sessions.iter() {
            reply.characters.push(session.character.0);
            reply.sessions.push(cluster::SessionSummary {
                character: session.character.0,
                name: self.state.identities.get(slot).map(|identity| identity.name.to_string()).unwrap_or_default(),
                epoch: session.epoch.0,
                applied_seq: self.state.movers.get(slot).map_or(0, |mover| mover.applied_seq.0),
                last_reply_seq: session.last_reply_seq.0,
                items: self
                    .state
                    .inventories
                    .get(slot)
                    .map_or_else(Vec::new, |inventory| inventory.items.iter().map(|item| item.item.0).collect()),
            });
        }
        for (character, dormant) in self.state.dormants.iter() {
            reply.characters.push(character.0);
            if let Ok(record) = record::Record::take(&dormant.record) {
                let items: Vec<u64> = record.inventory.items.iter().map(|item| item.item.0).collect();
                reply.items.extend_from_slice(&items);
                let (applied_seq, last_reply_seq) =
                    record.session.as_ref().map_or((0, 0), |(session, mover)| (mover.applied_seq.0, session.last_reply_seq.0));
                reply.sessions.push(cluster::SessionSummary {
                    character: character.0,
                    name: record.identity.name.to_string(),
                    epoch: dormant.epoch.0,
                    applied_seq,
                    last_reply_seq,
                    items,
                });
            }
        }
        for handoff in self.state.set_aside.iter() {
            let (items, characters) = carried(handoff);
            reply.items.extend(items);
            reply.characters.extend(characters);
        }
        reply.items.sort_unstable();
        reply.characters.sort_unstable();
        reply.sessions.sort_by_key(|session| session.character);
        let hashes = self.state.hashes(true, &mut Writer::new());
        reply.components = hashes.into_iter().map(|(name, hash)| cluster::ComponentHash { name: name.into(), hash }).collect();
        reply
    }

    /// What waits in outboxes and carries characters or items.
    fn in_flight(&self) -> Vec<cluster::InFlight> {
        let mut waiting = Vec::new();
        for (to, messages) in self.state.channels.outboxes() {
            for message in messages {
                let (items, characters) = match &message.body {
                    Some(Body::Handoff(handoff)) => carried(handoff),
                    Some(Body::Deposit(deposit)) => (record::items_of(&deposit.record), vec![deposit.character]),
                    _ => continue,
                };
                waiting.push(cluster::InFlight { to_group: to.0, seq: message.seq, items, characters });
            }
        }
        waiting
    }
}

/// Items and characters of a handoff.
fn carried(handoff: &EntityHandoff) -> (Vec<u64>, Vec<u64>) {
    let (mut items, mut characters) = (Vec::new(), Vec::new());
    for bytes in std::iter::once(&handoff.record).chain(&handoff.attached) {
        if let Ok(record) = record::Record::take(bytes) {
            items.extend(record.inventory.items.iter().map(|item| item.item.0));
            characters.extend(record.identity.character.map(|character| character.0));
        }
    }
    (items, characters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::Region;

    const fn is_sendable<T: Send + 'static>() {}

    /// Views are encoded on other threads, regions are driven by worker threads.
    #[expect(dead_code, reason = "compiling it is the test")]
    const fn views_and_regions_travel<G: Game>() {
        is_sendable::<RegionView<G>>();
        is_sendable::<Region<G>>();
    }
}
