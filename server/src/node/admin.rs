//! What a node tells about itself, and the cuts that it takes when asked.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use marchland_admin::{AdminBackend, Answer, MemberPages, MintedToken};
use marchland_edge::Edge;
use marchland_proto::cluster::{
    ChangeMapReply, ChangeMapRequest, GroupStatus as WireStatus, InspectReply, MoveOwnerReply, SeedCharactersReply,
    SeedCharactersRequest, SkipEntryReply, StatusReply, TakeCutReply,
};
use marchland_proto::codes::Code;
use marchland_proto::storage::{Cut, RegionEntry, region_entry};
use marchland_raft::{Group, ProposeError, RaftNode, Role, Standing};
use marchland_region::RegionPort;
use marchland_region_core::{ENTRY_FORMAT, skip_entry};
use marchland_router::{Audited, Registry};
use marchland_router_core::{SignInToken, TokenSigner};
use marchland_types::seam::Clock;
use marchland_types::{CutNumber, GroupId, GroupKind, LogIndex, NodeId, WorldId};
use prost::Message;

use super::scrubber::RotFound;

/// How long a development token is valid.
const TOKEN_VALID_MS: u64 = 24 * 3600 * 1000;

/// What only a node that serves pages knows.
pub struct Pages {
    /// Every metric as text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// The ground for the browser client.
    pub map_json: String,
    /// Signs tokens in development.
    pub signer: Option<TokenSigner>,
    /// The world.
    pub world: WorldId,
    /// Its name.
    pub world_name: String,
    /// Where players connect.
    pub ws: String,
    /// Pages of the other nodes.
    pub members: Vec<MemberPages>,
}

/// What a node with replicas has.
struct Groups {
    raft: RaftNode,
    /// Those that belong on it, open at the moment or not.
    ids: Vec<GroupId>,
    regions: BTreeMap<GroupId, Arc<dyn RegionPort>>,
    /// Directory and vaults, and the realm if it is hosted here.
    keyed: BTreeMap<GroupId, Arc<dyn Audited>>,
    /// What the directory's replica here knows of nodes.
    registry: Registry,
    /// What a new character is, for those that are made by the thousand; or why there is none.
    template: Result<Bytes, String>,
}

/// A node's own view of itself.
pub struct NodeAdmin<C> {
    node: NodeId,
    clock: C,
    started: Duration,
    groups: OnceLock<Groups>,
    edge: OnceLock<Edge>,
    rot_found: RotFound,
    pages: OnceLock<Pages>,
}

impl<C: Clock> NodeAdmin<C> {
    pub(super) fn new(node: NodeId, clock: C) -> Self {
        let started = clock.monotonic();
        Self {
            node,
            clock,
            started,
            groups: OnceLock::new(),
            edge: OnceLock::new(),
            rot_found: RotFound::default(),
            pages: OnceLock::new(),
        }
    }

    /// The node's groups are open. Called once.
    pub(super) fn set_groups(
        &self,
        raft: RaftNode,
        ids: Vec<GroupId>,
        regions: BTreeMap<GroupId, Arc<dyn RegionPort>>,
        keyed: BTreeMap<GroupId, Arc<dyn Audited>>,
        registry: Registry,
        template: Result<Bytes, String>,
    ) {
        let _ = self.groups.set(Groups { raft, ids, regions, keyed, registry, template });
    }

    /// Where found rot is counted.
    pub(super) fn rot_found(&self) -> RotFound {
        self.rot_found.clone()
    }

    /// The node's edge is bound. Called once.
    pub(super) fn set_edge(&self, edge: Edge) {
        let _ = self.edge.set(edge);
    }

    /// The node serves pages. Called once.
    pub fn set_pages(&self, pages: Pages) {
        let _ = self.pages.set(pages);
    }

    fn region(&self, group: GroupId) -> Option<(Group, &Arc<dyn RegionPort>)> {
        let Groups { raft, regions, .. } = self.groups.get()?;
        Some((raft.group(group)?, regions.get(&group)?))
    }

    /// A directory, a vault, or the realm.
    fn keyed(&self, group: GroupId) -> Option<&Arc<dyn Audited>> {
        self.groups.get()?.keyed.get(&group)
    }

