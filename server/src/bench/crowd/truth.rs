//! The committed state, as the owner publishes it, and what a player should be shown of it.
//!
//! An observer follows every cell of the region by the same stream as an edge. Frames wait until the observer has their
//! tick; then what was shown is held against what was committed.

use std::collections::{BTreeMap, HashMap, VecDeque};

use anyhow::{Context, bail};
use marchland_proto::cluster::RegionBatch;
use marchland_proto::records::{Motion, quantize};

/// Ticks that are remembered: a frame may come this much later than the observer's batch.
const TICKS_KEPT: usize = 64;

/// Positions of all players after one tick.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    pub(super) tick: u64,
    /// Entity, by index.
    pub(super) entities: Vec<u64>,
    pub(super) x: Vec<i32>,
    pub(super) z: Vec<i32>,
    index: HashMap<u64, usize>,
}

impl Snapshot {
    fn position(&self, entity: u64) -> Option<[i32; 2]> {
        self.index.get(&entity).map(|&i| [self.x[i], self.z[i]])
    }
}

/// The world as committed, over the last ticks.
#[derive(Default)]
pub(super) struct World {
    /// Entity and position by slot.
    slots: BTreeMap<u32, (u64, [i32; 2])>,
    ticks: VecDeque<Snapshot>,
}

/// How a shown set is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Radius of view.
    pub(super) radius_m: f32,
    /// Most that are shown.
    pub(super) visible_max: usize,
    /// Around the border of the set, entities may be in or out: what hysteresis and the interval between two picks allow.
    pub(super) slack_m: f32,
    /// Farthest that a shown position may be off.
    pub(super) off_m: f32,
}

/// What one player was shown.
pub(super) struct Shown {
    pub(super) tick: u64,
    pub(super) own: u64,
    /// Entity and position.
    pub(super) others: Vec<(u64, [i32; 2])>,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Its tick is not remembered any more, or its player not in it.
    Unknown,
    /// Somebody who must be shown is not.
    Missing,
    /// Somebody is shown who must not be, or does not exist.
    Extra,
    /// Somebody is shown in the wrong place.
    Place,
}

