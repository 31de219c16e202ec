//! The logical state of a region, all of it: what is hashed, stored and restored. Cloning it is cheap, because chunks are
//! shared until one side writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use marchland_proto::storage::{EntityHandoff, Genesis, LocationUpdate, Neighbour};
use marchland_types::{CharacterId, EntityId};
use prost::Message as _;

use super::core::Core;
use super::slots::Slots;
use crate::channel::Channels;
use crate::codec::{CodecError, Reader, Row as _, Writer};
use crate::component::Registry;
use crate::dormant::Dormants;
use crate::entity::{Body, Identity};
use crate::ghost::Ghosts;
use crate::hash::{hash, mix};
use crate::inventory::Inventory;
use crate::random::Pcg;
use crate::session::{Mover, Session};
use crate::stub::Stubs;
use crate::table::Table;
use crate::timer::Timers;
use crate::trouble::Trouble;

/// Handoffs that could be neither taken nor returned, kept so that nothing is lost.
pub(crate) const SET_ASIDE_MAX: usize = 1024;

pub(crate) const SEED_IDENTITIES: u64 = 1;
pub(crate) const SEED_BODIES: u64 = 2;
pub(crate) const SEED_MOVERS: u64 = 3;
pub(crate) const SEED_SESSIONS: u64 = 4;
pub(crate) const SEED_INVENTORIES: u64 = 5;

pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) genesis: Option<Arc<Genesis>>,
    pub(crate) map: Arc<Vec<Neighbour>>,
    pub(crate) slots: Slots,
    pub(crate) identities: Table<Identity>,
    pub(crate) bodies: Table<Body>,
    pub(crate) movers: Table<Mover>,
    pub(crate) sessions: Table<Session>,
    pub(crate) inventories: Table<Inventory>,
    pub(crate) components: Registry,
    pub(crate) timers: Timers,
    pub(crate) dormants: Dormants,
    pub(crate) channels: Channels,
    /// Places of characters that the directory was not told yet; only the newest of each.
    pub(crate) locations: BTreeMap<CharacterId, LocationUpdate>,
    pub(crate) streams: BTreeMap<u32, Pcg>,
    pub(crate) set_aside: Arc<Vec<EntityHandoff>>,
    pub(crate) trouble: Trouble,
    pub(crate) borders: Borders,
    /// Hash of the parts that change seldom, as of the last settling.
    seldom: Seldom,
}

/// What a region knows because it has neighbours. Empty in a world of one region.
#[derive(Clone, Debug, Default)]
pub(crate) struct Borders {
    /// What neighbours show.
    pub(crate) ghosts: Ghosts,
    /// Characters that went elsewhere.
    pub(crate) stubs: Stubs,
    /// Entities that came from elsewhere a short while ago, with the region time of that.
    pub(crate) entered: BTreeMap<EntityId, u64>,
}

impl Borders {
    pub(crate) fn is_empty(&self) -> bool {
        self.ghosts.is_empty() && self.stubs.len() == 0 && self.entered.is_empty()
    }

    fn mixed(&self, ghosts: u64, stubs: u64) -> u64 {
        if self.is_empty() {
            return 0;
        }
        self.entered.iter().fold(mix(ghosts, stubs), |state, (entity, ms)| mix(state, mix(entity.0, *ms)))
    }

    fn sum(&self) -> u64 {
        self.mixed(self.ghosts.sum(21), self.stubs.sum())
    }

    fn full_sum(&self) -> u64 {
        self.mixed(self.ghosts.full_sum(21), self.stubs.full_sum())
    }

    pub(crate) fn put(&self, out: &mut Writer) {
        self.ghosts.put(out);
        self.stubs.put(out);
        out.count(self.entered.len());
        for (entity, ms) in &self.entered {
            out.u64(entity.0);
            out.u64(*ms);
        }
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (ghosts, stubs) = (Ghosts::take(input)?, Stubs::take(input)?);
        let mut borders = Self { ghosts, stubs, entered: BTreeMap::new() };
        for _ in 0..input.count(16)? {
            borders.entered.insert(EntityId(input.u64()?), input.u64()?);
        }
        Ok(borders)
    }
}

#[derive(Clone, Copy, Default)]
struct Seldom {
    slots: u64,
    map: u64,
    channels: u64,
}

impl State {
    pub(crate) fn new(components: Registry) -> Self {
        Self {
            core: Core::default(),
            genesis: None,
            map: Arc::default(),
            slots: Slots::new(),
            identities: Table::new(SEED_IDENTITIES),
            bodies: Table::new(SEED_BODIES),
            movers: Table::new(SEED_MOVERS),
            sessions: Table::new(SEED_SESSIONS),
            inventories: Table::new(SEED_INVENTORIES),
            components,
            timers: Timers::default(),
            dormants: Dormants::new(),
            channels: Channels::default(),
            locations: BTreeMap::new(),
            streams: BTreeMap::new(),
            set_aside: Arc::default(),
            trouble: Trouble::default(),
            borders: Borders::default(),
            seldom: Seldom::default(),
        }
    }

