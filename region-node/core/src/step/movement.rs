//! Movement of characters, under a budget of time: nobody moves faster than the clock, however many inputs a client sends.
//!
//! A tick uses one tick's worth of a character's queued movement. Only what has piled up beyond [`BACKLOG_KEPT_MS`] is caught
//! up on faster, out of the time that was saved while inputs were late: so others see an even walk although inputs arrive in
//! bursts, and a client is never far behind its own inputs.

use marchland_types::limits::TICK_MS;

use crate::entity::Body;
use crate::game::Game;
use crate::ground::Ground;
use crate::region::Region;

/// Queued movement time that is left to the coming ticks.
pub(crate) const BACKLOG_KEPT_MS: u32 = 100;

impl<G: Game> Region<G> {
    pub(crate) fn move_all(&mut self) {
        let mut walking = std::mem::take(&mut self.walking);
        walking.clear();
        let state = &self.world.state;
        walking.extend(state.movers.iter().filter_map(|(slot, mover)| {
            let moves = !mover.queue.is_empty() || state.bodies.get(slot)?.velocity != [0.0; 3];
            moves.then_some(slot)
        }));
        for &slot in &walking {
            self.move_one(slot);
        }
        self.walking = walking;
    }

    fn move_one(&mut self, slot: u32) {
        let tick = self.world.tick();
        let Some(view) = self.world.at_slot(slot) else { return };
        let (entity, mut body) = (view.identity.entity, *view.body);
        let speed = self.game.speed(&self.world, entity).clamp(0.0, self.game.max_speed());
        let reach = self.world.reach();
        let (Some(ground), Some(mover)) = (&self.ground, self.world.state.movers.get_mut(slot)) else { return };
        let from = body.position;
        let credit_ms = mover.credit_at(tick);
        let even_ms = (TICK_MS as u32).max(mover.backlog_ms().saturating_sub(BACKLOG_KEPT_MS));
        let mut budget_ms = credit_ms.min(even_ms);
        let mut used_ms = 0;
        while let Some(next) = mover.queue.front_mut() {
            let step_ms = next.left_ms.min(budget_ms);
            if step_ms == 0 && next.left_ms > 0 {
                break;
            }
            let distance = speed * step_ms as f32 / 1000.0;
            let start = [body.position[0], body.position[2]];
            let [x, z] = reach.walked(&**ground, start, ground.walk(start, next.direction.map(|part| part * distance)));
            body.position = [x, ground.height([x, z]), z];
            body.yaw = next.yaw;
            next.left_ms -= step_ms;
            budget_ms -= step_ms;
            used_ms += step_ms;
            mover.move_seq = next.seq;
            mover.move_left_ms = next.left_ms;
            if next.left_ms > 0 {
                break;
            }
            mover.queue.pop_front();
        }
        if used_ms > 0 {
            mover.credit_ms = credit_ms - used_ms;
            mover.credit_tick = tick;
        }
        body.velocity = velocity(from, &body, used_ms);
        self.world.put_body(slot, Some(body));
    }
}

/// Metres a second over the time that was used; nothing when none was.
fn velocity(from: [f32; 3], body: &Body, used_ms: u32) -> [f32; 3] {
    if used_ms == 0 {
        return [0.0; 3];
    }
    let seconds = used_ms as f32 / 1000.0;
    [0, 1, 2].map(|axis| (body.position[axis] - from[axis]) / seconds)
}
