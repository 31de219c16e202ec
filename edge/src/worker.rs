//! One loop of an edge: its connections, its regions, and the streams to their owners.
//!
//! Everything here runs on one thread. The tables are borrowed only within a call and never across an `await`; effects of
//! sessions are gathered while they are borrowed and performed after.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use marchland_edge_core::session::{SessionKey, Whereabouts};
use marchland_edge_core::{Effect, FrameWriter, RegionMap, Session, SessionConfig, Uplink, ViewId, Viewer, Views};
use marchland_proto::client::{Pong, server_message::Body};
use marchland_proto::cluster::{EdgeToNode, EdgeToRegion, SignInRequest};
use marchland_proto::net::{ClusterSecurity, Listener, Transport, cluster_channel};
use marchland_types::seam::{Clock, Entropy};
use marchland_types::{AttachNumber, CharacterId, GroupId, NodeId, SessionEpoch, point};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_local};
use tonic::transport::Channel;

use crate::OtherEdge;
use crate::Shared;
use crate::beat::{Beat, GATHER};
use crate::connection::{ConnRef, welcome};
use crate::links::{self, Link};
use crate::reach::{Look, Reach};
use crate::routes::{Asked, Owners, Route};

/// How often routes are looked after while there are clients.
const SWEEP: Duration = Duration::from_millis(20);
/// How often with no clients: nothing can be due.
const SWEEP_IDLE: Duration = Duration::from_millis(500);
/// How often the deadlines of sessions are looked after, in sweeps.
const SESSIONS_EVERY: u32 = 3;
/// How long connections may take to end when the edge stops.
const STOP: Duration = Duration::from_millis(1_500);
/// Pause after a failed accept: out of descriptors, or a connection that died in the queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a region is kept that nobody wants, of several.
const IDLE: Duration = Duration::from_secs(5);
/// How long if its owner has still to be told something: longer than anything there waits for a client.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// By how much the runtime's timers may be late.
const TIMER: Duration = Duration::from_millis(1);
/// Pause of a worker that has more than its share of connections.
const OTHERS_TURN: Duration = Duration::from_millis(2);

/// One loop, ready to run.
pub struct EdgeWorker<T: Transport, C, E> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: usize,
    pub(crate) transport: T,
    pub(crate) security: ClusterSecurity,
    pub(crate) clock: C,
    pub(crate) entropy: E,
    pub(crate) listener: Arc<T::Listener>,
}

/// A running loop.
pub(crate) struct Worker<T: Transport, C, E> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: usize,
    transport: T,
    security: ClusterSecurity,
    pub(crate) clock: C,
    pub(crate) entropy: E,
    /// All nodes, sorted.
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) state: RefCell<State<T::Stream>>,
    channels: RefCell<BTreeMap<NodeId, Channel>>,
    pub(crate) map: RefCell<RegionMap>,
    /// The map is old.
    pub(crate) map_soon: Notify,
    /// The node that answered for the directory last.
    pub(crate) directory_at: Cell<Option<NodeId>>,
    /// Something waits for an owner that does not wait for its next tick.
    pub(crate) uplink_soon: Notify,
    /// Inputs of a region wait for its next tick that had none waiting.
    inputs_soon: Notify,
    /// A route changed.
    pub(crate) sweep_soon: Notify,
    /// A connection ended.
    left: Notify,
    next_id: Cell<u64>,
    /// Readers that have not ended yet.
    open: Cell<usize>,
}

/// The tables of a loop.
pub(crate) struct State<S> {
    connections: BTreeMap<u64, ConnRef<S>>,
    pub(crate) regions: BTreeMap<GroupId, Region<S>>,
    /// Of each of them, and of no other.
    pub(crate) views: Views,
    links: BTreeMap<NodeId, Link>,
    /// Who said last that it owns a region, wanted here or not.
    pub(crate) owners: Owners,
    pub(crate) reach: Reach,
    pub(crate) writer: FrameWriter,
    pub(crate) out: BytesMut,
}

