//! What an observer knows of one region: who stood where, over its last ticks.

use std::collections::{BTreeMap, HashMap, VecDeque};

use anyhow::{Context, bail};
use marchland_proto::cluster::{CellPart, RegionBatch};
use marchland_proto::records::Motion;

/// Ticks that are remembered: a frame may come this much later than the observer's batch.
const TICKS_KEPT: usize = 64;

/// Positions of everybody in a region after one tick, in quanta.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    tick: u64,
    /// Region time, in milliseconds since 1970.
    pub(super) server_ms: u64,
    all: Vec<(u64, [i32; 2])>,
    index: HashMap<u64, usize>,
}

impl Snapshot {
    /// Everybody, with their positions.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, [i32; 2])> {
        self.all.iter().copied()
    }

    /// Where somebody stood.
    pub(super) fn position(&self, entity: u64) -> Option<[i32; 2]> {
        self.index.get(&entity).map(|&i| self.all[i].1)
    }
}

/// One region, over the last ticks.
#[derive(Default)]
pub(super) struct Track {
    /// Entity and position by slot.
    slots: BTreeMap<u32, (u64, [i32; 2])>,
    ticks: VecDeque<Snapshot>,
}

impl Track {
    /// Takes the observer's batch of one tick. Returns who went to another region with it, and where they stood.
    pub(super) fn take(&mut self, batch: &RegionBatch) -> anyhow::Result<Vec<(u64, [i32; 2])>> {
        let mut handed = Vec::new();
        for part in &batch.cells {
            if part.full && !self.slots.is_empty() && self.ticks.len() > 1 {
                bail!("the observer missed a batch at tick {}", batch.tick);
            }
            self.let_go(part, &mut handed);
        }
        for part in &batch.cells {
            for record in &part.entities {
                self.slots.insert(record.slot, (record.entity, [record.x, record.z]));
            }
        }
        for part in &batch.cells {
            for motion in Motion::iter(&part.motion).context("motion records")? {
                if let Some((_, at)) = self.slots.get_mut(&motion.slot) {
                    *at = [motion.x, motion.z];
                }
            }
        }
        let all: Vec<_> = self.slots.values().copied().collect();
        let index = all.iter().enumerate().map(|(i, (entity, _))| (*entity, i)).collect();
        self.ticks.push_back(Snapshot { tick: batch.tick, server_ms: batch.server_ms, all, index });
        if self.ticks.len() > TICKS_KEPT {
            self.ticks.pop_front();
        }
        Ok(handed)
    }

    fn let_go(&mut self, part: &CellPart, handed: &mut Vec<(u64, [i32; 2])>) {
        for slot in &part.left {
            // It left this cell; if it came into another one, that one's part names it again.
            self.slots.remove(slot);
        }
        for gone in &part.handed {
            if self.slots.get(&gone.slot).is_some_and(|(entity, _)| *entity == gone.entity) {
                handed.extend(self.slots.remove(&gone.slot));
            }
        }
    }

    /// The newest tick.
    pub(super) fn tick(&self) -> u64 {
        self.ticks.back().map_or(0, |s| s.tick)
    }

    /// Region time of the newest tick.
    pub(super) fn server_ms(&self) -> u64 {
        self.ticks.back().map_or(0, |s| s.server_ms)
    }

    /// What was after a tick, and after the one before.
    pub(super) fn at(&self, tick: u64) -> Option<(&Snapshot, Option<&Snapshot>)> {
        let at = self.ticks.iter().rposition(|s| s.tick == tick)?;
        let before = at.checked_sub(1).map(|before| &self.ticks[before]).filter(|s| s.tick + 1 == tick);
        Some((&self.ticks[at], before))
    }

    /// What was at a time, and one tick before and after.
    pub(super) fn around(&self, server_ms: u64) -> Option<(Option<&Snapshot>, &Snapshot, Option<&Snapshot>)> {
        let at = self.ticks.iter().rposition(|s| s.server_ms <= server_ms)?;
        let before = at.checked_sub(1).map(|before| &self.ticks[before]);
        Some((before, &self.ticks[at], self.ticks.get(at + 1)))
    }
}
