//! A region as it was at one moment: encoded, hashed and inspected away from the hot path.

use std::sync::Arc;

use marchland_proto::cluster::{self, InFlight};
use marchland_proto::storage::EntityHandoff;
use marchland_types::{CutNumber, LogIndex, Tick};

use crate::channel::Body;
use crate::codec::Writer;
use crate::game::Game;
use crate::record::{self, Record};
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
            if let Ok(record) = Record::take(&dormant.record) {
                reply.items.extend(items_in(&record));
                reply.sessions.push(summary(character.0, dormant.epoch.0, &record));
            }
        }
        for handoff in self.state.set_aside.iter() {
            let held = carried(handoff);
            reply.items.extend(held.items);
            reply.characters.extend(held.characters);
            reply.sessions.extend(held.sessions);
        }
        reply.items.sort_unstable();
        reply.characters.sort_unstable();
        reply.sessions.sort_by_key(|session| session.character);
        let hashes = self.state.hashes(true, &mut Writer::new());
        reply.components = hashes.into_iter().map(|(name, hash)| cluster::ComponentHash { name: name.into(), hash }).collect();
        reply
    }

    /// What waits in outboxes and carries characters or items.
    fn in_flight(&self) -> Vec<InFlight> {
        let mut waiting = Vec::new();
        for (to, messages) in self.state.channels.outboxes() {
            for message in messages {
                let carried = match &message.body {
                    Some(Body::Handoff(handoff)) => carried(handoff),
                    Some(Body::Deposit(deposit)) => InFlight {
                        items: record::items_of(&deposit.record),
                        characters: vec![deposit.character],
                        ..InFlight::default()
                    },
                    _ => continue,
                };
                waiting.push(InFlight { to_group: to.0, seq: message.seq, ..carried });
            }
        }
        waiting
    }
}

/// What a handoff carries.
fn carried(handoff: &EntityHandoff) -> InFlight {
    let mut carried = InFlight::default();
    for bytes in std::iter::once(&handoff.record).chain(&handoff.attached) {
        let Ok(record) = Record::take(bytes) else { continue };
        carried.items.extend(items_in(&record));
        if let Some(character) = record.identity.character {
            carried.characters.push(character.0);
            let epoch = record.session.as_ref().map_or(0, |(session, _)| session.epoch.0);
            carried.sessions.push(summary(character.0, epoch, &record));
        }
    }
    carried
}

fn items_in(record: &Record) -> impl Iterator<Item = u64> + '_ {
    record.inventory.items.iter().map(|item| item.item.0)
}

fn summary(character: u64, epoch: u64, record: &Record) -> cluster::SessionSummary {
    let (applied_seq, last_reply_seq) =
        record.session.as_ref().map_or((0, 0), |(session, mover)| (mover.applied_seq.0, session.last_reply_seq.0));
    cluster::SessionSummary {
        character,
        name: record.identity.name.to_string(),
        epoch,
        applied_seq,
        last_reply_seq,
        items: items_in(record).collect(),
    }
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
