//! Who stands on a neighbour's ground goes there, with hysteresis: authority is not ground.
//!
//! ```text
//!        own ground │ border + 4 m      │ border + 30 m
//!   ────────────────┼───────────────────┼──────────────────▶
//!    stays          │ stays             │ goes, 1 s after it came at the earliest,  │ a wall for walkers
//!                   │                   │ unless the game holds it, something       │
//!                   │                   │ carries it, or nobody is there to take it │
//! ```
//!
//! When the border itself moves, whoever stands beyond it goes in the same way, however far out that is, some each tick. Until then they stay
//! where they are: the wall keeps them from going farther, and takes nobody back.

use marchland_proto::storage::{GhostBatch, Neighbour};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{EntityId, GroupId};

use crate::effects::Effects;
use crate::game::Game;
use crate::ghost::{GHOST_BAND_M, GHOSTS_MAX, Ghost, is_lively};
use crate::region::Region;
use crate::step::presence::free_place;
use crate::world::{AUTHORITY_MAX_M, EntityView};

/// How far beyond the border an entity hands off, in metres.
pub const HYSTERESIS_M: f32 = 4.0;
/// How long an entity stays where it came to, in milliseconds of region time.
pub const DWELL_MS: u64 = 1_000;
/// Handoffs that one tick posts; who is left goes with the next one.
const HANDOFFS_PER_TICK_MAX: usize = 128;
/// Messages that wait for a neighbour when its border closes: the rest of the channel is for what is no handoff.
const BORDER_MESSAGES_MAX: usize = CHANNEL_MESSAGES_MAX * 3 / 4;

impl<G: Game> Region<G> {
    /// Takes what a neighbour shows. Whoever is none is not looked at: one may know already that a border has moved, and this region not yet.
    pub(crate) fn take_ghosts(&mut self, batch: &GhostBatch) {
        let from = GroupId(batch.from_group);
        if from == self.world.group() || !self.world.state.map.iter().any(|neighbour| neighbour.group == from.0) {
            return;
        }
        let now_ms = self.world.now_ms();
        if self.world.state.borders.ghosts.show(from, batch.tick, now_ms, &batch.ghosts).is_err() {
            self.world.state.core.counters.messages_refused += 1;
        }
    }

    /// Whether entities may go to a neighbour: it has an owner, as far as was heard, and takes what is posted to it.
    fn is_open(&self, to: GroupId) -> bool {
        let borders = &self.world.state.borders;
        borders.ghosts.is_heard(to, self.world.now_ms()) && self.world.state.channels.waiting(to) < BORDER_MESSAGES_MAX
    }

    /// Hands off whoever has gone far enough.
    pub(crate) fn cross_borders(&mut self, effects: &mut Effects<G>) {
        let now_ms = self.world.now_ms();
        let borders = &mut self.world.state.borders;
        borders.ghosts.expire(now_ms);
        borders.entered.retain(|_, entered_ms| entered_ms.saturating_add(DWELL_MS) > now_ms);
        if self.world.outside().is_empty() {
            return;
        }
        let mut left = HANDOFFS_PER_TICK_MAX;
        let outside: Vec<u32> = self.world.outside().iter().copied().collect();
        for slot in outside {
            let Some(view) = self.world.at_slot(slot) else { continue };
            let (entity, position) = (view.identity.entity, view.body.position);
            let beyond_m = self.world.reach().outside_by(position);
            if beyond_m < HYSTERESIS_M {
                continue;
            }
            let has_to = beyond_m > AUTHORITY_MAX_M;
            if !has_to && !self.is_free_to_go(entity) {
                continue;
            }
            let to = self.ground_of(position).or_else(|| self.way_to(position).filter(|_| has_to));
            let to = to.filter(|to| self.is_open(GroupId(to.group)));
            let gone = left > 0 && to.is_some_and(|to| self.hand_off(slot, &to, effects));
            if gone {
                left -= 1;
            } else if has_to {
                self.hold_back(slot);
            }
        }
    }

