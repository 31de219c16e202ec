//! Which entities one client is shown.
//!
//! Up to `visible_max` of the nearest within the radius, weighted by the game's priorities, with what the game pinned for the
//! session before all others. Picked anew a few times a second, staggered over clients; who is shown already counts as nearer
//! by the hysteresis, so that two at the same distance do not take turns. Interest is a view: nothing here reaches `step`.
//!
//! A client sees entities of all regions that may hold any near it, its own region's first (`Part`).
//!
//! What always holds: an alias names one entity from its `Enter` to its `leave`, whichever region has it, and is not given anew
//! in the frame in which it was freed; hidden entities are shown to entitled characters alone, and nobody to themselves; of two
//! regions that both show an entity, the one with the higher move number counts.

mod cells;
mod crossing;

use marchland_types::limits::{QUANTA_PER_M, VIEW_RADIUS_M, VISIBLE_DEFAULT, VISIBLE_MAX};

use crate::view::RegionView;
use crate::views::{ViewId, Views};
use crossing::Limbo;

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
    /// Index of the viewer's part that has it.
    pub(crate) part: u8,
}

/// Whom an alias stands for.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    entity: u64,
    move_number: u64,
}

/// What a viewer sees of one region.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) view: ViewId,
    /// Cells that are held in that view.
    cells: Vec<u32>,
    /// Revision that the client was sent last.
    pub(crate) sent: Option<u32>,
}

/// Working memory of picks, shared by all clients of a loop.
#[derive(Debug, Default)]
pub struct PickScratch {
    /// Nearness and key; smaller is nearer. A key is a slot, counted on through all parts.
    candidates: Vec<(f32, u32)>,
    /// By key: the pick that marked it last.
    marks: Vec<u32>,
    pick: u32,
    pinned: Vec<u32>,
    /// By part: key of its first slot.
    bases: Vec<u32>,
    gone: Vec<Seen>,
    crossed: Vec<Seen>,
}

/// Working memory of a frame: what a pick changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Aliases that go out of view.
    pub(crate) leaves: Vec<u8>,
    /// Index into the viewer's list from which entities are in view as before, but were another region's.
    pub(crate) crossed_from: usize,
    /// Index from which they are new.
    pub(crate) enters_from: usize,
}

/// What one client sees.
#[derive(Debug)]
pub struct Viewer {
    character: u64,
    /// Its own entity, which it is never shown.
    entity: u64,
    /// By region, the own one first. Empty until it follows one.
    pub(crate) parts: Vec<Part>,
    pub(crate) seen: Vec<Seen>,
    /// In view, and between two regions.
    limbo: Vec<Limbo>,
    /// By alias.
    names: Vec<Name>,
    /// Bit per alias that may be given.
    free: u128,
    /// Where the cells were chosen, in metres, and by which map.
    cells_at: Option<([f32; 2], u32)>,
    pinned: Vec<u64>,
    /// The client was sent nothing that it may build upon.
    pub(crate) is_new: bool,
    /// The frame before was another region's.
    pub(crate) came: bool,
    /// Time of the newest frame, in milliseconds since 1970.
    pub(crate) server_ms: u64,
    /// Ticks until the next pick.
    repick_in: u32,
    /// Picks to come at once, because the cells around it are still on their way.
    arriving: u8,
}

/// Where the client's own character stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// In quanta.
    pub(crate) at: [i32; 3],
    /// Its slot in the own region, if it is there; else anything.
    pub(crate) slot: u32,
}

/// No slot.
const NO_SLOT: u32 = u32::MAX;
/// Frames after arrival that are picked for anew: the first cells come within them.
const ARRIVING_FRAMES: u8 = 6;
/// Regions of which one client sees something. Where more meet, the others are not seen.
const PARTS_MAX: usize = 16;

