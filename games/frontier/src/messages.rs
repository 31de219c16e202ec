//! The game's messages, generated from `schema/`.

mod generated {
    #![allow(missing_docs, clippy::all, rustdoc::all)]
    pub mod frontier {
        include!(concat!(env!("OUT_DIR"), "/marchland.frontier.v1.rs"));
    }
    pub mod parameters {
        include!(concat!(env!("OUT_DIR"), "/marchland.frontier.parameters.v1.rs"));
    }
}

pub use generated::frontier::{Drop, Gather, Gathered, Inventory, Item, Items, Look, PickUp, Said, Say};
pub use generated::parameters::{self, Map, Open, Parameters};