    fn is_free_to_go(&self, entity: EntityId) -> bool {
        let dwells = self.world.state.borders.entered.contains_key(&entity);
        let carrier = self.game.carrier(&self.world, entity);
        let carried = carrier.is_some_and(|carrier| carrier != entity && self.world.slot_of(carrier).is_some());
        !dwells && !carried && self.game.may_cross(&self.world, entity)
    }

    /// The neighbour whose ground holds a place.
    fn ground_of(&self, [x, _, z]: [f32; 3]) -> Option<Neighbour> {
        let holds = |n: &&Neighbour| n.min_x <= x && x < n.max_x && n.min_z <= z && z < n.max_z;
        let own = self.world.region().0;
        self.world.state.map.iter().filter(|n| n.region != own).find(holds).copied()
    }

    /// The neighbour that is nearest to a place which no known region has, if it is nearer than this one: it knows the way on.
    fn way_to(&self, [x, _, z]: [f32; 3]) -> Option<Neighbour> {
        let away = |n: &Neighbour| {
            let by = |low: f32, high: f32, at: f32| f64::from((low - at).max(at - high).max(0.0));
            by(n.min_x, n.max_x, x).hypot(by(n.min_z, n.max_z, z))
        };
        let own = self.world.region().0;
        let others = self.world.state.map.iter().filter(|n| n.region != own);
        let nearest = others.min_by(|a, b| away(a).total_cmp(&away(b)))?;
        let here = self.world.state.map.iter().find(|n| n.region == own)?;
        (away(nearest) < away(here)).then_some(*nearest)
    }

    /// Whoever went farther out than this region may have it, and can go nowhere, comes back to where its authority ends. Whom a border left
    /// behind farther out stays there, and goes no farther.
    fn hold_back(&mut self, slot: u32) {
        let Some(mut body) = self.world.state.bodies.get(slot).copied() else { return };
        let [x, height, z] = body.position;
        let was = self.world.body_before(slot).map_or(body.position, |was| was.position);
        let held = self.world.reach().nearest([was[0], was[2]], [x, z]);
        if held == [x, z] || was == body.position {
            return;
        }
        let at = [held[0], height, held[1]];
        body.position = self.ground.as_ref().map_or(at, |ground| free_place(&**ground, at));
        body.velocity = [0.0; 3];
        body.discontinuity = body.discontinuity.wrapping_add(1);
        self.world.put_body(slot, Some(body));
    }

    /// What a neighbour is to be shown now: everything within 40 m of its ground. `None`: it need not hear of us, for nothing is there and
    /// it shows nothing either. Reads the state alone.
    #[must_use]
    pub fn ghosts_for(&self, neighbour: &Neighbour) -> Option<GhostBatch> {
        let near = |position: [f32; 3]| {
            let by = |low: f32, high: f32, at: f32| (low - at).max(at - high).max(0.0);
            let (x, z) = (by(neighbour.min_x, neighbour.max_x, position[0]), by(neighbour.min_z, neighbour.max_z, position[2]));
            x * x + z * z <= GHOST_BAND_M * GHOST_BAND_M
        };
        let mut found: Vec<_> = self.world.entities().filter(|view| near(view.body.position)).collect();
        if found.is_empty() && !self.world.state.borders.ghosts.shows(GroupId(neighbour.group)) {
            return None;
        }
        found.sort_unstable_by_key(|view| view.identity.entity);
        let comes = |view: &EntityView<'_>| self.world.reach().outside_by(view.body.position) >= HYSTERESIS_M;
        let lively = found.iter().any(|view| is_lively(view.identity, view.body) || comes(view));
        let mut out = crate::codec::Writer::new();
        found.iter().take(GHOSTS_MAX).for_each(|view| Ghost::put(view.identity, view.body, &mut out));
        Some(GhostBatch { from_group: self.world.group().0, tick: self.tick().0, ghosts: out.into_vec().into(), lively })
    }
}