    fn group_status(&self, id: GroupId, groups: &Groups) -> WireStatus {
        let replica = groups.raft.replica();
        let facts = groups.regions.get(&id).map(|region| region.facts()).unwrap_or_default();
        let Some(group) = groups.raft.group(id) else {
            // Only a replica that is being given another state is closed while its node runs.
            return WireStatus {
                group: id.0,
                replica: replica.0,
                role: "rebuilding".into(),
                tick: facts.tick.0,
                diverged: facts.diverged,
                ..WireStatus::default()
            };
        };
        let status = group.status();
        let index = |i: Option<LogIndex>| i.map_or(0, |i| i.0);
        let role = match status.role {
            Role::Leader(_) => "leader",
            Role::Follower { leader: Some(_), .. } => "follower",
            Role::Follower { leader: None, .. } => "candidate",
            Role::Learner { .. } => "learner",
            Role::Stopped => "stopped",
        };
        WireStatus {
            group: id.0,
            replica: replica.0,
            role: role.into(),
            term: status.term.0,
            leader: status.leader.map_or(0, |l| l.0),
            last_index: index(status.last),
            committed_index: index(status.committed),
            applied_index: index(status.applied),
            durable_index: index(status.durable),
            voters: status.voters.iter().map(|r| r.0).collect(),
            learners: status.learners.iter().map(|r| r.0).collect(),
            tick: facts.tick.0,
            sessions: facts.sessions,
            entities: facts.entities,
            time_rate: facts.time_rate,
            owner: facts.owner,
            fault: status.fault.unwrap_or_default(),
            diverged: facts.diverged,
            halted_index: status.halted.as_ref().map_or(0, |halt| halt.index.0),
            halted_because: status.halted.map(|halt| halt.reason).unwrap_or_default(),
            panics: facts.panics,
            dead_letters: facts.dead_letters,
            skipped_entries: facts.skipped,
            last_skipped_index: facts.last_skipped.as_ref().map_or(0, |skipped| skipped.index.0),
            last_skipped_tick: facts.last_skipped.as_ref().map_or(0, |skipped| skipped.tick.0),
            last_skipped_reason: facts.last_skipped.as_ref().map(|skipped| skipped.reason.clone()).unwrap_or_default(),
            last_skipped_by: facts.last_skipped.map(|skipped| skipped.actor).unwrap_or_default(),
            step_overruns: facts.overruns,
            asleep: facts.asleep,
        }
    }

    async fn skip(&self, group: GroupId, index: LogIndex, order: Vec<u8>) -> SkipEntryReply {
        let refuse = |code: Code, leader: u64, reason: String| SkipEntryReply {
            code: code as u32,
            leader,
            reason,
            ..SkipEntryReply::default()
        };
        let Some((raft, region)) = self.region(group) else {
            return refuse(Code::NotLeader, 0, format!("no replica of {group} is here"));
        };
        match raft.skip(index, Bytes::from(order)).await {
            Ok(done) => {
                SkipEntryReply { order_index: done.position.index.0, tick: region.facts().tick.0, ..SkipEntryReply::default() }
            }
            Err(ProposeError::NotLeader { leader, .. }) => {
                refuse(Code::NotLeader, leader.map_or(0, |l| l.0), format!("node {} does not lead {group}", self.node))
            }
            Err(ProposeError::Refused { reason, .. }) => refuse(Code::Refused, 0, reason),
            Err(error @ (ProposeError::Unknown { .. } | ProposeError::Fault { .. })) => {
                refuse(Code::Unavailable, 0, error.to_string())
            }
        }
    }

    async fn cut(&self, group: GroupId, number: CutNumber) -> TakeCutReply {
        let refuse = |code: Code, leader: u64, reason: String| TakeCutReply {
            code: code as u32,
            leader,
            reason,
            ..TakeCutReply::default()
        };
        if let Some(keyed) = self.keyed(group) {
            return keyed.take_cut(number).await;
        }
        let Some((raft, region)) = self.region(group) else {
            return refuse(Code::NotLeader, 0, format!("no replica of {group} is here"));
        };
        let facts = region.facts();
        if !facts.owner {
            let leader = raft.status().leader.map_or(0, |l| l.0);
            return refuse(Code::NotLeader, leader, format!("node {} does not own {group}", self.node));
        }
        let number = if number == CutNumber(0) { facts.cut.next() } else { number };
        if number <= facts.cut {
            return TakeCutReply { number: facts.cut.0, ..TakeCutReply::default() };
        }
        let cut = Cut { number: number.0, now_ms: self.clock.wall_ms() };
        let entry = RegionEntry { format: ENTRY_FORMAT, body: Some(region_entry::Body::Cut(cut)) };
        match raft.propose(Bytes::from(entry.encode_to_vec())).await {
            Ok(done) => TakeCutReply { number: number.0, index: done.position.index.0, ..TakeCutReply::default() },
            Err(ProposeError::NotLeader { leader, .. }) => {
                refuse(Code::NotLeader, leader.map_or(0, |l| l.0), format!("node {} does not own {group}", self.node))
            }
            Err(error) => refuse(Code::Unavailable, 0, error.to_string()),
        }
    }
}

