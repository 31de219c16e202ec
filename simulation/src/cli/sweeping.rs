//! Runs seeds and says what came of them.

use std::time::Duration;

use simulation::planted;
use simulation::report::{Found, SeedReport, ShrunkPlan, Summary};
use simulation::run::RunOptions;
use simulation::scenario::{self, Scenario};
use simulation::seed::Seed;
use simulation::sweep::{Sweep, jobs_of_this_machine};

use super::args::Args;
use super::progress::Progress;
use super::{Failure, plans, shrinking, table};

/// Seeds when nobody says how many.
const SEEDS: u64 = 20;

/// `true` if nothing was found, and everything expected was met.
pub(super) fn sweep(args: &Args) -> Result<bool, Failure> {
    let unknown = || Failure::Use(format!("no scenario {:?}; `simulation list` names them all", args.scenario));
    let scenario = scenario::by_name(&args.scenario).ok_or_else(unknown)?;
    let options = options(args)?;
    let jobs = args.jobs.unwrap_or_else(jobs_of_this_machine);
    let count = match (args.seed, args.seeds, args.minutes) {
        (Some(_), ..) => Some(1),
        (None, None, Some(_)) => None,
        (None, seeds, _) => Some(seeds.unwrap_or(SEEDS)),
    };
    let lasts_at_most = match args.minutes.map(|minutes| Duration::try_from_secs_f64(minutes * 60.0)) {
        None => None,
        Some(Ok(lasts)) => Some(lasts),
        Some(Err(error)) => return Err(Failure::Use(format!("--minutes: {error}"))),
    };
    let from = args.seed.unwrap_or(args.from);
    let seeds = from..count.map_or(u64::MAX, |count| from.saturating_add(count));
    let sweep = Sweep { scenario, options: options.clone(), seeds, lasts_at_most, jobs };

    let progress = Progress::new(args, count);
    let mut summary = Summary::default();
    sweep.run(|report| {
        if args.hashes {
            progress.beside(|| println!("seed {} trace {}", report.seed, report.trace_hash));
        }
        if let Some(found) = found(args, scenario, &options, &report) {
            progress.beside(|| eprintln!("seed {}: {}: {}\n  {}", found.seed, found.invariant, found.what, found.command));
            summary.violations.push(found);
        }
        summary.add(report);
        progress.seed(&summary);
        true
    })?;
    summary.violations.sort_by_key(|found| found.seed);
    if args.seed.is_some() {
        summary.plan = Some(options.plan_for(scenario, Seed(from)));
    }
    if args.plan.is_none() && args.faults.is_none() && args.bug.is_none() {
        summary.missing = missing(scenario, &summary);
    }
    let elapsed = progress.elapsed();
    progress.finish();
    if args.shrink
        && let Some(found) = summary.violations.first()
    {
        let smaller = shrinking::smaller(args, scenario, &options, found, jobs)?;
        let (before, after) = (smaller.before, smaller.plan.0.len());
        if !args.json {
            println!("seed {}: {before} entries shrunk to {after} in {} runs", found.seed, smaller.runs);
            smaller.plan.0.iter().for_each(|planned| println!("  {planned}"));
            println!("  {}", smaller.command);
        }
        summary.shrunk = Some(ShrunkPlan { seed: found.seed, before, plan: smaller.plan, command: smaller.command });
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary).map_err(std::io::Error::other)?);
    } else {
        table::print(&summary, elapsed);
    }
    Ok(summary.violations.is_empty() && summary.missing.is_empty())
}

fn options(args: &Args) -> Result<RunOptions, Failure> {
    let planted = match &args.bug {
        None => None,
        Some(name) => {
            Some(planted::by_name(name).ok_or_else(|| Failure::Use(format!("no planted bug is called {name:?}")))?.name)
        }
    };
    Ok(RunOptions {
        detail: args.detail,
        trace: args.trace.clone(),
        taken: args.taken(),
        plan: args.plan.as_deref().map(plans::read).transpose()?,
        faults: args.faults,
        planted,
        repeat: args.seed.map_or_else(String::new, |seed| plans::command(args, seed, args.plan.as_deref())),
    })
}

/// What a seed violated, with its plan in a file, and the command that repeats it.
fn found(args: &Args, scenario: &'static Scenario, options: &RunOptions, report: &SeedReport) -> Option<Found> {
    let violation = report.violation.clone()?;
    let plan = options.plan_for(scenario, Seed(report.seed));
    let path = match &args.plan {
        Some(path) => Ok(path.clone()),
        None => plans::write(args, report.seed, "plan", &plan),
    };
    // Without the file the seed draws the same plan, as long as nobody changes how it is drawn.
    let path = path.inspect_err(|error| eprintln!("the plan of seed {} could not be written: {error}", report.seed)).ok();
    let command = plans::command(args, report.seed, path.as_deref());
    Some(Found { seed: report.seed, invariant: violation.invariant, what: violation.what, command, plan })
}

/// What a sweep of this many seeds must have met, and has not.
fn missing(scenario: &Scenario, summary: &Summary) -> Vec<String> {
    let never = |name: &str| summary.times(name) == 0;
    let expected = (scenario.expects)().into_iter();
    expected.filter(|e| e.after_seeds <= summary.seeds && never(&e.name)).map(|e| e.name).collect()
}
