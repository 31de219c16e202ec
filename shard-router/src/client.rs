//! Asking a directory from another process.
//!
//! A sign-in is repeated with its request id until the deadline, so it takes effect once however often it is sent.

use std::future::Future;
use std::time::Duration;

use marchland_proto::cluster::directory_client::DirectoryClient as Grpc;
use marchland_proto::cluster::{LocateReply, LocateRequest, RegisterRequest, SignInRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterClient, Transport};
use marchland_proto::storage::{NodeRegistration, SignInAnswer};
use marchland_types::{CharacterId, GroupId, Incarnation, NodeId, WorldId};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::asking::{Asking, NoAnswer, Reply};
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

/// A client of one world's directory. Shared by all callers in a process.
pub struct DirectoryClient<T> {
    world: WorldId,
    asking: Asking<T>,
}

impl<T: Transport> DirectoryClient<T> {
    /// For the directory whose replicas are on `members` (node and `host:port`). `start` says which one is asked first.
    pub fn new(world: WorldId, peers: Peers<T>, members: Vec<(NodeId, String)>, start: usize, options: ClientOptions) -> Self {
        Self { world, asking: Asking::new(GroupId::directory(world), peers, members, start, options) }
    }

    /// Replaces the members, for instance after a node came back under another address.
    pub fn set_members(&self, members: Vec<(NodeId, String)>) {
        self.asking.set_members(members);
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
        self.asking.ask(within, request, call).await.map_err(|none| match none {
            NoAnswer::Refused { code, reason } => DirectoryError::Refused { code, reason },
            NoAnswer::Unknown(last) => DirectoryError::Unknown { world: self.world, within, last },
        })
    }
}
