//! What edges sent and the region's worker has not looked at yet.
//!
//! An owner takes it all with its next tick, so the worker is not woken for each of hundreds of messages a second: what
//! is said between two ticks counts from the same tick anyway. Order is that of arrival, over all edges.
//!
//! Bounded with the backlog: what waits here counts in its gauge, above which readers of edge streams pause.

use std::sync::{Arc, Mutex, PoisonError};

use marchland_proto::cluster::{EdgeToRegion, NodeToEdge};
use tokio::sync::mpsc;

use crate::backlog::BacklogGauge;
use crate::port::EdgeId;

/// Something that an edge's stream did.
pub(crate) enum Arrival {
    /// It opened; batches for it go there.
    Joined(mpsc::Sender<NodeToEdge>),
    /// It brought this.
    Message(EdgeToRegion),
    /// It closed.
    Left,
}

/// What streams of edges did, in that order. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Arrivals {
    waiting: Arc<Mutex<Vec<(EdgeId, Arrival)>>>,
    gauge: BacklogGauge,
}

impl Arrivals {
    pub(crate) fn new(gauge: BacklogGauge) -> Self {
        Self { waiting: Arc::default(), gauge }
    }

    pub(crate) fn push(&self, edge: EdgeId, arrival: Arrival) {
        self.gauge.arrived(weight(&arrival));
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((edge, arrival));
    }

    /// Takes everything.
    pub(crate) fn take(&self) -> Vec<(EdgeId, Arrival)> {
        let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.gauge.looked_at(taken.iter().map(|(_, arrival)| weight(arrival)).sum());
        taken
    }
}

/// As many as the inputs in a message, and one for whatever else it says.
fn weight(arrival: &Arrival) -> usize {
    let Arrival::Message(message) = arrival else { return 1 };
    let inputs: usize = message.inputs.iter().map(|session| session.inputs.len().max(1)).sum();
    1 + inputs + message.attaches.len() + message.detaches.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backlog::BACKLOG_PAUSE;
    use marchland_proto::storage::SessionInputs;

    #[test]
    fn what_arrived_is_taken_once_in_order_and_counts_until_then() {
        let gauge = BacklogGauge::default();
        let arrivals = Arrivals::new(gauge.clone());
        let message =
            |inputs| Arrival::Message(EdgeToRegion { inputs: vec![SessionInputs::default(); inputs], ..EdgeToRegion::default() });
        arrivals.push(EdgeId(2), message(1));
        arrivals.push(EdgeId(1), message(BACKLOG_PAUSE));
        assert!(gauge.is_long());
        let edges: Vec<EdgeId> = arrivals.take().into_iter().map(|(edge, _)| edge).collect();
        assert_eq!(edges, [EdgeId(2), EdgeId(1)]);
        assert!(arrivals.take().is_empty() && !gauge.is_long());
        (0..=BACKLOG_PAUSE).for_each(|_| arrivals.push(EdgeId(1), message(0)));
        assert!(gauge.is_long(), "messages that say nothing count as well");
    }
}
