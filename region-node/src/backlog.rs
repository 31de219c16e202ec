//! What came in for a region and waits for its next tick.
//!
//! Bounded by count: readers of edge streams stop reading while a region's backlog is long, so pressure goes back to the
//! edges through the streams' flow control instead of into memory. Nothing that was taken is dropped while this replica
//! owns the region: an input that were dropped here would leave a gap in its session's numbers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::{AdminOrder, AttachOrder, ChannelAck, ChannelMessage, DetachOrder, SessionInputs, TickEntry};
use marchland_types::level;
use marchland_types::limits::{INPUTS_PER_TICK_MAX, LOG_ENTRY_MAX_BYTES};
use prost::Message;

/// Above this many waiting inputs, readers pause. Half of what one tick may carry, so that a burst still fits.
pub const BACKLOG_PAUSE: usize = INPUTS_PER_TICK_MAX / 2;

/// For so many ticks an attach waits for the message that admits it. It is on its way when the directory has answered the edge, and
/// sooner here than an edge that is refused asks again.
const HOLD_TICKS: u8 = 3;

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
    /// Without attaches.
    waiting: TickEntry,
    /// With how many ticks each has waited.
    attaches: Vec<(AttachOrder, u8)>,
    /// Sender and number of the messages that wait: deliveries overlap.
    messages: BTreeSet<(u64, u64)>,
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
        self.attaches.clear();
        self.messages.clear();
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
        self.attaches.push((order, 0));
    }

    /// A client left.
    pub fn detach(&mut self, order: DetachOrder) {
        self.counted(self.count + 1);
        self.waiting.detaches.push(order);
    }

    /// A message of another group, unless it waits already.
    pub fn message(&mut self, message: ChannelMessage) {
        if self.messages.insert((message.from_group, message.seq)) {
            self.counted(self.count + 1);
            self.waiting.messages.push(message);
        }
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

    /// Takes what the next tick carries. What would make its entry too large stays, in order; so does for a while an attach that
    /// `awaits` its admission, unless that may be among the messages.
    pub fn take(&mut self, awaits: impl Fn(&AttachOrder) -> bool) -> TickEntry {
        let mut taken = std::mem::take(&mut self.waiting);
        self.messages.clear();
        for (order, ticks) in std::mem::take(&mut self.attaches) {
            // Whoever has left again is told apart by the region, by both orders in one tick.
            let leaves = || taken.detaches.iter().any(|detach| detach.character == order.character);
            let comes = || taken.messages.iter().any(|message| may_admit(message, order.character));
            if ticks < HOLD_TICKS && !leaves() && awaits(&order) && !comes() {
                self.attaches.push((order, ticks + 1));
            } else {
                taken.attaches.push(order);
            }
        }
        let mut left = TickEntry::default();
        let mut count_left = self.attaches.len();
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
            count_left += left.sessions.iter().map(|s| s.inputs.len().max(1)).sum::<usize>();
        }
        self.waiting = left;
        self.counted(count_left);
        taken
    }
}

/// Whether a message may bring a character's session.
fn may_admit(message: &ChannelMessage, character: u64) -> bool {
    match &message.body {
        Some(Body::Admit(admit)) => admit.character == character,
        Some(Body::Handoff(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use marchland_proto::storage::{Admit, StoredAction, StoredInput, stored_input::What};

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
        let first = backlog.take(|_| false);
        assert!(first.encoded_len() <= LOG_ENTRY_MAX_BYTES);
        assert!(!first.sessions.is_empty() && first.sessions.len() < 200);
        let mut seen: Vec<u64> = first.sessions.iter().map(|s| s.character).collect();
        while !backlog.is_empty() {
            seen.extend(backlog.take(|_| false).sessions.iter().map(|s| s.character));
        }
        assert_eq!(seen, (1..=200).collect::<Vec<_>>());
        assert!(!gauge.is_long());
    }

    fn attach(character: u64) -> AttachOrder {
        AttachOrder { character, ..AttachOrder::default() }
    }

    fn admit(character: u64) -> ChannelMessage {
        let body = Some(Body::Admit(Admit { character, ..Admit::default() }));
        ChannelMessage { body, ..ChannelMessage::default() }
    }

    #[test]
    fn an_attach_waits_for_its_admission_and_not_for_ever() {
        let mut backlog = Backlog::default();
        let taken = |backlog: &mut Backlog| -> Vec<u64> {
            backlog.take(|order| order.character != 9).attaches.iter().map(|order| order.character).collect()
        };
        (7..10).for_each(|character| backlog.attach(attach(character)));
        assert_eq!((taken(&mut backlog), backlog.len()), (vec![9], 2), "who is there is let in");
        backlog.message(admit(8));
        assert_eq!((taken(&mut backlog), backlog.len()), (vec![8], 1), "its admission comes with the same tick");
        assert!(taken(&mut backlog).is_empty());
        assert_eq!((taken(&mut backlog), backlog.len()), (vec![7], 0), "it has waited long enough: the region refuses it");

        backlog.attach(attach(7));
        assert!(taken(&mut backlog).is_empty());
        backlog.detach(DetachOrder { character: 7, ..DetachOrder::default() });
        assert_eq!(taken(&mut backlog), [7], "it has left again");
    }

    #[test]
    fn a_message_that_waits_is_not_taken_twice() {
        let mut backlog = Backlog::default();
        let message = |from_group, seq| ChannelMessage { from_group, seq, ..ChannelMessage::default() };
        let taken = |backlog: &mut Backlog| -> Vec<(u64, u64)> {
            backlog.take(|_| false).messages.iter().map(|m| (m.from_group, m.seq)).collect()
        };
        for (from, seq) in [(1, 5), (1, 6), (2, 6), (1, 5), (1, 6), (1, 7)] {
            backlog.message(message(from, seq));
        }
        assert_eq!((taken(&mut backlog), backlog.len()), (vec![(1, 5), (1, 6), (2, 6), (1, 7)], 0));
        backlog.message(message(1, 7));
        assert_eq!(taken(&mut backlog), [(1, 7)], "whether it was taken, the region knows");
        backlog.message(message(1, 8));
        backlog.clear();
        backlog.message(message(1, 8));
        assert_eq!(taken(&mut backlog), [(1, 8)], "what was forgotten may come again");
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
