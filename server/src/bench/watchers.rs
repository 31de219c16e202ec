//! What it costs a region's owner that a crowd is spread over more edges: the same players on one, two and three of them.
//!
//! The owner's cost is the processor time of its process without the threads that serve players' sockets, so that an edge in the same
//! process does not count: simulation, log, replication, and the streams to edges. One edge is one of a node that does not own the region, two
//! are those of both such nodes, and the third is the owner's. The judge's observer is a stream more in each case.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::Outcome;
use super::crowd::{CrowdArgs, Measured, NODES, Scene, measure};

/// Arguments of `marchland bench watchers`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench watchers --players 300 --seconds 20 --json")]
pub(super) struct WatchersArgs {
    #[command(flatten)]
    crowd: CrowdArgs,
}

pub(super) async fn run(args: &WatchersArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    let scene = args.crowd.scene()?;
    let mut measured = Vec::new();
    for edges in 1..=NODES as usize {
        measured.push(measure(&Scene { edges, ..scene }, &dir.join(format!("edges-{edges}")), talk).await?);
    }
    let one = owner_us_per_s(&measured[0]);
    anyhow::ensure!(one > 0.0, "the owner took no processor time: nothing was measured");
    let by_edges = |measured: &[Measured], first: usize| -> Value {
        let each = measured.iter().enumerate().map(|(i, m)| {
            let mut results = m.results();
            results["owner_cpu_us_per_s"] = json!(owner_us_per_s(m));
            (format!("edges_{}", first + i), results)
        });
        Value::Object(each.collect())
    };
    let ratios = measured[1..].iter().enumerate().map(|(i, m)| (format!("owner_{}_edges_to_1", i + 2), owner_us_per_s(m) / one));
    Ok(Outcome {
        name: "watchers",
        params: scene.params(),
        results: by_edges(&measured[1..], 2),
        baseline: by_edges(&measured[..1], 1),
        ratios: ratios.collect(),
    })
}

/// Of the owner alone, for a second of the same crowd: it does the same work whether frames are right or not.
fn owner_us_per_s(measured: &Measured) -> f64 {
    measured.cpu.owner / measured.elapsed_s
}
