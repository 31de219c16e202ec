//! What borders cost: the crowd of `crowd` on the corner where four regions meet, beside the same crowd in one region.
//!
//! Everything but the number of regions is the same: players, their square, how they walk, how their frames are judged, processors. Both
//! are measured in the same run, in turns, and who goes first changes with every round.

use std::path::Path;

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};

use super::Outcome;
use super::crowd::{CrowdArgs, Measured, Scene, measure};
use crate::config::GridConfig;

/// Their square's middle is the corner of all of them.
const FOUR: GridConfig = GridConfig { columns: 2, rows: 2 };

/// Arguments of `marchland bench border`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench border --players 300 --rounds 2 --json")]
pub(super) struct BorderArgs {
    #[command(flatten)]
    crowd: CrowdArgs,
    /// How often both are measured, each time in the other order.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
}

pub(super) async fn run(args: &BorderArgs, dir: &Path, talk: bool) -> anyhow::Result<Outcome> {
    ensure!((1..=100).contains(&args.rounds), "--rounds must be between 1 and 100");
    let plain = args.crowd.scene()?;
    let border = Scene { grid: FOUR, ..plain };
    let (mut on_border, mut in_one) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let folder = |name: &str| dir.join(format!("{name}-{round}"));
        if round % 2 == 0 {
            in_one.push(measure(&plain, &folder("plain"), talk).await?);
        }
        on_border.push(measure(&border, &folder("border"), talk).await?);
        if round % 2 == 1 {
            in_one.push(measure(&plain, &folder("plain"), talk).await?);
        }
    }
    let crossings: u64 = on_border.iter().map(|m| m.crossings).sum();
    ensure!(crossings > 0, "nobody came into another region: nothing was measured");
    let crossing_s = on_border.iter().map(|m| m.elapsed_s).sum::<f64>();
    let mut params = plain.params();
    params["grid"] = json!(FOUR.to_string());
    params["rounds"] = json!(args.rounds);
    params["order"] = json!("crowd, border, border, crowd, …");
    let mut results = all_of(&on_border);
    results["crossings_per_s"] = json!(crossings as f64 / crossing_s);
    Ok(Outcome {
        name: "border",
        params,
        results,
        baseline: all_of(&in_one),
        ratios: [("border_to_crowd".to_owned(), cpu_us_per_update(&on_border) / cpu_us_per_update(&in_one))].into(),
    })
}

/// Of all rounds together. Each found at least one frame that was right.
fn cpu_us_per_update(rounds: &[Measured]) -> f64 {
    rounds.iter().map(|m| m.cpu.all).sum::<f64>() / rounds.iter().map(|m| m.updates).sum::<u64>() as f64
}

fn all_of(rounds: &[Measured]) -> Value {
    let each = rounds.iter().enumerate().map(|(i, m)| (format!("round_{}", i + 1), m.results()));
    let mut all: serde_json::Map<String, Value> = each.collect();
    all.insert("cpu_us_per_update".into(), json!(cpu_us_per_update(rounds)));
    Value::Object(all)
}
