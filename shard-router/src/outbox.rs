//! A directory's channels, for the pump.

use std::sync::Arc;

use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{ChannelAck, ChannelMessage};
use marchland_storage::keyed::KeyedStore;
use marchland_types::GroupId;
use marchland_types::seam::Clock;
use tokio::sync::watch;

use crate::group::DirectoryGroup;
use crate::pump::{Outbox, OutboxError};
use crate::service::DirectoryService;
use crate::view::ReadError;

/// The channels from a directory: read from its records, trimmed through its log.
pub struct DirectoryOutbox<G, K, C> {
    service: Arc<DirectoryService<G, K, C>>,
    posted: watch::Receiver<u64>,
}

impl<G: DirectoryGroup, K: KeyedStore, C: Clock> DirectoryOutbox<G, K, C> {
    /// Of this directory; `posted` is its machine's.
    pub fn new(service: Arc<DirectoryService<G, K, C>>, posted: watch::Receiver<u64>) -> Self {
        Self { service, posted }
    }
}

fn unreadable(error: ReadError) -> OutboxError {
    OutboxError(error.to_string())
}

impl<G: DirectoryGroup, K: KeyedStore, C: Clock> Outbox for DirectoryOutbox<G, K, C> {
    fn posted(&self) -> watch::Receiver<u64> {
        self.posted.clone()
    }

    async fn receivers(&self) -> Result<Vec<GroupId>, OutboxError> {
        self.service.view().receivers().await.map_err(unreadable)
    }

    async fn pending(&self, to: GroupId, limit: usize) -> Result<Vec<ChannelMessage>, OutboxError> {
        self.service.view().posted(to, limit).await.map_err(unreadable)
    }

    async fn acked(&self, to: GroupId, seq: u64) -> Result<(), OutboxError> {
        let answer = self.service.order(Body::Ack(ChannelAck { from_group: to.0, seq })).await;
        match answer {
            Ok(answer) if answer.code == 0 => Ok(()),
            Ok(answer) => {
                // It claims to have taken what was never posted.
                tracing::error!(%to, seq, reason = %answer.reason, "acknowledgement is refused");
                Err(OutboxError(answer.reason))
            }
            Err(error) => Err(OutboxError(error.to_string())),
        }
    }
}
