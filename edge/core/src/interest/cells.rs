//! Which cells of which regions a viewer keeps subscribed.
//!
//! Of its own region, all around it; of others, those near it that they may hold something in. What always holds: a region that a
//! viewer holds a cell of, or is shown an entity of, is one of its parts, and a part follows its view.

use marchland_types::CellId;
use marchland_types::limits::CELL_SIZE_M;

use super::{InterestConfig, PARTS_MAX, Part, Viewer};
use crate::map::{AUTHORITY_MAX_M, RegionMap};
use crate::view::RegionView;
use crate::views::{ViewId, Views};

/// Cells within a distance.
#[derive(Clone, Copy)]
struct Around {
    x_m: f32,
    z_m: f32,
    wanted_m: f32,
}

impl Viewer {
    /// Its frames follow this region from now on. What it saw of another one stays in view.
    pub fn follow(&mut self, views: &mut Views, own: ViewId) {
        match self.parts.iter().position(|part| part.view == own) {
            Some(0) => return,
            Some(at) => {
                self.parts.swap(0, at);
                self.renumber(|part| match part {
                    0 => at,
                    part if part == at => 0,
                    part => part,
                });
            }
            None => {
                views[own].follow();
                self.parts.insert(0, Part { view: own, cells: Vec::new(), sent: None });
                self.renumber(|part| part + 1);
            }
        }
        self.came = true;
        self.cells_at = None;
        self.arriving = self.arriving.max(1);
    }

    /// Gives back all that it holds. Must be called before a viewer is dropped.
    pub fn release(&mut self, views: &mut Views) {
        for part in self.parts.drain(..) {
            let view = &mut views[part.view];
            part.cells.into_iter().for_each(|cell| view.release(cell));
            view.unfollow();
        }
        self.seen.clear();
        self.limbo.clear();
        self.cells_at = None;
    }

    /// Keeps the cells around a position subscribed: those within the radius and the hysteresis, and those held already until
    /// they are one hysteresis (at least 5 m) farther. Does nothing while the position has not moved by a few metres.
    pub fn hold_cells(&mut self, views: &mut Views, map: &RegionMap, config: &InterestConfig, x_m: f32, z_m: f32) {
        let slack = (config.hysteresis_m * 0.5).clamp(1.0, 5.0);
        if let Some(([x, z], version)) = self.cells_at
            && (x - x_m).abs().max((z - z_m).abs()) < slack
            && version == map.version()
        {
            // What was seen of a region that is far now went out of view only with a later pick.
            if self.parts.iter().skip(1).any(|part| part.cells.is_empty()) {
                self.drop_parts(views);
            }
            return;
        }
        let Some(own) = self.parts.first().map(|part| views[part.view].group()) else { return };
        self.cells_at = Some(([x_m, z_m], map.version()));
        let wanted_m = config.radius_m + config.hysteresis_m + slack;
        let kept_m = wanted_m + config.hysteresis_m.max(5.0);
        for part in &mut self.parts {
            let view = &mut views[part.view];
            let mut i = 0;
            while let Some(&cell) = part.cells.get(i) {
                if distance_m(CellId::unpack(view.cell_id(cell)), x_m, z_m) > kept_m {
                    part.cells.swap_remove(i);
                    view.release(cell);
                } else {
                    i += 1;
                }
            }
        }
        self.drop_parts(views);
        let around = Around { x_m, z_m, wanted_m };
        let part = &mut self.parts[0];
        part.hold(&mut views[part.view], around, |_| true);
        for region in map.near(own) {
            let near = region.distance_m(x_m, z_m) <= wanted_m + AUTHORITY_MAX_M;
            if !near || !around.any(|cell| region.may_hold(cell)) {
                continue;
            }
            let known = views.find(region.group).and_then(|view| self.parts.iter().position(|part| part.view == view));
            let at = match known {
                Some(at) => at,
                None if self.parts.len() < PARTS_MAX => {
                    let view = views.open(region.group);
                    views[view].follow();
                    self.parts.push(Part { view, cells: Vec::new(), sent: None });
                    self.parts.len() - 1
                }
                None => continue,
            };
            let part = &mut self.parts[at];
            part.hold(&mut views[part.view], around, |cell| region.may_hold(cell));
        }
        self.drop_parts(views);
    }

    /// Lets go of other regions that it holds no cell of and is shown nothing of.
    fn drop_parts(&mut self, views: &mut Views) {
        let mut at = 1;
        while let Some(part) = self.parts.get(at) {
            if !part.cells.is_empty() || self.seen.iter().any(|seen| usize::from(seen.part) == at) {
                at += 1;
                continue;
            }
            views[part.view].unfollow();
            self.parts.remove(at);
            self.renumber(|part| if part > at { part - 1 } else { part });
        }
    }

    fn renumber(&mut self, to: impl Fn(usize) -> usize) {
        for seen in &mut self.seen {
            seen.part = to(usize::from(seen.part)) as u8;
        }
    }
}

impl Part {
    /// Holds the cells around a place that are `wanted`.
    fn hold(&mut self, view: &mut RegionView, around: Around, wanted: impl Fn(CellId) -> bool) {
        let Around { x_m, z_m, wanted_m } = around;
        let (low, high) = around.corners();
        for x in low.x..=high.x {
            for z in low.z..=high.z {
                let id = CellId { x, z };
                if distance_m(id, x_m, z_m) > wanted_m
                    || self.cells.iter().any(|&held| view.cell_id(held) == id.pack())
                    || !wanted(id)
                {
                    continue;
                }
                if let Some(cell) = view.retain(id.pack()) {
                    self.cells.push(cell);
                }
            }
        }
    }
}

impl Around {
    /// Of the square around all of them, both inclusive.
    fn corners(self) -> (CellId, CellId) {
        let Self { x_m, z_m, wanted_m } = self;
        (CellId::of(x_m - wanted_m, z_m - wanted_m), CellId::of(x_m + wanted_m, z_m + wanted_m))
    }

    fn any(self, is: impl Fn(CellId) -> bool) -> bool {
        let (low, high) = self.corners();
        let mut square = (low.x..=high.x).flat_map(|x| (low.z..=high.z).map(move |z| CellId { x, z }));
        square.any(|cell| distance_m(cell, self.x_m, self.z_m) <= self.wanted_m && is(cell))
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
