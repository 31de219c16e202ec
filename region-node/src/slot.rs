//! Where a region's replica is kept, and how one is left behind whose rules do not return.
//!
//! A thread that loops holds its replica for as long as it likes. So a replica is never waited for without an end: it is *abandoned*, and
//! another takes its place with the same ends to the outside. What the abandoned one does from then on reaches nobody, for it must pass
//! the [`Fence`] before it tells anyone anything.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use marchland_region_core::{Doing, Game};
use tokio::sync::watch;

use crate::replica::Replica;

/// Jobs that may wait for one replica: as many as for a whole worker.
const WAITING_MAX: usize = 4096;

/// Stands between a replica and the outside.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    closed: Mutex<bool>,
    /// The same, to be looked at without waiting.
    seen: AtomicBool,
}

impl Fence {
    /// Passes, for as long as the guard lives; `None` when the replica was abandoned.
    pub(crate) fn pass(&self) -> Option<MutexGuard<'_, bool>> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        (!*closed).then_some(closed)
    }

    /// Nothing passes from here on. Waits for what passes at the moment, which is never a rule.
    fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.seen.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.seen.load(Ordering::Acquire)
    }
}

/// Something to do with a replica.
pub(crate) type SlotJob<G> = Box<dyn FnOnce(&mut Replica<G>) + Send>;

/// Jobs of one replica, one after the other, in the order in which they came.
struct Line<G: Game> {
    busy: bool,
    waiting: VecDeque<SlotJob<G>>,
}

/// One replica in its place.
pub(crate) struct Slot<G: Game> {
    replica: Mutex<Replica<G>>,
    line: Mutex<Line<G>>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) doing: Arc<Doing>,
    /// Whether a job of an abandoned replica came to its end after all.
    returned: watch::Sender<bool>,
}

impl<G: Game> Slot<G> {
    pub(crate) fn new(replica: Replica<G>) -> Arc<Self> {
        let (fence, doing) = (replica.fence(), replica.doing());
        let line = Mutex::new(Line { busy: false, waiting: VecDeque::new() });
        Arc::new(Self { replica: Mutex::new(replica), line, fence, doing, returned: watch::Sender::new(false) })
    }

    fn line(&self) -> MutexGuard<'_, Line<G>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a job, or leaves it to the thread that is busy with the replica: this one has others to serve. A job that finds the line
    /// full is dropped, and its answer with it.
    pub(crate) fn run(&self, job: SlotJob<G>) {
        if self.fence.is_closed() {
            return;
        }
        {
            let mut line = self.line();
            if line.busy {
                if line.waiting.len() < WAITING_MAX {
                    line.waiting.push_back(job);
                }
                return;
            }
            line.busy = true;
        }
        let mut next = Some(job);
        while let Some(job) = next {
            // A job that panicked dropped its answer channel, which stops the group; whoever still looks sees the last state.
            let done = catch_unwind(AssertUnwindSafe(|| job(&mut self.replica.lock().unwrap_or_else(PoisonError::into_inner))));
            if done.is_err() {
                tracing::error!("a region's job panicked; that region stops");
            }
            let closed = self.fence.is_closed();
            if closed {
                self.returned.send_replace(true);
            }
            let mut line = self.line();
            if closed {
                line.waiting.clear();
            }
            next = line.waiting.pop_front();
            line.busy = next.is_some();
        }
    }

    /// Leaves the replica to whatever holds it. Returns what tells when that has ended.
    pub(crate) fn abandon(&self) -> watch::Receiver<bool> {
        self.fence.close();
        self.returned.subscribe()
    }
}
