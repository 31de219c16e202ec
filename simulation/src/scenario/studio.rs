//! A scenario on the world of a studio's game: the standard one in small, so that a test has many seeds in little time.

use super::stack::{AWAY_MAX, ONE_REGION, Variation, Weather, run_game};
use super::{Scenario, nothing, standard};
use crate::studio::Studio;

const VARIATION: Variation = Variation {
    edges: 2,
    players: 4,
    players_leave: true,
    players_wander: 0.3,
    players_rush: 0.0,
    players_away_max: AWAY_MAX,
    verified: false,
    borders_move: 0.0,
    lying_disks: false,
    one_goes_wrong: false,
    one_goes_for_good: 0.0,
    grid: ONE_REGION,
    weather: Weather::of,
};

/// The standard faults on a studio's game.
pub(crate) fn of_studio<S: Studio>() -> Scenario {
    Scenario {
        name: S::NAME,
        purpose: S::PURPOSE,
        draw: standard::draw,
        run: |seed, plan, outcome| run_game::<S>(seed, plan, outcome, &VARIATION),
        expects: nothing,
    }
}
