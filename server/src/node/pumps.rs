//! Delivery of a region's messages to other groups.

use std::sync::Arc;

use marchland_proto::storage::{ChannelAck, ChannelMessage};
use marchland_region::RegionPort;
use marchland_router::{Outbox, OutboxError};
use marchland_types::GroupId;
use tokio::sync::watch;

/// A region's channels, for the pump.
pub(super) struct RegionOutbox {
    region: Arc<dyn RegionPort>,
    posted: watch::Receiver<u64>,
}

impl RegionOutbox {
    /// Of this region; `posted` changes when its outbox does.
    pub(super) fn new(region: Arc<dyn RegionPort>, posted: watch::Receiver<u64>) -> Self {
        Self { region, posted }
    }
}

impl Outbox for RegionOutbox {
    fn posted(&self) -> watch::Receiver<u64> {
        self.posted.clone()
    }

    async fn receivers(&self) -> Result<Vec<GroupId>, OutboxError> {
        Ok(self.region.clone().receivers().await)
    }

    async fn pending(&self, to: GroupId, limit: usize) -> Result<Vec<ChannelMessage>, OutboxError> {
        Ok(self.region.clone().pending(to, limit).await)
    }

    async fn acked(&self, ack: ChannelAck) -> Result<(), OutboxError> {
        // Goes into the next tick. Should that be lost, the pump is told again.
        self.region.clone().acked(ack);
        Ok(())
    }
}
