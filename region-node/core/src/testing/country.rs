//! Several regions of one world with the channels between them, tick by tick: what borders do, without a cluster.
//!
//! Messages, acknowledgements and ghosts take one tick. A region can be taken out of service: it takes part in nothing until it comes
//! back, as one whose group has no majority. Every region is checked after every tick, and so is that nobody is in two places.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use marchland_proto::storage::{
    Admit, AttachOrder, ChannelAck, ChannelMessage, Genesis, GhostBatch, Neighbour, RegionEntry, SessionInputs, StoredAction,
    StoredInput, StoredMove, TickEntry, channel_message, region_entry, stored_input,
};
use marchland_types::limits::TICK_MS;
use marchland_types::{CharacterId, EntityId, GroupId, LogIndex, RegionId};
use prost::Message as _;

use super::script::{BEGIN_MS, WORLD};
use crate::effects::Effects;
use crate::game::Game;
use crate::region::{ENTRY_FORMAT, Region};

/// One of the regions.
struct Part<G: Game> {
    region: Region<G>,
    index: u64,
    told: u64,
    next: TickEntry,
    /// No owner: it stands still.
    stopped: bool,
}

/// A character's numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    epoch: u64,
    seq: u64,
}

/// Regions side by side, numbered from 1, row by row.
pub struct Country<G: Game> {
    game: Arc<G>,
    map: Vec<Neighbour>,
    parts: BTreeMap<RegionId, Part<G>>,
    clients: BTreeMap<u64, Client>,
    now_ms: u64,
    /// What each region did in the last tick.
    pub effects: BTreeMap<RegionId, Effects<G>>,
}

