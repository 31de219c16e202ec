//! One seed on a fresh thread of a process that does nothing else.

use std::path::PathBuf;
use std::time::Duration;

use crate::interpose::{self, Taken};
use crate::oracle::{self, Violation};
use crate::report::SeedReport;
use crate::scenario::{Outcome, Scenario};
use crate::seed::Seed;
use crate::trace::{Detail, TraceSubscriber};
use crate::{invariant, panics, point, trace};

/// Stack of the simulation's thread: unoptimised futures of a whole cluster are nested deeply.
const STACK_BYTES: usize = 32 << 20;

/// How a seed is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// How much is recorded.
    pub detail: Detail,
    /// Where the trace is written.
    pub trace: Option<PathBuf>,
    /// What is taken from the thread.
    pub taken: Taken,
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
    trace::begin(options.trace.as_deref())?;
    let subscriber = tracing::Dispatch::new(TraceSubscriber::new(options.detail));
    // Fresh thread-locals of every library are made from here on, out of the seed.
    let guard = interpose::enter(seed.0, options.taken);
    oracle::begin(invariant::all());
    point::begin();
    let mut outcome = Outcome::default();
    trace_header(scenario, seed);
    let result = tracing::dispatcher::with_default(&subscriber, || (scenario.run)(seed, &mut outcome));
    let completed = result.is_ok();
    if let Err(violation) = result
        && oracle::violation().is_none()
    {
        oracle::report(violation);
    }
    if completed {
        oracle::conclude();
    }
    for (name, times) in point::hits() {
        outcome.sometimes.insert(format!("met {name}"), times);
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
