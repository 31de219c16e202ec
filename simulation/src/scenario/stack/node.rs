//! A node of the cluster as it is released, on a simulated machine, and who watches it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use marchland_admin::{AdminBackend, AdminToken};
use marchland_edge::{EdgeLimits, InterestConfig};
use marchland_proto::cluster::{GroupStatus, InspectReply};
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterSecurity, PeerIdentity, Role as PeerRole};
use marchland_raft::{Limits, Role, Timings};
use marchland_region::StepBudget;
use marchland_router_core::TokenSigner;
use marchland_server::config::GridConfig;
use marchland_server::node::{Member, Node, NodeSettings};
use marchland_storage::checkpoint::CheckpointOptions;
use marchland_storage::log::LogOptions;
use marchland_types::{CutNumber, GroupId, LogIndex, NodeId, ReplicaId, WorldId};

use super::seams::SimSeams;
use super::{REGION, SHARDS, Weather};
use crate::fact::{Fact, tell};
use crate::studio::{Studio, Watched, odd};
use crate::world::Boot;
use crate::{machine, orders};

pub(super) const WORLD: WorldId = WorldId(1);
pub(super) const WORLD_NAME: &str = "aurora";
/// The operator's certificate names a node that does not exist.
pub(super) const OPERATOR: NodeId = NodeId(99);
/// Lets operators in.
pub(super) const ADMIN_TOKEN: &str = "simulated operator";
/// How often watchers look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What driver and watchers tell each other.
#[derive(Default)]
pub(super) struct Stage {
    /// The run is over: the owner takes a cut, and every replica tells what it held there.
    pub(super) cut_wanted: Cell<bool>,
    /// The cut that was taken.
    pub(super) cut: Cell<Option<CutNumber>>,
    /// What each node held at the cut.
    pub(super) finals: RefCell<BTreeMap<u32, InspectReply>>,
    /// Nodes that have owned the region.
    pub(super) owners: RefCell<BTreeSet<u32>>,
    /// Replicas need not have equal states before the end.
    pub(super) may_be_odd: Cell<bool>,
    /// The state of a replica is to go wrong: the owner's, or a follower's.
    pub(super) goes_wrong: Cell<Option<bool>>,
    /// What became of that, with how often.
    pub(super) odd: RefCell<BTreeMap<&'static str, u64>>,
    /// The operator begins no more.
    pub(super) operator_rests: Cell<bool>,
    /// The operator waits for an answer.
    pub(super) verifying: Cell<bool>,
    /// Answers that the operator got.
    pub(super) verified: Cell<u64>,
    /// Attempts without an answer.
    pub(super) unverified: Cell<u64>,
}

/// The edge-only node of this number, from 1.
fn edge_id(number: u32) -> NodeId {
    NodeId(SHARDS + number)
}

/// Where players connect to the edge of this number, from 1.
pub(super) fn edge_address(number: u32) -> String {
    format!("e{number}:7300")
}

/// Signs the players' tokens.
pub(super) fn signer() -> TokenSigner {
    TokenSigner::from_seed(&[7; 32])
}

pub(super) fn security(node: NodeId, role: PeerRole) -> ClusterSecurity {
    ClusterSecurity::simulated(PeerIdentity {
        cluster: "sim".to_owned(),
        node,
        roles: [role].into(),
        worlds: Some([WORLD].into()),
    })
}

fn settings(node: NodeId, seed: u64, weather: Weather) -> NodeSettings {
    let shard = node.0 <= SHARDS;
    let member = |n: u32| (NodeId(n), Member { grpc: format!("n{n}:7100"), ws: format!("n{n}:7300") });
    NodeSettings {
        node,
        world: WORLD,
        world_name: WORLD_NAME.to_owned(),
        data: "/data".into(),
        reserve_bytes: 0,
        listen_grpc: "0.0.0.0:7100".to_owned(),
        listen_ws: (!shard).then(|| "0.0.0.0:7300".to_owned()),
        shard,
        members: (1..=SHARDS).map(member).collect(),
        // Small segments and frequent checkpoints, so that everything that happens once an hour happens in seconds.
        log: LogOptions {
            segment_bytes: weather.segment_bytes,
            retain_bytes: 256 * 1024,
            // Between what full disks leave: with some of them work is refused, with others writes fail.
            reserve_bytes: 64 * 1024,
            ..LogOptions::default()
        },
        checkpoints: CheckpointOptions::default(),
        keyed_cache_bytes: 1024 * 1024,
        timings: Timings { persist_check_ms: 250, persist_age_ms: weather.persist_age_ms, ..Timings::default() },
        limits: Limits {
            kept_entries: weather.kept_entries,
            kept_bytes: 64 * 1024,
            persist_bytes: 256 * 1024,
            ..Limits::default()
        },
        budget: StepBudget::default(),
        edge_workers: 1,
        edge_limits: EdgeLimits::default(),
        interest: InterestConfig::default(),
        edge_tls: None,
        seed,
        grid: GridConfig::default(),
        token_key: signer().public_key(),
        admin_token: AdminToken::new(ADMIN_TOKEN),
    }
}

