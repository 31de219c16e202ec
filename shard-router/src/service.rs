//! A directory's service on one node: checks, admission, proposals, answers.
//!
//! Only the leader carries out orders; others name it. An order with an unknown outcome is proposed again until its deadline:
//! all of them take effect once, however often they are committed.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use marchland_proto::cluster::{
    ChangeMapReply, ChangeMapRequest, DeliverAnswer, DeliverRequest, InspectReply, LocateReply, LocateRequest, RegisterReply,
    RegisterRequest, SeedCharactersReply, SeedCharactersRequest, SignInReply, SignInRequest, TakeCutReply,
};
use marchland_proto::codes::Code;
use marchland_proto::net::{PeerIdentity, Role};
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{
    ChannelAck, CharacterSeed, Cut, DirectoryAnswer, MapOrder, NodeRegistration, RealmNode, SignInOrder,
};
use marchland_raft::{BoxFuture, ProposeError};
use marchland_router_core::{Name, TokenVerifier, encode_entry};
use marchland_storage::keyed::KeyedStore;
use marchland_types::seam::Clock;
use marchland_types::{CharacterId, CutNumber, GroupId, NodeId, ReplicaId, WorldId};

use crate::group::KeyedGroup;
use crate::inspect::{self, Audited, cut_reply, not_seeded};
use crate::issuer::Issuer;
use crate::options::DirectoryOptions;
use crate::orders::{OrderError, Orders, Taken};
use crate::outbox::KeyedService;
use crate::realm_client::RealmError;
use crate::records::{ReadError, Records};
use crate::view::DirectoryView;

