//! A node that has nothing but answers: one replica of one region, as a test wants it to be.

#![allow(dead_code, missing_docs, reason = "each test file uses a part of it")]

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use marchland_admin::client::AdminEndpoint;
use marchland_admin::{AdminBackend, AdminService, AdminToken, Answer, MemberPages, MintedToken};
use marchland_proto::cluster::{
    ChangeMapReply, ChangeMapRequest, ComponentHash, GroupStatus, InspectReply, MoveOwnerReply, SeedCharactersReply,
    SeedCharactersRequest, SkipEntryReply, StatusReply, TakeCutReply,
};
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterSecurity, Listener, PeerIdentity, Role, TokioTransport, Transport, serve_cluster};
use marchland_proto::storage::Neighbour;
use marchland_types::{CutNumber, GroupId, GroupKind, Incarnation, LogIndex, NodeId, RegionId, ReplicaId, WorldId};

pub const TOKEN: &str = "open sesame";

pub fn group() -> GroupId {
    GroupId::region(WorldId(1), RegionId(1))
}

pub fn replica(node: u32) -> u64 {
    ReplicaId::new(NodeId(node), Incarnation(1)).0
}

/// What all nodes of a test share.
pub struct World {
    /// Node that owns the region.
    pub owner: u32,
    /// Node that says of itself that it does, before it learns better.
    pub believed_owner: u32,
    pub cut: u64,
    pub state: InspectReply,
    /// Further groups of the same owner: each with its cut and its state.
    pub more: BTreeMap<GroupId, (u64, InspectReply)>,
    /// Where the realm lives, if it is among the further groups.
    pub realm_hosts: Vec<u32>,
    /// Id that the next new character gets.
    pub next_character: u64,
    /// What each vault was told to make: from which id on, and how many.
    pub seeded: BTreeMap<GroupId, Vec<(u64, u32)>>,
    /// Parts, and orders for the map, that get no answer before one does.
    pub stumbles: u32,
    /// Orders for the map that are obeyed without an answer.
    pub lost_answers: u32,
    /// The region map in force, and its epoch.
    pub map: Vec<Neighbour>,
    pub map_epoch: u64,
    /// Regions that have not taken it yet: one takes it each time that somebody asks, if they take it at all.
    pub waiting: u32,
    pub takes: bool,
    /// Orders for the map that were heard by the leader.
    pub map_orders: u32,
}

pub fn ground(region: u32, min: [f32; 2], max: [f32; 2]) -> Neighbour {
    let group = GroupId::region(WorldId(1), RegionId(region)).0;
    Neighbour { region, group, min_x: min[0], min_z: min[1], max_x: max[0], max_z: max[1] }
}

/// Four squares, numbered row by row, and a fifth region along the east of them. The first one's plan was changed.
pub fn five_regions() -> Vec<Neighbour> {
    let first = ground(1, [0.0, 0.0], [100.0, 100.0]);
    vec![
        Neighbour { group: GroupId::new(GroupKind::Region, WorldId(1), 77).0, ..first },
        ground(2, [100.0, 0.0], [200.0, 100.0]),
        ground(3, [0.0, 100.0], [100.0, 200.0]),
        ground(4, [100.0, 100.0], [200.0, 200.0]),
        ground(5, [200.0, 0.0], [300.0, 200.0]),
    ]
}

/// Why a map can not come after another one, in the few words that tests need.
fn bad_map(had: &[Neighbour], new: &[Neighbour]) -> Option<&'static str> {
    let ids = |map: &[Neighbour]| map.iter().map(|n| (n.region, n.group)).collect::<BTreeMap<_, _>>();
    let overlap = |a: &Neighbour, b: &Neighbour| a.min_x < b.max_x && b.min_x < a.max_x && a.min_z < b.max_z && b.min_z < a.max_z;
    // Without overlaps, and within the old bounds, as much ground is the same ground.
    let area = |map: &[Neighbour]| map.iter().map(|n| f64::from(n.max_x - n.min_x) * f64::from(n.max_z - n.min_z)).sum::<f64>();
    if new.len() != had.len() || ids(new) != ids(had) {
        Some("the new map has other regions than the world")
    } else if new.iter().enumerate().any(|(at, a)| new[at + 1..].iter().any(|b| overlap(a, b))) {
        Some("regions overlap")
    } else if area(new) != area(had) {
        Some("the new map is of other ground")
    } else {
        None
    }
}

#[derive(Clone)]
pub struct Node {
    pub number: u32,
    pub world: Arc<Mutex<World>>,
    /// Changes this replica's answer.
    pub plant: fn(&mut InspectReply),
    /// Answers "not reached" this many times.
    pub late: Arc<Mutex<u32>>,
    pub ready: Result<(), String>,
    pub mints: bool,
    pub diverged: bool,
    pub members: Vec<MemberPages>,
}

