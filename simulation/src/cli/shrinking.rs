//! `--shrink`: the plan of a failing seed, as small as it gets.

use simulation::plan::Plan;
use simulation::process::Job;
use simulation::report::Found;
use simulation::run::RunOptions;
use simulation::scenario::Scenario;
use simulation::seed::Seed;
use simulation::shrink::shrink;

use super::args::Args;
use super::plans;

/// What is left of a plan.
pub(super) struct Smaller {
    pub(super) before: usize,
    pub(super) plan: Plan,
    pub(super) runs: u64,
    pub(super) command: String,
}

/// Shrinks the plan of what was found, writes it and says how to run it.
pub(super) fn smaller(
    args: &Args,
    scenario: &'static Scenario,
    options: &RunOptions,
    found: &Found,
    at_once: usize,
) -> std::io::Result<Smaller> {
    let job = Job { scenario, seed: Seed(found.seed), options: options.clone() };
    let before = found.plan.0.len();
    let shrunk = shrink(&job, &found.invariant, at_once, |entries, runs| {
        if entries > 0 && !args.json {
            eprintln!("shrinking: {entries} of {before} entries after {runs} runs");
        }
    })?;
    let path = plans::write(args, found.seed, "shrunk", &shrunk.plan)?;
    let command = plans::command(args, found.seed, Some(&path));
    Ok(Smaller { before, plan: shrunk.plan, runs: shrunk.runs, command })
}
