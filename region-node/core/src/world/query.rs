//! Spatial queries. Their answers come in an order that is a function of the state alone.

use marchland_types::{CellId, EntityId};

use super::{GHOST_SLOT, World};
use crate::ground::Ground;

/// An entity found around a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Which.
    pub entity: EntityId,
    /// Its slot; [`GHOST_SLOT`] for the ghost of a neighbour's entity.
    pub slot: u32,
    /// How far away, squared, in square metres on the ground.
    pub distance_sq: f32,
}

/// An entity that a ray meets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RayHit {
    /// Which.
    pub entity: EntityId,
    /// How far along the ray, in metres.
    pub distance_m: f32,
}

impl World {
    /// Calls `each` with every entity within `radius_m` of `center` on the ground, by cell and slot; then with the ghosts of
    /// neighbours, by neighbour and entity.
    pub fn each_near(&self, center: [f32; 3], radius_m: f32, mut each: impl FnMut(Near)) {
        let low = CellId::of(center[0] - radius_m, center[2] - radius_m);
        let high = CellId::of(center[0] + radius_m, center[2] + radius_m);
        self.index.in_rectangle(low, high, |slot| {
            let (Some(body), Some(identity)) = (self.state.bodies.get(slot), self.state.identities.get(slot)) else { return };
            let (dx, dz) = (body.position[0] - center[0], body.position[2] - center[2]);
            let distance_sq = dx * dx + dz * dz;
            if distance_sq <= radius_m * radius_m {
                each(Near { entity: identity.entity, slot, distance_sq });
            }
        });
        for (from, shown) in self.state.borders.ghosts.iter() {
            if !shown.may_reach(center, radius_m) {
                continue;
            }
            for ghost in shown.ghosts.iter() {
                let (dx, dz) = (ghost.body.position[0] - center[0], ghost.body.position[2] - center[2]);
                let (entity, distance_sq) = (ghost.identity.entity, dx * dx + dz * dz);
                // What has come here since, or is another neighbour's by now, is no ghost of this one.
                if distance_sq <= radius_m * radius_m && self.ghost_of(entity) == Some(from) {
                    each(Near { entity, slot: GHOST_SLOT, distance_sq });
                }
            }
        }
    }

    /// The nearest entity within `radius_m` of `center` that `wanted` accepts; of two equally near ones, the lower slot.
    #[must_use]
    pub fn nearest(&self, center: [f32; 3], radius_m: f32, mut wanted: impl FnMut(EntityId) -> bool) -> Option<EntityId> {
        let mut best: Option<Near> = None;
        self.each_near(center, radius_m, |near| {
            let key = |near: &Near| (near.distance_sq, near.slot, near.entity);
            let better = best.is_none_or(|best| key(&near) < key(&best));
            if better && wanted(near.entity) {
                best = Some(near);
            }
        });
        best.map(|near| near.entity)
    }

    /// The entities that a ray of `length_m` from `from` in `direction` (east, south) meets within `radius_m`, nearest first.
    /// It ends at the first wall of `ground`.
    #[must_use]
    pub fn along_ray(
        &self,
        ground: &impl Ground,
        from: [f32; 3],
        direction: [f32; 2],
        length_m: f32,
        radius_m: f32,
    ) -> Vec<RayHit> {
        let norm = (direction[0] * direction[0] + direction[1] * direction[1]).sqrt();
        let valid = norm > 0.0 && norm.is_finite() && length_m.is_finite();
        if !valid {
            return Vec::new();
        }
        let unit = [direction[0] / norm, direction[1] / norm];
        let start = [from[0], from[2]];
        let length_m = length_m * ground.sight(start, [start[0] + unit[0] * length_m, start[1] + unit[1] * length_m]);
        let half = length_m * 0.5;
        let middle = [start[0] + unit[0] * half, 0.0, start[1] + unit[1] * half];
        let mut hits = Vec::new();
        self.each_near(middle, half + radius_m, |near| {
            let Some(position) = self.position(near.entity) else { return };
            let to = [position[0] - start[0], position[2] - start[1]];
            let along = to[0] * unit[0] + to[1] * unit[1];
            let aside = to[0] * unit[1] - to[1] * unit[0];
            if (0.0..=length_m).contains(&along) && aside.abs() <= radius_m {
                hits.push((near.slot, RayHit { entity: near.entity, distance_m: along }));
            }
        });
        let key = |slot: u32, hit: &RayHit| (slot, hit.entity);
        hits.sort_by(|(slot_a, a), (slot_b, b)| {
            a.distance_m.total_cmp(&b.distance_m).then(key(*slot_a, a).cmp(&key(*slot_b, b)))
        });
        hits.into_iter().map(|(_, hit)| hit).collect()
    }
}
