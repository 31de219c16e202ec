//! What regions show each other, on its way in and out: of each pair only the newest waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use marchland_proto::cluster::GhostPost;
use marchland_proto::storage::GhostBatch;
use marchland_types::{GroupId, level};
use tokio::sync::Notify;

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

    /// Whether something lively is shown that the region has not taken.
    pub(crate) fn are_lively(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().any(|batch| batch.lively)
    }

    /// Takes all of them, by sender.
    pub(crate) fn take(&self) -> Vec<GhostBatch> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
    }
}

/// Posts of a node's owners that wait to be sent, all regions together. One that is not sent in time is stood in for by the next.
#[derive(Clone, Default)]
pub struct GhostPosts(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    posts: Mutex<BTreeMap<(GroupId, u64), GhostPost>>,
    soon: Notify,
}

impl GhostPosts {
    /// Shows a neighbour what is near it, in place of what waits for it from the same region.
    pub(crate) fn put(&self, post: GhostPost) {
        let key = (GroupId(post.to_group), post.batch.as_ref().map_or(0, |batch| batch.from_group));
        self.0.posts.lock().unwrap_or_else(PoisonError::into_inner).insert(key, post);
        self.0.soon.notify_one();
    }

    /// Resolves when something waits.
    pub async fn some(&self) {
        self.0.soon.notified().await;
    }

    /// Takes everything, by receiver.
    #[must_use]
    pub fn take(&self) -> Vec<GhostPost> {
        std::mem::take(&mut *self.0.posts.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
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

    #[tokio::test]
    async fn of_each_pair_the_newest_goes_out() {
        let posts = GhostPosts::default();
        for (to_group, from_group, tick) in [(2, 1, 4), (3, 1, 4), (2, 1, 6), (2, 5, 1)] {
            let batch = GhostBatch { from_group, tick, ..GhostBatch::default() };
            posts.put(GhostPost { to_group, batch: Some(batch) });
        }
        posts.some().await;
        let ticks: Vec<(u64, u64)> = posts.take().into_iter().map(|post| (post.to_group, post.batch.unwrap().tick)).collect();
        assert_eq!(ticks, [(2, 6), (2, 1), (3, 4)]);
        assert!(posts.take().is_empty());
    }
}
