//! The edges that watch a region, and what each tick has for them.
//!
//! Every changed entity is encoded once, every cell's part is built once and shared by all edges (its bytes are reference
//! counted), and an edge gets one batch a tick. The cost of an owner therefore does not grow with the number of players
//! who watch, only with the number of edge streams.
//!
//! An edge whose stream is full misses batches. It is then owed a full view, which it gets with the first batch that fits;
//! nothing waits for it in memory. Replies are not lost by that: they are region state, and a full view carries all that
//! are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use marchland_proto::cluster::{
    AttachAnswer, CellEvent, CellPart, EntityRecord, HandedOff, NodeToEdge, RegionBatch, RegionGone, SessionBatch, SessionEnd,
    SessionMoved,
};
use marchland_proto::records::{Motion, OwnState};
use marchland_types::{CellId, CharacterId, GroupId, LogIndex, MapEpoch, RegionId, ReplicaId, Tick, planted};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::port::EdgeId;

/// Batches that may wait in one edge's stream: two at the regular rate, and room for a pause of the edge's thread.
pub const EDGE_BATCHES_MAX: usize = 8;
/// Cells that one edge may follow in one region: a square of 2.5 km. An edge that asks for more is not one of ours.
const CELLS_PER_EDGE_MAX: usize = 10_000;
/// Sessions that one edge may follow in one region.
const SESSIONS_PER_EDGE_MAX: usize = 65_536;

/// What a committed tick changed, as the hub needs it. Built by the replica from the region core's effects.
#[derive(Default)]
pub struct TickChanges {
    /// Motion of entities that moved: the cell they are in, and the one they were in if it is another.
    pub moved: Vec<(Motion, CellId, Option<CellId>)>,
    /// Entities that appeared, or whose look changed, or that came into another cell, with their cell.
    pub entities: Vec<(EntityRecord, CellId)>,
    /// Slots of entities that left the world, with the cell they were in.
    pub left: Vec<(u32, CellId)>,
    /// Entities that went to other regions, with the cell they were in.
    pub handed: Vec<(HandedOff, CellId)>,
    /// Own state of sessions of which something changed.
    pub own: Vec<OwnState>,
    /// Batches of replies and pins, by session.
    pub sessions: Vec<SessionBatch>,
    /// Answers to attaches.
    pub attached: Vec<AttachAnswer>,
    /// Sessions that ended.
    pub ended: Vec<SessionEnd>,
    /// Characters that went elsewhere.
    pub gone_on: Vec<SessionMoved>,
    /// Characters that came from elsewhere: whoever waits for them is told everything.
    pub arrived: Vec<CharacterId>,
    /// Events for whoever sees the place.
    pub events: Vec<(CellEvent, CellId)>,
}

/// The state that a full view is taken from.
pub trait ViewSource {
    /// Everything in a cell.
    fn cell(&self, cell: CellId) -> Vec<EntityRecord>;
    /// A session's own state, if it is here.
    fn own(&self, character: CharacterId) -> Option<OwnState>;
    /// Everything that is kept for a session, if it is here.
    fn session(&self, character: CharacterId) -> Option<SessionBatch>;
    /// Where a character went, if it was here and that is still known.
    fn moved(&self, character: CharacterId) -> Option<SessionMoved>;
}

/// When and at what rate a batch was made.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The tick.
    pub tick: Tick,
    /// Its log entry.
    pub index: LogIndex,
    /// Region time.
    pub server_ms: u64,
    /// Percent.
    pub time_rate: u32,
    /// When the next tick takes inputs, if that is known.
    pub next_in: Option<Duration>,
    /// The region map that the region goes by.
    pub map_epoch: MapEpoch,
}

