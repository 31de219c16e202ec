//! The map, drawn in Tiled (`content/aurora.tmx`) and compiled into the binary.
//!
//! What the game reads of it: the tile layer `ground` (a tile is solid when its property `solid` says so, and named by its
//! class), the points of the object layers `ore` and `spawn`, and the map's property `tile_m`, the side of a tile in metres.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use marchland_region_core::{Ground as _, TileGround, hash, mix};
use tiled::{LayerType, Loader, PropertyValue, TileLayer};

const AURORA: &[u8] = include_bytes!("../content/aurora.tmx");
const TILESET: &[u8] = include_bytes!("../content/frontier.tsx");

/// Why a map can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Tiled's files do not read.
    #[error("the map does not read: {0}")]
    Tiled(#[from] tiled::Error),
    /// The map lacks something that the game needs.
    #[error("the map {0}")]
    Lacks(&'static str),
    /// Something was drawn where nobody can be.
    #[error("the {what} at tile {x} {z} is in a wall")]
    InWall {
        /// The object's layer.
        what: &'static str,
        /// Column.
        x: i32,
        /// Row.
        z: i32,
    },
}

/// A map, as the game uses it. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct FrontierMap {
    ground: Arc<TileGround>,
    /// Places of ore veins (east, south), in metres.
    pub ore: Arc<[[f32; 2]]>,
    /// Places where players begin.
    pub spawns: Arc<[[f32; 2]]>,
    /// What each tile is, row by row: an index into `tile_names`.
    pub tiles: Arc<[u8]>,
    /// Names of the tiles.
    pub tile_names: Arc<[String]>,
    content_hash: u64,
}

impl FrontierMap {
    /// The map `aurora`.
    pub fn aurora() -> Result<Self, ContentError> {
        Self::read(AURORA, TILESET)
    }

    /// The tiles that one can and can not walk on.
    #[must_use]
    pub fn ground(&self) -> &Arc<TileGround> {
        &self.ground
    }

    /// Hash of the files that the map was read from.
    #[must_use]
    pub fn content_hash(&self) -> u64 {
        self.content_hash
    }

    fn read(map: &'static [u8], tileset: &'static [u8]) -> Result<Self, ContentError> {
        let mut loader = Loader::with_reader(move |path: &Path| -> std::io::Result<_> {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmx") => Ok(Cursor::new(map)),
                Some("tsx") => Ok(Cursor::new(tileset)),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            }
        });
        let read = loader.load_tmx_map("/map.tmx")?;
        let Some(&PropertyValue::FloatValue(tile_m)) = read.properties.get("tile_m") else {
            return Err(ContentError::Lacks("has no number tile_m"));
        };
        let metres_per_pixel = tile_m / read.tile_width as f32;
        let (mut tiles, mut ore, mut spawns) = (None, Vec::new(), Vec::new());
        for layer in read.layers() {
            match (layer.name.as_str(), layer.layer_type()) {
                ("ground", LayerType::Tiles(TileLayer::Finite(layer))) => tiles = Some(read_tiles(&layer)?),
                ("ore", LayerType::Objects(layer)) => ore.extend(layer.objects().map(|object| [object.x, object.y])),
                ("spawn", LayerType::Objects(layer)) => spawns.extend(layer.objects().map(|object| [object.x, object.y])),
                _ => {}
            }
        }
        let tiles = tiles.ok_or(ContentError::Lacks("has no tile layer ground"))?;
        let ground = TileGround::new(tiles.width, tile_m, tiles.solid).ok_or(ContentError::Lacks("is no grid of tiles"))?;
        for place in ore.iter_mut().chain(&mut spawns) {
            *place = place.map(|pixels| pixels * metres_per_pixel);
        }
        if spawns.is_empty() {
            return Err(ContentError::Lacks("has no place to begin"));
        }
        for (what, places) in [("ore", &ore), ("spawn", &spawns)] {
            if let Some([x, z]) = places.iter().find(|place| !ground.is_free(**place)) {
                return Err(ContentError::InWall { what, x: (x / tile_m) as i32, z: (z / tile_m) as i32 });
            }
        }
        Ok(Self {
            ground: Arc::new(ground),
            ore: ore.into(),
            spawns: spawns.into(),
            tiles: tiles.kinds.into(),
            tile_names: tiles.names.into(),
            content_hash: mix(hash(1, map), hash(2, tileset)),
        })
    }
}

struct Tiles {
    width: u32,
    solid: Vec<bool>,
    kinds: Vec<u8>,
    names: Vec<String>,
}

fn read_tiles(layer: &tiled::FiniteTileLayer<'_>) -> Result<Tiles, ContentError> {
    let (width, height) = (layer.width(), layer.height());
    let mut tiles = Tiles { width, solid: Vec::new(), kinds: Vec::new(), names: Vec::new() };
    for z in 0..height as i32 {
        for x in 0..width as i32 {
            let placed = layer.get_tile(x, z).ok_or(ContentError::Lacks("has a hole in its ground"))?;
            let tile = placed.get_tile().ok_or(ContentError::Lacks("has a tile that is in no tileset"))?;
            let Some(PropertyValue::BoolValue(solid)) = tile.properties.get("solid") else {
                return Err(ContentError::Lacks("has a tile that does not say whether it is solid"));
            };
            let id = placed.id() as usize;
            let kind = u8::try_from(id).map_err(|_| ContentError::Lacks("has more than 256 kinds of tiles"))?;
            if tiles.names.len() <= id {
                tiles.names.resize(id + 1, String::new());
            }
            if tiles.names[id].is_empty() {
                tiles.names[id] = tile.user_type.clone();
            }
            tiles.solid.push(*solid);
            tiles.kinds.push(kind);
        }
    }
    Ok(tiles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, VecDeque};

    #[test]
    fn aurora_is_a_world_to_walk_in() {
        let map = FrontierMap::aurora().unwrap();
        assert_eq!(map.ground().size(), [96, 96]);
        assert_eq!(map.ground().tile_m(), 2.0);
        assert!(map.ore.len() > 50 && map.spawns.len() > 10);
        assert_eq!(map.tiles.len(), 96 * 96);
        assert!(map.tile_names.iter().any(|name| name == "water"));
    }

    #[test]
    fn everything_can_be_reached_from_everywhere() {
        let map = FrontierMap::aurora().unwrap();
        let tile = |place: &[f32; 2]| ((place[0] / 2.0) as i32, (place[1] / 2.0) as i32);
        let mut seen = BTreeSet::from([tile(&map.spawns[0])]);
        let mut next: VecDeque<_> = seen.iter().copied().collect();
        while let Some((x, z)) = next.pop_front() {
            for to in [(x + 1, z), (x - 1, z), (x, z + 1), (x, z - 1)] {
                if !map.ground().is_solid(to.0, to.1) && seen.insert(to) {
                    next.push_back(to);
                }
            }
        }
        for place in map.ore.iter().chain(map.spawns.iter()) {
            assert!(seen.contains(&tile(place)), "{place:?} can not be reached");
        }
    }

    #[test]
    fn maps_that_lack_something_are_refused() {
        let text = std::str::from_utf8(AURORA).unwrap();
        let damaged = |from: &str, to: &str| -> &'static [u8] { text.replacen(from, to, 1).leak().as_bytes() };
        for map in [
            damaged("tile_m", "tile_n"),
            damaged("name=\"ground\"", "name=\"clouds\""),
            damaged("name=\"spawn\"", "name=\"spam\""),
            damaged("<map", "<mop"),
        ] {
            assert!(FrontierMap::read(map, TILESET).is_err());
        }
    }
}
