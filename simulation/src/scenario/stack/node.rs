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
use marchland_storage::keyed::KeyedOptions;
use marchland_storage::log::LogOptions;
use marchland_types::{CutNumber, GroupId, GroupKind, Incarnation, LogIndex, NodeId, ReplicaId, WorldId};

use super::registers;
use super::seams::SimSeams;
use super::{SHARDS, Weather};
use crate::fact::{Fact, tell};
use crate::studio::{Studio, Watched, odd};
use crate::world::Boot;
use crate::{machine, orders};

const CLUSTER: &str = "sim";
/// The first nodes host the realm.
const REALM_HOSTS: u32 = 3;
pub(super) const WORLD: WorldId = WorldId(1);
pub(super) const WORLD_NAME: &str = "aurora";
/// The operator's certificate names a node that does not exist.
pub(super) const OPERATOR: NodeId = NodeId(99);
/// Where a node keeps everything.
pub(super) const DATA: &str = "/data";
/// Lets operators in.
pub(super) const ADMIN_TOKEN: &str = "simulated operator";
/// The last cut, through all regions: higher than any that an operator takes meanwhile.
pub(super) const LAST_CUT: CutNumber = CutNumber(1_000_000);
/// So many looks apart the records of folders are read.
const LOOKS_AT_FOLDERS: u32 = 20;
/// How often watchers look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What driver and watchers tell each other.
#[derive(Default)]
pub(super) struct Stage {
    /// The run is over: the owner takes a cut, and every replica tells what it held there.
    pub(super) cut_wanted: Cell<bool>,
    /// How many groups the world has that hold characters: regions and vaults.
    pub(super) holders: Cell<usize>,
    /// What each node held at the cut, by region and vault.
    pub(super) finals: RefCell<BTreeMap<u32, BTreeMap<GroupId, InspectReply>>>,
    /// How often an owner's region fell asleep.
    pub(super) slept: Cell<u64>,
    /// How often one woke.
    pub(super) woke: Cell<u64>,
    /// Nodes that have owned a region.
    pub(super) owners: RefCell<BTreeSet<u32>>,
    /// Nodes that have led the realm.
    pub(super) realm_leaders: RefCell<BTreeSet<u32>>,
    /// How often a node came back with a new data folder.
    pub(super) replaced: Cell<u64>,
    /// Nodes that went for good.
    pub(super) gone: Cell<u64>,
    /// Replicas need not have equal states before the end.
    pub(super) may_be_odd: Cell<bool>,
    /// The state of a replica is to go wrong: the owner's, or a follower's.
    pub(super) goes_wrong: Cell<Option<bool>>,
    /// What became of that, with how often.
    pub(super) odd: RefCell<BTreeMap<&'static str, u64>>,
    /// The operator begins no more.
    pub(super) operator_rests: Cell<bool>,
    /// The operator waits for an answer.
    pub(super) operating: Cell<bool>,
    /// Answers that the operator got.
    pub(super) verified: Cell<u64>,
    /// Attempts without an answer.
    pub(super) unverified: Cell<u64>,
    /// How often the operator moved borders.
    pub(super) moved: Cell<u64>,
    /// Attempts that came to nothing, or to nobody knows what.
    pub(super) unmoved: Cell<u64>,
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
        cluster: CLUSTER.to_owned(),
        node,
        roles: [role].into(),
        worlds: Some([WORLD].into()),
    })
}

/// What a node is put up with.
#[derive(Clone, Copy)]
pub(super) struct Plot {
    /// Among those of its kind, from 1.
    pub(super) number: u32,
    /// Of the world's randomness.
    pub(super) seed: u64,
    pub(super) weather: Weather,
    pub(super) grid: GridConfig,
}

fn settings(node: NodeId, plot: Plot) -> NodeSettings {
    let Plot { seed, weather, grid, .. } = plot;
    let shard = node.0 <= SHARDS;
    let member = |n: u32| (NodeId(n), Member { grpc: format!("n{n}:7100"), ws: format!("n{n}:7300") });
    NodeSettings {
        cluster: CLUSTER.to_owned(),
        node,
        world: WORLD,
        world_name: WORLD_NAME.to_owned(),
        data: DATA.into(),
        reserve_bytes: 0,
        listen_grpc: "0.0.0.0:7100".to_owned(),
        listen_ws: (!shard).then(|| "0.0.0.0:7300".to_owned()),
        shard,
        members: (1..=SHARDS).map(member).collect(),
        realm: (1..=REALM_HOSTS).map(|n| (NodeId(n), format!("n{n}:7100"))).collect(),
        // Small segments and frequent checkpoints, so that everything that happens once an hour happens in seconds.
        log: LogOptions {
            segment_bytes: weather.segment_bytes,
            retain_bytes: 256 * 1024,
            // Between what full disks leave: with some of them work is refused, with others writes fail.
            reserve_bytes: 64 * 1024,
            ..LogOptions::default()
        },
        checkpoints: CheckpointOptions::default(),
        keyed: KeyedOptions::default(),
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
        grid,
        token_key: signer().public_key(),
        admin_token: AdminToken::new(ADMIN_TOKEN),
    }
}

