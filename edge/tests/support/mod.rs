//! A small world for testing an edge alone: nodes that speak gRPC, one or two regions that any of them may own, a directory.
//!
//! Every tick is remembered ([`World::truth`]), so that what a client was shown can be compared with what was committed. A
//! region obeys the rules that a real one has: attach numbers only grow, inputs apply at last + 1, replies are kept; who goes
//! beyond its ground is handed over, with its session, and for a while it is known where to.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use marchland_edge::client::{ClientError, ClientOptions, Login, PlayerClient};
use marchland_edge::{Edge, EdgeOptions};
use marchland_proto::client::{Action, Move, input::What};
use marchland_proto::cluster::directory_server::{Directory, DirectoryServer};
use marchland_proto::cluster::regions_server::{Regions, RegionsServer};
use marchland_proto::cluster::*;
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterSecurity, PeerIdentity, Role, TokioTransport, Transport, serve_cluster};
use marchland_proto::records::{Motion, OwnState, quantize};
use marchland_proto::storage::{Neighbour, SessionInputs, SignInAnswer, stored_input};
use marchland_types::seam::{Clock, Entropy};
use marchland_types::{CellId, GroupId, Incarnation, NodeId, RegionId, ReplicaId, WorldId};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub const WORLD: WorldId = WorldId(1);
pub const TICK: Duration = Duration::from_millis(50);

pub type Client = PlayerClient<TcpStream>;

/// The machine's clocks.
#[derive(Clone)]
pub struct RealClock(tokio::time::Instant);

impl Clock for RealClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "the real clock, for tests over real sockets")]
    fn wall_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_millis() as u64
    }
}

/// Unpredictable enough for a test, and the same in every run.
#[derive(Clone, Default)]
pub struct CountedEntropy(Arc<Mutex<u64>>);

impl Entropy for CountedEntropy {
    fn fill(&self, out: &mut [u8]) {
        let mut state = self.0.lock().unwrap();
        for byte in out {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (*state >> 56) as u8;
        }
    }
}

/// How far somebody goes beyond the border before they are handed over, in metres.
const HYSTERESIS_M: f32 = 4.0;
/// Ticks of the receiver until it has what was handed over.
const CHANNEL_TICKS: u64 = 3;
/// Ticks for which a region remembers where somebody went.
const STUB_TICKS: u64 = 60;

pub fn group() -> GroupId {
    group_of(1)
}

fn group_of(region: u32) -> GroupId {
    GroupId::region(WORLD, RegionId(region))
}

fn security(node: u32) -> ClusterSecurity {
    ClusterSecurity::simulated(PeerIdentity {
        cluster: "test".into(),
        node: NodeId(node),
        roles: [Role::Shard, Role::Edge].into(),
        worlds: None,
    })
}

#[derive(Clone, Debug)]
struct Ent {
    entity: u64,
    name: String,
    at: [f32; 2],
    step: [f32; 2],
    before: Option<[i32; 3]>,
    cell: Option<u32>,
    move_number: u64,
}

impl Ent {
    fn quanta(&self) -> [i32; 3] {
        [quantize(self.at[0]), 0, quantize(self.at[1])]
    }

    fn cell_now(&self) -> u32 {
        CellId::of(self.at[0], self.at[1]).pack()
    }
}

#[derive(Clone, Debug, Default)]
struct Sess {
    epoch: u64,
    attach: u32,
    attached: bool,
    secret_hash: Vec<u8>,
    applied_seq: u64,
    slot: usize,
    replies: Vec<StoredReply>,
    last_reply: u64,
}

struct EdgeSub {
    node: u32,
    up: mpsc::Sender<Result<NodeToEdge, Status>>,
    cells: BTreeSet<u32>,
    fresh: BTreeSet<u32>,
    watched: BTreeSet<u64>,
    fresh_sessions: BTreeSet<u64>,
    /// It asked for the region at all.
    wants: bool,
}

