//! What a node is told, in the types of its parts, and how that comes from a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use marchland_admin::AdminToken;
use marchland_edge::{EdgeLimits, InterestConfig};
use marchland_raft::{Limits, Timings};
use marchland_region::StepBudget;
use marchland_router_core::TokenSigner;
use marchland_storage::checkpoint::CheckpointOptions;
use marchland_storage::keyed::{KeyedEngine, KeyedOptions};
use marchland_storage::log::LogOptions;
use marchland_types::{NodeId, ReplicaId, WorldId};

use super::assembly::NodeError;
use super::birth;
use crate::config::{GridConfig, KeyedEngineConfig, NodeConfig};

/// What a node is told, in the types of its parts.
#[derive(Clone)]
pub struct NodeSettings {
    /// The cluster, as in its certificates.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// The world.
    pub world: WorldId,
    /// Its name.
    pub world_name: String,
    /// Where everything is kept.
    pub data: PathBuf,
    /// Bytes that must stay free.
    pub reserve_bytes: u64,
    /// Cluster address to listen on.
    pub listen_grpc: String,
    /// Address for players; `None` for a node that serves none.
    pub listen_ws: Option<String>,
    /// Whether it hosts replicas.
    pub shard: bool,
    /// Every node that hosts replicas: cluster address, and address for players.
    pub members: BTreeMap<NodeId, Member>,
    /// Every node that hosts the realm, with its cluster address.
    pub realm: BTreeMap<NodeId, String>,
    /// Sizes of the raft log.
    pub log: LogOptions,
    /// Which checkpoints are kept.
    pub checkpoints: CheckpointOptions,
    /// Cache of the keyed store, and the engine of a new one.
    pub keyed: KeyedOptions,
    /// Timings of raft.
    pub timings: Timings,
    /// Sizes of raft.
    pub limits: Limits,
    /// How long rules may take.
    pub budget: StepBudget,
    /// Loops of the edge.
    pub edge_workers: usize,
    /// How much the edge takes on.
    pub edge_limits: EdgeLimits,
    /// Who sees whom.
    pub interest: InterestConfig,
    /// TLS for players.
    pub edge_tls: Option<tokio_rustls::TlsAcceptor>,
    /// Seed of a new world.
    pub seed: u64,
    /// Regions of the world.
    pub grid: GridConfig,
    /// Verifies sign-in tokens of a new world.
    pub token_key: [u8; 32],
    /// What admin calls must carry.
    pub admin_token: Option<AdminToken>,
}

/// Another node, as this one reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Cluster address.
    pub grpc: String,
    /// Address for players.
    pub ws: String,
}

impl NodeSettings {
    /// From a configuration that was checked. Reads the key files that it names.
    pub fn from_config(config: &NodeConfig) -> Result<Self, NodeError> {
        let unreadable =
            |path: &PathBuf, error: std::io::Error| NodeError::Settings(format!("can not read {}: {error}", path.display()));
        let mb = |n: u64| n * 1024 * 1024;
        let token_key = match &config.development {
            Some(development) => read_seed(&development.token_key).map_err(NodeError::Settings)?.public_key(),
            None => [0; 32],
        };
        let admin_token = match &config.admin {
            Some(admin) => {
                let text = std::fs::read_to_string(&admin.token_file).map_err(|e| unreadable(&admin.token_file, e))?;
                Some(AdminToken::new(text.trim()).ok_or_else(|| NodeError::Settings("the admin token is empty".into()))?)
            }
            None => None,
        };
        let edge_tls = match &config.edge.tls {
            Some(tls) => {
                let read = |path: &PathBuf| std::fs::read(path).map_err(|e| unreadable(path, e));
                let acceptor = marchland_proto::net::client_tls_acceptor(&read(&tls.certificate)?, &read(&tls.key)?);
                Some(acceptor.map_err(|e| NodeError::Settings(format!("edge.tls: {e}")))?)
            }
            None => None,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            cluster: config.cluster.clone(),
            node: config.node_id(),
            world: config.world_id(),
            world_name: config.world.name.clone(),
            data: config.data.clone(),
            reserve_bytes: mb(config.storage.reserve_mb),
            listen_grpc: config.listen.grpc.clone(),
            listen_ws: config.is_edge().then(|| config.listen.ws.clone()),
            shard: config.is_shard(),
            members: config.members.iter().map(|m| (NodeId(m.node), Member { grpc: m.grpc.clone(), ws: m.ws.clone() })).collect(),
            realm: config.realm_hosts(),
            log: LogOptions {
                segment_bytes: mb(config.storage.segment_mb),
                retain_bytes: mb(config.storage.retain_mb),
                reserve_bytes: mb(config.storage.reserve_mb) / 2,
                ..LogOptions::default()
            },
            checkpoints: CheckpointOptions { retain_bytes: mb(config.storage.retain_mb), ..CheckpointOptions::default() },
            keyed: KeyedOptions {
                cache_bytes: mb(config.storage.keyed_cache_mb),
                engine: match config.storage.keyed_engine {
                    KeyedEngineConfig::Redb => KeyedEngine::Redb,
                    KeyedEngineConfig::Sled => KeyedEngine::Sled,
                },
            },
            timings: Timings {
                heartbeat_ms: config.raft.heartbeat_ms,
                election_ms: config.raft.election_ms,
                election_step_ms: config.raft.election_step_ms,
                ..Timings::default()
            },
            limits: Limits {
                persist_bytes: mb(config.storage.checkpoint_log_mb),
                // A replica that lags further is sent a checkpoint, which is as small.
                kept_bytes: mb(1) / 2,
                ..Limits::default()
            },
            budget: StepBudget {
                step: Duration::from_millis(config.rules.step_budget_ms),
                stuck: Duration::from_millis(config.rules.stuck_after_ms),
            },
            edge_workers: match config.edge.threads {
                0 => (cores / 2).max(1),
                threads => threads,
            },
            edge_limits: EdgeLimits {
                connections_max: config.edge.connections_max,
                connections_per_address_max: config.edge.connections_per_address_max,
                ..EdgeLimits::default()
            },
            interest: InterestConfig {
                radius_m: config.edge.view_radius_m,
                visible_max: config.edge.visible_max,
                ..InterestConfig::default()
            },
            edge_tls,
            seed: config.world.seed,
            grid: config.world.grid,
            token_key,
            admin_token,
        })
    }

    /// Members of every group of the world: the founding incarnation of each node.
    pub(super) fn voters(&self) -> BTreeSet<ReplicaId> {
        self.members.keys().map(|node| ReplicaId::new(*node, birth::FIRST)).collect()
    }

    /// Members of the realm: the founding incarnation of each of its hosts.
    pub(super) fn realm_voters(&self) -> BTreeSet<ReplicaId> {
        self.realm.keys().map(|node| ReplicaId::new(*node, birth::FIRST)).collect()
    }
}

/// Reads the 32 bytes in hex that sign sign-in tokens.
pub(super) fn read_seed(path: &std::path::Path) -> Result<TokenSigner, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("can not read {}: {e}", path.display()))?;
    let text = text.trim();
    let mut seed = [0; 32];
    let digits = (text.len() == 64 && text.is_ascii()).then_some(text);
    let parsed = digits.and_then(|text| {
        (0..32).try_for_each(|i| {
            seed[i] = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
            Some(())
        })
    });
    parsed.ok_or_else(|| format!("{} is not 32 bytes in hex", path.display()))?;
    Ok(TokenSigner::from_seed(&seed))
}
