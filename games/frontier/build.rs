//! Compiles the game's messages with a compiler written in Rust, so that nobody needs protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schema");
    let files = protox::compile(["schema/frontier.proto", "schema/parameters.proto"], ["schema"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