pub fn world() -> Arc<Mutex<World>> {
    let state = InspectReply {
        index: 7,
        tick: 5,
        state_hash: 11,
        items: vec![1, 2, 3],
        characters: vec![1],
        items_minted: 4,
        items_destroyed: 1,
        components: vec![ComponentHash { name: "position".into(), hash: 1 }],
        ..InspectReply::default()
    };
    Arc::new(Mutex::new(World {
        owner: 1,
        believed_owner: 1,
        cut: 0,
        state,
        more: BTreeMap::new(),
        realm_hosts: vec![1, 2, 3],
        next_character: 42,
        seeded: BTreeMap::new(),
        stumbles: 0,
        lost_answers: 0,
        map: five_regions(),
        map_epoch: 1,
        waiting: 0,
        takes: true,
        map_orders: 0,
    }))
}

impl Node {
    pub fn new(number: u32, world: &Arc<Mutex<World>>) -> Self {
        Self {
            number,
            world: world.clone(),
            plant: |_| {},
            late: Arc::default(),
            ready: Ok(()),
            mints: true,
            diverged: false,
            members: Vec::new(),
        }
    }
}

impl AdminBackend for Node {
    fn status(&self) -> Answer<'_, StatusReply> {
        let world = self.world.lock().unwrap();
        let status = GroupStatus {
            group: group().0,
            replica: replica(self.number),
            role: if world.owner == self.number { "leader" } else { "follower" }.into(),
            voters: (1..=3).map(replica).collect(),
            owner: world.believed_owner == self.number,
            diverged: self.diverged,
            ..GroupStatus::default()
        };
        // It shows no state unless a test says so.
        let role = status.role.clone();
        let directory = GroupStatus { group: GroupId::directory(WorldId(1)).0, role, ..GroupStatus::default() };
        let more = |like: &GroupStatus| -> Vec<_> {
            let voters = |group: GroupId| match group.kind() {
                Some(GroupKind::Realm) => world.realm_hosts.iter().copied().map(replica).collect(),
                _ => like.voters.clone(),
            };
            world.more.keys().map(|group| GroupStatus { group: group.0, voters: voters(*group), ..like.clone() }).collect()
        };
        let reply = StatusReply {
            node: self.number,
            version: "0.1.0".into(),
            ready: self.ready.is_ok(),
            groups: [directory, status.clone()].into_iter().chain(more(&status)).collect(),
            ..StatusReply::default()
        };
        Box::pin(async move { reply })
    }

    fn take_cut(&self, asked: GroupId, number: CutNumber) -> Answer<'_, TakeCutReply> {
        let mut world = self.world.lock().unwrap();
        let reply = if asked.kind() != Some(GroupKind::Region) && !world.more.contains_key(&asked) {
            TakeCutReply { code: Code::NotLeader as u32, ..TakeCutReply::default() }
        } else if world.owner == self.number {
            let World { cut, more, .. } = &mut *world;
            let cut = more.get_mut(&asked).map_or(cut, |(cut, _)| cut);
            *cut = if number.0 == 0 { *cut + 1 } else { (*cut).max(number.0) };
            TakeCutReply { number: *cut, index: 7, ..TakeCutReply::default() }
        } else {
            world.believed_owner = world.owner;
            TakeCutReply { code: Code::NotLeader as u32, leader: replica(world.owner), ..TakeCutReply::default() }
        };
        Box::pin(async move { reply })
    }

    fn inspect(&self, asked: GroupId, cut: CutNumber) -> Answer<'_, InspectReply> {
        let mut late = self.late.lock().unwrap();
        let world = self.world.lock().unwrap();
        let reply = if let Some((taken, state)) = world.more.get(&asked) {
            // A cut is kept until the next one.
            let code = match cut.0.cmp(taken) {
                Ordering::Greater => 2,
                Ordering::Equal => 0,
                Ordering::Less => 3,
            };
            InspectReply { code, ..state.clone() }
        } else if asked != group() {
            InspectReply { code: 1, ..InspectReply::default() }
        } else if *late > 0 || cut.0 > world.cut {
            *late = late.saturating_sub(1);
            InspectReply { code: 2, ..InspectReply::default() }
        } else {
            let mut state = world.state.clone();
            (self.plant)(&mut state);
            state
        };
        Box::pin(async move { reply })
    }

    fn skip_entry(&self, asked: GroupId, index: LogIndex, reason: &str, actor: &str) -> Answer<'_, SkipEntryReply> {
        let world = self.world.lock().unwrap();
        let refuse = |code: Code, reason: String| SkipEntryReply {
            code: code as u32,
            reason,
            leader: replica(world.owner),
            ..SkipEntryReply::default()
        };
        let reply = if asked != group() || world.owner != self.number {
            refuse(Code::NotLeader, String::new())
        } else if index.0 != 7 {
            refuse(Code::Refused, "it halts elsewhere".into())
        } else {
            assert_eq!((reason, actor.is_empty()), ("it panics", false));
            SkipEntryReply { order_index: 9, tick: 6, ..SkipEntryReply::default() }
        };
        Box::pin(async move { reply })
    }

    fn move_owner(&self, asked: GroupId, node: Option<NodeId>) -> Answer<'_, MoveOwnerReply> {
        let mut world = self.world.lock().unwrap();
        let to = node.map_or(self.number % 3 + 1, |node| node.0);
        let reply = if asked != group() || world.owner != self.number {
            MoveOwnerReply { code: Code::NotLeader as u32, leader: replica(world.owner), ..MoveOwnerReply::default() }
        } else if to > 3 {
            let reason = format!("node {to} has no voting replica");
            MoveOwnerReply { code: Code::Refused as u32, reason, leader: replica(world.owner) }
        } else {
            world.owner = to;
            MoveOwnerReply { leader: replica(to), ..MoveOwnerReply::default() }
        };
        Box::pin(async move { reply })
    }

    fn seed(&self, request: SeedCharactersRequest) -> Answer<'_, SeedCharactersReply> {
        let mut world = self.world.lock().unwrap();
        let reply = |code: Code, next_character| SeedCharactersReply {
            code: code as u32,
            next_character,
            ..SeedCharactersReply::default()
        };
        let asked = GroupId(request.group);
        let answer = if world.owner != self.number {
            reply(Code::NotLeader, 0)
        } else if world.stumbles > 0 {
            world.stumbles -= 1;
            reply(Code::Unavailable, 0)
        } else if asked == GroupId::directory(WorldId(1)) {
            if request.prefix == "taken" {
                reply(Code::NameTaken, 0)
            } else if request.first == world.next_character {
                world.next_character += u64::from(request.count);
                reply(Code::Ok, world.next_character)
            } else {
                reply(Code::Refused, world.next_character)
            }
        } else {
            world.seeded.entry(asked).or_default().push((request.first, request.count));
            reply(Code::Ok, 0)
        };
        Box::pin(async move { answer })
    }

    fn change_map(&self, request: ChangeMapRequest) -> Answer<'_, ChangeMapReply> {
        let mut world = self.world.lock().unwrap();
        let leader = replica(world.owner);
        let reply = |code: Code, reason: &str| ChangeMapReply {
            code: code as u32,
            reason: reason.into(),
            leader,
            ..ChangeMapReply::default()
        };
        let mut answer = if world.owner != self.number {
            reply(Code::NotLeader, "group is not led here")
        } else if GroupId(request.group) != GroupId::directory(WorldId(1)) {
            reply(Code::Refused, "only a directory has a map")
        } else if world.stumbles > 0 {
            world.stumbles -= 1;
            reply(Code::Unavailable, "outcome of the order is unknown")
        } else if request.map_epoch == 0 {
            world.waiting -= u32::from(world.takes && world.waiting > 0);
            reply(Code::Ok, "")
        } else {
            world.map_orders += 1;
            if request.map_epoch == world.map_epoch && request.map == world.map {
                reply(Code::Ok, "")
            } else if request.map_epoch != world.map_epoch + 1 {
                reply(Code::Refused, "one more is expected")
            } else if let Some(reason) = bad_map(&world.map, &request.map) {
                reply(Code::Refused, reason)
            } else {
                (world.map_epoch, world.waiting) = (request.map_epoch, request.map.len() as u32);
                world.map = request.map;
                let is_lost = world.lost_answers > 0;
                world.lost_answers -= u32::from(is_lost);
                if is_lost { reply(Code::Unavailable, "outcome of the order is unknown") } else { reply(Code::Ok, "") }
            }
        };
        if !matches!(Code::from_u32(answer.code), Some(Code::NotLeader | Code::Unavailable)) {
            (answer.map_epoch, answer.map, answer.waiting) = (world.map_epoch, world.map.clone(), world.waiting);
        }
        Box::pin(async move { answer })
    }

    fn ready(&self) -> Result<(), String> {
        self.ready.clone()
    }

    fn metrics_text(&self) -> String {
        "marchland_clients 3\n".into()
    }

    fn map_json(&self) -> String {
        r#"{"open":true,"side_m":100}"#.into()
    }

    fn mint_token(&self, account: &str) -> Option<MintedToken> {
        let minted = MintedToken { token: format!("t-{account}"), world: "aurora".into(), ws: "ws://127.0.0.1:1".into() };
        self.mints.then_some(minted)
    }

    fn members(&self) -> Vec<MemberPages> {
        self.members.clone()
    }
}

pub fn security(roles: &[Role]) -> ClusterSecurity {
    ClusterSecurity::simulated(PeerIdentity {
        cluster: "dev".into(),
        node: NodeId(0),
        roles: roles.iter().copied().collect(),
        worlds: None,
    })
}

/// Serves the node's admin service on a free port; returns the address.
pub async fn serve_node(node: Node) -> String {
    let listener = TokioTransport.listen("127.0.0.1:0").await.unwrap();
    let address = Listener::local_addr(&listener).unwrap().to_string();
    let service = AdminService::server(Arc::new(node), AdminToken::new(TOKEN));
    let routes = tonic::service::Routes::new(service);
    tokio::spawn(serve_cluster(listener, security(&[Role::Shard]), routes, std::future::pending()));
    address
}

/// How a test's tool reaches these nodes.
pub fn endpoint(addresses: Vec<String>) -> AdminEndpoint {
    AdminEndpoint { addresses, security: security(&[Role::Admin]), token: TOKEN.into() }
}
