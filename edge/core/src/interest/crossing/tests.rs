//! A client where four regions meet, and entities that go from one to the next.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use marchland_proto::client::Frame;
use marchland_proto::cluster::{CellEvent, CellPart};
use marchland_types::{GroupId, RegionId, WorldId};
use proptest::prelude::*;

use super::*;
use crate::map::{MapRegion, RegionMap};
use crate::replies::Replies;
use crate::test_owner::{Believer, Ent, Owner, cell_of};
use crate::view::Applied;
use crate::{FrameWriter, InterestConfig, OwnView};

const CONFIG: InterestConfig = InterestConfig { radius_m: 50.0, visible_max: 32, repick_every_ticks: 3, hysteresis_m: 2.0 };
/// How far an entity goes beyond the border before it is handed over, in quanta.
const HYSTERESIS: i32 = 4 * 64;

fn group(region: usize) -> GroupId {
    GroupId::region(WorldId(1), RegionId(region as u32 + 1))
}

/// The region of a place: bit 0 is east, bit 1 is south.
fn region_of(at: [i32; 3]) -> usize {
    usize::from(at[0] >= 0) | usize::from(at[2] >= 0) << 1
}

/// An entity between two regions.
struct InChannel {
    ent: Ent,
    to: usize,
    /// Ticks of the receiver until it is taken.
    ticks: u32,
}

/// Four owners, the edge's tables, and one client.
struct Corner {
    owners: Vec<Owner>,
    views: Views,
    map: RegionMap,
    channel: Vec<InChannel>,
    viewer: Viewer,
    own: OwnView,
    writer: FrameWriter,
    client: Believer,
    /// The client's entity, and the region whose ticks its frames follow.
    me: u64,
    home: usize,
    /// As regions published it last.
    published: BTreeMap<u64, Ent>,
    /// Of that, what reached the edge.
    reached: BTreeMap<u64, Ent>,
}

impl Corner {
    fn new(me_at: [i32; 3]) -> Self {
        let mut owners: Vec<_> = (1..5).map(Owner::of).collect();
        let home = region_of(me_at);
        let slot = owners[home].spawn(me_at);
        let me = owners[home].ent(slot).unwrap().entity;
        let square = |i: usize| {
            let min = [if i & 1 == 0 { -1000.0 } else { 0.0 }, if i & 2 == 0 { -1000.0 } else { 0.0 }];
            MapRegion { group: group(i), region: RegionId(i as u32 + 1), min, max: min.map(|v| v + 1000.0) }
        };
        let mut map = RegionMap::default();
        map.learn(1, (0..4).map(square).collect(), 52.0);
        let (mut views, mut viewer) = (Views::default(), Viewer::new(1, me, 0));
        let own = views.open(group(home));
        viewer.follow(&mut views, own);
        let mut corner = Self {
            owners,
            views,
            map,
            channel: Vec::new(),
            viewer,
            own: OwnView::default(),
            writer: FrameWriter::default(),
            client: Believer::default(),
            me,
            home,
            published: BTreeMap::new(),
            reached: BTreeMap::new(),
        };
        for _ in 0..4 {
            corner.ticks(1);
        }
        corner
    }

    fn spawn(&mut self, at: [i32; 3]) -> u64 {
        let owner = &mut self.owners[region_of(at)];
        let slot = owner.spawn(at);
        owner.ent(slot).unwrap().entity
    }

    /// Region and slot of an entity that is in no channel.
    fn place(&self, entity: u64) -> Option<(usize, u32)> {
        self.owners.iter().enumerate().find_map(|(region, owner)| {
            let slot = owner.slots.iter().position(|ent| ent.as_ref().is_some_and(|ent| ent.entity == entity))?;
            Some((region, slot as u32))
        })
    }

    fn ent(&mut self, entity: u64) -> &mut Ent {
        let (region, slot) = self.place(entity).unwrap();
        self.owners[region].ent(slot).unwrap()
    }

    /// The entity leaves its region; the next one has it with its tick after `ticks`.
    fn hand_over(&mut self, entity: u64, to: usize, ticks: u32) {
        let (from, slot) = self.place(entity).unwrap();
        let ent = self.owners[from].hand_over(slot, group(to).0);
        self.channel.push(InChannel { ent, to, ticks });
    }

