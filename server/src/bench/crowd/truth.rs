//! The committed state, as the owners publish it, and what a player should be shown of it.
//!
//! Observers follow every cell of every region by the same stream as an edge. Frames wait until the observers have their
//! tick; then what was shown is held against what was committed.
//!
//! Regions tick each at its own moment. A frame is its own region's tick; of the others it shows what stood there at that time, or the tick
//! before or after. Who is on the way from one region to another is in neither, and stays shown where the one had it last.

use std::collections::{BTreeMap, HashMap};

use marchland_proto::cluster::RegionBatch;
use marchland_proto::records::quantize;
use marchland_types::limits::TICK_MS;

use super::track::{Snapshot, Track};

/// The world as committed, over the last ticks.
#[derive(Default)]
pub(super) struct World {
    /// By region.
    regions: BTreeMap<u32, Track>,
    /// Where entities stood that left one region for another, the last time that they did.
    left_at: HashMap<u64, [i32; 2]>,
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
    /// Region of the frame.
    pub(super) region: u32,
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

/// One region around the time of a frame.
struct Around<'a> {
    now: &'a Snapshot,
    before: Option<&'a Snapshot>,
    after: Option<&'a Snapshot>,
}

impl World {
    /// Takes an observer's batch of one tick.
    pub(super) fn take(&mut self, batch: &RegionBatch) -> anyhow::Result<()> {
        self.left_at.extend(self.regions.entry(batch.region).or_default().take(batch)?);
        Ok(())
    }

    /// Whether all is known that a frame may show.
    pub(super) fn has(&self, shown: &Shown) -> bool {
        let Some(own) = self.regions.get(&shown.region) else { return false };
        if own.tick() < shown.tick {
            return false;
        }
        let Some((now, _)) = own.at(shown.tick) else { return true };
        let others = self.regions.iter().filter(|(region, _)| **region != shown.region);
        others.into_iter().all(|(_, track)| track.server_ms() >= now.server_ms + TICK_MS)
    }

