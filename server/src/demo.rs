//! The demo world, as this server serves it.

use anyhow::Context;
use frontier::map::FrontierMap;
use frontier::{Frontier, Parameters};
use prost::Message;

use crate::config::{GridConfig, GroundConfig, WorldConfig};
use crate::served::Served;

/// The demo world, on the ground that its configuration asks for.
///
/// # Errors
/// The content that is compiled in can not be used.
pub fn serve(world: &WorldConfig) -> anyhow::Result<Served<Frontier>> {
    let game = Frontier::new().context("the demo world's content")?;
    let parameters = match world.ground {
        GroundConfig::Map => Parameters::map(),
        GroundConfig::Open { side_m } => Parameters::open(side_m, 0),
    };
    let parameters = parameters.grid(world.grid.columns, world.grid.rows).animals(world.animals);
    let map_json = map_json(world.ground, world.grid, game.aurora());
    Ok(Served { map_json, ..Served::new(game, parameters.encode_to_vec()) })
}

/// The ground as the browser client draws it: `columns` times `rows` regions, each with a copy of the map. Where two copies meet, their
/// outermost tiles are not solid.
fn map_json(ground: GroundConfig, grid: GridConfig, map: &FrontierMap) -> String {
    let GridConfig { columns, rows } = grid;
    let value = match ground {
        GroundConfig::Open { side_m } => {
            serde_json::json!({ "open": true, "side_m": side_m, "columns": columns, "rows": rows })
        }
        GroundConfig::Map => {
            let [width, height] = map.ground().size();
            let solid: Vec<u8> = (0..height as i32)
                .flat_map(|z| (0..width as i32).map(move |x| (x, z)))
                .map(|(x, z)| u8::from(map.ground().is_solid(x, z)))
                .collect();
            serde_json::json!({
                "width": width,
                "height": height,
                "tile_m": map.ground().tile_m(),
                "solid": solid,
                "kinds": map.tiles,
                "kind_names": map.tile_names,
                "columns": columns,
                "rows": rows,
            })
        }
    };
    value.to_string()
}
