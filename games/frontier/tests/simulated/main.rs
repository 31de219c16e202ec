//! The demo world on a whole cluster under seeds: nodes lose power, networks split, disks fill, and after every tick, on every
//! replica, what must hold of the world does.
//!
//! Copy it into your game: `players.rs` is what its players do, `invariants.rs` what must always hold, `careless.rs` the same game with
//! mistakes in its rules, which shows that the invariants are looked at. The page `docs/simulate-your-game.md` explains it.

mod careless;
mod invariants;
mod players;

use std::process::ExitCode;

use frontier::{Frontier, map_parameters};
use simulation::studio::{RegionInvariant, Served, Studio, Trial, main as show};

use crate::careless::{Careless, Mistake};
use crate::invariants::{NobodyInAWall, OreIsKept};
use crate::players::Wanderer;

/// The game as it is.
struct Sound;

impl Studio for Sound {
    const NAME: &'static str = "frontier";
    const PURPOSE: &'static str = "the demo world: nobody stands in a wall, ore is neither doubled nor lost";
    type Game = Frontier;
    type Player = Wanderer;

    fn served() -> anyhow::Result<Served<Frontier>> {
        Ok(Served::new(Frontier::new()?, map_parameters()))
    }

    fn player(_number: u64) -> Wanderer {
        Wanderer::default()
    }

    fn invariants() -> Vec<Box<dyn RegionInvariant<Frontier>>> {
        vec![Box::new(NobodyInAWall), Box::new(OreIsKept::default())]
    }
}

/// Walkers do not mind walls.
struct WallsAreAir;

impl Studio for WallsAreAir {
    const NAME: &'static str = "frontier-walls-are-air";
    const PURPOSE: &'static str = "a mistake: walkers ignore walls";
    type Game = Careless;
    type Player = Wanderer;

    fn served() -> anyhow::Result<Served<Careless>> {
        Ok(Served::new(Careless::new(Mistake::WallsAreAir)?, map_parameters()))
    }

    fn player(_number: u64) -> Wanderer {
        Wanderer::default()
    }

    fn invariants() -> Vec<Box<dyn RegionInvariant<Careless>>> {
        vec![Box::new(NobodyInAWall)]
    }
}

/// What is dropped is gone.
struct DroppedIsGone;

impl Studio for DroppedIsGone {
    const NAME: &'static str = "frontier-dropped-is-gone";
    const PURPOSE: &'static str = "a mistake: what is laid down vanishes";
    type Game = Careless;
    type Player = Wanderer;

    fn served() -> anyhow::Result<Served<Careless>> {
        Ok(Served::new(Careless::new(Mistake::DroppedIsGone)?, map_parameters()))
    }

    fn player(_number: u64) -> Wanderer {
        Wanderer::default()
    }

    fn invariants() -> Vec<Box<dyn RegionInvariant<Careless>>> {
        vec![Box::new(OreIsKept::default())]
    }
}

fn main() -> ExitCode {
    show(&[
        Trial::holds::<Sound>(2),
        Trial::finds::<WallsAreAir>("nobody-in-a-wall", 3),
        Trial::finds::<DroppedIsGone>("ore-is-kept", 12),
    ])
}
