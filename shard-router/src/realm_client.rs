//! Asking the realm from another process. Every order of it can be repeated: the same again changes nothing.

use std::time::Duration;

use marchland_proto::cluster::realm_client::RealmClient as Grpc;
use marchland_proto::cluster::{RecordWorldRequest, RegisterNodeRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterClient, Transport};
use marchland_proto::storage::{RealmNode, RealmWorld};
use marchland_raft::BoxFuture;
use marchland_types::{GroupId, Incarnation, NodeId};

use crate::asking::{Asking, NoAnswer};
use crate::issuer::Issuer;
use crate::options::ClientOptions;
use crate::peers::Peers;

/// How long a folder that asks for its incarnation makes its directory wait: less than it waits for the directory itself, so that it is
/// told why there is none.
const ISSUE_WITHIN: Duration = Duration::from_millis(800);

/// Why the realm gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RealmError {
    /// A definite refusal: nothing has happened, and asking again changes nothing.
    #[error("the realm refuses: {code:?}: {reason}")]
    Refused {
        /// Why, as a stable code.
        code: Code,
        /// Why, in words.
        reason: String,
    },
    /// No answer within the deadline. What was asked may have happened, and may still happen.
    #[error("the realm can not be reached within {} ms: {last}", .within.as_millis())]
    Unknown {
        /// The deadline.
        within: Duration,
        /// What the last attempt met.
        last: String,
    },
}

/// A client of the realm. Shared by all callers in a process.
pub struct RealmClient<T>(Asking<T>);

impl<T: Transport> RealmClient<T> {
    /// For the realm whose replicas are on `hosts` (node and `host:port`). `start` says which one is asked first.
    pub fn new(peers: Peers<T>, hosts: Vec<(NodeId, String)>, start: usize, options: ClientOptions) -> Self {
        Self(Asking::new(GroupId::realm(), peers, hosts, start, options))
    }

    /// Records a world with the members of its directory.
    pub async fn record_world(&self, world: RealmWorld, within: Duration) -> Result<(), RealmError> {
        let request = RecordWorldRequest { world: Some(world) };
        let call = |channel, request: RecordWorldRequest| async move { Grpc::over(channel).record_world(request).await };
        self.0.ask(within, || request.clone(), call).await.map(drop).map_err(|none| no_answer(none, within))
    }

    /// The incarnation of a node's folder: a new one for a folder that asks, else the one that it says it has. Refused with
    /// [`Code::Superseded`] when another folder has taken the node over.
    pub async fn register_node(&self, node: RealmNode, within: Duration) -> Result<Incarnation, RealmError> {
        let request = RegisterNodeRequest { node: Some(node) };
        let call = |channel, request: RegisterNodeRequest| async move { Grpc::over(channel).register_node(request).await };
        let reply = self.0.ask(within, || request.clone(), call).await.map_err(|none| no_answer(none, within))?;
        Ok(Incarnation(reply.incarnation))
    }
}

fn no_answer(none: NoAnswer, within: Duration) -> RealmError {
    match none {
        NoAnswer::Refused { code, reason } => RealmError::Refused { code, reason },
        NoAnswer::Unknown(last) => RealmError::Unknown { within, last },
    }
}

impl<T: Transport> Issuer for RealmClient<T> {
    fn issue(&self, node: RealmNode) -> BoxFuture<'_, Result<Incarnation, RealmError>> {
        Box::pin(self.register_node(node, ISSUE_WITHIN))
    }
}