    /// A copy that shares every chunk.
    pub(crate) fn share(&self) -> Self {
        Self {
            core: self.core.clone(),
            genesis: self.genesis.clone(),
            map: self.map.clone(),
            slots: self.slots.clone(),
            identities: self.identities.clone(),
            bodies: self.bodies.clone(),
            movers: self.movers.clone(),
            sessions: self.sessions.clone(),
            inventories: self.inventories.clone(),
            components: self.components.share(),
            timers: self.timers.clone(),
            dormants: self.dormants.clone(),
            channels: self.channels.clone(),
            locations: self.locations.clone(),
            streams: self.streams.clone(),
            set_aside: self.set_aside.clone(),
            trouble: self.trouble.clone(),
            borders: self.borders.clone(),
            seldom: self.seldom,
        }
    }

    /// Brings every sum up to date with what was written. `channels` and `map` say whether those were.
    pub(crate) fn settle(&mut self, channels: bool, map: bool, scratch: &mut Writer) {
        self.identities.settle(scratch);
        self.bodies.settle(scratch);
        self.movers.settle(scratch);
        self.sessions.settle(scratch);
        self.inventories.settle(scratch);
        for column in self.components.columns.values_mut() {
            column.settle(scratch);
        }
        if std::mem::take(&mut self.slots.changed) {
            self.seldom.slots = self.slots_sum();
        }
        if channels {
            self.seldom.channels = self.channels.sum();
        }
        if map {
            self.seldom.map = self.map_sum();
        }
    }

    fn slots_sum(&self) -> u64 {
        let mut out = Writer::new();
        self.slots.put(&mut out);
        hash(11, out.as_slice())
    }

    fn map_sum(&self) -> u64 {
        let genesis = self.genesis.as_ref().map_or(0, |genesis| hash(12, &genesis.encode_to_vec()));
        self.map.iter().fold(genesis, |state, neighbour| mix(state, hash(13, &neighbour.encode_to_vec())))
    }

    fn small_sum(&self, scratch: &mut Writer) -> (u64, u64, u64) {
        scratch.clear();
        self.core.put(scratch);
        let core = hash(14, scratch.as_slice());
        scratch.clear();
        for (system, stream) in &self.streams {
            scratch.u32(*system);
            stream.put(scratch);
        }
        let random = hash(15, scratch.as_slice());
        let mut waiting = 0;
        for location in self.locations.values() {
            waiting = mix(waiting, hash(16, &location.encode_to_vec()));
        }
        for handoff in self.set_aside.iter() {
            waiting = mix(waiting, hash(17, &handoff.encode_to_vec()));
        }
        waiting = self.trouble.sum(waiting);
        (core, random, waiting)
    }

    /// Every part with its hash, in a fixed order; `full` computes each from scratch.
    pub(crate) fn hashes(&self, full: bool, scratch: &mut Writer) -> Vec<(&'static str, u64)> {
        let pick = |incremental: u64, from_scratch: &dyn Fn() -> u64| if full { from_scratch() } else { incremental };
        let (core, random, waiting) = self.small_sum(scratch);
        let mut hashes = vec![
            ("core", core),
            ("random streams", random),
            ("waiting", waiting),
            ("slots", pick(self.seldom.slots, &|| self.slots_sum())),
            ("map", pick(self.seldom.map, &|| self.map_sum())),
            ("channels", pick(self.seldom.channels, &|| self.channels.full_sum())),
            ("identities", pick(self.identities.sum(), &|| self.identities.full_sum())),
            ("bodies", pick(self.bodies.sum(), &|| self.bodies.full_sum())),
            ("movers", pick(self.movers.sum(), &|| self.movers.full_sum())),
            ("sessions", pick(self.sessions.sum(), &|| self.sessions.full_sum())),
            ("inventories", pick(self.inventories.sum(), &|| self.inventories.full_sum())),
            ("timers", pick(self.timers.sum(), &|| self.timers.full_sum())),
            ("dormant characters", pick(self.dormants.sum(), &|| self.dormants.full_sum())),
            ("borders", pick(self.borders.sum(), &|| self.borders.full_sum())),
        ];
        for column in self.components.columns.values() {
            hashes.push((column.name(), pick(column.sum(), &|| column.full_sum())));
        }
        hashes
    }

    /// One hash of all parts.
    pub(crate) fn hash(&self, full: bool, scratch: &mut Writer) -> u64 {
        // What is empty beyond the first parts counts for nothing, so a build that knows more components agrees with one that does not.
        self.hashes(full, scratch)
            .into_iter()
            .enumerate()
            .fold(0, |state, (at, (_, hash))| if at >= FIXED_PARTS && hash == 0 { state } else { mix(state, hash) })
    }
}

/// Parts of [`State::hashes`] that always count.
const FIXED_PARTS: usize = 13;