struct Link {
    out: mpsc::Sender<NodeToEdge>,
    cells: BTreeSet<CellId>,
    sessions: BTreeSet<CharacterId>,
    /// Cells of which it has no view yet.
    fresh: BTreeSet<CellId>,
    /// Sessions of which it has no view yet.
    fresh_sessions: BTreeSet<CharacterId>,
    /// It was told to start over and has not done so: what it says until then was said before it knew.
    unaware: bool,
}

impl Link {
    fn owe_everything(&mut self) {
        self.fresh = self.cells.clone();
        self.fresh_sessions = self.sessions.clone();
    }
}

/// Streams of edges to one region.
pub struct Hub {
    group: GroupId,
    region: RegionId,
    links: BTreeMap<EdgeId, Link>,
    /// Which edges follow a session.
    watchers: BTreeMap<CharacterId, Vec<EdgeId>>,
    /// Batches that a full stream did not take.
    missed: u64,
}

impl Hub {
    /// No edges yet.
    pub fn new(group: GroupId, region: RegionId) -> Self {
        Self { group, region, links: BTreeMap::new(), watchers: BTreeMap::new(), missed: 0 }
    }

    /// Batches that were missed so far because a stream was full.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// A stream opened.
    pub fn join(&mut self, edge: EdgeId, out: mpsc::Sender<NodeToEdge>) {
        let link = Link {
            out,
            cells: BTreeSet::new(),
            sessions: BTreeSet::new(),
            fresh: BTreeSet::new(),
            fresh_sessions: BTreeSet::new(),
            unaware: false,
        };
        self.links.insert(edge, link);
    }

    /// A stream closed.
    pub fn leave(&mut self, edge: EdgeId) {
        self.reset(edge);
        self.links.remove(&edge);
    }

    /// The edge starts over.
    pub fn reset(&mut self, edge: EdgeId) {
        let Some(link) = self.links.get_mut(&edge) else { return };
        link.unaware = false;
        link.cells.clear();
        link.fresh.clear();
        link.fresh_sessions.clear();
        for character in std::mem::take(&mut link.sessions) {
            forget(&mut self.watchers, character, edge);
        }
    }

    /// Whether the edge was told to start over and has not done so yet. Inputs that it had sent by then come after others
    /// that were lost: taken, they would be gaps.
    pub fn is_unaware(&self, edge: EdgeId) -> bool {
        // Planted: what an edge sent before it knew is taken, and what was lost passed over.
        self.links.get(&edge).is_none_or(|link| link.unaware) && !planted!("command-gap-accepted")
    }

    /// The edge wants cells; a full view of each follows.
    pub fn subscribe(&mut self, edge: EdgeId, cells: impl IntoIterator<Item = CellId>) {
        let Some(link) = self.links.get_mut(&edge) else { return };
        for cell in cells {
            if link.cells.len() < CELLS_PER_EDGE_MAX {
                link.cells.insert(cell);
                link.fresh.insert(cell);
            }
        }
    }

    /// The edge wants cells no more.
    pub fn unsubscribe(&mut self, edge: EdgeId, cells: impl IntoIterator<Item = CellId>) {
        let Some(link) = self.links.get_mut(&edge) else { return };
        for cell in cells {
            link.cells.remove(&cell);
            link.fresh.remove(&cell);
        }
    }

    /// The edge serves a session: it gets its own state and replies.
    pub fn watch(&mut self, edge: EdgeId, character: CharacterId) {
        let Some(link) = self.links.get_mut(&edge) else { return };
        if link.sessions.len() >= SESSIONS_PER_EDGE_MAX {
            return;
        }
        link.fresh_sessions.insert(character);
        if link.sessions.insert(character) {
            self.watchers.entry(character).or_default().push(edge);
        }
    }

    /// The edge serves it no more.
    pub fn unwatch(&mut self, edge: EdgeId, character: CharacterId) {
        let Some(link) = self.links.get_mut(&edge) else { return };
        link.fresh_sessions.remove(&character);
        if link.sessions.remove(&character) {
            forget(&mut self.watchers, character, edge);
        }
    }