    /// One tick of one region. A frame, if it is the client's and the socket takes it.
    fn tick(&mut self, region: usize, writable: bool) -> Option<Frame> {
        let (due, waits) =
            std::mem::take(&mut self.channel).into_iter().partition::<Vec<_>, _>(|m| m.to == region && m.ticks == 0);
        self.channel = waits;
        self.channel.iter_mut().filter(|message| message.to == region).for_each(|message| message.ticks -= 1);
        for InChannel { ent, .. } in due {
            self.owners[region].receive(ent);
        }
        let batch = self.owners[region].tick(false);
        self.published.extend(self.owners[region].by_entity());
        let view = self.views.find(group(region))?;
        assert_eq!(self.views[view].apply(&batch), Applied::Tick);
        self.views[view].check();
        let here = self.owners[region].by_entity().into_iter().filter(|(entity, _)| self.views[view].slot_of(*entity).is_some());
        self.reached.extend(here);
        if let Some((at, slot)) = self.place(self.me)
            && at == region
        {
            self.own.take(self.owners[region].own_state(slot));
            self.home = region;
            self.viewer.follow(&mut self.views, view);
        }
        (region == self.home && writable).then(|| self.send())
    }

    fn send(&mut self) -> Frame {
        let own = *self.own.state().unwrap();
        self.viewer.hold_cells(&mut self.views, &self.map, &CONFIG, own.position[0], own.position[2]);
        let mut out = BytesMut::new();
        let mut replies = Replies::default();
        assert!(self.writer.write(&self.views, &CONFIG, &mut self.viewer, &mut self.own, &mut replies, &mut out));
        let frame = self.client.take(&out);
        for region in 0..4 {
            if let Some(view) = self.views.find(group(region)) {
                self.owners[region].hear(&mut self.views[view]);
            }
        }
        self.check_shown();
        frame
    }

    /// Everything that is shown is as its region's word was last; nobody is shown twice, or to themselves.
    fn check_shown(&self) {
        let mut once = BTreeSet::new();
        for (alias, shown) in &self.client.others {
            let real = &self.reached[&shown.entity];
            // Until the next pick, two regions' words may differ, if the one that has it no more has not said so yet.
            let held = self.viewer.parts.iter().filter(|part| self.views[part.view].slot_of(shown.entity).is_some());
            let is_late = held.count() > 1 || self.viewer.limbo.iter().any(|waits| waits.alias == *alias);
            assert!(is_late || (shown.at, shown.look) == (real.at, real.look), "{shown:?} under {alias}, really {real:?}");
            assert!(once.insert(shown.entity) && shown.entity != self.me, "{} under {alias}", shown.entity);
        }
        assert_eq!(self.client.others.len(), self.viewer.visible());
    }

    /// All regions tick, the client's last, `n` times. The newest frame.
    fn ticks(&mut self, n: usize) -> Option<Frame> {
        let mut frame = None;
        for _ in 0..n {
            for region in (0..4).filter(|region| *region != self.home).collect::<Vec<_>>() {
                frame = self.tick(region, true).or(frame);
            }
            frame = self.tick(self.home, true).or(frame);
        }
        frame
    }

    fn alias(&self, entity: u64) -> Option<u8> {
        self.client.others.iter().find(|(_, shown)| shown.entity == entity).map(|(alias, _)| *alias)
    }
}

fn is_quiet(frame: &Frame) -> bool {
    frame.leaves.is_empty() && frame.enters.is_empty() && !frame.full
}

#[test]
fn all_four_regions_are_seen_where_they_meet() {
    let mut corner = Corner::new([-64, 0, -64]);
    let around = [[-640, 0, -640], [640, 0, -640], [-640, 0, 640], [640, 0, 640]];
    let all: Vec<_> = around.into_iter().map(|at| corner.spawn(at)).collect();
    corner.ticks(6);
    assert!(all.iter().all(|entity| corner.alias(*entity).is_some()));
    // Deltas of all of them, as long as each region's tick before was sent.
    for entity in &all {
        corner.ent(*entity).at[0] += 16;
    }
    let frame = corner.ticks(1).unwrap();
    assert_eq!(frame.motion.len(), 2 + 4 * 4);
    // Two ticks of one of them between two frames: absolute for that one alone.
    for entity in &all {
        corner.ent(*entity).at[0] += 16;
    }
    corner.tick(3, true);
    assert_eq!(corner.ticks(1).unwrap().motion.len(), (2 + 3 * 4) + (2 + 8));
    // None of one of them: it stands.
    for entity in &all {
        corner.ent(*entity).at[0] += 16;
    }
    assert_eq!(corner.tick(0, true).unwrap().motion.len(), 2 + 4);
}