#[derive(Default)]
struct Queue {
    inputs: Vec<SessionInputs>,
    attaches: Vec<marchland_proto::storage::AttachOrder>,
    detaches: Vec<marchland_proto::storage::DetachOrder>,
}

/// Somebody who goes to another region, with their session.
struct Handoff {
    ent: Ent,
    session: Option<(u64, Sess)>,
    /// Tick of the receiver.
    due: u64,
}

/// A region.
pub struct Inner {
    region: u32,
    /// Its ground, from west to east.
    ground: [f32; 2],
    /// The map that it goes by.
    map_epoch: u64,
    pub tick: u64,
    index: u64,
    /// Node that owns the region; 0 is nobody.
    owner: u32,
    ents: Vec<Option<Ent>>,
    inbox: Vec<Handoff>,
    outbox: Vec<Handoff>,
    /// Where sessions went, and when.
    stubs: BTreeMap<u64, (u64, SessionMoved)>,
    sessions: BTreeMap<u64, Sess>,
    queue: Queue,
    edges: Vec<EdgeSub>,
    truth: BTreeMap<u64, BTreeMap<u64, [i32; 3]>>,
    names: BTreeMap<String, u64>,
    /// Actions as they were applied: (character, seq).
    pub applied_actions: Vec<(u64, u64)>,
    pub goodbyes: Vec<u64>,
    pub detached: Vec<u64>,
    /// Attaches are answered with `NotAdmitted` so many times.
    pub admits_late: u32,
    pub sign_ins: u32,
    /// Nobody publishes while this is set.
    pub paused: bool,
}

/// The world and its nodes.
#[derive(Clone)]
pub struct World {
    regions: Vec<Region>,
    nodes: BTreeMap<NodeId, String>,
}

type Region = Arc<Mutex<Inner>>;

impl World {
    /// Three nodes, `walkers` that walk within 40 m of the middle, ticking. Node 1 owns the region.
    pub async fn start(walkers: usize) -> Self {
        Self::with(walkers, &[[f32::NEG_INFINITY, f32::INFINITY]]).await
    }

    /// Two regions, with the border in the middle. The western one, where everybody begins, is node 1's, the other one node 3's.
    pub async fn start_two(walkers: usize) -> Self {
        Self::with(walkers, &[[-500.0, 0.0], [0.0, 500.0]]).await
    }

    async fn with(walkers: usize, grounds: &[[f32; 2]]) -> Self {
        let ents = |ground: [f32; 2]| {
            let walker = |i: usize| {
                let angle = i as f32 * 2.4;
                let at = [(i % 40) as f32 * angle.cos(), (i % 40) as f32 * angle.sin()];
                (ground[0] <= at[0] && at[0] < ground[1]).then(|| Ent {
                    entity: 1000 + i as u64,
                    name: format!("walker-{i}"),
                    at,
                    step: [angle.sin() * 0.25, angle.cos() * 0.25],
                    before: None,
                    cell: None,
                    move_number: 1,
                })
            };
            (0..walkers).filter_map(walker).map(Some).collect()
        };
        let region = |(i, &ground): (usize, &[f32; 2])| {
            Arc::new(Mutex::new(Inner {
                region: i as u32 + 1,
                ground,
                map_epoch: 1,
                // Ticks of different regions have nothing to do with each other.
                tick: i as u64 * 500,
                index: 0,
                owner: 1 + 2 * i as u32,
                ents: ents(ground),
                inbox: Vec::new(),
                outbox: Vec::new(),
                stubs: BTreeMap::new(),
                sessions: BTreeMap::new(),
                queue: Queue::default(),
                edges: Vec::new(),
                truth: BTreeMap::new(),
                names: BTreeMap::new(),
                applied_actions: Vec::new(),
                goodbyes: Vec::new(),
                detached: Vec::new(),
                admits_late: 0,
                sign_ins: 0,
                paused: false,
            }))
        };
        let mut world = Self { regions: grounds.iter().enumerate().map(region).collect(), nodes: BTreeMap::new() };
        for node in 1..=3 {
            let listener = TokioTransport.listen("127.0.0.1:0").await.unwrap();
            world.nodes.insert(NodeId(node), listener.local_addr().unwrap().to_string());
            let service = Node { node, regions: world.regions.clone() };
            let mut routes = tonic::service::Routes::new(RegionsServer::new(service.clone()));
            routes = routes.add_service(DirectoryServer::new(service));
            tokio::spawn(serve_cluster(listener, security(node), routes, std::future::pending()));
        }
        let ticking = world.clone();
        tokio::spawn(async move {
            let mut at = tokio::time::interval(TICK / ticking.regions.len() as u32);
            loop {
                for region in &ticking.regions {
                    at.tick().await;
                    let leaving = {
                        let mut region = region.lock().unwrap();
                        region.tick();
                        std::mem::take(&mut region.outbox)
                    };
                    for handoff in leaving {
                        let mut to = ticking.regions.iter().map(|to| to.lock().unwrap());
                        let mut to = to.find(|to| to.is_ground(handoff.ent.at[0], 0.0)).expect("somebody's ground");
                        let due = to.tick + CHANNEL_TICKS;
                        to.inbox.push(Handoff { due, ..handoff });
                    }
                }
            }
        });
        world
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.regions[0].lock().unwrap()
    }