impl<C: Clock> AdminBackend for NodeAdmin<C> {
    fn status(&self) -> Answer<'_, StatusReply> {
        Box::pin(async move {
            let ready = self.ready();
            let groups = self.groups.get();
            let groups =
                groups.map_or_else(Vec::new, |groups| groups.ids.iter().map(|id| self.group_status(*id, groups)).collect());
            StatusReply {
                node: self.node.0,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_ms: self.clock.monotonic().saturating_sub(self.started).as_millis() as u64,
                groups,
                clients: self.edge.get().map_or(0, |e| e.stats().clients as u32),
                ready: ready.is_ok(),
                rot_found: self.rot_found.count(),
                not_ready_because: ready.err().unwrap_or_default(),
            }
        })
    }

    fn take_cut(&self, group: GroupId, number: CutNumber) -> Answer<'_, TakeCutReply> {
        Box::pin(self.cut(group, number))
    }

    fn inspect(&self, group: GroupId, cut: CutNumber) -> Answer<'_, InspectReply> {
        Box::pin(async move {
            if let Some(keyed) = self.keyed(group) {
                return keyed.inspect(cut).await;
            }
            match self.region(group) {
                Some((_, region)) => region.clone().inspect(cut).await,
                None => InspectReply {
                    code: 1,
                    reason: format!("node {} has no replica of {group}", self.node),
                    ..InspectReply::default()
                },
            }
        })
    }

    fn skip_entry(&self, group: GroupId, index: LogIndex, reason: &str, actor: &str) -> Answer<'_, SkipEntryReply> {
        Box::pin(self.skip(group, index, skip_entry(index, reason, actor)))
    }

    fn move_owner(&self, group: GroupId, node: Option<NodeId>) -> Answer<'_, MoveOwnerReply> {
        Box::pin(async move {
            let found = self.groups.get().and_then(|groups| groups.raft.group(group));
            match found {
                Some(raft) => super::handover::move_owner(&raft, node).await,
                None => MoveOwnerReply {
                    code: Code::Refused as u32,
                    reason: format!("node {} has no replica of {group}", self.node),
                    leader: 0,
                },
            }
        })
    }

    fn seed(&self, request: SeedCharactersRequest) -> Answer<'_, SeedCharactersReply> {
        Box::pin(async move {
            let refuse =
                |code: Code, reason: String| SeedCharactersReply { code: code as u32, reason, ..SeedCharactersReply::default() };
            let group = GroupId(request.group);
            let (Some(groups), Some(keyed)) = (self.groups.get(), self.keyed(group)) else {
                return refuse(Code::NotLeader, format!("no replica of {group} is here"));
            };
            match (group.kind(), &groups.template) {
                (Some(GroupKind::Vault), Err(reason)) => refuse(Code::Refused, reason.clone()),
                (_, template) => keyed.seed(request, template.clone().unwrap_or_default()).await,
            }
        })
    }

    fn change_map(&self, request: ChangeMapRequest) -> Answer<'_, ChangeMapReply> {
        Box::pin(async move {
            let refuse = |code: Code, reason: String| ChangeMapReply { code: code as u32, reason, ..ChangeMapReply::default() };
            let group = GroupId(request.group);
            if group.kind() != Some(GroupKind::Directory) {
                return refuse(Code::Refused, format!("{group} is not a directory and has no map"));
            }
            match self.keyed(group) {
                Some(keyed) => keyed.change_map(request).await,
                None => refuse(Code::NotLeader, format!("no replica of {group} is here")),
            }
        })
    }

    fn ready(&self) -> Result<(), String> {
        let Some(Groups { raft, ids, regions, registry, .. }) = self.groups.get() else {
            // A node without replicas is ready when it takes clients.
            return self.edge.get().map(drop).ok_or_else(|| "groups are being opened".to_owned());
        };
        for id in ids {
            let Some(group) = raft.group(*id) else { return Err(format!("{id} is being rebuilt from a peer")) };
            let status = group.status();
            if let Some(fault) = status.fault {
                return Err(format!("{id} stopped: {fault}"));
            }
            if let Some(halt) = status.halted {
                return Err(format!("{id} halts at entry {}: {}", halt.index, halt.reason));
            }
            // A world goes on while the realm is away.
            if status.leader.is_none() && id.kind() != Some(GroupKind::Realm) {
                return Err(format!("{id} has no leader"));
            }
        }
        // Before that nobody can sign in, and a folder that is lost would be taken for one that never was.
        if registry.standing(raft.replica()) != Standing::Issued {
            return Err("the directory does not know this node yet".to_owned());
        }
        // One that fell asleep before its first tick has begun as well.
        let has_begun = |region: &dyn RegionPort| region.facts().tick.0 > 0 || region.facts().asleep;
        match regions.iter().find(|(_, region)| !has_begun(region.as_ref())) {
            Some((group, _)) => Err(format!("{group} has not begun yet")),
            None => Ok(()),
        }
    }

    fn metrics_text(&self) -> String {
        self.pages.get().map_or_else(String::new, |p| (p.metrics)())
    }

    fn map_json(&self) -> String {
        self.pages.get().map_or_else(|| "{}".to_owned(), |p| p.map_json.clone())
    }

    fn mint_token(&self, account: &str) -> Option<MintedToken> {
        let pages = self.pages.get()?;
        let token =
            SignInToken { account: account.to_owned(), world: pages.world, expires_ms: self.clock.wall_ms() + TOKEN_VALID_MS };
        let token = pages.signer.as_ref()?.mint(&token).ok()?;
        Some(MintedToken { token, world: pages.world_name.clone(), ws: pages.ws.clone() })
    }

    fn members(&self) -> Vec<MemberPages> {
        self.pages.get().map_or_else(Vec::new, |p| p.members.clone())
    }
}