/// Runs an edge-only node.
pub(super) async fn run_edge<S: Studio>(boot: Boot, plot: Plot) -> anyhow::Result<()> {
    let id = edge_id(plot.number);
    let node =
        Node::start(SimSeams::new(&boot), settings(id, plot), Watched::serve::<S>()?, security(id, PeerRole::Edge)).await?;
    anyhow::bail!("{}", node.fatal().await)
}

/// Runs a node that hosts replicas.
pub(super) async fn run_shard<S: Studio>(boot: Boot, plot: Plot, stage: Rc<Stage>) -> anyhow::Result<()> {
    let id = NodeId(plot.number);
    let node =
        Node::start(SimSeams::new(&boot), settings(id, plot), Watched::serve::<S>()?, security(id, PeerRole::Shard)).await?;
    tokio::select! {
        reason = node.fatal() => anyhow::bail!("{reason}"),
        failed = watch(plot.number, &node, &stage) => failed,
    }
}

/// Tells what the node does, until one of its groups has failed.
async fn watch(number: u32, node: &Node<SimSeams>, stage: &Stage) -> anyhow::Result<()> {
    let admin = node.admin();
    let mut seen: BTreeMap<GroupId, Known> = BTreeMap::new();
    if registers::tell_own(node)? > Incarnation(1) {
        stage.replaced.set(stage.replaced.get() + 1);
    }
    let mut is_checked = false;
    for look in 0_u32.. {
        tokio::time::sleep(LOOK_EVERY).await;
        if look.is_multiple_of(LOOKS_AT_FOLDERS) {
            registers::tell_recorded(node).await?;
        }
        if stage.cut_wanted.get() && !is_checked {
            registers::check_records(node).await?;
            is_checked = true;
        }
        orders::carry_out(|| node.groups());
        for group in node.groups() {
            let status = group.status();
            if let Some(fault) = status.fault {
                anyhow::bail!("{} stopped: {fault}", group.id());
            }
            if let (Role::Leader(term), Some(replica)) = (status.role, status.leader) {
                leads(group.id(), term, replica);
                if group.id() == GroupId::realm() {
                    stage.realm_leaders.borrow_mut().insert(number);
                }
            }
        }
        let status = admin.status().await;
        let holders = status.groups.iter().filter(|g| holds_characters(GroupId(g.group)));
        stage.holders.set(holders.clone().count().max(stage.holders.get()));
        for region in holders {
            let group = GroupId(region.group);
            if stage.cut_wanted.get() {
                let known = seen.entry(group).or_default();
                known.is_cut = known.is_cut || last_cut(number, group, node, stage).await;
            }
            if group.kind() != Some(GroupKind::Region) {
                continue;
            }
            let replica = ReplicaId(region.replica);
            let known = seen.entry(group).or_default();
            if region.owner != known.owned {
                known.owned = region.owner;
                tell(&Fact::Owns { group, replica, owns: region.owner });
            }
            if region.owner {
                stage.owners.borrow_mut().insert(number);
                if region.asleep != known.asleep {
                    known.asleep = region.asleep;
                    let times = if region.asleep { &stage.slept } else { &stage.woke };
                    times.set(times.get() + 1);
                }
            }
            if stage.may_be_odd.get() {
                goes_wrong(stage, region);
            } else {
                anyhow::ensure!(!region.diverged, "{replica} of {group} has diverged from its owner");
            }
            if region.tick > known.tick && !stage.may_be_odd.get() {
                let now = admin.inspect(group, CutNumber(0)).await;
                known.tick = now.tick;
                let parts = now.components.into_iter().map(|c| (c.name, c.hash)).collect();
                tell(&Fact::StateHash { group, replica, at: now.index, hash: now.state_hash, parts });
            }
        }
    }
    Ok(())
}

fn holds_characters(group: GroupId) -> bool {
    matches!(group.kind(), Some(GroupKind::Region | GroupKind::Vault))
}

/// What a watcher remembers of a region.
#[derive(Default)]
struct Known {
    tick: u64,
    owned: bool,
    asleep: bool,
    /// What it held at the last cut is told.
    is_cut: bool,
}

/// Takes the last cut, if the region is owned here, and tells what was held at it, once it is there.
async fn last_cut(number: u32, group: GroupId, node: &Node<SimSeams>, stage: &Stage) -> bool {
    let admin = node.admin();
    // Whoever does not own it refuses, and whoever has taken it already, by a message that carried it, says so.
    let taken = admin.take_cut(group, LAST_CUT).await;
    if taken.code == Code::Ok as u32 && taken.index != 0 {
        tell(&Fact::CutTaken { group, cut: LAST_CUT, at: LogIndex(taken.index) });
    }
    let held = admin.inspect(group, LAST_CUT).await;
    let told = held.code == Code::Ok as u32;
    if told {
        stage.finals.borrow_mut().entry(number).or_default().insert(group, held);
    }
    told
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
