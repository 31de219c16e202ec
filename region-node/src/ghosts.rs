//! What neighbours have shown since the last tick: of each only the newest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use marchland_proto::storage::GhostBatch;
use marchland_types::level;

/// Neighbours whose ghosts wait for the next tick. More than any region borders on; a peer can not make it larger.
pub(crate) const SHOWING_MAX: usize = 64;

/// Clones share it.
#[derive(Clone, Default)]
pub(crate) struct GhostsShown(Arc<Mutex<BTreeMap<u64, GhostBatch>>>);

impl GhostsShown {
    /// Keeps a batch unless a newer one of its sender waits.
    pub(crate) fn put(&self, batch: GhostBatch) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = shown.get_mut(&batch.from_group) {
            if waiting.tick < batch.tick {
                *waiting = batch;
            }
        } else if shown.len() < SHOWING_MAX {
            shown.insert(batch.from_group, batch);
        }
        level!("region.ghosts_waiting", shown.len(), SHOWING_MAX);
    }

    /// Takes all of them, by sender.
    pub(crate) fn take(&self) -> Vec<GhostBatch> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_sender_the_newest_waits() {
        let shown = GhostsShown::default();
        for (from_group, tick) in [(2, 5), (1, 9), (2, 7), (2, 6)] {
            shown.put(GhostBatch { from_group, tick, ..GhostBatch::default() });
        }
        assert_eq!(shown.take().iter().map(|batch| (batch.from_group, batch.tick)).collect::<Vec<_>>(), [(1, 9), (2, 7)]);
        assert!(shown.take().is_empty());
        for from_group in 0..1000 {
            shown.put(GhostBatch { from_group, ..GhostBatch::default() });
        }
        assert_eq!(shown.take().len(), SHOWING_MAX);
    }
}
