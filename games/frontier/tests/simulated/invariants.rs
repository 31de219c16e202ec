//! What must hold of the demo world after every tick.

use std::collections::BTreeSet;

use frontier::components::Vein;
use frontier::kind;
use marchland_region_core::{Game, Ground};
use simulation::studio::{RegionInvariant, Seen};

/// No character stands in a wall.
pub(crate) struct NobodyInAWall;

impl<G: Game> RegionInvariant<G> for NobodyInAWall {
    fn name(&self) -> &'static str {
        "nobody-in-a-wall"
    }

    fn look(&mut self, seen: &Seen<'_, G>) -> Result<(), String> {
        for view in seen.world.entities().filter(|view| view.identity.kind == kind::CHARACTER) {
            let [x, _, z] = view.body.position;
            if !seen.ground.is_free([x, z]) {
                return Err(format!("{} stands in a wall at {x:.2} {z:.2}", view.identity.name));
            }
        }
        Ok(())
    }
}

/// Ore is in a vein, or it is an item in exactly one place. Nothing in this world destroys it.
#[derive(Default)]
pub(crate) struct OreIsKept {
    /// In veins and as items, after the tick before.
    before: u64,
}

impl<G: Game> RegionInvariant<G> for OreIsKept {
    fn name(&self) -> &'static str {
        "ore-is-kept"
    }

    fn look(&mut self, seen: &Seen<'_, G>) -> Result<(), String> {
        let mut items = BTreeSet::new();
        for item in seen.world.entities().flat_map(|view| seen.world.items(view.identity.entity)) {
            if !items.insert(item.item) {
                return Err(format!("item {} is in two places", item.item));
            }
        }
        let (found, ledger) = (items.len() as u64, seen.world.ledger());
        if ledger.destroyed > 0 {
            return Err(format!("{} of {} items were destroyed", ledger.destroyed, ledger.minted));
        }
        // Those who are logged out have theirs with them.
        let everyone_is_here = seen.world.dormant_count() == 0;
        if found > ledger.present() || (everyone_is_here && found < ledger.present()) {
            return Err(format!("{found} items are there, {} should be", ledger.present()));
        }
        // Veins grow, so there is ever more of it; what is gathered only changes its place.
        let now = seen.world.with::<Vein>().map(|(_, vein)| u64::from(vein.left)).sum::<u64>() + ledger.minted;
        let before = std::mem::replace(&mut self.before, now);
        if now < before { Err(format!("there were {before} pieces of ore, now there are {now}")) } else { Ok(()) }
    }
}
