//! What an edge knows of one region: entities by the owner's slots, ordered by cells of ground.
//!
//! The owner's batches go in through [`RegionView::apply`]; viewers keep cells subscribed through [`RegionView::retain`] and
//! [`RegionView::release`]. What always holds: only entities of subscribed cells are kept; a batch that is not newer than what
//! is known changes nothing; an entity that left and another one that took its slot never look alike (`generation`); of an entity that
//! went to another region it is known for a while that it did.
//! It refuses slots and cells beyond its bounds, whatever the owner says.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use marchland_proto::cluster::{Audience, CellEvent, CellPart, EntityRecord, HandedOff, RegionBatch};
use marchland_proto::records::Motion;
use marchland_types::limits::NAME_MAX_BYTES;
use marchland_types::{EntityId, GroupId, planted};

/// Slots of one region. A region of players has a few thousand entities; a peer can not make the tables larger than this.
pub const SLOTS_MAX: usize = 1 << 18;
/// Cells of one region that an edge subscribes to: a square of 12.8 km.
pub const CELLS_MAX: usize = 1 << 18;
/// Area events kept of one tick. They are best effort.
pub const EVENTS_PER_TICK_MAX: usize = 1024;
/// Ticks for which they are kept: a client whose frames follow another region's ticks is sent them with its next frame.
const EVENT_TICKS: u32 = 4;
/// Ticks for which it is kept that an entity went to another region: longer than a client's frames wait for one another.
const HANDED_TICKS: u32 = 40;
/// Entities of which that is kept. Of more, clients are shown that they leave and enter.
const HANDED_MAX: usize = 4096;
/// Ticks for which a cell stays subscribed after its last viewer left: whoever walks along a cell's edge does not make the
/// owner send its content again and again.
pub const CELL_LINGER_TICKS: u32 = 40;
/// Longest appearance of an entity, in bytes. A longer one is shown as none.
pub const LOOK_MAX_BYTES: usize = 512;
/// Positions beyond this do not fit in a client's 24-bit records, in quanta: deltas would drift from what was clamped.
const PACKED_MAX: i32 = (1 << 23) - 1;
/// Delta of an entity that has none for this tick.
pub(crate) const NO_DELTA: [i8; 3] = [i8::MIN; 3];
/// No cell.
const NOWHERE: u32 = u32::MAX;

/// What is read for every entity that anyone looks at: 32 bytes, two to a cache line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hot {
    /// Position in quanta.
    pub(crate) at: [i32; 3],
    /// Leads here from the tick before, if `moved` is the newest revision; else [`NO_DELTA`].
    pub(crate) delta: [i8; 3],
    pub(crate) yaw: u8,
    /// Revision at which position or facing last changed.
    pub(crate) moved: u32,
    /// Revision at which the height last changed.
    pub(crate) rose: u32,
    /// Revision at which the appearance last changed.
    pub(crate) looked: u32,
    /// Odd while somebody is here; another number for every occupant.
    pub(crate) generation: u32,
}

const EMPTY: Hot = Hot { at: [0; 3], delta: NO_DELTA, yaw: 0, moved: 0, rose: 0, looked: 0, generation: 0 };

impl Hot {
    fn present(&self) -> bool {
        self.generation & 1 == 1
    }
}

/// What is read when an entity comes into view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) entity: u64,
    pub(crate) kind: u32,
    pub(crate) name: String,
    pub(crate) look: Bytes,
    /// Raised each time that it goes to another region.
    pub(crate) move_number: u64,
    /// Factor by which its squared distance counts in interest: 1 for priority 0, less for more important ones.
    pub(crate) nearness: f32,
    /// `None`: everyone may see it. Else the characters that may, sorted.
    pub(crate) audience: Option<Box<[u64]>>,
}

