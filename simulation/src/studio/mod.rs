//! The same instrument for a game of one's own: its rules on a whole cluster under a seed.
//!
//! A studio says what its game is, what its players do, and what must always hold of a region ([`Studio`]); everything else is as
//! for the demo world: the released code of nodes and edges, the standard faults, the invariants of Marchland itself. A test without
//! libtest's harness hands its [`Trial`]s to [`main`], which runs each seed in a process of its own. `docs/simulate-your-game.md` shows
//! it step by step, `games/frontier/tests/simulated` is a complete example.

pub(crate) mod odd;
mod trial;
mod watched;

use std::time::Duration;

use marchland_region_core::{Game, ItemId, Tick, World};
use rand_pcg::Pcg64Mcg;

pub use self::trial::{Trial, main};
pub(crate) use self::watched::Watched;
pub use marchland_edge::client::{Other, PlayerView};
pub use marchland_proto::client::{Action, Move, Reply};
pub use marchland_proto::codes::Code;
pub use marchland_server::served::Served;

/// A game, as the simulation is told of it.
pub trait Studio: 'static {
    /// As it stands in reports and traces.
    const NAME: &'static str;
    /// One line on what is tried.
    const PURPOSE: &'static str;
    /// The rules.
    type Game: Game;
    /// Who plays it.
    type Player: Player;

    /// The rules, and parameters for a new world. Called at every boot of every machine.
    ///
    /// # Errors
    /// The game's content can not be used.
    fn served() -> anyhow::Result<Served<Self::Game>>;

    /// The player of this number, from 1.
    fn player(number: u64) -> Self::Player;

    /// What must hold of the region after every tick, on every replica. Each boot of a replica has its own.
    fn invariants() -> Vec<Box<dyn RegionInvariant<Self::Game>>> {
        Vec::new()
    }
}

/// What one player sees when it decides what to do.
pub struct Moment<'a> {
    /// What it was shown.
    pub view: &'a PlayerView,
    /// Time since the simulation began.
    pub now: Duration,
    /// Its own chance: the same in every run of a seed.
    pub random: &'a mut Pcg64Mcg,
}

/// What a player does next.
#[derive(Clone, Debug, Default)]
pub struct Deeds {
    /// Where it walks until it is asked again.
    pub step: Move,
    /// What it does beside walking, in order.
    pub actions: Vec<Action>,
}

/// Someone who plays. It signs in, comes back after lost connections and repeats what was not acknowledged by itself.
pub trait Player: 'static {
    /// Asked ten times a second, as long as the player is in the world.
    fn act(&mut self, moment: &mut Moment<'_>) -> Deeds;

    /// An answer to one of its actions (`code` is the action's), or an event that it was told (no code). Says which items the player
    /// now holds that nobody held before: they must still be there at the end.
    ///
    /// # Errors
    /// The server answered what it never may; that is a violation.
    fn told(&mut self, code: Option<u32>, reply: &Reply) -> Result<Vec<ItemId>, String>;
}

/// A region as a tick left it, on one replica.
pub struct Seen<'a, G: Game> {
    /// The tick.
    pub tick: Tick,
    /// The state.
    pub world: &'a World,
    /// The ground.
    pub ground: &'a G::Ground,
}

/// Something that must always hold of a region.
///
/// It may remember what it saw: it is shown one replica's ticks in order, from its boot on. Ticks can be left out, when a replica that was
/// away is given a snapshot; none comes twice.
pub trait RegionInvariant<G: Game>: Send {
    /// As it stands in reports: lower case with dashes.
    fn name(&self) -> &'static str;

    /// Looks at a region.
    ///
    /// # Errors
    /// What is wrong with it.
    fn look(&mut self, seen: &Seen<'_, G>) -> Result<(), String>;
}
