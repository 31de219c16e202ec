//! The ready file: how scripts find a running cluster.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Contents of the ready file, JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyFile {
    /// Every node.
    pub nodes: Vec<ReadyNode>,
    /// Names of the worlds.
    pub worlds: Vec<String>,
    /// Bearer token of admin calls.
    pub admin_token: String,
    /// Certificate of the cluster's authority, PEM file.
    pub authority: PathBuf,
    /// Certificate that operators' tools present, PEM file.
    pub admin_certificate: PathBuf,
    /// Its key, PEM file.
    pub admin_key: PathBuf,
}

/// One node of a ready file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyNode {
    /// Its number.
    pub id: u32,
    /// Name of its world.
    #[serde(default)]
    pub world: String,
    /// Its process.
    pub pid: u32,
    /// Cluster address, `host:port`.
    pub grpc: String,
    /// Pages and health, `http://host:port`.
    pub http: String,
    /// Players, `ws://host:port`.
    pub ws: String,
}

impl ReadyFile {
    /// The nodes of a world.
    pub fn of_world<'a>(&'a self, world: &'a str) -> impl Iterator<Item = &'a ReadyNode> {
        // Before there could be several, nodes did not say.
        self.nodes.iter().filter(move |node| node.world == world || node.world.is_empty())
    }

    /// The nodes of a world that is named, or of the only one.
    pub fn one_world(&self, named: Option<&str>) -> anyhow::Result<Vec<&ReadyNode>> {
        let found = named.and_then(|named| self.worlds.iter().find(|world| *world == named));
        let world = match (named.map(|named| found.ok_or(named)), &self.worlds[..]) {
            (Some(Ok(named)), _) => named,
            (None, [only]) => only,
            (Some(Err(named)), worlds) => anyhow::bail!("there is no world {named:?}, but {}", worlds.join(", ")),
            (None, worlds) => anyhow::bail!("--world must name one of {}", worlds.join(", ")),
        };
        Ok(self.of_world(world).collect())
    }

    /// Writes the file; a reader sees the old one or the new one.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec_pretty(self).map_err(io::Error::other)?)?;
        std::fs::rename(&temporary, path)
    }

    /// Reads a file that `up` wrote.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        let text = std::fs::read(path).with_context(|| format!("can not read ready file {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not a ready file", path.display()))
    }
}
