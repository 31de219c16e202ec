//! Looks for planted bugs: how many seeds each takes, from several first seeds on.
//!
//! A seed counts only if it fails with the bug and passes without it, under the same plan: what fails anyway proves nothing.

use std::io;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{ALL, Bug, by_name};
use crate::report::SeedReport;
use crate::run::RunOptions;
use crate::scenario::{self, Scenario};
use crate::sweep::{FirstFailure, Sweep, find, jobs_of_this_machine};

/// From the first seed of one try to that of the next: far more than any budget.
const SEEDS_BETWEEN_TRIES: u64 = 1_000_000;

/// What is looked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this bug; may be given several times.
    #[arg(long, value_name = "NAME")]
    bug: Vec<String>,
    /// Most seeds for each bug and try, instead of the bug's own budget.
    #[arg(long, value_name = "MAX")]
    seeds: Option<u64>,
    /// How often each bug is looked for, each time from another first seed.
    #[arg(long, default_value_t = 1)]
    tries: u64,
    /// Processes at a time; as many as there are processors unless given.
    #[arg(long)]
    jobs: Option<usize>,
    /// One JSON document on standard output.
    #[arg(long)]
    json: bool,
    /// Only names the bugs.
    #[arg(long)]
    list: bool,
}

/// One search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Try {
    /// The first seed.
    pub from: u64,
    /// How many seeds it took, the failing one included; none if the budget did not suffice.
    pub seeds_needed: Option<u64>,
    /// What was violated.
    pub invariant: Option<String>,
    /// How it is seen again.
    pub command: Option<String>,
}

/// What became of one bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Its name.
    pub bug: &'static str,
    /// Where it was looked for.
    pub scenario: &'static str,
    /// Whether every try found it.
    pub found: bool,
    /// Seeds that a try may take.
    pub budget: u64,
    /// Seeds that it took: the median of the tries.
    pub seeds_needed: Option<u64>,
    /// The most that a try took.
    pub worst: Option<u64>,
    /// What was violated, in the first try that found it.
    pub invariant: Option<String>,
    /// All tries.
    pub tries: Vec<Try>,
}

impl Verdict {
    fn of(bug: &'static Bug, budget: u64, tries: Vec<Try>) -> Self {
        let mut needed: Vec<u64> = tries.iter().filter_map(|t| t.seeds_needed).collect();
        needed.sort_unstable();
        Self {
            bug: bug.name,
            scenario: bug.scenario,
            found: !tries.is_empty() && needed.len() == tries.len(),
            budget,
            seeds_needed: needed.get(needed.len() / 2).copied(),
            worst: needed.last().copied(),
            invariant: tries.iter().find_map(|t| t.invariant.clone()),
            tries,
        }
    }
}

/// Carries out the command `planted`.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    if args.list {
        for bug in ALL {
            println!("{:<28} {:<20} {:>6} seeds  {}", bug.name, bug.scenario, bug.budget, bug.mistake);
        }
        return ExitCode::SUCCESS;
    }
    let mut bugs = Vec::new();
    for name in &args.bug {
        let Some(bug) = by_name(name) else {
            eprintln!("no planted bug {name:?}; `planted --list` names them");
            return ExitCode::from(2);
        };
        bugs.push(bug);
    }
    if bugs.is_empty() {
        bugs.extend(ALL);
    }
    match search(args, &bugs) {
        Ok(verdicts) if verdicts.iter().all(|v| v.found) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulation: {error}");
            ExitCode::FAILURE
        }
    }
}

fn search(args: &Args, bugs: &[&'static Bug]) -> io::Result<Vec<Verdict>> {
    let jobs = args.jobs.unwrap_or_else(jobs_of_this_machine);
    let bar = progress(args, bugs.len() as u64 * args.tries);
    let mut verdicts = Vec::new();
    for bug in bugs {
        let budget = args.seeds.unwrap_or(bug.budget);
        let mut tries = Vec::new();
        for number in 0..args.tries {
            bar.set_message(bug.name);
            tries.push(one_try(bug, 1 + number * SEEDS_BETWEEN_TRIES, budget, jobs)?);
            bar.inc(1);
        }
        let verdict = Verdict::of(bug, budget, tries);
        if !args.json {
            bar.suspend(|| print(&verdict));
        }
        verdicts.push(verdict);
    }
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string(&verdicts).map_err(io::Error::other)?);
    }
    Ok(verdicts)
}

