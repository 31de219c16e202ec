//! Frames against a world that remembers the truth.

use bytes::BytesMut;
use marchland_proto::cluster::{CellEvent, CellPart, StoredReply};
use marchland_types::{GroupId, RegionId, WorldId};
use proptest::prelude::*;

use super::*;
use crate::test_owner::{Believer, Owner, cell_of};

fn group() -> GroupId {
    GroupId::region(WorldId(1), RegionId(7))
}

/// Everything between an owner and one client.
struct Scene {
    owner: Owner,
    views: Views,
    viewer: Viewer,
    own: OwnView,
    replies: Replies,
    writer: FrameWriter,
    client: Believer,
    me: u32,
}

const CONFIG: InterestConfig = InterestConfig { radius_m: 50.0, visible_max: 8, repick_every_ticks: 3, hysteresis_m: 2.0 };

impl Scene {
    fn new() -> Self {
        let mut owner = Owner::default();
        let me = owner.spawn([0; 3]);
        let entity = owner.ent(me).unwrap().entity;
        let (mut views, mut viewer) = (Views::default(), Viewer::new(1, entity, 0));
        let own = views.open(group());
        viewer.follow(&mut views, own);
        Self {
            owner,
            views,
            viewer,
            own: OwnView::default(),
            replies: Replies::default(),
            writer: FrameWriter::default(),
            client: Believer::default(),
            me,
        }
    }

    /// One tick; the frame is made unless the client's socket is full.
    fn tick(&mut self, writable: bool, backwards: bool) -> Option<marchland_proto::client::Frame> {
        let batch = self.owner.tick(backwards);
        assert_eq!(self.view().apply(&batch), crate::Applied::Tick);
        self.view().check();
        self.own.take(self.owner.own_state(self.me));
        let frame = writable.then(|| self.send());
        self.hear();
        frame
    }

    fn view(&mut self) -> &mut RegionView {
        let own = self.views.open(group());
        &mut self.views[own]
    }

    fn hear(&mut self) {
        let own = self.views.open(group());
        self.owner.hear(&mut self.views[own]);
    }

    fn send(&mut self) -> marchland_proto::client::Frame {
        let own = *self.own.state().unwrap();
        let map = crate::RegionMap::default();
        self.viewer.hold_cells(&mut self.views, &map, &CONFIG, own.position[0], own.position[2]);
        let mut out = BytesMut::new();
        assert!(self.writer.write(&self.views, &CONFIG, &mut self.viewer, &mut self.own, &mut self.replies, &mut out));
        self.client.take(&out)
    }

