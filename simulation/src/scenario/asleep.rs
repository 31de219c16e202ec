//! A row of regions, most of which sleep most of the time: few players, far apart, who leave the world and come back, and go over borders
//! into regions that nobody has wanted for a while, while machines and network fail.
//!
//! Whatever happens around falling asleep and waking, every character and every item is in one place in the end, and who comes is served:
//! also when the node that led the region has gone for good in its sleep.

use std::time::Duration;

use frontier::{Frontier, open_parameters};
use marchland_server::config::GridConfig;
use rand::RngExt;

use super::borders::Wayfarer;
use super::stack::{SHARDS, Variation, Weather, run_game};
use super::standard::{self, SLEEP_POINTS};
use super::{Expected, Scenario};
use crate::fault::Fault;
use crate::studio::{Served, Studio};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "asleep",
    purpose: "the whole stack: a row of regions that sleep and wake, few players who leave, return and cross, the standard faults",
    draw: |seed, faults| {
        standard::draw_on(seed, faults, standard::Ground { regions: GRID.columns * GRID.rows, points: SLEEP_POINTS })
    },
    run: |seed, plan, outcome| run_game::<Row>(seed, plan, outcome, &VARIATION),
    expects,
};

const GRID: GridConfig = GridConfig { columns: 5, rows: 1 };
/// Side of the world, in metres: regions are wider than anybody sees.
const SIDE_M: f32 = 700.0;
/// As far as a player goes from where it stands, in metres: along the row, to come over a border now and then, and across it.
const STROLL_M: [f32; 2] = [90.0, 15.0];
const VARIATION: Variation = Variation {
    edges: 2,
    players: 3,
    players_leave: true,
    players_wander: 0.2,
    players_rush: 0.3,
    players_away_max: Duration::from_secs(6),
    verified: false,
    borders_move: 0.0,
    lying_disks: false,
    one_goes_wrong: false,
    one_goes_for_good: 0.3,
    grid: GRID,
    weather: Weather::of,
};

fn expects() -> Vec<Expected> {
    let expected = |name: &str, after_seeds| Expected { name: name.to_owned(), after_seeds };
    let faults = Fault::KINDS.iter().map(|kind| expected(kind, 500));
    let points = SLEEP_POINTS.iter().map(|point| expected(point.name, 500));
    let often = ["regions that fell asleep", "regions that woke", "goodbyes", "resumed sessions"];
    let owners = (1..=SHARDS).map(|n| expected(&format!("region owned by n{n}"), 50));
    let gone = [expected("nodes that went for good", 50)];
    faults.chain(points).chain(often.iter().map(|name| expected(name, 20))).chain(owners).chain(gone).collect()
}

/// Open land in five strips.
struct Row;

impl Studio for Row {
    const NAME: &'static str = "row";
    const PURPOSE: &'static str = "five regions in a row";
    type Game = Frontier;
    type Player = Wayfarer;

    fn served() -> anyhow::Result<Served<Frontier>> {
        Ok(Served::new(Frontier::new()?, open_parameters(SIDE_M, 60)))
    }

    fn player(_number: u64) -> Wayfarer {
        Wayfarer::going(Duration::from_secs(20), |here, random| {
            [0, 1].map(|axis| (here[axis] + random.random_range(-STROLL_M[axis]..STROLL_M[axis])).clamp(1.0, SIDE_M - 1.0))
        })
    }
}
