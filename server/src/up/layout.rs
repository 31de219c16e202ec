//! The data folder of a single-machine cluster: made at the first `up`, taken up again by every later one.
//!
//! ```text
//! DATA/cluster.toml            what this folder is: nodes, world, ports
//! DATA/authority.{pem,key}     development authority of the cluster
//! DATA/admin.{pem,key,token}   what operators' tools present
//! DATA/token.key               signs sign-in tokens
//! DATA/node-K/node.toml, node.{pem,key}, node.log, data/
//! ```

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use marchland_proto::net::{Authority, PeerIdentity, Role, make_authority, make_node_certificate};
use marchland_types::seam::Entropy;
use marchland_types::{NodeId, WorldId};
use serde::{Deserialize, Serialize};

use crate::config::{
    AdminConfig, DevelopmentConfig, EdgeConfig, GridConfig, GroundConfig, ListenConfig, MemberConfig, NodeConfig, RaftConfig,
    RulesConfig, StorageConfig, TlsConfig, WorldConfig,
};

const FORMAT: u32 = 1;

/// What a cluster's folder is for. A later `up` must ask for the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// Version of this file.
    pub format: u32,
    /// Name of the cluster, random.
    pub cluster: String,
    /// Number of nodes.
    pub nodes: u32,
    /// Name of the world.
    pub world: String,
    /// Its ground.
    pub ground: GroundConfig,
    /// Its regions.
    #[serde(default)]
    pub grid: GridConfig,
    /// Node k listens on this plus 100, 200 and 300, plus k.
    pub base_port: u16,
}

/// What `up` is asked for.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    /// The folder.
    pub data: PathBuf,
    /// Number of nodes, odd.
    pub nodes: u32,
    /// Name of the world.
    pub world: String,
    /// Its ground.
    pub ground: GroundConfig,
    /// Its regions.
    pub grid: GridConfig,
    /// Node k listens on this plus 100 (gRPC), 200 (HTTP) and 300 (WebSocket), plus k.
    pub base_port: u16,
    /// Serve players by TLS with a certificate of the development authority's making.
    pub tls: bool,
}

/// Why the folder can not be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The file system refused.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{path} is not empty and holds no cluster")]
    NotOurs {
        /// Which folder.
        path: PathBuf,
    },
    /// It holds a cluster of another shape.
    #[error("{path} holds a cluster with {what} {found}; asked for {expected}: use another --data folder")]
    OtherShape {
        /// Which folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What is there.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// Made by a newer version.
    #[error("{path} has format {found}; this version reads up to {FORMAT}")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A file of the folder is damaged.
    #[error("{path}: {reason}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Security(#[from] marchland_proto::net::SecurityError),
    /// The values do not make a configuration.
    #[error("{0}")]
    Invalid(String),
}

/// A cluster's folder, ready to start from.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The folder, absolute.
    pub data: PathBuf,
    /// What it is.
    pub cluster: ClusterFile,
    /// Every node's configuration file and contents.
    pub nodes: Vec<(PathBuf, NodeConfig)>,
    /// What operators' tools present as bearer.
    pub admin_token: String,
}

