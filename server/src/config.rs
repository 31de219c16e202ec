//! What a node is told at its start: `node.toml`, checked as a whole before anything is opened.
//!
//! Nothing in here reaches a region's `step`: what the simulation may know is region state. Unknown keys are errors, and
//! relations between values are checked by [`NodeConfig::validate`], so that a node that starts has a configuration that
//! makes sense.

mod grid;
mod realm;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use frontier::ANIMALS_MAX;
use marchland_proto::net::{Role, TlsFiles};
use marchland_types::{NodeId, WorldId, limits};
use serde::{Deserialize, Serialize};

pub use self::grid::{GridConfig, REGIONS_MAX};
pub use self::realm::{RealmAddress, RealmConfig};

/// Why a configuration can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("can not read configuration {path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not TOML, a key is unknown or missing, or a value has the wrong type.
    #[error("configuration {path}: {error}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// Values that do not fit together.
    #[error("configuration {path}: {reason}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

/// The whole of `node.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Name of the cluster, as in its certificates.
    pub cluster: String,
    /// This node's number, from 1.
    pub node: u32,
    /// Folder for everything that this node keeps.
    pub data: PathBuf,
    /// What the node does: `shard` hosts replicas, `edge` terminates clients.
    #[serde(default = "both_roles")]
    pub roles: Vec<String>,
    /// Where it listens.
    pub listen: ListenConfig,
    /// Its certificates.
    pub tls: TlsConfig,
    /// Every node of the world that hosts replicas, this one included.
    pub members: Vec<MemberConfig>,
    /// Where the realm lives. Without it: on the first three of `members`, or on the first one if they are fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<RealmConfig>,
    /// The world.
    pub world: WorldConfig,
    /// Timings of raft.
    #[serde(default)]
    pub raft: RaftConfig,
    /// Log, checkpoints, keyed store.
    #[serde(default)]
    pub storage: StorageConfig,
    /// What the world's rules may cost.
    #[serde(default)]
    pub rules: RulesConfig,
    /// Clients.
    #[serde(default)]
    pub edge: EdgeConfig,
    /// Operators' tools; without it the admin service refuses everyone.
    #[serde(default)]
    pub admin: Option<AdminConfig>,
    /// Present in development only.
    #[serde(default)]
    pub development: Option<DevelopmentConfig>,
}

/// Addresses as `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// Other nodes and operators' tools.
    pub grpc: String,
    /// Health, metrics, pages.
    pub http: String,
    /// Players.
    pub ws: String,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate of the cluster's authority.
    pub authority: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Another node, or this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// Its number.
    pub node: u32,
    /// Its cluster address, `host:port`.
    pub grpc: String,
    /// Its address for players, as they reach it.
    pub ws: String,
    /// Its pages, `http://host:port`, as operators' browsers reach them. With them one dashboard shows every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
}

/// The world that this cluster runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldConfig {
    /// Its number, from 1.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Seed of the state's random streams. Used once, when the world is made.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// `map` for the demo map, once for each region, or the side in metres of an open square. Used once, when the world is made.
    #[serde(default)]
    pub ground: GroundConfig,
    /// How many regions it has. Used once, when the world is made; a node that is told another grid does not start.
    #[serde(default)]
    pub grid: GridConfig,
    /// Animals of the demo world, in each region. Used once, when the world is made.
    #[serde(default)]
    pub animals: u32,
}

/// The ground of a new world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum GroundConfig {
    /// The demo map.
    #[default]
    Map,
    /// A square without obstacles.
    Open {
        /// Its side in metres.
        side_m: f32,
    },
}

/// Timings of raft, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftConfig {
    /// Between a leader's heartbeats.
    pub heartbeat_ms: u64,
    /// Shortest silence after which a follower may stand for election, less the time for one round of voting.
    pub election_ms: u64,
    /// By how much the replicas of a group wait differently.
    pub election_step_ms: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        let timings = marchland_raft::Timings::default();
        Self { heartbeat_ms: timings.heartbeat_ms, election_ms: timings.election_ms, election_step_ms: timings.election_step_ms }
    }
}

/// Log, checkpoints and keyed store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Size of a segment of the raft log.
    pub segment_mb: u64,
    /// How much of the purged log and of old checkpoints is kept for replay.
    pub retain_mb: u64,
    /// New work is refused when less than this is free.
    pub reserve_mb: u64,
    /// A group's log grows to this before the state is made durable and the log is cut.
    pub checkpoint_log_mb: u64,
    /// Cache of the keyed store.
    pub keyed_cache_mb: u64,
    /// Engine of a new keyed store.
    pub keyed_engine: KeyedEngineConfig,
}