    /// Every region around the time of a frame, its own one first.
    fn around(&self, shown: &Shown) -> Option<Vec<Around<'_>>> {
        let (now, before) = self.regions.get(&shown.region)?.at(shown.tick)?;
        let mut all = vec![Around { now, before, after: None }];
        for (_, track) in self.regions.iter().filter(|(region, _)| **region != shown.region) {
            let (before, now_there, after) = track.around(now.server_ms)?;
            all.push(Around { now: now_there, before, after });
        }
        Some(all)
    }

    /// Holds a frame against the committed state of its tick.
    pub(super) fn judge(&self, shown: &Shown, rule: Rule, distances: &mut Vec<f32>) -> Result<(), Wrong> {
        let around = self.around(shown).ok_or(Wrong::Unknown)?;
        let [own_x, own_z] = around[0].now.position(shown.own).ok_or(Wrong::Unknown)?;
        let distance = |[x, z]: [i32; 2]| ((x - own_x) as f32).hypot((z - own_z) as f32);
        let quanta = |m: f32| quantize(m) as f32;
        let (radius, slack) = (quanta(rule.radius_m), quanta(rule.slack_m));
        let under_way = self.check_places(shown, &around, quanta(rule.off_m))?;
        // The border of the set: the radius, or the distance of the last one that fits.
        distances.clear();
        for (i, region) in around.iter().enumerate() {
            for (entity, at) in region.now.all().filter(|(entity, _)| *entity != shown.own) {
                let d = distance(at);
                // Two regions that tick at different moments may both have somebody who went from one to the other.
                if d <= radius && !around[..i].iter().any(|earlier| earlier.now.position(entity).is_some()) {
                    distances.push(d);
                }
            }
        }
        let most = rule.visible_max.saturating_sub(under_way);
        let border = match distances.len() > most {
            true if most == 0 => 0.0,
            true => *distances.select_nth_unstable_by(most - 1, f32::total_cmp).1,
            false => radius,
        };
        let certain = distances.iter().filter(|d| **d < border - slack).count();
        let mut found = 0;
        for (entity, at) in &shown.others {
            let there = around.iter().find_map(|region| region.now.position(*entity));
            let d = distance(there.unwrap_or(*at));
            // Who is on the way is let go of when it has arrived, not when it is far.
            if there.is_some() && d > border + slack {
                return Err(Wrong::Extra);
            }
            found += usize::from(there.is_some() && d < border - slack);
        }
        if found < certain || shown.others.len() > rule.visible_max {
            return Err(Wrong::Missing);
        }
        Ok(())
    }

    /// Whether all who are shown exist and are where they are shown, at most one tick old. Returns how many are between two regions.
    fn check_places(&self, shown: &Shown, around: &[Around<'_>], off: f32) -> Result<usize, Wrong> {
        let mut under_way = 0;
        for (entity, at) in &shown.others {
            let near = |p: [i32; 2]| ((p[0] - at[0]) as f32).hypot((p[1] - at[1]) as f32) <= off;
            let is_in = |snapshot: Option<&Snapshot>| snapshot.and_then(|s| s.position(*entity)).is_some_and(near);
            let there = around.iter().any(|region| region.now.position(*entity).is_some());
            let left_at = self.left_at.get(entity).copied();
            if !there && left_at.is_none() {
                return Err(Wrong::Extra);
            }
            under_way += usize::from(!there);
            let was_there = around.iter().any(|region| region.before.is_some_and(|before| before.position(*entity).is_some()));
            let waits = (!there || !was_there) && left_at.is_some_and(near);
            if !waits && !around.iter().any(|region| is_in(Some(region.now)) || is_in(region.before) || is_in(region.after)) {
                return Err(Wrong::Place);
            }
        }
        Ok(under_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_proto::cluster::{CellPart, EntityRecord, HandedOff};

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
        world().judge(&Shown { region: 0, tick: 2, own: 1, others }, RULE, &mut Vec::new())
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
            world().judge(&Shown { region: 0, tick: 2, own: 1, others }, rule, &mut Vec::new())
        };
        assert_eq!(all(42.0), Ok(()));
        assert_eq!(all(41.0), Ok(()));
        assert_eq!(all(40.0), Err(Wrong::Place));
    }

    fn record(entity: u64, x: f32) -> EntityRecord {
        EntityRecord { slot: entity as u32, entity, x: quantize(x), ..EntityRecord::default() }
    }

    fn tick(region: u32, tick: u64, part: CellPart) -> RegionBatch {
        RegionBatch {
            region,
            tick,
            server_ms: 1_000 + tick * 50 + u64::from(region),
            cells: vec![part],
            ..RegionBatch::default()
        }
    }

    /// Somebody in region 1 who looks on, and one who goes from region 1 to region 2 with tick 2, and arrives with tick 4.
    fn two_regions() -> World {
        let mut world = World::default();
        let here = CellPart { full: true, entities: vec![record(1, 0.0), record(2, 10.0)], ..CellPart::default() };
        let handed = HandedOff { slot: 2, entity: 2, move_number: 2, to_group: 2 };
        let gone = CellPart { handed: vec![handed], ..CellPart::default() };
        let there = CellPart { full: true, entities: vec![record(3, 20.0)], ..CellPart::default() };
        let arrived = CellPart { entities: vec![record(2, 10.5)], ..CellPart::default() };
        let empty = CellPart::default();
        for (n, first, second) in
            [(1, here, there), (2, gone, empty.clone()), (3, empty.clone(), empty.clone()), (4, empty.clone(), arrived)]
        {
            world.take(&tick(1, n, first)).unwrap();
            world.take(&tick(2, n, second)).unwrap();
        }
        for n in 5..=6 {
            world.take(&tick(1, n, empty.clone())).unwrap();
            world.take(&tick(2, n, empty.clone())).unwrap();
        }
        world
    }

    #[test]
    fn who_goes_to_another_region_is_shown_throughout_and_where_it_was() {
        let judge = |tick, others: &[(u64, f32)]| {
            let others = others.iter().map(|(e, x)| (*e, [quantize(*x), 0])).collect();
            two_regions().judge(&Shown { region: 1, tick, own: 1, others }, Rule { visible_max: 8, ..RULE }, &mut Vec::new())
        };
        assert_eq!(judge(3, &[(2, 10.0), (3, 20.0)]), Ok(()), "on the way");
        assert_eq!(judge(3, &[(2, 11.0), (3, 20.0)]), Err(Wrong::Place), "nobody walks on the way");
        assert_eq!(judge(3, &[(2, 10.0)]), Err(Wrong::Missing), "the other region is seen");
        assert_eq!(judge(5, &[(2, 10.0), (3, 20.0)]), Ok(()), "arrived a tick ago");
        assert_eq!(judge(6, &[(2, 10.0), (3, 20.0)]), Err(Wrong::Place), "arrived before that");
        assert_eq!(judge(6, &[(2, 10.5), (3, 20.0)]), Ok(()));
        assert_eq!(judge(6, &[(3, 20.0)]), Err(Wrong::Missing));
    }

    #[test]
    fn a_frame_waits_until_the_other_regions_are_a_tick_further() {
        let shown = |tick| Shown { region: 1, tick, own: 1, others: Vec::new() };
        let world = two_regions();
        assert!(world.has(&shown(5)) && !world.has(&shown(7)));
        assert!(!world.has(&shown(6)), "the other one's next tick is not there");
    }
}
