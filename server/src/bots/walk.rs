//! Where a player is heading. It knows nothing of the map: what it finds out, it finds out by not getting on.

use std::f32::consts::{PI, TAU};

use rand::RngExt;
use rand::rngs::SmallRng;

use super::ways::Ways;

/// Less than this in one step is standing, in metres.
const STUCK_M: f32 = 0.05;
/// Steps in which one must have got on, and how far in the direction of the course, in metres: frames may be late for a while, and that
/// is no obstacle; sliding along a wall is no way on.
const LOOK_AFTER_STEPS: u32 = 8;
const GOT_ON_M: f32 = 0.5;
/// Steps that one goes on after a border, at least and at most: beyond where a region takes one over.
const BEYOND_STEPS: [u32; 2] = [10, 25];
/// Steps around an obstacle, at least and at most.
const ASIDE_STEPS: [u32; 2] = [8, 40];
/// Obstacles between two borders after which another direction is tried: that is the end of the world, or a lake.
const OBSTACLES_MAX: u32 = 5;

/// This near a place counts as having reached it, in metres.
const REACHED_M: f32 = 0.7;
/// Steps that one waits at the end of the way for the region to change, and after which any way is given up.
const WAIT_STEPS: u32 = 30;
const WAY_STEPS_MAX: u32 = 900;

/// A player's way.
#[derive(Debug)]
pub(super) struct Walk {
    heading: f32,
    steps_left: u32,
    last: [f32; 2],
    rest: u32,
    crossing: Crossing,
}

/// What one keeps in mind that goes back and forth over borders.
#[derive(Debug, Default)]
struct Crossing {
    /// The direction, obstacles aside.
    course: f32,
    region: u32,
    /// Steps until the way back begins, when a border lies behind.
    beyond: Option<u32>,
    /// Steps that the way around an obstacle still takes.
    aside: u32,
    obstacles: u32,
    /// The way to the other side, if the map is known: places that are still to come, the next one last.
    way: Vec<[f32; 2]>,
    /// Steps since the way was found.
    on_way: u32,
    /// Where one was so many steps ago.
    mark: [f32; 2],
    since_mark: u32,
}

impl Crossing {
    /// Whether there is an obstacle: one has walked for a while and not got on.
    fn is_held_up(&mut self, here: [f32; 2]) -> bool {
        self.since_mark += 1;
        if self.since_mark < LOOK_AFTER_STEPS {
            return false;
        }
        let got_on = (here[0] - self.mark[0]) * self.course.cos() + (here[1] - self.mark[1]) * self.course.sin();
        (self.mark, self.since_mark) = (here, 0);
        got_on < GOT_ON_M
    }
}

impl Walk {
    /// Players begin in different directions; those who cross borders take turns with the four of the compass.
    pub(super) fn new(rng: &mut SmallRng, number: usize) -> Self {
        let course = (number % 4) as f32 * TAU / 4.0;
        let crossing = Crossing { course, ..Crossing::default() };
        Self { heading: rng.random_range(0.0..TAU), steps_left: 10, last: [f32::NAN; 2], rest: 0, crossing }
    }

    /// The way as a vector of length 1 (east, south).
    pub(super) fn direction(&self) -> [f32; 2] {
        [self.heading.cos(), self.heading.sin()]
    }

    /// The way as the protocol has it, 256 to a turn.
    pub(super) fn yaw(&self) -> u32 {
        (self.heading.rem_euclid(TAU) / TAU * 256.0) as u32 & 255
    }