#[test]
fn one_who_crosses_keeps_its_alias() {
    let mut corner = Corner::new([-640, 0, -640]);
    let walker = corner.spawn([-64, 5, -640]);
    corner.ticks(6);
    let alias = corner.alias(walker).unwrap();
    corner.ent(walker).at = [300, 9, -640];
    corner.ticks(1);
    corner.hand_over(walker, 1, 3);
    // Its slot has another occupant in the same tick.
    let next = corner.spawn([-128, 0, -640]);
    let (_, slot) = corner.place(next).unwrap();
    let frame = corner.ticks(1).unwrap();
    assert_eq!((slot, frame.leaves.len()), (1, 0));
    for _ in 0..2 {
        let frame = corner.ticks(1).unwrap();
        assert!(frame.leaves.is_empty() && frame.motion.is_empty() && frame.looks.is_empty());
        assert_eq!(corner.client.others[&alias].at, [300, 9, -640], "as it was");
    }
    corner.channel[0].ent.at = [330, 12, -600];
    corner.channel[0].ent.look = 4;
    let frame = corner.ticks(1).unwrap();
    assert!(is_quiet(&frame) && frame.motion.len() == 2 + 10 && frame.looks.len() == 1, "{frame:?}");
    assert_eq!((corner.alias(walker), corner.client.others[&alias].at), (Some(alias), [330, 12, -600]));
    assert!(corner.alias(next).is_some_and(|other| other != alias));
    // And back, at once: no tick in which nobody has it.
    corner.hand_over(walker, 0, 0);
    let frames: Vec<_> = (0..4).filter_map(|_| corner.ticks(1)).collect();
    assert!(frames.iter().all(is_quiet));
    assert_eq!(corner.alias(walker), Some(alias));
    corner.ent(walker).at[0] += 16;
    assert_eq!(corner.ticks(1).unwrap().motion.len(), 2 + 4, "deltas again");
}

#[test]
fn of_two_regions_the_one_with_the_higher_number_counts() {
    let mut corner = Corner::new([-640, 0, -640]);
    let walker = corner.spawn([640, 0, -640]);
    corner.ticks(6);
    let alias = corner.alias(walker).unwrap();
    // Region 2's word is late: region 1 shows the walker already.
    corner.hand_over(walker, 0, 0);
    corner.channel[0].ent.at = [-100, 0, -640];
    for _ in 0..CONFIG.repick_every_ticks {
        let frame = corner.tick(0, true).unwrap();
        assert!(is_quiet(&frame), "{frame:?}");
    }
    assert_eq!(corner.client.others[&alias].at, [-100, 0, -640], "with the next pick");
    for _ in 0..5 {
        assert!(is_quiet(&corner.ticks(1).unwrap()));
    }
    assert_eq!(corner.alias(walker), Some(alias));
}

#[test]
fn one_who_never_arrives_leaves_after_two_seconds() {
    let mut corner = Corner::new([-640, 0, -640]);
    let walker = corner.spawn([-64, 0, -640]);
    corner.ticks(6);
    let alias = corner.alias(walker).unwrap();
    corner.hand_over(walker, 1, 1_000);
    let mut shown = 0;
    // A frame is skipped now and then: ticks count, not frames.
    for tick in 0.. {
        if corner.tick(0, tick % 4 != 3).is_some() && corner.alias(walker).is_none() {
            break;
        }
        shown += 1;
    }
    assert!((38..=42).contains(&shown), "{shown} ticks");
    // When it is there after all, it enters. Its alias may be another's by then.
    let other = corner.spawn([-128, 0, -640]);
    corner.ticks(6);
    assert_eq!(corner.alias(other), Some(alias));
    corner.channel[0].ticks = 0;
    corner.ticks(6);
    assert!(corner.alias(walker).is_some());
}