/// Engine of the keyed store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyedEngineConfig {
    /// redb.
    #[default]
    Redb,
    /// sled.
    Sled,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            segment_mb: 32,
            retain_mb: 512,
            reserve_mb: 256,
            checkpoint_log_mb: 1,
            keyed_cache_mb: 8,
            keyed_engine: KeyedEngineConfig::default(),
        }
    }
}

/// What the world's rules may cost. Observed on each node; no limit here has any effect on the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesConfig {
    /// Entries that take longer are counted.
    pub step_budget_ms: u64,
    /// An entry whose rules have not returned after this long is given up: the region halts there.
    pub stuck_after_ms: u64,
}

impl Default for RulesConfig {
    fn default() -> Self {
        let budget = marchland_region::StepBudget::default();
        Self { step_budget_ms: budget.step.as_millis() as u64, stuck_after_ms: budget.stuck.as_millis() as u64 }
    }
}

/// Clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Threads that serve sockets; 0 takes one for every two cores.
    pub threads: usize,
    /// Most connections of this node.
    pub connections_max: usize,
    /// Most from one address.
    pub connections_per_address_max: usize,
    /// Radius in which a client is shown entities, in metres.
    pub view_radius_m: f32,
    /// Most entities that it is shown.
    pub visible_max: usize,
    /// Certificate and key for `wss`; without them players connect by `ws`.
    pub tls: Option<EdgeTlsConfig>,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            connections_max: 4096,
            connections_per_address_max: 4096,
            view_radius_m: limits::VIEW_RADIUS_M,
            visible_max: limits::VISIBLE_DEFAULT,
            tls: None,
        }
    }
}

/// PEM files for `wss`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeTlsConfig {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Key.
    pub key: PathBuf,
}

/// Operators' tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// File with the bearer token that admin calls must carry, beside a certificate with the role `admin`.
    pub token_file: PathBuf,
}

/// What only a development cluster has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevelopmentConfig {
    /// Ed25519 key (32 bytes, hex) that signs sign-in tokens; its public half goes into a new world. With it the node hands a
    /// token to whoever asks for `/play/token`.
    pub token_key: PathBuf,
}

/// Nodes that host the realm when nothing is said: enough to survive the loss of one.
pub const REALM_HOSTS: usize = 3;

fn both_roles() -> Vec<String> {
    vec!["shard".into(), "edge".into()]
}

fn default_seed() -> u64 {
    1
}

