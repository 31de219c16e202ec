//! Parameters of a region, as an operator chooses them and its genesis keeps them.

use prost::Message;

use crate::messages::parameters::parameters::Ground;
use crate::messages::{Map, Open, Parameters};

/// Parameters of a region on the map `aurora`.
#[must_use]
pub fn map_parameters() -> Vec<u8> {
    Parameters { ground: Some(Ground::Map(Map { name: "aurora".into() })) }.encode_to_vec()
}

/// Parameters of a region on open ground: a square of `side_m` metres with `ore_nodes` veins.
#[must_use]
pub fn open_parameters(side_m: f32, ore_nodes: u32) -> Vec<u8> {
    Parameters { ground: Some(Ground::Open(Open { side_m, ore_nodes })) }.encode_to_vec()
}