/// One region that clients of this loop are in, or go to, or see something of.
pub(crate) struct Region<S> {
    pub(crate) view: ViewId,
    pub(crate) uplink: Uplink,
    /// When inputs leave that wait in it.
    leave_by: Option<Duration>,
    pub(crate) beat: Beat,
    pub(crate) route: Route,
    /// The target was told what this edge wants.
    pub(crate) subscribed: bool,
    /// Those that it has, or is to have.
    pub(crate) sessions: BTreeMap<SessionKey, ConnRef<S>>,
    /// By connection: clients whose frames follow its ticks. One that goes to another region stays until that has it.
    pub(crate) players: BTreeMap<u64, ConnRef<S>>,
    /// Since when nobody here wants it.
    idle_since: Option<Duration>,
}

impl<S> Region<S> {
    /// Whether clients wait for what it says.
    fn is_played(&self) -> bool {
        !self.sessions.is_empty() || !self.players.is_empty()
    }

    /// The connection with the highest epoch and attach number of a character.
    pub(crate) fn newest_session(&self, character: u64) -> Option<&ConnRef<S>> {
        let key = |epoch, attach| SessionKey { character: CharacterId(character), epoch, attach };
        let all = key(SessionEpoch(0), AttachNumber(0))..=key(SessionEpoch(u64::MAX), AttachNumber(u32::MAX));
        self.sessions.range(all).next_back().map(|(_, conn)| conn)
    }
}

impl<T: Transport, C: Clock, E: Entropy> EdgeWorker<T, C, E> {
    /// Runs until the edge is shut down. Must be called within a [`tokio::task::LocalSet`].
    pub async fn run(self) {
        let Self { shared, number, transport, security, clock, entropy, listener } = self;
        let nodes = shared.options.nodes.keys().copied().collect();
        let reach = Reach::new(shared.options.own_node);
        let mut stop = shared.stop.subscribe();
        let worker = Rc::new(Worker {
            shared,
            number,
            transport,
            security,
            clock,
            entropy,
            nodes,
            state: RefCell::new(State {
                connections: BTreeMap::new(),
                regions: BTreeMap::new(),
                views: Views::default(),
                links: BTreeMap::new(),
                owners: Owners::default(),
                reach,
                writer: FrameWriter::default(),
                out: BytesMut::new(),
            }),
            channels: RefCell::default(),
            map: RefCell::default(),
            map_soon: Notify::new(),
            directory_at: Cell::new(None),
            uplink_soon: Notify::new(),
            inputs_soon: Notify::new(),
            sweep_soon: Notify::new(),
            left: Notify::new(),
            next_id: Cell::new(0),
            open: Cell::new(0),
        });
        // To all of them from the start: a new owner announces itself over whatever streams it finds.
        for &node in &worker.nodes {
            let link = links::open(&worker, node, worker.channel(node));
            worker.state.borrow_mut().links.insert(node, link);
        }
        let mut loops = JoinSet::new();
        let accepting = loops.spawn_local(worker.clone().accept(listener));
        loops.spawn_local(worker.clone().send_uplinks());
        loops.spawn_local(worker.clone().sweep());
        loops.spawn_local(worker.clone().learn_map());
        // The sender lives in `shared`: it can not be gone.
        let _ = stop.wait_for(|stop| *stop).await;
        accepting.abort();
        worker.stop().await;
        loops.shutdown().await;
        worker.state.borrow_mut().links.clear();
    }
}

