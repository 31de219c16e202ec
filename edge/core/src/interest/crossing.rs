//! Entities that go from one region to another while a client looks.
//!
//! ```text
//!  region A   ──in view──handed                    (or not a word: its batch was lost)
//!  region B                      ──shows it──in view
//!  client     ──alias 7────────── as it was ──alias 7, at B's place
//!                        └ limbo ┘ at most LIMBO_TICKS
//! ```
//!
//! What always holds: an entity has its alias throughout; a region that shows it under a lower move number than another one does is
//! behind, and not asked.

use super::{Changes, Part, PickScratch, Seen, Viewer};
use crate::views::Views;

/// Ticks of the client's own region for which an entity that left one region stays in view as it was: two seconds.
const LIMBO_TICKS: u32 = 40;

/// An alias in view whose entity left a region, and that no other one shows yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limbo {
    alias: u8,
    /// Under which it arrives.
    move_number: u64,
    ticks_left: u32,
}

impl Viewer {
    /// The part with the highest move number for an entity, of at least `least`, and its slot there.
    pub(super) fn find(&self, views: &Views, entity: u64, least: u64) -> Option<(usize, u32)> {
        let mut best = None;
        for (i, part) in self.parts.iter().enumerate() {
            let view = &views[part.view];
            if let Some(slot) = view.find(entity, least) {
                let move_number = view.facts[slot as usize].move_number;
                if best.is_none_or(|(known, _, _)| move_number > known) {
                    best = Some((move_number, i, slot));
                }
            }
        }
        best.map(|(_, i, slot)| (i, slot))
    }

    /// Whether what a part shows of an entity is out of date: another region shows it, or it was on its way from one to the next, under a
    /// higher move number.
    pub(super) fn is_elsewhere(&self, views: &Views, entity: u64, part: usize, slot: u32) -> bool {
        let move_number = views[self.parts[part].view].facts[slot as usize].move_number;
        self.parts.iter().enumerate().any(|(i, other)| {
            let view = &views[other.view];
            // Of two with the same number the first counts, as in `find`.
            let least = if i < part { move_number } else { move_number.saturating_add(1) };
            i != part && view.find(entity, least).is_some() || view.handed(entity).is_some_and(|handed| handed > move_number)
        })
    }

    /// Drops who is gone from the list of those in view, and puts those that are another region's now at its end. With
    /// `compares`, also those that two regions show.
    pub(super) fn sweep(&mut self, views: &Views, compares: bool, scratch: &mut PickScratch, changes: &mut Changes) {
        let PickScratch { gone, crossed, .. } = scratch;
        gone.clear();
        if let [own] = &self.parts[..] {
            let hot = &views[own.view].hot;
            self.seen.retain(|seen| {
                let there = hot[seen.slot as usize].generation == seen.generation;
                if !there {
                    gone.push(*seen);
                }
                there
            });
        } else {
            let (seen, parts) = (&mut self.seen, &self.parts);
            seen.retain(|seen| {
                let view = &views[parts[usize::from(seen.part)].view];
                let there = view.hot[seen.slot as usize].generation == seen.generation;
                if !there {
                    gone.push(*seen);
                }
                there
            });
            if compares {
                self.take_overtaken(views, gone);
            }
        }
        crossed.clear();
        if !gone.is_empty() || !self.limbo.is_empty() {
            self.pass_on(views, gone, crossed, changes);
        }
        changes.crossed_from = self.seen.len();
        self.seen.append(crossed);
        changes.enters_from = self.seen.len();
    }

    /// Out of view for the moment: whom another region shows under a higher number.
    fn take_overtaken(&mut self, views: &Views, gone: &mut Vec<Seen>) {
        let mut seen = std::mem::take(&mut self.seen);
        seen.retain(|seen| {
            let name = self.names[usize::from(seen.alias)];
            let overtaken = |(i, part): (usize, &Part)| {
                let view = &views[part.view];
                // Who is still in its slot need not be looked for.
                if i == usize::from(seen.part) {
                    view.facts[seen.slot as usize].move_number > name.move_number
                } else {
                    view.find(name.entity, name.move_number.saturating_add(1)).is_some()
                }
            };
            let there = !self.parts.iter().enumerate().any(overtaken);
            if !there {
                gone.push(*seen);
            }
            there
        });
        self.seen = seen;
    }

    /// Finds those that are gone from a region in another one, or keeps them as they were until they are there.
    fn pass_on(&mut self, views: &Views, gone: &[Seen], crossed: &mut Vec<Seen>, changes: &mut Changes) {
        let elapsed = self.parts.first().map_or(1, |own| {
            let revision = views[own.view].revision();
            own.sent.map_or(1, |sent| revision.wrapping_sub(sent)).max(1)
        });
        let mut limbo = std::mem::take(&mut self.limbo);
        limbo.retain_mut(|waits| {
            waits.ticks_left = waits.ticks_left.saturating_sub(elapsed);
            match self.cross(views, waits.alias, waits.move_number) {
                Crossing::Seen(seen) => crossed.push(seen),
                Crossing::Hidden => changes.leaves.push(waits.alias),
                Crossing::Absent if waits.ticks_left == 0 => changes.leaves.push(waits.alias),
                Crossing::Absent => return true,
            }
            false
        });
        for seen in gone {
            let name = self.names[usize::from(seen.alias)];
            match self.cross(views, seen.alias, name.move_number.saturating_add(1)) {
                Crossing::Seen(seen) => crossed.push(seen),
                Crossing::Hidden => changes.leaves.push(seen.alias),
                Crossing::Absent => match views[self.parts[usize::from(seen.part)].view].handed(name.entity) {
                    Some(move_number) if move_number > name.move_number => {
                        limbo.push(Limbo { alias: seen.alias, move_number, ticks_left: LIMBO_TICKS });
                    }
                    Some(_) | None => changes.leaves.push(seen.alias),
                },
            }
        }
        self.limbo = limbo;
    }

    /// Looks for an alias's entity in all regions.
    fn cross(&mut self, views: &Views, alias: u8, least: u64) -> Crossing {
        let entity = self.names[usize::from(alias)].entity;
        let Some((part, slot)) = self.find(views, entity, least) else { return Crossing::Absent };
        let view = &views[self.parts[part].view];
        let facts = &view.facts[slot as usize];
        if !facts.may_see(self.character) {
            return Crossing::Hidden;
        }
        self.names[usize::from(alias)].move_number = facts.move_number;
        Crossing::Seen(Seen { part: part as u8, slot, generation: view.hot[slot as usize].generation, alias })
    }
}

enum Crossing {
    /// In view in this region now.
    Seen(Seen),
    /// There, and not to be seen by this client.
    Hidden,
    /// In none.
    Absent,
}

#[cfg(test)]
mod tests;
