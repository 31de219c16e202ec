//! Files with plans, and the commands that repeat a run with them.

use std::path::{Path, PathBuf};

use simulation::plan::Plan;

use super::Failure;
use super::args::Args;

/// Reads a plan.
pub(super) fn read(path: &Path) -> Result<Plan, Failure> {
    let unusable = |reason: &dyn std::fmt::Display| Failure::Use(format!("no plan in {}: {reason}", path.display()));
    let text = std::fs::read(path).map_err(|error| unusable(&error))?;
    serde_json::from_slice(&text).map_err(|error| unusable(&error))
}

/// Writes the plan of a seed, and says where. `kind` is part of the name.
pub(super) fn write(args: &Args, seed: u64, kind: &str, plan: &Plan) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(&args.plans)?;
    let path = args.plans.join(format!("{}-{seed}.{kind}.json", args.scenario));
    let mut text = serde_json::to_vec_pretty(plan).map_err(std::io::Error::other)?;
    text.push(b'\n');
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The command that repeats a seed's run, with a plan if there is a file of it.
pub(super) fn command(args: &Args, seed: u64, plan: Option<&Path>) -> String {
    let mut command = format!("cargo run --release -p simulation -- --scenario {} --seed {seed}", args.scenario);
    if let Some(plan) = plan {
        command.push_str(&format!(" --plan {}", plan.display()));
    }
    if let Some(bug) = &args.bug {
        command.push_str(&format!(" --bug {bug}"));
    }
    command.push_str(&format!(" --trace seed-{seed}.txt"));
    command
}