    /// Whether a character is between two regions.
    pub fn is_on_the_way(&self, character: u64) -> bool {
        self.regions.iter().all(|region| !region.lock().unwrap().sessions.contains_key(&character))
    }

    /// The border between two regions moves.
    pub fn move_border(&self, to: f32) {
        for (at, region) in self.regions.iter().enumerate() {
            let mut region = region.lock().unwrap();
            region.ground[1 - at] = to;
            region.map_epoch += 1;
        }
    }

    /// Cells and sessions that edges follow in a region.
    pub fn followed(&self, region: u32) -> usize {
        self.region(region).edges.iter().map(|edge| edge.cells.len() + edge.watched.len()).sum()
    }

    /// A region by its number, 1 or 2.
    pub fn region(&self, region: u32) -> MutexGuard<'_, Inner> {
        self.regions[region as usize - 1].lock().unwrap()
    }

    /// Where everybody was after a tick, by entity.
    pub fn truth(&self, tick: u64) -> BTreeMap<u64, [i32; 3]> {
        self.lock().truth[&tick].clone()
    }

    pub fn options(&self) -> EdgeOptions {
        EdgeOptions::of_world("127.0.0.1:0", WORLD, "aurora", self.nodes.clone())
    }

    /// An edge on a thread of its own.
    pub async fn edge(&self, options: EdgeOptions) -> Edge {
        let clock = RealClock(tokio::time::Instant::now());
        let entropy = CountedEntropy::default();
        let (edge, workers) = Edge::bind(options, TokioTransport, security(9), clock, entropy).await.unwrap();
        for worker in workers {
            let run = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                tokio::task::LocalSet::new().block_on(&runtime, marchland_edge::run_worker(worker));
            };
            std::thread::Builder::new().name("edge".into()).spawn(run).unwrap();
        }
        edge
    }

    /// The region is owned by another node from now on. What was not applied yet is lost with the old owner.
    pub fn move_owner(&self, node: u32) {
        self.move_owner_of(1, node);
    }

    /// The same for one of two regions.
    pub fn move_owner_of(&self, region: u32, node: u32) {
        let mut inner = self.region(region);
        let group = group_of(region).0;
        let announcement = RegionBatch { group, region, tick: inner.tick, index: inner.index + 5, ..Default::default() };
        inner.owner = node;
        inner.queue = Queue::default();
        inner.index += 5;
        let gone = RegionBatch { group, gone: Some(RegionGone { leader: replica(node) }), ..RegionBatch::default() };
        for edge in inner.edges.iter_mut().filter(|edge| edge.wants && edge.node != node) {
            edge.wants = false;
            let _ = edge.up.try_send(Ok(NodeToEdge { regions: vec![gone.clone()] }));
        }
        for edge in inner.edges.iter_mut().filter(|edge| edge.node == node) {
            let _ = edge.up.try_send(Ok(NodeToEdge { regions: vec![announcement.clone()] }));
        }
    }
}

