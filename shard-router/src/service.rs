//! A directory's service on one node: checks, admission, proposals, answers.
//!
//! Only the leader carries out orders; others name it. An order with an unknown outcome is proposed again until its deadline:
//! all of them take effect once, however often they are committed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use marchland_proto::cluster::{
    DeliverAnswer, DeliverRequest, LocateReply, LocateRequest, RegisterReply, RegisterRequest, SignInReply, SignInRequest,
};
use marchland_proto::codes::Code;
use marchland_proto::net::{PeerIdentity, Role};
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{ChannelMessages, DirectoryAnswer, SignInOrder};
use marchland_raft::ProposeError;
use marchland_router_core::{Name, TokenVerifier, encode_entry};
use marchland_storage::keyed::KeyedStore;
use marchland_types::limits::{CHANNEL_MESSAGE_MAX_BYTES, CHANNEL_MESSAGES_MAX, LOG_ENTRY_MAX_BYTES};
use marchland_types::seam::Clock;
use marchland_types::{CharacterId, GroupId, ReplicaId, WorldId};
use prost::Message;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::group::DirectoryGroup;
use crate::options::DirectoryOptions;
use crate::view::{DirectoryView, ReadError};

/// Why an order has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OrderError {
    /// This replica does not lead (any more). Give the order to the leader: had it been taken here before leadership was lost,
    /// it has the same answer there.
    #[error("directory is not led here")]
    NotLeader {
        /// Who does, if known.
        leader: Option<ReplicaId>,
    },
    /// Refused: too much at once, or no room.
    #[error("directory has no room: {0}")]
    Busy(String),
    /// It may take effect, now or later. The same order can be given again.
    #[error("outcome of the order is unknown: {0}")]
    Unknown(String),
    /// This replica has stopped, or answers what is not an answer.
    #[error("directory failed here: {0}")]
    Fault(String),
}

impl OrderError {
    /// The code and the leader that a caller is told.
    fn reply(&self) -> (Code, u64) {
        match self {
            Self::NotLeader { leader } => (Code::NotLeader, leader.map_or(0, |l| l.0)),
            // A replica that stopped has not spoken for the others.
            Self::Fault(_) => (Code::NotLeader, 0),
            Self::Busy(_) | Self::Unknown(_) => (Code::Unavailable, 0),
        }
    }
}

/// One world's directory on one node.
pub struct DirectoryService<G, K, C> {
    world: WorldId,
    group: G,
    view: DirectoryView<K>,
    clock: C,
    options: DirectoryOptions,
    calls: Arc<Semaphore>,
    /// Never changes once the world has begun.
    verifier: OnceLock<TokenVerifier>,
}

impl<G: DirectoryGroup, K: KeyedStore, C: Clock> DirectoryService<G, K, C> {
    /// Over a group and the records of its machine.
    pub fn new(world: WorldId, group: G, view: DirectoryView<K>, clock: C, options: DirectoryOptions) -> Self {
        let calls = Arc::new(Semaphore::new(options.calls_in_flight));
        Self { world, group, view, clock, options, calls, verifier: OnceLock::new() }
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
        &self.group
    }

