//! `cargo run -p marchland-codegen`: writes the generated files. With `--check` it writes nothing and fails when one is out of date.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use marchland_codegen::{generate, stale, workspace_root};

fn run() -> Result<()> {
    let mut check = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            other => bail!("unknown argument {other}: expected nothing or --check"),
        }
    }
    let root = workspace_root();
    let outputs = generate(&root)?;
    let stale = stale(&root, &outputs);
    if check && !stale.is_empty() {
        let names: Vec<_> = stale.iter().map(|output| output.path.display().to_string()).collect();
        bail!("out of date: {}; run `cargo run -p marchland-codegen`", names.join(", "));
    }
    for output in stale {
        std::fs::write(root.join(&output.path), &output.content)
            .with_context(|| format!("cannot write {}", output.path.display()))?;
        println!("wrote {}", output.path.display());
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
