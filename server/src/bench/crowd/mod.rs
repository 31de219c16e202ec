//! The one figure for what the server is for: processor time of all server processes for one correct delivered update.
//!
//! A square in which about 40 others lie within 50 m of a player; everybody walks at 5 m/s, with headings redrawn every
//! one to three seconds and jittered at every command; 10 commands a second each; each is shown up to the 32 nearest
//! within 50 m at 20 Hz. A frame counts only if it is right: what it shows is held against the committed state of its tick.
//! Servers and players are pinned to different processors.

mod baseline;
mod judge;
mod load;
mod measure;
mod observer;
mod track;
mod truth;

use std::path::Path;

use anyhow::ensure;
use clap::Args;
use marchland_types::limits::TICK_MS;
use serde_json::json;

pub(super) use self::measure::{Measured, NODES, Scene, measure};
use super::Outcome;
use super::process::pin_apart;
use crate::config::GridConfig;

/// Arguments of `marchland bench crowd`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench crowd --players 1000 --seconds 20 --json")]
pub(super) struct CrowdArgs {
    /// Players, evenly over the edges.
    #[arg(long, default_value_t = 500)]
    players: usize,
    /// How long is measured.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// How long the crowd walks before.
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Players connect by TLS.
    #[arg(long)]
    tls: bool,
}

impl CrowdArgs {
    /// The crowd that is asked for, in one region and on all edges. Pins this process away from the servers.
    pub(super) fn scene(&self) -> anyhow::Result<Scene> {
        ensure!((1..=8192).contains(&self.players), "--players must be between 1 and 8192");
        ensure!((1..=86_400).contains(&self.seconds), "--seconds must be between 1 and 86400");
        Ok(Scene {
            players: self.players,
            animals: 0,
            square_for: self.players,
            seconds: self.seconds,
            warm_up: self.warm_up,
            tls: self.tls,
            grid: GridConfig::default(),
            edges: NODES as usize,
            servers_on: pin_apart()?,
        })
    }
}

pub(super) async fn run(args: &CrowdArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    let scene = args.scene()?;
    let measured = measure(&scene, &dir.join("cluster"), talk).await?;
    let frame_bytes = (measured.bytes_per_player_s * TICK_MS as f64 / 1000.0).round() as usize;
    let bare = baseline::bare(&scene, dir, frame_bytes, talk).await?;
    Ok(Outcome {
        name: "crowd",
        params: scene.params(),
        results: measured.results(),
        baseline: json!({
            "cpu_us_per_update": bare.cpu_us_per_update,
            "tick_to_client_ms": { "p50": bare.p50_ms, "p99": bare.p99_ms },
            "updates": bare.updates,
        }),
        ratios: [("cpu_to_bare".to_owned(), measured.cpu_us_per_update() / bare.cpu_us_per_update.max(0.001))].into(),
    })
}