#[test]
fn one_who_dies_or_hides_on_the_other_side_leaves() {
    let mut corner = Corner::new([-640, 0, -640]);
    let (first, second) = (corner.spawn([-64, 0, -640]), corner.spawn([-64, 0, -700]));
    corner.ticks(6);
    corner.hand_over(first, 1, 1);
    corner.hand_over(second, 1, 1);
    corner.ticks(1);
    corner.channel[0].ent.audience = Some(vec![77]);
    assert_eq!(corner.ticks(1).unwrap().leaves.len(), 1);
    assert!(corner.alias(first).is_none() && corner.alias(second).is_some());
    let (region, slot) = corner.place(second).unwrap();
    corner.owners[region].despawn(slot);
    assert_eq!(corner.ticks(1).unwrap().leaves.len(), 1);
    assert!(corner.client.others.is_empty());
}

#[test]
fn the_client_crosses_itself_and_everything_goes_on() {
    let mut corner = Corner::new([-64, 0, -640]);
    let near = [[-640, 0, -700], [640, 0, -700], [64, 0, -600]];
    let all: Vec<_> = near.into_iter().map(|at| corner.spawn(at)).collect();
    corner.ticks(6);
    let aliases: Vec<_> = all.iter().map(|entity| corner.alias(*entity).unwrap()).collect();
    corner.ent(corner.me).at = [300, 0, -640];
    corner.ticks(1);
    corner.hand_over(corner.me, 1, 2);
    let before = corner.client.tick;
    for _ in 0..2 {
        for entity in &all {
            corner.ent(*entity).at[2] += 10;
        }
        let frame = corner.ticks(1).unwrap();
        assert!(is_quiet(&frame) && frame.region == 1, "frames go on: {frame:?}");
    }
    assert_eq!(corner.client.tick, before + 2);
    // The new region's first frame; its ticks are its own.
    corner.owners[1].tick += 5_000;
    corner.channel[0].ent.at[0] += 10;
    for entity in &all {
        corner.ent(*entity).at[2] += 10;
    }
    let frame = corner.tick(1, true).unwrap();
    assert_eq!((frame.region, frame.tick), (2, corner.owners[1].tick));
    assert!(is_quiet(&frame) && frame.self_.is_some());
    // And not a word more from the old one's ticks.
    assert!(corner.tick(0, true).is_none());
    for _ in 0..8 {
        assert!(is_quiet(&corner.ticks(1).unwrap()));
    }
    assert_eq!(all.iter().map(|entity| corner.alias(*entity).unwrap()).collect::<Vec<_>>(), aliases);
}

#[test]
fn a_silent_neighbour_stands_and_the_own_region_goes_on() {
    let mut corner = Corner::new([-640, 0, -640]);
    let (own, other) = (corner.spawn([-320, 0, -640]), corner.spawn([320, 0, -640]));
    corner.ticks(6);
    for _ in 0..100 {
        corner.ent(own).at[2] += 1;
        corner.ent(other).at[2] += 1;
        assert!(is_quiet(&corner.tick(0, true).unwrap()));
    }
    let alias = corner.alias(other).unwrap();
    assert_eq!(corner.client.others[&alias].at, [320, 0, -640]);
    assert!(!corner.ticks(1).unwrap().motion.is_empty());
    assert_eq!(corner.client.others[&alias].at, [320, 0, -540]);
}

#[test]
fn events_of_all_regions_come_once() {
    let mut corner = Corner::new([-64, 0, -64]);
    corner.ticks(6);
    let happen = |corner: &mut Corner, region: usize, kind: u32| {
        let at = [if region & 1 == 0 { -640 } else { 640 }, 0, if region & 2 == 0 { -640 } else { 640 }];
        let mut batch = corner.owners[region].tick(false);
        let event = CellEvent { kind, x: at[0], z: at[2], ..CellEvent::default() };
        batch.cells.push(CellPart { cell: cell_of(at), events: vec![event], ..CellPart::default() });
        let view = corner.views.find(group(region)).unwrap();
        corner.views[view].apply(&batch);
    };
    // Two ticks of region 4 with an event each, and one of region 2, between two frames.
    happen(&mut corner, 3, 40);
    happen(&mut corner, 3, 41);
    happen(&mut corner, 1, 20);
    let kinds = |frame: &Frame| frame.area_events.iter().map(|event| event.kind).collect::<BTreeSet<_>>();
    let frame = corner.tick(0, true).unwrap();
    assert_eq!((kinds(&frame), frame.area_events.len()), ([20, 40, 41].into(), 3));
    assert!(corner.tick(0, true).unwrap().area_events.is_empty());
    assert!(corner.ticks(1).unwrap().area_events.is_empty());
    happen(&mut corner, 0, 10);
    assert_eq!(kinds(&corner.send()), [10].into());
}

