//! Asking a directory from another process.
//!
//! A call goes to the member that is thought to lead; a member that does not lead names the one that does, and a member that
//! does not answer is passed over. A sign-in is repeated with its request id until the deadline, so it takes effect once
//! however often it is sent. Members are asked from a starting point of the caller's choice, so that many callers spread.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use marchland_proto::cluster::directory_client::DirectoryClient as Grpc;
use marchland_proto::cluster::{LocateReply, LocateRequest, RegisterReply, RegisterRequest, SignInReply, SignInRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterClient, Transport};
use marchland_proto::storage::{NodeRegistration, SignInAnswer};
use marchland_types::{CharacterId, Incarnation, NodeId, ReplicaId, WorldId};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::options::ClientOptions;
use crate::peers::Peers;

/// Why a directory gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// A definite refusal: nothing has happened, and asking again changes nothing.
    #[error("directory refuses: {code:?}: {reason}")]
    Refused {
        /// Why, as a stable code.
        code: Code,
        /// Why, in words.
        reason: String,
    },
    /// No answer within the deadline. What was asked may have happened, and may still happen.
    #[error("no answer of the directory of world {world} within {} ms: {last}", .within.as_millis())]
    Unknown {
        /// Whose.
        world: WorldId,
        /// The deadline.
        within: Duration,
        /// What the last attempt met.
        last: String,
    },
}

/// What the client looks at in an answer.
trait Reply {
    fn code(&self) -> u32;
    fn leader(&self) -> u64;
    fn reason(&self) -> String;
}

macro_rules! reply {
    ($type:ty, $this:ident => $reason:expr) => {
        impl Reply for $type {
            fn code(&self) -> u32 {
                self.code
            }
            fn leader(&self) -> u64 {
                self.leader
            }
            fn reason(&self) -> String {
                let $this = self;
                $reason
            }
        }
    };
}

reply!(SignInReply, this => this.reason.clone());
reply!(RegisterReply, this => this.reason.clone());
reply!(LocateReply, this => format!("{:?}", Code::from_u32(this.code)));

/// What one attempt led to.
enum Attempt<R> {
    Done(R),
    /// Ask again, there if it is named.
    Again {
        leader: Option<NodeId>,
        why: String,
    },
}

/// A client of one world's directory. Shared by all callers in a process.
pub struct DirectoryClient<T> {
    world: WorldId,
    peers: Peers<T>,
    members: Mutex<Members>,
    options: ClientOptions,
}

struct Members {
    list: Vec<(NodeId, String)>,
    /// Who is asked next: who answered last, or was named as the leader.
    next: usize,
}

impl<T: Transport> DirectoryClient<T> {
    /// For the directory whose replicas are on `members` (node and `host:port`). `start` says which one is asked first.
    pub fn new(world: WorldId, peers: Peers<T>, members: Vec<(NodeId, String)>, start: usize, options: ClientOptions) -> Self {
        let next = if members.is_empty() { 0 } else { start % members.len() };
        Self { world, peers, members: Mutex::new(Members { list: members, next }), options }
    }

    /// Replaces the members, for instance after a node came back under another address.
    pub fn set_members(&self, members: Vec<(NodeId, String)>) {
        let mut own = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        own.next = if members.is_empty() { 0 } else { own.next % members.len() };
        own.list = members;
    }

    /// Signs in. `request.world` is set here; a request id of the caller's makes repetitions one sign-in: it must be new for
    /// every sign-in, and the same for repetitions of one.
    pub async fn sign_in(&self, mut request: SignInRequest, within: Duration) -> Result<SignInAnswer, DirectoryError> {
        request.world = self.world.0;
        let call = |channel, request: SignInRequest| async move { Grpc::over(channel).sign_in(request).await };
        let reply = self.ask(within, || request.clone(), call).await?;
        reply.answer.ok_or_else(|| DirectoryError::Refused { code: Code::Internal, reason: "an answer without content".into() })
    }

