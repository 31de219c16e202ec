//! Prints the raft log's throughput beside the raw limit: `cargo run --release -p marchland-storage --example bench_log -- DIR`.

use std::time::Duration;

use marchland_storage::bench::{LogBench, bench_log};
use marchland_types::seam::Clock;

#[derive(Clone)]
struct Machine(std::time::Instant);

impl Clock for Machine {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

#[allow(clippy::disallowed_methods, reason = "the clock of a measurement")]
fn main() -> std::io::Result<()> {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "bench-log".to_owned()));
    for (batch, in_flight) in [(1, 1), (16, 1), (64, 1), (64, 2), (256, 1)] {
        let bench = LogBench { batch, in_flight, ..LogBench::default() };
        let result = bench_log(&dir.join(format!("{batch}-{in_flight}")), bench, Machine(std::time::Instant::now()))?;
        println!(
            "batch {batch:3} x {in_flight}: raw {:7.0}/s, log {:7.0}/s, ratio {:.2}; p50/p99 us raw {:.0}/{:.0}, log {:.0}/{:.0}; written/given {:.2}, appends/sync {:.0}",
            result.raw_appends_per_s,
            result.log_appends_per_s,
            result.log_to_raw,
            result.raw_batch_us.0,
            result.raw_batch_us.1,
            result.log_batch_us.0,
            result.log_batch_us.1,
            result.written_per_given,
            result.appends_per_sync,
        );
    }
    Ok(())
}