impl Facts {
    pub(crate) fn may_see(&self, character: u64) -> bool {
        self.audience.as_ref().is_none_or(|list| list.binary_search(&character).is_ok())
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Index of the cell, or [`NOWHERE`].
    cell: u32,
    /// Index within the cell's list.
    at: u32,
    /// Revision at which it came into the cell.
    entered: u32,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    id: u32,
    /// Viewers that want it; 0 is a free or lingering entry.
    viewers: u32,
    /// Revision at which the last viewer went.
    idle_since: u32,
    /// It is in the list of lingering cells.
    lingers: bool,
    /// Its full content has come.
    known: bool,
    slots: Vec<u32>,
}

/// Of ids, which the servers count up: nobody can choose them so that many meet. Looked up a hundred times for each client's pick,
/// and never gone through in the table's order.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((self.0 << 8) ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // 2^64 divided by the golden ratio: ids that follow each other lie far apart, in the upper bits as in the lower.
        let product = u128::from(id) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

/// Something that happened not long ago.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Revision in which it happened.
    revision: u32,
    pub(crate) kind: u32,
    pub(crate) x: i32,
    pub(crate) z: i32,
    pub(crate) body: Bytes,
    pub(crate) audience: Option<Box<[u64]>>,
}

/// What a batch was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A new tick: frames are due.
    Tick,
    /// More of the tick that is known, such as the content of a cell that was subscribed to just now.
    Supplement,
    /// Not newer than what is known: nothing was changed.
    Stale,
}

/// One region as an edge sees it.
#[derive(Debug)]
pub struct RegionView {
    group: GroupId,
    region: u32,
    index: u64,
    tick: u64,
    server_ms: u64,
    time_rate: u32,
    /// Counts applied ticks. A client remembers the one that it was sent last.
    revision: u32,
    /// The batches before were of the tick before: a client that was sent the revision before can take deltas.
    continuous: bool,
    /// Revision at which somebody became visible to others than before.
    audiences: u32,
    pub(crate) hot: Vec<Hot>,
    pub(crate) facts: Vec<Facts>,
    places: Vec<Place>,
    by_entity: HashMap<u64, u32, BuildHasherDefault<IdHasher>>,
    cells: Vec<Cell>,
    cell_by_id: BTreeMap<u32, u32>,
    free_cells: Vec<u32>,
    /// In order of revisions.
    events: Vec<Event>,
    /// Those of the newest revision begin here.
    events_from: usize,
    /// Entities that went to other regions: the number under which they arrive there, and the revision.
    handed: BTreeMap<u64, (u64, u32)>,
    handed_order: VecDeque<(u32, u64)>,
    /// Viewers that see something of it.
    followers: u32,
    subscribe: Vec<u32>,
    /// Cells without viewers whose time is not over.
    lingering: Vec<u32>,
}

impl RegionView {
    /// Nothing known yet.
    #[must_use]
    pub fn new(group: GroupId) -> Self {
        Self {
            group,
            region: 0,
            index: 0,
            tick: 0,
            server_ms: 0,
            time_rate: 100,
            revision: 0,
            continuous: false,
            audiences: 0,
            hot: Vec::new(),
            facts: Vec::new(),
            places: Vec::new(),
            by_entity: HashMap::default(),
            cells: Vec::new(),
            cell_by_id: BTreeMap::new(),
            free_cells: Vec::new(),
            events: Vec::new(),
            events_from: 0,
            handed: BTreeMap::new(),
            handed_order: VecDeque::new(),
            followers: 0,
            subscribe: Vec::new(),
            lingering: Vec::new(),
        }
    }

    /// The region's raft group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The region, as its batches say; 0 before the first.
    #[must_use]
    pub fn region(&self) -> u32 {
        self.region
    }

    /// Log index of the newest batch.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Its tick.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// Its region time, in milliseconds since 1970.
    #[must_use]
    pub fn server_ms(&self) -> u64 {
        self.server_ms
    }

    /// Percent of real time at which ticks come.
    #[must_use]
    pub fn time_rate(&self) -> u32 {
        self.time_rate
    }