fn replica(node: u32) -> u64 {
    if node == 0 { 0 } else { ReplicaId::new(NodeId(node), Incarnation(1)).0 }
}

impl Inner {
    /// Its entities, and where they are, east and south.
    pub fn places(&self) -> Vec<(u64, [f32; 2])> {
        self.ents.iter().flatten().map(|ent| (ent.entity, ent.at)).collect()
    }

    fn is_ground(&self, x: f32, beyond_m: f32) -> bool {
        self.ground[0] - beyond_m <= x && x < self.ground[1] + beyond_m
    }

    /// Who stands too far beyond the border goes, with their session. Returns what watchers of cells are told.
    fn hand_over(&mut self) -> Vec<(u32, HandedOff)> {
        let mut told = Vec::new();
        for slot in 0..self.ents.len() {
            let gone = self.ents[slot]
                .take_if(|ent| !(self.ground[0] - HYSTERESIS_M..self.ground[1] + HYSTERESIS_M).contains(&ent.at[0]));
            let Some(mut ent) = gone else { continue };
            ent.move_number += 1;
            let to = 3 - self.region;
            let to_group = group_of(to).0;
            let character = self.sessions.iter().find(|(_, session)| session.slot == slot).map(|(character, _)| *character);
            let session = character.and_then(|character| Some((character, self.sessions.remove(&character)?)));
            if let Some((character, session)) = &session {
                let (character, epoch, move_number) = (*character, session.epoch, ent.move_number);
                let moved = SessionMoved { character, epoch, group: to_group, region: to, move_number };
                self.stubs.insert(character, (self.tick, moved));
            }
            let handed = HandedOff { slot: slot as u32, entity: ent.entity, move_number: ent.move_number, to_group };
            told.extend(ent.cell.take().map(|cell| (cell, handed)));
            ent.before = None;
            self.outbox.push(Handoff { ent, session, due: 0 });
        }
        told
    }

    fn take_in(&mut self) {
        let tick = self.tick;
        for Handoff { ent, session, .. } in self.inbox.extract_if(.., |handoff| handoff.due <= tick).collect::<Vec<_>>() {
            let slot = self.ents.iter().position(Option::is_none).unwrap_or(self.ents.len());
            if slot == self.ents.len() {
                self.ents.push(None);
            }
            self.ents[slot] = Some(ent);
            if let Some((character, session)) = session {
                self.stubs.remove(&character);
                self.sessions.insert(character, Sess { slot, ..session });
                self.edges.iter_mut().for_each(|edge| edge.fresh_sessions.extend([character]));
            }
        }
        self.stubs.retain(|_, (since, _)| tick - *since < STUB_TICKS);
    }

