//! What came in for a region and waits for its next tick.
//!
//! Bounded by count: readers of edge streams stop reading while a region's backlog is long, so pressure goes back to the
//! edges through the streams' flow control instead of into memory. Nothing that was taken is dropped while this replica
//! owns the region: an input that were dropped here would leave a gap in its session's numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use marchland_proto::storage::{AdminOrder, AttachOrder, ChannelAck, ChannelMessage, DetachOrder, SessionInputs, TickEntry};
use marchland_types::level;
use marchland_types::limits::{INPUTS_PER_TICK_MAX, LOG_ENTRY_MAX_BYTES};
use prost::Message;

/// Above this many waiting inputs, readers pause. Half of what one tick may carry, so that a burst still fits.
pub const BACKLOG_PAUSE: usize = INPUTS_PER_TICK_MAX / 2;

/// How many inputs wait, shared with the readers of edge streams.
#[derive(Clone, Debug, Default)]
pub struct BacklogGauge(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// In the backlog.
    queued: AtomicUsize,
    /// Not looked at by the region's worker yet.
    arrived: AtomicUsize,
}

impl BacklogGauge {
    /// Whether readers should pause.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.0.queued.load(Ordering::Relaxed) + self.0.arrived.load(Ordering::Relaxed) > BACKLOG_PAUSE
    }

    pub(crate) fn arrived(&self, count: usize) {
        self.0.arrived.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn looked_at(&self, count: usize) {
        self.0.arrived.fetch_sub(count, Ordering::Relaxed);
    }
}

/// Inputs for the next tick, in the order in which they came.
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: TickEntry,
    count: usize,
    gauge: BacklogGauge,
}

impl Backlog {
    /// An empty one, which an existing gauge follows from here on.
    pub fn with_gauge(gauge: BacklogGauge) -> Self {
        let mut backlog = Self { gauge, ..Self::default() };
        backlog.counted(0);
        backlog
    }

    /// The gauge that follows this backlog.
    pub fn gauge(&self) -> BacklogGauge {
        self.gauge.clone()
    }

    /// Number of waiting inputs.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets everything: this replica does not own the region any more, edges send theirs to the new owner.
    pub fn clear(&mut self) {
        self.waiting = TickEntry::default();
        self.counted(0);
    }

    fn counted(&mut self, count: usize) {
        self.count = count;
        level!("region.backlog", count, BACKLOG_PAUSE + INPUTS_PER_TICK_MAX);
        self.gauge.0.queued.store(count, Ordering::Relaxed);
    }

    /// A session's inputs.
    pub fn session(&mut self, inputs: SessionInputs) {
        self.counted(self.count + inputs.inputs.len().max(1));
        self.waiting.sessions.push(inputs);
    }

    /// A client arrived.
    pub fn attach(&mut self, order: AttachOrder) {
        self.counted(self.count + 1);
        self.waiting.attaches.push(order);
    }

    /// A client left.
    pub fn detach(&mut self, order: DetachOrder) {
        self.counted(self.count + 1);
        self.waiting.detaches.push(order);
    }

    /// A message of another group.
    pub fn message(&mut self, message: ChannelMessage) {
        self.counted(self.count + 1);
        self.waiting.messages.push(message);
    }

    /// Another group took messages.
    pub fn ack(&mut self, ack: ChannelAck) {
        self.counted(self.count + 1);
        self.waiting.acks.push(ack);
    }

    /// An operator's order.
    pub fn order(&mut self, order: AdminOrder) {
        self.counted(self.count + 1);
        self.waiting.orders.push(order);
    }

    /// Takes what the next tick carries. What would make its entry too large stays, in order.
    pub fn take(&mut self) -> TickEntry {
        let mut taken = std::mem::take(&mut self.waiting);
        let mut left = TickEntry::default();
        let mut count_left = 0;
        if self.count > INPUTS_PER_TICK_MAX || taken.encoded_len() > LOG_ENTRY_MAX_BYTES - 1024 {
            // Sessions are what is many and large; the rest is bounded by other limits far below.
            let (mut inputs, mut size_bytes) =
                (0, taken.encoded_len() - taken.sessions.iter().map(Message::encoded_len).sum::<usize>());
            let fits = taken
                .sessions
                .iter()
                .take_while(|s| {
                    inputs += s.inputs.len().max(1);
                    size_bytes += s.encoded_len() + 6;
                    inputs <= INPUTS_PER_TICK_MAX && size_bytes <= LOG_ENTRY_MAX_BYTES - 1024
                })
                .count();
            left.sessions = taken.sessions.split_off(fits.max(1).min(taken.sessions.len()));
            count_left = left.sessions.iter().map(|s| s.inputs.len().max(1)).sum();
        }
        self.waiting = left;
        self.counted(count_left);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use marchland_proto::storage::{StoredAction, StoredInput, stored_input::What};

    fn inputs(character: u64, count: usize, body_bytes: usize) -> SessionInputs {
        let action = StoredAction { code: 1, body: Bytes::from(vec![0; body_bytes]) };
        let input = |seq| StoredInput { seq, client_tick: 0, duration_ms: 0, what: Some(What::Action(action.clone())) };
        SessionInputs { character, inputs: (1..=count as u64).map(input).collect(), ..SessionInputs::default() }
    }

    #[test]
    fn a_tick_takes_everything_that_fits_and_leaves_the_rest_in_order() {
        let mut backlog = Backlog::default();
        let gauge = backlog.gauge();
        for character in 1..=200 {
            backlog.session(inputs(character, 64, 1000));
        }
        assert_eq!(backlog.len(), 200 * 64);
        let first = backlog.take();
        assert!(first.encoded_len() <= LOG_ENTRY_MAX_BYTES);
        assert!(!first.sessions.is_empty() && first.sessions.len() < 200);
        let mut seen: Vec<u64> = first.sessions.iter().map(|s| s.character).collect();
        while !backlog.is_empty() {
            seen.extend(backlog.take().sessions.iter().map(|s| s.character));
        }
        assert_eq!(seen, (1..=200).collect::<Vec<_>>());
        assert!(!gauge.is_long());
    }

    #[test]
    fn a_long_backlog_pauses_readers() {
        let mut backlog = Backlog::default();
        (0..=BACKLOG_PAUSE as u64).for_each(|c| backlog.session(inputs(c, 1, 0)));
        assert!(backlog.gauge().is_long());
        backlog.clear();
        assert!(!backlog.gauge().is_long());
    }
}
