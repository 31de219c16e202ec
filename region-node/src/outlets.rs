//! What the outside holds on to, whichever replica stands in a region's place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use marchland_raft::Role;
use marchland_types::Term;
use tokio::sync::{Notify, watch};

use crate::arrivals::Arrivals;
use crate::backlog::BacklogGauge;
use crate::doubt::Doubt;
use crate::ghosts::GhostsShown;
use crate::port::RegionFacts;

/// Whether this replica performs effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// It does.
    pub owner: bool,
    /// The group stopped on this node; it never will again.
    pub stopped: bool,
}

/// Ends of a replica's channels to the outside. Clones share them.
#[derive(Clone)]
pub(crate) struct Outlets {
    pub(crate) ownership: Arc<watch::Sender<Ownership>>,
    pub(crate) roles: Arc<watch::Sender<Role>>,
    /// Counts changes of the outbox.
    pub(crate) posted: Arc<watch::Sender<u64>>,
    pub(crate) facts: Arc<watch::Sender<RegionFacts>>,
    /// How much waits for the next tick.
    pub(crate) gauge: BacklogGauge,
    /// Where messages of edges go.
    pub(crate) arrivals: Arrivals,
    /// What neighbours show.
    pub(crate) ghosts: GhostsShown,
    /// Somebody wants something of a region that may be asleep.
    pub(crate) demand: Arc<Notify>,
    /// What is doubted about the state.
    pub(crate) doubt: Doubt,
    /// When the next tick takes what waits for it.
    pub(crate) next_tick: NextTick,
}

/// When the next tick is due, in the node's monotonic time: the ticker says it, and whoever publishes tells edges. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct NextTick(Arc<AtomicU64>);

impl NextTick {
    /// It is due then.
    pub(crate) fn is_due(&self, at: Duration) {
        self.0.store(u64::try_from(at.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long it is until then; `None` if that was before, and nobody has said more.
    pub(crate) fn after(&self, now: Duration) -> Option<Duration> {
        Duration::from_micros(self.0.load(Ordering::Relaxed)).checked_sub(now)
    }
}

impl Default for Outlets {
    fn default() -> Self {
        let gauge = BacklogGauge::default();
        Self {
            ownership: Arc::default(),
            roles: Arc::new(watch::Sender::new(Role::Follower { term: Term(0), leader: None })),
            posted: Arc::default(),
            facts: Arc::default(),
            arrivals: Arrivals::new(gauge.clone()),
            gauge,
            ghosts: GhostsShown::default(),
            demand: Arc::default(),
            doubt: Doubt::default(),
            next_tick: NextTick::default(),
        }
    }
}