    fn attach(&mut self, order: marchland_proto::storage::AttachOrder, ended: &mut Vec<SessionEnd>) -> AttachAnswer {
        let mut answer = AttachAnswer {
            character: order.character,
            epoch: order.epoch,
            attach: order.attach,
            rules_version: 1,
            max_speed: 5.0,
            ..AttachAnswer::default()
        };
        if self.admits_late > 0 {
            self.admits_late -= 1;
            answer.code = Code::NotAdmitted as u32;
            return answer;
        }
        if let Some((_, moved)) = self.stubs.get(&order.character) {
            (answer.code, answer.moved) = (Code::Moved as u32, Some(*moved));
            return answer;
        }
        let Some(session) = self.sessions.get_mut(&order.character).filter(|s| s.epoch == order.epoch) else {
            answer.code = Code::NotAdmitted as u32;
            return answer;
        };
        if session.secret_hash != order.secret_hash {
            answer.code = Code::BadResume as u32;
            return answer;
        }
        if order.attach < session.attach {
            answer.code = Code::Superseded as u32;
            return answer;
        }
        if order.attach > session.attach && session.attached {
            ended.push(SessionEnd {
                character: order.character,
                epoch: session.epoch,
                attach: session.attach,
                code: Code::Superseded as u32,
            });
        }
        (session.attach, session.attached) = (order.attach, true);
        session.replies.retain(|reply| reply.reply_seq > order.last_reply_seq);
        answer.next_seq = session.applied_seq + 1;
        answer.entity = self.ents[session.slot].as_ref().unwrap().entity;
        answer.replies = session.replies.clone();
        answer
    }

    fn tick(&mut self) {
        if self.owner == 0 || self.paused {
            return;
        }
        self.tick += 1;
        self.index += 1;
        self.take_in();
        let Queue { inputs, attaches, detaches } = std::mem::take(&mut self.queue);
        let (mut ended, mut new_replies) = (Vec::new(), BTreeMap::<u64, Vec<StoredReply>>::new());
        let attached: Vec<_> = attaches.into_iter().map(|order| self.attach(order, &mut ended)).collect();
        for order in detaches {
            let Some(session) = self.sessions.get_mut(&order.character) else { continue };
            if (session.epoch, session.attach) == (order.epoch, order.attach) && session.attached {
                session.attached = false;
                self.detached.push(order.character);
                if order.goodbye {
                    self.goodbyes.push(order.character);
                    let code = Code::Goodbye as u32;
                    ended.push(SessionEnd { character: order.character, epoch: order.epoch, attach: order.attach, code });
                }
            }
        }
        for batch in inputs {
            let Some(session) = self.sessions.get_mut(&batch.character) else { continue };
            if (session.epoch, session.attach) != (batch.epoch, batch.attach) {
                continue;
            }
            session.replies.retain(|reply| reply.reply_seq > batch.acked_reply_seq);
            for input in batch.inputs {
                if input.seq <= session.applied_seq {
                    continue;
                }
                assert_eq!(input.seq, session.applied_seq + 1, "a gap in the inputs of {}", batch.character);
                session.applied_seq = input.seq;
                match input.what {
                    Some(stored_input::What::Move(step)) => {
                        let at = &mut self.ents[session.slot].as_mut().unwrap().at;
                        at[0] += step.x * 0.25;
                        at[1] += step.z * 0.25;
                    }
                    Some(stored_input::What::Action(action)) => {
                        self.applied_actions.push((batch.character, input.seq));
                        session.last_reply += 1;
                        let reply =
                            StoredReply { reply_seq: session.last_reply, command_seq: input.seq, code: 0, body: action.body };
                        session.replies.push(reply.clone());
                        new_replies.entry(batch.character).or_default().push(reply);
                    }
                    None => {}
                }
            }
        }
        for ent in self.ents.iter_mut().flatten() {
            for axis in 0..2 {
                ent.at[axis] += ent.step[axis];
                if ent.at[axis].abs() > 40.0 && ent.at[axis] * ent.step[axis] > 0.0 {
                    ent.step[axis] = -ent.step[axis];
                }
            }
        }
        let handed = self.hand_over();
        let truth = self.ents.iter().flatten().map(|ent| (ent.entity, ent.quanta())).collect();
        self.truth.insert(self.tick, truth);
        self.publish(&attached, &ended, &new_replies, &handed);
        for ent in self.ents.iter_mut().flatten() {
            (ent.before, ent.cell) = (Some(ent.quanta()), Some(ent.cell_now()));
        }
    }

