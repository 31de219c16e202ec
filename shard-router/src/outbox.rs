//! A keyed group's channels, for the pump.

use std::future::Future;
use std::sync::Arc;

use marchland_proto::storage::{ChannelAck, ChannelMessage};
use marchland_storage::keyed::KeyedStore;
use marchland_types::GroupId;
use tokio::sync::watch;

use crate::orders::OrderError;
use crate::pump::{Outbox, OutboxError};
use crate::records::{ReadError, Records};

/// What an outbox needs of a group's service.
pub trait KeyedService: Send + Sync + 'static {
    /// Where the group's records are.
    type Store: KeyedStore;

    /// The group's records.
    fn records(&self) -> &Records<Self::Store>;

    /// Commits an acknowledgement; `Err` within is why it is refused.
    fn acknowledge(&self, ack: ChannelAck) -> impl Future<Output = Result<Result<(), String>, OrderError>> + Send;
}

/// The channels from a keyed group: read from its records, trimmed through its log.
pub struct KeyedOutbox<S> {
    service: Arc<S>,
    posted: watch::Receiver<u64>,
}

impl<S: KeyedService> KeyedOutbox<S> {
    /// Of this group; `posted` is its machine's.
    pub fn new(service: Arc<S>, posted: watch::Receiver<u64>) -> Self {
        Self { service, posted }
    }
}

fn unreadable(error: ReadError) -> OutboxError {
    OutboxError(error.to_string())
}

impl<S: KeyedService> Outbox for KeyedOutbox<S> {
    fn posted(&self) -> watch::Receiver<u64> {
        self.posted.clone()
    }

    async fn receivers(&self) -> Result<Vec<GroupId>, OutboxError> {
        self.service.records().receivers().await.map_err(unreadable)
    }

    async fn pending(&self, to: GroupId, limit: usize) -> Result<Vec<ChannelMessage>, OutboxError> {
        self.service.records().posted(to, limit).await.map_err(unreadable)
    }

    async fn acked(&self, ack: ChannelAck) -> Result<(), OutboxError> {
        match self.service.acknowledge(ack).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => {
                // It claims to have taken what was never posted.
                tracing::error!(to = %GroupId(ack.from_group), seq = ack.seq, %reason, "acknowledgement is refused");
                Err(OutboxError(reason))
            }
            Err(error) => Err(OutboxError(error.to_string())),
        }
    }
}
