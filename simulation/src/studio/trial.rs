//! What a studio's test shows, and the `main` that shows it.
//!
//! The test is a program of its own (`harness = false`): every seed is a fork, and a process that forks must have one thread.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Studio;
use crate::report::SeedReport;
use crate::run::RunOptions;
use crate::scenario::{self, Scenario};
use crate::sweep::{Sweep, find, jobs_of_this_machine};

/// What is expected of a studio's game.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    /// Everything holds, under this many seeds.
    Holds(u64),
    /// This invariant is violated, within so many seeds.
    Finds(&'static str, u64),
}

/// One thing that a test shows.
pub struct Trial {
    scenario: &'static Scenario,
    expects: Expects,
}

impl Trial {
    /// Under the seeds from 1 to this one, every invariant holds.
    #[must_use]
    pub fn holds<S: Studio>(seeds: u64) -> Self {
        Self { scenario: scenario_of::<S>(), expects: Expects::Holds(seeds) }
    }

    /// One of this many seeds finds that this invariant does not hold: shows that it is looked at.
    #[must_use]
    pub fn finds<S: Studio>(invariant: &'static str, seeds: u64) -> Self {
        Self { scenario: scenario_of::<S>(), expects: Expects::Finds(invariant, seeds) }
    }

    fn sweep(&self, asked: &Asked, seeds: u64) -> Sweep {
        let from = asked.from.unwrap_or(1);
        let repeat = if seeds == 1 { self.repeat(from) } else { String::new() };
        let options = RunOptions { trace: asked.trace.clone(), repeat, ..RunOptions::default() };
        let (seeds, jobs) = (from..from.saturating_add(seeds), jobs_of_this_machine());
        Sweep { scenario: self.scenario, options, seeds, lasts_at_most: None, jobs }
    }

    /// How to see a seed again.
    fn repeat(&self, seed: u64) -> String {
        format!("{} --trial {} --seed {seed} --trace seed-{seed}.html", this_program(), self.scenario.name)
    }

    fn show(&self, asked: &Asked) -> Result<String, String> {
        let io = |error: std::io::Error| error.to_string();
        let seeds = match self.expects {
            Expects::Holds(seeds) | Expects::Finds(_, seeds) => asked.seeds.unwrap_or(seeds),
        };
        let sweep = self.sweep(asked, seeds);
        let from = sweep.seeds.start;
        match self.expects {
            Expects::Holds(_) => {
                let (mut violations, mut simulated_s) = (Vec::new(), 0.0);
                let heard = |report: SeedReport| {
                    simulated_s += report.simulated_s;
                    violations.extend(
                        report.violation.as_ref().map(|v| format!("seed {}: {v}\n  {}", report.seed, self.repeat(report.seed))),
                    );
                    true
                };
                sweep.run(heard).map_err(io)?;
                if violations.is_empty() {
                    return Ok(format!("held under {seeds} seeds from {from} on, {simulated_s:.0} simulated s"));
                }
                Err(violations.join("\n"))
            }
            Expects::Finds(invariant, _) => {
                let found = find(&sweep, |report| report.violation.is_some()).map_err(io)?;
                let Some(found) = found else {
                    return Err(format!("{invariant} was not found to be violated in {seeds} seeds from {from} on"));
                };
                let (seed, Some(violation)) = (found.report.seed, found.report.violation) else {
                    return Err("a find without a violation".to_owned());
                };
                if violation.invariant != invariant {
                    return Err(format!("seed {seed} was to violate {invariant}: {violation}\n  {}", self.repeat(seed)));
                }
                Ok(format!("found after {} seeds (seed {seed}): {violation}", found.seeds_needed))
            }
        }
    }
}

fn scenario_of<S: Studio>() -> &'static Scenario {
    // A few in the life of a process.
    Box::leak(Box::new(scenario::of_studio::<S>()))
}

/// What a command line asks for. Arguments of libtest's are let pass: `cargo test` gives them to every test program.
#[derive(Clone, Debug, Default)]
struct Asked {
    trial: Option<String>,
    from: Option<u64>,
    seeds: Option<u64>,
    trace: Option<PathBuf>,
    lists: bool,
}

const USE: &str = "\
  --trial NAME   this one alone
  --seed N       this seed alone
  --from N       the first seed
  --seeds N      so many seeds
  --trace FILE   writes the trace of a single seed: a page if the name ends in .html, else text";

impl Asked {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut asked = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n{USE}"));
            let number = |text: String| text.parse::<u64>().map_err(|error| format!("{argument} {text}: {error}\n{USE}"));
            match argument.as_str() {
                "--trial" => asked.trial = Some(value()?),
                "--seed" => (asked.from, asked.seeds) = (Some(number(value()?)?), Some(1)),
                "--from" => asked.from = Some(number(value()?)?),
                "--seeds" => asked.seeds = Some(number(value()?)?),
                "--trace" => asked.trace = Some(value()?.into()),
                "--list" => asked.lists = true,
                "--help" => return Err(USE.to_owned()),
                _ => {}
            }
        }
        if asked.trace.is_some() && asked.seeds != Some(1) {
            return Err(format!("--trace is for a single --seed\n{USE}"));
        }
        Ok(asked)
    }
}

/// The command that runs this very program.
fn this_program() -> String {
    let path = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let test = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    match (std::env::var("CARGO_PKG_NAME"), test.rsplit_once('-')) {
        // Cargo started it, and gave it a hash for its last name.
        (Ok(package), Some((test, _))) => format!("cargo test -p {package} --test {test} --"),
        _ => path.display().to_string(),
    }
}

/// The whole `main` of a studio's test: shows each trial, says what came of it, and fails if any did.
#[must_use]
pub fn main(trials: &[Trial]) -> ExitCode {
    let asked = match Asked::from_arguments(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    if asked.lists {
        trials.iter().for_each(|trial| println!("{}: test", trial.scenario.name));
        return ExitCode::SUCCESS;
    }
    let mut failed = false;
    for trial in trials.iter().filter(|t| asked.trial.as_ref().is_none_or(|name| name == t.scenario.name)) {
        let shown = trial.show(&asked);
        failed |= shown.is_err();
        match shown {
            Ok(what) => println!("{}: {what}", trial.scenario.name),
            Err(what) => println!("{}: FAILED: {what}", trial.scenario.name),
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        Asked::from_arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn own_arguments_are_read_and_those_of_libtest_let_pass() {
        let one = asked("--nocapture --seed 7 --trace 7.html some_filter").unwrap();
        assert_eq!((one.from, one.seeds, one.trace), (Some(7), Some(1), Some("7.html".into())));
        assert_eq!(asked("--from 3 --seeds 2").map(|a| (a.from, a.seeds)), Ok((Some(3), Some(2))));
        for wrong in ["--seed", "--seeds many", "--trace 1.txt", "--seeds 2 --trace 1.txt"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
