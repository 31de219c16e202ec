//! The `marchland` binary: the demo world's server, for nodes, operators and load.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use marchland_server::command::{self, block_on, report};
use marchland_server::{bench, bots, demo};

/// The server for online worlds that cannot be rolled back.
#[derive(Parser)]
#[command(name = "marchland", version, about, max_term_width = 100)]
#[command(after_help = "Example: marchland up --bots 200")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    AnyGame(command::Command),
    /// Let headless players walk about in a running cluster, and check what they are told.
    Bots(bots::BotsArgs),
    /// Measure, each figure beside its own baseline in the same run.
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    report(match Cli::parse().command {
        Command::AnyGame(command) => command.run(demo::serve),
        Command::Bots(args) => block_on(bots::run(args)),
        Command::Bench(args) => block_on(bench::run(args)),
    })
}