fn one_try(bug: &'static Bug, from: u64, budget: u64, jobs: usize) -> io::Result<Try> {
    let scenario = scenario::by_name(bug.scenario)
        .ok_or_else(|| io::Error::other(format!("{} is looked for in {:?}, which is no scenario", bug.name, bug.scenario)))?;
    let mut next = from;
    while next < from + budget {
        let options = RunOptions { planted: Some(bug.name), ..RunOptions::default() };
        let sweep = Sweep { scenario, options, seeds: next..from + budget, lasts_at_most: None, jobs };
        let Some(FirstFailure { report, .. }) = find(&sweep, |report| report.violation.is_some())? else { break };
        if !fails_anyway(scenario, report.seed)? {
            return Ok(Try {
                from,
                seeds_needed: Some(report.seed - from + 1),
                invariant: report.violation.map(|v| v.invariant),
                command: Some(format!(
                    "cargo run --release -p simulation -- --scenario {} --bug {} --seed {}",
                    bug.scenario, bug.name, report.seed
                )),
            });
        }
        eprintln!("{}: seed {} fails without the bug as well", bug.name, report.seed);
        next = report.seed + 1;
    }
    Ok(Try { from, seeds_needed: None, invariant: None, command: None })
}

fn fails_anyway(scenario: &'static Scenario, seed: u64) -> io::Result<bool> {
    let options = RunOptions::default();
    let sweep = Sweep { scenario, options, seeds: seed..seed + 1, lasts_at_most: None, jobs: 1 };
    Ok(find(&sweep, |report: &SeedReport| report.violation.is_some())?.is_some())
}

fn progress(args: &Args, searches: u64) -> ProgressBar {
    let target = if args.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(searches), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} searches, now {msg}") {
        bar.set_style(style);
    }
    bar
}

fn print(verdict: &Verdict) {
    let needed: Vec<String> =
        verdict.tries.iter().map(|t| t.seeds_needed.map_or_else(|| "-".to_owned(), |n| n.to_string())).collect();
    let verb = if verdict.found { "found" } else { "NOT FOUND" };
    let invariant = verdict.invariant.as_deref().unwrap_or("nothing");
    println!(
        "{:<28} {:<18} {verb:<9} after {:>5} of {:>5} seeds (worst {:>5}; {}) by {invariant}",
        verdict.bug,
        verdict.scenario,
        verdict.seeds_needed.unwrap_or(0),
        verdict.budget,
        verdict.worst.unwrap_or(0),
        needed.join(" "),
    );
    if let Some(command) = verdict.tries.iter().find_map(|t| t.command.as_ref()) {
        println!("    {command}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(needed: &[Option<u64>]) -> Verdict {
        let tries = needed.iter().map(|n| Try { from: 1, seeds_needed: *n, invariant: None, command: None }).collect();
        Verdict::of(&ALL[0], 100, tries)
    }

    #[test]
    fn a_bug_is_found_only_if_every_try_found_it() {
        let all = tried(&[Some(9), Some(1), Some(4)]);
        assert_eq!((all.found, all.seeds_needed, all.worst), (true, Some(4), Some(9)));
        assert!(!tried(&[Some(9), None, Some(4)]).found);
        assert!(!tried(&[]).found);
    }

    #[test]
    fn names_are_unique_and_scenarios_are_there() {
        for (at, bug) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|other| other.name != bug.name), "{} twice", bug.name);
            assert!(scenario::by_name(bug.scenario).is_some(), "{} is looked for in {}", bug.name, bug.scenario);
        }
    }
}
