//! The command line: many seeds with a progress bar and tables, or one seed with its trace; a failing plan made small.
//!
//! Exit codes: 0 nothing was found, 1 an invariant was violated or something expected never happened, 2 wrong use.

mod args;
mod plans;
mod progress;
mod shrinking;
mod sweeping;
mod table;

use std::process::ExitCode;

use clap::Parser;
use simulation::{planted, scenario};

use self::args::{Args, Command};

/// A command ended otherwise than by finding nothing.
pub(crate) enum Failure {
    /// What was asked for can not be.
    Use(String),
    /// It could not be done.
    Io(std::io::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Does what the arguments say.
pub(crate) fn run() -> ExitCode {
    let args = Args::parse();
    let found_nothing = match &args.command {
        Some(Command::List) => {
            for scenario in scenario::ALL {
                println!("{:<30} {}", scenario.name, scenario.purpose);
            }
            Ok(true)
        }
        Some(Command::Planted(args)) => return planted::search::main(args),
        None => sweeping::sweep(&args),
    };
    match found_nothing {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure::Use(what)) => {
            eprintln!("simulation: {what}");
            ExitCode::from(2)
        }
        Err(Failure::Io(error)) => {
            eprintln!("simulation: {error}");
            ExitCode::FAILURE
        }
    }
}
