//! How many connections there may be, in all and from one address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Shared;
use crate::options::EdgeLimits;

/// Counts of open connections, shared by all workers of an edge.
pub(crate) struct Admission {
    limits: EdgeLimits,
    counts: Mutex<Counts>,
    /// Per worker, so that each can see whether it has more than its share.
    workers: Vec<AtomicUsize>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// A place that was given to a connection, free again when this is dropped.
pub(crate) struct Admitted {
    shared: Arc<Shared>,
    address: IpAddr,
    worker: usize,
}

impl Admission {
    pub(crate) fn new(limits: EdgeLimits, workers: usize) -> Self {
        Self { limits, counts: Mutex::default(), workers: (0..workers).map(|_| AtomicUsize::new(0)).collect() }
    }

    /// Whether a worker may take another connection although others have fewer.
    pub(crate) fn is_workers_turn(&self, worker: usize) -> bool {
        /// Connections by which one worker may be ahead.
        const AHEAD: usize = 8;
        let least = self.workers.iter().map(|count| count.load(Relaxed)).min().unwrap_or(0);
        self.workers[worker].load(Relaxed) < least + AHEAD
    }
}

/// A place for a connection, or `None` when there is no room for it.
pub(crate) fn admit(shared: &Arc<Shared>, worker: usize, address: IpAddr) -> Option<Admitted> {
    let admission = &shared.admission;
    let mut counts = admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
    let here = counts.by_address.get(&address).copied().unwrap_or(0);
    if counts.all >= admission.limits.connections_max || here >= admission.limits.connections_per_address_max {
        return None;
    }
    counts.all += 1;
    counts.by_address.insert(address, here + 1);
    admission.workers[worker].fetch_add(1, Relaxed);
    Some(Admitted { shared: shared.clone(), address, worker })
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let admission = &self.shared.admission;
        let mut counts = admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(here) = counts.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                counts.by_address.remove(&self.address);
            }
        }
        admission.workers[self.worker].fetch_sub(1, Relaxed);
    }
}