    fn publish(
        &mut self,
        attached: &[AttachAnswer],
        ended: &[SessionEnd],
        replies: &BTreeMap<u64, Vec<StoredReply>>,
        handed: &[(u32, HandedOff)],
    ) {
        let Inner { region, edges, ents, sessions, stubs, tick, index, owner, map_epoch, .. } = self;
        edges.retain(|edge| !edge.up.is_closed());
        for edge in edges.iter_mut().filter(|edge| edge.wants && edge.node == *owner) {
            let mut parts = BTreeMap::<u32, (Vec<u8>, CellPart)>::new();
            for (cell, handed) in handed.iter().filter(|(cell, _)| !edge.fresh.contains(cell)) {
                parts.entry(*cell).or_default().1.handed.push(*handed);
            }
            for (slot, ent) in ents.iter().enumerate() {
                let Some(ent) = ent else { continue };
                let (cell, at) = (ent.cell_now(), ent.quanta());
                let came = ent.cell != Some(cell);
                if came && let Some(old) = ent.cell {
                    parts.entry(old).or_default().1.left.push(slot as u32);
                }
                let full = edge.fresh.contains(&cell);
                let (motion, part) = parts.entry(cell).or_default();
                if came || full {
                    part.entities.push(EntityRecord {
                        slot: slot as u32,
                        entity: ent.entity,
                        kind: 1,
                        name: ent.name.clone(),
                        x: at[0],
                        z: at[2],
                        move_number: ent.move_number,
                        ..EntityRecord::default()
                    });
                }
                if full || ent.before != Some(at) {
                    let delta = ent.before.and_then(|before| Motion::delta_between(before, at));
                    Motion { slot: slot as u32, x: at[0], y: 0, z: at[2], delta, yaw: 0 }.put(motion);
                }
            }
            for cell in &edge.fresh {
                parts.entry(*cell).or_default();
            }
            let mut own = Vec::new();
            for character in &edge.watched {
                let Some(session) = sessions.get(character) else { continue };
                let at = ents[session.slot].as_ref().unwrap().at;
                OwnState {
                    character: *character,
                    applied_seq: session.applied_seq,
                    move_seq: session.applied_seq,
                    position: [at[0], 0.0, at[1]],
                    slot: session.slot as u32,
                    ..OwnState::default()
                }
                .put(&mut own);
            }
            let mine = |character: &u64| edge.watched.contains(character);
            let fresh = std::mem::take(&mut edge.fresh);
            // Whoever has just come knows nothing yet.
            let mut owed = std::mem::take(&mut edge.fresh_sessions);
            owed.extend(attached.iter().map(|answer| answer.character));
            let session_of = |character: &u64| {
                let session = sessions.get(character)?;
                let is_owed = owed.contains(character);
                let replies = if is_owed { Some(&session.replies) } else { replies.get(character) };
                Some(SessionBatch {
                    character: *character,
                    epoch: session.epoch,
                    replies: replies?.clone(),
                    pinned: vec![],
                    move_number: if is_owed { ents[session.slot].as_ref().unwrap().move_number } else { 0 },
                })
            };
            let gone = |(character, (since, moved)): (&u64, &(u64, SessionMoved))| {
                (mine(character) && (since == tick || owed.contains(character))).then_some(*moved)
            };
            let batch = RegionBatch {
                group: group_of(*region).0,
                region: *region,
                tick: *tick,
                index: *index,
                // Their clocks differ a little.
                server_ms: 1_790_000_000_000 + *tick * 50 - u64::from(*region - 1) * 25_020,
                time_rate: 100,
                next_in_ms: TICK.as_millis() as u32 + 1,
                map_epoch: *map_epoch,
                cells: parts
                    .into_iter()
                    .filter(|(cell, _)| edge.cells.contains(cell))
                    .map(|(cell, (motion, part))| CellPart { cell, full: fresh.contains(&cell), motion: motion.into(), ..part })
                    .collect(),
                own: own.into(),
                sessions: edge.watched.iter().filter_map(session_of).collect(),
                attached: attached.iter().filter(|a| mine(&a.character)).cloned().collect(),
                gone: None,
                moved: stubs.iter().filter_map(gone).collect(),
                ended: ended.iter().filter(|e| mine(&e.character)).cloned().collect(),
            };
            edge.up.try_send(Ok(NodeToEdge { regions: vec![batch] })).expect("an edge keeps up");
        }
    }
}

