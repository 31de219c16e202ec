//! The data folder of a single-machine cluster: made at the first `up`, taken up again by every later one.
//!
//! ```text
//! DATA/cluster.toml            what this folder is: nodes, worlds, ports
//! DATA/authority.{pem,key}     development authority of the cluster
//! DATA/admin.{pem,key,token}   what operators' tools present
//! DATA/token.key               signs sign-in tokens
//! DATA/node-K/node.toml, node.{pem,key}, node.log, data/
//! ```
//!
//! Every world has as many nodes as the others, and shares none. Nodes are numbered over all worlds: the first ones are the first world's,
//! and host the realm of all.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use marchland_proto::net::{Authority, PeerIdentity, Role, make_authority, make_node_certificate};
use marchland_types::seam::Entropy;
use marchland_types::{NodeId, WorldId};
use serde::{Deserialize, Serialize};

use crate::config::{
    AdminConfig, DevelopmentConfig, EdgeConfig, GridConfig, GroundConfig, ListenConfig, MemberConfig, NodeConfig, REALM_HOSTS,
    RaftConfig, RealmAddress, RealmConfig, RulesConfig, StorageConfig, TlsConfig, WorldConfig,
};

const FORMAT: u32 = 1;
/// Nodes of all worlds together: their ports lie a hundred apart by kind.
const NODES_MAX: u32 = 99;

/// What a cluster's folder is for. A later `up` must ask for the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// Version of this file.
    pub format: u32,
    /// Name of the cluster, random.
    pub cluster: String,
    /// Number of nodes, of all worlds together.
    pub nodes: u32,
    /// Names of the worlds, in the order of their numbers.
    #[serde(default)]
    pub worlds: Vec<String>,
    /// The one world's name, as it was written before there could be several.
    #[serde(default, skip_serializing)]
    world: Option<String>,
    /// The ground of each.
    pub ground: GroundConfig,
    /// The regions of each.
    #[serde(default)]
    pub grid: GridConfig,
    /// Animals of each region.
    #[serde(default)]
    pub animals: u32,
    /// Node k listens on this plus 100, 200 and 300, plus k.
    pub base_port: u16,
}

/// What `up` is asked for.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    /// The folder.
    pub data: PathBuf,
    /// Number of nodes of all worlds together; an odd number for each.
    pub nodes: u32,
    /// Names of the worlds.
    pub worlds: Vec<String>,
    /// The ground of each.
    pub ground: GroundConfig,
    /// The regions of each.
    pub grid: GridConfig,
    /// Animals of each region.
    pub animals: u32,
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

impl ClusterPlan {
    /// Checks what the nodes' configurations can not say.
    fn validate(&self) -> Result<(), LayoutError> {
        let refuse = |reason: String| Err(LayoutError::Invalid(reason));
        let (nodes, worlds) = (self.nodes, self.worlds.len() as u32);
        let names: BTreeSet<_> = self.worlds.iter().collect();
        if worlds == 0 || names.len() != self.worlds.len() || self.worlds.iter().any(String::is_empty) {
            return refuse(format!("the worlds {:?} need names, each its own", self.worlds));
        }
        if nodes > NODES_MAX {
            return refuse(format!("{nodes} nodes: {NODES_MAX} are the most on one machine"));
        }
        if nodes % worlds != 0 || nodes / worlds % 2 == 0 {
            return refuse(format!(
                "{nodes} nodes for {worlds} worlds: each world needs the same odd number of nodes of its own, for example {}",
                worlds * 3
            ));
        }
        Ok(())
    }
}

impl ClusterFile {
    fn nodes_per_world(&self) -> u32 {
        self.nodes / (self.worlds.len() as u32).max(1)
    }

    /// The world of a node: its number, and its name.
    fn world_of(&self, node: u32) -> (WorldId, &str) {
        let index = (node - 1) / self.nodes_per_world();
        (WorldId(index + 1), &self.worlds[index as usize])
    }

    /// The nodes of the same world as this one.
    fn beside(&self, node: u32) -> RangeInclusive<u32> {
        let first = (node - 1) / self.nodes_per_world() * self.nodes_per_world();
        first + 1..=first + self.nodes_per_world()
    }
}

/// The first nodes of all host the realm, as far as the first world has so many.
fn realm(cluster: &ClusterFile, members: &[MemberConfig], tls: bool) -> RealmConfig {
    let hosts = if (cluster.nodes_per_world() as usize) < REALM_HOSTS { 1 } else { REALM_HOSTS as u32 };
    let elsewhere = (1..=hosts).filter(|host| !members.iter().any(|member| member.node == *host));
    let address = |host| RealmAddress { node: host, grpc: member(cluster, host, tls).grpc };
    RealmConfig { nodes: (1..=hosts).collect(), addresses: elsewhere.map(address).collect() }
}

