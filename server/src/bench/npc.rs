//! What animals cost that move by themselves: one region with thousands of them and a few hundred players, beside the same players on the
//! same ground without any.
//!
//! The square is so large that about 40 others, nearly all of them animals, lie within 50 m of a player. The players are those of `crowd`:
//! they walk alike, and their frames are judged alike, so what they were shown of the animals was right. What counts is the processor
//! time of the node that owns the region for one of its ticks. It is one of three nodes, and serves a third of the players as well.

use std::path::Path;

use anyhow::ensure;
use clap::Args;
use frontier::ANIMALS_MAX;
use serde_json::{Value, json};

use super::Outcome;
use super::crowd::{Measured, NODES, Scene, measure};
use super::process::pin_apart;
use crate::config::GridConfig;

/// Arguments of `marchland bench npc`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench npc --npcs 5000 --players 200 --seconds 20 --json")]
pub(super) struct NpcArgs {
    /// Animals in the region.
    #[arg(long, default_value_t = 5000)]
    npcs: u32,
    /// Players, evenly over the edges.
    #[arg(long, default_value_t = 200)]
    players: usize,
    /// How long is measured, each time.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// How long the players walk before, each time.
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
}

impl NpcArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=ANIMALS_MAX).contains(&self.npcs), "--npcs must be between 1 and {ANIMALS_MAX}");
        ensure!((1..=8192).contains(&self.players), "--players must be between 1 and 8192");
        ensure!((1..=86_400).contains(&self.seconds), "--seconds must be between 1 and 86400");
        ensure!(self.warm_up <= 3600, "--warm-up must be at most 3600");
        Ok(())
    }
}

pub(super) async fn run(args: &NpcArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    args.check()?;
    let without = Scene {
        players: args.players,
        animals: 0,
        square_for: args.players + args.npcs as usize,
        seconds: args.seconds,
        warm_up: args.warm_up,
        tls: false,
        grid: GridConfig::default(),
        edges: NODES as usize,
        servers_on: pin_apart()?,
    };
    let with = Scene { animals: args.npcs, ..without };
    let baseline = measure(&without, &dir.join("without"), talk).await?;
    let measured = measure(&with, &dir.join("with"), talk).await?;
    let there = measured.entities.saturating_sub(baseline.entities);
    ensure!(there == u64::from(args.npcs), "{there} of {} animals were there: something else was measured", args.npcs);
    let mut params = with.params();
    params["npcs"] = json!(args.npcs);
    let mut results = results(&measured)?;
    let each = |us: fn(&Measured) -> f64| (us(&measured) - us(&baseline)) / f64::from(args.npcs);
    results["node_cpu_us_per_npc_tick"] = json!(each(node_us_per_tick));
    results["owner_cpu_us_per_npc_tick"] = json!(each(owner_us_per_tick));
    let rss_bytes = measured.owner_rss_bytes as f64 - baseline.owner_rss_bytes as f64;
    results["rss_bytes_per_npc"] = json!(rss_bytes / f64::from(args.npcs));
    let ratio = |name: &str, us: fn(&Measured) -> f64| (name.to_owned(), us(&measured) / us(&baseline));
    Ok(Outcome {
        name: "npc",
        params,
        results,
        baseline: self::results(&baseline)?,
        ratios: [
            ratio("node_tick_to_without", node_us_per_tick),
            ratio("owner_tick_to_without", owner_us_per_tick),
            ratio("all_tick_to_without", all_us_per_tick),
        ]
        .into(),
    })
}

/// Of the owner's node.
fn node_us_per_tick(measured: &Measured) -> f64 {
    measured.cpu.owner_node / measured.ticks as f64
}

/// Of the owner's node without the threads that serve players' sockets.
fn owner_us_per_tick(measured: &Measured) -> f64 {
    measured.cpu.owner / measured.ticks as f64
}

/// Of all nodes: three replicas, and all edges.
fn all_us_per_tick(measured: &Measured) -> f64 {
    measured.cpu.all / measured.ticks as f64
}

fn results(measured: &Measured) -> anyhow::Result<Value> {
    ensure!(measured.ticks > 0 && measured.cpu.owner > 0.0, "the region did not tick: nothing was measured");
    let mut results = measured.results();
    results["node_cpu_us_per_tick"] = json!(node_us_per_tick(measured));
    results["owner_cpu_us_per_tick"] = json!(owner_us_per_tick(measured));
    results["all_cpu_us_per_tick"] = json!(all_us_per_tick(measured));
    results["ticks_per_s"] = json!(measured.ticks as f64 / measured.elapsed_s);
    results["owner_rss_bytes"] = json!(measured.owner_rss_bytes);
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_refused_by_name() {
        let args = NpcArgs { npcs: 5000, players: 200, seconds: 15, warm_up: 5 };
        assert!(args.check().is_ok());
        let refused = |args: NpcArgs| args.check().unwrap_err().to_string();
        assert_eq!(refused(NpcArgs { npcs: 0, ..args.clone() }), "--npcs must be between 1 and 10000");
        assert_eq!(refused(NpcArgs { npcs: 10_001, ..args.clone() }), "--npcs must be between 1 and 10000");
        assert_eq!(refused(NpcArgs { players: 0, ..args.clone() }), "--players must be between 1 and 8192");
        assert_eq!(refused(NpcArgs { seconds: 0, ..args.clone() }), "--seconds must be between 1 and 86400");
        assert_eq!(refused(NpcArgs { warm_up: 3601, ..args }), "--warm-up must be at most 3600");
    }
}