#[derive(Clone)]
struct Node {
    node: u32,
    regions: Vec<Region>,
}

impl Node {
    fn hear(&self, up: &mpsc::Sender<Result<NodeToEdge, Status>>, message: EdgeToNode) {
        for region in message.regions {
            let serial = GroupId(region.group).serial();
            let mut inner = self.regions[serial as usize - 1].lock().unwrap();
            let inner = &mut *inner;
            let Some(edge) = inner.edges.iter_mut().find(|edge| edge.up.same_channel(up)) else { continue };
            if inner.owner != self.node {
                edge.wants = false;
                if region.reset && region.subscribe.is_empty() && region.watch_sessions.is_empty() {
                    continue;
                }
                let gone = RegionGone { leader: replica(inner.owner) };
                let batch = RegionBatch { group: region.group, gone: Some(gone), ..RegionBatch::default() };
                let _ = up.try_send(Ok(NodeToEdge { regions: vec![batch] }));
                continue;
            }
            if region.reset {
                edge.cells.clear();
                edge.fresh.clear();
                edge.watched.clear();
                edge.fresh_sessions.clear();
            }
            edge.wants = true;
            for cell in region.unsubscribe {
                edge.cells.remove(&cell);
                edge.fresh.remove(&cell);
            }
            for cell in region.subscribe {
                edge.cells.insert(cell);
                edge.fresh.insert(cell);
            }
            for character in region.unwatch_sessions {
                edge.watched.remove(&character);
            }
            edge.fresh_sessions.extend(&region.watch_sessions);
            edge.watched.extend(region.watch_sessions);
            inner.queue.inputs.extend(region.inputs);
            inner.queue.attaches.extend(region.attaches);
            inner.queue.detaches.extend(region.detaches);
        }
    }
}

#[tonic::async_trait]
impl Regions for Node {
    type AttachStream = ReceiverStream<Result<NodeToEdge, Status>>;

    async fn attach(&self, request: Request<Streaming<EdgeToNode>>) -> Result<Response<Self::AttachStream>, Status> {
        let mut inbound = request.into_inner();
        let (up, down) = mpsc::channel(1024);
        for region in &self.regions {
            region.lock().unwrap().edges.push(EdgeSub {
                node: self.node,
                up: up.clone(),
                cells: BTreeSet::new(),
                fresh: BTreeSet::new(),
                watched: BTreeSet::new(),
                fresh_sessions: BTreeSet::new(),
                wants: false,
            });
        }
        let node = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = inbound.next().await {
                node.hear(&up, message);
            }
        });
        Ok(Response::new(ReceiverStream::new(down)))
    }

    async fn compare(&self, _: Request<CompareRequest>) -> Result<Response<CompareReply>, Status> {
        Err(Status::unimplemented("no replica"))
    }

    async fn show_ghosts(&self, _: Request<GhostRequest>) -> Result<Response<GhostAnswer>, Status> {
        Err(Status::unimplemented("no neighbours"))
    }

    async fn deliver(&self, _: Request<DeliverRequest>) -> Result<Response<DeliverAnswer>, Status> {
        Err(Status::unimplemented("not in this world"))
    }
}

