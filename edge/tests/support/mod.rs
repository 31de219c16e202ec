//! A small world for testing an edge alone: nodes that speak gRPC, one region that any of them may own, a directory.
//!
//! Every tick is remembered ([`World::truth`]), so that what a client was shown can be compared with what was committed. The
//! region obeys the rules that a real one has: attach numbers only grow, inputs apply at last + 1, replies are kept.

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

pub fn group() -> GroupId {
    GroupId::region(WORLD, RegionId(1))
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
    /// It asked for the region at all.
    wants: bool,
}

#[derive(Default)]
struct Queue {
    inputs: Vec<SessionInputs>,
    attaches: Vec<marchland_proto::storage::AttachOrder>,
    detaches: Vec<marchland_proto::storage::DetachOrder>,
}

pub struct Inner {
    pub tick: u64,
    index: u64,
    /// Node that owns the region; 0 is nobody.
    owner: u32,
    ents: Vec<Ent>,
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
    inner: Arc<Mutex<Inner>>,
    nodes: BTreeMap<NodeId, String>,
}

impl World {
    /// Three nodes, `walkers` that walk within 40 m of the middle, ticking. Node 1 owns the region.
    pub async fn start(walkers: usize) -> Self {
        let ents = (0..walkers)
            .map(|i| {
                let angle = i as f32 * 2.4;
                Ent {
                    entity: 1000 + i as u64,
                    name: format!("walker-{i}"),
                    at: [(i % 40) as f32 * angle.cos(), (i % 40) as f32 * angle.sin()],
                    step: [angle.sin() * 0.25, angle.cos() * 0.25],
                    before: None,
                    cell: None,
                }
            })
            .collect();
        let inner = Inner {
            tick: 0,
            index: 0,
            owner: 1,
            ents,
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
        };
        let mut world = Self { inner: Arc::new(Mutex::new(inner)), nodes: BTreeMap::new() };
        for node in 1..=3 {
            let listener = TokioTransport.listen("127.0.0.1:0").await.unwrap();
            world.nodes.insert(NodeId(node), listener.local_addr().unwrap().to_string());
            let service = Node { node, world: world.inner.clone() };
            let mut routes = tonic::service::Routes::new(RegionsServer::new(service.clone()));
            routes = routes.add_service(DirectoryServer::new(service));
            tokio::spawn(serve_cluster(listener, security(node), routes, std::future::pending()));
        }
        let ticking = world.clone();
        tokio::spawn(async move {
            let mut at = tokio::time::interval(TICK);
            loop {
                at.tick().await;
                ticking.lock().tick();
            }
        });
        world
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
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
        let mut inner = self.lock();
        let announcement =
            RegionBatch { group: group().0, region: 1, tick: inner.tick, index: inner.index + 5, ..Default::default() };
        inner.owner = node;
        inner.queue = Queue::default();
        inner.index += 5;
        let gone = RegionBatch { group: group().0, gone: Some(RegionGone { leader: replica(node) }), ..RegionBatch::default() };
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
        answer.entity = self.ents[session.slot].entity;
        answer.replies = session.replies.clone();
        answer
    }

    fn tick(&mut self) {
        if self.owner == 0 || self.paused {
            return;
        }
        self.tick += 1;
        self.index += 1;
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
                        let at = &mut self.ents[session.slot].at;
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
        for ent in &mut self.ents {
            for axis in 0..2 {
                ent.at[axis] += ent.step[axis];
                if ent.at[axis].abs() > 40.0 && ent.at[axis] * ent.step[axis] > 0.0 {
                    ent.step[axis] = -ent.step[axis];
                }
            }
        }
        let truth = self.ents.iter().map(|ent| (ent.entity, ent.quanta())).collect();
        self.truth.insert(self.tick, truth);
        self.publish(&attached, &ended, &new_replies);
        for ent in &mut self.ents {
            (ent.before, ent.cell) = (Some(ent.quanta()), Some(ent.cell_now()));
        }
    }

    fn publish(&mut self, attached: &[AttachAnswer], ended: &[SessionEnd], replies: &BTreeMap<u64, Vec<StoredReply>>) {
        let Inner { edges, ents, sessions, tick, index, owner, .. } = self;
        edges.retain(|edge| !edge.up.is_closed());
        for edge in edges.iter_mut().filter(|edge| edge.wants && edge.node == *owner) {
            let mut parts = BTreeMap::<u32, (Vec<u8>, CellPart)>::new();
            for (slot, ent) in ents.iter().enumerate() {
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
                let at = ents[session.slot].at;
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
            let batch = RegionBatch {
                group: group().0,
                region: 1,
                tick: *tick,
                index: *index,
                server_ms: 1_790_000_000_000 + *tick * 50,
                time_rate: 100,
                cells: parts
                    .into_iter()
                    .filter(|(cell, _)| edge.cells.contains(cell))
                    .map(|(cell, (motion, part))| CellPart { cell, full: fresh.contains(&cell), motion: motion.into(), ..part })
                    .collect(),
                own: own.into(),
                sessions: replies
                    .iter()
                    .filter(|(character, _)| mine(character))
                    .map(|(character, replies)| SessionBatch {
                        character: *character,
                        epoch: sessions[character].epoch,
                        replies: replies.clone(),
                        pinned: vec![],
                        move_number: 1,
                    })
                    .collect(),
                attached: attached.iter().filter(|a| mine(&a.character)).cloned().collect(),
                gone: None,
                moved: vec![],
                ended: ended.iter().filter(|e| mine(&e.character)).cloned().collect(),
            };
            edge.up.try_send(Ok(NodeToEdge { regions: vec![batch] })).expect("an edge keeps up");
        }
    }
}

#[derive(Clone)]
struct Node {
    node: u32,
    world: Arc<Mutex<Inner>>,
}

impl Node {
    fn hear(&self, up: &mpsc::Sender<Result<NodeToEdge, Status>>, message: EdgeToNode) {
        let mut inner = self.world.lock().unwrap();
        let inner = &mut *inner;
        for region in message.regions {
            assert_eq!(region.group, group().0);
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
        self.world.lock().unwrap().edges.push(EdgeSub {
            node: self.node,
            up: up.clone(),
            cells: BTreeSet::new(),
            fresh: BTreeSet::new(),
            watched: BTreeSet::new(),
            wants: false,
        });
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
        let mut inner = self.world.lock().unwrap();
        let inner = &mut *inner;
        inner.sign_ins += 1;
        let fresh = inner.names.len() as u64 + 1;
        let character = *inner.names.entry(request.character_name.clone()).or_insert(fresh);
        let ents = &mut inner.ents;
        let session = inner.sessions.entry(character).or_insert_with(|| {
            ents.push(Ent {
                entity: character,
                name: request.character_name.clone(),
                at: [character as f32 % 7.0, 0.0],
                step: [0.0; 2],
                before: None,
                cell: None,
            });
            Sess { slot: ents.len() - 1, ..Sess::default() }
        });
        let slot = session.slot;
        let epoch = session.epoch + 1;
        *session = Sess { epoch, slot, secret_hash: request.secret_hash.to_vec(), ..Sess::default() };
        let answer = SignInAnswer { code: 0, character, epoch, group: group().0, region: 1, move_number: 1 };
        Ok(Response::new(SignInReply { answer: Some(answer), ..SignInReply::default() }))
    }

    async fn locate(&self, _: Request<LocateRequest>) -> Result<Response<LocateReply>, Status> {
        let map = vec![Neighbour { region: 1, group: group().0, ..Neighbour::default() }];
        Ok(Response::new(LocateReply { map, map_epoch: 1, ..LocateReply::default() }))
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
