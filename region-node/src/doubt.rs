//! Whether this replica's state is the right one.
//!
//! Every tick's entry names the owner's hash after an earlier tick. A replica that has another one can not know whose is wrong, so it
//! asks all of them for theirs after that very tick, and the majority of the voters decides. Whoever is asked and has another hash
//! asks in turn: so an owner learns that it is the odd one.
//!
//! ```text
//! own hash is that of more than half of the voters     sound: the others find out about themselves
//! another one is                                        odd: this replica owns nothing any more, and is rebuilt
//! neither                                               open: too few are there, or all differ; nobody may judge
//! ```
//!
//! A replica that was just restored remembers no hashes: it accuses nobody, and nobody it, until it has lived through a tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use marchland_types::Tick;
use tokio::sync::watch;

/// A tick after which this replica has another hash than some other replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Which.
    pub tick: Tick,
    /// This replica's hash after it.
    pub own: u64,
}

/// Who is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This replica has what the majority has.
    Sound,
    /// The majority has this hash, and this replica another.
    Odd(u64),
    /// There is no majority.
    Open,
}

/// Judges by the hashes of the other voters after the same tick, as far as they told; `voters` counts all, this one included.
#[must_use]
pub fn judge(own: u64, others: &[u64], voters: usize) -> Verdict {
    let with = |hash: u64| others.iter().filter(|other| **other == hash).count();
    if 2 * (with(own) + 1) > voters {
        return Verdict::Sound;
    }
    match others.iter().find(|hash| **hash != own && 2 * with(**hash) > voters) {
        Some(hash) => Verdict::Odd(*hash),
        None => Verdict::Open,
    }
}

/// What a replica and whoever judges it share. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Doubt(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The newest one; whoever judges takes it.
    raised: watch::Sender<Option<Suspicion>>,
    condemned: AtomicBool,
}

impl Doubt {
    pub(crate) fn raise(&self, suspicion: Suspicion) {
        self.0.raised.send_replace(Some(suspicion));
    }

    pub(crate) fn raised(&self) -> watch::Receiver<Option<Suspicion>> {
        self.0.raised.subscribe()
    }

    pub(crate) fn is_condemned(&self) -> bool {
        self.0.condemned.load(Ordering::Acquire)
    }

    pub(crate) fn condemn(&self) {
        self.0.condemned.store(true, Ordering::Release);
    }

    /// The state is another one now.
    pub(crate) fn clear(&self) {
        self.0.condemned.store(false, Ordering::Release);
        self.0.raised.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_of_all_voters_decides() {
        assert_eq!(judge(7, &[7, 9], 3), Verdict::Sound);
        assert_eq!(judge(9, &[7, 7], 3), Verdict::Odd(7));
        // One is away: neither of the two can know.
        assert_eq!(judge(9, &[7], 3), Verdict::Open);
        assert_eq!(judge(7, &[7], 3), Verdict::Sound);
        assert_eq!(judge(9, &[7, 8], 3), Verdict::Open, "all differ");
        assert_eq!(judge(9, &[7, 7, 8], 5), Verdict::Open);
        assert_eq!(judge(9, &[7, 7, 7, 9], 5), Verdict::Odd(7));
        assert_eq!(judge(9, &[], 1), Verdict::Sound);
        // Two against two.
        assert_eq!(judge(9, &[9, 7, 7], 4), Verdict::Open);
    }

    #[test]
    fn a_new_state_is_judged_anew() {
        let doubt = Doubt::default();
        doubt.raise(Suspicion { tick: Tick(3), own: 1 });
        doubt.condemn();
        assert!(doubt.is_condemned());
        doubt.clear();
        assert!(!doubt.is_condemned() && doubt.raised().borrow().is_none());
    }
}