impl<T: Transport, C: Clock, E: Entropy> Worker<T, C, E> {
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.replace(self.next_id.get() + 1)
    }

    /// Whether the stream to a node is up: whoever has lost its power does not say so, and a call to it would be waited for.
    pub(crate) fn is_reached(&self, node: NodeId) -> bool {
        self.state.borrow().links.get(&node).is_none_or(|link| link.up.is_some())
    }

    /// A channel to a node, made when it is wanted first.
    pub(crate) fn channel(&self, node: NodeId) -> Channel {
        let address = &self.shared.options.nodes[&node];
        let make = || cluster_channel(&self.transport, &self.security, address);
        self.channels.borrow_mut().entry(node).or_insert_with(make).clone()
    }

    // ---- loops

    async fn accept(self: Rc<Self>, listener: Arc<T::Listener>) {
        let handshakes = Arc::new(Semaphore::new(self.shared.options.limits.handshakes_max));
        loop {
            let Ok(handshake) = handshakes.clone().acquire_owned().await else { return };
            while !self.shared.admission.is_workers_turn(self.number) {
                tokio::time::sleep(OTHERS_TURN).await;
            }
            match listener.accept().await {
                Ok((stream, from)) => {
                    spawn_local(welcome(self.clone(), stream, from, handshake));
                }
                Err(error) => {
                    tracing::warn!(%error, "player port: accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn send_uplinks(self: Rc<Self>) {
        loop {
            let leave_by = self.state.borrow().regions.values().filter_map(|region| region.leave_by).min();
            let wait = leave_by.map(|at| at.saturating_sub(self.clock.monotonic()));
            tokio::select! {
                () = self.uplink_soon.notified() => tokio::time::sleep(GATHER).await,
                () = self.inputs_soon.notified() => continue,
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            self.flush_uplinks();
        }
    }

    async fn sweep(self: Rc<Self>) {
        for round in 0u32.. {
            let idle = self.state.borrow().connections.is_empty();
            tokio::select! {
                () = self.sweep_soon.notified() => {}
                () = tokio::time::sleep(if idle { SWEEP_IDLE } else { SWEEP }) => {}
            }
            self.look_after_routes();
            if round % SESSIONS_EVERY == 0 {
                let all: Vec<_> = self.state.borrow().connections.values().cloned().collect();
                for conn in all {
                    self.drive(&conn, |session, now, config, out| session.handle_time(now, config, out));
                }
            }
        }
    }

    async fn stop(self: &Rc<Self>) {
        self.send_away(|session, other, out| session.handle_shutdown(other, out));
        let ended = async {
            while self.open.get() > 0 {
                self.left.notified().await;
            }
        };
        // In time or not: what is left is dropped with the loop.
        let _ = tokio::time::timeout(STOP, ended).await;
    }

    /// Tells every client where else to go: to edges in turn that seem to be there.
    fn send_away(self: &Rc<Self>, why: impl Fn(&mut Session, &str, &mut Vec<Effect>)) {
        let (all, others) = {
            let state = self.state.borrow();
            // A node that is an edge alone has no link, and may well be there.
            let there = |other: &&OtherEdge| state.links.get(&other.node).is_none_or(|link| link.up.is_some());
            let all: Vec<_> = state.connections.values().cloned().collect();
            (all, self.shared.options.other_edges.iter().filter(there).collect::<Vec<_>>())
        };
        let others = if others.is_empty() { self.shared.options.other_edges.iter().collect() } else { others };
        for (i, conn) in all.iter().enumerate() {
            let other = others.get(i % others.len().max(1)).map_or("", |other| other.ws.as_str());
            self.drive(conn, |session, _, _, out| why(session, other, out));
        }
    }

    // ---- connections

    /// A connection whose handshake is done.
    pub(crate) fn enter(&self, conn: &ConnRef<T::Stream>) {
        self.open.set(self.open.get() + 1);
        let state = &mut *self.state.borrow_mut();
        if state.connections.is_empty() {
            // The sweeper may sleep long.
            self.sweep_soon.notify_one();
        }
        state.connections.insert(conn.borrow().id, conn.clone());
    }

    /// Its reader has ended.
    pub(crate) fn left(&self) {
        self.open.set(self.open.get() - 1);
        self.left.notify_one();
    }

    /// Gives something to a session and performs what follows from it.
    pub(crate) fn drive(
        self: &Rc<Self>,
        conn: &ConnRef<T::Stream>,
        event: impl FnOnce(&mut Session, Duration, &SessionConfig, &mut Vec<Effect>),
    ) {
        let mut effects = Vec::new();
        event(&mut conn.borrow_mut().session, self.clock.monotonic(), &self.shared.options.session, &mut effects);
        self.perform(conn, effects);
    }

    /// Performs effects in order, and what follows from them.
    pub(crate) fn perform(self: &Rc<Self>, conn: &ConnRef<T::Stream>, effects: Vec<Effect>) {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            let mut more = Vec::new();
            self.perform_one(conn, effect, &mut more);
            queue.extend(more);
        }
    }

    fn perform_one(self: &Rc<Self>, conn: &ConnRef<T::Stream>, effect: Effect, more: &mut Vec<Effect>) {
        let now = self.clock.monotonic();
        match effect {
            Effect::SignIn { token, character_name, secret_hash, request_id } => {
                let world = self.shared.options.world.0;
                let secret_hash = bytes::Bytes::copy_from_slice(&secret_hash);
                let request = SignInRequest { world, token, character_name, secret_hash, request_id };
                let (worker, conn) = (self.clone(), conn.clone());
                spawn_local(async move {
                    point!("edge.before_sign_in");
                    let answer = worker.sign_in(request, || !conn.borrow().session.is_closed()).await;
                    point!("edge.signed_in");
                    worker.drive(&conn, |session, now, _, out| {
                        session.handle_signed_in(now, answer.as_ref().map_err(Clone::clone), out);
                    });
                });
            }
            Effect::Locate { character } => match self.only_region() {
                Some(only) => conn.borrow_mut().session.handle_located(now, Whereabouts::At(only), more),
                None => {
                    let (worker, conn) = (self.clone(), conn.clone());
                    spawn_local(async move {
                        let found = worker.locate(character).await;
                        worker.drive(&conn, |session, now, _, out| session.handle_located(now, found, out));
                    });
                }
            },
            Effect::Attach { group, order } => {
                point!("edge.attach");
                let key = SessionKey {
                    character: CharacterId(order.character),
                    epoch: SessionEpoch(order.epoch),
                    attach: AttachNumber(order.attach),
                };
                let superseded = {
                    let state = &mut *self.state.borrow_mut();
                    let superseded = self.list(state, group, key, conn);
                    if let Some(region) = state.regions.get_mut(&group) {
                        if region.subscribed {
                            region.uplink.attach(order);
                            self.uplink_soon.notify_one();
                        } else {
                            self.sweep_soon.notify_one();
                        }
                    }
                    superseded
                };
                if let Some(old) = superseded {
                    self.drive(&old, |session, _, _, out| session.handle_superseded(out));
                }
            }
            Effect::Watch { group, key } => {
                let superseded = {
                    let state = &mut *self.state.borrow_mut();
                    let superseded = self.list(state, group, key, conn);
                    if let Some(region) = state.regions.get_mut(&group) {
                        if region.subscribed {
                            region.uplink.watch(key.character.0);
                        } else {
                            // Its owner is told by an attach, once it is found.
                            self.sweep_soon.notify_one();
                        }
                    }
                    self.uplink_soon.notify_one();
                    superseded
                };
                if let Some(old) = superseded {
                    self.drive(&old, |session, _, _, out| session.handle_superseded(out));
                }
            }
            Effect::Arrived { group } => self.follow(&mut self.state.borrow_mut(), group, conn),
            Effect::Inputs { group, inputs } => {
                let state = &mut *self.state.borrow_mut();
                // Without an owner they wait in their session.
                if let Some(region) = state.regions.get_mut(&group)
                    && region.subscribed
                {
                    region.uplink.inputs(inputs);
                    if region.leave_by.is_none() {
                        region.leave_by = Some(region.beat.leave_by(now));
                        self.inputs_soon.notify_one();
                    }
                }
            }
            Effect::Detach { group, order } => {
                point!("edge.detach");
                let key = SessionKey {
                    character: CharacterId(order.character),
                    epoch: SessionEpoch(order.epoch),
                    attach: AttachNumber(order.attach),
                };
                let state = &mut *self.state.borrow_mut();
                if let Some(region) = state.regions.get_mut(&group) {
                    // A farewell is answered: the session stays listed until then.
                    if !order.goodbye && region.sessions.get(&key).is_some_and(|own| Rc::ptr_eq(own, conn)) {
                        region.sessions.remove(&key);
                    }
                    let watched = order.goodbye || region.newest_session(order.character).is_some();
                    region.uplink.detach(order, watched);
                    self.uplink_soon.notify_one();
                }
            }
            Effect::Welcome(welcome) => {
                point!("edge.before_welcome");
                let mut conn_ref = conn.borrow_mut();
                let conn_mut = &mut *conn_ref;
                // Staggered by character, so that a crowd that arrives at once is not picked for at once.
                let phase = (welcome.character_id % u64::from(self.shared.options.interest.repick_every_ticks)) as u32;
                let mut viewer = Viewer::new(welcome.character_id, welcome.self_entity, phase);
                viewer.pin(&std::mem::take(&mut conn_mut.pinned));
                conn_mut.viewer = Some(viewer);
                self.shared.counters.client_came();
                let home = conn_mut.session.home();
                if conn_mut.send_message(Body::Welcome(*welcome)).is_err() {
                    conn_mut.session.handle_socket_lost(more);
                }
                drop(conn_ref);
                if let Some(home) = home {
                    self.follow(&mut self.state.borrow_mut(), home, conn);
                }
            }
            Effect::Pong { client_ms } => {
                let pong = Body::Pong(Pong { client_ms, server_ms: self.clock.wall_ms() });
                let conn_mut = &mut *conn.borrow_mut();
                // One that the socket does not take is not sent later: it would measure the wrong thing.
                let sent = match conn_mut.is_writable() {
                    Ok(true) => conn_mut.send_message(pong),
                    Ok(false) => Ok(()),
                    Err(error) => Err(error),
                };
                if sent.is_err() {
                    conn_mut.session.handle_socket_lost(more);
                }
            }
            Effect::Close(refusal) => {
                self.remove(conn);
                conn.borrow_mut().end(refusal);
            }
            Effect::Forget => {
                self.remove(conn);
                conn.borrow_mut().forget();
            }
        }
    }

    /// Takes a connection out of all tables.
    fn remove(&self, conn: &ConnRef<T::Stream>) {
        let conn_mut = &mut *conn.borrow_mut();
        let state = &mut *self.state.borrow_mut();
        state.connections.remove(&conn_mut.id);
        let viewer = conn_mut.viewer.take();
        if viewer.is_some() {
            self.shared.counters.client_went();
        }
        if let Some((group, key)) = conn_mut.place.take() {
            unlist(state, group, key, conn);
            self.uplink_soon.notify_one();
        }
        if let Some(region) = conn_mut.home.take().and_then(|home| state.regions.get_mut(&home)) {
            region.players.remove(&conn_mut.id);
        }
        if let Some(mut viewer) = viewer {
            viewer.release(&mut state.views);
            self.uplink_soon.notify_one();
        }
    }

    /// Lists a session in the region that has it or is to have it, and in no other one. Returns another connection with the
    /// same session.
    fn list(
        &self,
        state: &mut State<T::Stream>,
        group: GroupId,
        key: SessionKey,
        conn: &ConnRef<T::Stream>,
    ) -> Option<ConnRef<T::Stream>> {
        // Another connection may have taken its place since.
        if conn.borrow().session.is_closed() {
            return None;
        }
        let before = conn.borrow_mut().place.replace((group, key));
        if let Some((left, key)) = before.filter(|(left, _)| *left != group) {
            unlist(state, left, key, conn);
            self.uplink_soon.notify_one();
        }
        self.region(state, group).sessions.insert(key, conn.clone()).filter(|old| !Rc::ptr_eq(old, conn))
    }

    /// From now on a client's frames follow this region's ticks.
    fn follow(&self, state: &mut State<T::Stream>, group: GroupId, conn: &ConnRef<T::Stream>) {
        let conn_mut = &mut *conn.borrow_mut();
        if conn_mut.session.is_closed() {
            return;
        }
        let before = conn_mut.home.replace(group);
        if before == Some(group) {
            return;
        }
        if let Some(region) = before.and_then(|before| state.regions.get_mut(&before)) {
            region.players.remove(&conn_mut.id);
        }
        let region = self.region(state, group);
        region.players.insert(conn_mut.id, conn.clone());
        let view = region.view;
        if let Some(viewer) = &mut conn_mut.viewer {
            viewer.follow(&mut state.views, view);
        }
    }

    // ---- owners

    /// A region's entry, made when it is wanted first.
    fn region<'a>(&self, state: &'a mut State<T::Stream>, group: GroupId) -> &'a mut Region<T::Stream> {
        let now = self.clock.monotonic();
        let State { regions, views, owners, .. } = state;
        let region = regions.entry(group).or_insert_with(|| {
            let any = || self.nodes[group.serial() as usize % self.nodes.len()];
            self.group_named(group);
            Region {
                view: views.open(group),
                uplink: Uplink::new(group),
                leave_by: None,
                beat: Beat::default(),
                route: Route::new(now, owners.of(group).unwrap_or_else(any)),
                subscribed: false,
                sessions: BTreeMap::new(),
                players: BTreeMap::new(),
                idle_since: None,
            }
        });
        if region.idle_since.take().is_some() {
            region.route.wanted_again(now);
        }
        region
    }

    /// Regions that viewers began to see get their entries.
    pub(crate) fn add_seen(&self, state: &mut State<T::Stream>) {
        for group in state.views.take_opened() {
            self.region(state, group);
            self.sweep_soon.notify_one();
        }
    }

    /// Forgets regions that nobody has wanted for a while, and tells their owners.
    fn drop_idle(&self, now: Duration, idle: &[GroupId]) {
        let state = &mut *self.state.borrow_mut();
        for &group in idle {
            let Some(region) = state.regions.get(&group) else { continue };
            let since = region.idle_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
            // What is still to be said is kept for as long as it may be of use.
            if since < IDLE || (!region.uplink.is_empty() && since < IDLE_MAX) || !state.views.close(group) {
                continue;
            }
            let target = region.route.target();
            if let Some(up) = target.and_then(|node| state.links.get(&node)).and_then(|link| link.up.as_ref()) {
                // If its queue is full, it goes on for nothing until this edge wants it again or ends.
                let _ = up.try_send(forget(group));
            }
            state.regions.remove(&group);
        }
    }

    fn look_after_routes(self: &Rc<Self>) {
        let now = self.clock.monotonic();
        let (mut asked, mut silent, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        // A world's only region is wanted again sooner or later.
        let drops = self.map.borrow().only().is_none();
        {
            let State { regions, views, .. } = &mut *self.state.borrow_mut();
            for (&group, region) in regions {
                let view = &views[region.view];
                // Nobody here wants it: it may sleep, and its owner change, without our asking.
                if !region.is_played() && !view.is_followed() {
                    region.idle_since.get_or_insert(now);
                    if drops {
                        idle.push(group);
                    }
                    continue;
                }
                if region.idle_since.take().is_some() {
                    region.route.wanted_again(now);
                }
                if region.is_played() && region.route.is_unserved(now, view.time_rate()) {
                    silent.push(group);
                }
                if let Some(change) = region.route.handle_time(now, view.time_rate(), &self.nodes) {
                    region.subscribed = false;
                    asked.push((group, change));
                }
            }
        }
        self.drop_idle(now, &idle);
        for (group, Asked { node, left }) in asked {
            let up = {
                let state = &mut *self.state.borrow_mut();
                if let Some(up) = left.and_then(|left| state.links.get(&left)).and_then(|link| link.up.as_ref()) {
                    // If its queue is full it hears of it by silence.
                    let _ = up.try_send(forget(group));
                }
                state.links.get(&node).is_some_and(|link| link.up.is_some())
            };
            if up {
                self.subscribe(group);
            }
        }
        self.look_after_reach(now, &silent);
    }

    /// Regions that hear no owner: is there anybody at all?
    fn look_after_reach(self: &Rc<Self>, now: Duration, silent: &[GroupId]) {
        let look = self.state.borrow_mut().reach.look(now, !silent.is_empty(), &self.nodes);
        match look {
            Look::Wait => {}
            Look::Ask => {
                let question = |group: &GroupId| EdgeToRegion { group: group.0, ..EdgeToRegion::default() };
                let message = EdgeToNode { regions: silent.iter().map(question).collect() };
                let state = self.state.borrow();
                for up in state.links.values().filter_map(|link| link.up.as_ref()) {
                    // A queue that is full holds questions enough.
                    let _ = up.try_send(message.clone());
                }
            }
            Look::CutOff => {
                tracing::warn!(regions = silent.len(), "no other node answers: clients are sent to other edges");
                self.shared.counters.cut_off();
                self.send_away(|session, other, out| session.handle_cut_off(other, out));
            }
        }
    }

    /// A stream to a node is up: every region that is looked for there is asked for.
    pub(crate) fn link_up(self: &Rc<Self>, node: NodeId, up: mpsc::Sender<EdgeToNode>) {
        let mut groups = Vec::new();
        {
            let state = &mut *self.state.borrow_mut();
            if let Some(link) = state.links.get_mut(&node) {
                link.up = Some(up);
            }
            groups.extend(state.regions.iter().filter(|(_, region)| region.route.target() == Some(node)).map(|(g, _)| *g));
        }
        for group in groups {
            self.subscribe(group);
        }
    }

    /// It broke, or could not be made.
    pub(crate) fn link_down(self: &Rc<Self>, node: NodeId) {
        let now = self.clock.monotonic();
        let state = &mut *self.state.borrow_mut();
        if let Some(link) = state.links.get_mut(&node) {
            link.up = None;
        }
        for region in state.regions.values_mut().filter(|region| region.route.target() == Some(node)) {
            region.subscribed = false;
            region.route.lost(now, None, &self.nodes);
        }
        self.sweep_soon.notify_one();
    }

    /// Tells a region's target all that this edge wants of it, and all that its sessions still wait for.
    fn subscribe(self: &Rc<Self>, group: GroupId) {
        let conns: Vec<_> = {
            let State { regions, views, .. } = &mut *self.state.borrow_mut();
            let Some(region) = regions.get_mut(&group) else { return };
            region.subscribed = true;
            let cells = views[region.view].restart();
            region.uplink.restart(cells);
            region.leave_by = None;
            region.beat.forget();
            region.sessions.values().cloned().collect()
        };
        for conn in conns {
            self.drive(&conn, |session, now, _, out| session.handle_owner_changed(now, group, out));
        }
        self.uplink_soon.notify_one();
    }

    /// Sends what was gathered, one message for each node that is to hear something now.
    fn flush_uplinks(self: &Rc<Self>) {
        let now = self.clock.monotonic();
        let mut overflowed = Vec::new();
        {
            let State { regions, views, links, .. } = &mut *self.state.borrow_mut();
            let mut by_node: BTreeMap<NodeId, bool> = BTreeMap::new();
            for region in regions.values_mut() {
                match region.route.target().filter(|_| region.subscribed) {
                    // A little early counts: timers have whole milliseconds.
                    Some(node) => {
                        let is_due = region.leave_by.is_some_and(|at| at <= now + TIMER)
                            || region.uplink.is_urgent()
                            || views[region.view].has_changes();
                        *by_node.entry(node).or_default() |= is_due;
                    }
                    // Its sessions give them again to the next owner.
                    None => region.leave_by = None,
                }
            }
            by_node.retain(|_, is_due| *is_due);
            for &node in by_node.keys() {
                let Some(up) = links.get(&node).and_then(|link| link.up.as_ref()) else { continue };
                let mut message = EdgeToNode::default();
                let permit = up.try_reserve();
                if permit.is_err() {
                    // Its connection is slower than we: later, with what comes until then.
                    self.uplink_soon.notify_one();
                }
                for (&group, region) in regions.iter_mut() {
                    if !region.subscribed || region.route.target() != Some(node) {
                        continue;
                    }
                    if permit.is_err() {
                        region.leave_by = region.leave_by.map(|_| now + GATHER);
                        continue;
                    }
                    region.leave_by = None;
                    let view = &mut views[region.view];
                    if view.has_changes() {
                        region.uplink.cells(view.take_changes());
                    }
                    if !region.uplink.is_empty() {
                        message.regions.push(region.uplink.take());
                    }
                    if region.uplink.overflowed() {
                        overflowed.extend(region.sessions.values().map(|conn| (group, conn.clone())));
                    }
                }
                if let Ok(permit) = permit
                    && !message.regions.is_empty()
                {
                    point!("edge.before_uplink");
                    permit.send(message);
                    point!("edge.uplink_sent");
                }
            }
        }
        for (group, conn) in overflowed {
            self.drive(&conn, |session, now, _, out| session.handle_inputs_lost(now, group, out));
        }
    }
}

/// To an owner: this edge wants nothing more of a region.
fn forget(group: GroupId) -> EdgeToNode {
    EdgeToNode { regions: vec![EdgeToRegion { group: group.0, reset: true, ..EdgeToRegion::default() }] }
}

/// Takes a session out of a region's list.
fn unlist<S>(state: &mut State<S>, group: GroupId, key: SessionKey, conn: &ConnRef<S>) {
    let Some(region) = state.regions.get_mut(&group) else { return };
    if region.sessions.get(&key).is_some_and(|other| Rc::ptr_eq(other, conn)) {
        region.sessions.remove(&key);
        if region.newest_session(key.character.0).is_none() {
            region.uplink.unwatch(key.character.0);
        }
    }
}
