//! Writes what other languages need of the protocol, from the one place where it is defined.
//!
//! - [`javascript`]: `clients/web/codec.js`, a module without dependencies that reads and writes every message of the client
//!   protocol and of the demo game.
//! - [`tables`]: the tables of codes and limits in `proto/README.md`.
//!
//! What always holds: the output is a function of the schema and of the sources alone (same input, same bytes), and files that are
//! up to date are not touched. It refuses a schema that uses what the generated code does not do (maps, groups) instead of writing
//! code that is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub mod javascript;
pub mod schema;
pub mod tables;

/// A generated file and what it should contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Relative to the root of the workspace.
    pub path: PathBuf,
    /// The whole file.
    pub content: String,
}

/// The root of the workspace that this crate was built in.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Everything that is generated, from the sources below `root`.
pub fn generate(root: &Path) -> Result<Vec<Output>> {
    let schema = schema::load(root)?;
    let codes = tables::codes(&read(root, tables::CODES)?)?;
    let readme = tables::fill(&read(root, tables::README)?, &codes)?;
    Ok(vec![
        Output { path: PathBuf::from(javascript::PATH), content: javascript::module(&schema, &codes)? },
        Output { path: PathBuf::from(tables::README), content: readme },
    ])
}

/// Of `outputs`, those that the files below `root` differ from.
#[must_use]
pub fn stale<'a>(root: &Path, outputs: &'a [Output]) -> Vec<&'a Output> {
    let differs = |output: &&Output| fs::read_to_string(root.join(&output.path)).ok().as_ref() != Some(&output.content);
    outputs.iter().filter(differs).collect()
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}