/// Runs an edge-only node.
pub(super) async fn run_edge<S: Studio>(number: u32, boot: Boot, seed: u64, weather: Weather) -> anyhow::Result<()> {
    let id = edge_id(number);
    let node =
        Node::start(SimSeams::new(&boot), settings(id, seed, weather), Watched::serve::<S>()?, security(id, PeerRole::Edge))
            .await?;
    anyhow::bail!("{}", node.fatal().await)
}

/// Runs a node that hosts replicas.
pub(super) async fn run_shard<S: Studio>(
    number: u32,
    boot: Boot,
    seed: u64,
    weather: Weather,
    stage: Rc<Stage>,
) -> anyhow::Result<()> {
    let id = NodeId(number);
    let node =
        Node::start(SimSeams::new(&boot), settings(id, seed, weather), Watched::serve::<S>()?, security(id, PeerRole::Shard))
            .await?;
    tokio::select! {
        reason = node.fatal() => anyhow::bail!("{reason}"),
        failed = watch(number, &node, &stage) => failed,
    }
}

/// Tells what the node does, until one of its groups has failed.
async fn watch(number: u32, node: &Node<SimSeams>, stage: &Stage) -> anyhow::Result<()> {
    let admin = node.admin();
    let mut seen_tick = 0;
    let mut owned = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        orders::carry_out(|| node.groups());
        for group in node.groups() {
            let status = group.status();
            if let Some(fault) = status.fault {
                anyhow::bail!("{} stopped: {fault}", group.id());
            }
            if let (Role::Leader(term), Some(replica)) = (status.role, status.leader) {
                leads(group.id(), term, replica);
            }
        }
        let status = admin.status().await;
        let Some(region) = status.groups.iter().find(|g| g.group == REGION.0) else { continue };
        let replica = ReplicaId(region.replica);
        if region.owner != owned {
            owned = region.owner;
            tell(&Fact::Owns { group: REGION, replica, owns: owned });
        }
        if region.owner {
            stage.owners.borrow_mut().insert(number);
        }
        if stage.may_be_odd.get() {
            goes_wrong(stage, region);
        } else {
            anyhow::ensure!(!region.diverged, "{replica} has diverged from its owner");
        }
        if region.tick > seen_tick && !stage.may_be_odd.get() {
            let now = admin.inspect(REGION, CutNumber(0)).await;
            seen_tick = now.tick;
            let parts = now.components.into_iter().map(|c| (c.name, c.hash)).collect();
            tell(&Fact::StateHash { group: REGION, replica, at: now.index, hash: now.state_hash, parts });
        }
        if !stage.cut_wanted.get() {
            continue;
        }
        match stage.cut.get() {
            None => {
                let taken = admin.take_cut(REGION, CutNumber(0)).await;
                if taken.code == Code::Ok as u32 {
                    stage.cut.set(Some(CutNumber(taken.number)));
                    tell(&Fact::CutTaken { group: REGION, cut: CutNumber(taken.number), at: LogIndex(taken.index) });
                }
            }
            Some(cut) if !stage.finals.borrow().contains_key(&number) => {
                let held = admin.inspect(REGION, cut).await;
                if held.code == Code::Ok as u32 {
                    stage.finals.borrow_mut().insert(number, held);
                }
            }
            Some(_) => {}
        }
    }
}

/// The state of the first replica that qualifies goes wrong.
fn goes_wrong(stage: &Stage, region: &GroupStatus) {
    let count = |what| *stage.odd.borrow_mut().entry(what).or_default() += 1;
    if stage.goes_wrong.get() == Some(region.owner) {
        stage.goes_wrong.set(None);
        odd::go_wrong(machine::current_name());
        count(if region.owner { "owner's state went wrong" } else { "follower's state went wrong" });
    }
    if region.diverged {
        count("odd state noticed");
    }
}

thread_local! {
    static TOLD: RefCell<BTreeMap<GroupId, (marchland_types::Term, ReplicaId)>> = const { RefCell::new(BTreeMap::new()) };
}

/// Tells of a leader once.
fn leads(group: GroupId, term: marchland_types::Term, replica: ReplicaId) {
    let new = TOLD.with(|told| told.borrow_mut().insert(group, (term, replica)) != Some((term, replica)));
    if new {
        tell(&Fact::Leads { group, term, replica });
    }
}
