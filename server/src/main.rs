//! The `marchland` binary: one program for nodes, operators, and load.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use marchland_admin::command::{AdminArgs, Outcome, VerifyArgs};
use marchland_server::{bench, bots, node, up};

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
    /// Run a whole cluster on this machine, until Ctrl-C.
    Up(up::UpArgs),
    /// Run one node, until SIGTERM or Ctrl-C.
    Node(node::NodeArgs),
    /// Let headless players walk about in a running cluster, and check what they are told.
    Bots(bots::BotsArgs),
    /// Take a cut through a running cluster and compare all replicas of every region.
    Verify(VerifyArgs),
    /// Ask a running cluster about itself.
    Admin(AdminArgs),
    /// Measure, each figure beside its own baseline in the same run.
    Bench(bench::BenchArgs),
    /// Make a development authority, or a node's certificate signed by it.
    Certs(marchland_server::certs::CertsArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        // A node builds its own runtimes.
        Command::Node(args) => node::main(args),
        command => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("can not start the runtime")
            .and_then(|runtime| runtime.block_on(run(command))),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // One line, with every cause: what a person needs, and a script can log.
            eprintln!("marchland: {error:#}");
            ExitCode::from(1)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(args).await.map(|()| ExitCode::SUCCESS),
        Command::Bots(args) => bots::run(args).await,
        Command::Verify(args) => Ok(exit(args.run(&mut std::io::stdout()).await?)),
        Command::Admin(args) => Ok(exit(args.run(&mut std::io::stdout()).await?)),
        Command::Bench(args) => bench::run(args).await,
        Command::Certs(args) => marchland_server::certs::run(args).map(|()| ExitCode::SUCCESS),
        Command::Node(_) => unreachable!("handled before the runtime was made"),
    }
}

fn exit(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Well => ExitCode::SUCCESS,
        Outcome::Wrong => ExitCode::from(1),
    }
}