    /// What is shown is the truth of this tick.
    fn check_truth(&self) {
        let truth = self.owner.by_entity();
        for (alias, shown) in &self.client.others {
            let real = truth.get(&shown.entity).unwrap_or_else(|| panic!("alias {alias} shows {shown:?}, which is gone"));
            assert_eq!((shown.at, shown.look), (real.at, real.look), "alias {alias}, entity {}", shown.entity);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Spawn([i32; 3]),
    Despawn(u32),
    Walk(u32, [i8; 3]),
    Jump(u32, [i32; 3]),
    Look(u32),
    Hide(u32, Option<u64>),
    Tick { writable: bool, backwards: bool },
    FailOver(usize),
}

fn position() -> impl Strategy<Value = [i32; 3]> {
    (-6000..6000i32, -50..50i32, -6000..6000i32).prop_map(|(x, y, z)| [x, y, z])
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..40u32;
    prop_oneof![
        3 => position().prop_map(Step::Spawn),
        1 => slot.clone().prop_map(Step::Despawn),
        8 => (slot.clone(), any::<[i8; 3]>()).prop_map(|(slot, by)| Step::Walk(slot, by)),
        1 => (slot.clone(), position()).prop_map(|(slot, at)| Step::Jump(slot, at)),
        1 => slot.clone().prop_map(Step::Look),
        1 => (slot, proptest::option::of(0..3u64)).prop_map(|(slot, who)| Step::Hide(slot, who)),
        8 => (proptest::bool::weighted(0.8), any::<bool>()).prop_map(|(writable, backwards)| Step::Tick { writable, backwards }),
        1 => (0..7usize).prop_map(Step::FailOver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn what_is_shown_is_the_truth_whatever_happens(steps in proptest::collection::vec(step(), 1..120)) {
        let mut scene = Scene::new();
        for step in steps {
            match step {
                Step::Spawn(at) if scene.owner.slots.iter().flatten().count() < 40 => { scene.owner.spawn(at); }
                Step::Despawn(slot) if slot != scene.me => scene.owner.despawn(slot),
                Step::Walk(slot, by) => if let Some(ent) = scene.owner.ent(slot) {
                    for (at, by) in ent.at.iter_mut().zip(by) { *at += i32::from(by); }
                },
                Step::Jump(slot, at) => if let Some(ent) = scene.owner.ent(slot) { ent.at = at; },
                Step::Look(slot) => scene.owner.change_look(slot),
                Step::Hide(slot, who) if slot != scene.me => {
                    if let Some(ent) = scene.owner.ent(slot) { ent.audience = who.map(|who| vec![who, 9]); }
                    scene.owner.change_look(slot);
                }
                Step::Tick { writable, backwards } => if scene.tick(writable, backwards).is_some() { scene.check_truth(); },
                Step::FailOver(by) => {
                    let me = scene.owner.slots[scene.me as usize].as_ref().unwrap().entity;
                    let own = scene.views.open(group());
                    scene.owner.fail_over(&mut scene.views[own], by);
                    scene.me = scene.owner.slots.iter().position(|s| s.as_ref().is_some_and(|e| e.entity == me)).unwrap() as u32;
                }
                Step::Spawn(_) | Step::Despawn(_) | Step::Hide(..) => {}
            }
        }
        // Left alone for a while, the client sees whom it should.
        for _ in 0..12 { scene.tick(true, false); }
        scene.check_truth();
        let truth = scene.owner.by_entity();
        let me = scene.owner.slots[scene.me as usize].clone().unwrap();
        let distance = |at: [i32; 3]| (((at[0] - me.at[0]) as f64).powi(2) + ((at[2] - me.at[2]) as f64).powi(2)).sqrt() / 64.0;
        let may = |e: &crate::test_owner::Ent| e.audience.as_ref().is_none_or(|list| list.contains(&1));
        let shown: Vec<_> = scene.client.others.values().map(|s| s.entity).collect();
        for entity in &shown {
            let ent = &truth[entity];
            prop_assert!(may(ent) && *entity != me.entity && distance(ent.at) <= 52.01);
        }
        let farthest = shown.iter().map(|e| distance(truth[e].at)).fold(0.0, f64::max);
        for ent in truth.values().filter(|e| may(e) && e.entity != me.entity && !shown.contains(&e.entity)) {
            let reason = distance(ent.at) > 49.99 || (shown.len() == CONFIG.visible_max && distance(ent.at) >= farthest - 2.01);
            prop_assert!(reason, "{} at {} m is not shown, {} are, the farthest at {} m", ent.entity, distance(ent.at), shown.len(), farthest);
        }
    }
}

#[test]
fn a_walker_costs_four_bytes_and_one_who_stands_nothing() {
    let mut scene = Scene::new();
    let walker = scene.owner.spawn([640, 0, 0]);
    scene.owner.spawn([0, 0, 640]);
    for _ in 0..6 {
        scene.tick(true, false);
    }
    assert_eq!(scene.client.others.len(), 2);
    let quiet = scene.tick(true, false).unwrap();
    assert!(quiet.motion.is_empty() && quiet.self_.is_none() && !quiet.full);
    scene.owner.ent(walker).unwrap().at[0] += 16;
    let frame = scene.tick(true, false).unwrap();
    assert_eq!(frame.motion.len(), 2 + 4);
    // After a skipped frame it is absolute, and with its height once that changed.
    scene.owner.ent(walker).unwrap().at[0] += 16;
    assert!(scene.tick(false, false).is_none());
    scene.owner.ent(walker).unwrap().at[0] += 16;
    assert_eq!(scene.tick(true, false).unwrap().motion.len(), 2 + 8);
    scene.owner.ent(walker).unwrap().at[1] += 5;
    assert_eq!(scene.tick(true, false).unwrap().motion.len(), 2 + 5);
    scene.owner.ent(walker).unwrap().at[1] += 500;
    assert_eq!(scene.tick(true, false).unwrap().motion.len(), 2 + 10);
    scene.check_truth();
}

#[test]
fn one_who_was_hidden_is_gone_in_the_very_next_frame() {
    let mut scene = Scene::new();
    let rogue = scene.owner.spawn([640, 0, 0]);
    for _ in 0..10 {
        scene.tick(true, false);
    }
    for tick in 0..6 {
        scene.owner.ent(rogue).unwrap().audience = if tick % 2 == 0 { Some(vec![2]) } else { None };
        scene.owner.change_look(rogue);
        scene.tick(true, false);
        assert_eq!(scene.client.others.len(), tick % 2, "in tick {tick}");
    }
}

#[test]
fn pinned_entities_come_first_wherever_they_are() {
    let mut scene = Scene::new();
    for i in 0..20 {
        scene.owner.spawn([64 * i, 0, 64]);
    }
    let far = scene.owner.spawn([52 * 64, 0, 0]);
    let entity = scene.owner.ent(far).unwrap().entity;
    scene.viewer.pin(&[entity, 12345]);
    for _ in 0..10 {
        scene.tick(true, false);
    }
    assert!(scene.client.others.values().any(|shown| shown.entity == entity));
    assert_eq!(scene.client.others.len(), CONFIG.visible_max);
    scene.viewer.pin(&[]);
    for _ in 0..5 {
        scene.tick(true, false);
    }
    assert!(!scene.client.others.values().any(|shown| shown.entity == entity));
}

#[test]
fn important_entities_displace_nearer_ones() {
    let mut scene = Scene::new();
    for i in 0..20 {
        scene.owner.spawn([64 * (5 + i), 0, 0]);
    }
    let boss = scene.owner.spawn([40 * 64, 0, 0]);
    scene.owner.ent(boss).unwrap().priority = 9;
    let entity = scene.owner.ent(boss).unwrap().entity;
    for _ in 0..10 {
        scene.tick(true, false);
    }
    assert!(scene.client.others.values().any(|shown| shown.entity == entity));
}

#[test]
fn replies_are_in_the_frame_and_bounded_by_bytes() {
    let mut scene = Scene::new();
    let reply = |reply_seq, bytes| StoredReply { reply_seq, command_seq: 3, code: 16, body: vec![7; bytes].into() };
    for (seq, bytes) in [(1, 10), (2, REPLY_BYTES_PER_FRAME), (3, 5), (4, 5)] {
        scene.replies.offer(&reply(seq, bytes));
    }
    let mut seqs = Vec::new();
    for _ in 0..3 {
        let frame = scene.tick(true, false).unwrap();
        seqs.push(frame.replies.iter().map(|r| r.reply_seq).collect::<Vec<_>>());
    }
    assert_eq!(seqs, [vec![1], vec![2], vec![3, 4]]);
    assert!(scene.tick(false, false).is_none());
}

#[test]
fn events_reach_those_who_are_near_and_entitled() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        scene.tick(true, false);
    }
    let mut batch = scene.owner.tick(false);
    let event = |x, kind, characters: &[u64]| CellEvent {
        kind,
        x,
        audience: (!characters.is_empty())
            .then(|| marchland_proto::cluster::Audience { kind: 1, characters: characters.to_vec() }),
        ..CellEvent::default()
    };
    let events = vec![event(0, 1, &[]), event(51 * 64, 2, &[]), event(0, 3, &[5]), event(0, 4, &[5, 1])];
    batch.cells.push(CellPart { cell: cell_of([0; 3]), events, ..CellPart::default() });
    scene.view().apply(&batch);
    let kinds: Vec<_> = scene.send().area_events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [1, 4]);
    assert!(scene.tick(true, false).unwrap().area_events.is_empty(), "once");
}

#[test]
fn every_field_is_written_as_prost_would() {
    let mut scene = Scene::new();
    scene.own.take(OwnState {
        character: 1,
        applied_seq: 300,
        move_seq: 299,
        position: [1.5, -2.0, 3.25],
        velocity: [5.0, 0.5, -5.0],
        discontinuity: 2,
        move_left_ms: 40,
        flags: 3,
        slot: 0,
        yaw: 200,
    });
    let mut batch = scene.owner.tick(false);
    batch.time_rate = 50;
    scene.view().apply(&batch);
    // `Believer` compares the bytes with prost's.
    let frame = scene.send();
    assert_eq!((frame.region, frame.tick, frame.server_ms, frame.time_rate, frame.applied_seq), (7, 1, 50, 50, 300));
    let own = frame.self_.unwrap();
    assert_eq!((own.vz, own.yaw, own.flags, own.move_seq, own.move_left_ms), (-5.0, 200, 3, 299, 40));
    assert!(frame.full);
}
