//! When a leader that no majority answers keeps still, so that whoever can be heard replaces it.
//!
//! A leader whose followers hear it and whom it does not hear would otherwise keep them from an election for as long as that lasts. So it
//! sends heartbeats only half of the time once its lease has run out:
//!
//! ```text
//!  last answer of a majority       lease out
//!   ├────────── sends ─────────────┼── still ──┼── sends ──┼── still ──┼─ …
//! ```
//!
//! The raft library does the same by its own clock, which can not be told that a group was at rest: after a night it would keep still
//! first. Here a group that wakes begins anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use marchland_types::ReplicaId;
use tokio::time::Instant;

/// A leader's look at who answers. Shared by a group's connections.
#[derive(Debug)]
pub(crate) struct Probe {
    lease: Duration,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When each follower last answered; those of this term.
    answered: BTreeMap<ReplicaId, Option<Instant>>,
    since: Instant,
}

impl Probe {
    pub(crate) fn new(lease: Duration, period: Duration) -> Self {
        Self { lease, period, state: Mutex::new(State { answered: BTreeMap::new(), since: Instant::now() }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries or heartbeats go to this follower from now on.
    pub(crate) fn follows(&self, follower: ReplicaId, now: Instant) {
        let mut state = self.state();
        state.answered.insert(follower, None);
        state.since = now;
    }

    /// It begins to lead, or was at rest.
    pub(crate) fn begin(&self, now: Instant) {
        self.state().since = now;
    }

    /// A follower answered what was sent to it then.
    pub(crate) fn answered(&self, follower: ReplicaId, sent: Instant) {
        if let Some(known) = self.state().answered.get_mut(&follower) {
            *known = (*known).max(Some(sent));
        }
    }

    /// Whether heartbeats are sent now.
    pub(crate) fn may_send(&self, now: Instant) -> bool {
        let state = self.state();
        // With the leader itself so many are a majority.
        let others = state.answered.len().div_ceil(2);
        let mut answers: Vec<Option<Instant>> = state.answered.values().copied().collect();
        answers.sort_unstable_by(|a, b| b.cmp(a));
        let heard = others.checked_sub(1).and_then(|last| answers.get(last).copied().flatten());
        let age = now.saturating_duration_since(heard.map_or(state.since, |heard| heard.max(state.since)));
        age < self.lease || !((age - self.lease).as_millis() / self.period.as_millis().max(1)).is_multiple_of(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(400);
    const PERIOD: Duration = Duration::from_millis(800);

    fn probe(now: Instant) -> Probe {
        let probe = Probe::new(LEASE, PERIOD);
        probe.follows(ReplicaId(2), now);
        probe.follows(ReplicaId(3), now);
        probe
    }

    #[test]
    fn a_leader_that_is_answered_by_a_majority_sends_always() {
        let began = Instant::now();
        let probe = probe(began);
        for step in 0..40 {
            let now = began + LEASE / 4 * step;
            assert!(probe.may_send(now), "{step}");
            probe.answered(ReplicaId(3), now);
        }
    }

    #[test]
    fn one_that_is_not_keeps_still_half_of_the_time() {
        let began = Instant::now();
        let probe = probe(began);
        let sends = |after: Duration| probe.may_send(began + after);
        assert!(sends(LEASE / 2) && !sends(LEASE) && !sends(LEASE + PERIOD / 2));
        assert!(sends(LEASE + PERIOD) && !sends(LEASE + PERIOD * 2));
        probe.begin(began + LEASE);
        assert!(sends(LEASE), "it begins anew");
        probe.answered(ReplicaId(9), began + LEASE * 3);
        assert!(!sends(LEASE * 3), "a stranger's answer says nothing");
    }

    #[test]
    fn whoever_is_alone_asks_nobody() {
        let began = Instant::now();
        let probe = Probe::new(LEASE, PERIOD);
        assert!(probe.may_send(began));
    }
}
