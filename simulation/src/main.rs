//! `cargo run --release -p simulation -- [--seed N] [--seeds N] …`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use simulation::interpose::Taken;
use simulation::process::Pool;
use simulation::report::Summary;
use simulation::run::RunOptions;
use simulation::scenario;
use simulation::seed::Seed;
use simulation::trace::Detail;

/// Runs Marchland's own code, a whole cluster in one process, under a seed.
#[derive(Debug, Parser)]
#[command(name = "simulation")]
struct Args {
    /// One seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// How many seeds.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// What is simulated; `list` names them all.
    #[arg(long, default_value = scenario::ALL[0].name)]
    scenario: String,
    /// Processes at a time; as many as there are processors unless given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Writes the trace of a single seed to a file.
    #[arg(long, requires = "seed")]
    trace: Option<PathBuf>,
    /// How much is in the trace and its hash.
    #[arg(long, value_enum, default_value_t)]
    detail: Detail,
    /// One JSON document on standard output.
    #[arg(long)]
    json: bool,
    /// Prints the hash of every seed's trace.
    #[arg(long, conflicts_with = "json")]
    hashes: bool,
    /// Leaves the thread its real clock or entropy: shows that a run then does not repeat.
    #[arg(long, value_delimiter = ',', hide = true)]
    leave: Vec<Seam>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Seam {
    Clock,
    Entropy,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.scenario == "list" {
        for scenario in scenario::ALL {
            println!("{:<16} {}", scenario.name, scenario.purpose);
        }
        return ExitCode::SUCCESS;
    }
    let Some(scenario) = scenario::by_name(&args.scenario) else {
        eprintln!("no scenario {:?}; `--scenario list` names them", args.scenario);
        return ExitCode::from(2);
    };
    match sweep(&args, scenario) {
        Ok(summary) if summary.violations.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulation: {error}");
            ExitCode::FAILURE
        }
    }
}

fn sweep(args: &Args, scenario: &'static scenario::Scenario) -> std::io::Result<Summary> {
    let taken = Taken { clock: !args.leave.contains(&Seam::Clock), entropy: !args.leave.contains(&Seam::Entropy) };
    let options = RunOptions { detail: args.detail, trace: args.trace.clone(), taken };
    let seeds = args.seed.map_or(args.from..args.from.saturating_add(args.seeds), |seed| seed..seed.saturating_add(1));
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let bar = progress(args, seeds.end - seeds.start);
    let mut summary = Summary::default();
    Pool::new(scenario, options, jobs).run(seeds.map(Seed), |report| {
        let command = repeat(scenario.name, report.seed);
        if let Some(violation) = &report.violation {
            bar.suspend(|| eprintln!("seed {}: {violation}\n  {command}", report.seed));
        }
        if args.hashes {
            bar.suspend(|| println!("seed {} trace {}", report.seed, report.trace_hash));
        }
        summary.add(report, command);
        bar.set_message(format!("{} violations", summary.violations.len()));
        bar.inc(1);
        true
    })?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string(&summary).map_err(std::io::Error::other)?);
    } else {
        print(&summary, &bar);
    }
    Ok(summary)
}

fn repeat(scenario: &str, seed: u64) -> String {
    format!("cargo run --release -p simulation -- --scenario {scenario} --seed {seed} --trace seed-{seed}.txt")
}

fn progress(args: &Args, seeds: u64) -> ProgressBar {
    let target = if args.json || seeds < 2 { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(seeds), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left, {msg}") {
        bar.set_style(style);
    }
    bar
}

fn print(summary: &Summary, bar: &ProgressBar) {
    let wall_s = bar.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} violations; {:.0} simulated s, {:.1} s of processor ({:.0} simulated s a second of it), {:.1} s of wall time",
        summary.seeds,
        summary.violations.len(),
        summary.simulated_s,
        summary.cpu_s,
        summary.simulated_s / summary.cpu_s.max(1e-9),
        wall_s
    );
    if let Some(hash) = &summary.trace_hash {
        println!("trace {hash}");
    }
    for (title, counts) in [("took effect", &summary.fired), ("happened", &summary.sometimes)] {
        if !counts.is_empty() {
            println!("{title}:");
            for (name, times) in counts {
                println!("  {name:<32} {times:>10}");
            }
        }
    }
}
