//! Parameters of a world, as an operator chooses them and the genesis of each region keeps them.

use prost::Message;

use crate::messages::parameters::parameters::Ground;
use crate::messages::{Map, Open, Parameters};

impl Parameters {
    /// The map `aurora`, in one region.
    #[must_use]
    pub fn map() -> Self {
        Self { ground: Some(Ground::Map(Map { name: "aurora".into() })), columns: 1, rows: 1, animals: 0 }
    }

    /// Open ground in one region: a square of `side_m` metres with `ore_nodes` veins.
    #[must_use]
    pub fn open(side_m: f32, ore_nodes: u32) -> Self {
        Self { ground: Some(Ground::Open(Open { side_m, ore_nodes })), columns: 1, rows: 1, animals: 0 }
    }

    /// In so many regions: a map is repeated for each, open ground is cut.
    #[must_use]
    pub fn grid(self, columns: u32, rows: u32) -> Self {
        Self { columns, rows, ..self }
    }

    /// With so many animals in each region.
    #[must_use]
    pub fn animals(self, animals: u32) -> Self {
        Self { animals, ..self }
    }
}

/// Parameters of a region on the map `aurora`.
#[must_use]
pub fn map_parameters() -> Vec<u8> {
    Parameters::map().encode_to_vec()
}

/// Parameters of a region on open ground: a square of `side_m` metres with `ore_nodes` veins.
#[must_use]
pub fn open_parameters(side_m: f32, ore_nodes: u32) -> Vec<u8> {
    Parameters::open(side_m, ore_nodes).encode_to_vec()
}
