//! The binary's library: configuration, the wiring of a node, `up`, load and measurements.
//!
//! Everything below is put together here and nowhere else: shells do not know each other, they meet in the schema and in
//! [`node::Node`], which is generic over its [`seams`] so that the simulator runs the very same wiring.

pub mod bench;
pub mod bots;
pub mod certs;
pub mod cluster;
pub mod command;
pub mod config;
pub mod demo;
pub mod node;
mod pace;
pub mod replay;
pub mod seams;
pub mod served;
pub mod signals;
pub mod up;
