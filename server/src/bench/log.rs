//! Durable appends through the raft log, beside the raw limit of the disk.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use marchland_storage::bench::{LogBench, bench_log};
use serde_json::json;

use super::Outcome;
use crate::seams::SystemClock;

/// Arguments of `marchland bench log`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: marchland bench log --batch 64 --json")]
pub(super) struct LogArgs {
    /// Appends in one batch, over 64 groups.
    #[arg(long, default_value_t = 64)]
    batch: u32,
    /// Bytes of one entry.
    #[arg(long, default_value_t = 256)]
    payload_bytes: usize,
    /// Batches under way at once.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Seconds for each of the two, which take turns.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

pub(super) fn run(args: &LogArgs, dir: &Path) -> anyhow::Result<Outcome> {
    let bench = LogBench {
        batch: args.batch,
        payload_bytes: args.payload_bytes,
        in_flight: args.in_flight,
        duration: Duration::from_secs(args.seconds),
        ..LogBench::default()
    };
    let found = bench_log(dir, bench, SystemClock::start())?;
    Ok(Outcome {
        name: "log",
        params: json!({
            "groups": bench.groups, "batch": bench.batch, "payload_bytes": bench.payload_bytes,
            "in_flight": bench.in_flight, "seconds": args.seconds, "fsync": true,
        }),
        results: json!({
            "appends_per_s": found.log_appends_per_s,
            "batch_us": { "p50": found.log_batch_us.0, "p99": found.log_batch_us.1 },
            "written_per_given": found.written_per_given,
            "appends_per_sync": found.appends_per_sync,
        }),
        baseline: json!({
            "appends_per_s": found.raw_appends_per_s,
            "batch_us": { "p50": found.raw_batch_us.0, "p99": found.raw_batch_us.1 },
        }),
        ratios: [("log_to_raw".to_owned(), found.log_to_raw)].into(),
    })
}
