//! Which entities one client is shown.
//!
//! Up to `visible_max` of the nearest within the radius, weighted by the game's priorities, with what the game pinned for the
//! session before all others. Picked anew a few times a second, staggered over clients; who is shown already counts as nearer
//! by the hysteresis, so that two at the same distance do not take turns. Interest is a view: nothing here reaches `step`.
//!
//! What always holds: an alias names one entity from its `Enter` to its `leave`, and is not given anew in the frame in which it
//! was freed; hidden entities are shown to entitled characters alone.

use marchland_types::CellId;
use marchland_types::limits::{CELL_SIZE_M, QUANTA_PER_M, VIEW_RADIUS_M, VISIBLE_DEFAULT, VISIBLE_MAX};

use crate::view::RegionView;

/// Entities that a game may pin for one session. They come out of the visible ones.
pub const PINNED_MAX: usize = 16;

/// What decides who sees whom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InterestConfig {
    /// Within which entities come into view, in metres.
    pub radius_m: f32,
    /// Most entities in view, at most [`VISIBLE_MAX`].
    pub visible_max: usize,
    /// Ticks between two picks for one client.
    pub repick_every_ticks: u32,
    /// By how much nearer an entity in view counts, and how far beyond the radius it stays, in metres.
    pub hysteresis_m: f32,
}

impl Default for InterestConfig {
    fn default() -> Self {
        Self { radius_m: VIEW_RADIUS_M, visible_max: VISIBLE_DEFAULT, repick_every_ticks: 4, hysteresis_m: 2.0 }
    }
}

/// An interest configuration that contradicts itself.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadInterest {
    /// A length is not a sensible number of metres.
    #[error("{name} is {found} m, expected between {least} and {most}")]
    Length {
        /// Which.
        name: &'static str,
        /// Its value.
        found: f32,
        /// Smallest legal value.
        least: f32,
        /// Greatest legal value.
        most: f32,
    },
    /// More visible entities than aliases allow, or none.
    #[error("visible_max is {found}, expected 1 to {VISIBLE_MAX}")]
    Visible {
        /// Its value.
        found: usize,
    },
    /// Never picked anew.
    #[error("repick_every_ticks is 0, expected 1 or more")]
    Never,
}

impl InterestConfig {
    /// Checks the relations.
    pub fn validate(&self) -> Result<(), BadInterest> {
        let length = |name, found: f32, least: f32, most: f32| {
            let legal = (least..=most).contains(&found);
            if legal { Ok(()) } else { Err(BadInterest::Length { name, found, least, most }) }
        };
        length("radius_m", self.radius_m, 1.0, 1_000.0)?;
        length("hysteresis_m", self.hysteresis_m, 0.0, self.radius_m)?;
        if !(1..=VISIBLE_MAX).contains(&self.visible_max) {
            return Err(BadInterest::Visible { found: self.visible_max });
        }
        if self.repick_every_ticks == 0 {
            return Err(BadInterest::Never);
        }
        Ok(())
    }
}

/// An entity in a client's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) alias: u8,
}

/// Working memory of picks, shared by all clients of a loop.
#[derive(Debug, Default)]
pub struct PickScratch {
    /// Nearness and slot; smaller is nearer.
    candidates: Vec<(f32, u32)>,
    /// By slot: the pick that marked it last.
    marks: Vec<u32>,
    pick: u32,
    pinned: Vec<u32>,
}

/// Working memory of a frame: what a pick changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Aliases that go out of view.
    pub(crate) leaves: Vec<u8>,
    /// Indexes into the viewer's list from which entities are new.
    pub(crate) enters_from: usize,
}

/// What one client sees of its region.
#[derive(Debug)]
pub struct Viewer {
    character: u64,
    pub(crate) seen: Vec<Seen>,
    /// Bit per alias that may be given.
    free: u128,
    /// Cells that are held in the region's view.
    cells: Vec<u32>,
    /// Where the cells were chosen, in metres.
    cells_at: Option<[f32; 2]>,
    pinned: Vec<u64>,
    /// Revision that the client was sent last.
    pub(crate) sent: Option<u32>,
    /// Ticks until the next pick.
    repick_in: u32,
    /// Picks to come at once, because the cells around it are still on their way.
    arriving: u8,
}