#[tonic::async_trait]
impl Directory for Node {
    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInReply>, Status> {
        let request = request.into_inner();
        // Node 2 leads the directory.
        if self.node != 2 {
            let code = Code::NotLeader as u32;
            return Ok(Response::new(SignInReply { code, leader: replica(2), ..SignInReply::default() }));
        }
        if request.token != "token" {
            let reply = SignInReply { code: Code::BadToken as u32, reason: "no".into(), ..SignInReply::default() };
            return Ok(Response::new(reply));
        }
        let mut inner = self.regions[0].lock().unwrap();
        let inner = &mut *inner;
        inner.sign_ins += 1;
        let fresh = inner.names.len() as u64 + 1;
        let character = *inner.names.entry(request.character_name.clone()).or_insert(fresh);
        let ents = &mut inner.ents;
        let session = inner.sessions.entry(character).or_insert_with(|| {
            ents.push(Some(Ent {
                entity: character,
                name: request.character_name.clone(),
                at: [character as f32 % 7.0, 0.0],
                step: [0.0; 2],
                before: None,
                cell: None,
                move_number: 1,
            }));
            Sess { slot: ents.len() - 1, ..Sess::default() }
        });
        let slot = session.slot;
        let epoch = session.epoch + 1;
        *session = Sess { epoch, slot, secret_hash: request.secret_hash.to_vec(), ..Sess::default() };
        let answer = SignInAnswer { code: 0, character, epoch, group: group().0, region: 1, move_number: 1 };
        Ok(Response::new(SignInReply { answer: Some(answer), ..SignInReply::default() }))
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Result<Response<LocateReply>, Status> {
        let character = request.into_inner().character;
        let map_epoch = self.regions[0].lock().unwrap().map_epoch;
        let mut reply = LocateReply { map_epoch, ..LocateReply::default() };
        for region in &self.regions {
            let region = region.lock().unwrap();
            let group = group_of(region.region).0;
            if let Some(session) = region.sessions.get(&character) {
                let move_number = region.ents[session.slot].as_ref().unwrap().move_number;
                reply = LocateReply { group, region: region.region, move_number, ..reply };
            }
            let [min_x, max_x] = region.ground;
            reply.map.push(Neighbour { region: region.region, group, min_x, min_z: -500.0, max_x, max_z: 500.0 });
        }
        Ok(Response::new(reply))
    }

    async fn register(&self, _: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        Err(Status::unimplemented("not in this world"))
    }
}

// ---- players

pub fn sign_in(name: &str) -> Login {
    Login::SignIn { token: "token".into(), character_name: name.into() }
}

pub async fn join(address: SocketAddr, name: &str) -> Result<Client, ClientError> {
    connect(address, &sign_in(name)).await
}

pub async fn connect(address: SocketAddr, login: &Login) -> Result<Client, ClientError> {
    let options = ClientOptions { client_name: "test".into(), ..ClientOptions::default() };
    let address = address.to_string();
    let work = PlayerClient::connect(&TokioTransport, &address, &options, login);
    tokio::time::timeout(Duration::from_secs(12), work).await.expect("an answer in time")
}

pub fn walk(x: f32, z: f32) -> What {
    What::Move(Move { x, z, yaw: 0 })
}

pub fn action(body: &[u8]) -> What {
    What::Action(Action { code: 1, body: body.to_vec().into() })
}

/// Frames until the condition holds; panics after ten seconds.
pub async fn until(client: &mut Client, what: &str, mut done: impl FnMut(&Client) -> bool) {
    let wait = async {
        while !done(client) {
            client.next().await.unwrap_or_else(|error| panic!("until {what}: {error}"));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Whatever the client shows is what was committed in that tick.
pub fn check_shown(world: &World, client: &Client) {
    let truth = world.truth(client.view.tick());
    let own = client.welcome().self_entity;
    for (alias, other) in client.view.others() {
        assert_ne!(other.entity, own, "oneself is not among the others");
        assert_eq!(truth.get(&other.entity), Some(&other.at), "alias {alias}, tick {}", client.view.tick());
    }
    assert_eq!(client.view.faults(), []);
}
