//! One seed on a fresh thread of a process that does nothing else.

use std::path::PathBuf;
use std::time::Duration;

use crate::interpose::{self, Taken};
use crate::oracle::{self, Violation};
use crate::plan::Plan;
use crate::report::{MET, SeedReport};
use crate::scenario::{Outcome, Scenario};
use crate::seed::Seed;
use crate::trace::{About, Detail, TraceSubscriber};
use crate::{disk, invariant, level, orders, panics, point, trace};

/// Stack of the simulation's thread: unoptimised futures of a whole cluster are nested deeply.
const STACK_BYTES: usize = 32 << 20;

/// How a seed is run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// How much is recorded.
    pub detail: Detail,
    /// Where the trace is written.
    pub trace: Option<PathBuf>,
    /// What is taken from the thread.
    pub taken: Taken,
    /// What goes wrong, instead of what the scenario draws from the seed.
    pub plan: Option<Plan>,
    /// How many faults the scenario is to draw, instead of a few.
    pub faults: Option<usize>,
    /// The planted bug that is in force.
    pub planted: Option<&'static str>,
    /// The command that repeats the run, for the reader of its trace; without, the one that names scenario and seed.
    pub repeat: String,
}

impl RunOptions {
    /// The plan of a run with these options: a function of scenario, seed and options, outside any run.
    #[must_use]
    pub fn plan_for(&self, scenario: &Scenario, seed: Seed) -> Plan {
        self.plan.clone().unwrap_or_else(|| (scenario.draw)(seed, self.faults))
    }
}

/// Runs a scenario under a seed. Once per process: libraries number their tasks and call sites process-wide.
///
/// # Errors
/// The trace file can not be written.
pub fn run(scenario: &'static Scenario, seed: Seed, options: RunOptions) -> std::io::Result<SeedReport> {
    panics::remember();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK_BYTES);
    let handle = thread.spawn(move || on_this_thread(scenario, seed, options))?;
    handle.join().unwrap_or_else(|_| {
        let violation = Some(Violation::new("no-panic", "the scenario itself panicked: see the standard error output"));
        Ok(SeedReport { seed: seed.0, violation, ..SeedReport::default() })
    })
}

fn on_this_thread(scenario: &'static Scenario, seed: Seed, options: RunOptions) -> std::io::Result<SeedReport> {
    trace::begin(options.trace.as_deref(), about(scenario, seed, &options), options.detail)?;
    let subscriber = tracing::Dispatch::new(TraceSubscriber::new(options.detail));
    // Fresh thread-locals of every library are made from here on, out of the seed.
    let guard = interpose::enter(seed.0, options.taken);
    oracle::begin(invariant::all());
    point::begin();
    level::begin();
    disk::begin();
    orders::begin();
    marchland_types::planted::install(options.planted);
    let mut outcome = Outcome::default();
    trace_header(scenario, seed);
    let plan = options.plan_for(scenario, seed);
    let result = tracing::dispatcher::with_default(&subscriber, || (scenario.run)(seed, plan, &mut outcome));
    let completed = result.is_ok();
    if let Err(violation) = result
        && oracle::violation().is_none()
    {
        oracle::report(violation);
    }
    if completed {
        oracle::conclude();
    }
    for (name, times) in point::hits_by_role() {
        outcome.sometimes.insert(format!("{MET}{name}"), times);
    }
    outcome.fired.extend(point::fired_by_role());
    outcome.sometimes.extend(disk::lost().map(|(what, times)| (what.to_owned(), times)));
    if options.planted.is_some() {
        outcome.sometimes.insert("reached the planted bug".to_owned(), marchland_types::planted::reached());
    }
    drop(guard);
    let (fingerprint, written) = trace::end();
    written?;
    Ok(SeedReport {
        seed: seed.0,
        violation: oracle::violation(),
        trace_hash: fingerprint.hash,
        trace_lines: fingerprint.lines,
        simulated_s: outcome.simulated_ms as f64 / 1000.0,
        cpu_s: cpu_time().as_secs_f64(),
        fired: outcome.fired,
        sometimes: outcome.sometimes,
    })
}

/// What the reader of the trace is told first.
fn about(scenario: &Scenario, seed: Seed, options: &RunOptions) -> About {
    let command = if options.repeat.is_empty() {
        format!("cargo run --release -p simulation -- --scenario {} --seed {seed}", scenario.name)
    } else {
        options.repeat.clone()
    };
    About { scenario: scenario.name.to_owned(), purpose: scenario.purpose.to_owned(), seed: seed.0, command }
}

fn trace_header(scenario: &Scenario, seed: Seed) {
    crate::trace_line!("scenario {} seed {seed}", scenario.name);
}

/// Time of the processor that this thread has used.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable for the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    if failed == 0 { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
}