/// Frames after arrival that are picked for anew: the first cells come within them.
const ARRIVING_FRAMES: u8 = 6;

/// Where the client's own character stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) slot: u32,
    /// In quanta.
    pub(crate) at: [i32; 3],
}

impl Viewer {
    /// Of a character that was sent nothing yet. `phase` staggers the picks of different clients.
    #[must_use]
    pub fn new(character: u64, phase: u32) -> Self {
        Self {
            character,
            seen: Vec::new(),
            free: u128::MAX,
            cells: Vec::new(),
            cells_at: None,
            pinned: Vec::new(),
            sent: None,
            repick_in: phase,
            arriving: ARRIVING_FRAMES,
        }
    }

    /// Whose view it is.
    #[must_use]
    pub fn character(&self) -> u64 {
        self.character
    }

    /// Entities in view.
    #[must_use]
    pub fn visible(&self) -> usize {
        self.seen.len()
    }

    /// Entities that this session must be shown, by id, the most important first.
    pub fn pin(&mut self, entities: &[u64]) {
        self.pinned.clear();
        self.pinned.extend(entities.iter().take(PINNED_MAX));
    }

    /// Everything must be sent anew: what the client knows is not certain.
    pub fn restart(&mut self) {
        self.sent = None;
        self.arriving = ARRIVING_FRAMES;
        self.seen.clear();
        self.free = u128::MAX;
    }

    /// Gives back its cells. Must be called before a viewer is dropped.
    pub fn release(&mut self, view: &mut RegionView) {
        for cell in self.cells.drain(..) {
            view.release(cell);
        }
        self.cells_at = None;
    }

    /// Keeps the cells around a position subscribed: those within the radius and the hysteresis, and those held already until
    /// they are one hysteresis (at least 5 m) farther. Does nothing while the position has not moved by a few metres.
    pub fn hold_cells(&mut self, view: &mut RegionView, config: &InterestConfig, x_m: f32, z_m: f32) {
        let slack = (config.hysteresis_m * 0.5).clamp(1.0, 5.0);
        if let Some([x, z]) = self.cells_at
            && (x - x_m).abs().max((z - z_m).abs()) < slack
        {
            return;
        }
        self.cells_at = Some([x_m, z_m]);
        let wanted_m = config.radius_m + config.hysteresis_m + slack;
        let kept_m = wanted_m + config.hysteresis_m.max(5.0);
        let mut i = 0;
        while let Some(&cell) = self.cells.get(i) {
            if distance_m(CellId::unpack(view.cell_id(cell)), x_m, z_m) > kept_m {
                self.cells.swap_remove(i);
                view.release(cell);
            } else {
                i += 1;
            }
        }
        let low = CellId::of(x_m - wanted_m, z_m - wanted_m);
        let high = CellId::of(x_m + wanted_m, z_m + wanted_m);
        for x in low.x..=high.x {
            for z in low.z..=high.z {
                let id = CellId { x, z };
                if distance_m(id, x_m, z_m) > wanted_m || self.cells.iter().any(|&held| view.cell_id(held) == id.pack()) {
                    continue;
                }
                if let Some(cell) = view.retain(id.pack()) {
                    self.cells.push(cell);
                }
            }
        }
    }

    /// Drops who is gone, and picks anew when it is time or it has just arrived. Leaves are in `changes`, new ones at the end of `seen`.
    pub(crate) fn refresh(
        &mut self,
        view: &RegionView,
        config: &InterestConfig,
        own: Standing,
        scratch: &mut PickScratch,
        changes: &mut Changes,
    ) {
        changes.leaves.clear();
        let leaves = &mut changes.leaves;
        self.seen.retain(|seen| {
            let there = view.hot[seen.slot as usize].generation == seen.generation;
            if !there {
                leaves.push(seen.alias);
            }
            there
        });
        changes.enters_from = self.seen.len();
        // Who was hidden just now is hidden in this frame, not at the next pick.
        let hidden = self.sent.is_some_and(|sent| view.audiences_changed(sent));
        if hidden || self.arriving > 0 || self.repick_in == 0 {
            self.arriving = self.arriving.saturating_sub(1);
            // Arriving does not shift the phase, or all who arrived together would be picked for together.
            self.repick_in = self.repick_in.checked_sub(1).unwrap_or(config.repick_every_ticks.saturating_sub(1));
            self.pick(view, config, own, scratch, changes);
        } else {
            self.repick_in -= 1;
        }
        // Only now: an alias is not given in the frame in which it is freed.
        for &alias in &changes.leaves {
            self.free |= 1 << alias;
        }
    }

