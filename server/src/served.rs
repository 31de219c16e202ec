//! A game as a server runs it.
//!
//! The server knows a game by its [`Game`] implementation and nothing else. What a new world of it is made from, an operator
//! chooses in `node.toml`; [`Serve`] turns that into the game's own parameters. `docs/simulate-your-game.md` shows a whole server
//! of one's own.

use std::sync::Arc;

use bytes::Bytes;
use marchland_region_core::Game;

use crate::config::WorldConfig;

/// Rules, and what a new world is made from.
pub struct Served<G> {
    /// The rules.
    pub game: Arc<G>,
    /// Parameters of a new world's region, in the game's own encoding. An existing world keeps its own.
    pub parameters: Bytes,
    /// The ground for the browser client, as JSON of the game's own; `{}` if it has none.
    pub map_json: String,
}

impl<G: Game> Served<G> {
    /// A game, and parameters for [`Game::ground`].
    pub fn new(game: G, parameters: impl Into<Bytes>) -> Self {
        Self { game: Arc::new(game), parameters: parameters.into(), map_json: "{}".to_owned() }
    }
}

/// Makes the game that a node runs, given its world's section of `node.toml`. An error ends the start.
pub type Serve<G> = fn(&WorldConfig) -> anyhow::Result<Served<G>>;
