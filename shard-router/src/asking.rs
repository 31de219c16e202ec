//! Asking a group of which only some nodes have a replica, from another process.
//!
//! A call goes to the member that is thought to lead; a member that does not lead names the one that does, and a member that
//! does not answer is passed over. Members are asked from a starting point of the caller's choice, so that many callers spread.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use marchland_proto::cluster::{LocateReply, RecordWorldReply, RegisterReply, SignInReply};
use marchland_proto::codes::Code;
use marchland_proto::net::Transport;
use marchland_types::{GroupId, NodeId, ReplicaId};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::options::ClientOptions;
use crate::peers::Peers;

/// Why there is no answer.
pub(crate) enum NoAnswer {
    /// A definite refusal.
    Refused { code: Code, reason: String },
    /// None within the deadline: what the last attempt met.
    Unknown(String),
}

/// What is looked at in an answer.
pub(crate) trait Reply {
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
reply!(RecordWorldReply, this => this.reason.clone());
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

/// The members of a group, and who of them is asked next.
pub(crate) struct Asking<T> {
    group: GroupId,
    peers: Peers<T>,
    members: Mutex<Members>,
    options: ClientOptions,
}

struct Members {
    list: Vec<(NodeId, String)>,
    /// Who is asked next: who answered last, or was named as the leader.
    next: usize,
}

impl<T: Transport> Asking<T> {
    /// `members` are nodes and their `host:port`; `start` says which one is asked first.
    pub(crate) fn new(
        group: GroupId,
        peers: Peers<T>,
        members: Vec<(NodeId, String)>,
        start: usize,
        options: ClientOptions,
    ) -> Self {
        let next = if members.is_empty() { 0 } else { start % members.len() };
        Self { group, peers, members: Mutex::new(Members { list: members, next }), options }
    }

    pub(crate) fn set_members(&self, members: Vec<(NodeId, String)>) {
        let mut own = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        own.next = if members.is_empty() { 0 } else { own.next % members.len() };
        own.list = members;
    }

    /// Asks one member after the other until one answers for the group, or refuses for good.
    pub(crate) async fn ask<Q, R: Reply, F>(
        &self,
        within: Duration,
        request: impl Fn() -> Q,
        call: impl Fn(Channel, Q) -> F,
    ) -> Result<R, NoAnswer>
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
                return Err(NoAnswer::Unknown(last));
            }
            let (count, member) = self.member();
            let Some((node, address)) = member else { return Err(NoAnswer::Unknown("no members are known".into())) };
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
                    tracing::debug!(group = %self.group, %node, %why, "asked again");
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

fn judge<R: Reply>(reply: R) -> Result<Attempt<R>, NoAnswer> {
    let code = Code::from_u32(reply.code());
    match code {
        Some(Code::Ok) => Ok(Attempt::Done(reply)),
        Some(Code::NotLeader | Code::Unavailable) => {
            let leader = Some(reply.leader()).filter(|&l| l != 0).map(|l| ReplicaId(l).node());
            Ok(Attempt::Again { leader, why: format!("{code:?}: {}", reply.reason()) })
        }
        Some(code) => Err(NoAnswer::Refused { code, reason: reply.reason() }),
        None => Err(NoAnswer::Refused { code: Code::Internal, reason: format!("code {}", reply.code()) }),
    }
}