impl Viewer {
    /// Of a character, with its entity, that was sent nothing yet. `phase` staggers the picks of different clients.
    #[must_use]
    pub fn new(character: u64, entity: u64, phase: u32) -> Self {
        Self {
            character,
            entity,
            parts: Vec::new(),
            seen: Vec::new(),
            limbo: Vec::new(),
            names: Vec::new(),
            free: u128::MAX,
            cells_at: None,
            pinned: Vec::new(),
            is_new: true,
            came: true,
            server_ms: 0,
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
        self.seen.len() + self.limbo.len()
    }

    /// Entities that this session must be shown, by id, the most important first.
    pub fn pin(&mut self, entities: &[u64]) {
        self.pinned.clear();
        self.pinned.extend(entities.iter().take(PINNED_MAX));
    }

    /// Everything must be sent anew: what the client knows is not certain.
    pub fn restart(&mut self) {
        self.is_new = true;
        self.arriving = ARRIVING_FRAMES;
        self.seen.clear();
        self.limbo.clear();
        self.free = u128::MAX;
    }

    /// Drops who is gone, and picks anew when it is time or it has just arrived. Leaves are in `changes`, new ones at the end of
    /// `seen`, and before them those that are another region's now.
    pub(crate) fn refresh(
        &mut self,
        views: &Views,
        config: &InterestConfig,
        own: Standing,
        scratch: &mut PickScratch,
        changes: &mut Changes,
    ) {
        changes.leaves.clear();
        // Who was hidden just now is hidden in this frame, not at the next pick.
        let changed = |part: &Part| part.sent.is_some_and(|sent| views[part.view].audiences_changed(sent));
        let hidden = self.parts.iter().any(changed);
        let picks = hidden || self.arriving > 0 || self.repick_in == 0;
        self.sweep(views, picks, scratch, changes);
        if picks {
            self.arriving = self.arriving.saturating_sub(1);
            // Arriving does not shift the phase, or all who arrived together would be picked for together.
            self.repick_in = self.repick_in.checked_sub(1).unwrap_or(config.repick_every_ticks.saturating_sub(1));
            self.pick(views, config, own, scratch, changes);
        } else {
            self.repick_in -= 1;
        }
        // Only now: an alias is not given in the frame in which it is freed.
        for &alias in &changes.leaves {
            self.free |= 1 << alias;
        }
    }

    fn pick(&mut self, views: &Views, config: &InterestConfig, own: Standing, scratch: &mut PickScratch, changes: &mut Changes) {
        let keys = scratch.lay_out(views, &self.parts);
        let mark_seen = scratch.begin(keys);
        let (marks, bases) = (&mut scratch.marks[..], &scratch.bases[..]);
        for seen in &self.seen {
            marks[bases[usize::from(seen.part)] as usize + seen.slot as usize] = mark_seen;
        }
        scratch.candidates.clear();
        scratch.pinned.clear();
        let several = self.parts.len() > 1;
        for &entity in self.pinned.iter().filter(|entity| **entity != self.entity) {
            if let Some((part, slot)) = self.find(views, entity, 0)
                && views[self.parts[part].view].facts[slot as usize].may_see(self.character)
                && !self.is_elsewhere(views, entity, part, slot)
            {
                let key = scratch.bases[part] + slot;
                if !scratch.pinned.contains(&key) {
                    scratch.pinned.push(key);
                    scratch.candidates.push((-1.0, key));
                }
            }
        }
        let radius = config.radius_m * QUANTA_PER_M;
        let hysteresis = config.hysteresis_m * QUANTA_PER_M;
        let enter = radius * radius;
        let stay = (radius + hysteresis) * (radius + hysteresis);
        let [x, z] = [own.at[0] as f32, own.at[2] as f32];
        let PickScratch { candidates, marks, pinned, bases, .. } = scratch;
        for (i, part) in self.parts.iter().enumerate() {
            let (view, base) = (&views[part.view], bases[i]);
            let own_slot = self.own_slot(view, own.slot);
            for &cell in &part.cells {
                for &slot in view.slots_in(cell) {
                    let hot = &view.hot[slot as usize];
                    let (dx, dz) = (hot.at[0] as f32 - x, hot.at[2] as f32 - z);
                    let distance2 = dx * dx + dz * dz;
                    let key = base + slot;
                    let known = marks[key as usize] == mark_seen;
                    if distance2 > if known { stay } else { enter } || slot == own_slot {
                        continue;
                    }
                    let facts = &view.facts[slot as usize];
                    if !facts.may_see(self.character) || pinned.contains(&key) {
                        continue;
                    }
                    if several && self.is_elsewhere(views, facts.entity, i, slot) {
                        continue;
                    }
                    let counted = if known {
                        let nearer = (distance2.sqrt() - hysteresis).max(0.0);
                        nearer * nearer
                    } else {
                        distance2
                    };
                    candidates.push((counted * facts.nearness, key));
                }
            }
        }
        let most = config.visible_max.saturating_sub(self.limbo.len());
        if scratch.candidates.len() > most {
            if most > 0 {
                scratch.candidates.select_nth_unstable_by(most - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            }
            scratch.candidates.truncate(most);
        }
        // Marks again: chosen, and of those the ones that are new.
        let mark_chosen = scratch.begin(keys);
        for &(_, key) in &scratch.candidates {
            scratch.marks[key as usize] = mark_chosen;
        }
        let PickScratch { marks, bases, candidates, .. } = scratch;
        let (marks, bases) = (&mut marks[..], &bases[..]);
        let (leaves, crossed) = (&mut changes.leaves, self.seen.len() - changes.crossed_from);
        let mut stays = |seen: &Seen| {
            let key = bases[usize::from(seen.part)] as usize + seen.slot as usize;
            let stays = marks[key] == mark_chosen;
            if stays {
                marks[key] = 0;
            } else {
                leaves.push(seen.alias);
            }
            stays
        };
        // Those that crossed stand at the end, and stay there.
        let mut tail = if crossed > 0 { self.seen.split_off(changes.crossed_from) } else { Vec::new() };
        self.seen.retain(&mut stays);
        tail.retain(&mut stays);
        changes.crossed_from = self.seen.len();
        self.seen.append(&mut tail);
        changes.enters_from = self.seen.len();
        let mut part = 0;
        for &(_, key) in candidates.iter() {
            if marks[key as usize] != mark_chosen || self.free == 0 {
                continue;
            }
            while part > 0 && key < bases[part] {
                part -= 1;
            }
            while bases.get(part + 1).is_some_and(|&next| key >= next) {
                part += 1;
            }
            let alias = self.free.trailing_zeros() as u8;
            self.free &= self.free - 1;
            let (view, slot) = (&views[self.parts[part].view], key - bases[part]);
            let (hot, facts) = (&view.hot[slot as usize], &view.facts[slot as usize]);
            if self.names.len() <= usize::from(alias) {
                self.names.resize(usize::from(alias) + 1, Name::default());
            }
            self.names[usize::from(alias)] = Name { entity: facts.entity, move_number: facts.move_number };
            self.seen.push(Seen { part: part as u8, slot, generation: hot.generation, alias });
        }
    }
}

impl Viewer {
    /// Its own character's slot in a view. `hint` is where it should be.
    fn own_slot(&self, view: &RegionView, hint: u32) -> u32 {
        let is_there = view.facts.get(hint as usize).is_some_and(|facts| facts.entity == self.entity);
        if is_there { hint } else { view.slot_of(self.entity).unwrap_or(NO_SLOT) }
    }
}

impl PickScratch {
    /// Gives each part its keys; returns how many there are.
    fn lay_out(&mut self, views: &Views, parts: &[Part]) -> usize {
        self.bases.clear();
        let mut keys = 0;
        for part in parts {
            self.bases.push(keys as u32);
            keys += views[part.view].hot.len();
        }
        keys
    }

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

#[cfg(test)]
mod tests;
