//! What can be asked for.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use simulation::interpose::Taken;
use simulation::planted;
use simulation::scenario;
use simulation::trace::Detail;

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p simulation -- --seeds 200             # a sweep of the standard scenario
  cargo run --release -p simulation -- --minutes 30            # as many seeds as half an hour has time for
  cargo run --release -p simulation -- --seed 7 --trace 7.txt  # one seed, and what happened in it
  cargo run --release -p simulation -- --seed 7 --shrink       # a failing seed's plan, as small as it gets
  cargo run --release -p simulation -- --seed 7 --plan 7.json  # the same world, with another plan
  cargo run --release -p simulation -- list                    # all scenarios

Exit codes: 0 nothing was found; 1 an invariant was violated, or something that a sweep of this length must have
met never happened; 2 wrong use.";

/// Runs Marchland's own code, a whole cluster in one process, under a seed.
#[derive(Debug, Parser)]
#[command(name = "simulation", after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    /// One seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from", "minutes"])]
    pub(super) seed: Option<u64>,
    /// How many seeds; 20, or with --minutes as many as there is time for.
    #[arg(long)]
    pub(super) seeds: Option<u64>,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    pub(super) from: u64,
    /// Begins seeds for this long.
    #[arg(long, value_name = "M")]
    pub(super) minutes: Option<f64>,
    /// Processes at a time; as many as there are processors unless given.
    #[arg(long)]
    pub(super) jobs: Option<usize>,
    /// What is simulated; `list` names them all.
    #[arg(long, default_value = scenario::ALL[0].name)]
    pub(super) scenario: String,
    /// What goes wrong, from a file, instead of what the scenario draws from the seed.
    #[arg(long, value_name = "FILE")]
    pub(super) plan: Option<PathBuf>,
    /// So many faults, instead of the few that the scenario draws.
    #[arg(long, value_name = "N", conflicts_with = "plan")]
    pub(super) faults: Option<usize>,
    /// Where the plans of failing seeds are written.
    #[arg(long, value_name = "DIR", default_value = "target/simulation")]
    pub(super) plans: PathBuf,
    /// Makes the plan of the first failing seed as small as it gets.
    #[arg(long)]
    pub(super) shrink: bool,
    /// Writes the trace of a single seed to a file.
    #[arg(long, value_name = "FILE", requires = "seed")]
    pub(super) trace: Option<PathBuf>,
    /// How much is in the trace and its hash.
    #[arg(long, value_enum, default_value_t)]
    pub(super) detail: Detail,
    /// One JSON document on standard output.
    #[arg(long)]
    pub(super) json: bool,
    /// Prints the hash of every seed's trace.
    #[arg(long, conflicts_with = "json")]
    pub(super) hashes: bool,
    /// Plants a bug: shows that it is found.
    #[arg(long, value_name = "NAME", hide = true)]
    pub(super) bug: Option<String>,
    /// Leaves the thread its real clock or entropy: shows that a run then does not repeat.
    #[arg(long, value_delimiter = ',', hide = true)]
    pub(super) leave: Vec<Seam>,
}

/// Something else than running seeds.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Names all scenarios.
    List,
    /// Looks for every planted bug: shows that the instrument finds what it should.
    Planted(planted::search::Args),
}

/// A seam that can be left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Seam {
    Clock,
    Entropy,
}

impl Args {
    pub(super) fn taken(&self) -> Taken {
        Taken { clock: !self.leave.contains(&Seam::Clock), entropy: !self.leave.contains(&Seam::Entropy) }
    }
}