impl Layout {
    /// Makes the folder, or takes up the one that is there.
    pub fn open(plan: &ClusterPlan, entropy: &impl Entropy) -> Result<Self, LayoutError> {
        create_dir(&plan.data)?;
        let data = plan.data.canonicalize().map_err(|e| at(&plan.data, e))?;
        let file = data.join("cluster.toml");
        let cluster = if file.exists() {
            let text = std::fs::read_to_string(&file).map_err(|e| at(&file, e))?;
            let found: ClusterFile =
                toml::from_str(&text).map_err(|e| LayoutError::Damaged { path: file.clone(), reason: e.to_string() })?;
            if found.format > FORMAT {
                return Err(LayoutError::Newer { path: file, found: found.format });
            }
            same(&data, "nodes", found.nodes, plan.nodes)?;
            same(&data, "world", &found.world, &plan.world)?;
            same(&data, "ground", format!("{:?}", found.ground), format!("{:?}", plan.ground))?;
            same(&data, "grid", found.grid, plan.grid)?;
            ClusterFile { base_port: plan.base_port, ..found }
        } else {
            if std::fs::read_dir(&data).map_err(|e| at(&data, e))?.next().is_some() {
                return Err(LayoutError::NotOurs { path: data });
            }
            ClusterFile {
                format: FORMAT,
                cluster: format!("dev-{:08x}", entropy.next_u64() as u32),
                nodes: plan.nodes,
                world: plan.world.clone(),
                ground: plan.ground,
                grid: plan.grid,
                base_port: plan.base_port,
            }
        };
        let authority = authority(&data, &cluster.cluster)?;
        let admin_token = secret(&data.join("admin.token"), entropy)?;
        secret(&data.join("token.key"), entropy)?;
        certificate(&data.join("admin"), &authority, || identity(&cluster.cluster, 0, [Role::Admin].into(), None))?;
        let members: Vec<_> = (1..=cluster.nodes).map(|k| member(&cluster, k, plan.tls)).collect();
        let mut nodes = Vec::new();
        for k in 1..=cluster.nodes {
            let folder = data.join(format!("node-{k}"));
            create_dir(&folder)?;
            let roles = [Role::Shard, Role::Edge].into();
            certificate(&folder.join("node"), &authority, || identity(&cluster.cluster, k, roles, Some([WorldId(1)].into())))?;
            let config = node_config(&cluster, k, members.clone(), plan.tls);
            config.validate().map_err(LayoutError::Invalid)?;
            let path = folder.join("node.toml");
            let text = toml::to_string(&config).map_err(|e| LayoutError::Invalid(e.to_string()))?;
            write(&path, text.as_bytes(), false)?;
            nodes.push((path.clone(), NodeConfig::load(&path).map_err(|e| LayoutError::Invalid(e.to_string()))?));
        }
        // Last: a folder without it was not finished, but then nothing in it is worth keeping either.
        let text = toml::to_string(&cluster).map_err(|e| LayoutError::Invalid(e.to_string()))?;
        write(&file, text.as_bytes(), false)?;
        Ok(Self { data, cluster, nodes, admin_token })
    }
}

fn same<T: ToString + PartialEq>(path: &Path, what: &'static str, found: T, expected: T) -> Result<(), LayoutError> {
    if found == expected {
        return Ok(());
    }
    Err(LayoutError::OtherShape { path: path.to_owned(), what, found: found.to_string(), expected: expected.to_string() })
}

fn identity(
    cluster: &str,
    node: u32,
    roles: std::collections::BTreeSet<Role>,
    worlds: Option<std::collections::BTreeSet<WorldId>>,
) -> PeerIdentity {
    PeerIdentity { cluster: cluster.to_owned(), node: NodeId(node), roles, worlds }
}

fn member(cluster: &ClusterFile, k: u32, tls: bool) -> MemberConfig {
    let port = |offset: u16| cluster.base_port + offset + k as u16;
    MemberConfig {
        node: k,
        grpc: format!("127.0.0.1:{}", port(100)),
        ws: format!("{}://127.0.0.1:{}", if tls { "wss" } else { "ws" }, port(300)),
        http: Some(format!("http://127.0.0.1:{}", port(200))),
    }
}

fn node_config(cluster: &ClusterFile, k: u32, members: Vec<MemberConfig>, tls: bool) -> NodeConfig {
    let port = |offset: u16| cluster.base_port + offset + k as u16;
    NodeConfig {
        cluster: cluster.cluster.clone(),
        node: k,
        data: "data".into(),
        roles: vec!["shard".into(), "edge".into()],
        listen: ListenConfig {
            grpc: format!("127.0.0.1:{}", port(100)),
            http: format!("127.0.0.1:{}", port(200)),
            ws: format!("127.0.0.1:{}", port(300)),
        },
        tls: TlsConfig { authority: "../authority.pem".into(), certificate: "node.pem".into(), key: "node.key".into() },
        members,
        world: WorldConfig { id: 1, name: cluster.world.clone(), seed: 1, ground: cluster.ground, grid: cluster.grid },
        raft: RaftConfig::default(),
        storage: StorageConfig::default(),
        rules: RulesConfig::default(),
        edge: EdgeConfig {
            tls: tls.then(|| crate::config::EdgeTlsConfig { certificate: "node.pem".into(), key: "node.key".into() }),
            ..EdgeConfig::default()
        },
        admin: Some(AdminConfig { token_file: "../admin.token".into() }),
        development: Some(DevelopmentConfig { token_key: "../token.key".into() }),
    }
}