impl NodeConfig {
    /// Reads and checks a file. Relative paths in it are taken from its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let mut config: Self =
            toml::from_str(&text).map_err(|error| ConfigError::Malformed { path: path.to_owned(), error: Box::new(error) })?;
        let base = path.parent().unwrap_or(Path::new("."));
        let own = [&mut config.data, &mut config.tls.authority, &mut config.tls.certificate, &mut config.tls.key];
        let optional = [config.development.as_mut().map(|d| &mut d.token_key), config.admin.as_mut().map(|a| &mut a.token_file)];
        for file in own.into_iter().chain(optional.into_iter().flatten()) {
            *file = base.join(&*file);
        }
        if let Some(tls) = &mut config.edge.tls {
            tls.certificate = base.join(&tls.certificate);
            tls.key = base.join(&tls.key);
        }
        config.validate().map_err(|reason| ConfigError::Invalid { path: path.to_owned(), reason })?;
        Ok(config)
    }

    /// Checks what a type can not say. The error names the key.
    pub fn validate(&self) -> Result<(), String> {
        let check = |ok: bool, reason: &str| if ok { Ok(()) } else { Err(reason.to_owned()) };
        check(
            !self.cluster.is_empty() && self.cluster.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
            "cluster must be letters, digits and dashes",
        )?;
        check(self.node > 0, "node must be at least 1")?;
        self.roles()?;
        check(self.world.id > 0 && self.world.id < 1 << 24, "world.id must be between 1 and 2^24")?;
        check(!self.world.name.is_empty() && self.world.name.len() <= 64, "world.name must have 1 to 64 bytes")?;
        if let GroundConfig::Open { side_m } = self.world.ground {
            check((10.0..=100_000.0).contains(&side_m), "world.ground.open.side_m must be between 10 and 100000")?;
            let longest = self.world.grid.columns.max(self.world.grid.rows);
            check(side_m / longest as f32 >= 10.0, "world.grid must leave each region 10 m of world.ground.open.side_m a side")?;
        }
        self.world.grid.validate().map_err(|reason| format!("world.grid {reason}"))?;
        check(self.world.animals <= ANIMALS_MAX, "world.animals must be at most 10000")?;
        let nodes: BTreeSet<_> = self.members.iter().map(|m| m.node).collect();
        check(nodes.len() == self.members.len(), "members names a node twice")?;
        check(!nodes.is_empty() && nodes.len() <= 9, "members must name 1 to 9 nodes")?;
        check(nodes.len() % 2 == 1, "members must be an odd number: an even one survives no more failures and costs more")?;
        check(!self.is_shard() || nodes.contains(&self.node), "node has the role shard but is not among members")?;
        if let Some(realm) = &self.realm {
            realm.validate(&nodes)?;
        }
        let raft = &self.raft;
        check(raft.heartbeat_ms >= 30, "raft.heartbeat_ms must be at least 30")?;
        check(raft.election_ms >= raft.heartbeat_ms * 2, "raft.election_ms must be at least twice raft.heartbeat_ms")?;
        check(raft.election_step_ms >= 1, "raft.election_step_ms must be at least 1")?;
        let storage = &self.storage;
        check((1..=1024).contains(&storage.segment_mb), "storage.segment_mb must be between 1 and 1024")?;
        check(storage.reserve_mb >= 2 * storage.segment_mb, "storage.reserve_mb must be at least twice storage.segment_mb")?;
        check(storage.checkpoint_log_mb >= 1, "storage.checkpoint_log_mb must be at least 1")?;
        check((8..=4096).contains(&storage.keyed_cache_mb), "storage.keyed_cache_mb must be between 8 and 4096")?;
        check(self.rules.step_budget_ms >= 1, "rules.step_budget_ms must be at least 1")?;
        check(
            self.rules.stuck_after_ms >= 1_000 && self.rules.stuck_after_ms >= self.rules.step_budget_ms,
            "rules.stuck_after_ms must be at least 1000, and not less than rules.step_budget_ms",
        )?;
        let edge = &self.edge;
        check(edge.threads <= 256, "edge.threads must be at most 256")?;
        check((1..=limits::VISIBLE_MAX).contains(&edge.visible_max), "edge.visible_max must be between 1 and 64")?;
        check((1.0..=1000.0).contains(&edge.view_radius_m), "edge.view_radius_m must be between 1 and 1000")?;
        check(edge.connections_max >= 1, "edge.connections_max must be at least 1")?;
        check(edge.connections_per_address_max >= 1, "edge.connections_per_address_max must be at least 1")
    }

    /// The roles, parsed.
    pub fn roles(&self) -> Result<BTreeSet<Role>, String> {
        let roles: BTreeSet<Role> =
            self.roles.iter().map(|r| r.parse().map_err(|e| format!("roles: {e}"))).collect::<Result<_, _>>()?;
        match (roles.contains(&Role::Admin), roles.is_empty()) {
            (true, _) => Err("roles: a node can not be admin".into()),
            (_, true) => Err("roles must name shard, edge or both".into()),
            _ => Ok(roles),
        }
    }

    /// Whether it hosts replicas.
    pub fn is_shard(&self) -> bool {
        self.roles.iter().any(|r| r == Role::Shard.name())
    }

    /// Whether it terminates clients.
    pub fn is_edge(&self) -> bool {
        self.roles.iter().any(|r| r == Role::Edge.name())
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }

    /// The world.
    pub fn world_id(&self) -> WorldId {
        WorldId(self.world.id)
    }

    /// The nodes that host the realm, with their cluster addresses.
    pub fn realm_hosts(&self) -> BTreeMap<NodeId, String> {
        let mut known: BTreeMap<u32, &String> = self.members.iter().map(|member| (member.node, &member.grpc)).collect();
        let hosts = match &self.realm {
            Some(realm) => {
                known.extend(realm.addresses.iter().map(|address| (address.node, &address.grpc)));
                realm.nodes.clone()
            }
            None => known.keys().copied().take(if known.len() < REALM_HOSTS { 1 } else { REALM_HOSTS }).collect(),
        };
        hosts.iter().filter_map(|host| Some((NodeId(*host), (*known.get(host)?).clone()))).collect()
    }

    /// Its certificates.
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles { authority: self.tls.authority.clone(), certificate: self.tls.certificate.clone(), key: self.tls.key.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> NodeConfig {
        toml::from_str(
            r#"
            cluster = "dev"
            node = 1
            data = "data"
            [listen]
            grpc = "127.0.0.1:7101"
            http = "127.0.0.1:7201"
            ws = "127.0.0.1:7301"
            [tls]
            authority = "ca.pem"
            certificate = "node.pem"
            key = "node.key"
            [[members]]
            node = 1
            grpc = "127.0.0.1:7101"
            ws = "ws://127.0.0.1:7301"
            [world]
            id = 1
            name = "aurora"
            "#,
        )
        .unwrap()
    }

    #[test]
    fn a_small_file_is_enough_and_round_trips() {
        let config = sample();
        assert_eq!(config.validate(), Ok(()));
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<NodeConfig>(&text).unwrap(), config);
    }

    #[test]
    fn unknown_keys_are_errors() {
        let text = toml::to_string(&sample()).unwrap().replace("[world]", "[world]\nnmae = \"x\"");
        assert!(toml::from_str::<NodeConfig>(&text).unwrap_err().to_string().contains("nmae"));
    }

    #[test]
    fn relations_are_checked_and_named() {
        type Break = fn(&mut NodeConfig);
        let cases: [(Break, &str); 13] = [
            (|c| c.world.grid = GridConfig { columns: 65, rows: 64 }, "world.grid has 4160"),
            (
                |c| {
                    c.world.ground = GroundConfig::Open { side_m: 30.0 };
                    c.world.grid.rows = 4;
                },
                "10 m",
            ),
            (|c| c.world.animals = ANIMALS_MAX + 1, "world.animals must be at most 10000"),
            (|c| c.node = 0, "node"),
            (|c| c.cluster = "a b".into(), "cluster"),
            (|c| c.roles = vec!["king".into()], "king"),
            (|c| c.roles.clear(), "roles"),
            (|c| c.members.push(c.members[0].clone()), "twice"),
            (|c| c.node = 9, "not among members"),
            (|c| c.raft.election_ms = 200, "election_ms"),
            (|c| c.storage.reserve_mb = 1, "reserve_mb"),
            (|c| c.edge.visible_max = 65, "visible_max"),
            (|c| c.rules.stuck_after_ms = 999, "stuck_after_ms"),
        ];
        for (break_it, word) in cases {
            let mut config = sample();
            break_it(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.contains(word), "{error} does not name {word}");
        }
    }

    #[test]
    fn the_realm_lives_where_it_is_told_or_on_the_first_members() {
        let mut config = sample();
        let members = |numbers: &[u32]| {
            let member =
                |&node: &u32| MemberConfig { node, grpc: format!("n{node}:1"), ws: format!("ws://n{node}:2"), http: None };
            numbers.iter().map(member).collect::<Vec<_>>()
        };
        let hosts = |config: &NodeConfig| config.realm_hosts().into_iter().map(|(node, at)| (node.0, at)).collect::<Vec<_>>();
        let at = |node: u32| (node, format!("n{node}:1"));
        config.members = members(&[5, 1, 4, 2, 3]);
        assert_eq!(hosts(&config), [at(1), at(2), at(3)]);
        config.members = members(&[1]);
        assert_eq!(hosts(&config), [at(1)]);
        let elsewhere = |node: u32| RealmAddress { node, grpc: format!("n{node}:1") };
        config.realm = Some(RealmConfig { nodes: vec![7, 1, 8], addresses: vec![elsewhere(7), elsewhere(8)] });
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(hosts(&config), [at(1), at(7), at(8)]);
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<NodeConfig>(&text).unwrap(), config);
        let realm = |nodes: &[u32], addresses: &[u32]| RealmConfig {
            nodes: nodes.to_vec(),
            addresses: addresses.iter().copied().map(elsewhere).collect(),
        };
        for (bad, word) in [
            (realm(&[], &[]), "1 to 7"),
            (realm(&[1, 7], &[7]), "odd"),
            (realm(&[1, 1, 7], &[7]), "once"),
            (realm(&[0], &[]), "from 1"),
            (realm(&[1, 2, 3, 4, 5, 6, 7, 8, 9], &[2, 3, 4, 5, 6, 7, 8, 9]), "1 to 7"),
            (realm(&[1, 7, 8], &[7]), "must have node 8"),
            (realm(&[1], &[7]), "must not have node 7"),
            (realm(&[1], &[1]), "must not have node 1"),
            (realm(&[1, 7, 8], &[7, 8, 8]), "twice"),
        ] {
            config.realm = Some(bad);
            let error = config.validate().unwrap_err();
            assert!(error.contains(word), "{error} does not say {word}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = NodeConfig::load(Path::new("nowhere/node.toml")).unwrap_err().to_string();
        assert!(error.contains("nowhere/node.toml"), "{error}");
    }
}
