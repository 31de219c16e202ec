//! How orders reach a keyed group's log, whatever they mean: admission, proposals, answers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::cluster::{DeliverAnswer, DeliverRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::{PeerIdentity, Role};
use marchland_proto::storage::ChannelMessages;
use marchland_raft::ProposeError;
use marchland_types::limits::{CHANNEL_MESSAGE_MAX_BYTES, CHANNEL_MESSAGES_MAX, LOG_ENTRY_MAX_BYTES};
use marchland_types::seam::Clock;
use marchland_types::{GroupId, ReplicaId};
use prost::Message;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::group::KeyedGroup;
use crate::options::DirectoryOptions;

/// Why an order has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OrderError {
    /// This replica does not lead (any more). Give the order to the leader: had it been taken here before leadership was lost,
    /// it has the same answer there.
    #[error("group is not led here")]
    NotLeader {
        /// Who does, if known.
        leader: Option<ReplicaId>,
    },
    /// Refused: too much at once, or no room.
    #[error("group has no room: {0}")]
    Busy(String),
    /// It may take effect, now or later. The same order can be given again.
    #[error("outcome of the order is unknown: {0}")]
    Unknown(String),
    /// This replica has stopped, or answers what is not an answer.
    #[error("group failed here: {0}")]
    Fault(String),
}

impl OrderError {
    /// The code and the leader that a caller is told.
    pub(crate) fn reply(&self) -> (Code, u64) {
        match self {
            Self::NotLeader { leader } => (Code::NotLeader, leader.map_or(0, |l| l.0)),
            // A replica that stopped has not spoken for the others.
            Self::Fault(_) => (Code::NotLeader, 0),
            Self::Busy(_) | Self::Unknown(_) => (Code::Unavailable, 0),
        }
    }
}

/// How far messages were taken.
pub(crate) struct Taken {
    pub(crate) code: u32,
    pub(crate) reason: String,
    pub(crate) seq: u64,
    pub(crate) cut: u64,
}

/// A group, and what may be asked of it at once.
pub(crate) struct Orders<G, C> {
    pub(crate) id: GroupId,
    pub(crate) group: G,
    pub(crate) clock: C,
    pub(crate) options: DirectoryOptions,
    calls: Arc<Semaphore>,
}

impl<G: KeyedGroup, C: Clock> Orders<G, C> {
    pub(crate) fn new(id: GroupId, group: G, clock: C, options: DirectoryOptions) -> Self {
        let calls = Arc::new(Semaphore::new(options.calls_in_flight));
        Self { id, group, clock, options, calls }
    }

    /// Commits the entry that `encode` makes of a time, and returns its answer, which may be a refusal. Leaders only.
    ///
    /// An unknown outcome is tried again until the deadline, unless two of this order are not one.
    pub(crate) async fn order<A: Message + Default>(
        &self,
        repeatable: bool,
        encode: impl Fn(u64) -> Bytes,
    ) -> Result<A, OrderError> {
        let mut unknown = false;
        let pause = Duration::from_millis(self.options.retry_ms);
        let deadline = Instant::now() + Duration::from_millis(self.options.order_ms);
        let busy_deadline = Instant::now() + Duration::from_millis(self.options.busy_ms);
        loop {
            let entry = encode(self.clock.wall_ms());
            match self.group.propose(entry).await {
                Ok(committed) => {
                    return A::decode(committed.answer).map_err(|e| OrderError::Fault(format!("answer: {e}")));
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
                    tracing::info!(group = %self.id, %reason, "order is tried again");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    pub(crate) fn leading(&self) -> Result<(), OrderError> {
        if self.group.leads() { Ok(()) } else { Err(OrderError::NotLeader { leader: self.group.leader() }) }
    }

    pub(crate) fn peer_may(&self, peer: &PeerIdentity, roles: &[Role]) -> Result<(), String> {
        let world = self.id.world();
        let allowed = roles.iter().any(|&role| peer.may(role, world));
        if allowed { Ok(()) } else { Err(format!("{peer} may not do this in world {world}")) }
    }

    /// A place among the calls that are worked on at once, if there is one.
    pub(crate) fn call(&self) -> Option<SemaphorePermit<'_>> {
        self.calls.try_acquire().ok()
    }

    /// Takes messages of another group's channel, by `commit`: they are committed when this says so.
    pub(crate) async fn deliver<F>(
        &self,
        peer: &PeerIdentity,
        request: DeliverRequest,
        commit: impl FnOnce(ChannelMessages) -> F,
    ) -> DeliverAnswer
    where
        F: Future<Output = Result<Taken, OrderError>>,
    {
        let refused = |code: Code, leader: u64| DeliverAnswer { code: code as u32, leader, ..DeliverAnswer::default() };
        if self.peer_may(peer, &[Role::Shard]).is_err() || GroupId(request.to_group) != self.id {
            return refused(Code::Forbidden, 0);
        }
        let sizes: Vec<_> = request.messages.iter().map(Message::encoded_len).collect();
        let too_large = sizes.len() > CHANNEL_MESSAGES_MAX
            || sizes.iter().any(|&size| size > CHANNEL_MESSAGE_MAX_BYTES)
            || sizes.iter().sum::<usize>() > LOG_ENTRY_MAX_BYTES / 2;
        if too_large {
            return refused(Code::TooLarge, 0);
        }
        if let Err(error) = self.leading() {
            let (code, leader) = error.reply();
            return refused(code, leader);
        }
        let Some(_call) = self.call() else { return refused(Code::Unavailable, 0) };
        match commit(ChannelMessages { messages: request.messages }).await {
            Ok(taken) => {
                if taken.code != 0 {
                    tracing::warn!(group = %self.id, code = taken.code, reason = %taken.reason, "messages are not taken");
                }
                DeliverAnswer { code: taken.code, taken_seq: taken.seq, leader: 0, cut: taken.cut }
            }
            Err(error) => {
                let (code, leader) = error.reply();
                refused(code, leader)
            }
        }
    }
}