/// One world's directory on one node.
pub struct DirectoryService<G, K, C> {
    world: WorldId,
    orders: Orders<G, C>,
    view: DirectoryView<K>,
    /// Never changes once the world has begun.
    verifier: OnceLock<TokenVerifier>,
    issuer: Option<Arc<dyn Issuer>>,
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> DirectoryService<G, K, C> {
    /// Over a group and the records of its machine.
    pub fn new(world: WorldId, group: G, view: DirectoryView<K>, clock: C, options: DirectoryOptions) -> Self {
        let orders = Orders::new(GroupId::directory(world), group, clock, options);
        Self { world, orders, view, verifier: OnceLock::new(), issuer: None }
    }

    /// From here on new folders get the incarnation that this one issues; without one, the directory issues by itself.
    #[must_use]
    pub fn issued_by(self, issuer: Option<Arc<dyn Issuer>>) -> Self {
        Self { issuer, ..self }
    }

    /// Whose directory it is.
    pub fn world(&self) -> WorldId {
        self.world
    }

    /// The records, as new as this replica.
    pub fn view(&self) -> &DirectoryView<K> {
        &self.view
    }

    /// The group.
    pub fn group(&self) -> &G {
        &self.orders.group
    }

    /// Commits an order and returns its answer, which may be a refusal. Leaders only.
    ///
    /// An unknown outcome is tried again until the deadline, except a cut without a number: two of those are two cuts.
    pub async fn order(&self, body: Body) -> Result<DirectoryAnswer, OrderError> {
        let repeatable = !matches!(&body, Body::Cut(cut) if cut.number == 0);
        self.orders.order(repeatable, |now_ms| encode_entry(now_ms, body.clone())).await
    }

    async fn token_verifier(&self) -> Result<Option<&TokenVerifier>, ReadError> {
        if self.verifier.get().is_none()
            && let Some(world) = self.view.world().await?
        {
            match TokenVerifier::new(self.world, &world.token_key) {
                // Whoever was first has set the same.
                Ok(verifier) => drop(self.verifier.set(verifier)),
                Err(bad) => tracing::error!(world = %self.world, %bad, "key of the world is not usable"),
            }
        }
        Ok(self.verifier.get())
    }

    /// Signs an account in to a character, for an edge.
    pub async fn sign_in(&self, peer: &PeerIdentity, request: SignInRequest) -> SignInReply {
        let refused = |code: Code, reason: String| SignInReply { code: code as u32, reason, ..SignInReply::default() };
        let failed = |error: &OrderError| {
            let (code, leader) = error.reply();
            SignInReply { code: code as u32, reason: error.to_string(), answer: None, leader }
        };
        if let Err(reason) = self.orders.peer_may(peer, &[Role::Edge, Role::Shard]) {
            return refused(Code::Forbidden, reason);
        }
        if let Err(error) = self.orders.leading() {
            return failed(&error);
        }
        let Some(_call) = self.orders.call() else {
            return refused(Code::Unavailable, format!("{} calls are in flight", self.orders.options.calls_in_flight));
        };
        let verifier = match self.token_verifier().await {
            Ok(Some(verifier)) => verifier,
            Ok(None) => return refused(Code::Unavailable, format!("world {} has not begun", self.world)),
            Err(error) => return failed(&OrderError::Fault(error.to_string())),
        };
        let token = match verifier.verify(&request.token, self.orders.clock.wall_ms()) {
            Ok(token) => token,
            Err(bad) => return refused(Code::BadToken, bad.to_string()),
        };
        let name = match Name::parse(&request.character_name) {
            Ok(name) => name,
            Err(bad) => return refused(Code::BadName, bad.to_string()),
        };
        let order = SignInOrder {
            account: token.account,
            character_name: name.shown().to_owned(),
            folded_name: name.folded().to_owned(),
            secret_hash: request.secret_hash,
            request_id: request.request_id,
        };
        match self.order(Body::SignIn(order)).await {
            Ok(answer) => SignInReply {
                code: answer.code,
                reason: answer.reason,
                answer: answer.sign_in.filter(|a| a.code == 0),
                leader: 0,
            },
            Err(error) => failed(&error),
        }
    }

    /// Where a character is, linearizable, from the leader; or, for character 0, map and plans as this replica knows them,
    /// which may be old: an older map has a lower epoch.
    pub async fn locate(&self, peer: &PeerIdentity, request: LocateRequest) -> LocateReply {
        let code = |code: Code, leader: u64| LocateReply { code: code as u32, leader, ..LocateReply::default() };
        if self.orders.peer_may(peer, &[Role::Edge, Role::Shard]).is_err() {
            return code(Code::Forbidden, 0);
        }
        let Some(_call) = self.orders.call() else { return code(Code::Unavailable, 0) };
        if request.character != 0 {
            let barrier = match self.orders.leading() {
                Ok(()) => self.read_barrier().await,
                Err(error) => Err(error),
            };
            if let Err(error) = barrier {
                let (refusal, leader) = error.reply();
                return code(refusal, leader);
            }
        }
        match self.read_location(CharacterId(request.character)).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::error!(world = %self.world, %error, "directory can not be read");
                code(Code::NotLeader, 0)
            }
        }
    }

    async fn read_location(&self, character: CharacterId) -> Result<LocateReply, ReadError> {
        let leader = self.orders.group.leader().map_or(0, |l| l.0);
        let Some(world) = self.view.world().await? else {
            return Ok(LocateReply { code: Code::Unavailable as u32, leader, ..LocateReply::default() });
        };
        let reply = LocateReply { map_epoch: world.map_epoch, leader, ..LocateReply::default() };
        if character.0 == 0 {
            return Ok(LocateReply { map: world.map, plans: self.view.plans().await?, ..reply });
        }
        let Some(found) = self.view.character(character).await? else {
            return Ok(LocateReply { code: Code::BadResume as u32, ..reply });
        };
        let plans = self.view.plan(GroupId(found.group)).await?.into_iter().collect();
        Ok(LocateReply { group: found.group, region: found.region, move_number: found.move_number, plans, ..reply })
    }

    /// Gives a node the incarnation of its data folder. A node speaks for itself alone.
    pub async fn register(&self, peer: &PeerIdentity, request: RegisterRequest) -> RegisterReply {
        let refused = |code: Code, reason: String, leader| RegisterReply { code: code as u32, incarnation: 0, leader, reason };
        if let Err(reason) = self.orders.peer_may(peer, &[Role::Shard]) {
            return refused(Code::Forbidden, reason, 0);
        }
        let Some(node) = request.node else { return refused(Code::Malformed, "no node".into(), 0) };
        if node.node != peer.node.0 {
            return refused(Code::Forbidden, format!("{peer} registers node {}", node.node), 0);
        }
        if let Err(error) = self.orders.leading() {
            let (code, leader) = error.reply();
            return refused(code, error.to_string(), leader);
        }
        let Some(_call) = self.orders.call() else {
            return refused(Code::Unavailable, format!("{} calls are in flight", self.orders.options.calls_in_flight), 0);
        };
        let node = match self.with_issued(node).await {
            Ok(node) => node,
            Err((code, leader, reason)) => return refused(code, reason, leader),
        };
        match self.order(Body::Node(node)).await {
            Ok(answer) => RegisterReply {
                code: answer.code,
                incarnation: answer.node.map_or(0, |node| node.incarnation),
                leader: 0,
                reason: answer.reason,
            },
            Err(error) => {
                let (code, leader) = error.reply();
                refused(code, error.to_string(), leader)
            }
        }
    }

    /// A folder that asks for an incarnation and has none yet gets the one that the realm issues: it is recorded with the folder.
    async fn with_issued(&self, mut node: NodeRegistration) -> Result<NodeRegistration, (Code, u64, String)> {
        node.issued = 0;
        let Some(issuer) = self.issuer.as_ref().filter(|_| node.incarnation == 0) else { return Ok(node) };
        // What is malformed is refused where it is applied.
        let Ok(folder) = <[u8; 16]>::try_from(&node.folder_id[..]) else { return Ok(node) };
        let failed = |error: OrderError| {
            let (code, leader) = error.reply();
            (code, leader, error.to_string())
        };
        let unreadable = |error: ReadError| failed(OrderError::Fault(error.to_string()));
        // A leader that was just elected may not have applied yet what the last one recorded.
        self.read_barrier().await.map_err(failed)?;
        let id = NodeId(node.node);
        if self.view.folder(id, folder).await.map_err(unreadable)?.is_some() {
            return Ok(node);
        }
        let newest = self.view.node(id).await.map_err(unreadable)?.map_or(0, |known| known.incarnation);
        let plan = self.view.plan(self.orders.id).await.map_err(unreadable)?;
        let founding = plan.iter().flat_map(|plan| &plan.replicas).map(|id| ReplicaId(*id)).find(|founder| founder.node() == id);
        let taken = newest.max(founding.map_or(0, |founder| founder.incarnation().0));
        let order = RealmNode { world: self.world.0, node: Some(node.clone()), at_least: taken.saturating_add(1) };
        match issuer.issue(order).await {
            Ok(issued) => Ok(NodeRegistration { issued: issued.0, ..node }),
            Err(RealmError::Refused { code, reason }) => Err((code, 0, format!("the realm refuses: {reason}"))),
            Err(error @ RealmError::Unknown { .. }) => Err((Code::Unavailable, 0, error.to_string())),
        }
    }

    async fn read_barrier(&self) -> Result<(), OrderError> {
        self.orders.group.read_barrier().await.map_err(|error| match error {
            ProposeError::NotLeader { leader, .. } => OrderError::NotLeader { leader },
            ProposeError::Refused { reason, .. } | ProposeError::Unknown { reason, .. } => OrderError::Busy(reason),
            ProposeError::Fault { reason, .. } => OrderError::Fault(reason),
        })
    }

    /// Takes messages of another group's channel: they are committed when this says so.
    pub async fn deliver(&self, peer: &PeerIdentity, request: DeliverRequest) -> DeliverAnswer {
        let commit = async |messages| {
            let taken = self.order(Body::Messages(messages)).await?;
            Ok(Taken { code: taken.code, reason: taken.reason, seq: taken.taken_seq, cut: taken.cut })
        };
        self.orders.deliver(peer, request, commit).await
    }

    /// Takes a cut, or (0) the next one; the reply names the highest that has been taken. Leaders only.
    pub async fn take_cut(&self, number: CutNumber) -> TakeCutReply {
        let order = Body::Cut(Cut { number: number.0, now_ms: 0 });
        let taken = self.order(order).await.map(|answer| (answer.code, answer.reason, answer.cut));
        cut_reply(self.view.records(), taken).await
    }

    /// Gives the order, unless it only asks (map epoch 0), and tells the map in force.
    async fn changed_map(&self, request: ChangeMapRequest) -> Result<ChangeMapReply, OrderError> {
        let unreadable = |error: ReadError| OrderError::Fault(error.to_string());
        self.orders.leading()?;
        let mut reply = ChangeMapReply::default();
        if request.map_epoch == 0 {
            self.read_barrier().await?;
        } else {
            let answer = self.order(Body::Map(MapOrder { map_epoch: request.map_epoch, map: request.map })).await?;
            (reply.code, reply.reason) = (answer.code, answer.reason);
        }
        let Some(world) = self.view.world().await.map_err(unreadable)? else {
            let reason = "the world has not begun".to_owned();
            return Ok(ChangeMapReply { code: Code::Unavailable as u32, reason, ..reply });
        };
        reply.waiting = self.view.regions_behind(&world).await.map_err(unreadable)?;
        (reply.map_epoch, reply.map) = (world.map_epoch, world.map);
        Ok(reply)
    }

    /// What stood at a cut, or (0) stands now. The characters are not in the directory: they are those that it had been told the
    /// place of by then, and that must be somewhere.
    pub async fn inspect(&self, cut: CutNumber) -> InspectReply {
        inspect::directory(self.orders.id, self.view.records(), cut).await
    }
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> KeyedService for DirectoryService<G, K, C> {
    type Store = K;

    fn records(&self) -> &Records<K> {
        self.view.records()
    }

    async fn acknowledge(&self, ack: ChannelAck) -> Result<Result<(), String>, OrderError> {
        let answer = self.order(Body::Ack(ack)).await?;
        Ok(if answer.code == 0 { Ok(()) } else { Err(answer.reason) })
    }
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> Audited for DirectoryService<G, K, C> {
    fn take_cut(&self, number: CutNumber) -> BoxFuture<'_, TakeCutReply> {
        Box::pin(Self::take_cut(self, number))
    }

    fn inspect(&self, cut: CutNumber) -> BoxFuture<'_, InspectReply> {
        Box::pin(Self::inspect(self, cut))
    }

    fn seed(&self, request: SeedCharactersRequest, _record: Bytes) -> BoxFuture<'_, SeedCharactersReply> {
        Box::pin(async move {
            let SeedCharactersRequest { first, count, prefix, .. } = request;
            match self.order(Body::Seed(CharacterSeed { first, count, prefix })).await {
                Ok(answer) => SeedCharactersReply {
                    code: answer.code,
                    reason: answer.reason,
                    next_character: answer.next_character,
                    ..SeedCharactersReply::default()
                },
                Err(error) => not_seeded(&error),
            }
        })
    }

    fn change_map(&self, request: ChangeMapRequest) -> BoxFuture<'_, ChangeMapReply> {
        Box::pin(async move {
            self.changed_map(request).await.unwrap_or_else(|error| {
                let (code, leader) = error.reply();
                ChangeMapReply { code: code as u32, reason: error.to_string(), leader, ..ChangeMapReply::default() }
            })
        })
    }
}
