//! For tests: an owner of a small world whose every tick is remembered, and a client that believes frames alone.

use std::collections::{BTreeMap, BTreeSet};

use marchland_proto::client::{Frame, ServerMessage, server_message::Body};
use marchland_proto::cluster::{Audience, CellPart, EntityRecord, HandedOff, RegionBatch};
use marchland_proto::records::{ClientMotion, Motion, OwnState, client_motions, metres};
use marchland_types::CellId;
use prost::Message;

use crate::RegionView;

/// An entity of the test world.
#[derive(Clone, Debug)]
pub(crate) struct Ent {
    pub(crate) entity: u64,
    pub(crate) at: [i32; 3],
    before: Option<[i32; 3]>,
    /// Cell in which watchers know it.
    cell: Option<u32>,
    pub(crate) look: u8,
    looked: bool,
    pub(crate) audience: Option<Vec<u64>>,
    pub(crate) priority: u32,
    pub(crate) move_number: u64,
}

/// Holds slots and sends what the cells' subscribers are owed.
#[derive(Debug)]
pub(crate) struct Owner {
    region: u32,
    pub(crate) slots: Vec<Option<Ent>>,
    left: Vec<(u32, u32)>,
    handed: Vec<(u32, HandedOff)>,
    /// Entities of which nobody was told that they went: their cell was sent in full.
    pub(crate) untold: Vec<u64>,
    next_entity: u64,
    pub(crate) tick: u64,
    pub(crate) index: u64,
    cells: BTreeSet<u32>,
    fresh: BTreeSet<u32>,
}

pub(crate) fn cell_of(at: [i32; 3]) -> u32 {
    CellId::of(metres(at[0]), metres(at[2])).pack()
}

impl Default for Owner {
    fn default() -> Self {
        Self::of(7)
    }
}

impl Owner {
    /// Of a region. Its entities' ids are no other's.
    pub(crate) fn of(region: u32) -> Self {
        Self {
            region,
            slots: Vec::new(),
            left: Vec::new(),
            handed: Vec::new(),
            untold: Vec::new(),
            next_entity: u64::from(region) * 1_000,
            tick: 0,
            index: 0,
            cells: BTreeSet::new(),
            fresh: BTreeSet::new(),
        }
    }

    /// An entity goes to another region; what it is now is for that one.
    pub(crate) fn hand_over(&mut self, slot: u32, to_group: u64) -> Ent {
        let mut ent = self.slots[slot as usize].take().unwrap();
        ent.move_number += 1;
        if let Some(cell) = ent.cell.take() {
            let handed = HandedOff { slot, entity: ent.entity, move_number: ent.move_number, to_group };
            self.handed.push((cell, handed));
        }
        (ent.before, ent.looked) = (None, true);
        ent
    }

    /// Takes one that came from another region.
    pub(crate) fn receive(&mut self, ent: Ent) -> u32 {
        self.place(ent)
    }

    fn place(&mut self, ent: Ent) -> u32 {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(ent);
        slot as u32
    }

    pub(crate) fn spawn(&mut self, at: [i32; 3]) -> u32 {
        self.next_entity += 1;
        self.place(Ent {
            entity: self.next_entity,
            at,
            before: None,
            cell: None,
            look: 1,
            looked: true,
            audience: None,
            priority: 0,
            move_number: 1,
        })
    }