impl<G: Game> Country<G> {
    /// `columns` × `rows` squares of `side_m`, all with these parameters.
    ///
    /// # Panics
    /// When the game can not make a region of them.
    pub fn new(game: G, parameters: &[u8], columns: u32, rows: u32, side_m: f32) -> Self {
        let game = Arc::new(game);
        let mut map = Vec::new();
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let region = RegionId(row * columns + column + 1);
            let (min_x, min_z) = (column as f32 * side_m, row as f32 * side_m);
            let group = GroupId::region(WORLD, region).0;
            map.push(Neighbour { region: region.0, group, min_x, min_z, max_x: min_x + side_m, max_z: min_z + side_m });
        }
        let mut country =
            Self { parts: BTreeMap::new(), clients: BTreeMap::new(), now_ms: BEGIN_MS, effects: BTreeMap::new(), map, game };
        for number in 1..=columns * rows {
            let mut part =
                Part { region: Region::new(country.game.clone()), index: 1, told: 0, next: TickEntry::default(), stopped: false };
            let genesis = Genesis {
                world: WORLD.0,
                region: number,
                seed: u64::from(number),
                rules_version: country.game.rules_version(),
                content_hash: country.game.content_hash(),
                parameters: Bytes::copy_from_slice(parameters),
                map: country.map.clone(),
                map_epoch: 1,
                vaults: 0,
            };
            part.region.apply(LogIndex(1), &entry(region_entry::Body::Genesis(genesis))).expect("a genesis");
            country.parts.insert(RegionId(number), part);
        }
        country
    }

    /// A region, to be read.
    ///
    /// # Panics
    /// When there is none with this number.
    pub fn region(&self, number: u32) -> &Region<G> {
        &self.parts[&RegionId(number)].region
    }

    /// A region loses its owner, or has one again.
    pub fn stop(&mut self, number: u32, stopped: bool) {
        if let Some(part) = self.parts.get_mut(&RegionId(number)) {
            part.stopped = stopped;
        }
    }

    /// A replica is restored from a checkpoint.
    ///
    /// # Panics
    /// When it can not be.
    pub fn restore(&mut self, number: u32) {
        let part = self.parts.get_mut(&RegionId(number)).expect("a region");
        let bytes = part.region.view().encode();
        let restored = Region::decode(self.game.clone(), &bytes).expect("a state");
        assert_eq!(restored.state_hash(), part.region.state_hash(), "a restored region is the same");
        part.region = restored;
    }

    /// For whatever has no method here: the coming tick of a region.
    ///
    /// # Panics
    /// When there is none with this number.
    pub fn pending(&mut self, number: u32) -> &mut TickEntry {
        &mut self.parts.get_mut(&RegionId(number)).expect("a region").next
    }

    /// The directory's next message to a region.
    pub fn tell(&mut self, number: u32, body: channel_message::Body) {
        let Some(part) = self.parts.get_mut(&RegionId(number)) else { return };
        part.told += 1;
        let from_group = GroupId::directory(WORLD).0;
        part.next.messages.push(ChannelMessage { from_group, seq: part.told, cut: 0, map_epoch: 1, body: Some(body) });
    }

    /// From here on everybody is shown by this map; a region goes by it when it is told so.
    pub fn draw_map(&mut self, map: Vec<Neighbour>) {
        self.map = map;
    }

    /// The map by which everybody is shown.
    pub fn map(&self) -> &[Neighbour] {
        &self.map
    }

    /// A character enters a region, with a client.
    pub fn enter(&mut self, number: u32, character: u64, name: &str) {
        let client = self.clients.entry(character).or_default();
        *client = Client { epoch: client.epoch + 1, seq: 0 };
        let epoch = client.epoch;
        let secret_hash = Bytes::copy_from_slice(&character.to_le_bytes());
        let admit = Admit {
            character,
            epoch,
            secret_hash: secret_hash.clone(),
            name: name.into(),
            account: name.into(),
            move_number: 1,
            ..Admit::default()
        };
        self.tell(number, channel_message::Body::Admit(admit));
        let order = AttachOrder { character, epoch, attach: 1, secret_hash, last_reply_seq: 0 };
        self.pending(number).attaches.push(order);
    }

    /// Which region has a character.
    pub fn place_of(&self, character: u64) -> Option<u32> {
        let has = |part: &Part<G>| part.region.world().entity_of(CharacterId(character)).is_some();
        self.parts.iter().find(|(_, part)| has(part)).map(|(number, _)| number.0)
    }

    /// Which region has an entity.
    pub fn region_of(&self, entity: EntityId) -> Option<u32> {
        self.parts.iter().find(|(_, part)| part.region.world().slot_of(entity).is_some()).map(|(number, _)| number.0)
    }

    /// Where an entity is.
    pub fn position(&self, entity: EntityId) -> Option<[f32; 3]> {
        self.region(self.region_of(entity)?).world().position(entity)
    }

    fn input(&mut self, character: u64, duration_ms: u32, what: stored_input::What) {
        let client = self.clients.entry(character).or_default();
        // As an edge does: what a region that has the character does not know goes there, and nothing anywhere else.
        client.seq += 1;
        let (epoch, seq) = (client.epoch, client.seq);
        let Some(number) = self.place_of(character) else {
            self.clients.entry(character).or_default().seq -= 1;
            return;
        };
        let inputs = vec![StoredInput { seq, client_tick: 0, duration_ms, what: Some(what) }];
        self.pending(number).sessions.push(SessionInputs { character, epoch, attach: 1, inputs, acked_reply_seq: 0 });
    }

    /// A character walks for one tick. One that is on its way between two regions does nothing.
    pub fn walk(&mut self, character: u64, direction: [f32; 2]) {
        let wanted = StoredMove { x: direction[0], z: direction[1], yaw: 0 };
        self.input(character, TICK_MS as u32, stored_input::What::Move(wanted));
    }

    /// A character acts.
    pub fn act(&mut self, character: u64, code: u32, body: impl Into<Bytes>) {
        self.input(character, 0, stored_input::What::Action(StoredAction { code, body: body.into() }));
    }

    /// One tick of every region that has an owner, then the delivery of what they posted and show.
    ///
    /// # Panics
    /// When an entry is refused, or a region's state is one that can not be, or anybody is in two places.
    pub fn tick(&mut self) {
        self.now_ms += TICK_MS;
        self.effects.clear();
        for (number, part) in self.parts.iter_mut().filter(|(_, part)| !part.stopped) {
            let mut tick = std::mem::take(&mut part.next);
            tick.now_ms = self.now_ms;
            part.index += 1;
            let effects = part.region.apply(LogIndex(part.index), &entry(region_entry::Body::Tick(tick)));
            self.effects.insert(*number, effects.expect("a tick"));
            part.region.check().expect("a state that can be");
        }
        self.deliver();
        self.show();
        self.check();
    }

    /// `count` ticks.
    pub fn ticks(&mut self, count: u32) {
        (0..count).for_each(|_| self.tick());
    }

    fn deliver(&mut self) {
        let numbers: Vec<RegionId> = self.parts.keys().copied().collect();
        for number in numbers {
            let from = GroupId::region(WORLD, number);
            let posted: Vec<(GroupId, Vec<ChannelMessage>)> = {
                let part = &self.parts[&number];
                let copy = |messages: &mut dyn Iterator<Item = &Arc<ChannelMessage>>| messages.map(|m| (**m).clone()).collect();
                part.region.outbox().map(|(to, mut messages)| (to, copy(&mut messages))).collect()
            };
            for (to, messages) in posted {
                let Some(last) = messages.last().map(|message| message.seq) else { continue };
                if to.kind() != Some(marchland_types::GroupKind::Region) {
                    // The directory: it takes everything.
                    self.ack(number, to, last);
                    continue;
                }
                let Some(receiver) = self.parts.get_mut(&RegionId(to.serial())) else { continue };
                let taken = receiver.region.taken_from(from);
                let waits: BTreeSet<(u64, u64)> = receiver.next.messages.iter().map(|m| (m.from_group, m.seq)).collect();
                let new = messages.into_iter().filter(|m| m.seq > taken && !waits.contains(&(from.0, m.seq)));
                receiver.next.messages.extend(new);
                self.ack(number, to, taken);
            }
        }
    }

    fn ack(&mut self, sender: RegionId, receiver: GroupId, seq: u64) {
        if let Some(part) = self.parts.get_mut(&sender) {
            part.next.acks.retain(|ack| ack.from_group != receiver.0);
            part.next.acks.push(ChannelAck { from_group: receiver.0, seq, cut: 0 });
        }
    }

    fn show(&mut self) {
        let mut shown: Vec<(RegionId, GhostBatch)> = Vec::new();
        for (number, part) in self.parts.iter().filter(|(_, part)| !part.stopped && part.region.tick().0.is_multiple_of(2)) {
            for neighbour in self.map.iter().filter(|neighbour| neighbour.region != number.0) {
                shown.extend(part.region.ghosts_for(neighbour).map(|batch| (RegionId(neighbour.region), batch)));
            }
        }
        for (to, batch) in shown {
            if let Some(part) = self.parts.get_mut(&to).filter(|part| !part.stopped) {
                part.next.ghosts.retain(|waiting| waiting.from_group != batch.from_group);
                part.next.ghosts.push(batch);
            }
        }
    }

    fn check(&self) {
        let mut seen = BTreeSet::new();
        for (number, part) in &self.parts {
            for view in part.region.world().entities() {
                assert!(seen.insert(view.identity.entity), "entity {} is in region {number} and elsewhere", view.identity.entity);
            }
        }
    }
}

fn entry(body: region_entry::Body) -> Vec<u8> {
    RegionEntry { format: ENTRY_FORMAT, body: Some(body) }.encode_to_vec()
}
