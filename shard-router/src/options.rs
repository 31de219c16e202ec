//! How fast things go and how much they may hold.

use marchland_types::limits::{CHANNEL_MESSAGE_MAX_BYTES, JOIN_DEADLINE_MS, LOG_ENTRY_MAX_BYTES};

/// Of a directory's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// Calls that are being worked on at once; more are told to try again. Below raft's own bound on proposals, so that
    /// acknowledgements of channels always find room.
    pub calls_in_flight: usize,
    /// How long an order with an unknown outcome is tried again here, in milliseconds.
    pub order_ms: u64,
    /// How long an order that was refused for the moment is tried again here, in milliseconds: long enough for a leader that
    /// was just elected to hear of a majority.
    pub busy_ms: u64,
    /// Pause before an order is tried again, in milliseconds.
    pub retry_ms: u64,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self { calls_in_flight: 192, order_ms: 5_000, busy_ms: 400, retry_ms: 50 }
    }
}

/// Of whoever asks a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Until one member's answer is given up and another one is asked, in milliseconds.
    pub try_ms: u64,
    /// Pause after every member was asked in vain, in milliseconds; doubled each time, up to the maximum.
    pub pause_ms: u64,
    /// Longest pause, in milliseconds.
    pub pause_max_ms: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { try_ms: 1_500, pause_ms: 20, pause_max_ms: 320 }
    }
}

/// Of a [`crate::ChannelPump`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PumpOptions {
    /// Messages of one delivery.
    pub batch_messages: usize,
    /// Bytes of one delivery, at least one message aside.
    pub batch_bytes: usize,
    /// Receivers that are served at once; the others wait for their turn.
    pub destinations_at_once: usize,
    /// Deliveries under way for one receiver.
    pub deliveries_at_once: usize,
    /// Until a delivery without an answer counts as failed, in milliseconds.
    pub deliver_ms: u64,
    /// Pause after a failure, in milliseconds; doubled each time, up to the maximum.
    pub pause_ms: u64,
    /// Longest pause, in milliseconds.
    pub pause_max_ms: u64,
}

impl Default for PumpOptions {
    fn default() -> Self {
        Self {
            batch_messages: 64,
            batch_bytes: 1 << 20,
            destinations_at_once: 64,
            deliveries_at_once: 2,
            deliver_ms: 3_000,
            pause_ms: 20,
            pause_max_ms: 1_000,
        }
    }
}

/// Options that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("directory options: {0}")]
pub struct BadOptions(pub String);

impl DirectoryOptions {
    /// Checks the relations between the values.
    pub fn validate(&self) -> Result<(), BadOptions> {
        if self.calls_in_flight == 0 {
            return Err(BadOptions("calls_in_flight of 0 lets nothing through".into()));
        }
        if self.retry_ms == 0 || self.retry_ms >= self.order_ms || self.order_ms >= JOIN_DEADLINE_MS {
            return Err(BadOptions(format!(
                "0 < retry_ms ({}) < order_ms ({}) < {JOIN_DEADLINE_MS}",
                self.retry_ms, self.order_ms
            )));
        }
        if self.busy_ms > self.order_ms {
            return Err(BadOptions(format!("busy_ms ({}) is at most order_ms ({})", self.busy_ms, self.order_ms)));
        }
        Ok(())
    }
}

impl ClientOptions {
    /// Checks the relations between the values.
    pub fn validate(&self) -> Result<(), BadOptions> {
        if self.try_ms == 0 || self.pause_ms == 0 || self.pause_ms > self.pause_max_ms {
            return Err(BadOptions(format!(
                "try_ms ({}) and pause_ms ({}) are above 0, pause_ms at most pause_max_ms ({})",
                self.try_ms, self.pause_ms, self.pause_max_ms
            )));
        }
        Ok(())
    }
}

impl PumpOptions {
    /// Checks the relations between the values.
    pub fn validate(&self) -> Result<(), BadOptions> {
        if [self.batch_messages, self.destinations_at_once, self.deliveries_at_once].contains(&0) || self.deliver_ms == 0 {
            return Err(BadOptions("a limit of 0 lets nothing through".into()));
        }
        if self.batch_bytes + CHANNEL_MESSAGE_MAX_BYTES + 4096 > LOG_ENTRY_MAX_BYTES {
            return Err(BadOptions(format!("batch_bytes of {} do not fit in an entry", self.batch_bytes)));
        }
        if self.pause_ms == 0 || self.pause_ms > self.pause_max_ms {
            return Err(BadOptions(format!("0 < pause_ms ({}) ≤ pause_max_ms ({})", self.pause_ms, self.pause_max_ms)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_contradictions_are_not() {
        DirectoryOptions::default().validate().unwrap();
        ClientOptions::default().validate().unwrap();
        PumpOptions::default().validate().unwrap();
        assert!(DirectoryOptions { order_ms: 10, ..Default::default() }.validate().is_err());
        assert!(ClientOptions { pause_ms: 999, ..Default::default() }.validate().is_err());
        assert!(PumpOptions { batch_bytes: 8 << 20, ..Default::default() }.validate().is_err());
    }
}
