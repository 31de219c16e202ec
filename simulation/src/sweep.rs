//! Many seeds of one scenario: which, until when, and what becomes of their reports.
//!
//! The command line, the search for planted bugs and the shrinking of plans all run their seeds through here. The calling process must
//! have one thread: every seed is a fork of it (see [`crate::process`]).

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::process::{Job, Pool};
use crate::report::SeedReport;
use crate::run::RunOptions;
use crate::scenario::Scenario;
use crate::seed::Seed;

/// Which seeds of a scenario are run, and how.
#[derive(Clone)]
pub struct Sweep {
    /// What is simulated.
    pub scenario: &'static Scenario,
    /// How each seed is run.
    pub options: RunOptions,
    /// Which seeds.
    pub seeds: Range<u64>,
    /// No seed is begun after this much wall time.
    pub lasts_at_most: Option<Duration>,
    /// Processes at a time.
    pub jobs: usize,
}

impl Sweep {
    /// Runs the seeds. `heard` gets each report as it comes, in the order in which the processes end; it may say `false` to begin
    /// no more.
    ///
    /// # Errors
    /// A process could not be started, or not be waited for.
    pub fn run(&self, mut heard: impl FnMut(SeedReport) -> bool) -> io::Result<()> {
        let end = self.lasts_at_most.map(|lasts| now() + lasts);
        let in_time = |_: &u64| end.is_none_or(|end| now() < end);
        let jobs = self.seeds.clone().take_while(in_time).map(|seed| self.job(seed));
        Pool::new(self.jobs).run(jobs, |_, report| heard(report))
    }

    fn job(&self, seed: u64) -> Job {
        Job { scenario: self.scenario, seed: Seed(seed), options: self.options.clone() }
    }
}

/// The first failing seed, and how many were run until it was known.
#[derive(Clone, Debug)]
pub struct FirstFailure {
    /// How many seeds from the first one on, itself included.
    pub seeds_needed: u64,
    /// What it found.
    pub report: SeedReport,
}

/// Runs seeds in order until one fails that `counts`; `None` if none does. Of several that run at the same time the lowest is taken,
/// so the answer does not depend on the number of processes.
///
/// # Errors
/// A process could not be started, or not be waited for.
pub fn find(sweep: &Sweep, counts: impl Fn(&SeedReport) -> bool) -> io::Result<Option<FirstFailure>> {
    let mut lowest: Option<SeedReport> = None;
    sweep.run(|report| {
        if counts(&report) && lowest.as_ref().is_none_or(|known| report.seed < known.seed) {
            lowest = Some(report);
        }
        lowest.is_none()
    })?;
    Ok(lowest.map(|report| FirstFailure { seeds_needed: report.seed - sweep.seeds.start + 1, report }))
}

/// As many processes as the machine has processors.
#[must_use]
pub fn jobs_of_this_machine() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[allow(clippy::disallowed_methods)] // The parent's wall time, outside every simulation.
fn now() -> Instant {
    Instant::now()
}