impl World {
    /// Takes the observer's batch of one tick.
    pub(super) fn take(&mut self, batch: &RegionBatch) -> anyhow::Result<()> {
        for part in &batch.cells {
            if part.full && !self.slots.is_empty() && self.ticks.len() > 1 {
                bail!("the observer missed a batch at tick {}", batch.tick);
            }
            for slot in &part.left {
                // It left this cell; if it came into another one, that one's part names it again.
                self.slots.remove(slot);
            }
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
        let mut snapshot = Snapshot { tick: batch.tick, ..Snapshot::default() };
        for (entity, [x, z]) in self.slots.values() {
            snapshot.index.insert(*entity, snapshot.entities.len());
            snapshot.entities.push(*entity);
            snapshot.x.push(*x);
            snapshot.z.push(*z);
        }
        self.ticks.push_back(snapshot);
        if self.ticks.len() > TICKS_KEPT {
            self.ticks.pop_front();
        }
        Ok(())
    }

    /// The newest tick.
    pub(super) fn tick(&self) -> u64 {
        self.ticks.back().map_or(0, |s| s.tick)
    }

    fn at(&self, tick: u64) -> Option<&Snapshot> {
        self.ticks.iter().rev().find(|s| s.tick == tick)
    }

    /// Holds a frame against the committed state of its tick.
    pub(super) fn judge(&self, shown: &Shown, rule: Rule, distances: &mut Vec<f32>) -> Result<(), Wrong> {
        let now = self.at(shown.tick).ok_or(Wrong::Unknown)?;
        let [own_x, own_z] = now.position(shown.own).ok_or(Wrong::Unknown)?;
        let distance = |x: i32, z: i32| ((x - own_x) as f32).hypot((z - own_z) as f32);
        let quanta = |m: f32| quantize(m) as f32;
        let (radius, slack) = (quanta(rule.radius_m), quanta(rule.slack_m));
        // The border of the set: the radius, or the distance of the last one that fits.
        distances.clear();
        let others = (0..now.entities.len()).filter(|&i| now.entities[i] != shown.own);
        distances.extend(others.map(|i| distance(now.x[i], now.z[i])).filter(|d| *d <= radius));
        let border = match distances.len() > rule.visible_max {
            true => *distances.select_nth_unstable_by(rule.visible_max - 1, f32::total_cmp).1,
            false => radius,
        };
        let certain = distances.iter().filter(|d| **d < border - slack).count();
        let mut found = 0;
        for (entity, at) in &shown.others {
            let Some(true_at) = now.position(*entity) else { return Err(Wrong::Extra) };
            let off = |p: [i32; 2]| ((p[0] - at[0]) as f32).hypot((p[1] - at[1]) as f32);
            let before = self.at(shown.tick.wrapping_sub(1)).and_then(|s| s.position(*entity));
            // At most one tick old.
            if off(true_at) > quanta(rule.off_m) && before.is_none_or(|p| off(p) > quanta(rule.off_m)) {
                return Err(Wrong::Place);
            }
            let d = distance(true_at[0], true_at[1]);
            if d > border + slack {
                return Err(Wrong::Extra);
            }
            found += usize::from(d < border - slack);
        }
        if found < certain || shown.others.len() > rule.visible_max {
            return Err(Wrong::Missing);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_proto::cluster::{CellPart, EntityRecord};

    const RULE: Rule = Rule { radius_m: 50.0, visible_max: 2, slack_m: 1.0, off_m: 0.1 };

    /// Players on a line, ten metres apart, in two ticks; the last one moves by a metre.
    fn world() -> World {
        let mut world = World::default();
        let record =
            |i: u32, x: f32| EntityRecord { slot: i, entity: u64::from(i) + 1, x: quantize(x), ..EntityRecord::default() };
        for tick in 1..=2 {
            let entities = (0..5).map(|i| record(i, i as f32 * 10.0 + if i == 4 { tick as f32 } else { 0.0 })).collect();
            let part = CellPart { full: tick == 1, entities, ..CellPart::default() };
            world.take(&RegionBatch { tick, cells: vec![part], ..RegionBatch::default() }).unwrap();
        }
        world
    }

    fn judge(others: &[(u64, f32)]) -> Result<(), Wrong> {
        let others = others.iter().map(|(e, x)| (*e, [quantize(*x), 0])).collect();
        world().judge(&Shown { tick: 2, own: 1, others }, RULE, &mut Vec::new())
    }

    #[test]
    fn the_nearest_must_be_shown_where_they_are_and_nobody_else() {
        assert_eq!(judge(&[(2, 10.0), (3, 20.0)]), Ok(()));
        assert_eq!(judge(&[(3, 20.0)]), Err(Wrong::Missing));
        assert_eq!(judge(&[(2, 10.0)]), Ok(()), "the second stands on the border of the set");
        assert_eq!(judge(&[(2, 10.0), (4, 30.0)]), Err(Wrong::Extra));
        assert_eq!(judge(&[(2, 10.0), (9, 20.0)]), Err(Wrong::Extra));
        assert_eq!(judge(&[(2, 10.5), (3, 20.0)]), Err(Wrong::Place));
    }

    #[test]
    fn a_position_may_be_one_tick_old_and_no_more() {
        let rule = Rule { visible_max: 8, ..RULE };
        let all = |last: f32| {
            let others = [(2, 10.0), (3, 20.0), (4, 30.0), (5, last)].map(|(e, x)| (e, [quantize(x), 0])).to_vec();
            world().judge(&Shown { tick: 2, own: 1, others }, rule, &mut Vec::new())
        };
        assert_eq!(all(42.0), Ok(()));
        assert_eq!(all(41.0), Ok(()));
        assert_eq!(all(40.0), Err(Wrong::Place));
    }
}
