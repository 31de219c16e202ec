//! A world of four regions around one corner, and players who cross its borders all the time while machines and network fail. In half of
//! the seeds the borders move as well.
//!
//! At the last cut, which goes through all regions, every character and every item is in one place: a region, or a message between two
//! of them.

use std::f32::consts::TAU;
use std::time::Duration;

use frontier::{Drop, Frontier, Gather, Gathered, PickUp, action, kind, open_parameters};
use marchland_server::config::GridConfig;
use marchland_types::ItemId;
use prost::Message;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use super::stack::{AWAY_MAX, SHARDS, Variation, Weather, run_game};
use super::standard::{self, BORDER_POINTS};
use super::{Expected, Scenario};
use crate::fault::Fault;
use crate::studio::{Action, Code, Deeds, Moment, Move, Player, Reply, Served, Studio};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "borders",
    purpose: "the whole stack: four regions around a corner, players who cross from one to the other, the standard faults",
    draw: |seed, faults| {
        standard::draw_on(seed, faults, standard::Ground { regions: GRID.columns * GRID.rows, points: BORDER_POINTS })
    },
    run: |seed, plan, outcome| run_game::<Corner>(seed, plan, outcome, &VARIATION),
    expects,
};

const GRID: GridConfig = GridConfig { columns: 2, rows: 2 };
/// Side of the world, in metres: from everywhere it is seconds to the next border.
const SIDE_M: f32 = 96.0;
const VARIATION: Variation = Variation {
    edges: 2,
    players: 6,
    players_leave: true,
    players_wander: 0.3,
    players_rush: 0.2,
    players_away_max: AWAY_MAX,
    verified: false,
    borders_move: 0.5,
    lying_disks: false,
    one_goes_wrong: false,
    one_goes_for_good: 0.0,
    grid: GRID,
    weather: Weather::of,
};

fn expects() -> Vec<Expected> {
    let expected = |name: &str, after_seeds| Expected { name: name.to_owned(), after_seeds };
    let faults = Fault::KINDS.iter().map(|kind| expected(kind, 500));
    let points = BORDER_POINTS.iter().map(|point| expected(point.name, 500));
    let often =
        ["borders crossed", "goodbyes", "resumed sessions", "resumed through another edge", "items gathered", "borders moved"];
    let owners = (1..=SHARDS).map(|n| expected(&format!("region owned by n{n}"), 50));
    faults.chain(points).chain(often.iter().map(|name| expected(name, 20))).chain(owners).collect()
}

/// Open land with a corner of four regions in its middle.
struct Corner;

impl Studio for Corner {
    const NAME: &'static str = "corner";
    const PURPOSE: &'static str = "four regions around a corner";
    type Game = Frontier;
    type Player = Wayfarer;

    fn served() -> anyhow::Result<Served<Frontier>> {
        Ok(Served::new(Frontier::new()?, open_parameters(SIDE_M, 24)))
    }

    fn player(_number: u64) -> Wayfarer {
        // Not farther from the corner than a few seconds.
        let middle = SIDE_M / 2.0;
        Wayfarer::going(Duration::from_secs(8), move |_, random| [0, 1].map(|_| middle + random.random_range(-16.0..16.0)))
    }
}

/// Where to next, from here.
type Draw = Box<dyn FnMut([f32; 2], &mut Pcg64Mcg) -> [f32; 2]>;

/// Goes from place to place, gathers what it passes, and drops and picks up on the way.
pub(super) struct Wayfarer {
    bag: Vec<u64>,
    /// Where to, and until when it tries.
    goal: Option<([f32; 2], Duration)>,
    within: Duration,
    draw: Draw,
}

impl Wayfarer {
    /// Goes to places that are drawn one after the other, and tries for so long to reach each.
    pub(super) fn going(within: Duration, draw: impl FnMut([f32; 2], &mut Pcg64Mcg) -> [f32; 2] + 'static) -> Self {
        Self { bag: Vec::new(), goal: None, within, draw: Box::new(draw) }
    }
}

impl Player for Wayfarer {
    fn act(&mut self, moment: &mut Moment<'_>) -> Deeds {
        let own = moment.view.own();
        let here = [own.x, own.z];
        let reached = |goal: [f32; 2]| (goal[0] - here[0]).hypot(goal[1] - here[1]) < 1.0;
        let goal = match self.goal {
            Some((goal, until)) if !reached(goal) && moment.now < until => goal,
            _ => {
                let goal = (self.draw)(here, moment.random);
                self.goal = Some((goal, moment.now + self.within));
                goal
            }
        };
        let heading = (goal[1] - here[1]).atan2(goal[0] - here[0]);
        let (z, x) = heading.sin_cos();
        let step = Move { x, z, yaw: (heading.rem_euclid(TAU) / TAU * 256.0) as u32 & 255 };
        Deeds { step, actions: self.next_action(moment, here).into_iter().collect() }
    }

    fn told(&mut self, code: Option<u32>, reply: &Reply) -> Result<Vec<ItemId>, String> {
        if code != Some(action::GATHER) || reply.code != Code::Ok as u32 {
            return Ok(Vec::new());
        }
        let gathered = Gathered::decode(&*reply.body).map_err(|error| error.to_string())?;
        self.bag.push(gathered.item);
        Ok(vec![ItemId(gathered.item)])
    }
}

impl Wayfarer {
    fn next_action(&mut self, moment: &mut Moment<'_>, here: [f32; 2]) -> Option<Action> {
        let near = |kind: u32, radius_m: f32| {
            moment.view.others().filter(|(_, other)| other.kind == kind).any(|(_, other)| {
                let [x, _, z] = other.position();
                (x - here[0]).hypot(z - here[1]) < radius_m
            })
        };
        let (ore, item) = (near(kind::ORE, 2.0), near(kind::ITEM, 2.0));
        let random = &mut *moment.random;
        if ore && random.random_bool(0.5) {
            return Some(Action { code: action::GATHER, body: Gather {}.encode_to_vec().into() });
        }
        if random.random_bool(0.03)
            && let Some(item) = self.bag.pop()
        {
            return Some(Action { code: action::DROP, body: Drop { item }.encode_to_vec().into() });
        }
        (item && random.random_bool(0.3)).then(|| Action { code: action::PICK_UP, body: PickUp {}.encode_to_vec().into() })
    }
}