#[derive(Clone, Debug)]
enum Step {
    Walk(prop::sample::Index, [i8; 3]),
    Look(prop::sample::Index),
    Tick(usize, bool),
    All,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<prop::sample::Index>(), any::<[i8; 3]>()).prop_map(|(who, by)| Step::Walk(who, by)),
        1 => any::<prop::sample::Index>().prop_map(Step::Look),
        4 => (0..4usize, proptest::bool::weighted(0.8)).prop_map(|(region, writable)| Step::Tick(region, writable)),
        3 => Just(Step::All),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    /// Whoever walks where, in whatever order regions tick: a client that believes frames alone sees what was published, and nobody who
    /// stays near leaves its view or changes its alias.
    #[test]
    fn borders_are_not_noticed(
        places in proptest::collection::vec((-1500..1500i32, -1500..1500i32), 2..12),
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut corner = Corner::new([-100, 0, -100]);
        let mut all: Vec<_> = places.into_iter().map(|(x, z)| corner.spawn([x, 0, z])).collect();
        all.push(corner.me);
        corner.ticks(4);
        let mut shown: BTreeMap<u64, u8> = BTreeMap::new();
        // Own ticks since each was handed over last; more than enough is no fault of the client's.
        let mut since: BTreeMap<u64, u32> = BTreeMap::new();
        for step in steps {
            let mut frames = false;
            match step {
                Step::Walk(who, by) => {
                    let entity = *who.get(&all);
                    if let Some((region, slot)) = corner.place(entity) {
                        let ent = corner.owners[region].ent(slot).unwrap();
                        for (at, by) in ent.at.iter_mut().zip(by) {
                            *at = (*at + i32::from(by)).clamp(-2500, 2500);
                        }
                        let at = ent.at;
                        let outside = [(0, 1), (2, 2)].iter().any(|&(axis, bit)| {
                            let beyond = if region & bit == 0 { at[axis] } else { -at[axis] };
                            beyond > HYSTERESIS
                        });
                        if outside {
                            corner.hand_over(entity, region_of(at), by[0].unsigned_abs() as u32 % 3);
                            since.insert(entity, 0);
                        }
                    }
                }
                Step::Look(who) => {
                    if let Some((region, slot)) = corner.place(*who.get(&all)) {
                        corner.owners[region].change_look(slot);
                    }
                }
                Step::Tick(region, writable) => {
                    if region == corner.home {
                        since.values_mut().for_each(|ticks| *ticks += 1);
                    }
                    frames = corner.tick(region, writable).is_some();
                }
                Step::All => {
                    since.values_mut().for_each(|ticks| *ticks += 2);
                    frames = corner.ticks(1).is_some();
                }
            }
            if !frames {
                continue;
            }
            let now: BTreeMap<_, _> = corner.client.others.iter().map(|(alias, shown)| (shown.entity, *alias)).collect();
            let me = corner.own.state().unwrap().position;
            let near = |at: [i32; 3]| {
                let (dx, dz) = (at[0] as f32 / 64.0 - me[0], at[2] as f32 / 64.0 - me[2]);
                (dx * dx + dz * dz).sqrt() < 49.0
            };
            let untold: BTreeSet<u64> = corner.owners.iter().flat_map(|owner| owner.untold.iter().copied()).collect();
            for (entity, alias) in &shown {
                let excused = untold.contains(entity) || since.get(entity).is_some_and(|ticks| *ticks > 36);
                if near(corner.published[entity].at) && !excused {
                    prop_assert_eq!(now.get(entity), Some(alias), "entity {}", entity);
                }
            }
            shown = now;
        }
        // Left alone, everybody near is seen.
        corner.ticks(12);
        let me = corner.own.state().unwrap().position;
        for entity in all.iter().filter(|entity| **entity != corner.me) {
            let at = corner.published[entity].at.map(|v| v as f32 / 64.0);
            let distance = ((at[0] - me[0]).powi(2) + (at[2] - me[2]).powi(2)).sqrt();
            prop_assert!(distance > 49.9 || corner.alias(*entity).is_some(), "{entity} at {distance} m");
        }
        corner.viewer.release(&mut corner.views);
        for region in 0..4 {
            prop_assert!(corner.views.close(group(region)));
        }
    }
}