    pub(crate) fn despawn(&mut self, slot: u32) {
        if let Some(Ent { cell: Some(cell), .. }) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.left.push((cell, slot));
        }
    }

    pub(crate) fn ent(&mut self, slot: u32) -> Option<&mut Ent> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(crate) fn change_look(&mut self, slot: u32) {
        if let Some(ent) = self.ent(slot) {
            (ent.look, ent.looked) = (ent.look.wrapping_add(1), true);
        }
    }

    /// Subscriptions, as the view asks for them.
    pub(crate) fn hear(&mut self, view: &mut RegionView) {
        let (subscribe, unsubscribe) = view.take_changes();
        for cell in unsubscribe {
            assert!(self.cells.remove(&cell), "cell {cell} was never subscribed to");
            self.fresh.remove(&cell);
        }
        for cell in subscribe {
            assert!(self.cells.insert(cell), "cell {cell} twice");
            self.fresh.insert(cell);
        }
    }

    /// Another owner takes over: other slots, and everything in full.
    pub(crate) fn fail_over(&mut self, view: &mut RegionView, rotate: usize) {
        let len = self.slots.len();
        self.slots.rotate_left(rotate % len.max(1));
        self.left.clear();
        self.cells = view.restart().into_iter().collect();
        self.fresh = self.cells.clone();
    }

    fn record(slot: u32, ent: &Ent) -> EntityRecord {
        EntityRecord {
            slot,
            entity: ent.entity,
            kind: 1,
            name: format!("e{}", ent.entity),
            look: vec![ent.look].into(),
            x: ent.at[0],
            y: ent.at[1],
            z: ent.at[2],
            yaw: u32::from(ent.look),
            priority: ent.priority,
            audience: ent.audience.clone().map(|characters| Audience { kind: 3, characters }),
            move_number: ent.move_number,
        }
    }

    /// One tick: what was changed since the last one, as cells see it. `backwards` turns the order of the cells around.
    pub(crate) fn tick(&mut self, backwards: bool) -> RegionBatch {
        self.tick += 1;
        self.index += 2;
        let mut parts: BTreeMap<u32, CellPart> = BTreeMap::new();
        fn part(parts: &mut BTreeMap<u32, CellPart>, cell: u32) -> &mut CellPart {
            parts.entry(cell).or_insert_with(|| CellPart { cell, ..CellPart::default() })
        }
        for (cell, slot) in std::mem::take(&mut self.left) {
            part(&mut parts, cell).left.push(slot);
        }
        for (cell, handed) in std::mem::take(&mut self.handed) {
            // As a real owner does: what is sent in full is nothing but what is there.
            if self.fresh.contains(&cell) {
                self.untold.push(handed.entity);
            } else {
                part(&mut parts, cell).handed.push(handed);
            }
        }
        for (slot, ent) in self.slots.iter_mut().enumerate() {
            let (slot, Some(ent)) = (slot as u32, ent) else { continue };
            let cell = cell_of(ent.at);
            let came = ent.cell != Some(cell);
            if came && let Some(old) = ent.cell.replace(cell) {
                part(&mut parts, old).left.push(slot);
            }
            let full = self.fresh.contains(&cell);
            let moved = ent.before != Some(ent.at);
            let to = part(&mut parts, cell);
            if came || ent.looked || full {
                to.entities.push(Self::record(slot, ent));
            }
            if moved || full {
                let delta = ent.before.and_then(|before| Motion::delta_between(before, ent.at));
                let [x, y, z] = ent.at;
                let mut bytes = to.motion.to_vec();
                Motion { slot, x, y, z, delta, yaw: ent.look }.put(&mut bytes);
                to.motion = bytes.into();
            }
            (ent.before, ent.looked) = (Some(ent.at), false);
        }
        for &cell in &self.fresh {
            part(&mut parts, cell).full = true;
        }
        self.fresh.clear();
        let mut cells: Vec<_> = parts.into_values().filter(|part| self.cells.contains(&part.cell)).collect();
        if backwards {
            cells.reverse();
        }
        RegionBatch {
            group: 1,
            region: self.region,
            tick: self.tick,
            index: self.index,
            server_ms: self.tick * 50,
            cells,
            ..Default::default()
        }
    }

    pub(crate) fn own_state(&self, slot: u32) -> OwnState {
        let at = self.slots[slot as usize].as_ref().unwrap().at;
        OwnState { character: 1, position: at.map(metres), slot, ..OwnState::default() }
    }

    pub(crate) fn by_entity(&self) -> BTreeMap<u64, Ent> {
        self.slots.iter().flatten().map(|ent| (ent.entity, ent.clone())).collect()
    }
}

/// What a client knows of another entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) entity: u64,
    pub(crate) at: [i32; 3],
    pub(crate) look: u8,
}

/// A client that knows nothing but frames.
#[derive(Debug, Default)]
pub(crate) struct Believer {
    pub(crate) others: BTreeMap<u8, Shown>,
    pub(crate) region: u32,
    pub(crate) tick: u64,
    server_ms: u64,
}

impl Believer {
    /// Applies an encoded message; panics at whatever a client may not be sent.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Frame {
        let message = ServerMessage::decode(bytes).unwrap();
        assert_eq!(message.encode_to_vec(), bytes, "byte for byte what prost writes");
        let Some(Body::Frame(frame)) = message.body else { panic!("not a frame") };
        let same = frame.region == self.region;
        assert!(frame.tick > self.tick || !same, "frames never go back");
        assert!(frame.server_ms >= self.server_ms, "nor does time, whatever the region");
        if frame.full {
            self.others.clear();
        }
        for alias in &frame.leaves {
            assert!(self.others.remove(alias).is_some(), "leave of alias {alias}, which is not in view");
        }
        for enter in &frame.enters {
            let shown = Shown { entity: enter.entity, at: [enter.x, enter.y, enter.z], look: enter.look[0] };
            assert!(self.others.insert(enter.alias as u8, shown).is_none(), "alias {} is taken", enter.alias);
            assert!(!frame.leaves.contains(&(enter.alias as u8)), "alias given in the frame that freed it");
        }
        let follows = same && frame.tick == self.tick + 1;
        client_motions(&frame.motion, |motion| match motion {
            ClientMotion::Delta { alias, by, .. } => {
                assert!(follows, "a delta without the tick before");
                let shown = self.others.get_mut(&alias).unwrap();
                for (at, by) in shown.at.iter_mut().zip(by) {
                    *at += i32::from(by);
                }
            }
            ClientMotion::Absolute { alias, x, y, z, .. } => {
                let shown = self.others.get_mut(&alias).unwrap();
                shown.at = [x, y.map_or(shown.at[1], i32::from), z];
            }
        })
        .unwrap();
        for look in &frame.looks {
            self.others.get_mut(&(look.alias as u8)).unwrap().look = look.look[0];
        }
        (self.region, self.tick, self.server_ms) = (frame.region, frame.tick, frame.server_ms);
        frame
    }
}