    /// Commits an order and returns its answer, which may be a refusal. Leaders only.
    ///
    /// An unknown outcome is tried again until the deadline, except a cut without a number: two of those are two cuts.
    pub async fn order(&self, body: Body) -> Result<DirectoryAnswer, OrderError> {
        let mut unknown = false;
        let repeatable = !matches!(&body, Body::Cut(cut) if cut.number == 0);
        let pause = Duration::from_millis(self.options.retry_ms);
        let deadline = Instant::now() + Duration::from_millis(self.options.order_ms);
        let busy_deadline = Instant::now() + Duration::from_millis(self.options.busy_ms);
        loop {
            let entry = encode_entry(self.clock.wall_ms(), body.clone());
            match self.group.propose(entry).await {
                Ok(committed) => {
                    return DirectoryAnswer::decode(committed.answer).map_err(|e| OrderError::Fault(format!("answer: {e}")));
                }
                Err(ProposeError::NotLeader { leader, .. }) => return Err(OrderError::NotLeader { leader }),
                Err(ProposeError::Refused { reason, .. }) => {
                    if Instant::now() + pause >= busy_deadline {
                        return Err(if unknown { OrderError::Unknown(reason) } else { OrderError::Busy(reason) });
                    }
                    tokio::time::sleep(pause).await;
                }
                Err(ProposeError::Fault { reason, .. }) => return Err(OrderError::Fault(reason)),
                Err(ProposeError::Unknown { reason, .. }) => {
                    unknown = true;
                    if !repeatable || Instant::now() + pause >= deadline {
                        return Err(OrderError::Unknown(reason));
                    }
                    tracing::info!(world = %self.world, %reason, "order is tried again");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    fn leading(&self) -> Result<(), OrderError> {
        if self.group.leads() { Ok(()) } else { Err(OrderError::NotLeader { leader: self.group.leader() }) }
    }

    fn peer_may(&self, peer: &PeerIdentity, roles: &[Role]) -> Result<(), String> {
        let allowed = roles.iter().any(|&role| peer.may(role, self.world));
        if allowed { Ok(()) } else { Err(format!("{peer} may not do this in world {}", self.world)) }
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
        if let Err(reason) = self.peer_may(peer, &[Role::Edge, Role::Shard]) {
            return refused(Code::Forbidden, reason);
        }
        if let Err(error) = self.leading() {
            return failed(&error);
        }
        let Ok(_call) = self.calls.try_acquire() else {
            return refused(Code::Unavailable, format!("{} calls are in flight", self.options.calls_in_flight));
        };
        let verifier = match self.token_verifier().await {
            Ok(Some(verifier)) => verifier,
            Ok(None) => return refused(Code::Unavailable, format!("world {} has not begun", self.world)),
            Err(error) => return failed(&OrderError::Fault(error.to_string())),
        };
        let token = match verifier.verify(&request.token, self.clock.wall_ms()) {
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
        if self.peer_may(peer, &[Role::Edge, Role::Shard]).is_err() {
            return code(Code::Forbidden, 0);
        }
        let Ok(_call) = self.calls.try_acquire() else { return code(Code::Unavailable, 0) };
        if request.character != 0 {
            let barrier = match self.leading() {
                Ok(()) => self.group.read_barrier().await.map_err(|error| match error {
                    ProposeError::NotLeader { leader, .. } => OrderError::NotLeader { leader },
                    ProposeError::Refused { reason, .. } | ProposeError::Unknown { reason, .. } => OrderError::Busy(reason),
                    ProposeError::Fault { reason, .. } => OrderError::Fault(reason),
                }),
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
        let leader = self.group.leader().map_or(0, |l| l.0);
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
        if let Err(reason) = self.peer_may(peer, &[Role::Shard]) {
            return refused(Code::Forbidden, reason, 0);
        }
        let Some(node) = request.node else { return refused(Code::Malformed, "no node".into(), 0) };
        if node.node != peer.node.0 {
            return refused(Code::Forbidden, format!("{peer} registers node {}", node.node), 0);
        }
        if let Err(error) = self.leading() {
            let (code, leader) = error.reply();
            return refused(code, error.to_string(), leader);
        }
        let Ok(_call) = self.calls.try_acquire() else {
            return refused(Code::Unavailable, format!("{} calls are in flight", self.options.calls_in_flight), 0);
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

    /// Takes messages of another group's channel: they are committed when this says so.
    pub async fn deliver(&self, peer: &PeerIdentity, request: DeliverRequest) -> DeliverAnswer {
        let answer = |code: Code, taken_seq: u64, leader: u64| DeliverAnswer { code: code as u32, taken_seq, leader };
        if self.peer_may(peer, &[Role::Shard]).is_err() || GroupId(request.to_group) != GroupId::directory(self.world) {
            return answer(Code::Forbidden, 0, 0);
        }
        let sizes: Vec<_> = request.messages.iter().map(Message::encoded_len).collect();
        let too_large = sizes.len() > CHANNEL_MESSAGES_MAX
            || sizes.iter().any(|&size| size > CHANNEL_MESSAGE_MAX_BYTES)
            || sizes.iter().sum::<usize>() > LOG_ENTRY_MAX_BYTES / 2;
        if too_large {
            return answer(Code::TooLarge, 0, 0);
        }
        if let Err(error) = self.leading() {
            let (code, leader) = error.reply();
            return answer(code, 0, leader);
        }
        let Ok(_call) = self.calls.try_acquire() else { return answer(Code::Unavailable, 0, 0) };
        match self.order(Body::Messages(ChannelMessages { messages: request.messages })).await {
            Ok(taken) => {
                if taken.code != 0 {
                    tracing::warn!(world = %self.world, code = taken.code, reason = %taken.reason, "messages are not taken");
                }
                DeliverAnswer { code: taken.code, taken_seq: taken.taken_seq, leader: 0 }
            }
            Err(error) => {
                let (code, leader) = error.reply();
                answer(code, 0, leader)
            }
        }
    }
}