    fn pick(
        &mut self,
        view: &RegionView,
        config: &InterestConfig,
        own: Standing,
        scratch: &mut PickScratch,
        changes: &mut Changes,
    ) {
        let mark_seen = scratch.begin(view.hot.len());
        for seen in &self.seen {
            scratch.marks[seen.slot as usize] = mark_seen;
        }
        scratch.candidates.clear();
        scratch.pinned.clear();
        for &entity in &self.pinned {
            if let Some(slot) = view.slot_of(entity)
                && slot != own.slot
                && view.facts[slot as usize].may_see(self.character)
                && !scratch.pinned.contains(&slot)
            {
                scratch.pinned.push(slot);
                scratch.candidates.push((-1.0, slot));
            }
        }
        let radius = config.radius_m * QUANTA_PER_M;
        let hysteresis = config.hysteresis_m * QUANTA_PER_M;
        let enter = radius * radius;
        let stay = (radius + hysteresis) * (radius + hysteresis);
        let [x, z] = [own.at[0] as f32, own.at[2] as f32];
        for &cell in &self.cells {
            for &slot in view.slots_in(cell) {
                let hot = &view.hot[slot as usize];
                let (dx, dz) = (hot.at[0] as f32 - x, hot.at[2] as f32 - z);
                let distance2 = dx * dx + dz * dz;
                let known = scratch.marks[slot as usize] == mark_seen;
                if distance2 > if known { stay } else { enter } || slot == own.slot {
                    continue;
                }
                let facts = &view.facts[slot as usize];
                if !facts.may_see(self.character) || scratch.pinned.contains(&slot) {
                    continue;
                }
                let counted = if known {
                    let nearer = (distance2.sqrt() - hysteresis).max(0.0);
                    nearer * nearer
                } else {
                    distance2
                };
                scratch.candidates.push((counted * facts.nearness, slot));
            }
        }
        let most = config.visible_max;
        if scratch.candidates.len() > most {
            scratch.candidates.select_nth_unstable_by(most - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            scratch.candidates.truncate(most);
        }
        // Marks again: chosen, and of those the ones that are new.
        let mark_chosen = scratch.begin(view.hot.len());
        for &(_, slot) in &scratch.candidates {
            scratch.marks[slot as usize] = mark_chosen;
        }
        let (marks, leaves) = (&mut scratch.marks, &mut changes.leaves);
        self.seen.retain(|seen| {
            let stays = marks[seen.slot as usize] == mark_chosen;
            if stays {
                marks[seen.slot as usize] = 0;
            } else {
                leaves.push(seen.alias);
            }
            stays
        });
        changes.enters_from = self.seen.len();
        for &(_, slot) in &scratch.candidates {
            if marks[slot as usize] != mark_chosen || self.free == 0 {
                continue;
            }
            let alias = self.free.trailing_zeros() as u8;
            self.free &= self.free - 1;
            self.seen.push(Seen { slot, generation: view.hot[slot as usize].generation, alias });
        }
    }
}

impl PickScratch {
    /// A mark that nothing has yet.
    fn begin(&mut self, slots: usize) -> u32 {
        if self.marks.len() < slots {
            self.marks.resize(slots, 0);
        }
        if self.pick == u32::MAX {
            self.marks.fill(0);
            self.pick = 0;
        }
        self.pick += 1;
        self.pick
    }
}

/// From a position to the nearest point of a cell.
fn distance_m(cell: CellId, x_m: f32, z_m: f32) -> f32 {
    let outside = |cell: i16, v: f32| {
        let low = f32::from(cell) * CELL_SIZE_M;
        (low - v).max(v - low - CELL_SIZE_M).max(0.0)
    };
    let (dx, dz) = (outside(cell.x, x_m), outside(cell.z, z_m));
    (dx * dx + dz * dz).sqrt()
}

#[cfg(test)]
mod tests;