fn at(path: &Path, error: io::Error) -> LayoutError {
    LayoutError::Io { path: path.to_owned(), error }
}

fn create_dir(path: &Path) -> Result<(), LayoutError> {
    std::fs::create_dir_all(path).map_err(|e| at(path, e))
}

/// Writes a whole file or none of it; `private` ones are readable by their owner alone.
fn write(path: &Path, bytes: &[u8], private: bool) -> Result<(), LayoutError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let put = || {
        let mode = if private { 0o600 } else { 0o644 };
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    put().map_err(|e| at(path, e))
}

/// 32 random bytes in hex, made once.
fn secret(path: &Path, entropy: &impl Entropy) -> Result<String, LayoutError> {
    if !path.exists() {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        let hex = bytes.iter().fold(String::new(), |mut hex, b| {
            // Writing to a String can not fail.
            let _ = write!(hex, "{b:02x}");
            hex
        });
        write(path, hex.as_bytes(), true)?;
    }
    Ok(std::fs::read_to_string(path).map_err(|e| at(path, e))?.trim().to_owned())
}

fn authority(data: &Path, cluster: &str) -> Result<Authority, LayoutError> {
    let (certificate, key) = (data.join("authority.pem"), data.join("authority.key"));
    if !(certificate.exists() && key.exists()) {
        let made = make_authority(cluster)?;
        write(&key, made.key_pem.as_bytes(), true)?;
        write(&certificate, made.certificate_pem.as_bytes(), false)?;
    }
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| at(path, e));
    Ok(Authority { certificate_pem: read(&certificate)?, key_pem: read(&key)? })
}

fn certificate(stem: &Path, authority: &Authority, identity: impl FnOnce() -> PeerIdentity) -> Result<(), LayoutError> {
    let (certificate, key) = (stem.with_extension("pem"), stem.with_extension("key"));
    if !(certificate.exists() && key.exists()) {
        let (certificate_pem, key_pem) = make_node_certificate(authority, &identity())?;
        write(&key, key_pem.as_bytes(), true)?;
        write(&certificate, certificate_pem.as_bytes(), false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seams::SystemEntropy;

    fn plan(data: &Path) -> ClusterPlan {
        ClusterPlan {
            data: data.to_owned(),
            nodes: 3,
            world: "aurora".into(),
            ground: GroundConfig::Map,
            grid: GridConfig::default(),
            base_port: 7000,
            tls: false,
        }
    }

    #[test]
    fn a_second_up_takes_up_what_the_first_made() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("cluster");
        let first = Layout::open(&plan(&data), &SystemEntropy).unwrap();
        let second = Layout::open(&plan(&data), &SystemEntropy).unwrap();
        assert_eq!(first.cluster, second.cluster);
        assert_eq!(first.admin_token, second.admin_token);
        assert_eq!(first.nodes.len(), 3);
        assert_eq!(first.nodes[2].1.listen.ws, "127.0.0.1:7303");
    }

    #[test]
    fn another_shape_and_foreign_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.txt"), "x").unwrap();
        assert!(matches!(Layout::open(&plan(folder.path()), &SystemEntropy), Err(LayoutError::NotOurs { .. })));
        let data = folder.path().join("cluster");
        Layout::open(&plan(&data), &SystemEntropy).unwrap();
        let other = ClusterPlan { nodes: 5, ..plan(&data) };
        let error = Layout::open(&other, &SystemEntropy).unwrap_err().to_string();
        assert!(error.contains("nodes 3") && error.contains("asked for 5"), "{error}");
        let other = ClusterPlan { grid: GridConfig { columns: 2, rows: 3 }, ..plan(&data) };
        let error = Layout::open(&other, &SystemEntropy).unwrap_err().to_string();
        assert!(error.contains("grid 1x1") && error.contains("asked for 2x3"), "{error}");
    }
}
