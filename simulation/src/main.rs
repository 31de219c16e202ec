//! `cargo run --release -p simulation -- [--seed N] [--seeds N] …`; see `cli/args.rs`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
