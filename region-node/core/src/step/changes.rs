//! What an entry changed, as edges will be told: each entity once, however often it was written.

use marchland_proto::records::{Motion, quantize};

use crate::effects::{Change, Effects, Moved};
use crate::game::Game;
use crate::region::Region;
use crate::world::cell_of;

impl<G: Game> Region<G> {
    /// Compares what was written with what was there before.
    pub(crate) fn collect_changes(&mut self, effects: &mut Effects<G>) {
        let (bodies, identities) = self.world.changes();
        let (bodies, identities) = (std::mem::take(bodies), std::mem::take(identities));
        for (slot, before) in &identities {
            match (before, self.world.at_slot(*slot)) {
                (None, Some(now)) => {
                    effects.appeared.push(Change { slot: *slot, entity: now.identity.entity, cell: now.cell() });
                }
                (Some(old), Some(now)) if old != now.identity => {
                    effects.looks.push(Change { slot: *slot, entity: old.entity, cell: now.cell() });
                }
                (Some(old), None) => {
                    let body = bodies.iter().find(|(at, _)| at == slot).and_then(|(_, body)| *body);
                    let cell = body.as_ref().map(cell_of).unwrap_or_default();
                    effects.vanished.push(Change { slot: *slot, entity: old.entity, cell });
                }
                _ => {}
            }
        }
        for (slot, before) in &bodies {
            let (Some(old), Some(now)) = (before, self.world.state.bodies.get(*slot)) else { continue };
            let (from, to) = (old.position.map(quantize), now.position.map(quantize));
            if from != to || old.yaw != now.yaw {
                let jumped = old.discontinuity != now.discontinuity;
                let delta = if jumped { None } else { Motion::delta_between(from, to) };
                let motion = Motion { slot: *slot, x: to[0], y: to[1], z: to[2], delta, yaw: now.yaw };
                effects.moved.push(Moved { motion, cell: cell_of(now), previous: cell_of(old) });
            }
            if !self.world.state.movers.is_dirty(*slot) && old != now {
                self.collect_own(*slot, effects);
            }
        }
        for at in 0..self.world.state.movers.dirty().len() {
            let slot = self.world.state.movers.dirty()[at];
            self.collect_own(slot, effects);
        }
        let (empty_bodies, empty_identities) = self.world.changes();
        // The memory is used again; settling clears it.
        (*empty_bodies, *empty_identities) = (bodies, identities);
    }

    fn collect_own(&self, slot: u32, effects: &mut Effects<G>) {
        if self.world.state.sessions.get(slot).is_some_and(|session| session.is_attached())
            && let Some(own) = self.world.own_state(slot)
        {
            effects.own.push(own);
        }
    }
}
