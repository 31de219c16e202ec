//! What any game's server can be asked for, and how it is done.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use marchland_admin::command::{AdminArgs, Outcome, VerifyArgs};
use marchland_region_core::Game;

use crate::served::Serve;
use crate::{certs, node, replay, up};

/// Commands of every game's server.
#[derive(Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine, until Ctrl-C.
    Up(up::UpArgs),
    /// Run one node, until SIGTERM or Ctrl-C.
    Node(node::NodeArgs),
    /// Take a cut through a running cluster and compare all replicas of every region.
    Verify(VerifyArgs),
    /// Re-run a part of a region's log out of a node's data folder, and compare every recorded state hash.
    Replay(replay::ReplayArgs),
    /// Ask a running cluster about itself.
    Admin(AdminArgs),
    /// Make a development authority, or a node's certificate signed by it.
    Certs(certs::CertsArgs),
}

impl Command {
    /// Does it, with a game's rules.
    ///
    /// # Errors
    /// Whatever stands in its way, for a person to read.
    pub fn run<G: Game>(self, serve: Serve<G>) -> anyhow::Result<ExitCode> {
        match self {
            // A node builds its own runtimes.
            Self::Node(args) => node::main(args, serve),
            Self::Up(args) => block_on(up::run(args)).map(|()| ExitCode::SUCCESS),
            Self::Verify(args) => block_on(async { Ok(exit(args.run(&mut std::io::stdout()).await?)) }),
            Self::Replay(args) => replay::main(&args, serve),
            Self::Admin(args) => block_on(async { Ok(exit(args.run(&mut std::io::stdout()).await?)) }),
            Self::Certs(args) => certs::run(args).map(|()| ExitCode::SUCCESS),
        }
    }
}

/// Runs work on a runtime of its own.
///
/// # Errors
/// Those of the work, or that there is no runtime.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can not start the runtime")?;
    runtime.block_on(work)
}

/// The whole `main` of a game's server.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use frontier::{Frontier, map_parameters};
/// use marchland_server::served::Served;
///
/// fn main() -> ExitCode {
///     marchland_server::command::main(|_world| Ok(Served::new(Frontier::new()?, map_parameters())))
/// }
/// ```
#[must_use]
pub fn main<G: Game>(serve: Serve<G>) -> ExitCode {
    #[derive(Parser)]
    #[command(version, about = "A server for online worlds that cannot be rolled back.", max_term_width = 100)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }
    report(Cli::parse().command.run(serve))
}

/// The exit code of a command; an error is told in one line, with every cause: what a person needs, and a script can log.
#[must_use]
pub fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("marchland: {error:#}");
        ExitCode::from(1)
    })
}

fn exit(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Well => ExitCode::SUCCESS,
        Outcome::Wrong => ExitCode::from(1),
    }
}