    /// Whether any edge wants anything of the region.
    pub fn is_followed(&self) -> bool {
        self.links.values().any(|link| !link.cells.is_empty() || !link.sessions.is_empty())
    }

    /// Whether any edge serves a session.
    pub fn is_watched(&self, character: CharacterId) -> bool {
        self.watchers.contains_key(&character)
    }

    /// Tells every edge that the region is owned elsewhere, and forgets what they followed.
    pub fn gone(&mut self, leader: Option<ReplicaId>) {
        let edges: Vec<_> = self.links.keys().copied().collect();
        for edge in edges {
            self.tell_gone(edge, leader);
        }
    }

    /// Tells one edge that the region is owned elsewhere.
    pub fn tell_gone(&mut self, edge: EdgeId, leader: Option<ReplicaId>) {
        self.reset(edge);
        let Some(link) = self.links.get_mut(&edge) else { return };
        link.unaware = true;
        let batch = RegionBatch {
            group: self.group.0,
            region: self.region.0,
            gone: Some(RegionGone { leader: leader.map_or(0, |l| l.0) }),
            ..RegionBatch::default()
        };
        // A full stream: the edge notices by the silence.
        if link.out.try_send(NodeToEdge { regions: vec![batch] }).is_err() {
            self.missed += 1;
        }
    }

    /// Tells every edge that this node owns the region now, so that none has to ask around.
    pub fn announce(&mut self, stamp: Stamp) {
        let edges: Vec<_> = self.links.keys().copied().collect();
        for edge in edges {
            self.announce_to(edge, stamp);
        }
    }

    /// Tells one edge that this node owns the region: it has just come.
    pub fn announce_to(&mut self, edge: EdgeId, stamp: Stamp) {
        let batch = empty_batch(self.group, self.region, stamp);
        if let Some(link) = self.links.get(&edge)
            && link.out.try_send(NodeToEdge { regions: vec![batch] }).is_err()
        {
            self.missed += 1;
        }
    }

    /// Sends every edge its part of a tick.
    pub fn publish(&mut self, stamp: Stamp, changes: TickChanges, source: &impl ViewSource) {
        let answered: Vec<_> = changes.attached.iter().map(|a| (CharacterId(a.character), a.clone())).collect();
        let ended: Vec<_> = changes.ended.iter().map(|e| (CharacterId(e.character), *e)).collect();
        let parts = cell_parts(&changes);
        let mut own: BTreeMap<EdgeId, BytesMut> = BTreeMap::new();
        for state in &changes.own {
            for edge in self.watchers.get(&CharacterId(state.character)).into_iter().flatten() {
                state.put(own.entry(*edge).or_default());
            }
        }
        for (edge, link) in &mut self.links {
            // An edge that asked for nothing here hears nothing.
            if link.cells.is_empty() && link.sessions.is_empty() {
                continue;
            }
            let mut batch = empty_batch(self.group, self.region, stamp);
            batch.own = own.remove(edge).map_or_else(Bytes::new, BytesMut::freeze);
            batch.cells = match link.cells.len() <= parts.len() {
                true => link.cells.iter().filter_map(|c| parts.get(c)).cloned().collect(),
                false => parts.iter().filter(|(c, _)| link.cells.contains(c)).map(|(_, p)| p.clone()).collect(),
            };
            let here = |c: u64| link.sessions.contains(&CharacterId(c));
            batch.sessions = changes.sessions.iter().filter(|s| here(s.character)).cloned().collect();
            batch.attached = answered.iter().filter(|(c, _)| here(c.0)).map(|(_, a)| a.clone()).collect();
            batch.ended = ended.iter().filter(|(c, _)| here(c.0)).map(|(_, e)| *e).collect();
            batch.moved = changes.gone_on.iter().filter(|moved| here(moved.character)).copied().collect();
            // Whoever has just come knows nothing yet: what went before was another session's, perhaps, of the same character.
            link.fresh_sessions.extend(batch.attached.iter().map(|answer| CharacterId(answer.character)));
            link.fresh_sessions.extend(changes.arrived.iter().filter(|character| link.sessions.contains(character)));
            let owed = (std::mem::take(&mut link.fresh), std::mem::take(&mut link.fresh_sessions));
            view_into(&mut batch, &owed.0, &owed.1, source);
            match link.out.try_send(NodeToEdge { regions: vec![batch] }) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    self.missed += 1;
                    link.owe_everything();
                }
                // Its stream ended; `leave` follows.
                Err(TrySendError::Closed(_)) => {}
            }
        }
    }
}