    /// Where a character is: linearizable, from the leader. Refused with [`Code::BadResume`] when there is no such character.
    pub async fn locate(&self, character: CharacterId, within: Duration) -> Result<LocateReply, DirectoryError> {
        let request = LocateRequest { world: self.world.0, character: character.0 };
        self.ask(within, || request, |channel, request| async move { Grpc::over(channel).locate(request).await }).await
    }

    /// Map and plans as some member knows them. May be older than what was seen before: compare the epochs.
    pub async fn map(&self, within: Duration) -> Result<LocateReply, DirectoryError> {
        self.locate(CharacterId(0), within).await
    }

    /// The incarnation that belongs to this node's data folder. Refused with [`Code::Superseded`] when another folder has
    /// taken the node over.
    pub async fn register(&self, node: NodeRegistration, within: Duration) -> Result<Incarnation, DirectoryError> {
        let request = RegisterRequest { world: self.world.0, node: Some(node) };
        let call = |channel, request: RegisterRequest| async move { Grpc::over(channel).register(request).await };
        self.ask(within, || request.clone(), call).await.map(|reply| Incarnation(reply.incarnation))
    }

    async fn ask<Q, R: Reply, F>(
        &self,
        within: Duration,
        request: impl Fn() -> Q,
        call: impl Fn(Channel, Q) -> F,
    ) -> Result<R, DirectoryError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + within;
        let mut last = "not asked yet".to_owned();
        let mut pause_ms = self.options.pause_ms;
        // Hints are followed at once, but not in circles: two members may each take the other for the leader.
        let mut without_pause = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DirectoryError::Unknown { world: self.world, within, last });
            }
            let (count, member) = self.member();
            let Some((node, address)) = member else {
                return Err(DirectoryError::Unknown { world: self.world, within, last: "no members are known".into() });
            };
            let attempt_time = left.min(Duration::from_millis(self.options.try_ms));
            let answered = tokio::time::timeout(attempt_time, call(self.peers.channel(&address), request())).await;
            let attempt = match answered {
                Ok(Ok(reply)) => judge(reply.into_inner())?,
                Ok(Err(status)) => Attempt::Again { leader: None, why: format!("node {node}: {status}") },
                Err(_) => Attempt::Again { leader: None, why: format!("node {node}: no answer within {attempt_time:?}") },
            };
            match attempt {
                Attempt::Done(reply) => return Ok(reply),
                Attempt::Again { leader, why } => {
                    tracing::debug!(world = %self.world, %node, %why, "directory is asked again");
                    last = why;
                    self.turn_to(node, leader);
                    without_pause += 1;
                }
            }
            if without_pause >= count {
                without_pause = 0;
                let pause = Duration::from_millis(pause_ms).min(deadline.saturating_duration_since(Instant::now()));
                tokio::time::sleep(pause).await;
                pause_ms = (pause_ms * 2).min(self.options.pause_max_ms);
            }
        }
    }

    fn member(&self) -> (usize, Option<(NodeId, String)>) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        (members.list.len(), members.list.get(members.next).cloned())
    }

    /// Another member from now on, unless somebody else has moved on already: the named one, or the next.
    fn turn_to(&self, asked: NodeId, leader: Option<NodeId>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let named = leader.filter(|&l| l != asked).and_then(|l| members.list.iter().position(|(node, _)| *node == l));
        let still = members.list.get(members.next).is_some_and(|(node, _)| *node == asked);
        match named {
            Some(named) => members.next = named,
            None if still => members.next = (members.next + 1) % members.list.len(),
            None => {}
        }
    }
}

fn judge<R: Reply>(reply: R) -> Result<Attempt<R>, DirectoryError> {
    let code = Code::from_u32(reply.code());
    match code {
        Some(Code::Ok) => Ok(Attempt::Done(reply)),
        Some(Code::NotLeader | Code::Unavailable) => {
            let leader = Some(reply.leader()).filter(|&l| l != 0).map(|l| ReplicaId(l).node());
            Ok(Attempt::Again { leader, why: format!("{code:?}: {}", reply.reason()) })
        }
        Some(code) => Err(DirectoryError::Refused { code, reason: reply.reason() }),
        None => Err(DirectoryError::Refused { code: Code::Internal, reason: format!("code {}", reply.code()) }),
    }
}