    /// Gathering takes a rest of a second: ask again when it is over.
    pub(super) fn may_gather(&mut self) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        self.rest = 11;
        true
    }

    /// A step of somebody who walks about. The way is redrawn every one to three seconds, and jittered at every step, so that nobody can
    /// guess it.
    pub(super) fn step(&mut self, rng: &mut SmallRng, here: [f32; 2], goal: Option<[f32; 2]>) {
        let stuck = self.is_stuck(here);
        if self.steps_left == 0 || stuck {
            self.steps_left = rng.random_range(10..=30);
            self.heading = match goal {
                Some([x, z]) if !stuck => (z - here[1]).atan2(x - here[0]),
                _ => rng.random_range(0.0..TAU),
            };
        }
        self.steps_left -= 1;
        self.heading += rng.random_range(-0.1..0.1);
    }

    /// A step of somebody who goes back and forth over the nearest border, and knows the map. False when there is no way.
    pub(super) fn cross_by(&mut self, ways: &Ways, here: [f32; 2], region: u32) -> bool {
        let crossing = &mut self.crossing;
        crossing.on_way += 1;
        let reached = |at: [f32; 2]| (at[0] - here[0]).hypot(at[1] - here[1]) < REACHED_M;
        while crossing.way.last().is_some_and(|at| reached(*at)) {
            crossing.way.pop();
        }
        // One is on the other side when the frames say so, which may be a while after one stands there.
        let crossed = crossing.region != region;
        let waited = crossing.way.is_empty() && crossing.on_way > WAIT_STEPS;
        if crossed || waited || crossing.on_way > WAY_STEPS_MAX {
            (crossing.region, crossing.on_way) = (region, 0);
            crossing.way = ways.over_a_border(here);
            crossing.way.reverse();
        }
        match crossing.way.last() {
            Some([x, z]) => self.heading = (z - here[1]).atan2(x - here[0]),
            None => return !waited,
        }
        true
    }

    /// A step of somebody who goes back and forth over the borders of regions.
    pub(super) fn cross(&mut self, rng: &mut SmallRng, here: [f32; 2], region: u32) {
        let crossing = &mut self.crossing;
        let held_up = crossing.aside == 0 && crossing.is_held_up(here);
        if crossing.region != region {
            if crossing.region != 0 {
                (crossing.beyond, crossing.obstacles) = (Some(rng.random_range(BEYOND_STEPS[0]..=BEYOND_STEPS[1])), 0);
            }
            crossing.region = region;
        }
        match &mut crossing.beyond {
            Some(0) => {
                crossing.beyond = None;
                crossing.course += PI;
            }
            Some(steps) => *steps -= 1,
            None => {}
        }
        if held_up {
            crossing.obstacles += 1;
            if crossing.obstacles > OBSTACLES_MAX {
                crossing.obstacles = 0;
                crossing.course += PI / 2.0 * rng.random_range(1..=3) as f32;
            }
            crossing.aside = rng.random_range(ASIDE_STEPS[0]..=ASIDE_STEPS[1]);
            let side = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
            self.heading = crossing.course + side * rng.random_range(PI / 3.0..PI * 0.8);
        } else if crossing.aside > 0 {
            crossing.aside -= 1;
            (crossing.mark, crossing.since_mark) = (here, 0);
        } else {
            self.heading = crossing.course + rng.random_range(-0.1..0.1);
        }
    }

    /// What was asked for did not happen: there is a wall.
    fn is_stuck(&mut self, here: [f32; 2]) -> bool {
        let stuck = (here[0] - self.last[0]).hypot(here[1] - self.last[1]) < STUCK_M;
        self.last = here;
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontier::{Frontier, Parameters};
    use marchland_region_core::{Game, Ground};
    use prost::Message;
    use rand::SeedableRng;

    /// How often each of some players comes into another region within ten minutes, on ground cut into two by two, when the view is
    /// renewed every so many steps.
    fn crossings(parameters: Parameters, side_m: f32, late: usize) -> Vec<u32> {
        let ground = Frontier::new().unwrap().ground(&parameters.encode_to_vec()).unwrap();
        let players = (0..8).map(|number| {
            let mut rng = SmallRng::seed_from_u64(number as u64 + 1);
            let mut walk = Walk::new(&mut rng, number);
            let mut here = [side_m * 0.75, side_m * 0.25];
            while !ground.is_free(here) {
                here = here.map(|v| v + 1.0);
            }
            let of = |at: [f32; 2]| 1 + u32::from(at[0] >= side_m) + 2 * u32::from(at[1] >= side_m);
            let (mut region, mut crossed) = (of(here), 0);
            let mut shown = (here, region);
            for step in 0..6000 {
                if step % late == 0 {
                    shown = (here, region);
                }
                walk.cross(&mut rng, shown.0, shown.1);
                here = ground.walk(here, walk.direction().map(|v| v * 0.5));
                crossed += u32::from(of(here) != region);
                region = of(here);
            }
            crossed
        });
        players.collect()
    }

    #[test]
    fn borders_are_crossed_over_and_over() {
        for late in [1, 4] {
            let open = crossings(Parameters::open(120.0, 0).grid(2, 2), 60.0, late);
            assert!(open.iter().all(|n| *n > 50), "{late}: {open:?}");
        }
        let map = crossings(Parameters::map().grid(2, 2), 192.0, 1);
        // Among trees and lakes some take long to find a border.
        assert!(map.iter().filter(|n| **n > 3).count() >= 6 && map.iter().sum::<u32>() > 100, "{map:?}");
    }
}