fn forget(watchers: &mut BTreeMap<CharacterId, Vec<EdgeId>>, character: CharacterId, edge: EdgeId) {
    if let Some(edges) = watchers.get_mut(&character) {
        edges.retain(|e| *e != edge);
        if edges.is_empty() {
            watchers.remove(&character);
        }
    }
}

fn empty_batch(group: GroupId, region: RegionId, stamp: Stamp) -> RegionBatch {
    RegionBatch {
        group: group.0,
        region: region.0,
        tick: stamp.tick.0,
        index: stamp.index.0,
        server_ms: stamp.server_ms,
        time_rate: stamp.time_rate,
        next_in_ms: stamp.next_in.map_or(0, |next_in| u32::try_from(next_in.as_millis()).unwrap_or(u32::MAX).saturating_add(1)),
        map_epoch: stamp.map_epoch.0,
        ..RegionBatch::default()
    }
}

/// Replaces the parts of owed cells by full ones, and adds owed sessions.
fn view_into(batch: &mut RegionBatch, cells: &BTreeSet<CellId>, sessions: &BTreeSet<CharacterId>, source: &impl ViewSource) {
    if !cells.is_empty() {
        batch.cells.retain(|part| !cells.contains(&CellId::unpack(part.cell)));
        for cell in cells {
            batch.cells.push(CellPart { cell: cell.pack(), full: true, entities: source.cell(*cell), ..CellPart::default() });
        }
    }
    if !sessions.is_empty() {
        batch.sessions.retain(|s| !sessions.contains(&CharacterId(s.character)));
        let mut own = BytesMut::from(&batch.own[..]);
        for character in sessions {
            if let Some(state) = source.own(*character) {
                state.put(&mut own);
            }
            batch.sessions.extend(source.session(*character));
            if let Some(moved) = source.moved(*character)
                && !batch.moved.contains(&moved)
            {
                batch.moved.push(moved);
            }
        }
        batch.own = own.freeze();
    }
}

/// Each changed cell's part, built once for all edges.
fn cell_parts(changes: &TickChanges) -> BTreeMap<CellId, CellPart> {
    #[derive(Default)]
    struct Building {
        motion: BytesMut,
        part: CellPart,
    }
    let mut cells: BTreeMap<CellId, Building> = BTreeMap::new();
    for (motion, cell, previous) in &changes.moved {
        motion.put(&mut cells.entry(*cell).or_default().motion);
        if let Some(previous) = previous {
            cells.entry(*previous).or_default().part.left.push(motion.slot);
        }
    }
    for (record, cell) in &changes.entities {
        cells.entry(*cell).or_default().part.entities.push(record.clone());
    }
    for (slot, cell) in &changes.left {
        cells.entry(*cell).or_default().part.left.push(*slot);
    }
    for (handed, cell) in &changes.handed {
        cells.entry(*cell).or_default().part.handed.push(*handed);
    }
    for (event, cell) in &changes.events {
        cells.entry(*cell).or_default().part.events.push(event.clone());
    }
    cells
        .into_iter()
        .map(|(cell, Building { motion, mut part })| {
            part.cell = cell.pack();
            part.motion = motion.freeze();
            (cell, part)
        })
        .collect()
}

#[cfg(test)]
mod tests;