    /// Counts ticks as they were applied here.
    #[must_use]
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// Entities known.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.by_entity.len()
    }

    /// Cells subscribed to, in order.
    pub fn subscribed(&self) -> impl Iterator<Item = u32> + '_ {
        self.cell_by_id.keys().copied()
    }

    /// Where an entity is, if it is known: position in quanta.
    #[must_use]
    pub fn position_of(&self, entity: EntityId) -> Option<[i32; 3]> {
        self.by_entity.get(&entity.0).map(|&slot| self.hot[slot as usize].at)
    }

    /// Whether a client that was last sent `revision` may be sent deltas of the newest tick.
    pub(crate) fn deltas_follow(&self, revision: u32) -> bool {
        self.continuous && revision.wrapping_add(1) == self.revision
    }

    /// Whether somebody became visible to others than before since `revision`.
    pub(crate) fn audiences_changed(&self, revision: u32) -> bool {
        self.audiences > revision
    }

    pub(crate) fn slot_of(&self, entity: u64) -> Option<u32> {
        self.by_entity.get(&entity).copied()
    }

    pub(crate) fn slots_in(&self, cell: u32) -> &[u32] {
        &self.cells[cell as usize].slots
    }

    pub(crate) fn cell_id(&self, cell: u32) -> u32 {
        self.cells[cell as usize].id
    }

    /// Where an entity is under at least a given move number.
    pub(crate) fn find(&self, entity: u64, least_move_number: u64) -> Option<u32> {
        self.slot_of(entity).filter(|&slot| self.facts[slot as usize].move_number >= least_move_number)
    }

    /// The number under which an entity that was here arrives elsewhere.
    pub(crate) fn handed(&self, entity: u64) -> Option<u64> {
        // Hardly ever anybody is on the way.
        if self.handed.is_empty() { None } else { self.handed.get(&entity).map(|(move_number, _)| *move_number) }
    }

    /// What happened after `revision`, as far as it is kept.
    pub(crate) fn events_after(&self, revision: u32) -> &[Event] {
        &self.events[self.events.partition_point(|event| event.revision <= revision)..]
    }

    /// A viewer begins to see something of the region.
    pub fn follow(&mut self) {
        self.followers += 1;
    }

    /// It does not any more.
    pub fn unfollow(&mut self) {
        self.followers -= 1;
    }

    /// Whether any viewer sees something of it.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.followers > 0
    }

    /// A viewer wants a cell. Returns its handle for [`RegionView::release`], or `None` when there are too many cells.
    pub fn retain(&mut self, id: u32) -> Option<u32> {
        if let Some(&cell) = self.cell_by_id.get(&id) {
            self.cells[cell as usize].viewers += 1;
            return Some(cell);
        }
        if self.cell_by_id.len() >= CELLS_MAX {
            return None;
        }
        let cell = self.free_cells.pop().unwrap_or_else(|| {
            self.cells.push(Cell::default());
            self.cells.len() as u32 - 1
        });
        let entry = &mut self.cells[cell as usize];
        (entry.id, entry.viewers, entry.known) = (id, 1, false);
        self.cell_by_id.insert(id, cell);
        self.subscribe.push(id);
        Some(cell)
    }

    /// A viewer does not want a cell any more. The last one's cell stays for [`CELL_LINGER_TICKS`]: it may come back.
    pub fn release(&mut self, cell: u32) {
        let entry = &mut self.cells[cell as usize];
        entry.viewers -= 1;
        if entry.viewers == 0 {
            entry.idle_since = self.revision;
            if !std::mem::replace(&mut entry.lingers, true) {
                self.lingering.push(cell);
            }
        }
    }

    /// What the owner must be told since the last call: cells to subscribe to, cells to forget. No cell is in both.
    pub fn take_changes(&mut self) -> (Vec<u32>, Vec<u32>) {
        let mut forgotten = Vec::new();
        let mut i = 0;
        while let Some(&cell) = self.lingering.get(i) {
            let entry = &mut self.cells[cell as usize];
            let expired = self.revision.wrapping_sub(entry.idle_since) >= CELL_LINGER_TICKS;
            if entry.viewers == 0 && !expired {
                i += 1;
                continue;
            }
            entry.lingers = false;
            self.lingering.swap_remove(i);
            if self.cells[cell as usize].viewers == 0 {
                forgotten.push(self.forget(cell));
            }
        }
        // What was wanted and forgotten between two calls was never subscribed to.
        let mut subscribe = std::mem::take(&mut self.subscribe);
        subscribe.retain(|id| self.cell_by_id.contains_key(id));
        (subscribe, forgotten)
    }

    /// Drops a cell without viewers and what is in it.
    fn forget(&mut self, cell: u32) -> u32 {
        let entry = &mut self.cells[cell as usize];
        let id = entry.id;
        entry.known = false;
        for slot in std::mem::take(&mut entry.slots) {
            self.places[slot as usize].cell = NOWHERE;
            self.vacate(slot);
        }
        self.cell_by_id.remove(&id);
        self.free_cells.push(cell);
        id
    }

    /// Whether [`RegionView::take_changes`] has something.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        let expired = |&cell: &u32| {
            let entry = &self.cells[cell as usize];
            entry.viewers > 0 || self.revision.wrapping_sub(entry.idle_since) >= CELL_LINGER_TICKS
        };
        !self.subscribe.is_empty() || self.lingering.iter().any(expired)
    }

    /// Another owner will send a new view of every cell: the old one is shown until then. Returns all cells to subscribe to.
    pub fn restart(&mut self) -> Vec<u32> {
        self.subscribe.clear();
        for cell in &mut self.cells {
            cell.known = false;
        }
        self.subscribed().collect()
    }

    /// Takes the public part of a batch.
    ///
    /// ```text
    ///  1. entities and motion of every cell    an entity that changes cells is moved, not removed and made anew,
    ///  2. what left, what `full` did not name   in whatever order the two cells' parts stand in the batch
    /// ```
    pub fn apply(&mut self, batch: &RegionBatch) -> Applied {
        // Planted: a batch that was overtaken by a newer one is shown.
        let late = planted!("late-frame") && self.revision > 0 && batch.index < self.index;
        let applied = if late || batch.index > self.index && batch.tick > self.tick {
            self.continuous = batch.tick == self.tick + 1 && self.revision > 0;
            self.revision = self.revision.wrapping_add(1);
            self.forget_old();
            (self.index, self.tick, self.region) = (batch.index, batch.tick, batch.region);
            self.server_ms = self.server_ms.max(batch.server_ms);
            self.time_rate = if batch.time_rate == 0 { 100 } else { batch.time_rate.min(100) };
            Applied::Tick
        } else if batch.index == self.index && batch.tick == self.tick && self.revision > 0 {
            Applied::Supplement
        } else {
            return Applied::Stale;
        };
        for part in &batch.cells {
            let Some(&cell) = self.cell_by_id.get(&part.cell) else { continue };
            let entry = &mut self.cells[cell as usize];
            entry.known |= part.full;
            if entry.known {
                self.take_part(cell, part);
            }
        }
        for part in &batch.cells {
            let Some(&cell) = self.cell_by_id.get(&part.cell) else { continue };
            if part.full {
                self.drop_unnamed(cell);
            }
            for &slot in &part.left {
                if let Some(place) = self.places.get(slot as usize)
                    && place.cell == cell
                    && place.entered != self.revision
                {
                    self.leave(slot);
                }
            }
            for handed in &part.handed {
                self.hand_over(handed);
            }
        }
        applied
    }

    /// What was kept for a few ticks and is too old now.
    fn forget_old(&mut self) {
        let revision = self.revision;
        if !self.events.is_empty() {
            self.events.retain(|event| revision.wrapping_sub(event.revision) < EVENT_TICKS);
        }
        self.events_from = self.events.len();
        while let Some(&(at, entity)) = self.handed_order.front()
            && revision.wrapping_sub(at) > HANDED_TICKS
        {
            self.handed_order.pop_front();
            // It may have been here again since.
            if self.handed.get(&entity).is_some_and(|(_, since)| *since == at) {
                self.handed.remove(&entity);
            }
        }
    }

    /// An entity went to another region. Unless it is back already: the higher number counts.
    fn hand_over(&mut self, handed: &HandedOff) {
        if let Some(slot) = self.slot_of(handed.entity) {
            if self.facts[slot as usize].move_number >= handed.move_number {
                return;
            }
            self.leave(slot);
        }
        if self.handed_order.len() < HANDED_MAX {
            self.handed.insert(handed.entity, (handed.move_number, self.revision));
            self.handed_order.push_back((self.revision, handed.entity));
        }
    }

    fn take_part(&mut self, cell: u32, part: &CellPart) {
        for record in &part.entities {
            self.take_entity(cell, record);
        }
        match Motion::iter(&part.motion) {
            Ok(motions) => motions.for_each(|motion| self.take_motion(&motion)),
            // A peer of another build. The next `full` part puts it right.
            Err(_) => self.cells[cell as usize].known = false,
        }
        for event in &part.events {
            if self.events.len() - self.events_from < EVENTS_PER_TICK_MAX {
                self.events.push(event_of(event, self.revision));
            }
        }
    }

    fn take_entity(&mut self, cell: u32, record: &EntityRecord) {
        let slot = record.slot;
        if slot as usize >= SLOTS_MAX {
            return;
        }
        if slot as usize >= self.hot.len() {
            let len = slot as usize + 1;
            self.hot.resize(len, EMPTY);
            self.facts.resize(len, Facts::default());
            self.places.resize(len, Place { cell: NOWHERE, at: 0, entered: 0 });
        }
        if self.hot[slot as usize].present() && self.facts[slot as usize].entity != record.entity {
            self.leave(slot);
        }
        let at = [record.x, record.y, record.z];
        let revision = self.revision;
        let hot = &mut self.hot[slot as usize];
        let facts = &mut self.facts[slot as usize];
        // Copied: a slice would keep the whole batch in memory for as long as the entity looks like this.
        let look = if record.look.len() <= LOOK_MAX_BYTES { Bytes::copy_from_slice(&record.look) } else { Bytes::new() };
        if hot.present() {
            if hot.at != at || hot.yaw != record.yaw as u8 {
                if hot.at[1] != at[1] {
                    hot.rose = revision;
                }
                (hot.at, hot.yaw, hot.delta, hot.moved) = (at, record.yaw as u8, NO_DELTA, revision);
            }
            if facts.look != look {
                hot.looked = revision;
            }
        } else {
            // The same entity in two slots: the owner moved it, the newer one counts.
            if let Some(&old) = self.by_entity.get(&record.entity) {
                self.leave(old);
            }
            self.by_entity.insert(record.entity, slot);
            let hot = &mut self.hot[slot as usize];
            *hot = Hot {
                at,
                delta: NO_DELTA,
                yaw: record.yaw as u8,
                moved: revision,
                rose: revision,
                looked: revision,
                generation: hot.generation.wrapping_add(1),
            };
        }
        let facts = &mut self.facts[slot as usize];
        let name = if record.name.len() <= NAME_MAX_BYTES { record.name.as_str() } else { "" };
        facts.entity = record.entity;
        facts.kind = record.kind;
        facts.move_number = record.move_number;
        if facts.name != name {
            name.clone_into(&mut facts.name);
        }
        facts.look = look;
        let weight = 1.0 + record.priority.min(15) as f32;
        facts.nearness = 1.0 / (weight * weight);
        let audience = record.audience.as_ref().map(sorted);
        if facts.audience != audience {
            facts.audience = audience;
            self.audiences = revision;
        }
        self.put_in(slot, cell);
    }

    fn take_motion(&mut self, motion: &Motion) {
        let Some(hot) = self.hot.get_mut(motion.slot as usize) else { return };
        if !hot.present() {
            return;
        }
        let at = [motion.x, motion.y, motion.z];
        if hot.at[1] != at[1] {
            hot.rose = self.revision;
        }
        let packable = at[0].abs() < PACKED_MAX && at[2].abs() < PACKED_MAX && i16::try_from(at[1]).is_ok();
        (hot.at, hot.yaw, hot.moved) = (at, motion.yaw, self.revision);
        hot.delta = if packable { motion.delta.unwrap_or(NO_DELTA) } else { NO_DELTA };
    }

    fn put_in(&mut self, slot: u32, cell: u32) {
        let place = self.places[slot as usize];
        if place.cell != cell {
            if place.cell != NOWHERE {
                self.take_out(slot);
            }
            let list = &mut self.cells[cell as usize].slots;
            self.places[slot as usize] = Place { cell, at: list.len() as u32, entered: self.revision };
            list.push(slot);
        } else {
            self.places[slot as usize].entered = self.revision;
        }
    }

    fn take_out(&mut self, slot: u32) {
        let Place { cell, at, .. } = self.places[slot as usize];
        let list = &mut self.cells[cell as usize].slots;
        list.swap_remove(at as usize);
        if let Some(&moved) = list.get(at as usize) {
            self.places[moved as usize].at = at;
        }
        self.places[slot as usize].cell = NOWHERE;
    }

    /// Out of its cell and out of the tables.
    fn leave(&mut self, slot: u32) {
        if self.places[slot as usize].cell != NOWHERE {
            self.take_out(slot);
        }
        self.vacate(slot);
    }

    fn vacate(&mut self, slot: u32) {
        let hot = &mut self.hot[slot as usize];
        if hot.present() {
            hot.generation = hot.generation.wrapping_add(1);
            let facts = std::mem::take(&mut self.facts[slot as usize]);
            if self.by_entity.get(&facts.entity) == Some(&slot) {
                self.by_entity.remove(&facts.entity);
            }
        }
    }

    /// After a `full` part: whoever it did not name is not there.
    fn drop_unnamed(&mut self, cell: u32) {
        let revision = self.revision;
        let gone: Vec<u32> = self.cells[cell as usize]
            .slots
            .iter()
            .copied()
            .filter(|&slot| self.places[slot as usize].entered != revision)
            .collect();
        for slot in gone {
            self.leave(slot);
        }
    }

    /// Panics when the tables contradict each other. For tests and debug builds.
    pub fn check(&self) {
        let mut listed = 0;
        for (&id, &cell) in &self.cell_by_id {
            let entry = &self.cells[cell as usize];
            assert!(entry.id == id && (entry.viewers > 0 || entry.lingers), "cell {id} is kept for nobody");
            for (at, &slot) in entry.slots.iter().enumerate() {
                let place = self.places[slot as usize];
                assert_eq!((place.cell, place.at as usize), (cell, at), "slot {slot}");
                assert!(self.hot[slot as usize].present(), "slot {slot} is listed but empty");
                assert_eq!(self.by_entity.get(&self.facts[slot as usize].entity), Some(&slot));
                listed += 1;
            }
        }
        assert_eq!(listed, self.by_entity.len(), "every entity is in one cell");
        assert_eq!(listed, self.hot.iter().filter(|hot| hot.present()).count());
        assert!(self.handed.len() <= self.handed_order.len() && self.handed_order.len() <= HANDED_MAX);
        assert!(self.events.len() <= EVENTS_PER_TICK_MAX * EVENT_TICKS as usize);
    }
}

fn sorted(audience: &Audience) -> Box<[u64]> {
    let mut list = audience.characters.clone();
    list.sort_unstable();
    list.into()
}

fn event_of(event: &CellEvent, revision: u32) -> Event {
    Event {
        revision,
        kind: event.kind,
        x: event.x,
        z: event.z,
        body: event.body.clone(),
        audience: event.audience.as_ref().map(sorted),
    }
}

#[cfg(test)]
mod tests;