impl Layout {
    /// Makes the folder, or takes up the one that is there.
    pub fn open(plan: &ClusterPlan, entropy: &impl Entropy) -> Result<Self, LayoutError> {
        plan.validate()?;
        create_dir(&plan.data)?;
        let data = plan.data.canonicalize().map_err(|e| at(&plan.data, e))?;
        let file = data.join("cluster.toml");
        let cluster = if file.exists() {
            let text = std::fs::read_to_string(&file).map_err(|e| at(&file, e))?;
            let mut found: ClusterFile =
                toml::from_str(&text).map_err(|e| LayoutError::Damaged { path: file.clone(), reason: e.to_string() })?;
            if found.format > FORMAT {
                return Err(LayoutError::Newer { path: file, found: found.format });
            }
            found.worlds.extend(found.world.take());
            same(&data, "worlds", found.worlds.join(","), plan.worlds.join(","))?;
            same(&data, "nodes", found.nodes, plan.nodes)?;
            same(&data, "ground", format!("{:?}", found.ground), format!("{:?}", plan.ground))?;
            same(&data, "grid", found.grid, plan.grid)?;
            same(&data, "animals", found.animals, plan.animals)?;
            ClusterFile { base_port: plan.base_port, ..found }
        } else {
            if std::fs::read_dir(&data).map_err(|e| at(&data, e))?.next().is_some() {
                return Err(LayoutError::NotOurs { path: data });
            }
            ClusterFile {
                format: FORMAT,
                cluster: format!("dev-{:08x}", entropy.next_u64() as u32),
                nodes: plan.nodes,
                worlds: plan.worlds.clone(),
                world: None,
                ground: plan.ground,
                grid: plan.grid,
                animals: plan.animals,
                base_port: plan.base_port,
            }
        };
        let authority = authority(&data, &cluster.cluster)?;
        let admin_token = secret(&data.join("admin.token"), entropy)?;
        secret(&data.join("token.key"), entropy)?;
        certificate(&data.join("admin"), &authority, || identity(&cluster.cluster, 0, [Role::Admin].into(), None))?;
        let mut nodes = Vec::new();
        for k in 1..=cluster.nodes {
            let folder = data.join(format!("node-{k}"));
            create_dir(&folder)?;
            let roles = [Role::Shard, Role::Edge].into();
            certificate(&folder.join("node"), &authority, || {
                identity(&cluster.cluster, k, roles, Some([cluster.world_of(k).0].into()))
            })?;
            let members = cluster.beside(k).map(|k| member(&cluster, k, plan.tls)).collect();
            let config = node_config(&cluster, k, members, plan.tls);
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
    let (id, name) = cluster.world_of(k);
    let port = |offset: u16| cluster.base_port + offset + k as u16;
    let realm = realm(cluster, &members, tls);
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
        realm: Some(realm),
        world: WorldConfig {
            id: id.0,
            name: name.to_owned(),
            seed: 1,
            ground: cluster.ground,
            grid: cluster.grid,
            animals: cluster.animals,
        },
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
            worlds: vec!["aurora".into()],
            ground: GroundConfig::Map,
            grid: GridConfig::default(),
            animals: 0,
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
    fn every_world_has_nodes_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("cluster");
        let worlds = |nodes, worlds: &[&str]| ClusterPlan {
            nodes,
            worlds: worlds.iter().map(|name| (*name).to_owned()).collect(),
            ..plan(&data)
        };
        let layout = Layout::open(&worlds(6, &["a", "b"]), &SystemEntropy).unwrap();
        let of: Vec<_> =
            layout.nodes.iter().map(|(_, config)| (config.node, config.world.id, config.world.name.as_str())).collect();
        assert_eq!(of, [(1, 1, "a"), (2, 1, "a"), (3, 1, "a"), (4, 2, "b"), (5, 2, "b"), (6, 2, "b")]);
        let members: Vec<_> = layout.nodes[4].1.members.iter().map(|member| member.node).collect();
        assert_eq!(members, [4, 5, 6]);
        assert_eq!(layout.nodes[4].1.listen.grpc, "127.0.0.1:7105");
        let hosts: BTreeSet<_> = layout.nodes.iter().map(|(_, config)| config.realm_hosts()).collect();
        let first = |node: u32| (NodeId(node), format!("127.0.0.1:710{node}"));
        assert_eq!(hosts, [(1..=3).map(first).collect()].into(), "all nodes know the same realm");
        for (bad, word) in [
            (worlds(4, &["a", "b"]), "same odd number"),
            (worlds(5, &["a", "b"]), "for example 6"),
            (worlds(2, &["a"]), "same odd number"),
            (worlds(6, &["a", "a"]), "each its own"),
            (worlds(3, &["a", "", "c"]), "names"),
            (worlds(101, &["a"]), "99"),
            (worlds(6, &["a", "c"]), "worlds a,b; asked for a,c"),
        ] {
            let error = Layout::open(&bad, &SystemEntropy).unwrap_err().to_string();
            assert!(error.contains(word), "{error} does not say {word:?}");
        }
    }

    #[test]
    fn a_folder_of_one_world_from_before_there_were_several_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("cluster");
        Layout::open(&plan(&data), &SystemEntropy).unwrap();
        let file = data.join("cluster.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("worlds = [\"aurora\"]", "world = \"aurora\"")).unwrap();
        assert_eq!(Layout::open(&plan(&data), &SystemEntropy).unwrap().cluster.worlds, ["aurora"]);
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
        let other = ClusterPlan { animals: 40, ..plan(&data) };
        let error = Layout::open(&other, &SystemEntropy).unwrap_err().to_string();
        assert!(error.contains("animals 0") && error.contains("asked for 40"), "{error}");
    }

    #[test]
    fn animals_are_written_into_every_node_and_too_many_refused() {
        let folder = tempfile::tempdir().unwrap();
        let animals = |data: &str, animals| ClusterPlan { animals, ..plan(&folder.path().join(data)) };
        let layout = Layout::open(&animals("some", 40), &SystemEntropy).unwrap();
        assert!(layout.nodes.iter().all(|(_, config)| config.world.animals == 40));
        let error = Layout::open(&animals("many", 10_001), &SystemEntropy).unwrap_err().to_string();
        assert!(error.contains("world.animals must be at most 10000"), "{error}");
    }
}
